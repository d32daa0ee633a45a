//! Listeners and clusters that every proxy has beside its traffic: admin, readiness, transparent passthrough,
//! zone ingress, dynamic configuration (xds.md §3.4, §3.9, §3.10, §6.2).

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::config::route::v3 as route;
use graticule_policy::inputs::{Dns, InboundTimeout, ProxyInputs, ZoneIngress};
use graticule_policy::node::{AdminFacts, FEATURE_REUSE_PORT, FEATURE_STRICT_INBOUND_PORTS};
use route::route::Action;
use route::route_match::PathSpecifier;
use serde::Serialize;

use crate::cluster::{bind_source, fixed, original_destination, sink};
use crate::inbound::{is_strict, passthrough_source};
use crate::listener::{
    chain, connection_manager, http, listener, loopback, route_table, router, tcp_to, tls_inspector,
};
use crate::message::{exact, flag, header, inline_string, number, pipe_address, socket_path, tcp_address};
use crate::snapshot::AdminTls;
use crate::timeout::{CONNECT, Timeouts};
use crate::tls;

/// Listener and cluster of Envoy's admin interface.
pub(crate) const ADMIN: &str = "system_envoy_admin";
/// Cluster of the agent's readiness endpoint.
const READINESS: &str = "system_probe_readiness";
/// Cluster for redirected connections that nothing is declared for.
const NO_DESTINATION: &str = "self_transparentproxy_no_destination_inbound";
/// Listener that the agent reads its configuration from.
pub(crate) const DYNCONF: &str = "system_dynamicconfig";
/// Seconds that DNS answers may be kept.
const DNS_TTL: u32 = 30;

/// Clusters of admin and readiness.
pub(crate) fn admin_clusters(admin: &AdminFacts) -> [Cluster; 2] {
    let address = match admin.socket_path.as_str() {
        "" => tcp_address(&admin.address, admin.port),
        path => pipe_address(path),
    };
    [
        fixed(ADMIN, address, CONNECT),
        fixed(READINESS, tcp_address(&admin.address, admin.readiness_port), CONNECT),
    ]
}

/// Readiness for everyone, admin for the control plane; none where it would clash with admin itself.
pub(crate) fn admin_listener(
    inputs: &ProxyInputs,
    admin: &AdminFacts,
    tls: Option<&AdminTls>,
) -> Option<pb::Listener> {
    if inputs.address == admin.address {
        return None;
    }
    let manager = |routes| {
        vec![http(&connection_manager(
            ADMIN,
            route_table(ADMIN, routes),
            vec![router()],
            loopback(inputs.node.ipv6),
        ))]
    };
    let ready = || forward("/ready", READINESS);
    let protected = pb::FilterChain {
        filter_chain_match: Some(pb::FilterChainMatch {
            transport_protocol: "tls".into(),
            ..Default::default()
        }),
        transport_socket: Some(tls::admin_socket(tls)),
        ..chain(manager(vec![ready(), forward("/", ADMIN)]))
    };
    let chains = vec![chain(manager(vec![ready()])), protected];
    Some(pb::Listener {
        stat_prefix: String::new(),
        listener_filters: vec![tls_inspector()],
        traffic_direction: core::TrafficDirection::Inbound.into(),
        enable_reuse_port: Some(flag(inputs.node.has(FEATURE_REUSE_PORT))),
        ..listener(ADMIN, tcp_address(&inputs.address, admin.port), chains)
    })
}

/// A route that keeps its prefix.
fn forward(prefix: &str, cluster: &str) -> route::Route {
    route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(prefix.into())),
            ..Default::default()
        }),
        action: Some(Action::Route(route::RouteAction {
            prefix_rewrite: prefix.into(),
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster.into())),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Name of a zone ingress listener.
pub(crate) fn ingress_name(ingress: &ZoneIngress) -> String {
    format!("self_zoneingress_dp_{}", ingress.section)
}

/// The listener of a zone ingress: connections by server name, TLS untouched; none without destinations.
pub(crate) fn ingress_listener(inputs: &ProxyInputs, ingress: &ZoneIngress) -> Option<pb::Listener> {
    if ingress.chains.is_empty() {
        return None;
    }
    let idle = match &ingress.timeout {
        InboundTimeout::CatchAll(conf) => Some(Timeouts::new(Some(conf)).idle()),
        InboundTimeout::Defaults | InboundTimeout::Untouched => None,
    };
    let by_name = |input: &graticule_policy::inputs::IngressChain| pb::FilterChain {
        filter_chain_match: Some(pb::FilterChainMatch {
            transport_protocol: "tls".into(),
            server_names: vec![input.sni.clone()],
            ..Default::default()
        }),
        ..chain(vec![tcp_to(&input.cluster, &input.cluster, idle)])
    };
    let name = ingress_name(ingress);
    let chains = ingress.chains.iter().map(by_name).collect();
    Some(pb::Listener {
        listener_filters: vec![tls_inspector()],
        traffic_direction: core::TrafficDirection::Inbound.into(),
        enable_reuse_port: Some(flag(inputs.node.has(FEATURE_REUSE_PORT))),
        ..listener(&name, tcp_address(&ingress.address, ingress.port), chains)
    })
}

/// Everything that passes a transparent proxy without being declared.
#[derive(Debug, Default)]
pub(crate) struct Passthrough {
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) listeners: Vec<pb::Listener>,
}

