//! Violations: what is wrong with a resource, each with the path of the field.

use std::fmt;

/// One rule that a resource breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path from the root of the document, such as `spec.to[0].default.idleTimeout`; may be empty.
    pub path: String,
    /// What is wrong, without the path.
    pub message: String,
}

/// An ordered list of violations; empty means valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    /// Adds one violation.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation { path: path.into(), message: message.into() });
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok` when empty, else the violations as an error.
    pub fn into_result(self) -> Result<(), Violations> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            if violation.path.is_empty() {
                f.write_str(&violation.message)?;
            } else {
                write!(f, "{}: {}", violation.path, violation.message)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}
