//! Suite `rest-recordings`: every recorded transcript of the REST API (`recordings/rest`), sent to fresh control
//! plane processes and compared step by step.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::StreamExt as _;
use graticule_testkit::{Binaries, wait};
use regex::Regex;
use serde_json::Value;

use crate::accepted::Accepted;
use crate::compare::{Bindings, Difference};
use crate::report::{CaseReport, SuiteReport, describe};
use crate::{Options, accepted};
use client::{Answer, Request, send};
use site::Site;
use transcript::{Group, Layout, Step, Transcript};

pub(crate) mod client;
mod differences;
mod expect;
pub(crate) mod kumactl;
mod site;
mod transcript;
mod values;

/// Name of the suite.
pub(crate) const NAME: &str = "rest-recordings";

/// Groups of files that run at the same time.
const PARALLEL: usize = 4;
/// How often processes are started whose ports somebody else took.
const START_ATTEMPTS: u32 = 3;
/// How long our state may take until a GET is answered as recorded.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// Time that one file may lose with waiting in vain.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of our answer that a failure shows.
const SHOWN_MAX: usize = 600;

/// Endpoints whose answer needs policy matching (rest-api.md §8).
static MATCHING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^/meshes/[^/]+/(?:dataplanes/[^/]+/(?:(?P<proxy>_rules|_policies|_layout|_config|policies)",
        r"|_inbounds/[^/]+/(?P<inbound>_policies)|_outbounds/[^/]+/(?P<outbound>_policies|_routes)",
        r"|_outbounds/[^/]+/_routes/[^/]+/(?P<route>_policies))",
        r"|(?P<kind>mesh\w+)/[^/]+/(?P<policy>_resources/dataplanes|dataplanes))(?:\?.*)?$"
    ))
    .expect("a constant expression")
});

/// Runs the suite.
pub(crate) async fn run(
    options: &Options,
    binaries: &Binaries,
    done: &mut dyn FnMut(&CaseReport),
) -> Result<SuiteReport> {
    let groups = transcript::groups(&options.data, options.case.as_deref())?;
    let dir = options.work.join("rest");
    let runs = groups.into_iter().enumerate().map(|(number, group)| {
        let dir = dir.join(number.to_string());
        Box::pin(async move { run_group(options, binaries, &dir, &group).await })
    });
    let mut runs = futures::stream::iter(runs).buffered(PARALLEL);
    let mut cases = Vec::new();
    while let Some(reports) = runs.next().await {
        for report in reports {
            if options.case.as_ref().is_none_or(|part| report.name.contains(part.as_str())) {
                done(&report);
                cases.push(report);
            }
        }
    }
    if options.case.is_none() {
        let report = accepted::stale(NAME, differences::ACCEPTED, &cases);
        done(&report);
        cases.push(report);
    }
    Ok(SuiteReport { name: NAME, cases })
}

/// Somebody else on the machine may take a port between the look at it and its use.
async fn start(binaries: &Binaries, dir: &Path, group: &Group) -> Result<Site> {
    let mut attempt = 1;
    loop {
        match Site::start(binaries, &dir.join(attempt.to_string()), group).await {
            Err(error) if attempt < START_ATTEMPTS && format!("{error:#}").contains("already in use") => {}
            outcome => return outcome,
        }
        attempt += 1;
    }
}

async fn run_group(options: &Options, binaries: &Binaries, dir: &Path, group: &Group) -> Vec<CaseReport> {
    let first = group.transcripts.first().map(|transcript| transcript.name.clone()).unwrap_or_default();
    let mut site = match start(binaries, dir, group).await {
        Ok(site) => site,
        Err(error) => {
            let text = format!("    the processes do not start: {error:#}\n");
            return vec![failed(format!("{first}#start"), text)];
        }
    };
    let mut reports = Vec::new();
    for transcript in &group.transcripts {
        let mut run = Run {
            data: &options.data,
            transcript,
            layout: group.layout,
            site: &mut site,
            patience: PATIENCE,
        };
        reports.append(&mut run.steps().await);
    }
    if let Err(error) = site.check_running() {
        reports.push(failed(format!("{first}#end"), format!("    {error:#}\n")));
    }
    reports
}

/// A file being replayed.
struct Run<'a> {
    data: &'a Path,
    transcript: &'a Transcript,
    layout: Layout,
    site: &'a mut Site,
    patience: Duration,
}

