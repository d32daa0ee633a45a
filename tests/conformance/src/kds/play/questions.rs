//! `09-envoy-admin`: our global asks a played zone about proxies; what it asks and what it makes of the answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use graticule_testkit::wait;
use serde_json::{Value, json};

use super::super::peer::Peer;
use super::super::recording::{self, Headers, Message, Rest, Rpc, What};
use super::super::state::blur;
use super::super::transport::ZoneConnection;
use super::{Check, Link, Play, Role, ZONE};
use crate::compare::{Bindings, Difference, compare};

/// The recording.
pub(in super::super) const NAME: &str = "09-envoy-admin";

/// How long our global may take to ask.
const LIMIT: Duration = Duration::from_secs(5);
/// A dump stands for one of which only the beginning was kept.
const DUMP: &str = r#"{"configs": []}"#;

/// A call of the API, and what global and zone say because of it.
pub(super) struct Exchange {
    pub(super) index: usize,
    pub(super) rest: Rest,
    pub(super) asked: Option<(String, Value)>,
    pub(super) answered: Option<Value>,
}

impl Play<'_> {
    /// Plays the recording; gives what was checked.
    pub(in super::super) async fn questions(&mut self, folder: &Path) -> Result<Vec<Check>> {
        ensure!(self.role == Role::Zones, "only a zone is asked");
        let events = recording::events(folder, NAME)?;
        let link: Link = (ZONE.into(), 1);
        let join = self.join;
        self.join(join, &link).await?;
        let exchanges = exchanges(&events)?;
        self.say(&link, &dataplanes(&exchanges)).await?;
        let headers = self.headers_of_join();
        let connection = self.connections.get(&link).context("no connection")?;
        let mut streams = Streams::open(connection, &headers)?;
        let (online, offline): (Vec<_>, Vec<_>) =
            exchanges.into_iter().partition(|exchange| !exchange.is_offline());
        for exchange in online {
            let found = self.exchange(&exchange, Some(&mut streams)).await;
            self.check(exchange.index, format!("GET {}", exchange.rest.path), found);
        }
        drop(streams);
        self.leave(&link, Rpc::Down);
        self.leave(&link, Rpc::Up);
        self.connections.remove(&link);
        for exchange in offline {
            let found = self.exchange(&exchange, None).await;
            self.check(exchange.index, format!("GET {}", exchange.rest.path), found);
        }
        Ok(std::mem::take(&mut self.checks))
    }

    fn headers_of_join(&self) -> Headers {
        let opened = self.join.events.iter().find_map(|event| match &event.what {
            What::Open(_, headers) => Some(headers.clone()),
            _ => None,
        });
        opened.unwrap_or_default()
    }

    /// Makes a call, answers what is asked because of it, and compares both with the recording. The played zone
    /// arrives and leaves a moment before global knows, so what it says then is asked for again.
    async fn exchange(
        &self,
        exchange: &Exchange,
        mut streams: Option<&mut Streams>,
    ) -> Result<Vec<Difference>> {
        let start = wait::now();
        loop {
            let found = self.exchange_once(exchange, streams.as_deref_mut()).await;
            if start.elapsed() > LIMIT || found.as_ref().is_ok_and(Vec::is_empty) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn exchange_once(
        &self,
        exchange: &Exchange,
        streams: Option<&mut Streams>,
    ) -> Result<Vec<Difference>> {
        let serve = async {
            match (&exchange.asked, &exchange.answered, streams) {
                (Some((rpc, _)), Some(answer), Some(streams)) => streams.answer(rpc, answer).await.map(Some),
                _ => Ok(None),
            }
        };
        let mut call = std::pin::pin!(self.site.call(&exchange.rest));
        let (answer, asked) = tokio::select! {
            biased;
            // Whoever is asked answers before the call does.
            asked = serve, if exchange.asked.is_some() => (call.await?, asked?),
            answer = &mut call => (answer?, None),
        };
        let mut recorded = json!({"status": exchange.rest.status, "asked": Value::Null});
        let mut ours = json!({"status": answer.status, "asked": Value::Null});
        if let Some((_, question)) = &exchange.asked {
            recorded["asked"] = question.clone();
            ours["asked"] = asked.as_ref().map_or(Value::Null, |(question, _)| question.clone());
        }
        if let Some(body) = &exchange.rest.response {
            recorded["body"] = body.clone();
            ours["body"] = serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body));
        } else if let Some((_, payload)) = asked {
            // JSON may be written another way.
            let value =
                |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.into()));
            recorded["body"] = value(&payload);
            ours["body"] = value(&answer.body);
        }
        blur(&mut recorded);
        blur(&mut ours);
        Ok(compare(&recorded, &ours, &mut Bindings::shared()))
    }
}

impl Exchange {
    fn is_offline(&self) -> bool {
        let text = self.rest.response.as_ref().map(Value::to_string).unwrap_or_default();
        text.contains("zone is offline")
    }
}

/// Calls with the messages that follow them.
pub(super) fn exchanges(events: &[Value]) -> Result<Vec<Exchange>> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    for (index, event) in events.iter().enumerate() {
        match event["event"].as_str() {
            Some("rest") => {
                let rest = recording::rest(event)?;
                exchanges.push(Exchange { index, rest, asked: None, answered: None });
            }
            Some("message") => {
                let exchange = exchanges.last_mut().context("a message before any call")?;
                let mut decoded = event["decoded"].clone();
                if let Some(members) = decoded.as_object_mut() {
                    members.remove("request_id");
                }
                if event["dir"] == "zone->global" {
                    exchange.answered = Some(decoded);
                } else {
                    let rpc = event["rpc"].as_str().unwrap_or_default();
                    exchange.asked = Some((rpc.to_owned(), decoded));
                }
            }
            _ => {}
        }
    }
    Ok(exchanges)
}

