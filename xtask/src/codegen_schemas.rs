//! JSON Schemas, custom resource definitions and the OpenAPI document.

use anyhow::{Context, Result, ensure};
use graticule_model::schema::published::{self, File};

use crate::cargo;

fn files() -> Vec<File> {
    let mut files = published::files();
    files.push(graticule_api::openapi::file());
    files
}

/// Writes the files; removes those of kinds that are no more.
pub(crate) fn write() -> Result<()> {
    for file in surplus()? {
        std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
    }
    for file in files() {
        let path = cargo::root().join(&file.path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::write(&path, file.text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Fails when a file is missing, old or surplus.
pub(crate) fn fresh() -> Result<()> {
    for file in files() {
        let stored = std::fs::read_to_string(cargo::root().join(&file.path)).unwrap_or_default();
        ensure!(stored == file.text, "{} is not what `cargo xtask codegen` makes", file.path);
    }
    let surplus = surplus()?;
    ensure!(surplus.is_empty(), "nothing makes {surplus:?}");
    Ok(())
}

/// Files in the generated folders that nothing makes.
fn surplus() -> Result<Vec<std::path::PathBuf>> {
    let made: Vec<_> = files().into_iter().map(|file| cargo::root().join(file.path)).collect();
    let mut surplus = Vec::new();
    for folder in [published::SCHEMAS, published::DEFINITIONS] {
        let Ok(entries) = std::fs::read_dir(cargo::root().join(folder)) else { continue };
        for entry in entries {
            let path = entry?.path();
            if !made.contains(&path) {
                surplus.push(path);
            }
        }
    }
    Ok(surplus)
}
