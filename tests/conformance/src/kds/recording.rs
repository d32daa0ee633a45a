//! A recorded conversation of two control planes (`recordings/kds`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use graticule_kds::wire::Encoded;
use graticule_model::{Kind, Resource};
use graticule_proto::discovery::{ControlPlane, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_proto::google::protobuf::Any;
use graticule_proto::prost::Message as _;
use serde_json::{Value, json};

/// The events of a file, as they stand there.
pub(super) fn events(folder: &Path, name: &str) -> Result<Vec<Value>> {
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let document: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(document["events"].as_array().with_context(|| format!("{name}: no events"))?.clone())
}

/// A conversation.
#[derive(Debug, Clone)]
pub(super) struct Recording {
    /// Name of the file, without its ending.
    pub(super) name: String,
    pub(super) events: Vec<Event>,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// Place in the file.
    pub(super) index: usize,
    /// The zone whose connection it is, as its `client-id` says.
    pub(super) zone: Option<String>,
    /// Number of the connection.
    pub(super) conn: u64,
    pub(super) what: What,
}

/// What happened.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// The zone opened a stream.
    Open(Rpc, Headers),
    /// A message of a sync stream.
    Message(Message),
    /// A stream ended with a status, by global.
    Closed(Rpc, Status),
    /// A stream was given up, by the zone.
    Left(Rpc),
    /// The connection is gone, by whichever side.
    Disconnected,
    /// Somebody asked a REST API.
    Rest(Rest),
    /// A control plane started or ended.
    Process(String, String),
    /// An explanation: a good place to compare.
    Note(String),
    /// Of no importance for a replay.
    Other,
}

/// Headers of a stream that the zone sets itself.
pub(super) type Headers = Vec<(String, String)>;

/// Name and message of a gRPC status.
pub(super) type Status = (String, String);

/// The streams of the sync service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rpc {
    /// `GlobalToZoneSync`: resources go down.
    Down,
    /// `ZoneToGlobalSync`: resources go up.
    Up,
}

/// A message of a sync stream.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) rpc: Rpc,
    /// Who sent it.
    pub(super) by_zone: bool,
    pub(super) decoded: Value,
    raw: Option<Vec<u8>>,
}

/// A call of a REST API.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    /// Name of the control plane.
    pub(super) at: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) status: u64,
    pub(super) body: Option<Value>,
    pub(super) response: Option<Value>,
}

impl Recording {
    /// Reads a file.
    pub(super) fn open(folder: &Path, name: &str) -> Result<Recording> {
        let events = events(folder, name)?;
        let reader = Reader { folder: folder.into() };
        let events = events.iter().enumerate().map(|(index, event)| {
            reader.event(index, event).with_context(|| format!("{name}: event {index}"))
        });
        Ok(Recording { name: name.into(), events: events.collect::<Result<_>>()? })
    }
}

impl Recording {
    /// With the messages of another one about kinds that this one leaves out, on every stream that opens.
    pub(super) fn completed(self, whole: &Recording) -> Recording {
        let own: BTreeSet<String> = self.messages().map(|message| message.kind().to_owned()).collect();
        let left_out: Vec<Message> =
            whole.messages().filter(|message| !own.contains(message.kind())).cloned().collect();
        let mut events = Vec::new();
        for event in self.events {
            events.push(event.clone());
            let What::Open(rpc, _) = &event.what else { continue };
            let added = left_out.iter().filter(|message| message.rpc == *rpc);
            events
                .extend(added.map(|message| Event { what: What::Message(message.clone()), ..event.clone() }));
        }
        Recording { name: self.name, events }
    }
}

impl Recording {
    /// With the id of the federation before everything else that global sends on a stream: between kinds there is no order,
    /// and a zone of ours takes nothing before it knows whose global that is.
    pub(super) fn with_id_first(mut self) -> Recording {
        let opened = |event: &Event| matches!(event.what, What::Open(Rpc::Down, _));
        let has_id =
            |event: &Event| matches!(&event.what, What::Message(message) if message.is_first_state("Config"));
        for at in 0..self.events.len() {
            if !opened(&self.events[at]) {
                continue;
            }
            let conn = self.events[at].conn;
            let later = self.events[at + 1..].iter().position(|event| event.conn == conn && has_id(event));
            if let Some(later) = later {
                let event = self.events.remove(at + 1 + later);
                self.events.insert(at + 1, event);
            }
        }
        self
    }
}

impl Recording {
    /// With first requests that were shortened because they repeat those of a complete join.
    pub(super) fn with_first_requests(mut self, join: &Recording) -> Recording {
        let whole: Vec<&Message> = join.messages().filter(|message| message.is_first_request()).collect();
        for event in &mut self.events {
            let What::Message(message) = &mut event.what else { continue };
            let same = |other: &&&Message| other.rpc == message.rpc && other.kind() == message.kind();
            if message.raw.is_none() && message.is_first_request() {
                message.raw = whole.iter().find(same).and_then(|other| other.raw.clone());
            }
        }
        self
    }

