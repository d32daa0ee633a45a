//! What is asked where, and what an answer must not give away. Pure.

use std::collections::BTreeSet;

use graticule_api::envoy_admin::{AdminFormat, AdminQuery};
use graticule_model::kinds::dataplane::Dataplane;
use serde_json::Value;

/// In the place of a credential.
const REDACTED: &str = "[redacted]";
/// Bytes. Anything shorter is no token, and its letters may stand anywhere.
const CREDENTIAL_LEN_MIN: usize = 16;

/// Where an admin interface answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// IP address or DNS name; what the certificate is for.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

impl Endpoint {
    /// The listener in front of Envoy's admin interface, or the interface itself where that is on the loopback
    /// address of this machine: there is no listener then.
    pub(super) fn of(dataplane: &Dataplane, default_port: u16) -> Result<Endpoint, String> {
        let networking = dataplane.networking();
        if networking.address.is_empty() {
            return Err("the Dataplane has no networking.address".into());
        }
        let own = networking.admin.as_ref().map(|admin| admin.port).filter(|port| *port != 0);
        let port = match own {
            None => default_port,
            Some(port) => {
                u16::try_from(port).map_err(|_| format!("networking.admin.port {port} is no port"))?
            }
        };
        if port == 0 {
            return Err("the proxy has no admin port".into());
        }
        let host = networking.address.clone();
        Ok(Endpoint { tls: host != "127.0.0.1", host, port })
    }

    /// Host and port as URLs have them.
    pub(super) fn authority(&self) -> String {
        let Endpoint { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// For messages.
    pub(super) fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.authority())
    }
}

/// Path and query of a question. Envoy looks whether `include_eds` and `usedonly` are there, not at their values.
pub(super) fn path(query: AdminQuery) -> &'static str {
    use AdminFormat::{Json, Text};
    match query {
        AdminQuery::ConfigDump { include_eds: false } => "/config_dump",
        AdminQuery::ConfigDump { include_eds: true } => "/config_dump?include_eds=",
        AdminQuery::Stats { format: Text, used_only: false } => "/stats",
        AdminQuery::Stats { format: Text, used_only: true } => "/stats?usedonly=",
        AdminQuery::Stats { format: Json, used_only: false } => "/stats?format=json",
        AdminQuery::Stats { format: Json, used_only: true } => "/stats?format=json&usedonly=",
        AdminQuery::Clusters { format: Text } => "/clusters",
        AdminQuery::Clusters { format: Json } => "/clusters?format=json",
    }
}

/// A configuration dump in which the proxy's credential appears nowhere: neither in the initial metadata of its
/// streams nor in any other text. Envoy leaves out private keys itself.
pub(super) fn without_credentials(dump: &[u8]) -> Result<Vec<u8>, String> {
    let mut dump: Value = serde_json::from_slice(dump)
        .map_err(|error| format!("the configuration dump is no JSON: {error}"))?;
    let mut credentials = BTreeSet::new();
    redact_headers(&mut dump, &mut credentials);
    redact_texts(&mut dump, &credentials);
    serde_json::to_vec_pretty(&dump).map_err(|error| error.to_string())
}

/// Redacts values of the header `authorization` in any initial metadata and collects what they were.
fn redact_headers(value: &mut Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| redact_headers(item, found)),
        Value::Object(members) => {
            for (key, member) in members {
                if matches!(key.as_str(), "initial_metadata" | "initialMetadata") {
                    member
                        .as_array_mut()
                        .into_iter()
                        .flatten()
                        .for_each(|header| redact_header(header, found));
                }
                redact_headers(member, found);
            }
        }
        _ => {}
    }
}

fn redact_header(header: &mut Value, found: &mut BTreeSet<String>) {
    let key = header.get("key").and_then(Value::as_str).unwrap_or_default();
    if !key.eq_ignore_ascii_case("authorization") {
        return;
    }
    for key in ["value", "raw_value", "rawValue"] {
        let Some(Value::String(text)) = header.get_mut(key) else { continue };
        let credential = std::mem::replace(text, REDACTED.to_owned());
        let token = credential.split_ascii_whitespace().last().unwrap_or_default();
        if token.len() >= CREDENTIAL_LEN_MIN {
            found.insert(token.to_owned());
        }
    }
}

fn redact_texts(value: &mut Value, credentials: &BTreeSet<String>) {
    match value {
        Value::String(text) => {
            for credential in credentials {
                if text.contains(credential.as_str()) {
                    *text = text.replace(credential.as_str(), REDACTED);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact_texts(item, credentials)),
        Value::Object(members) => members.values_mut().for_each(|member| redact_texts(member, credentials)),
        _ => {}
    }
}
