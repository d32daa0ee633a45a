//! Scripted conversations between sources and sinks, without I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::{Key, Kind, Resource, yaml};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_proto::google::protobuf::value::Kind as ValueKind;
use graticule_proto::google::protobuf::{ListValue, Struct, Value};
use graticule_store::{Change, ChangeBatch, Event, Revision, Snapshot, Write};

use super::*;

/// A store as far as sinks and catalogs need one.
#[derive(Default)]
struct Site {
    resources: BTreeMap<Key, Arc<Resource>>,
    revision: u64,
}

impl Held for Site {
    fn get(&self, key: &Key) -> Option<Arc<Resource>> {
        self.resources.get(key).cloned()
    }
    fn list(&self, kind: Kind) -> Vec<Arc<Resource>> {
        self.resources.values().filter(|resource| resource.kind() == kind).cloned().collect()
    }
}

impl Site {
    fn put(&mut self, mut resource: Resource) -> Event {
        self.revision += 1;
        resource.meta.version = self.revision;
        let (key, new) = (resource.key(), Arc::new(resource));
        let old = self.resources.insert(key.clone(), new.clone());
        self.batch(vec![Change { key, old, new: Some(new) }])
    }

    fn delete(&mut self, key: &Key) -> Event {
        self.revision += 1;
        let old = self.resources.remove(key);
        self.batch(vec![Change { key: key.clone(), old, new: None }])
    }

    fn batch(&self, changes: Vec<Change>) -> Event {
        Event::Batch(Arc::new(ChangeBatch {
            revision: Revision(self.revision),
            committed_at: graticule_model::Timestamp::UNIX_EPOCH,
            changes,
        }))
    }

    fn resync(&self) -> Event {
        Event::Resync(Snapshot::restore(Revision(self.revision), self.resources.values().cloned()))
    }

    fn apply(&mut self, intake: &Intake) {
        self.write(&intake.writes);
    }

    fn write(&mut self, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Put { resource, .. } => drop(self.put(Resource::clone(resource))),
                Write::Delete { key, .. } => drop(self.delete(key)),
            }
        }
    }

    fn names(&self, kind: Kind) -> Vec<&str> {
        self.resources.keys().filter(|key| key.kind == kind).map(|key| key.name.as_str()).collect()
    }

    fn one(&self, kind: Kind, name: &str) -> &Resource {
        let found = self.resources.iter().find(|(key, _)| key.kind == kind && key.name == name);
        found.unwrap_or_else(|| panic!("no {kind} {name} in {:?}", self.names(kind))).1
    }
}

fn mk(text: &str) -> Resource {
    let value = yaml::parse_one(text).unwrap();
    let kind = Kind::from_name(value["type"].as_str().unwrap()).unwrap();
    Resource::from_rest(kind, &value).unwrap()
}

fn mk_timeout(name: &str, labels: &str, idle: &str) -> Resource {
    mk(&format!(
        "{{type: MeshTimeout, mesh: default, name: {name}, labels: {{{labels}}},
           spec: {{targetRef: {{kind: Mesh}}, to: [{{targetRef: {{kind: Mesh}}, default: {{idleTimeout: {idle}}}}}]}}}}"
    ))
}

