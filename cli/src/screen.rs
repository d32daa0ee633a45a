//! Where output goes: results to standard output, everything else to standard error; colour only on terminals.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Result;

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    is_on: bool,
}

impl Style {
    /// No escape sequences at all.
    pub(crate) const PLAIN: Style = Style { is_on: false };
    /// For terminals.
    #[cfg(test)]
    pub(crate) const COLOUR: Style = Style { is_on: true };

    fn paint(self, code: &str, text: &str) -> String {
        if self.is_on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(crate) fn careful(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn place(self, text: &str) -> String {
        self.paint("36", text)
    }

    pub(crate) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }
}

/// Standard output and standard error of the program.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Style of what goes to standard output.
    pub(crate) style: Style,
    /// Style of what goes to standard error.
    pub(crate) notes: Style,
}

impl Screen {
    /// Colours where a terminal is, unless `NO_COLOR` is set (to anything) or `TERM` is `dumb`.
    pub(crate) fn of_process() -> Screen {
        let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let style = |is_terminal: bool| Style { is_on: is_wanted && is_terminal };
        Screen {
            style: style(std::io::stdout().is_terminal()),
            notes: style(std::io::stderr().is_terminal()),
        }
    }

    /// Text as it is; a reader that went away (`| head`) is an error that ends the program silently.
    pub(crate) fn print(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// A line.
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        self.print(&format!("{text}\n"))
    }

    /// A line beside the result.
    pub(crate) fn note(&self, text: &str) {
        let _nobody_reads = writeln!(std::io::stderr(), "{text}");
    }

    /// A warning.
    pub(crate) fn warn(&self, text: &str) {
        self.note(&format!("{} {text}", self.notes.careful("Warning:")));
    }
}
