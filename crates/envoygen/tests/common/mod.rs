//! Proxies as value literals: a client and a server in two zones, the ingress between them, and one with everything.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::kinds::{mesh_circuit_breaker, mesh_retry, mesh_timeout};
use graticule_policy::ProxyInputs;
use graticule_policy::inputs::*;
use graticule_policy::node::{AdminFacts, FEATURE_REUSE_PORT, FEATURE_STRICT_INBOUND_PORTS, NodeFacts};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Names and addresses of two zones.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    pub(crate) mesh: &'static str,
    /// Zone of the client and zone of the server.
    pub(crate) zones: [&'static str; 2],
    /// First three octets of addresses by zone.
    pub(crate) nets: [&'static str; 2],
    /// Workload and Dataplane of client and server.
    pub(crate) workloads: [&'static str; 2],
    pub(crate) client_section: &'static str,
    pub(crate) identity: &'static str,
    pub(crate) permission: &'static str,
    pub(crate) sockets: &'static str,
    pub(crate) ingress: &'static str,
    pub(crate) readiness: [u32; 3],
}

/// The fixtures' own site.
pub(crate) const OWN: Site = Site {
    mesh: "shop",
    zones: ["north", "south"],
    nets: ["10.1.0", "10.2.0"],
    workloads: ["web", "cart"],
    client_section: "ui",
    identity: "workloads",
    permission: "everyone",
    sockets: "/run/dp",
    ingress: "gate",
    readiness: [9902, 9902, 9902],
};

pub(crate) fn parse<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a valid value")
}

pub(crate) fn mk_map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn inbound_timeout() -> mesh_timeout::Conf {
    parse(json!({"connectionTimeout": "10s", "idleTimeout": "2h",
        "http": {"requestTimeout": "0s", "streamIdleTimeout": "1h", "maxStreamDuration": "0s"}}))
}

fn outbound_timeout() -> mesh_timeout::Conf {
    parse(json!({"connectionTimeout": "5s", "idleTimeout": "1h",
        "http": {"requestTimeout": "15s", "streamIdleTimeout": "30m"}}))
}

fn limits() -> mesh_circuit_breaker::Conf {
    parse(json!({"connectionLimits":
        {"maxConnections": 1024, "maxPendingRequests": 1024, "maxRequests": 1024, "maxRetries": 3}}))
}

fn retry() -> mesh_retry::Conf {
    let http = json!({"numRetries": 5, "perTryTimeout": "16s",
        "backOff": {"baseInterval": "25ms", "maxInterval": "250ms"}});
    parse(json!({"tcp": {"maxConnectAttempt": 5}, "http": http, "grpc": http}))
}

impl Site {
    pub(crate) fn spiffe(&self, zone: usize, workload: &str) -> String {
        format!("spiffe://{}.{}.mesh.local/workload/{workload}", self.mesh, self.zones[zone])
    }

    fn labels(
        &self,
        zone: usize,
        name: &str,
        workload: &str,
        more: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        let mut labels = mk_map(&[
            ("kuma.io/display-name", name),
            ("kuma.io/env", "universal"),
            ("kuma.io/mesh", self.mesh),
            ("kuma.io/origin", "zone"),
            ("kuma.io/workload", workload),
            ("kuma.io/zone", self.zones[zone]),
        ]);
        labels.extend(mk_map(more));
        labels
    }

    pub(crate) fn identity_secret(&self) -> String {
        format!("kri_mid_{}___{}_", self.mesh, self.identity)
    }

    /// A sidecar or zone proxy without traffic.
    fn proxy(&self, zone: usize, name: &str, workload: &str, address: String, readiness: u32) -> ProxyInputs {
        let workdir = format!("{}/{name}", self.sockets);
        let domain = |zone: usize| format!("{}.{}.mesh.local", self.mesh, self.zones[zone]);
        let pem = |zone: usize| format!("<pem-{}>", zone + 1);
        let own_twice = |of: usize| if of == zone { vec![pem(of), pem(of)] } else { vec![pem(of)] };
        let cidrs = [
            "10.0.0.0/8",
            "192.168.0.0/16",
            "172.16.0.0/12",
            "fc00::/7",
            "fd00::/8",
            "127.0.0.1/32",
            "::1/128",
        ];
        ProxyInputs {
            mesh: self.mesh.into(),
            name: name.into(),
            zone: self.zones[zone].into(),
            labels: BTreeMap::new(),
            address,
            node: NodeFacts {
                admin: Some(AdminFacts {
                    port: 9901,
                    address: "127.0.0.1".into(),
                    socket_path: format!("{workdir}/kuma-envoy-admin.sock"),
                    readiness_port: readiness,
                }),
                workdir,
                features: [FEATURE_REUSE_PORT, FEATURE_STRICT_INBOUND_PORTS].map(String::from).into(),
                ipv6: true,
                ..NodeFacts::default()
            },
            identity: Some(Identity {
                secret_name: self.identity_secret(),
                spiffe_id: self.spiffe(zone, workload),
            }),
            trust: Arc::new(Trust { domains: [0, 1].map(|zone| (domain(zone), own_twice(zone))).into() }),
            internal_cidrs: Arc::new(cidrs.map(String::from).to_vec()),
            sends_tags_header: false,
            inbounds: Vec::new(),
            outbounds: Vec::new(),
            clusters: BTreeMap::new(),
            zone_ingresses: Vec::new(),
            transparent_proxy: None,
            dns: None,
        }
    }

    fn inbound(
        &self,
        section: &str,
        address: &str,
        port: u32,
        workload_port: u32,
        protocol: Protocol,
    ) -> Inbound {
        let prefix = format!("spiffe://{}.", self.mesh);
        Inbound {
            section: section.into(),
            address: address.into(),
            port,
            workload_address: address.into(),
            workload_port,
            protocol,
            tls: parse(json!({})),
            permissions: vec![Permission {
                policy: format!("kri_mtp_{}___{}_", self.mesh, self.permission),
                conf: parse(json!({"allow": [{"spiffeID": {"type": "Prefix", "value": prefix}}]})),
            }],
            timeout: InboundTimeout::CatchAll(inbound_timeout()),
            circuit_breaker: None,
        }
    }

    fn service(&self, section: &str) -> String {
        format!("kri_msvc_{}_{}__{}_{section}", self.mesh, self.zones[1], self.workloads[1])
    }

    fn sni(&self) -> String {
        format!("sni.msvc.{}.{}.{}.http", self.mesh, self.zones[1], self.workloads[1])
    }

    /// Outbound to the server in the other zone, over its ingress.
    pub(crate) fn client(&self) -> ProxyInputs {
        let name = format!("{}-1", self.workloads[0]);
        let address = format!("{}.1", self.nets[0]);
        let mut proxy = self.proxy(0, &name, self.workloads[0], address.clone(), self.readiness[0]);
        proxy.labels = self.labels(0, &name, self.workloads[0], &[]);
        proxy.inbounds = vec![self.inbound(self.client_section, &address, 3000, 3000, Protocol::Http)];
        let service = self.service("8080");
        let route = HttpRoute {
            name: "9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo=".into(),
            condition: parse(json!({"path": {"type": "PathPrefix", "value": "/"}})),
            filters: Vec::new(),
            mirrors: Vec::new(),
            split: vec![Share { cluster: service.clone(), weight: 100 }],
            unresolved_weight: 0,
            all_unresolved: false,
            auto_host_rewrite: false,
            timeout: None,
            retry: None,
        };
        proxy.outbounds = vec![Arc::new(Outbound {
            name: service.clone(),
            address,
            port: 20001,
            bind_to_port: None,
            protocol: Protocol::Http,
            routing: Routing::Http(vec![route]),
            timeout: Some(outbound_timeout()),
            retry: Some(retry()),
        })];
        let endpoints = Endpoints {
            localities: vec![Locality {
                zone: Some(self.zones[1].into()),
                priority: 1,
                endpoints: vec![Endpoint {
                    address: format!("{}.9", self.nets[1]),
                    port: 10001,
                    weight: 1,
                    metadata: mk_map(&[("kuma.io/zone", self.zones[1])]),
                }],
            }],
        };
        let cluster = self.cluster(&service, Protocol::Http, endpoints);
        proxy.clusters = [(service, Arc::new(cluster))].into();
        proxy
    }

    fn cluster(&self, name: &str, protocol: Protocol, endpoints: Endpoints) -> Cluster {
        Cluster {
            name: name.into(),
            role: ClusterRole::Outbound,
            protocol,
            tls: Some(UpstreamTls {
                sni: self.sni(),
                spiffe_ids: vec![self.spiffe(1, self.workloads[1])],
                identity_secret: self.identity_secret(),
                params: parse(json!({})),
            }),
            timeout: Some(outbound_timeout()),
            circuit_breaker: Some(limits()),
            connection_life: None,
            endpoints: Arc::new(endpoints),
        }
    }

    /// One inbound in front of an application.
    pub(crate) fn server(&self) -> ProxyInputs {
        let name = format!("{}-1", self.workloads[1]);
        let address = format!("{}.1", self.nets[1]);
        let mut proxy = self.proxy(1, &name, self.workloads[1], address.clone(), self.readiness[1]);
        proxy.labels = self.labels(1, &name, self.workloads[1], &[("version", "v1")]);
        proxy.inbounds = vec![self.inbound("http", &address, 8080, 18080, Protocol::Http)];
        proxy
    }

    /// A zone ingress in front of two servers.
    pub(crate) fn ingress(&self) -> ProxyInputs {
        let name = format!("ingress-{}", self.zones[1]);
        let address = format!("{}.9", self.nets[1]);
        let mut proxy = self.proxy(1, &name, "ingress", address.clone(), self.readiness[2]);
        let service = self.service("http");
        proxy.zone_ingresses = vec![ZoneIngress {
            section: self.ingress.into(),
            address,
            port: 10001,
            chains: vec![IngressChain { sni: self.sni(), cluster: service.clone() }],
            timeout: InboundTimeout::CatchAll(inbound_timeout()),
        }];
        let server = |n: u32| {
            let name = format!("{}-{n}", self.workloads[1]);
            let version = format!("v{n}");
            let more = [("kuma.io/protocol", "http"), ("version", version.as_str())];
            Endpoint {
                address: format!("{}.{n}", self.nets[1]),
                port: 8080,
                weight: 1,
                metadata: self.labels(1, &name, self.workloads[1], &more),
            }
        };
        let endpoints = Endpoints {
            localities: vec![Locality {
                zone: Some(self.zones[1].into()),
                priority: 0,
                endpoints: vec![server(1), server(2)],
            }],
        };
        let cluster = Cluster {
            role: ClusterRole::ZoneIngress,
            tls: None,
            timeout: None,
            circuit_breaker: None,
            ..self.cluster(&service, Protocol::Http, endpoints)
        };
        proxy.clusters = [(service, Arc::new(cluster))].into();
        proxy
    }

    /// A sidecar that uses everything that can be generated.
    pub(crate) fn everything(&self) -> ProxyInputs {
        let mut proxy = self.client();
        proxy.sends_tags_header = true;
        proxy.transparent_proxy =
            Some(TransparentProxy { inbound_port: Some(15006), outbound_port: Some(15001), ipv6: true });
        proxy.dns = Some(Dns {
            records: [("cart.svc.mesh.local".into(), vec!["241.0.0.4".into(), "::ffff:f100:4".into()])]
                .into(),
            extra_labels: mk_map(&[("mesh", self.mesh), ("kuma_io_zone", self.zones[0])]),
        });
        let mut permissive = self.inbound("grpc", "10.1.0.1", 7070, 7070, Protocol::Grpc);
        permissive.tls = parse(json!({"mode": "Permissive", "tlsVersion": {"min": "TLS12", "max": "TLS13"},
            "tlsCiphers": ["ECDHE-ECDSA-AES256-GCM-SHA384"]}));
        permissive.timeout = InboundTimeout::Untouched;
        permissive.permissions.push(Permission {
            policy: "kri_mtp_shop___odd_".into(),
            conf: parse(json!({
                "deny": [{"spiffeID": {"type": "Exact", "value": "spiffe://a/b"}}, {"sni": {"type": "Exact", "value": "x.y"}}],
                "allowWithShadowDeny": [{"spiffeID": {"type": "Exact", "value": "spiffe://a/c"},
                    "sni": {"type": "Exact", "value": "x.z"}}, {}]})),
        });
        let mut tcp = self.inbound("db", "10.1.0.1", 5432, 5432, Protocol::Tcp);
        tcp.workload_address = "127.0.0.1".into();
        tcp.timeout = InboundTimeout::Defaults;
        tcp.permissions.clear();
        tcp.circuit_breaker = Some(parse(json!({"connectionLimits": {"maxConnections": 50},
            "outlierDetection": {"interval": "5s", "maxEjectionPercent": 30, "healthyPanicThreshold": "12.5",
                "detectors": {"totalFailures": {"consecutive": 7}, "successRate": {"standardDeviationFactor": "1.9"}}}})));
        proxy.inbounds.extend([permissive, tcp]);
        proxy.outbounds = vec![Arc::new(self.routed()), Arc::new(self.split())];
        for (section, protocol) in
            [("8080", Protocol::Http2), ("grpc", Protocol::Grpc), ("db", Protocol::Tcp)]
        {
            let name = self.service(section);
            let life = ConnectionLife { max_requests: 100, max_duration_ms: 30_500 };
            let endpoints = Endpoints::default();
            let cluster = Cluster {
                connection_life: Some(life),
                timeout: None,
                ..self.cluster(&name, protocol, endpoints)
            };
            proxy.clusters.insert(name, Arc::new(cluster));
        }
        proxy
    }

    /// An HTTP outbound with every kind of route.
    fn routed(&self) -> Outbound {
        let share = |section: &str, weight| Share { cluster: self.service(section), weight };
        let base = HttpRoute {
            name: "kri_mhttpr_shop_north__r1_rule_0".into(),
            condition: parse(json!({"path": {"type": "PathPrefix", "value": "/shop"}, "method": "GET",
                "headers": [{"name": "x-a", "type": "RegularExpression", "value": "a.*"},
                    {"name": "X-A", "value": "ignored"}, {"name": "x-b", "type": "Present"},
                    {"name": "x-c", "type": "Absent"}, {"name": "x-d", "type": "Prefix", "value": "d"},
                    {"name": "x-e", "type": "Prefix"}],
                "queryParams": [{"type": "Exact", "name": "q", "value": "1"},
                    {"type": "RegularExpression", "name": "r", "value": "[0-9]+"}]})),
            filters: parse(json!([
                {"type": "RequestHeaderModifier", "requestHeaderModifier":
                    {"set": [{"name": "x-set", "value": "1"}], "add": [{"name": "x-add", "value": "2"}], "remove": ["x-rm"]}},
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["x-gone"]}},
                {"type": "URLRewrite", "urlRewrite": {"hostname": "other.example.com",
                    "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/store"}}},
                {"type": "RequestMirror", "requestMirror": {"percentage": "25.5", "backendRef": {"kind": "MeshService", "name": "m"}}},
                {"type": "RequestMirror", "requestMirror": {"backendRef": {"kind": "MeshService", "name": "gone"}}}])),
            mirrors: vec![Some(self.service("grpc")), None],
            split: vec![share("8080", 3), share("grpc", 3)],
            unresolved_weight: 3,
            all_unresolved: false,
            auto_host_rewrite: false,
            timeout: Some(parse(json!({"http": {"requestTimeout": "2s"}}))),
            retry: Some(parse(json!({"http": {"numRetries": 3, "backOff": {"maxInterval": "1s"},
                "retryOn": ["5xx", "429", "HttpMethodGet"], "hostSelection": [{"predicate": "OmitPreviousHosts"},
                    {"predicate": "OmitHostsWithTags", "tags": {"version": "v1"}}, {"predicate": "OmitPreviousPriorities"}],
                "rateLimitedBackOff": {"resetHeaders": [{"name": "retry-after", "format": "Seconds"}]}}}))),
        };
        let redirect = HttpRoute {
            condition: parse(json!({"path": {"type": "PathPrefix", "value": "/old"}})),
            filters: parse(
                json!([{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "hostname": "new.example.com",
                "port": 8443, "statusCode": 308, "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}}]),
            ),
            mirrors: Vec::new(),
            ..base.clone()
        };
        let gone = HttpRoute {
            condition: parse(json!({"path": {"type": "Exact", "value": "/gone"}})),
            filters: Vec::new(),
            mirrors: Vec::new(),
            split: Vec::new(),
            all_unresolved: true,
            ..base.clone()
        };
        let skipped = HttpRoute { all_unresolved: false, unresolved_weight: 0, ..gone.clone() };
        let rest = HttpRoute {
            name: "9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo=".into(),
            condition: parse(json!({"path": {"type": "RegularExpression", "value": "/.*"}})),
            filters: Vec::new(),
            mirrors: Vec::new(),
            split: vec![share("8080", 100)],
            unresolved_weight: 0,
            auto_host_rewrite: true,
            timeout: None,
            retry: Some(parse(json!({"http": {"numRetries": 0}}))),
            ..base.clone()
        };
        Outbound {
            name: self.service("8080"),
            address: "241.0.0.1".into(),
            port: 8080,
            bind_to_port: Some(false),
            protocol: Protocol::Http2,
            routing: Routing::Http(vec![base, redirect, gone, skipped, rest]),
            timeout: Some(parse(json!({"http": {"streamIdleTimeout": "7m"}}))),
            retry: Some(retry()),
        }
    }

    /// A TCP outbound to two destinations.
    fn split(&self) -> Outbound {
        let share = |section: &str, weight| Share { cluster: self.service(section), weight };
        Outbound {
            name: self.service("db"),
            address: "241.0.0.1".into(),
            port: 5432,
            bind_to_port: Some(false),
            protocol: Protocol::Tcp,
            routing: Routing::Tcp(vec![share("db", 9), share("8080", 1)]),
            timeout: None,
            retry: Some(retry()),
        }
    }
}
