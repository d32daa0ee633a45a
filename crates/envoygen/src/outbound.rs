//! Outbound listeners (xds.md §3.6, policies.md §4, §5).

use std::collections::BTreeMap;
use std::fmt::Write;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use graticule_policy::inputs::{HttpRoute, Outbound, Protocol, Routing};

use crate::inbound::TAGS_HEADER;
use crate::listener::{
    chain, connection_manager, grpc_stats, http, internal_addresses, listener, route_table, router, tcp_proxy,
};
use crate::message::{duration, flag, header, tcp_address, unified_name};
use crate::retry;
use crate::route::routes;
use crate::timeout::{NONE, Timeouts};

/// What an outbound listener takes from its proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// Internal addresses.
    pub(crate) internal_cidrs: &'a [String],
    /// Whether the proxy has IPv6.
    pub(crate) ipv6: bool,
    /// Value of the tags header; none = it is not sent.
    pub(crate) tags_header: Option<&'a str>,
}

/// The listener; none when there is nowhere to send traffic.
pub(crate) fn outbound_listener(outbound: &Outbound, around: Surroundings<'_>) -> Option<pb::Listener> {
    let filter = match &outbound.routing {
        Routing::Http(routes) => http(&manager(outbound, routes, around)?),
        Routing::Tcp(shares) => tcp_proxy(
            &outbound.name,
            shares,
            Some(Timeouts::new(outbound.timeout.as_ref()).idle()),
            retry::connect_attempts(outbound.retry.as_ref()).filter(|_| outbound.protocol == Protocol::Tcp),
        )?,
    };
    Some(pb::Listener {
        metadata: Some(unified_name(&outbound.name)),
        traffic_direction: core::TrafficDirection::Outbound.into(),
        bind_to_port: outbound.bind_to_port.map(flag),
        ..listener(&outbound.name, tcp_address(&outbound.address, outbound.port), vec![chain(vec![filter])])
    })
}

fn manager(
    outbound: &Outbound,
    rules: &[HttpRoute],
    around: Surroundings<'_>,
) -> Option<HttpConnectionManager> {
    let routes = routes(outbound, rules);
    if routes.is_empty() {
        return None;
    }
    let tags =
        around.tags_header.map(|tags| header(TAGS_HEADER, tags, HeaderAppendAction::AppendIfExistsOrAdd));
    let table = RouteConfiguration {
        name: outbound.name.clone(),
        request_headers_to_add: tags.into_iter().collect(),
        ..route_table(&outbound.name, routes)
    };
    let stats = (outbound.protocol == Protocol::Grpc).then(grpc_stats);
    let filters = stats.into_iter().chain([router()]).collect();
    let internal = internal_addresses(around.internal_cidrs, around.ipv6);
    let timeouts = Timeouts::new(outbound.timeout.as_ref());
    Some(HttpConnectionManager {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: Some(duration(NONE)),
            ..Default::default()
        }),
        request_headers_timeout: Some(duration(timeouts.request_headers())),
        normalize_path: Some(flag(true)),
        ..connection_manager(&outbound.name, table, filters, internal)
    })
}

/// Labels as value of the tags header: `&key=value&` each, keys sorted (policies.md §3.6).
pub(crate) fn tags_header(labels: &BTreeMap<String, String>) -> String {
    labels.iter().fold(String::new(), |mut text, (key, value)| {
        // Writing to a String cannot fail.
        let _ = write!(text, "&{key}={value}&");
        text
    })
}
