//! What a run found.

use std::fmt::Write as _;

use crate::accepted::Accepted;
use crate::compare::Difference;

/// A case that ran.
#[derive(Debug)]
pub struct CaseReport {
    /// `<variant>/<what>/<of what>`.
    pub name: String,
    /// Why it failed, readable; `None` when it passed.
    pub failure: Option<String>,
    /// Differences that are listed as accepted, with the entry that does.
    pub accepted: Vec<(Difference, &'static Accepted)>,
}

/// The cases of a suite.
#[derive(Debug)]
pub struct SuiteReport {
    /// Name of the suite.
    pub name: &'static str,
    /// Cases in the order they ran.
    pub cases: Vec<CaseReport>,
}

impl SuiteReport {
    /// Number of cases that passed.
    pub fn passed(&self) -> usize {
        self.cases.iter().filter(|case| case.failure.is_none()).count()
    }

    /// Number of cases that failed.
    pub fn failed(&self) -> usize {
        self.cases.len() - self.passed()
    }

    /// `S: N passed, N failed`.
    pub fn summary(&self) -> String {
        format!("{}: {} passed, {} failed", self.name, self.passed(), self.failed())
    }
}

/// A readable list of differences.
pub fn describe(differences: &[Difference]) -> String {
    let mut text = String::new();
    for difference in differences {
        let _written = writeln!(text, "    {difference}");
    }
    text
}
