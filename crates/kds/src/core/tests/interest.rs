//! Zones that take part in some meshes only.

use super::*;

fn mk_of(kind: &str, mesh: &str, name: &str) -> Resource {
    let spec = match kind {
        "Secret" => "data: c2VjcmV0".to_owned(),
        _ => "spec: {to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 20s}}]}".to_owned(),
    };
    mk(&format!("{{type: {kind}, mesh: {mesh}, name: {name}, {spec}}}"))
}

/// Two meshes, each with 20 policies and a secret, and what is of no mesh.
fn two_meshes() -> Site {
    let mut site = Site::default();
    site.put(mk("{type: GlobalSecret, name: for-all, data: c2VjcmV0}"));
    for mesh in ["a", "b"] {
        site.put(mk(&format!("{{type: Mesh, name: {mesh}}}")));
        site.put(mk_of("Secret", mesh, &format!("secret-{mesh}")));
        (10..30).for_each(|n| drop(site.put(mk_of("MeshTimeout", mesh, &format!("{mesh}-{n}")))));
    }
    site
}

fn only(meshes: &[&str]) -> Sink {
    let mut sink = Sink::new(Side::Zone, true);
    sink.set_meshes(Meshes::of(meshes.iter().map(|mesh| (*mesh).to_owned())));
    sink
}

/// Copies of kinds and meshes, as `kind/mesh: number`.
fn holds(zone: &Site) -> Vec<String> {
    let mut counts: BTreeMap<(Kind, &str), usize> = BTreeMap::new();
    for resource in zone.resources.values() {
        let of = if resource.kind() == Kind::Mesh { &resource.meta.name } else { &resource.meta.mesh };
        *counts.entry((resource.kind(), of)).or_default() += 1;
    }
    counts.into_iter().map(|((kind, mesh), count)| format!("{kind}/{mesh}: {count}")).collect()
}

const OF_A: [&str; 4] = ["Mesh/a: 1", "Secret/a: 1", "GlobalSecret/: 1", "MeshTimeout/a: 20"];
const OF_BOTH: [&str; 7] = [
    "Mesh/a: 1",
    "Mesh/b: 1",
    "Secret/a: 1",
    "Secret/b: 1",
    "GlobalSecret/: 1",
    "MeshTimeout/a: 20",
    "MeshTimeout/b: 20",
];

fn sorted(list: &[&str]) -> Vec<String> {
    let mut list: Vec<String> = list.iter().map(|&text| text.to_owned()).collect();
    list.sort();
    list
}

fn sorted_holds(zone: &Site) -> Vec<String> {
    let mut all = holds(zone);
    all.sort();
    all
}

/// Deletes what the zone does not want to have, as the program does before it connects.
fn drop_unwanted(sink: &Sink, zone: &mut Site) -> usize {
    let unwanted = sink.unwanted(zone);
    unwanted.iter().for_each(|key| drop(zone.delete(key)));
    unwanted.len()
}

fn in_sync(wire: &Wire) -> usize {
    wire.source.counts().map(|counts| counts.in_sync).sum()
}

#[test]
fn a_zone_gets_its_meshes_and_what_is_of_none() {
    let (mut global, mut zone) = (two_meshes(), Site::default());
    let mut offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", Some(only(&["a"])), &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!((sorted_holds(&zone), wire.sent, in_sync(&wire)), (sorted(&OF_A), 23, 23));
    assert!(wire.source.settled_at().is_some() && wire.sink.is_synced() && wire.nacks.is_empty());

    // A change of another mesh is not sent, and nobody waits for it.
    offers.apply(Plane::Config, &global.put(mk_of("MeshTimeout", "b", "new")));
    assert!(wire.source.poll(&offers).is_empty());
    assert_eq!(wire.source.settled_at(), Some(offers.head()));
    assert_eq!(wire.source.acknowledged(), offers.revision());
    offers.apply(Plane::Config, &global.delete(&Key::new(Kind::MeshTimeout, "b", "new")));
    offers.apply(Plane::Config, &global.put(mk_of("MeshTimeout", "a", "new")));
    wire.settle(&offers, &mut zone);
    assert_eq!((wire.sent, wire.sink.damaged(&zone)), (24, vec![]));

    // The list grows: the rest comes with the next connection.
    let mut sink = wire.sink;
    sink.set_meshes(Meshes::default());
    offers.apply(Plane::Config, &global.delete(&Key::new(Kind::MeshTimeout, "a", "new")));
    let mut all = Wire::down("east", Some(sink), &offers, &zone);
    all.settle(&offers, &mut zone);
    assert_eq!((sorted_holds(&zone), all.sent), (sorted(&OF_BOTH), 23));
}

