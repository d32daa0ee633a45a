//! What a proxy is asked to probe, and what its answers mean (xds.md §3.13, dataplane-agent.md §4.1).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::health_check::{
    HealthChecker, HttpHealthCheck, TcpHealthCheck,
};
use envoy_types::pb::envoy::config::endpoint::v3::Endpoint;
use envoy_types::pb::envoy::service::health::v3 as health;
use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, UInt32Value};
use graticule_model::kinds::dataplane::{Dataplane, ServiceProbe};
use graticule_policy::NodeFacts;
use graticule_policy::node::FEATURE_TRANSPARENT_PROXY_IN_METADATA;
use serde_json::Value;

/// Name of the check of Envoy itself.
const ADMIN: &str = "system_envoy_admin";
/// Older name of the same.
const ADMIN_LEGACY: &str = "kuma:envoy:admin";
/// Checks of the workload are named after its port.
const WORKLOAD_PREFIX: &str = "localhost:";
/// Source addresses that a transparent proxy does not redirect.
const UNREDIRECTED_V4: &str = "127.0.0.6";
const UNREDIRECTED_V6: &str = "::6";

/// What applies where a service probe says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckDefaults {
    /// Of one probe.
    pub timeout: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Between probes while there is no traffic.
    pub no_traffic_interval: Duration,
    /// Successes in a row until healthy.
    pub healthy_threshold: u32,
    /// Failures in a row until unhealthy.
    pub unhealthy_threshold: u32,
}

impl Default for CheckDefaults {
    fn default() -> Self {
        CheckDefaults {
            timeout: Duration::from_secs(2),
            interval: Duration::from_secs(1),
            no_traffic_interval: Duration::from_secs(1),
            healthy_threshold: 1,
            unhealthy_threshold: 1,
        }
    }
}

/// What a proxy observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// Envoy itself is ready; true if it was not probed.
    pub admin_healthy: bool,
    /// Workload by its port; ports without probe are absent and count as healthy.
    pub workloads: BTreeMap<u32, bool>,
}

impl HealthReport {
    /// Health of an inbound whose workload listens on `port`.
    pub fn is_healthy(&self, port: u32) -> bool {
        self.admin_healthy && self.workloads.get(&port).copied().unwrap_or(true)
    }
}

/// A report about something that was never asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("health report about unknown cluster {0:?}")]
pub struct UnknownCluster(pub String);

/// What the proxy shall probe, and report every `interval`.
pub fn specifier(
    dataplane: &Dataplane,
    node: &NodeFacts,
    defaults: &CheckDefaults,
    interval: Duration,
) -> health::HealthCheckSpecifier {
    let networking = dataplane.networking();
    let is_redirected = is_redirected(dataplane, node);
    let mut checks: Vec<health::ClusterHealthCheck> = admin_check(node, defaults).into_iter().collect();
    let mut ports = BTreeMap::new();
    for inbound in &networking.inbound {
        let Some(probe) = &inbound.service_probe else { continue };
        let (address, port) = networking.workload_address(inbound);
        // Envoy probes addresses only; a name would make it refuse the whole specifier.
        let Ok(ip) = address.parse::<IpAddr>() else { continue };
        if ports.insert(port, ()).is_some() {
            continue;
        }
        let mut check = cluster_check(
            format!("{WORKLOAD_PREFIX}{port}"),
            socket(&ip.to_string(), port),
            HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
            defaults,
        );
        if let Some(check) = check.health_checks.first_mut() {
            apply(probe, check);
        }
        if is_redirected && !ip.is_loopback() {
            let source = if ip.is_ipv4() { UNREDIRECTED_V4 } else { UNREDIRECTED_V6 };
            check.upstream_bind_config = Some(core::BindConfig {
                source_address: Some(socket_address(source, 0)),
                ..Default::default()
            });
        }
        checks.push(check);
    }
    health::HealthCheckSpecifier { cluster_health_checks: checks, interval: Some(duration(interval)) }
}

/// What an answer says.
///
/// # Errors
/// It is about something that was never asked for.
pub fn report(response: &health::EndpointHealthResponse) -> Result<HealthReport, UnknownCluster> {
    let mut report = HealthReport { admin_healthy: true, workloads: BTreeMap::new() };
    for cluster in &response.cluster_endpoints_health {
        let endpoint = cluster.locality_endpoints_health.first().and_then(|l| l.endpoints_health.first());
        let is_healthy = endpoint.is_some_and(|endpoint| {
            matches!(endpoint.health_status(), core::HealthStatus::Healthy | core::HealthStatus::Unknown)
        });
        let name = cluster.cluster_name.as_str();
        if matches!(name, ADMIN | ADMIN_LEGACY) {
            report.admin_healthy = is_healthy;
            continue;
        }
        let port = name.strip_prefix(WORKLOAD_PREFIX).and_then(|port| port.parse::<u16>().ok());
        let port = port.ok_or_else(|| UnknownCluster(name.chars().take(256).collect()))?;
        report.workloads.insert(port.into(), is_healthy);
    }
    Ok(report)
}