fn mk_trust(name: &str, domain: &str) -> Resource {
    mk(&format!(
        "{{type: MeshTrust, mesh: default, name: {name}, spec: {{trustDomain: {domain}, caBundles:
           [{{type: Pem, pem: {{value: \"-----BEGIN CERTIFICATE-----\"}}}}]}}}}"
    ))
}

fn mk_service(name: &str, zone: &str) -> Resource {
    mk(&format!(
        "{{type: MeshService, mesh: default, name: {name}, labels: {{kuma.io/display-name: {name}, kuma.io/zone: {zone},
           kuma.io/origin: zone, kuma.io/env: universal, kuma.io/mesh: default, team: a}},
           spec: {{state: Available, ports: [{{port: 6739}}]}}, status: {{vips: [{{ip: 241.0.0.9}}]}}}}"
    ))
}

fn node(id: &str) -> Node {
    let features =
        NODE_FEATURES.iter().map(|text| Value { kind: Some(ValueKind::StringValue((*text).into())) });
    let features = Value { kind: Some(ValueKind::ListValue(ListValue { values: features.collect() })) };
    let metadata = Struct { fields: [("features".to_owned(), features)].into() };
    Node { id: id.into(), metadata: Some(metadata), ..Default::default() }
}

fn catalog(direction: Direction, site: &Site) -> Catalog {
    let mut catalog = Catalog::new(direction, Vec::new());
    assert!(!catalog.is_ready());
    catalog.apply(Plane::Config, &site.resync());
    catalog.apply(Plane::Status, &site.resync());
    catalog
}

fn to_zones() -> Direction {
    Direction::ToZones { trust_exchange: TrustExchange::Automatic }
}

/// A connection of one direction: both ends, and the store behind the receiving one.
struct Wire {
    source: Source,
    sink: Sink,
    node: Node,
    /// Resources and removals that crossed.
    sent: usize,
    nacks: Vec<String>,
}

impl Wire {
    fn down(zone: &str, sink: Option<Sink>, catalog: &Catalog, held: &Site) -> Wire {
        let sink = sink.unwrap_or_else(|| Sink::new(Side::Zone, true));
        Wire::open(Source::new("global", Some(zone), 10 << 20, catalog), sink, zone, held)
    }

    fn up(zone: &str, sink: Option<Sink>, catalog: &Catalog, held: &Site) -> Wire {
        let sink = sink.unwrap_or_else(|| Sink::new(Side::Global { zone: zone.into() }, true));
        Wire::open(Source::new(zone, None, 10 << 20, catalog), sink, zone, held)
    }

    fn open(mut source: Source, mut sink: Sink, zone: &str, held: &Site) -> Wire {
        let node = node(zone);
        for request in sink.start(&node, held) {
            source.on_request(request).unwrap();
        }
        Wire { source, sink, node, sent: 0, nacks: Vec::new() }
    }

    /// Runs until nothing is left to say.
    fn settle(&mut self, catalog: &Catalog, held: &mut Site) {
        for _ in 0..100 {
            let responses = self.source.poll(catalog);
            if responses.is_empty() {
                return;
            }
            for (_, response) in responses {
                if self.sink.is_outdated(&response) {
                    continue;
                }
                self.sent += response.resources.len() + response.removed_resources.len();
                let intake = self.sink.on_response(&response, held);
                held.apply(&intake);
                let reply = self.sink.settle(intake, Vec::new(), &self.node);
                self.nacks.extend(reply.error_detail.iter().map(|error| error.message.clone()));
                self.source.on_request(reply).unwrap();
            }
        }
        panic!("the conversation does not end");
    }
}

/// A federation of one global and its zones, both directions.
#[derive(Default)]
struct Federation {
    global: Site,
    zones: BTreeMap<&'static str, Site>,
}

impl Federation {
    fn sync(&mut self) {
        for _ in 0..2 {
            for (name, zone) in &mut self.zones {
                let up = catalog(Direction::ToGlobal { zone: (*name).into() }, zone);
                Wire::up(name, None, &up, &self.global).settle(&up, &mut self.global);
                let down = catalog(to_zones(), &self.global);
                Wire::down(name, None, &down, zone).settle(&down, zone);
            }
        }
    }
}

#[test]
fn policies_of_both_sides() {
    let mut all = Federation::default();
    all.global.put(mk("{type: Mesh, name: default}"));
    all.global.put(mk_timeout("default-timeout-global", "", "20s"));
    all.zones.insert("zone-1", Site::default());
    all.zones.insert("zone-2", Site::default());
    all.zones.get_mut("zone-1").unwrap().put(mk_timeout("default-timeout-zone-1", "", "30s"));
    all.sync();

    let zone_1 = &all.zones["zone-1"];
    assert_eq!(
        zone_1.names(Kind::MeshTimeout),
        ["default-timeout-global-54dbd4c66zwbcf9c", "default-timeout-zone-1"]
    );
    let copy = zone_1.one(Kind::MeshTimeout, "default-timeout-global-54dbd4c66zwbcf9c");
    let labels: Vec<(&str, &str)> = copy.meta.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("kuma.io/display-name", "default-timeout-global"), ("kuma.io/origin", "global")]);
    assert_eq!(all.zones["zone-2"].names(Kind::MeshTimeout), ["default-timeout-global-54dbd4c66zwbcf9c"]);
    assert_eq!(zone_1.one(Kind::Mesh, "default").meta.label("kuma.io/origin"), Some("global"));
    let at_global = all.global.one(Kind::MeshTimeout, "default-timeout-zone-1-c58w24w4vw27f454");
    assert_eq!(at_global.meta.label("kuma.io/origin"), Some("zone"));
    assert_eq!(at_global.meta.label("kuma.io/zone"), Some("zone-1"));
    assert_eq!(at_global.meta.owner, Some(Key::new(Kind::Zone, "", "zone-1")));
}

