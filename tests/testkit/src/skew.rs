//! Programs with a wrong wall clock.
//!
//! A small library, loaded before the C library, moves the wall clock of a process and of its children; monotonic time is
//! left alone, as with a machine whose clock was set wrongly. Nothing in the programs knows of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

const SOURCE: &str = include_str!("skew.c");

/// Builds the library in `dir`; gives the environment of processes whose clock is off by that many seconds. `None` where
/// there is no C compiler.
///
/// # Errors
/// It does not compile.
pub fn environment(dir: &Path, seconds: i64) -> Result<Option<BTreeMap<String, String>>> {
    let (source, library) = (dir.join("skew.c"), dir.join("libskew.so"));
    std::fs::write(&source, SOURCE)?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source);
    let Ok(output) = compiler.output() else { return Ok(None) };
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let library = library.display().to_string();
    Ok(Some(BTreeMap::from([
        ("LD_PRELOAD".to_owned(), library),
        ("SKEW_SECONDS".to_owned(), seconds.to_string()),
    ])))
}