/// Passthrough listeners and clusters; none where outbound traffic is not redirected.
pub(crate) fn passthrough(inputs: &ProxyInputs) -> Passthrough {
    let mut built = Passthrough::default();
    let Some(proxy) = &inputs.transparent_proxy else { return built };
    let Some(outbound_port) = proxy.outbound_port else { return built };
    built.clusters.push(sink(NO_DESTINATION));
    for ipv6 in [false, true].into_iter().filter(|ipv6| !ipv6 || proxy.ipv6) {
        let (family, any_address) = if ipv6 { ("ipv6", "::") } else { ("ipv4", "0.0.0.0") };
        let outbound = format!("self_transparentproxy_passthrough_outbound_{family}");
        built.clusters.push(original_destination(&outbound));
        built.listeners.push(pb::Listener {
            use_original_dst: Some(flag(true)),
            traffic_direction: core::TrafficDirection::Outbound.into(),
            ..listener(
                &outbound,
                tcp_address(any_address, outbound_port),
                vec![chain(vec![tcp_to(&outbound, &outbound, None)])],
            )
        });
        let Some(inbound_port) = proxy.inbound_port else { continue };
        let inbound = format!("self_transparentproxy_passthrough_inbound_{family}");
        let mut cluster = original_destination(&inbound);
        bind_source(&mut cluster, passthrough_source(ipv6));
        built.clusters.push(cluster);
        built.listeners.push(pb::Listener {
            use_original_dst: Some(flag(true)),
            traffic_direction: core::TrafficDirection::Inbound.into(),
            enable_reuse_port: Some(flag(inputs.node.has(FEATURE_REUSE_PORT))),
            ..listener(&inbound, tcp_address(any_address, inbound_port), inbound_chains(inputs, &inbound))
        });
    }
    built
}

/// One chain per declared port where plaintext must not slip past mesh TLS, else one for everything.
///
/// Strict as soon as any inbound is Strict (policies.md §22 no. 6).
fn inbound_chains(inputs: &ProxyInputs, name: &str) -> Vec<pb::FilterChain> {
    let strict = inputs.node.has(FEATURE_STRICT_INBOUND_PORTS)
        && inputs.identity.is_some()
        && inputs.inbounds.iter().any(|inbound| is_strict(&inbound.tls));
    let open = || chain(vec![tcp_to(name, name, None)]);
    if !strict {
        return vec![open()];
    }
    let mut ports: Vec<u32> = Vec::new();
    for inbound in &inputs.inbounds {
        if !ports.contains(&inbound.port) {
            ports.push(inbound.port);
        }
    }
    let for_port = |port| pb::FilterChain {
        filter_chain_match: Some(pb::FilterChainMatch {
            destination_port: Some(number(port)),
            ..Default::default()
        }),
        ..open()
    };
    ports.into_iter().map(for_port).collect()
}

/// Body of `/dns`; the order of members is part of the contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DnsBody<'a> {
    records: Vec<DnsRecord<'a>>,
    ttl: u32,
    extra_labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct DnsRecord<'a> {
    name: &'a str,
    ips: &'a [String],
}

/// The listener that the agent polls for its DNS records.
pub(crate) fn dynconf_listener(inputs: &ProxyInputs, dns: &Dns) -> pb::Listener {
    let records = dns.records.iter().map(|(name, ips)| DnsRecord { name, ips }).collect();
    let body = DnsBody { records, ttl: DNS_TTL, extra_labels: &dns.extra_labels };
    let body = serde_json::to_string(&body).expect("texts and lists have a JSON form");
    let etag = sha256_hex(body.as_bytes());
    let table = route::RouteConfiguration {
        validate_clusters: None,
        max_direct_response_body_size_bytes: u32::try_from(body.len()).ok().map(number),
        ..route_table(DYNCONF, answers("dns", "/dns", &body, &etag))
    };
    let manager = connection_manager(DYNCONF, table, vec![router()], loopback(inputs.node.ipv6));
    let path = socket_path(&inputs.node.workdir, "kuma-mesh-metric-config");
    listener(DYNCONF, pipe_address(&path), vec![chain(vec![http(&manager)])])
}

/// 304 for a client that has the body, else the body.
fn answers(name: &str, path: &str, body: &str, etag: &str) -> Vec<route::Route> {
    use route::header_matcher::HeaderMatchSpecifier;
    let known = route::HeaderMatcher {
        name: "If-None-Match".into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact(etag))),
        ..Default::default()
    };
    let answer = |name: String, headers: Vec<route::HeaderMatcher>, status, body| route::Route {
        name,
        r#match: Some(route::RouteMatch {
            path_specifier: Some(PathSpecifier::Path(path.into())),
            headers,
            ..Default::default()
        }),
        action: Some(Action::DirectResponse(route::DirectResponseAction {
            status,
            body,
            ..Default::default()
        })),
        ..Default::default()
    };
    vec![
        answer(format!("{DYNCONF}_{name}_not_modified"), vec![known], 304, None),
        route::Route {
            response_headers_to_add: vec![header("Etag", etag, HeaderAppendAction::AppendIfExistsOrAdd)],
            ..answer(format!("{DYNCONF}_{name}"), Vec::new(), 200, Some(inline_string(body)))
        },
    ]
}

/// Lower-case hexadecimal SHA-256.
fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