#[test]
fn disabled_sync_stays_at_home() {
    let mut all = Federation::default();
    all.global.put(mk_timeout("g", "kuma.io/kds-sync: disabled", "20s"));
    all.zones.insert("zone-1", Site::default());
    all.zones.get_mut("zone-1").unwrap().put(mk_timeout("z", "kuma.io/kds-sync: disabled", "30s"));
    all.sync();
    assert_eq!(all.global.names(Kind::MeshTimeout), ["g"]);
    assert_eq!(all.zones["zone-1"].names(Kind::MeshTimeout), ["z"]);
}

#[test]
fn services_cross_and_keep_their_own_status() {
    let mut all = Federation::default();
    all.zones.insert("zone-1", Site::default());
    all.zones.insert("zone-2", Site::default());
    all.zones.get_mut("zone-2").unwrap().put(mk_service("redis-zone-2", "zone-2"));
    let mut own_view = mk_service("redis-zone-2", "zone-2");
    own_view.meta.name = "redis-zone-2-ff29vc4685c6f594".into();
    own_view.meta.labels.insert("kuma.io/origin".into(), "global".into());
    own_view.meta.labels.insert("team".into(), "stale".into());
    let status = own_view.status.clone();
    let mut stale = own_view.clone();
    stale.meta.labels.insert("kuma.io/origin".into(), "zone".into());
    stale.status = graticule_model::Status::empty(Kind::MeshService);
    all.global.put(stale);
    all.zones.get_mut("zone-1").unwrap().put(own_view);
    all.sync();

    let at_global = all.global.one(Kind::MeshService, "redis-zone-2-ff29vc4685c6f594");
    assert_eq!(at_global.meta.label("kuma.io/origin"), Some("zone"));
    assert_eq!(at_global.status, status, "global stores the zone's status");
    let copy = all.zones["zone-1"].one(Kind::MeshService, "redis-zone-2-ff29vc4685c6f594");
    assert_eq!(copy.meta.label("kuma.io/origin"), Some("global"));
    assert_eq!(copy.meta.label("kuma.io/zone"), Some("zone-2"));
    assert_eq!(copy.meta.label("team"), Some("a"));
    assert_eq!(copy.status, status, "the receiving zone's own status survives");
    assert_eq!(all.zones["zone-2"].names(Kind::MeshService), ["redis-zone-2"]);

    // A copy that is new arrives without status.
    all.zones.insert("zone-3", Site::default());
    all.sync();
    let fresh = all.zones["zone-3"].one(Kind::MeshService, "redis-zone-2-ff29vc4685c6f594");
    assert_eq!(fresh.status, graticule_model::Status::empty(Kind::MeshService));
}