fn admin_check(node: &NodeFacts, defaults: &CheckDefaults) -> Option<health::ClusterHealthCheck> {
    let admin = node.admin.as_ref()?;
    let address = match admin.socket_path.as_str() {
        "" => socket(&admin.address, admin.port),
        path => core::Address {
            address: Some(core::address::Address::Pipe(core::Pipe {
                path: path.into(),
                ..Default::default()
            })),
        },
    };
    let check =
        HealthChecker::HttpHealthCheck(HttpHealthCheck { path: "/ready".into(), ..Default::default() });
    Some(cluster_check(ADMIN.into(), address, check, defaults))
}

fn cluster_check(
    name: String,
    address: core::Address,
    checker: HealthChecker,
    defaults: &CheckDefaults,
) -> health::ClusterHealthCheck {
    let check = core::HealthCheck {
        timeout: Some(duration(defaults.timeout)),
        interval: Some(duration(defaults.interval)),
        no_traffic_interval: Some(duration(defaults.no_traffic_interval)),
        healthy_threshold: Some(UInt32Value { value: defaults.healthy_threshold }),
        unhealthy_threshold: Some(UInt32Value { value: defaults.unhealthy_threshold }),
        health_checker: Some(checker),
        ..Default::default()
    };
    health::ClusterHealthCheck {
        cluster_name: name,
        health_checks: vec![check],
        locality_endpoints: vec![health::LocalityEndpoints {
            locality: None,
            endpoints: vec![Endpoint { address: Some(address), ..Default::default() }],
        }],
        ..Default::default()
    }
}

fn apply(probe: &ServiceProbe, check: &mut core::HealthCheck) {
    let positive =
        |nanos: i64| u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
    if let Some(interval) = probe.interval.and_then(|interval| positive(interval.0)) {
        check.interval = Some(duration(interval));
    }
    if let Some(timeout) = probe.timeout.and_then(|timeout| positive(timeout.0)) {
        check.timeout = Some(duration(timeout));
    }
    if let Some(value) = probe.healthy_threshold.filter(|value| *value > 0) {
        check.healthy_threshold = Some(UInt32Value { value });
    }
    if let Some(value) = probe.unhealthy_threshold.filter(|value| *value > 0) {
        check.unhealthy_threshold = Some(UInt32Value { value });
    }
}

/// Whether a transparent proxy redirects the proxy's own connections.
fn is_redirected(dataplane: &Dataplane, node: &NodeFacts) -> bool {
    if node.has(FEATURE_TRANSPARENT_PROXY_IN_METADATA) {
        let enabled = |direction: &str| {
            let settings = node.transparent_proxy.as_ref();
            let flag =
                settings.and_then(|settings| settings.pointer(&format!("/redirect/{direction}/enabled")));
            flag.and_then(Value::as_bool).unwrap_or(false)
        };
        return enabled("inbound") || enabled("outbound");
    }
    let settings = dataplane.networking().transparent_proxying.as_ref();
    settings.is_some_and(|t| t.redirect_port_inbound != 0 || t.redirect_port_outbound != 0)
}

fn socket(address: &str, port: u32) -> core::Address {
    core::Address { address: Some(core::address::Address::SocketAddress(socket_address(address, port))) }
}

fn socket_address(address: &str, port: u32) -> core::SocketAddress {
    core::SocketAddress {
        address: address.into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
        ..Default::default()
    }
}

