//! `06d-stream-enders`: what a played global does to our zone, one zone for each case, and whether the connection
//! outlives it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use graticule_proto::discovery::{ControlPlane, DeltaDiscoveryResponse, Resource};
use graticule_proto::google::protobuf::Any;
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use graticule_proto::prost::Message as _;
use graticule_testkit::{Binaries, wait};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::play::{Check, JOIN_LIMIT, ZONE};
use super::recording::{self, Message, Rpc};
use super::site::Site;
use super::transport::{PlayedGlobal, Sink, Source};
use crate::compare::{Bindings, Difference, compare};

/// The recording.
pub(super) const NAME: &str = "06d-stream-enders";

/// Between health checks, the clock of a played global.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// After so many more of them a connection that was not made anew stays.
const HEALTH_CHECKS: usize = 3;
/// What a zone asks global for.
const KINDS_ASKED: usize = 29;

/// One case.
struct Case {
    index: usize,
    title: String,
    acts: Vec<Act>,
    /// What became of the recorded zone.
    recorded: Value,
}

/// What the played global does.
enum Act {
    /// Sends resources, which must be refused.
    Respond(DeltaDiscoveryResponse),
    /// Asks for resources, or answers a response.
    Request(Message),
    /// Waits for a response of the zone.
    Hear,
    /// Ends a stream.
    End(String, Status),
}

/// Plays all cases.
pub(super) async fn run(folder: &Path, binaries: &Binaries, dir: &Path) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for case in cases(&recording::events(folder, NAME)?)? {
        let found = play(&case, binaries, &dir.join(case.index.to_string())).await;
        checks.push(Check { index: case.index, what: case.title, found });
    }
    Ok(checks)
}

fn cases(events: &[Value]) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    let mut name = Value::Null;
    for (index, event) in events.iter().enumerate() {
        let text = event["text"].as_str().unwrap_or_default();
        if event["case"] != name {
            name = event["case"].clone();
            cases.push(Case { index, title: text.into(), acts: Vec::new(), recorded: Value::Null });
            continue;
        }
        let case = cases.last_mut().context("an event before any case")?;
        let rpc = event["rpc"].as_str().unwrap_or_default();
        let by_global = event["dir"] == "global->zone";
        match event["event"].as_str() {
            _ if rpc == "HealthCheck" || !case.recorded.is_null() => {}
            Some("message") if by_global && rpc == "GlobalToZoneSync" => {
                case.acts.push(Act::Respond(response(&event["decoded"])?));
            }
            Some("message") if by_global => {
                case.acts.push(Act::Request(Message::of(Rpc::Up, false, event["decoded"].clone())));
            }
            Some("message") => case.acts.push(Act::Hear),
            Some("stream-closed") if by_global => {
                let message = event["message"].as_str().unwrap_or_default();
                let status = Status::new(code(&event["status"])?, message);
                case.acts.push(Act::End(rpc.into(), status));
            }
            Some("note") => case.recorded = outcome(text)?,
            _ => {}
        }
    }
    Ok(cases)
}

/// What a note says about the zone.
fn outcome(text: &str) -> Result<Value> {
    if text.contains("crashed") {
        return Ok(json!({"process": "crashes"}));
    }
    let connection = match text {
        _ if text.contains("closed by the zone") => "is made anew",
        _ if text.contains("stays up") => "stays",
        _ => bail!("not understood: {text}"),
    };
    Ok(json!({"process": "runs", "connection": connection}))
}

fn code(name: &Value) -> Result<Code> {
    match name.as_str() {
        Some("OK") => Ok(Code::Ok),
        Some("UNAVAILABLE") => Ok(Code::Unavailable),
        Some("UNIMPLEMENTED") => Ok(Code::Unimplemented),
        _ => bail!("not understood: status {name}"),
    }
}