#[test]
fn disabled_zones_are_hidden_from_others_at_once() {
    let mut all = Federation::default();
    all.global.put(mk("{type: Zone, name: zone-2, enabled: true}"));
    all.zones.insert("zone-1", Site::default());
    all.zones.insert("zone-2", Site::default());
    all.zones.get_mut("zone-2").unwrap().put(mk_service("a", "zone-2"));
    all.sync();
    let mut offers = catalog(to_zones(), &all.global);
    let zone_1 = all.zones.get_mut("zone-1").unwrap();
    let mut wire = Wire::down("zone-1", None, &offers, zone_1);
    wire.settle(&offers, zone_1);
    assert_eq!(zone_1.names(Kind::MeshService).len(), 1);
    offers.apply(Plane::Config, &all.global.put(mk("{type: Zone, name: zone-2, enabled: false}")));
    wire.settle(&offers, zone_1);
    assert_eq!(zone_1.names(Kind::MeshService).len(), 0);
    offers.apply(Plane::Config, &all.global.delete(&Key::new(Kind::Zone, "", "zone-2")));
    wire.settle(&offers, zone_1);
    assert_eq!(zone_1.names(Kind::MeshService).len(), 1, "a missing Zone counts as enabled");
}

#[test]
fn trust_is_exchanged_and_a_domain_has_one_owner() {
    let mut all = Federation::default();
    for (zone, trusts) in
        [("east", vec![("id", "default.east.mesh.local")]), ("west", vec![("id", "default.west.mesh.local")])]
    {
        let mut site = Site::default();
        for (name, domain) in trusts {
            site.put(mk_trust(name, domain));
        }
        all.zones.insert(zone, site);
    }
    all.sync();
    assert_eq!(all.zones["east"].names(Kind::MeshTrust).len(), 2);
    let copy =
        all.zones["east"].list(Kind::MeshTrust).into_iter().find(|trust| trust.meta.name != "id").unwrap();
    assert_eq!(copy.meta.label("kuma.io/zone"), Some("west"));
    assert_eq!(copy.meta.label("kuma.io/origin"), Some("global"));
    assert_eq!(copy.meta.display_name(), "id");

    // A second claimant is refused and reported; the rest of its resources is taken.
    let mut thief = Site::default();
    thief.put(mk_trust("stolen", "default.west.mesh.local"));
    thief.put(mk_trust("own", "default.north.mesh.local"));
    let up = catalog(Direction::ToGlobal { zone: "north".into() }, &thief);
    let mut wire = Wire::up("north", None, &up, &all.global);
    wire.settle(&up, &mut all.global);
    assert_eq!(wire.nacks, ["spec.trustDomain: belongs to zone \"west\", which published it first"]);
    assert_eq!(wire.sink.quarantine().count(), 1);
    assert_eq!(wire.source.rejected().count(), 1, "the sender knows which one");
    assert_eq!(all.global.names(Kind::MeshTrust).len(), 3);

    let manual = Direction::ToZones { trust_exchange: TrustExchange::Manual };
    let down = catalog(manual, &all.global);
    assert_eq!(down.of_kind(Kind::MeshTrust).count(), 0);
}

