//! Whatever happens in whatever order: inputs are those of an index that was built from the final state, and whose
//! inputs changed was said to be dirty.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Put(Arc<Resource>),
    Remove(Key),
    /// Changes one thing of a stored service.
    Tweak(&'static str, u8),
    Connect(ProxyId, Box<NodeFacts>),
    Disconnect(ProxyId),
    Serving(ProxyId, Serving),
    Resolved(&'static str, Option<IpAddr>),
    Reset,
}

const PROXIES: [&str; 4] = ["a-1", "a-2", "b-1", "door"];
const HOST: &str = "host.north";

fn dataplane() -> impl Strategy<Value = String> {
    let networking = prop_oneof![
        Just("inbound: [{port: 80, name: main, protocol: http}]"),
        Just("inbound: [{port: 80, name: main, state: NotReady}, {port: 81}]"),
        Just(
            "inbound: [{port: 80, name: main}], outbound: [{port: 7, backendRef: {kind: MeshService, name: b, port: 80}}]"
        ),
        Just(
            "outbound: [{port: 7, backendRef: {kind: MeshService, labels: {kuma.io/zone: south}, port: 80}}]"
        ),
        Just("inbound: [{port: 80}], transparentProxying: {redirectPortOutbound: 15001}"),
        Just("transparentProxying: {redirectPortOutbound: 15001, ipFamilyMode: IPv4}"),
        Just(
            "transparentProxying: {redirectPortOutbound: 15001, reachableBackends: {refs: [{kind: MeshService, name: a}]}}"
        ),
        Just("listeners: [{type: ZoneIngress, port: 10001}]"),
    ];
    (0..4_usize, prop_oneof![Just("a"), Just("b")], prop_oneof![Just("10.0.0.1"), Just("10.0.0.2"), Just(HOST)], networking)
        .prop_map(|(name, workload, address, networking)| {
            format!("{{type: Dataplane, mesh: default, name: {}, labels: {{kuma.io/workload: {workload}, kuma.io/zone: north}}, networking: {{address: {address}, {networking}}}}}", PROXIES[name])
        })
}

fn service() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let place = prop_oneof![
        Just("kuma.io/origin: zone, kuma.io/zone: north"),
        Just("kuma.io/origin: global, kuma.io/zone: south"),
        Just("kuma.io/origin: global, kuma.io/zone: west"),
    ];
    let selector = prop_oneof![
        Just("{dataplaneLabels: {matchLabels: {kuma.io/workload: a}}}"),
        Just("{dataplaneLabels: {matchLabels: {kuma.io/workload: b}}}"),
        Just("{dataplaneRef: {name: a-1}}"),
    ];
    let port = prop_oneof![
        Just("{port: 80, name: main, targetPort: 80, appProtocol: http}"),
        Just("{port: 80, targetPort: main}"),
        Just("{port: 80, targetPort: 81, appProtocol: grpc}, {port: 82}"),
    ];
    let rest = (any::<bool>(), any::<bool>(), 0..3_u8, 0..3_u8);
    (name, place, selector, port, rest).prop_map(|(name, place, selector, port, (ready, id, vip, connected))| {
        let ids = if id { "[{type: SpiffeID, value: spiffe://x/y}]" } else { "[]" };
        let tls = if ready { "Ready" } else { "NotReady" };
        format!("{{type: MeshService, mesh: default, name: {name}, creationTime: '2026-01-01T00:00:0{vip}Z', labels: {{kuma.io/display-name: {name}, {place}}}, \
            spec: {{selector: {selector}, ports: [{port}], identities: {ids}}}, status: {{vips: [{{ip: 241.0.0.{vip}}}], tls: {{status: {tls}}}, \
            addresses: [{{hostname: {name}.mesh}}], dataplaneProxies: {{connected: {connected}}}}}}}")
    })
}

