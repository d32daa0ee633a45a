//! What a run found.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::accepted::Accepted;
use crate::compare::Difference;

/// A case that ran.
#[derive(Debug, Default)]
pub struct CaseReport {
    /// `<variant>/<what>/<of what>`.
    pub name: String,
    /// Why it failed, readable; `None` when it passed.
    pub failure: Option<String>,
    /// The endpoint that needs the policy engine, which is not there yet: the case neither passed nor failed.
    pub deferred: Option<String>,
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
        self.cases.iter().filter(|case| case.failure.is_none() && case.deferred.is_none()).count()
    }

    /// Number of cases that failed.
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|case| case.failure.is_some()).count()
    }

    /// The cases that need the policy engine, by group, each with its endpoint; empty when there are none.
    pub fn deferred(&self) -> String {
        let mut groups: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for case in &self.cases {
            let Some(endpoint) = &case.deferred else { continue };
            let (group, name) = case.name.split_once(['/', '#']).unwrap_or(("", &case.name));
            groups.entry(group).or_default().push((name, endpoint));
        }
        let count: usize = groups.values().map(Vec::len).sum();
        if count == 0 {
            return String::new();
        }
        let mut text = format!("{}: needs the policy engine: {count}\n", self.name);
        for (group, cases) in groups {
            let _written = writeln!(text, "  {group}: {}", cases.len());
            for (name, endpoint) in cases {
                let _written = writeln!(text, "    {name} ({endpoint})");
            }
        }
        text
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