#[test]
fn local_objects_of_a_zone() {
    let mut all = Federation::default();
    all.global.put(mk("{type: Mesh, name: mesh-1}"));
    all.global.put(mk("{type: Secret, mesh: mesh-1, name: s, data: Z2xvYmFs}"));
    all.global.put(mk("{type: Secret, mesh: mesh-1, name: other, data: Z2xvYmFs}"));
    let mut config = mk("{type: Secret, mesh: m, name: x}").meta;
    (config.mesh, config.name) = (String::new(), "kuma-cluster-id".into());
    let id = graticule_model::kinds::config::Config { config: "1".into() };
    all.global.put(Resource::new(config.clone(), id.clone()));
    config.name = "internal".into();
    all.global.put(Resource::new(config.clone(), id.clone()));
    let mut zone = Site::default();
    zone.put(mk("{type: Mesh, name: mesh-1}"));
    zone.put(mk("{type: Mesh, name: mesh-2}"));
    zone.put(mk("{type: Secret, mesh: mesh-1, name: s, data: em9uZQ==}"));
    config.name = "kuma-cp-leader".into();
    zone.put(Resource::new(config, id));
    let down = catalog(to_zones(), &all.global);
    let mut wire = Wire::down("zone-1", None, &down, &zone);
    wire.settle(&down, &mut zone);
    assert_eq!(zone.names(Kind::Config), ["kuma-cluster-id", "kuma-cp-leader"]);
    assert_eq!(zone.names(Kind::Mesh), ["mesh-1", "mesh-2"], "global never had the second one: it is kept");
    assert!(wire.sink.held_back().any(|(kind, name)| (kind, name) == (Kind::Mesh, "mesh-2.")));
    assert_eq!(zone.one(Kind::Mesh, "mesh-1").meta.label("kuma.io/origin"), Some("global"));
    assert_eq!(zone.names(Kind::Secret), ["other", "s"]);
    assert_eq!(zone.one(Kind::Secret, "s").meta.labels.len(), 0, "the zone keeps its own");
    assert_eq!(
        wire.nacks,
        ["user error\nresource already exists: type=\"Secret\" name=\"s\" mesh=\"mesh-1\""]
    );
}

#[test]
fn a_local_namesake_of_a_hash_is_adopted() {
    let mut all = Federation::default();
    all.global.put(mk_timeout("timeout-all", "", "20s"));
    let mut zone = Site::default();
    zone.put(mk_timeout("timeout-all-2wbxwvfffv2z82fc", "kuma.io/origin: zone", "99s"));
    all.zones.insert("zone-1", zone);
    all.sync();
    let copy = all.zones["zone-1"].one(Kind::MeshTimeout, "timeout-all-2wbxwvfffv2z82fc");
    assert_eq!(copy.meta.label("kuma.io/origin"), Some("global"));
}

#[test]
fn zones_cannot_take_names_of_others() {
    let mut global = Site::default();
    global.put(mk_timeout("of-global", "kuma.io/origin: global", "20s"));
    let mut liar = Site::default();
    liar.put(mk_timeout("x", "", "1s"));
    let offers = catalog(Direction::ToGlobal { zone: "liar".into() }, &liar);
    let mut source = Source::new("liar", None, 10 << 20, &offers);
    let mut sink = Sink::new(Side::Global { zone: "liar".into() }, true);
    for request in sink.start(&node("liar"), &global) {
        source.on_request(request).unwrap();
    }
    let mut response =
        source.poll(&offers).into_iter().find(|(kind, _)| *kind == Some(Kind::MeshTimeout)).unwrap().1;
    let forged = crate::wire::Encoded::of(&mk_timeout("of-global", "kuma.io/origin: zone", "1s")).unwrap();
    response.resources.push(forged.to_discovery());
    response.removed_resources.push("of-global.default".into());
    let intake = sink.on_response(&response, &global);
    assert_eq!(intake.writes.len(), 1, "the honest one is taken");
    assert_eq!(intake.rejections.len(), 1);
    assert_eq!(intake.rejections[0].name, "of-global.default");

    // Kinds that zones may not provide are refused, and the removal of what others own is ignored.
    response.type_url = "Mesh".into();
    assert_eq!(sink.on_response(&response, &global).writes.len(), 0);
    let removal = DeltaDiscoveryResponse {
        type_url: "MeshTimeout".into(),
        removed_resources: vec!["of-global.default".into(), "unknown.default".into(), "nodot".into()],
        ..Default::default()
    };
    let intake = sink.on_response(&removal, &global);
    assert_eq!((intake.writes.len(), intake.rejections.len()), (0, 0));
}