/// It is the zone's own decision: nothing is held back, and nothing is asked for again.
#[test]
fn a_list_that_shrinks_takes_the_copies_with_it() {
    let (global, mut zone) = (two_meshes(), Site::default());
    let offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    zone.put(mk("{type: Mesh, name: own}"));
    assert!(wire.sink.unwanted(&zone).is_empty(), "all are wanted");

    let mut sink = wire.sink;
    sink.set_meshes(Meshes::of(["a".to_owned()]));
    let unwanted = sink.unwanted(&zone);
    assert_eq!(unwanted.last(), Some(&Key::new(Kind::Mesh, "", "b")), "the mesh goes last");
    assert_eq!(drop_unwanted(&sink, &mut zone), 22);
    let mut again = Wire::down("east", Some(sink), &offers, &zone);
    again.settle(&offers, &mut zone);
    assert_eq!((again.sent, in_sync(&again)), (0, 23));
    assert_eq!(again.sink.held_back().count(), 0);
    assert_eq!(again.sink.damaged(&zone), []);
    let mut want = OF_A.to_vec();
    want.push("Mesh/own: 1");
    assert_eq!(sorted_holds(&zone), sorted(&want), "what the zone made itself stays");
    let copies: usize = again.sink.holds(&zone).map(|(_, count)| count).sum();
    assert_eq!(copies, 23);
}

/// What somebody wrote in the zone would go with its Mesh.
#[test]
fn a_mesh_with_the_zones_own_resources_stays() {
    let (global, mut zone) = (two_meshes(), Site::default());
    let offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    let own = "{type: MeshTimeout, mesh: b, name: own, labels: {kuma.io/origin: zone},
        spec: {to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 9s}}]}}";
    zone.put(mk(own));
    let mut sink = wire.sink;
    sink.set_meshes(Meshes::of(["a".to_owned()]));
    assert_eq!(drop_unwanted(&sink, &mut zone), 21);
    let mut again = Wire::down("east", Some(sink), &offers, &zone);
    again.settle(&offers, &mut zone);
    assert_eq!(again.sink.held_back().count(), 0);
    assert_eq!(zone.names(Kind::Mesh), ["a", "b"]);
    let mut at_global = Site::default();
    let up = catalog(Direction::ToGlobal { zone: "east".into() }, &zone);
    Wire::up("east", None, &up, &at_global).settle(&up, &mut at_global);
    assert_eq!(at_global.one(Kind::MeshTimeout, zone_name(&at_global)).meta.mesh, "b", "it still goes up");

    zone.delete(&Key::new(Kind::MeshTimeout, "b", "own"));
    assert_eq!(drop_unwanted(&again.sink, &mut zone), 1);
    assert_eq!(sorted_holds(&zone), sorted(&OF_A));
}

/// A Secret does not go up, so it would be lost; what an authority of the zone keeps is made anew.
#[test]
fn a_mesh_with_secrets_of_the_zone_stays() {
    let (global, mut zone) = (two_meshes(), Site::default());
    let offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    let mut secret = mk("{type: Secret, mesh: b, name: own, data: c2VjcmV0}");
    secret.meta.owner = Some(Key::new(Kind::MeshIdentity, "b", "everyone"));
    let mut sink = wire.sink;
    sink.set_meshes(Meshes::of(["a".to_owned()]));
    zone.put(secret.clone());
    assert!(sink.unwanted(&zone).contains(&Key::new(Kind::Mesh, "", "b")));
    secret.meta.owner = Some(Key::new(Kind::Mesh, "", "b"));
    zone.put(secret);
    assert!(!sink.unwanted(&zone).contains(&Key::new(Kind::Mesh, "", "b")));
}

fn zone_name(site: &Site) -> &str {
    site.names(Kind::MeshTimeout)[0]
}

/// A Kuma global ignores what the zone says and sends everything.
#[test]
fn a_zone_drops_what_a_kuma_global_sends_beyond() {
    let (mut global, mut zone) = (two_meshes(), Site::default());
    let mut offers = catalog(to_zones(), &global);
    let deaf = |sink: Sink, offers: &Catalog, zone: &Site| {
        let mut wire = Wire::open(Source::new("global", Some("east"), 10 << 20, offers), sink, "east", zone);
        let mut source = Source::new("global", Some("east"), 10 << 20, offers);
        for mut request in wire.sink.start(&wire.node, zone) {
            let metadata = request.node.as_mut().and_then(|node| node.metadata.as_mut()).unwrap();
            assert!(metadata.fields.remove("graticule-meshes").is_some());
            metadata.fields.remove("graticule-takes-parts");
            source.on_request(request).unwrap();
        }
        wire.source = source;
        wire
    };
    let mut wire = deaf(only(&["a"]), &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!((sorted_holds(&zone), wire.nacks.len()), (sorted(&OF_A), 0));
    assert_eq!((wire.sent, wire.sink.damaged(&zone), wire.sink.is_synced()), (45, vec![], true));
    assert_eq!(wire.sink.quarantine().count() + wire.sink.held_back().count(), 0);

    // Neither are removals of others its business, however many they are.
    for n in 10..30 {
        offers.apply(Plane::Config, &global.delete(&Key::new(Kind::MeshTimeout, "b", format!("b-{n}"))));
    }
    offers.apply(Plane::Config, &global.delete(&Key::new(Kind::MeshTimeout, "a", "a-10")));
    let mut again = deaf(wire.sink, &offers, &zone);
    again.settle(&offers, &mut zone);
    assert_eq!((again.sink.held_back().count(), zone.names(Kind::MeshTimeout).len()), (0, 19));
}
