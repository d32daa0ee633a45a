//! Clusters and load assignments (xds.md §3.3, §3.7, §3.8, policies.md §16).

use std::collections::HashMap;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as eds;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as http;
use envoy_types::pb::envoy::r#type::v3::Percent;
use graticule_model::GoDuration;
use graticule_model::kinds::mesh_circuit_breaker::{Conf, ConnectionLimits, Consecutive, OutlierDetection};
use graticule_policy::inputs::{
    Cluster, ClusterRole, ConnectionLife, Endpoint, Endpoints, Locality, Protocol,
};
use prost::Name;

use crate::message::{ads, any, duration, map_struct, metadata, number, sanitize, tcp_address};
use crate::timeout::{CONNECT, Timeouts};
use crate::tls;

/// Version of HTTP that is spoken upstream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HttpVersion {
    One,
    Two,
}

/// A cluster with the members that all clusters have.
fn base(name: &str, kind: pb::cluster::DiscoveryType, connect: GoDuration) -> pb::Cluster {
    let stat_name = sanitize(name);
    pb::Cluster {
        name: name.into(),
        alt_stat_name: if stat_name == name { String::new() } else { stat_name },
        connect_timeout: Some(duration(connect)),
        circuit_breakers: Some(thresholds(None)),
        cluster_discovery_type: Some(pb::cluster::ClusterDiscoveryType::Type(kind.into())),
        ..Default::default()
    }
}

/// One fixed endpoint.
pub(crate) fn fixed(name: &str, address: core::Address, connect: GoDuration) -> pb::Cluster {
    let endpoint = eds::LbEndpoint {
        host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(eds::Endpoint {
            address: Some(address),
            ..Default::default()
        })),
        ..Default::default()
    };
    pb::Cluster {
        load_assignment: Some(eds::ClusterLoadAssignment {
            cluster_name: name.into(),
            endpoints: vec![eds::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
            ..Default::default()
        }),
        ..base(name, pb::cluster::DiscoveryType::Static, connect)
    }
}

/// No endpoint at all: connections are closed.
pub(crate) fn sink(name: &str) -> pb::Cluster {
    pb::Cluster { alt_stat_name: name.into(), ..base(name, pb::cluster::DiscoveryType::Static, CONNECT) }
}

/// The address that the connection was made for.
pub(crate) fn original_destination(name: &str) -> pb::Cluster {
    pb::Cluster {
        lb_policy: pb::cluster::LbPolicy::ClusterProvided.into(),
        ..base(name, pb::cluster::DiscoveryType::OriginalDst, CONNECT)
    }
}

/// Source address of connections that must not be redirected again.
pub(crate) fn bind_source(cluster: &mut pb::Cluster, address: &str) {
    cluster.upstream_bind_config = Some(core::BindConfig {
        source_address: Some(crate::message::socket_address(address, 0)),
        ..Default::default()
    });
}

/// Upstream HTTP settings.
pub(crate) fn set_http(
    cluster: &mut pb::Cluster,
    version: HttpVersion,
    common: Option<core::HttpProtocolOptions>,
) {
    use http::http_protocol_options::explicit_http_config::ProtocolConfig;
    use http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    let protocol = match version {
        HttpVersion::One => ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default()),
        HttpVersion::Two => ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default()),
    };
    let options = http::HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol),
        })),
        ..Default::default()
    };
    cluster.typed_extension_protocol_options =
        HashMap::from([(http::HttpProtocolOptions::full_name(), any(&options))]);
}

/// A destination.
pub(crate) fn destination(name: &str, input: &Cluster) -> pb::Cluster {
    let timeouts = Timeouts::new(input.timeout.as_ref());
    let mut cluster = pb::Cluster {
        eds_cluster_config: Some(pb::cluster::EdsClusterConfig {
            eds_config: Some(ads()),
            ..Default::default()
        }),
        ..base(name, pb::cluster::DiscoveryType::Eds, timeouts.connect())
    };
    if input.role == ClusterRole::Outbound {
        let mut common = timeouts.upstream(input.protocol);
        if let (Some(life), true) = (input.connection_life, input.protocol.is_http_based()) {
            limit_life(common.get_or_insert_default(), life, timeouts.max_connection());
        }
        set_http(&mut cluster, HttpVersion::Two, common);
    }
    cluster.transport_socket = input.tls.as_ref().map(tls::upstream_socket);
    break_circuit(&mut cluster, input.circuit_breaker.as_ref());
    cluster
}

/// Bounds the life of connections, so that a zone ingress spreads requests (DESIGN decision 15).
fn limit_life(common: &mut core::HttpProtocolOptions, life: ConnectionLife, by_policy: GoDuration) {
    common.max_requests_per_connection = Some(number(life.max_requests));
    if by_policy.0 <= 0 {
        let millis = i64::try_from(life.max_duration_ms).unwrap_or(i64::MAX / 1_000_000);
        common.max_connection_duration = Some(duration(GoDuration(millis.saturating_mul(1_000_000))));
    }
}

/// Protocol of an inbound cluster towards its application.
pub(crate) fn application_http(protocol: Protocol) -> Option<HttpVersion> {
    match protocol {
        Protocol::Http => Some(HttpVersion::One),
        Protocol::Http2 | Protocol::Grpc => Some(HttpVersion::Two),
        Protocol::Tcp => None,
    }
}