#[test]
fn one_bad_resource_among_good_ones() {
    let mut zone = Site::default();
    let good = crate::wire::Encoded::of(&mk_timeout("good", "kuma.io/origin: global", "1s")).unwrap();
    let mut bad = good.to_discovery();
    bad.name = "bad.default".into();
    bad.resource.as_mut().unwrap().value.truncate(20);
    let response = DeltaDiscoveryResponse {
        type_url: "MeshTimeout".into(),
        resources: vec![bad, good.to_discovery()],
        ..Default::default()
    };
    let mut sink = Sink::new(Side::Zone, true);
    sink.start(&node("z"), &zone);
    let intake = sink.on_response(&response, &zone);
    zone.apply(&intake);
    let reply = sink.settle(intake, Vec::new(), &node("z"));
    assert_eq!(zone.names(Kind::MeshTimeout), ["good"]);
    assert_eq!(reply.node.unwrap().id, "z");
    assert_eq!(reply.resource_names_subscribe, ["*"]);
    assert!(reply.error_detail.unwrap().message.starts_with("bad.default: "));
    assert_eq!(sink.quarantine().next().unwrap().1, "bad.default");
}

#[test]
fn source_protocol() {
    let mut site = Site::default();
    site.put(mk_timeout("a", "", "1s"));
    let mut offers = catalog(to_zones(), &site);
    let mut source = Source::new("global", Some("east"), 10 << 20, &offers);
    let ask = |type_url: &str| DeltaDiscoveryRequest {
        node: Some(node("east")),
        type_url: type_url.into(),
        resource_names_subscribe: vec!["*".into()],
        ..Default::default()
    };
    assert_eq!(
        source.on_request(DeltaDiscoveryRequest { node: None, ..ask("Mesh") }),
        Err(Refused::NoNode("Mesh".into()))
    );
    for type_url in ["MeshTimeout", "Mesh", "CircuitBreaker"] {
        source.on_request(ask(type_url)).unwrap();
    }
    // Each type is answered once, also empty and unknown ones.
    let first = source.poll(&offers);
    let counts: BTreeMap<&str, usize> =
        first.iter().map(|(_, r)| (r.type_url.as_str(), r.resources.len())).collect();
    assert_eq!(counts, BTreeMap::from([("CircuitBreaker", 0), ("Mesh", 0), ("MeshTimeout", 1)]));
    let nonces: Vec<&str> = first.iter().map(|(_, response)| response.nonce.as_str()).collect();
    assert_eq!(nonces, ["1", "2", "3"]);
    assert!(source.poll(&offers).is_empty());

    // While one is in flight, changes merge.
    for idle in ["2s", "3s"] {
        offers.apply(Plane::Config, &site.put(mk_timeout("a", "", idle)));
        offers.apply(Plane::Config, &site.put(mk_timeout("b", "", idle)));
        assert!(source.poll(&offers).is_empty());
    }
    source.on_request(ask("MeshTimeout")).unwrap();
    let second = source.poll(&offers);
    assert_eq!((second.len(), second[0].1.resources.len()), (1, 2));

    // A NACK is remembered and not retried until the resource changes.
    let mut nack = ask("MeshTimeout");
    nack.error_detail =
        Some(graticule_proto::google::rpc::Status { message: "no".into(), ..Default::default() });
    assert!(matches!(source.on_request(nack).unwrap(), Received::Nacked { .. }));
    assert_eq!(source.rejected().count(), 2);
    assert!(source.poll(&offers).is_empty());
    let key = Key::new(Kind::MeshTimeout, "default", "a");
    offers.apply(Plane::Config, &site.delete(&key));
    let third = source.poll(&offers);
    assert_eq!((third[0].1.resources.len(), third[0].1.removed_resources.len()), (0, 1));
    assert_eq!(source.rejected().count(), 1);
}