/// The outcome of one try.
struct Tried {
    accepted: Vec<(Difference, &'static Accepted)>,
    unlisted: Vec<Difference>,
    answer: Answer,
}

impl Run<'_> {
    async fn steps(&mut self) -> Vec<CaseReport> {
        let mut bindings = Bindings::shared();
        if !self.transcript.tokens.is_null() {
            bindings.set("jwt-1", &self.site.admin_token);
        }
        let mut reports = Vec::new();
        for step in &self.transcript.steps {
            let name = step.case(&self.transcript.name);
            let report = match self.step(step, &name, &mut bindings).await {
                Ok(report) => report,
                Err(error) => failed(name, format!("    {error:#}\n")),
            };
            reports.push(report);
        }
        reports
    }

    async fn step(&mut self, step: &Step, name: &str, bindings: &mut Bindings) -> Result<CaseReport> {
        if step.note == "zone stopped" {
            self.site.stop_zone().await?;
        }
        let port = self.port(step)?;
        bindings.set("port", &port.to_string());
        bindings.set("address", &format!("127.0.0.1:{port}"));
        let request = self.request(step, bindings)?;
        let before = self.before(step, port, &request).await?;
        let start = wait::now();
        loop {
            let mut tried_bindings = bindings.clone();
            let answer = send(port, &request).await?;
            if let Some(endpoint) = needs_matching(step, &answer) {
                let deferred = Some(endpoint);
                return Ok(CaseReport { name: name.into(), deferred, ..CaseReport::default() });
            }
            let tried = self.compare(step, name, answer, &mut tried_bindings)?;
            let waited = start.elapsed();
            let is_late = waited > SETTLE_LIMIT || waited > self.patience || step.method != "GET";
            if tried.unlisted.is_empty() || is_late {
                self.restore(step, port, before, &tried.answer).await?;
                if tried.unlisted.is_empty() {
                    *bindings = tried_bindings;
                } else {
                    self.patience = self.patience.saturating_sub(waited);
                }
                return Ok(report(step, name, tried));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn port(&self, step: &Step) -> Result<u16> {
        let is_zone = step.at_zone || self.transcript.is_zone && self.layout != Layout::Zone;
        let control_plane =
            if is_zone { self.site.zone.as_ref().context("no zone runs")? } else { &self.site.main };
        let is_diagnostics = self.transcript.name.starts_with("24-diagnostics-");
        Ok(if is_diagnostics { control_plane.diagnostics } else { control_plane.api })
    }

    fn request(&self, step: &Step, bindings: &mut Bindings) -> Result<Request> {
        let tokens = &self.transcript.tokens;
        let mut substitute = |text: &str| values::substitute(text, tokens, bindings);
        let path = substitute(&step.path)?;
        let given = step.request.get("headers").and_then(Value::as_object);
        let mut headers = Vec::new();
        for (name, value) in given.into_iter().flatten() {
            if let Some(value) = value.as_str() {
                headers.push((name.clone(), substitute(value)?));
            }
        }
        let body = match (step.request.get("body_text").and_then(Value::as_str), step.request.get("body")) {
            (Some(text), _) => Some(text.to_owned()),
            (None, Some(body)) => {
                let mut body = body.clone();
                values::substitute_in(&mut body, tokens, bindings)?;
                Some(body.to_string())
            }
            (None, None) => None,
        };
        let is_given =
            |name: &str| given.is_some_and(|given| given.keys().any(|key| key.eq_ignore_ascii_case(name)));
        let port = bindings.get("port").unwrap_or_default();
        let mut defaults =
            vec![("Host", format!("127.0.0.1:{port}")), ("Accept", "application/json".to_owned())];
        if body.is_some() {
            defaults.push(("Content-Type", "application/json".to_owned()));
        }
        for (name, value) in defaults {
            if !is_given(name) {
                headers.push((name.to_owned(), value));
            }
        }
        Ok(Request { method: step.method.clone(), path, headers, body: body.unwrap_or_default() })
    }

    fn compare(&self, step: &Step, case: &str, answer: Answer, bindings: &mut Bindings) -> Result<Tried> {
        let mut as_recorded = answer.clone();
        for (ours, recorded) in &self.site.moved {
            let word = Regex::new(&format!(r"\b{}\b", regex::escape(ours)))?;
            as_recorded.body = word.replace_all(&as_recorded.body, *recorded).into_owned();
        }
        let see = |reference: &str| self.see(reference);
        let found = expect::differences(step, &as_recorded, &see, bindings)?;
        let (mut accepted, mut unlisted) = (Vec::new(), Vec::new());
        for difference in found {
            let entry = accepted::find(differences::ACCEPTED, case, &difference)
                .or_else(|| accepted::find(differences::RACES, case, &difference));
            match entry {
                Some(entry) => accepted.push((difference, entry)),
                None => unlisted.push(difference),
            }
        }
        Ok(Tried { accepted, unlisted, answer })
    }

    /// The body of the first step of another file, with what the reference says in brackets.
    fn see(&self, reference: &str) -> Result<Value> {
        let (file, but) = reference.split_once(" (").unwrap_or((reference, ""));
        let path = self.data.join("recordings/rest").join(format!("{file}.json"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let document: Value = serde_json::from_str(&text)?;
        let mut body = document.pointer("/steps/0/response/body").cloned().context(file.to_owned())?;
        match but.trim_end_matches(')') {
            "" => {}
            "localhostIsAdmin false" => {
                let place =
                    body.pointer_mut("/apiServer/authn/localhostIsAdmin").context("localhostIsAdmin")?;
                *place = false.into();
            }
            unknown => return Err(anyhow!("what is {unknown:?}?")),
        }
        Ok(body)
    }

    /// What a write in YAML would change: the reference refuses it, so later steps are about a system without it.
    async fn before(&self, step: &Step, port: u16, request: &Request) -> Result<Option<Answer>> {
        let is_yaml = request.header("content-type").is_some_and(|value| value.contains("yaml"));
        if step.method != "PUT" || !is_yaml {
            return Ok(None);
        }
        send(port, &Request::get(port, &request.path)).await.map(Some)
    }

    async fn restore(&self, step: &Step, port: u16, before: Option<Answer>, answer: &Answer) -> Result<()> {
        let Some(before) = before.filter(|_| step.status() >= 400 && answer.status < 300) else {
            return Ok(());
        };
        let request = if before.status == 404 {
            Request { method: "DELETE".into(), ..Request::get(port, &step.path) }
        } else {
            Request::with_body(port, "PUT", &step.path, before.body)
        };
        let restored = send(port, &request).await?;
        if restored.status >= 300 {
            return Err(anyhow!("cannot undo a write in YAML: {}: {}", restored.status, restored.body));
        }
        Ok(())
    }
}

/// The endpoint, when its recorded answer needs the policy engine and ours says that it is not there yet.
fn needs_matching(step: &Step, answer: &Answer) -> Option<String> {
    if answer.status != 501 || !(200..300).contains(&step.status()) {
        return None;
    }
    let captures = MATCHING.captures(&step.path)?;
    let last =
        |name: &str, prefix: &str| captures.name(name).map(|found| format!("{prefix}{}", found.as_str()));
    last("proxy", "dataplanes/{name}/")
        .or_else(|| last("inbound", "dataplanes/{name}/_inbounds/{kri}/"))
        .or_else(|| last("outbound", "dataplanes/{name}/_outbounds/{kri}/"))
        .or_else(|| last("route", "dataplanes/{name}/_outbounds/{kri}/_routes/{kri}/"))
        .or_else(|| last("policy", "{policy}/{name}/"))
}

fn failed(name: String, failure: String) -> CaseReport {
    CaseReport { name, failure: Some(failure), ..CaseReport::default() }
}

fn report(step: &Step, name: &str, tried: Tried) -> CaseReport {
    let failure = (!tried.unlisted.is_empty()).then(|| {
        let shown: String = tried.answer.body.chars().take(SHOWN_MAX).collect();
        let sent = step.request.get("body").or_else(|| step.request.get("body_text"));
        let sent = sent.map(|sent| format!("    sent: {sent}\n")).unwrap_or_default();
        let note = if step.note.is_empty() { String::new() } else { format!("    note: {}\n", step.note) };
        format!(
            "{note}{sent}{}    ours: {} {}\n",
            describe(&tried.unlisted),
            tried.answer.status,
            shown.trim_end()
        )
    });
    CaseReport { name: name.into(), failure, accepted: tried.accepted, ..CaseReport::default() }
}