/// A response that is wrong on purpose, so that nothing of it can be read as a resource.
fn response(decoded: &Value) -> Result<DeltaDiscoveryResponse> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut resources = Vec::new();
    for item in decoded["resources"].as_array().into_iter().flatten() {
        let recorded = &item["resource"];
        let meta = pb::kuma_resource::Meta {
            name: text(&recorded["meta"]["name"]),
            mesh: text(&recorded["meta"]["mesh"]),
            ..Default::default()
        };
        let spec = match (recorded.get("spec"), text(&recorded["spec_type_url"])) {
            (None, _) => None,
            (Some(spec), url) if url.is_empty() => {
                Some(Any { type_url: url, value: serde_json::to_vec(spec)? })
            }
            // Another message without any field.
            (Some(_), url) => Some(Any { type_url: url, value: Vec::new() }),
        };
        let value = pb::KumaResource { meta: Some(meta), spec, status: None }.encode_to_vec();
        resources.push(Resource {
            name: text(&item["name"]),
            version: text(&item["version"]),
            resource: Some(Any { type_url: text(&item["resource_type_url"]), value }),
            ..Default::default()
        });
    }
    Ok(DeltaDiscoveryResponse {
        type_url: text(&decoded["type_url"]),
        nonce: text(&decoded["nonce"]),
        control_plane: Some(ControlPlane { identifier: text(&decoded["control_plane"]["identifier"]) }),
        resources,
        ..Default::default()
    })
}

async fn play(case: &Case, binaries: &Binaries, dir: &Path) -> Result<Vec<Difference>> {
    let global = PlayedGlobal::start(HEALTH_INTERVAL).await?;
    let mut site = Site::zone(binaries, dir, ZONE, &global.address.to_string())?;
    site.start().await?;
    let mut streams = Joined::wait(&global).await?;
    for act in &case.acts {
        streams.act(&global, act).await?;
    }
    let before = global.health_checks();
    let start = wait::now();
    let connection = loop {
        if start.elapsed() > JOIN_LIMIT {
            bail!("neither a new connection nor a health check came");
        }
        if site.check_running().is_err() {
            break None;
        }
        if global.has_untaken_streams() {
            break Some("is made anew");
        }
        if global.health_checks() >= before + HEALTH_CHECKS {
            break Some("stays");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let ours = match connection {
        Some(connection) => json!({"process": "runs", "connection": connection}),
        None => json!({"process": "crashes"}),
    };
    Ok(compare(&case.recorded, &ours, &mut Bindings::shared()))
}

/// The streams of our zone, once it has asked for everything.
struct Joined {
    sink: Option<Sink>,
    source: Option<Source>,
}

impl Joined {
    async fn wait(global: &PlayedGlobal) -> Result<Joined> {
        let (mut sink, mut source) = (None, None);
        let joined = || {
            sink = sink.take().or_else(|| global.take_sink().map(|(_, sink)| sink));
            source = source.take().or_else(|| global.take_source().map(|(_, source)| source));
            let asked = source.as_ref().map_or(0, |source: &Source| source.heard(0).len());
            let is_joined = sink.is_some() && asked >= KINDS_ASKED;
            std::future::ready(if is_joined { Ok(()) } else { Err(format!("{asked} kinds were asked for")) })
        };
        wait::until("the zone opens its streams", JOIN_LIMIT, joined).await?;
        Ok(Joined { sink, source })
    }

    async fn act(&mut self, global: &PlayedGlobal, act: &Act) -> Result<()> {
        match act {
            Act::Respond(response) => {
                let source = self.source.as_ref().context("the stream has ended")?;
                source.send(response.clone()).await?;
                let refusal = || {
                    let heard = source.heard(0);
                    let refused = heard.iter().any(|request| {
                        request.response_nonce == response.nonce && request.error_detail.is_some()
                    });
                    std::future::ready(if refused { Ok(()) } else { Err(format!("{:?}", heard.last())) })
                };
                wait::until("the response is refused", JOIN_LIMIT, refusal).await.map(|_| ())
            }
            Act::Request(message) => {
                self.sink.as_ref().context("the stream has ended")?.send(message.to_request()?).await
            }
            Act::Hear => {
                let sink = self.sink.as_ref().context("the stream has ended")?;
                let heard = || {
                    let is_empty = sink.heard(0).is_empty();
                    std::future::ready(if is_empty { Err("nothing".to_owned()) } else { Ok(()) })
                };
                wait::until("a response of the zone", JOIN_LIMIT, heard).await.map(|_| ())
            }
            Act::End(rpc, status) => {
                global.end(rpc, status.clone());
                match rpc.as_str() {
                    "GlobalToZoneSync" => self.source = None,
                    "ZoneToGlobalSync" => self.sink = None,
                    _ => {}
                }
                Ok(())
            }
        }
    }
}
