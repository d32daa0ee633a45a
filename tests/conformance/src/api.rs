//! Suites `api` and `label-validation`: requests to the REST API of one control plane, in this process, freshly
//! loaded per case (conformance/README.md §3, §7).
//!
//! A step whose endpoint needs the policy engine and is answered with 501 makes its case *deferred*: such cases
//! are listed, and are neither passed nor failed. Every other answer is compared, at these endpoints too.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::Options;
use crate::report::{CaseReport, SuiteReport};
use case::Case;
use step::Outcome;

mod case;
mod compare;
mod endpoint;
mod server;
mod step;

/// Runs the suite that lies in the folder of its name.
pub(crate) async fn run(
    suite: &'static str,
    options: &Options,
    done: &mut dyn FnMut(&CaseReport),
) -> Result<SuiteReport> {
    let root = options.data.join(suite);
    ensure!(root.is_dir(), "{} is no directory", root.display());
    let mut cases = Vec::new();
    for dir in case::directories(&root)? {
        let name = dir.strip_prefix(&root).unwrap_or(&dir).display().to_string();
        if options.case.as_ref().is_some_and(|part| !name.contains(part)) {
            continue;
        }
        let mut report = CaseReport { name, ..CaseReport::default() };
        match run_case(suite, &dir).await {
            Ok(Outcome::Passed) => {}
            Ok(Outcome::Deferred { endpoint }) => report.deferred = Some(endpoint),
            Err(error) => report.failure = Some(format!("    {error:#}")),
        }
        done(&report);
        cases.push(report);
    }
    Ok(SuiteReport { name: suite, cases })
}

async fn run_case(suite: &str, dir: &Path) -> Result<Outcome> {
    let case = Case::read(dir)?;
    let router = server::start(suite, dir, &case)?;
    for (number, step) in case.steps.iter().enumerate() {
        let outcome = step::run(&router, dir, step).await.with_context(|| format!("step {number}"))?;
        if let Outcome::Deferred { .. } = outcome {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Passed)
}