fn other() -> impl Strategy<Value = String> {
    let ready = |status: &str| {
        format!(
            "{{type: MeshIdentity, mesh: default, name: i, spec: {{selector: {{dataplane: {{matchLabels: {{}}}}}}, provider: {{type: Bundled, bundled: {{}}}}}}, status: {{conditions: [{{type: Ready, status: '{status}'}}]}}}}"
        )
    };
    prop_oneof![
        Just(ready("True")),
        Just(ready("False")),
        Just("{type: MeshIdentity, mesh: default, name: j, spec: {selector: {dataplane: {matchLabels: {kuma.io/workload: a}}}}}".to_owned()),
        Just("{type: Mesh, name: default}".to_owned()),
        Just("{type: MeshZoneAddress, mesh: default, name: z, labels: {kuma.io/zone: south}, spec: {address: 10.2.0.1, port: 1}}".to_owned()),
        Just("{type: MeshZoneAddress, mesh: default, name: z, labels: {kuma.io/zone: west}, spec: {address: 10.2.0.1, port: 1}}".to_owned()),
        Just(format!("{{type: MeshZoneAddress, mesh: default, name: zz, labels: {{kuma.io/zone: south}}, spec: {{address: {HOST}, port: 1}}}}")),
        Just("{type: MeshTimeout, mesh: default, name: t, spec: {to: [{targetRef: {kind: Mesh}, default: {connectionTimeout: 1s}}]}}".to_owned()),
        Just("{type: MeshTimeout, mesh: default, name: u, spec: {targetRef: {kind: Dataplane, labels: {kuma.io/workload: a}}, to: [{targetRef: {kind: MeshService, labels: {kuma.io/zone: south}}, default: {connectionTimeout: 2s}}]}}".to_owned()),
        Just("{type: MeshTrafficPermission, mesh: default, name: p, spec: {rules: [{default: {allow: [{spiffeID: {type: Exact, value: spiffe://x/y}}]}}]}}".to_owned()),
        Just("{type: MeshHTTPRoute, mesh: default, name: r, spec: {to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: b}}, rules: [{matches: [{path: {type: PathPrefix, value: /x}}], default: {backendRefs: [{kind: MeshService, labels: {kuma.io/zone: south}, port: 80}]}}]}]}}".to_owned()),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let document = prop_oneof![3 => dataplane(), 4 => service(), 3 => other()];
    let removed = prop_oneof![dataplane(), service(), other()];
    let proxy = || (0..4_usize).prop_map(|name| super::proxy(PROXIES[name]));
    let node = (any::<bool>(), any::<bool>()).prop_map(|(binds, ipv6)| {
        let bind = graticule_policy::node::FEATURE_BIND_OUTBOUNDS.to_owned();
        NodeFacts {
            features: binds.then_some(bind).into_iter().collect(),
            ipv6,
            dns_port: 53,
            ..NodeFacts::default()
        }
    });
    let serving = prop_oneof![Just(Serving::Unknown), Just(Serving::Serving), Just(Serving::Draining)];
    let address = prop_oneof![Just(None), Just("10.9.9.9".parse().ok()), Just("10.9.9.8".parse().ok())];
    prop_oneof![
        10 => document.prop_map(|text| Op::Put(resource(&text))),
        3 => removed.prop_map(|text| Op::Remove(resource(&text).key())),
        4 => (prop_oneof![Just("a"), Just("b"), Just("c")], 0..6_u8).prop_map(|(name, what)| Op::Tweak(name, what)),
        4 => (proxy(), node).prop_map(|(proxy, node)| Op::Connect(proxy, Box::new(node))),
        1 => proxy().prop_map(Op::Disconnect),
        2 => (proxy(), serving).prop_map(|(proxy, serving)| Op::Serving(proxy, serving)),
        1 => address.prop_map(|address| Op::Resolved(HOST, address)),
        1 => Just(Op::Reset),
    ]
}

fn tweak(mut service: Resource, what: u8) -> Resource {
    use graticule_model::kinds::mesh_service::{Identity, Vip};
    let (graticule_model::Spec::MeshService(spec), Status::MeshService(status)) =
        (&mut service.spec, &mut service.status)
    else {
        panic!("a service")
    };
    match what {
        0 => status.vips = vec![Vip { ip: "241.0.0.77".into() }],
        1 => status.addresses.clear(),
        2 => status.tls.status = if status.tls.status == "Ready" { "NotReady" } else { "Ready" }.into(),
        3 => spec.identities.push(Identity::spiffe("spiffe://x/more")),
        4 => status.dataplane_proxies.total += 1,
        _ => spec.state = None,
    }
    service
}

/// The state that an index is built from.
#[derive(Default)]
struct Truth {
    set: ResourceSet,
    nodes: BTreeMap<ProxyId, NodeFacts>,
    serving: BTreeMap<ProxyId, Serving>,
    resolved: Option<IpAddr>,
}

impl Truth {
    /// Records an operation and does it to the index.
    fn perform(&mut self, op: Op, index: &mut Index) -> Dirty {
        match op {
            Op::Put(resource) => {
                self.set.set(resource.key(), Some(resource.clone()));
                index.apply(&[(resource.key(), Some(resource))])
            }
            Op::Remove(key) => {
                self.set.set(key.clone(), None);
                index.apply(&[(key, None)])
            }
            Op::Tweak(name, what) => {
                let key = Key::new(Kind::MeshService, "default", name);
                let Some(stored) = self.set.get(&key) else { return Dirty::default() };
                let resource = Arc::new(tweak(Resource::clone(stored), what));
                self.set.set(key.clone(), Some(resource.clone()));
                index.apply(&[(key, Some(resource))])
            }
            Op::Connect(proxy, node) => {
                self.nodes.insert(proxy.clone(), NodeFacts::clone(&node));
                index.connect(proxy, *node)
            }
            Op::Disconnect(proxy) => {
                self.nodes.remove(&proxy);
                index.disconnect(&proxy)
            }
            Op::Serving(proxy, serving) => {
                self.serving.insert(proxy.clone(), serving);
                index.set_serving(proxy, serving)
            }
            Op::Resolved(host, address) => {
                self.resolved = address;
                index.set_resolved(host, address)
            }
            Op::Reset => {
                let dirty = index.reset(self.set.iter().map(|(_, resource)| resource.clone()));
                assert!(dirty.is_empty(), "a resync of what is known concerns nobody: {dirty:?}");
                dirty
            }
        }
    }

    fn fresh(&self) -> Index {
        let mut index = Index::new(ZoneSettings::new("north"));
        for (proxy, node) in &self.nodes {
            index.connect(proxy.clone(), node.clone());
        }
        index.set_resolved(HOST, self.resolved);
        for (proxy, serving) in &self.serving {
            index.set_serving(proxy.clone(), *serving);
        }
        index.reset(self.set.iter().map(|(_, resource)| resource.clone()));
        index
    }
}

fn seen(index: &mut Index, proxy: &ProxyId) -> Result<ProxyInputs, InputsError> {
    index.inputs(proxy).map(|assembled| ProxyInputs::clone(&assembled.inputs))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn incremental_is_fresh(ops in prop::collection::vec(op(), 1..60)) {
        let mut truth = Truth::default();
        let mut index = Index::new(ZoneSettings::new("north"));
        let mut last: BTreeMap<ProxyId, Result<ProxyInputs, InputsError>> = BTreeMap::new();
        for (step, op) in ops.into_iter().enumerate() {
            let what = format!("step {step}: {op:?}");
            let dirty = truth.perform(op, &mut index);
            last.retain(|proxy, _| truth.nodes.contains_key(proxy));
            for proxy in &dirty.proxies {
                prop_assert!(truth.nodes.contains_key(proxy), "{what}: {proxy} is not connected");
                last.insert(proxy.clone(), seen(&mut index, proxy));
            }
            let mut fresh = truth.fresh();
            for proxy in truth.nodes.keys() {
                let want = seen(&mut fresh, proxy);
                prop_assert_eq!(last.get(proxy), Some(&want), "{}: inputs of {}", what, proxy);
            }
        }
    }
}
