//! Zones that take part in some meshes only, with our global.

use graticule_kds::core::{Flow, Meshes, PeerReport};
use graticule_kds::net::{GlobalOptions, Stores};
use graticule_model::{Key, Kind, Resource};

use crate::support::*;

fn mk_in(mesh: &str, name: &str, labels: &str) -> Resource {
    mk(&format!(
        "{{type: MeshTimeout, mesh: {mesh}, name: {name}, labels: {{{labels}}},
           spec: {{to: [{{targetRef: {{kind: Mesh}}, default: {{idleTimeout: 20s}}}}]}}}}"
    ))
}

fn mk_dataplane(mesh: &str) -> Resource {
    mk(&format!("{{type: Dataplane, mesh: {mesh}, name: web-1, networking: {{address: 192.0.2.1}}}}"))
}

/// `mesh/name` of the policies.
fn policies(stores: &Stores) -> Vec<String> {
    let snapshot = stores.config.snapshot();
    let name = |one: &std::sync::Arc<Resource>| format!("{}/{}", one.meta.mesh, one.meta.display_name());
    let mut all: Vec<String> = snapshot.list(Kind::MeshTimeout, None).map(name).collect();
    all.sort();
    all
}

fn in_sync(report: &PeerReport, direction: Flow) -> usize {
    let of = |kind: &&graticule_kds::core::KindStatus| {
        kind.direction == direction && kind.kind == Kind::MeshTimeout.name()
    };
    report.kinds.iter().filter(of).map(|kind| kind.in_sync).sum()
}

async fn stopped(mut zone: ZoneCp) -> Stores {
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}
    zone.stores
}

async fn mk_zone_of(meshes: &[&str], global: &Global, stores: Stores) -> ZoneCp {
    let meshes = Meshes::of(meshes.iter().map(|mesh| (*mesh).to_owned()));
    let mut zone = mk_zone_with("east", global, global.address.port(), stores, "east-1", |options| {
        options.meshes = meshes;
    });
    linked(&mut zone, "synced", |link| link.synced).await;
    zone
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_follows_its_list_of_meshes() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    for mesh in ["a", "b"] {
        put(&global.stores.config, mk(&format!("{{type: Mesh, name: {mesh}}}"))).await;
        for n in 0..12 {
            put(&global.stores.config, mk_in(mesh, &format!("t{n}"), "")).await;
        }
    }
    let zone = mk_zone_of(&["a"], &global, mk_stores()).await;
    assert_eq!(policies(&zone.stores).len(), 12);
    until_true("global counts what it sends", || {
        let report = global.server.peer_report("east").unwrap();
        (report.meshes.as_slice(), in_sync(&report, Flow::Sent)) == (&["a".to_owned()][..], 12)
            && report.revision.is_some_and(|revision| revision.lag == 0)
    })
    .await;
    put(&global.stores.config, mk_in("b", "new", "")).await;
    until_true("nobody waits for what is not sent", || {
        let report = global.server.peer_report("east").unwrap();
        let current = global.stores.config.snapshot().revision().0;
        report.revision.is_some_and(|revision| (revision.lag, revision.current) == (0, current))
    })
    .await;
    put(&global.stores.config, mk_in("a", "new", "")).await;
    until(&zone.stores.config, "a change of its mesh", |all| {
        all.iter().any(|one| one.meta.display_name() == "new" && one.meta.mesh == "a")
    })
    .await;
    assert_eq!(policies(&zone.stores).len(), 13);
    let report = zone.federation.report("east", &zone.stores);
    assert_eq!((report.meshes, report.protection.state), (vec!["a".to_owned()], "clear"));

    // It grows.
    let zone = mk_zone_of(&[], &global, stopped(zone).await).await;
    assert_eq!(policies(&zone.stores).len(), 26);
    assert!(zone.federation.report("east", &zone.stores).meshes.is_empty());

    // It shrinks, but not under the feet of proxies.
    put(&zone.stores.config, mk_dataplane("b")).await;
    let zone = mk_zone_of(&["a"], &global, stopped(zone).await).await;
    assert_eq!(policies(&zone.stores).len(), 26);
    let report = zone.federation.report("east", &zone.stores);
    assert_eq!(report.meshes, ["a", "b"]);
    put(&zone.stores.config, mk_in("b", "own", "kuma.io/origin: zone")).await;
    delete(&zone.stores.config, Key::new(Kind::Dataplane, "b", "web-1")).await;
    let zone = mk_zone_of(&["a"], &global, stopped(zone).await).await;
    assert_eq!(policies(&zone.stores).len(), 14, "{:?}", policies(&zone.stores));
    let report = zone.federation.report("east", &zone.stores);
    assert_eq!((report.protection.state, report.protection.held_back), ("clear", 0));
    assert_eq!((report.meshes.as_slice(), in_sync(&report, Flow::Received)), (&["a".to_owned()][..], 13));
    until(&global.stores.config, "what the zone has itself still goes up", |all| {
        all.iter().any(|one| one.meta.display_name() == "own" && one.meta.mesh == "b")
    })
    .await;
    assert!(zone.stores.config.snapshot().contains(&Key::new(Kind::Mesh, "", "b")), "its mesh stays with it");
    zone.stop.drain();
}