/// Limits, and always the counters of what is left of them (policies.md §16).
fn thresholds(limits: Option<&ConnectionLimits>) -> pb::CircuitBreakers {
    let limits = limits.cloned().unwrap_or_default();
    pb::CircuitBreakers {
        thresholds: vec![pb::circuit_breakers::Thresholds {
            max_connections: limits.max_connections.map(number),
            max_connection_pools: limits.max_connection_pools.map(number),
            max_pending_requests: limits.max_pending_requests.map(number),
            max_requests: limits.max_requests.map(number),
            max_retries: limits.max_retries.map(number),
            track_remaining: true,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// MeshCircuitBreaker on a cluster.
pub(crate) fn break_circuit(cluster: &mut pb::Cluster, conf: Option<&Conf>) {
    let Some(conf) = conf else { return };
    cluster.circuit_breakers = Some(thresholds(conf.connection_limits.as_ref()));
    let Some(outliers) = conf.outlier_detection.as_ref().filter(|o| o.disabled != Some(true)) else { return };
    cluster.outlier_detection = Some(outlier_detection(outliers));
    if let Some(value) = outliers.healthy_panic_threshold.as_ref().and_then(|threshold| threshold.value()) {
        cluster.common_lb_config = Some(pb::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(Percent { value }),
            ..Default::default()
        });
    }
}

fn outlier_detection(conf: &OutlierDetection) -> pb::OutlierDetection {
    let detectors = conf.detectors.clone().unwrap_or_default();
    let enforce = |on: bool| Some(number(if on { 100 } else { 0 }));
    let row = |detector: Option<Consecutive>| detector.and_then(|d| d.consecutive);
    let total = row(detectors.total_failures);
    let gateway = row(detectors.gateway_failures);
    let local = row(detectors.local_origin_failures);
    let rate = detectors.success_rate;
    let share = detectors.failure_percentage;
    pb::OutlierDetection {
        interval: conf.interval.map(duration),
        base_ejection_time: conf.base_ejection_time.map(duration),
        max_ejection_percent: conf.max_ejection_percent.map(number),
        split_external_local_origin_errors: conf.split_external_and_local_errors.unwrap_or_default(),
        consecutive_5xx: total.map(number),
        enforcing_consecutive_5xx: enforce(total.is_some()),
        consecutive_gateway_failure: gateway.map(number),
        enforcing_consecutive_gateway_failure: enforce(gateway.is_some()),
        consecutive_local_origin_failure: local.map(number),
        enforcing_consecutive_local_origin_failure: enforce(local.is_some()),
        enforcing_success_rate: enforce(rate.is_some()),
        enforcing_local_origin_success_rate: enforce(rate.is_some()),
        success_rate_minimum_hosts: rate.as_ref().and_then(|r| r.minimum_hosts).map(number),
        success_rate_request_volume: rate.as_ref().and_then(|r| r.request_volume).map(number),
        success_rate_stdev_factor: rate
            .as_ref()
            .and_then(|r| r.standard_deviation_factor.as_ref()?.value())
            .map(|factor| number(thousandths(factor))),
        enforcing_failure_percentage: enforce(share.is_some()),
        enforcing_failure_percentage_local_origin: enforce(share.is_some()),
        failure_percentage_minimum_hosts: share.as_ref().and_then(|s| s.minimum_hosts).map(number),
        failure_percentage_request_volume: share.as_ref().and_then(|s| s.request_volume).map(number),
        failure_percentage_threshold: share.as_ref().and_then(|s| s.threshold).map(number),
        ..Default::default()
    }
}

/// Whole thousandths; a trace of binary fraction (1.9 × 1000 = 1899.999…) must not lose one.
fn thousandths(factor: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    let value = (factor * 1000.0 + 1e-6).floor() as u32;
    value
}

/// The load assignment of a destination.
pub(crate) fn load_assignment(cluster: &str, endpoints: &Endpoints) -> eds::ClusterLoadAssignment {
    eds::ClusterLoadAssignment {
        cluster_name: cluster.into(),
        endpoints: endpoints.localities.iter().map(locality).collect(),
        ..Default::default()
    }
}

fn locality(input: &Locality) -> eds::LocalityLbEndpoints {
    eds::LocalityLbEndpoints {
        locality: input.zone.as_ref().map(|zone| core::Locality { zone: zone.clone(), ..Default::default() }),
        priority: input.priority,
        lb_endpoints: input.endpoints.iter().map(endpoint).collect(),
        ..Default::default()
    }
}

fn endpoint(input: &Endpoint) -> eds::LbEndpoint {
    let labels = || map_struct(&input.metadata);
    eds::LbEndpoint {
        load_balancing_weight: Some(number(input.weight)),
        metadata: (!input.metadata.is_empty())
            .then(|| metadata([("envoy.lb", labels()), ("envoy.transport_socket_match", labels())])),
        host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(eds::Endpoint {
            address: Some(tcp_address(&input.address, input.port)),
            ..Default::default()
        })),
        ..Default::default()
    }
}
