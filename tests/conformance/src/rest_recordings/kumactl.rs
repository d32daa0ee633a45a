//! Suite `kumactl`: what the stock `kumactl` was recorded to send (`recordings/rest/kumactl.json`) must be answered
//! with the same status and content type; and `grat`, given the same command lines, must say the same.

use std::path::Path;

use anyhow::{Context, Result, bail};
use graticule_testkit::federation::START_LIMIT;
use graticule_testkit::{Binaries, process};
use serde_json::{Map, Value, json};

use super::client::{Request, send};
use super::site::Site;
use super::transcript::{Group, Layout};
use super::{MATCHING, failed};
use crate::compare::{Bindings, Difference, Found, compare};
use crate::report::{CaseReport, SuiteReport, describe};
use crate::{Options, accepted};
use command::Command;

mod command;
mod differences;
mod said;

/// What `grat` says of an answer 501.
const NOT_YET: &str = "this version of the control plane cannot do it yet";

/// Name of the suite.
pub(crate) const NAME: &str = "kumactl";

/// Runs the suite: both parts at the same time, each against control planes of its own, commands in order.
pub(crate) async fn run(
    options: &Options,
    binaries: &Binaries,
    done: &mut dyn FnMut(&CaseReport),
) -> Result<SuiteReport> {
    let commands = command::read(&options.data)?;
    let [of_requests, of_grat] = ["requests", "grat"].map(|part| options.work.join(NAME).join(part));
    let (requests, grat) = tokio::join!(
        Box::pin(replay_requests(binaries, &of_requests, &commands)),
        Box::pin(replay_grat(binaries, &of_grat, &commands)),
    );
    let mut all = requests?;
    all.append(&mut grat?);
    let is_whole = options.case.is_none();
    if is_whole {
        all.push(accepted::stale(NAME, differences::ACCEPTED, &all));
    }
    let wanted =
        |case: &CaseReport| options.case.as_ref().is_none_or(|part| case.name.contains(part.as_str()));
    let cases: Vec<CaseReport> = all.into_iter().filter(wanted).collect();
    cases.iter().for_each(done);
    Ok(SuiteReport { name: NAME, cases })
}

/// Global, the zone and its proxy, as the recording had them.
async fn start(binaries: &Binaries, dir: &Path) -> Result<Site> {
    let group = Group { layout: Layout::Connected, settings: &[], transcripts: Vec::new() };
    Site::start(binaries, dir, &group).await
}

fn judged(name: String, found: Vec<Difference>, shown: &str) -> CaseReport {
    let (listed, unlisted) = accepted::split(differences::ACCEPTED, &name, found);
    let failure = (!unlisted.is_empty()).then(|| format!("{}{shown}", describe(&unlisted)));
    CaseReport { name, failure, accepted: listed, ..CaseReport::default() }
}

/// Sends every recorded request of every command.
async fn replay_requests(binaries: &Binaries, dir: &Path, commands: &[Command]) -> Result<Vec<CaseReport>> {
    let mut site = start(binaries, dir).await?;
    let mut cases = Vec::new();
    for command in commands {
        for (index, request) in command.requests.iter().enumerate() {
            let name = format!("requests/{}#{}", command.title(), index + 1);
            let case = match answered(&site, request).await {
                Ok(Outcome::Deferred(endpoint)) => {
                    CaseReport { name, deferred: Some(endpoint), ..CaseReport::default() }
                }
                Ok(Outcome::Compared(found, shown)) => judged(name, found, &shown),
                Err(error) => failed(name, format!("    {error:#}\n")),
            };
            cases.push(case);
        }
    }
    site.check_running()?;
    Ok(cases)
}

enum Outcome {
    /// Needs the policy engine.
    Deferred(String),
    Compared(Vec<Difference>, String),
}