#[test]
fn large_increments_are_split_and_first_states_are_not() {
    let mut site = Site::default();
    let big = |name: &str| {
        mk(&format!("{{type: Mesh, name: {name}, skipCreatingInitialPolicies: [{}]}}", "x".repeat(60_000)))
    };
    let mut offers = catalog(to_zones(), &site);
    let mut source = Source::new("global", Some("east"), 200_000, &offers);
    let ask =
        || DeltaDiscoveryRequest { node: Some(node("east")), type_url: "Mesh".into(), ..Default::default() };
    source.on_request(ask()).unwrap();
    assert_eq!(source.poll(&offers)[0].1.resources.len(), 0);
    for name in ["a", "b", "c", "d", "e"] {
        offers.apply(Plane::Config, &site.put(big(name)));
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        source.on_request(ask()).unwrap();
        seen.push(source.poll(&offers)[0].1.resources.len());
    }
    assert_eq!(seen, [2, 2, 1]);

    let mut late = Source::new("global", Some("east"), 200_000, &offers);
    late.on_request(ask()).unwrap();
    assert!(late.poll(&offers).is_empty());
    assert_eq!(late.faults().count(), 1);

    // What was too large comes when it is not any more, however much else has changed meanwhile.
    for name in ["a", "b", "c"] {
        offers.apply(Plane::Config, &site.delete(&Key::new(Kind::Mesh, "", name)));
    }
    let forms = [mk_timeout("t", "", "1s"), mk_timeout("t", "", "2s")];
    let at = offers.head();
    for form in forms.iter().cycle() {
        offers.apply(Plane::Config, &site.put(form.clone()));
        if offers.changes_since(at).is_none() {
            break;
        }
    }
    assert_eq!(late.poll(&offers)[0].1.resources.len(), 2);
    assert_eq!(late.faults().count(), 0);
}

#[test]
fn reconnecting_sends_differences_only() {
    let mut global = Site::default();
    for name in ["a", "b", "c"] {
        global.put(mk_timeout(name, "", "1s"));
    }
    let mut zone = Site::default();
    let mut offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!(wire.sent, 3);

    // Nothing changed, neither with the old sink nor after a restart that lost its memory.
    let mut again = Wire::down("east", Some(wire.sink), &offers, &zone);
    again.settle(&offers, &mut zone);
    assert_eq!(again.sent, 0);
    let mut restarted = Wire::down("east", None, &offers, &zone);
    restarted.settle(&offers, &mut zone);
    assert_eq!(restarted.sent, 0);

    offers.apply(Plane::Config, &global.put(mk_timeout("a", "", "2s")));
    offers.apply(Plane::Config, &global.delete(&Key::new(Kind::MeshTimeout, "default", "b")));
    let mut third = Wire::down("east", None, &offers, &zone);
    third.settle(&offers, &mut zone);
    assert_eq!(third.sent, 2);
    assert_eq!(zone.names(Kind::MeshTimeout).len(), 2);

    // Damage to a copy is found and repaired.
    let mut damaged = zone.list(Kind::MeshTimeout)[0].as_ref().clone();
    damaged.meta.labels.insert("kuma.io/display-name".into(), "wrong".into());
    zone.put(damaged);
    let mut fourth = Wire::down("east", Some(third.sink), &offers, &zone);
    fourth.settle(&offers, &mut zone);
    assert_eq!(fourth.sent, 1);
}

