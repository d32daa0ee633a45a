//! Inbound listeners and clusters (xds.md §3.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use graticule_model::kinds::mesh_tls::{self, Mode};
use graticule_policy::inputs::{Inbound, InboundTimeout, Protocol, ProxyInputs};
use graticule_policy::node::FEATURE_REUSE_PORT;
use hcm::http_connection_manager::{ForwardClientCertDetails, SetCurrentClientCertDetails};

use crate::listener::{
    chain, connection_manager, grpc_stats, http, http_filter, internal_addresses, listener, route_table,
    router, tcp_to, tls_inspector,
};
use crate::message::{duration, flag, map_struct, tags, tcp_address, unified_name};
use crate::timeout::{INBOUND_CONNECT, INBOUND_IDLE, INBOUND_STREAM_IDLE, NONE, Timeouts};
use crate::{cluster, rbac, tls};

/// Header that carries the client's labels between proxies; never reaches the application.
pub(crate) const TAGS_HEADER: &str = "x-kuma-tags";

/// Name of the listener, the cluster, the route table and the virtual host.
pub(crate) fn name(inbound: &Inbound) -> String {
    format!("self_inbound_dp_{}", inbound.section)
}

/// Whether only mesh TLS is admitted, which is the default.
pub(crate) fn is_strict(conf: &mesh_tls::Conf) -> bool {
    conf.mode != Some(Mode::Permissive)
}

/// Source address of connections to the application behind a transparent proxy.
pub(crate) fn passthrough_source(ipv6: bool) -> &'static str {
    if ipv6 { "::6" } else { "127.0.0.6" }
}

/// The timeouts that are written; none = the generator's own values stay.
fn timeouts(inbound: &Inbound) -> Option<Timeouts<'_>> {
    match &inbound.timeout {
        InboundTimeout::Defaults => Some(Timeouts::new(None)),
        InboundTimeout::Untouched => None,
        InboundTimeout::CatchAll(conf) => Some(Timeouts::new(Some(conf))),
    }
}

/// The cluster of the application.
pub(crate) fn application_cluster(inbound: &Inbound, transparent: bool) -> Cluster {
    let name = name(inbound);
    let address = tcp_address(&inbound.workload_address, inbound.workload_port);
    let timeouts = timeouts(inbound);
    let mut built = cluster::fixed(&name, address, timeouts.map_or(INBOUND_CONNECT, |t| t.connect()));
    if let Some(version) = cluster::application_http(inbound.protocol) {
        let own =
            core::HttpProtocolOptions { idle_timeout: Some(duration(INBOUND_IDLE)), ..Default::default() };
        let common = timeouts.and_then(|t| t.upstream(inbound.protocol)).unwrap_or(own);
        cluster::set_http(&mut built, version, Some(common));
    }
    if let (true, Ok(ip)) = (transparent, inbound.workload_address.parse::<IpAddr>())
        && !is_exempt(ip)
    {
        cluster::bind_source(&mut built, passthrough_source(ip.is_ipv6()));
    }
    cluster::break_circuit(&mut built, inbound.circuit_breaker.as_ref());
    built
}

/// `127.0.0.1` and `::1` only: other loopback addresses are redirected like any other.
fn is_exempt(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// The listener of an inbound.
pub(crate) fn inbound_listener(inputs: &ProxyInputs, inbound: &Inbound) -> pb::Listener {
    let name = name(inbound);
    let metadata = match inputs.labels.is_empty() {
        true => unified_name(&name),
        false => tags(map_struct(&inputs.labels)),
    };
    let permissive = inputs.identity.is_some() && !is_strict(&inbound.tls);
    let needs_inspector = permissive || (inputs.identity.is_some() && rbac::needs_sni(&inbound.permissions));
    pb::Listener {
        metadata: Some(metadata),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        enable_reuse_port: Some(flag(inputs.node.has(FEATURE_REUSE_PORT))),
        bind_to_port: inputs.transparent_proxy.is_some().then(|| flag(false)),
        listener_filters: needs_inspector.then(tls_inspector).into_iter().collect(),
        ..listener(&name, tcp_address(&inbound.address, inbound.port), chains(inputs, inbound))
    }
}

/// Plaintext, mesh TLS, or both with the application's own TLS in between.
fn chains(inputs: &ProxyInputs, inbound: &Inbound) -> Vec<pb::FilterChain> {
    let Some(identity) = &inputs.identity else { return vec![chain(filters(inputs, inbound, false))] };
    let socket = tls::inbound_socket(&identity.secret_name, inputs.trust.domains.keys(), &inbound.tls);
    let protected =
        pb::FilterChain { transport_socket: Some(socket), ..chain(filters(inputs, inbound, true)) };
    if is_strict(&inbound.tls) {
        return vec![protected];
    }
    let select = |transport: &str, application: &[&str]| pb::FilterChainMatch {
        transport_protocol: transport.into(),
        application_protocols: application.iter().map(|&protocol| protocol.into()).collect(),
        ..Default::default()
    };
    let plain = |filter_chain_match| pb::FilterChain {
        filter_chain_match: Some(filter_chain_match),
        ..chain(filters(inputs, inbound, false))
    };
    vec![
        plain(select("raw_buffer", &[])),
        plain(select("tls", &[])),
        pb::FilterChain { filter_chain_match: Some(select("tls", &[tls::ALPN])), ..protected },
    ]
}

fn filters(inputs: &ProxyInputs, inbound: &Inbound, protected: bool) -> Vec<pb::Filter> {
    let name = name(inbound);
    if inbound.protocol.is_http_based() {
        return vec![http(&manager(inputs, inbound, protected))];
    }
    let idle = timeouts(inbound).map_or(INBOUND_IDLE, |t| t.idle());
    let rbac = protected.then(|| {
        crate::listener::filter("envoy.filters.network.rbac", &rbac::network(&inbound.permissions, &name))
    });
    rbac.into_iter().chain([tcp_to(&name, &name, Some(idle))]).collect()
}

fn manager(inputs: &ProxyInputs, inbound: &Inbound, protected: bool) -> hcm::HttpConnectionManager {
    let name = name(inbound);
    let mut filters = Vec::new();
    if protected {
        filters.push(http_filter("envoy.filters.http.rbac", &rbac::http(&inbound.permissions)));
    }
    if inbound.protocol == Protocol::Grpc {
        filters.push(grpc_stats());
    }
    filters.push(router());
    let internal = internal_addresses(&inputs.internal_cidrs, inputs.node.ipv6);
    let timeouts = timeouts(inbound);
    let idle = if timeouts.is_some() { NONE } else { INBOUND_IDLE };
    hcm::HttpConnectionManager {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: Some(duration(idle)),
            ..Default::default()
        }),
        stream_idle_timeout: Some(duration(INBOUND_STREAM_IDLE)),
        request_headers_timeout: timeouts.map(|t| duration(t.request_headers())),
        forward_client_cert_details: ForwardClientCertDetails::SanitizeSet.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            uri: true,
            ..Default::default()
        }),
        ..connection_manager(&name, application_routes(&name, timeouts), filters, internal)
    }
}

fn application_routes(name: &str, timeouts: Option<Timeouts<'_>>) -> route::RouteConfiguration {
    let mut action = route::RouteAction {
        timeout: Some(duration(NONE)),
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(name.into())),
        ..Default::default()
    };
    if let Some(timeouts) = timeouts {
        timeouts.apply(&mut action);
    }
    let route = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    route::RouteConfiguration {
        name: name.into(),
        request_headers_to_remove: vec![TAGS_HEADER.into()],
        ..route_table(name, vec![route])
    }
}