/// One request, with the headers that `kumactl` sent.
async fn answered(site: &Site, recorded: &Value) -> Result<Outcome> {
    let text = |key: &str| recorded[key].as_str().unwrap_or_default();
    let port = match text("at") {
        "global" => site.main.api,
        "zone" => site.zone.as_ref().context("no zone")?.api,
        other => bail!("a request at {other:?}"),
    };
    let query = text("query");
    let path = if query.is_empty() { text("path").to_owned() } else { format!("{}?{query}", text("path")) };
    let mut headers = vec![("Host".to_owned(), format!("127.0.0.1:{port}"))];
    for (name, value) in recorded["headers"].as_object().into_iter().flatten() {
        headers.push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
    }
    let body = recorded.get("body").map(Value::to_string).unwrap_or_default();
    let request = Request { method: text("method").to_owned(), path, headers, body };
    let answer = send(port, &request).await?;
    let wanted = recorded["status"].as_u64().unwrap_or_default();
    // kumactl misspells a path, which is served as well.
    let spelt = text("path").replace("/-resources/", "/_resources/");
    let is_misspelt = spelt != text("path");
    if answer.status == 501 && (wanted < 300 || is_misspelt) && MATCHING.is_match(&spelt) {
        let endpoint = text("path").rsplit('/').next().unwrap_or_default();
        return Ok(Outcome::Deferred(endpoint.to_owned()));
    }
    let kind = |content_type: &str| content_type.split(';').next().unwrap_or_default().trim().to_owned();
    let recorded = json!({"status": wanted, "content-type": kind(text("content_type"))});
    let content_type = answer.header("content-type").unwrap_or_default();
    let ours = json!({"status": answer.status, "content-type": kind(&content_type)});
    let found = compare(&recorded, &ours, &mut Bindings::shared());
    Ok(Outcome::Compared(found, format!("    ours: {}\n", answer.body.chars().take(400).collect::<String>())))
}

/// Gives `grat` the same command lines.
async fn replay_grat(binaries: &Binaries, dir: &Path, commands: &[Command]) -> Result<Vec<CaseReport>> {
    let mut site = start(binaries, dir).await?;
    let zone = site.zone.as_ref().context("no zone")?.api;
    let bench = Bench { binaries, dir, addresses: [site.main.api, zone], moved: site.moved.clone() };
    let mut bindings = Bindings::shared();
    let mut cases = Vec::new();
    for command in commands {
        let name = format!("grat/{}", command.title());
        let Some(line) = command.for_grat() else { continue };
        cases.push(match bench.run(command, &line, &mut bindings).await {
            Ok(Outcome::Deferred(what)) => CaseReport { name, deferred: Some(what), ..CaseReport::default() },
            Ok(Outcome::Compared(found, shown)) => judged(name, found, &shown),
            Err(error) => failed(name, format!("    {error:#}\n")),
        });
    }
    site.check_running()?;
    Ok(cases)
}

struct Bench<'a> {
    binaries: &'a Binaries,
    dir: &'a Path,
    /// Ports of global and of the zone.
    addresses: [u16; 2],
    moved: Vec<(String, &'static str)>,
}

impl Bench<'_> {
    async fn run(&self, command: &Command, line: &command::Line, bindings: &mut Bindings) -> Result<Outcome> {
        if let Some((name, content)) = command.file() {
            std::fs::write(self.dir.join(name), content.to_string())?;
        }
        let [global, zone] = self.addresses.map(|port| format!("127.0.0.1:{port}"));
        let arguments = line
            .arguments
            .iter()
            .map(|argument| argument.replace("<global-address>", &global).replace("<zone-address>", &zone));
        let mut process = std::process::Command::new(self.binaries.program("grat")?);
        process.args(arguments).current_dir(self.dir).env("GRATICULE_CONFIG", self.dir.join("config"));
        if line.is_without_configuration {
            process.env("GRATICULE_ADDRESS", format!("http://{global}"));
        }
        let said = process::answer(process, &command.stdin, START_LIMIT).await?;
        let needs_envoy = ["config-dump", "stats", "clusters"].iter().any(|word| command.has(word));
        if command.exit_code == 0 && said.code == 1 && said.stderr.contains(NOT_YET) && !needs_envoy {
            return Ok(Outcome::Deferred(format!(
                "grat {}",
                line.arguments[..2.min(line.arguments.len())].join(" ")
            )));
        }
        let mut out = said.stdout.clone();
        if let Some(file) = &line.redirect {
            std::fs::write(self.dir.join(file), &out)?;
            out.clear();
        }
        for (ours, recorded) in &self.moved {
            out = out.replace(ours.as_str(), recorded);
        }
        let out = out.replace(&global, "<global-address>").replace(&zone, "<zone-address>");
        let (recorded, ours) = said::both(command, &out);
        let mut found = compare(&recorded, &ours, bindings);
        if said.code != command.exit_code {
            found.push(Difference {
                path: "/exit-code".into(),
                found: Found::Other { recorded: command.exit_code.into(), ours: said.code.into() },
            });
        }
        Ok(Outcome::Compared(
            found,
            format!("    stdout: {}\n    stderr: {}\n", said.stdout.trim_end(), said.stderr.trim_end()),
        ))
    }
}

/// Members of an object.
fn object(pairs: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value::Object(pairs.into_iter().collect::<Map<String, Value>>())
}
