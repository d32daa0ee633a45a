//! Parts of listeners: filter chains, HTTP connection manager, TCP proxy (policies.md §3.2).

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use graticule_model::GoDuration;
use graticule_policy::inputs::Share;
use prost::{Message, Name};

use crate::message::{any, cidr_ranges, duration, flag, sanitize};

/// Loopback ranges, the internal addresses of system listeners and where none is configured.
const LOOPBACK: [&str; 2] = ["127.0.0.1/32", "::1/128"];

/// A listener with its statistics prefix; system listeners drop it.
pub(crate) fn listener(name: &str, address: core::Address, chains: Vec<pb::FilterChain>) -> pb::Listener {
    pb::Listener {
        name: name.into(),
        address: Some(address),
        stat_prefix: name.into(),
        filter_chains: chains,
        ..Default::default()
    }
}

/// A network filter.
pub(crate) fn filter<M: Message + Name>(name: &str, config: &M) -> pb::Filter {
    pb::Filter { name: name.into(), config_type: Some(pb::filter::ConfigType::TypedConfig(any(config))) }
}

/// An HTTP filter.
pub(crate) fn http_filter<M: Message + Name>(name: &str, config: &M) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(any(config))),
        ..Default::default()
    }
}

/// The last HTTP filter.
pub(crate) fn router() -> hcm::HttpFilter {
    http_filter("envoy.filters.http.router", &Router::default())
}

/// Statistics of gRPC calls.
pub(crate) fn grpc_stats() -> hcm::HttpFilter {
    http_filter("envoy.filters.http.grpc_stats", &GrpcStats { emit_filter_state: true, ..Default::default() })
}

/// Reads server name and ALPN before a chain is chosen.
pub(crate) fn tls_inspector() -> pb::ListenerFilter {
    pb::ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".into(),
        config_type: Some(pb::listener_filter::ConfigType::TypedConfig(any(&TlsInspector::default()))),
        ..Default::default()
    }
}

/// A chain without condition.
pub(crate) fn chain(filters: Vec<pb::Filter>) -> pb::FilterChain {
    pb::FilterChain { filters, ..Default::default() }
}

/// Internal addresses: the configured ones, else loopback.
pub(crate) fn internal_addresses(
    cidrs: &[String],
    ipv6: bool,
) -> hcm::http_connection_manager::InternalAddressConfig {
    if cidrs.is_empty() {
        return loopback(ipv6);
    }
    hcm::http_connection_manager::InternalAddressConfig {
        cidr_ranges: cidr_ranges(cidrs.iter().map(String::as_str)),
        ..Default::default()
    }
}

/// Loopback only.
pub(crate) fn loopback(ipv6: bool) -> hcm::http_connection_manager::InternalAddressConfig {
    hcm::http_connection_manager::InternalAddressConfig {
        cidr_ranges: cidr_ranges(LOOPBACK.into_iter().take(if ipv6 { 2 } else { 1 })),
        ..Default::default()
    }
}

/// A connection manager with inline routes.
pub(crate) fn connection_manager(
    name: &str,
    routes: route::RouteConfiguration,
    filters: Vec<hcm::HttpFilter>,
    internal: hcm::http_connection_manager::InternalAddressConfig,
) -> hcm::HttpConnectionManager {
    hcm::HttpConnectionManager {
        stat_prefix: sanitize(name),
        http_filters: filters,
        internal_address_config: Some(internal),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(routes)),
        ..Default::default()
    }
}

/// The filter of a connection manager.
pub(crate) fn http(manager: &hcm::HttpConnectionManager) -> pb::Filter {
    filter("envoy.filters.network.http_connection_manager", manager)
}

/// Routes of one virtual host for every domain; clusters may come later.
pub(crate) fn route_table(host: &str, routes: Vec<route::Route>) -> route::RouteConfiguration {
    route::RouteConfiguration {
        virtual_hosts: vec![route::VirtualHost {
            name: host.into(),
            domains: vec!["*".into()],
            routes,
            ..Default::default()
        }],
        validate_clusters: Some(flag(false)),
        ..Default::default()
    }
}

/// A TCP proxy; none without shares.
pub(crate) fn tcp_proxy(
    stat_prefix: &str,
    shares: &[Share],
    idle: Option<GoDuration>,
    max_connect_attempts: Option<u32>,
) -> Option<pb::Filter> {
    use tcp::tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight};
    let clusters = match shares {
        [] => return None,
        [share] => ClusterSpecifier::Cluster(share.cluster.clone()),
        shares => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: shares
                .iter()
                .map(|share| ClusterWeight {
                    name: share.cluster.clone(),
                    weight: share.weight,
                    ..Default::default()
                })
                .collect(),
        }),
    };
    Some(tcp_filter(stat_prefix, clusters, idle, max_connect_attempts))
}

/// A TCP proxy to one cluster.
pub(crate) fn tcp_to(stat_prefix: &str, cluster: &str, idle: Option<GoDuration>) -> pb::Filter {
    tcp_filter(stat_prefix, tcp::tcp_proxy::ClusterSpecifier::Cluster(cluster.into()), idle, None)
}

fn tcp_filter(
    stat_prefix: &str,
    clusters: tcp::tcp_proxy::ClusterSpecifier,
    idle: Option<GoDuration>,
    max_connect_attempts: Option<u32>,
) -> pb::Filter {
    let proxy = tcp::TcpProxy {
        stat_prefix: sanitize(stat_prefix),
        idle_timeout: idle.map(duration),
        max_connect_attempts: max_connect_attempts.map(crate::message::number),
        cluster_specifier: Some(clusters),
        ..Default::default()
    };
    filter("envoy.filters.network.tcp_proxy", &proxy)
}