    /// The last write of a path at a zone.
    pub(super) fn write(&self, path: &str) -> Option<&Rest> {
        let rests = self.events.iter().filter_map(|event| match &event.what {
            What::Rest(rest) => Some(rest),
            _ => None,
        });
        rests.rev().find(|rest| rest.method == "PUT" && rest.at != "global" && rest.path == path)
    }

    /// The first response of global with resources of a kind.
    pub(super) fn first_state(&self, kind: &str) -> Option<&Message> {
        self.messages().find(|message| message.is_first_state(kind))
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.events.iter().filter_map(|event| match &event.what {
            What::Message(message) => Some(message),
            _ => None,
        })
    }
}

struct Reader {
    folder: PathBuf,
}

impl Reader {
    fn event(&self, index: usize, event: &Value) -> Result<Event> {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let rpc = match event["rpc"].as_str() {
            Some("GlobalToZoneSync") => Some(Rpc::Down),
            Some("ZoneToGlobalSync") => Some(Rpc::Up),
            _ => None,
        };
        let by_zone = event["dir"] == "zone->global";
        let what = match (event["event"].as_str().unwrap_or_default(), rpc) {
            ("stream-open", Some(rpc)) => What::Open(rpc, headers(&event["headers"])),
            ("message", Some(rpc)) => {
                let raw = self.raw(&event["raw"])?;
                What::Message(Message { rpc, by_zone, decoded: event["decoded"].clone(), raw }.with_kind()?)
            }
            ("stream-closed", Some(rpc)) => What::Closed(rpc, (text("status"), text("message"))),
            ("rst-stream", Some(rpc)) if by_zone => What::Left(rpc),
            ("tcp-closed", _) => What::Disconnected,
            ("rest", _) => What::Rest(rest(event)?),
            ("process", _) => What::Process(text("what"), text("name")),
            ("note", _) => What::Note(text("text")),
            _ => What::Other,
        };
        let zone = event["zone"].as_str().map(str::to_owned);
        Ok(Event { index, zone, conn: event["conn"].as_u64().unwrap_or_default(), what })
    }

    /// Bytes of a message; parts that several files share lie in files of their own.
    fn raw(&self, raw: &Value) -> Result<Option<Vec<u8>>> {
        let parts = match raw {
            Value::Null => return Ok(None),
            Value::Array(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut bytes = Vec::new();
        for part in parts {
            match (part.as_str(), part["blob"].as_str()) {
                (Some(text), _) => bytes.extend(STANDARD.decode(text)?),
                (None, Some(blob)) => bytes.extend(std::fs::read(self.folder.join("blobs").join(blob))?),
                (None, None) => bail!("raw: neither text nor a blob"),
            }
        }
        Ok(Some(bytes))
    }
}

/// What a zone sets itself: neither HTTP/2's own nor what gRPC libraries add.
fn headers(recorded: &Value) -> Headers {
    const LIBRARY: [&str; 5] = ["content-type", "user-agent", "te", "grpc-encoding", "grpc-accept-encoding"];
    let pairs = recorded.as_array().into_iter().flatten();
    pairs
        .filter_map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned())))
        .filter(|(key, _)| !key.starts_with(':') && !LIBRARY.contains(&key.as_str()))
        .collect()
}

/// A call of a REST API.
pub(super) fn rest(event: &Value) -> Result<Rest> {
    let request = event["request"].as_str().context("no request")?;
    let (method, path) = request.split_once(' ').context("a request without a path")?;
    let some = |key: &str| event.get(key).filter(|value| !value.is_null()).cloned();
    Ok(Rest {
        at: event["at"].as_str().unwrap_or_default().into(),
        method: method.into(),
        path: path.into(),
        status: event["status"].as_u64().context("no status")?,
        body: some("body"),
        response: some("response"),
    })
}

impl Message {
    /// One of which only the decoded form is known.
    pub(super) fn of(rpc: Rpc, by_zone: bool, decoded: Value) -> Message {
        Message { rpc, by_zone, decoded, raw: None }
    }

    /// Whether it carries resources; otherwise it asks for them or answers.
    pub(super) fn is_response(&self) -> bool {
        self.by_zone == (self.rpc == Rpc::Up)
    }

    fn is_first_request(&self) -> bool {
        !self.is_response() && self.response_nonce().is_none()
    }

