//! `grat settings`: the flags that all commands have, with their variables.

use anyhow::Result;
use clap::CommandFactory;
use graticule_settings::{Output, Page, flag_rows};

/// The list in some form; `C` is the whole command line.
///
/// # Errors
/// It does not serialise.
pub(crate) fn to_text<C: CommandFactory>(output: Output) -> Result<String> {
    let rows = flag_rows(&C::command(), &[]);
    let about = "The command line client. These flags stand before or after every command; each command lists its own with \
        `--help`.";
    let page = Page { program: "grat", about, rows, foreign: &[] };
    page.to_text(output).map_err(|error| anyhow::anyhow!(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_current() {
        let section = to_text::<crate::Arguments>(Output::Markdown).expect("a section");
        let page = include_str!("../../docs/settings.md");
        assert!(page.contains(&section), "docs/settings.md is not what `cargo xtask codegen` makes");
    }
}