fn duration(duration: Duration) -> ProtoDuration {
    ProtoDuration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use graticule_model::{Kind, Resource, yaml};
    use graticule_policy::node::AdminFacts;

    use super::*;

    fn mk_dataplane(networking: &str) -> Dataplane {
        let text = format!("{{type: Dataplane, mesh: m, name: d, networking: {networking}}}");
        let resource =
            Resource::from_rest(Kind::Dataplane, &yaml::parse_one(&text).expect("YAML")).expect("valid");
        resource.spec_as::<Dataplane>().expect("a Dataplane").clone()
    }

    fn mk_node(socket_path: &str) -> NodeFacts {
        let admin = AdminFacts {
            port: 9901,
            address: "127.0.0.1".into(),
            socket_path: socket_path.into(),
            readiness_port: 9902,
        };
        NodeFacts { admin: Some(admin), ..NodeFacts::default() }
    }

    /// One line per check: name, target, source, timings.
    fn lines(specifier: &health::HealthCheckSpecifier) -> Vec<String> {
        let shown = |address: &core::Address| match &address.address {
            Some(core::address::Address::Pipe(pipe)) => pipe.path.clone(),
            Some(core::address::Address::SocketAddress(socket)) => {
                format!("{}:{:?}", socket.address, socket.port_specifier)
            }
            _ => "?".into(),
        };
        let secs =
            |d: &Option<ProtoDuration>| d.as_ref().map(|d| d.seconds as f64 + f64::from(d.nanos) / 1e9);
        let lines = specifier.cluster_health_checks.iter().map(|cluster| {
            let check = &cluster.health_checks[0];
            let target = cluster.locality_endpoints[0].endpoints[0].address.as_ref().expect("an address");
            let source = cluster.upstream_bind_config.as_ref().and_then(|b| b.source_address.as_ref());
            let kind = match check.health_checker {
                Some(HealthChecker::HttpHealthCheck(_)) => "http",
                Some(HealthChecker::TcpHealthCheck(_)) => "tcp",
                _ => "?",
            };
            format!(
                "{} {kind} {} from {} timeout {:?} interval {:?} idle {:?} up {:?} down {:?}",
                cluster.cluster_name,
                shown(target),
                source.map_or("any", |s| &s.address),
                secs(&check.timeout).expect("set"),
                secs(&check.interval).expect("set"),
                secs(&check.no_traffic_interval).expect("set"),
                check.healthy_threshold.as_ref().expect("set").value,
                check.unhealthy_threshold.as_ref().expect("set").value,
            )
        });
        lines.collect()
    }

    #[test]
    fn asks_for_admin_and_probed_inbounds() {
        let dataplane = mk_dataplane(
            "{address: 10.0.0.1, transparentProxying: {redirectPortInbound: 15006, redirectPortOutbound: 15001}, inbound: [
               {port: 80}, {port: 81, servicePort: 8081, serviceProbe: {interval: 0.5s, unhealthyThreshold: 3, tcp: {}}},
               {port: 82, serviceAddress: 127.0.0.1, servicePort: 8082, serviceProbe: {tcp: {}}}]}",
        );
        let specifier =
            specifier(&dataplane, &mk_node("/run/a.sock"), &CheckDefaults::default(), Duration::from_secs(5));
        assert_eq!(specifier.interval.as_ref().expect("set").seconds, 5);
        expect_test::expect![[r#"
            system_envoy_admin http /run/a.sock from any timeout 2.0 interval 1.0 idle 1.0 up 1 down 1
            localhost:8081 tcp 10.0.0.1:Some(PortValue(8081)) from 127.0.0.6 timeout 2.0 interval 0.5 idle 1.0 up 1 down 3
            localhost:8082 tcp 127.0.0.1:Some(PortValue(8082)) from any timeout 2.0 interval 1.0 idle 1.0 up 1 down 1"#]]
        .assert_eq(&lines(&specifier).join("\n"));
        let by_name =
            mk_dataplane("{address: proxy.example.org, inbound: [{port: 80, serviceProbe: {tcp: {}}}]}");
        let tcp_admin =
            super::specifier(&by_name, &mk_node(""), &CheckDefaults::default(), Duration::from_secs(5));
        assert!(
            lines(&tcp_admin).len() == 1 && lines(&tcp_admin)[0].contains("127.0.0.1:Some(PortValue(9901))")
        );
    }

    #[test]
    fn reads_answers() {
        let answer = |items: &[(&str, core::HealthStatus)]| health::EndpointHealthResponse {
            cluster_endpoints_health: items
                .iter()
                .map(|(name, status)| health::ClusterEndpointsHealth {
                    cluster_name: (*name).into(),
                    locality_endpoints_health: vec![health::LocalityEndpointsHealth {
                        locality: None,
                        endpoints_health: vec![health::EndpointHealth {
                            health_status: (*status).into(),
                            ..Default::default()
                        }],
                    }],
                })
                .collect(),
            ..Default::default()
        };
        use self::core::HealthStatus::{Healthy, Timeout, Unhealthy, Unknown};
        let report_of = |items: &[(&str, core::HealthStatus)]| report(&answer(items));
        let good = report_of(&[
            ("system_envoy_admin", Healthy),
            ("localhost:80", Unknown),
            ("localhost:81", Timeout),
        ]);
        let good = good.expect("readable");
        assert!(good.is_healthy(80) && !good.is_healthy(81) && good.is_healthy(9));
        let down =
            report_of(&[("kuma:envoy:admin", Unhealthy), ("localhost:80", Healthy)]).expect("readable");
        assert!(!down.is_healthy(80));
        assert_eq!(report_of(&[("localhost:x", Healthy)]), Err(UnknownCluster("localhost:x".into())));
        assert_eq!(report_of(&[("other", Healthy)]), Err(UnknownCluster("other".into())));
    }
}