/// A copy that came over another replica is looked after, too; one that nobody has any more is nothing to look after.
#[test]
fn damage_is_found_wherever_the_copy_came_from() {
    let mut global = Site::default();
    for name in ["a", "b"] {
        global.put(mk_timeout(name, "", "1s"));
    }
    let mut zone = Site::default();
    let mut offers = catalog(to_zones(), &global);
    Wire::down("east", None, &offers, &zone).settle(&offers, &mut zone);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!((wire.sent, wire.sink.damaged(&zone)), (0, vec![]));
    let [a, b] = ["a", "b"].map(|name| {
        let copies = zone.list(Kind::MeshTimeout);
        copies.iter().find(|copy| copy.meta.display_name() == name).unwrap().key()
    });
    let mut wrong = zone.get(&a).unwrap().as_ref().clone();
    wrong.meta.labels.insert("team".into(), "wrong".into());
    zone.put(wrong);
    zone.delete(&b);
    assert_eq!(wire.sink.damaged(&zone).len(), 2);

    // While it is away, one of the two goes for good.
    offers.apply(Plane::Config, &global.delete(&Key::new(Kind::MeshTimeout, "default", "b")));
    let mut again = Wire::down("east", Some(wire.sink), &offers, &zone);
    again.settle(&offers, &mut zone);
    assert_eq!((zone.names(Kind::MeshTimeout).len(), again.sink.damaged(&zone)), (1, vec![]));
    // The other one is lost, and then goes while both are connected.
    zone.delete(&a);
    assert_eq!(again.sink.damaged(&zone), std::slice::from_ref(&a));
    offers.apply(Plane::Config, &global.delete(&Key::new(Kind::MeshTimeout, "default", "a")));
    again.settle(&offers, &mut zone);
    assert_eq!(again.sink.damaged(&zone), vec![]);
}

/// Another replica may write what an older stream had in hand when the newer one has begun.
#[test]
fn a_copy_that_arrives_too_late_is_found() {
    let mut global = Site::default();
    global.put(mk_timeout("a", "", "1s"));
    let mut zone = Site::default();
    let mut offers = catalog(to_zones(), &global);
    Wire::down("east", None, &offers, &zone).settle(&offers, &mut zone);
    let late = zone.list(Kind::MeshTimeout)[0].as_ref().clone();
    let key = late.key();
    zone.delete(&key);
    offers.apply(Plane::Config, &global.delete(&Key::new(Kind::MeshTimeout, "default", "a")));
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!(wire.sink.damaged(&zone), []);
    zone.put(late);
    assert_eq!(wire.sink.damaged(&zone), [key]);
    let mut again = Wire::down("east", Some(wire.sink), &offers, &zone);
    again.settle(&offers, &mut zone);
    assert_eq!((zone.names(Kind::MeshTimeout).len(), again.sink.damaged(&zone)), (0, vec![]));
}

#[test]
fn an_unsynced_source_is_silent() {
    let mut site = Site::default();
    site.put(mk_timeout("a", "", "1s"));
    let mut offers = Catalog::new(to_zones(), Vec::new());
    offers.apply(Plane::Config, &site.resync());
    let mut source = Source::new("global", Some("east"), 10 << 20, &offers);
    let request =
        DeltaDiscoveryRequest { node: Some(node("east")), type_url: "Mesh".into(), ..Default::default() };
    source.on_request(request).unwrap();
    assert!(source.poll(&offers).is_empty(), "only one of two stores was read");
    offers.apply(Plane::Status, &Event::Resync(Snapshot::empty()));
    assert_eq!(source.poll(&offers).len(), 1);
}

#[test]
fn secrets_of_global() {
    let mut site = Site::default();
    for name in [
        "envoy-admin-ca",
        "admin-user-token",
        "inter-cp-ca",
        "user-token-revocations",
        "user-token-signing-key-1",
        "mine",
        "zone-token-revocations",
        "zone-token-signing-key-1",
    ] {
        site.put(mk(&format!("{{type: GlobalSecret, name: {name}, data: aGVsbG8=}}")));
    }
    let offers = catalog(to_zones(), &site);
    let names: Vec<&str> = offers.of_kind(Kind::GlobalSecret).map(|(name, _)| &**name).collect();
    assert_eq!(names, ["mine.", "zone-token-revocations."]);
    let faults: Vec<&str> = offers.faults().map(|(key, _)| key.name.as_str()).collect();
    assert_eq!(faults, ["zone-token-signing-key-1"], "no PEM, so nothing leaves, and it is reported");
}

mod agreement;
mod bounds;
mod healing;
mod held_back;
mod interest;
mod leaving;
mod parts;