/// The Dataplanes that are asked about, as the zone sent them before the recording began.
fn dataplanes(exchanges: &[Exchange]) -> Message {
    let mut names = BTreeMap::new();
    for exchange in exchanges {
        let Some((_, asked)) = &exchange.asked else { continue };
        let in_path = exchange.rest.path.split('/').nth(4).unwrap_or_default();
        names.insert(in_path.to_owned(), asked["resource_name"].clone());
    }
    let resource = |(name, display): (&String, &Value)| {
        json!({
            "name": format!("{name}.default"),
            "resource": {
                "meta": {"name": name, "mesh": "default", "labels": {
                    "kuma.io/display-name": display,
                    "kuma.io/mesh": "default",
                    "kuma.io/origin": "zone",
                    "kuma.io/zone": ZONE,
                }},
                "spec": {"networking": {"address": "192.0.2.7", "inbound": [{"port": 8080}]}},
            },
        })
    };
    let resources: Vec<Value> = names.iter().map(resource).collect();
    let decoded = json!({
        "type_url": "Dataplane",
        "nonce": "900",
        "control_plane": {"identifier": ZONE},
        "resources": resources,
    });
    Message::of(Rpc::Up, true, decoded)
}

/// The three streams on which a zone is asked.
struct Streams {
    configs: Peer<pb::XdsConfigResponse, pb::XdsConfigRequest>,
    stats: Peer<pb::StatsResponse, pb::StatsRequest>,
    clusters: Peer<pb::ClustersResponse, pb::ClustersRequest>,
    read: BTreeMap<String, usize>,
}

/// What was asked, in the form of the recordings, and the text that was answered.
type Asked = (Value, String);

impl Streams {
    fn open(connection: &ZoneConnection, headers: &Headers) -> Result<Streams> {
        let configs = connection.configs(headers)?;
        let (stats, clusters) = (connection.stats(headers)?, connection.clusters(headers)?);
        Ok(Streams { configs, stats, clusters, read: BTreeMap::new() })
    }

    /// Answers the next question on a stream as recorded.
    async fn answer(&mut self, rpc: &str, recorded: &Value) -> Result<Asked> {
        let read = self.read.entry(rpc.to_owned()).or_default();
        let skip = *read;
        let (text, result) = payload(recorded);
        let asked = match rpc {
            "StreamXDSConfigs" => {
                let request = next(&self.configs, skip).await?;
                let result = match result {
                    Ok(bytes) => pb::xds_config_response::Result::Config(bytes),
                    Err(error) => pb::xds_config_response::Result::Error(error),
                };
                let request_id = request.request_id;
                self.configs.send(pb::XdsConfigResponse { request_id, result: Some(result) }).await?;
                let mut asked =
                    question(&request.resource_type, &request.resource_name, &request.resource_mesh);
                if request.include_eds {
                    asked["include_eds"] = true.into();
                }
                asked
            }
            "StreamStats" => {
                let request = next(&self.stats, skip).await?;
                let result = match result {
                    Ok(bytes) => pb::stats_response::Result::Stats(bytes),
                    Err(error) => pb::stats_response::Result::Error(error),
                };
                let request_id = request.request_id.clone();
                self.stats.send(pb::StatsResponse { request_id, result: Some(result) }).await?;
                let mut asked =
                    question(&request.resource_type, &request.resource_name, &request.resource_mesh);
                format(&mut asked, request.format());
                if request.used_only {
                    asked["used_only"] = true.into();
                }
                asked
            }
            _ => {
                let request = next(&self.clusters, skip).await?;
                let result = match result {
                    Ok(bytes) => pb::clusters_response::Result::Clusters(bytes),
                    Err(error) => pb::clusters_response::Result::Error(error),
                };
                let request_id = request.request_id.clone();
                self.clusters.send(pb::ClustersResponse { request_id, result: Some(result) }).await?;
                let mut asked =
                    question(&request.resource_type, &request.resource_name, &request.resource_mesh);
                format(&mut asked, request.format());
                asked
            }
        };
        *read += 1;
        Ok((asked, text))
    }
}

fn question(kind: &str, name: &str, mesh: &str) -> Value {
    json!({"resource_type": kind, "resource_name": name, "resource_mesh": mesh})
}

fn format(asked: &mut Value, format: pb::AdminOutputFormat) {
    if format == pb::AdminOutputFormat::Json {
        asked["format"] = "JSON".into();
    }
}

/// The recorded answer, and its text. A long one was not kept; something of the same form stands for it.
fn payload(recorded: &Value) -> (String, Result<Vec<u8>, String>) {
    if let Some(error) = recorded["error"].as_str() {
        return (String::new(), Err(error.into()));
    }
    let head = |key: &str| recorded[key]["text_head"].as_str().map(str::to_owned);
    let text = match head("stats").or_else(|| head("clusters")) {
        Some(text) if !text.starts_with('{') => text,
        Some(_) => "{}".to_owned(),
        None => DUMP.to_owned(),
    };
    (text.clone(), Ok(text.into_bytes()))
}

async fn next<Out, In>(peer: &Peer<Out, In>, skip: usize) -> Result<In>
where
    Out: Send + 'static,
    In: Clone + Send + 'static,
{
    let heard =
        || std::future::ready(peer.heard(skip).into_iter().next().ok_or("nothing was asked".to_owned()));
    Ok(wait::until("a question of global", LIMIT, heard).await?.0)
}
