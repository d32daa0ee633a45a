//! `MeshPassthrough` (policies.md §8).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Validate;
use super::check;
use crate::schema::common::TARGET_REF;
use crate::schema::{Schema, field, int32, list, object, one_of, text};
use crate::targetref;
use crate::{Meta, TargetRef, Violations, name};

/// Which traffic may leave the mesh.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshPassthrough {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// The configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Conf>,
}

/// Which traffic may leave the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// How much; absent: `Matched`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passthrough_mode: Option<PassthroughMode>,
    /// Destinations of the mode `Matched`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_match: Option<Vec<Match>>,
}

/// How much may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum PassthroughMode {
    /// Everything.
    All,
    /// What is listed.
    #[default]
    Matched,
    /// Nothing.
    None,
}

/// A destination outside the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Match {
    /// How `value` is meant.
    pub r#type: MatchType,
    /// Domain, address or block.
    pub value: String,
    /// Port; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Forms of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MatchType {
    /// A DNS name; the first label may be `*`.
    Domain,
    /// An address.
    IP,
    /// A block of addresses.
    CIDR,
}

/// Protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Protocol {
    #[default]
    Tcp,
    Tls,
    Grpc,
    Http,
    Http2,
    Mysql,
}

impl Protocol {
    /// Wire name.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Tls => "tls",
            Protocol::Grpc => "grpc",
            Protocol::Http => "http",
            Protocol::Http2 => "http2",
            Protocol::Mysql => "mysql",
        }
    }

    /// HTTP in any form.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Grpc | Protocol::Http | Protocol::Http2)
    }
}

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "default",
        "What is done with traffic to destinations outside the mesh.",
        object(&[
            field(
                "appendMatch",
                "Destinations that are let through.",
                list(&object(&[
                    field("port", "Port of the destination; without it, all.", int32()),
                    field(
                        "protocol",
                        "Protocol of the traffic.",
                        one_of(&["tcp", "tls", "grpc", "http", "http2", "mysql"]).default_text("tcp"),
                    ),
                    field("type", "What the value is.", one_of(&["Domain", "IP", "CIDR"])).required(),
                    field("value", "Domain (also `*.domain`), address, or network.", text()).required(),
                ])),
            ),
            field(
                "passthroughMode",
                "`All` lets everything through, `None` nothing, `Matched` what `appendMatch` lists.",
                one_of(&["All", "Matched", "None"]),
            ),
        ]),
    ),
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
]);

impl Validate for MeshPassthrough {
    const DESCRIPTION: &'static str =
        "Says which destinations outside the mesh proxies let traffic through to.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        targetref::validate_top(self.target_ref.as_ref(), false, violations);
        let mut seen = BTreeSet::new();
        let mut http_protocols: BTreeMap<u32, Protocol> = BTreeMap::new();
        for (index, item) in self.default.iter().flat_map(|conf| &conf.append_match).flatten().enumerate() {
            let path = format!("spec.default.appendMatch[{index}]");
            match item.port {
                None if item.protocol == Protocol::Mysql => {
                    violations.add(format!("{path}.port"), "port must be defined for Mysql protocol");
                }
                None => {}
                Some(port) => check::port(port, format!("{path}.port"), violations),
            }
            if let Some(port) = item.port
                && item.protocol.is_http()
                && *http_protocols.entry(port).or_insert(item.protocol) != item.protocol
            {
                violations.add(
                    format!("{path}.port"),
                    "using the same port in multiple matches requires the same protocol for the following protocols: [grpc http http2]",
                );
            }
            validate_value(item, &path, violations);
            if !seen.insert((item.port, item.protocol, item.value.as_str())) {
                let message = format!("value {} is already defined for this port and protocol", item.value);
                violations.add(format!("{path}.value"), message);
            }
        }
    }
}

fn validate_value(item: &Match, path: &str, violations: &mut Violations) {
    match item.r#type {
        MatchType::IP if item.value.parse::<IpAddr>().is_err() => {
            violations.add(format!("{path}.value"), "provided IP has incorrect value");
        }
        MatchType::CIDR if !is_block(&item.value) => {
            violations.add(format!("{path}.value"), "provided CIDR has incorrect value");
        }
        MatchType::IP | MatchType::CIDR => {}
        MatchType::Domain => {
            if matches!(item.protocol, Protocol::Tcp | Protocol::Mysql) {
                let message = format!("protocol {} is not supported for a domain", item.protocol.name());
                violations.add(format!("{path}.protocol"), message);
            }
            validate_domain(item, path, violations);
        }
    }
}

fn validate_domain(item: &Match, path: &str, violations: &mut Violations) {
    let is_wildcard = item.value.starts_with('*');
    if is_wildcard && item.port.is_none() && item.protocol.is_http() {
        violations
            .add(format!("{path}.port"), "wildcard domains doesn't work for all ports and layer 7 protocol");
    }
    if is_wildcard && item.value != "*" && !item.value.starts_with("*.") {
        violations.add(
            format!("{path}.value"),
            "provided DNS has incorrect value, partial wildcard is currently not supported",
        );
        return;
    }
    let rest = item.value.strip_prefix("*.").unwrap_or(&item.value);
    if item.value != "*" && !name::is_dns1123_subdomain(&rest.to_ascii_lowercase()) {
        violations.add(format!("{path}.value"), "provided DNS has incorrect value");
    }
}

fn is_block(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|c| c.is_ascii_digit()) && bits.parse().is_ok_and(|bits: u8| bits <= most)
}
