//! The resources at global: policies of several kinds, as platform teams have them.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::connection::Connection;

/// Label in which the number of the last change stands.
pub(super) const CHANGE_LABEL: &str = "load.test/change";

/// One PUT.
pub(super) struct Policy {
    pub(super) path: String,
    pub(super) body: Bytes,
}

/// PUTs all of them.
pub(super) async fn create(api: SocketAddr, count: usize, connections: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    for task in 0..connections {
        tasks.spawn(async move {
            let mut connection = Connection::open(api).await?;
            for index in (task..count).step_by(connections) {
                let policy = policy(index, 0);
                let (status, answer) = connection.call(Method::PUT, &policy.path, policy.body).await?;
                let answer = String::from_utf8_lossy(&answer);
                ensure!(matches!(status, 200 | 201), "PUT {}: {status}: {answer}", policy.path);
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// The policy that a change is made to: another one each time, so that none overtakes another.
pub(super) fn of_change(change: usize, count: usize) -> Policy {
    policy(change * 7919 % count.max(1), change)
}

fn policy(index: usize, change: usize) -> Policy {
    let (kind, path, spec) = match index % 4 {
        0 => ("MeshTimeout", "meshtimeouts", timeout(change)),
        1 => ("MeshRetry", "meshretries", retry(change)),
        2 => ("MeshCircuitBreaker", "meshcircuitbreakers", breaker(change)),
        _ => ("MeshTrafficPermission", "meshtrafficpermissions", permission()),
    };
    let name = format!("load-{index:06}");
    let mut spec = spec;
    let app = json!({"kind": "Dataplane", "labels": {"app": format!("app-{index}")}});
    spec["targetRef"] = app;
    let body = json!({
        "type": kind,
        "mesh": "default",
        "name": name,
        "labels": {CHANGE_LABEL: change.to_string(), "team": format!("team-{}", index / 50)},
        "spec": spec,
    });
    Policy { path: format!("/meshes/default/{path}/{name}"), body: Bytes::from(body.to_string()) }
}

fn timeout(change: usize) -> Value {
    let connection = format!("{}ms", 100 + change % 900);
    json!({"to": [{"targetRef": {"kind": "Mesh"}, "default": {
        "connectionTimeout": connection,
        "idleTimeout": "1h",
        "http": {"requestTimeout": "15s", "streamIdleTimeout": "30m"},
    }}]})
}

fn retry(change: usize) -> Value {
    json!({"to": [{"targetRef": {"kind": "Mesh"}, "default": {"http": {
        "numRetries": 1 + change % 9,
        "perTryTimeout": "2s",
        "retryOn": ["5xx", "Reset"],
    }}}]})
}

fn breaker(change: usize) -> Value {
    json!({"to": [{"targetRef": {"kind": "Mesh"}, "default": {"connectionLimits": {
        "maxConnections": 1000 + change % 1000,
        "maxPendingRequests": 1000,
        "maxRequests": 1000,
    }}}]})
}

fn permission() -> Value {
    let matches =
        json!([{"spiffeID": {"type": "Prefix", "value": "spiffe://default.east.mesh.local/ns/shop"}}]);
    json!({"rules": [{"default": {"allow": matches}}]})
}
