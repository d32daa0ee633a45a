//! Federation over gRPC.

mod admin;
mod bucket;
mod connect;
mod global;
mod healing;
mod hub;
mod intake;
mod measured;
mod registry;
mod zone;

use std::time::Duration;

use graticule_proto::discovery::Node;
use graticule_proto::google::protobuf::value::Kind as ValueKind;
use graticule_proto::google::protobuf::{ListValue, Struct, Value};

use crate::core::NODE_FEATURES;

pub use admin::{AdminBroker, AdminError, AdminQuery, AdminTarget, OutputFormat, ProxyAdmin};
pub use connect::{Connector, Dial, DialError, ZoneToken};
pub use global::{
    GlobalDeps, GlobalError, GlobalOptions, GlobalServer, TokenlessZones, ZoneAuthenticator, ZoneGrant,
};
pub use hub::Stores;
pub use measured::measured;
pub use registry::ZoneReport;
pub use zone::{
    FederationLink, LeaveError, Link, ZoneClient, ZoneDeps, ZoneOptions, finish_leaving, forget_leaving,
};

/// Largest message in bytes, both ways (`multizone.{global,zone}.kds.maxMsgSize`).
pub const MESSAGE_LEN_MAX: usize = 10 * 1024 * 1024;

/// Whoever acknowledges nothing for this time, although something was sent, has to be connected to anew.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How often copies are compared with what the peer sent.
const AUDIT_INTERVAL: Duration = Duration::from_secs(300);

/// Time that an admin request may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

fn text(value: &str) -> Value {
    Value { kind: Some(ValueKind::StringValue(value.into())) }
}

fn members<const N: usize>(members: [(&str, Value); N]) -> Struct {
    Struct { fields: members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() }
}

/// How this control plane describes itself in requests (federation.md §1.6).
fn describe(zone: &str, instance_id: &str, version: &str, config: &str) -> Node {
    let features = NODE_FEATURES.into_iter().map(text).collect();
    let kuma_cp = members([
        ("version", text(version)),
        ("gitTag", text(&format!("v{version}"))),
        // Builds do not know their commit.
        ("gitCommit", text("unknown")),
        ("buildDate", text("unknown")),
    ]);
    let version = members([("kumaCp", Value { kind: Some(ValueKind::StructValue(kuma_cp)) })]);
    Node {
        id: zone.into(),
        metadata: Some(members([
            ("version", Value { kind: Some(ValueKind::StructValue(version)) }),
            ("config", text(config)),
            ("control-plane-id", text(instance_id)),
            ("features", Value { kind: Some(ValueKind::ListValue(ListValue { values: features })) }),
        ])),
        ..Default::default()
    }
}