    /// Whether global says with it what there is of a kind.
    pub(super) fn is_first_state(&self, kind: &str) -> bool {
        let has_resources = self.decoded["resources"].as_array().is_some_and(|items| !items.is_empty());
        self.rpc == Rpc::Down && self.is_response() && self.kind() == kind && has_resources
    }

    pub(super) fn kind(&self) -> &str {
        self.decoded["type_url"].as_str().unwrap_or_default()
    }

    /// Of a message that could not be decoded wholly: its kind.
    fn with_kind(mut self) -> Result<Message> {
        if let (Some(raw), true) = (&self.raw, self.decoded.get("@undecodable").is_some()) {
            let response = DeltaDiscoveryResponse::decode(raw.as_slice())?;
            self.decoded = json!({"type_url": response.type_url, "nonce": response.nonce});
        }
        Ok(self)
    }

    /// Of a response.
    pub(super) fn nonce(&self) -> &str {
        self.decoded["nonce"].as_str().unwrap_or_default()
    }

    /// The nonce that a request answers.
    pub(super) fn response_nonce(&self) -> Option<&str> {
        self.decoded["response_nonce"].as_str().filter(|nonce| !nonce.is_empty())
    }

    /// Why a request refuses what it answers.
    pub(super) fn error(&self) -> Option<&str> {
        self.decoded["error_detail"]
            .as_object()
            .map(|error| error.get("message").and_then(Value::as_str).unwrap_or_default())
    }

    /// The same without any resources.
    pub(super) fn without_resources(&self) -> Message {
        let mut decoded = self.decoded.clone();
        if let Some(members) = decoded.as_object_mut() {
            members.remove("resources");
            members.remove("removed_resources");
        }
        Message { decoded, raw: None, ..self.clone() }
    }

    /// The message as it was sent, or as like it as what was kept allows.
    pub(super) fn to_request(&self) -> Result<DeltaDiscoveryRequest> {
        if let Some(raw) = &self.raw {
            return Ok(DeltaDiscoveryRequest::decode(raw.as_slice())?);
        }
        let decoded = &self.decoded;
        let node = decoded["node"]["id"].as_str().map(|id| Node { id: id.into(), ..Node::default() });
        let error_detail = self.error().map(|message| graticule_proto::google::rpc::Status {
            message: message.into(),
            ..Default::default()
        });
        Ok(DeltaDiscoveryRequest {
            node,
            type_url: self.kind().into(),
            response_nonce: self.response_nonce().unwrap_or_default().into(),
            error_detail,
            resource_names_subscribe: strings(&decoded["resource_names_subscribe"]),
            ..DeltaDiscoveryRequest::default()
        })
    }

    /// As [`to_request`](Self::to_request).
    pub(super) fn to_response(&self) -> Result<DeltaDiscoveryResponse> {
        if let Some(raw) = &self.raw {
            return Ok(DeltaDiscoveryResponse::decode(raw.as_slice())?);
        }
        let items = self.decoded["resources"].as_array().into_iter().flatten();
        Ok(DeltaDiscoveryResponse {
            type_url: self.kind().into(),
            nonce: self.nonce().into(),
            control_plane: self.decoded["control_plane"]["identifier"]
                .as_str()
                .map(|identifier| ControlPlane { identifier: identifier.into() }),
            resources: items.map(|item| encode(self.kind(), item)).collect::<Result<_>>()?,
            removed_resources: strings(&self.decoded["removed_resources"]),
            ..DeltaDiscoveryResponse::default()
        })
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// A resource of which only the decoded form was kept.
fn encode(kind: &str, item: &Value) -> Result<graticule_proto::discovery::Resource> {
    let kind = Kind::from_name(kind)?;
    let recorded = &item["resource"];
    let mut rest = json!({
        "type": kind.name(),
        "name": recorded["meta"]["name"],
        "labels": recorded["meta"]["labels"],
    });
    if let Some(mesh) = recorded["meta"].get("mesh") {
        rest["mesh"] = mesh.clone();
    }
    match kind.descriptor().family {
        graticule_model::Family::Plugin => {
            rest["spec"] = recorded["spec"].clone();
            if let Some(status) = recorded.get("status") {
                rest["status"] = status.clone();
            }
        }
        _ => {
            for (key, value) in recorded["spec"].as_object().into_iter().flatten() {
                rest[key] = value.clone();
            }
        }
    }
    let mut encoded = Encoded::of(&Resource::from_rest(kind, &rest)?)?.to_discovery();
    // A name that was wrong on purpose.
    encoded.name = item["name"].as_str().unwrap_or_default().into();
    if let Some(type_url) = item["resource_type_url"].as_str() {
        let value = encoded.resource.map(|any| any.value).unwrap_or_default();
        encoded.resource = Some(Any { type_url: type_url.into(), value });
    }
    Ok(encoded)
}
