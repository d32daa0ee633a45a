//! Global and zones in one process, over real sockets and TLS.

#![allow(clippy::unwrap_used, reason = "a test")]

mod healing;
mod interest;
mod leaving;
mod names;
mod protection;
mod replicas;
mod silent;
mod support;
mod tokens;
mod unread;

use graticule_proto::kuma::mesh::v1alpha1::ZoneHealthCheckRequest;
use graticule_proto::kuma::mesh::v1alpha1::global_kds_service_server::GlobalKdsService as _;
use std::sync::Arc;
use std::time::Duration;

use graticule_kds::net::{AdminError, AdminQuery, AdminTarget, GlobalOptions};
use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::{Key, Kind, Resource};
use graticule_store::Event;

use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn zones_and_global_stay_in_step() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    put(&global.stores.config, mk("{type: Mesh, name: default}")).await;
    let (east, west) = (mk_stores(), mk_stores());
    let mut east = mk_zone("east", &global, east, "token-east");
    let mut west = mk_zone("west", &global, west, "token-west");
    linked(&mut east, "east synced", |link| link.synced).await;
    linked(&mut west, "west synced", |link| link.synced).await;
    assert!(has(Kind::Mesh, "default")(&east.stores.config.snapshot().iter().cloned().collect::<Vec<_>>()));

    // A policy of global appears in both, under its hashed name, and goes again.
    put(&global.stores.config, mk_timeout("timeout-all")).await;
    for zone in [&east, &west] {
        until(&zone.stores.config, "policy", has(Kind::MeshTimeout, "timeout-all-2wbxwvfffv2z82fc")).await;
    }
    delete(&global.stores.config, Key::new(Kind::MeshTimeout, "default", "timeout-all")).await;
    for zone in [&east, &west] {
        let gone = has(Kind::MeshTimeout, "timeout-all-2wbxwvfffv2z82fc");
        until(&zone.stores.config, "policy gone", |all| !gone(all)).await;
    }

    // A service and a trust of west appear in east.
    let service = "{type: MeshService, mesh: default, name: redis, labels: {kuma.io/origin: zone},
        spec: {state: Available, ports: [{port: 6739}]}, status: {vips: [{ip: 241.0.0.9}]}}";
    put(&west.stores.config, mk(service)).await;
    let trust =
        "{type: MeshTrust, mesh: default, name: identity, spec: {trustDomain: default.west.mesh.local,
        caBundles: [{type: Pem, pem: {value: '-----BEGIN CERTIFICATE-----'}}]}}";
    put(&west.stores.config, mk(trust)).await;
    for kind in [Kind::MeshService, Kind::MeshTrust] {
        until(&east.stores.config, kind.name(), |all| {
            all.iter().any(|r| {
                r.kind() == kind
                    && r.meta.label("kuma.io/origin") == Some("global")
                    && r.meta.label("kuma.io/zone") == Some("west")
                    && r.status == graticule_model::Status::empty(kind)
            })
        })
        .await;
    }

    // Observations go to the soft store of global.
    put(&east.stores.status, mk("{type: DataplaneInsight, mesh: default, name: dp-1}")).await;
    until(&global.stores.status, "insight", |all| {
        all.iter().any(|r| r.kind() == Kind::DataplaneInsight && r.meta.display_name() == "dp-1")
    })
    .await;
    until(&global.stores.status, "zones online", |all| {
        let online = |r: &&Arc<Resource>| r.spec_as::<ZoneInsight>().is_some_and(ZoneInsight::is_online);
        all.iter().filter(online).count() == 2
    })
    .await;

    // Questions about proxies reach the zone.
    let target = AdminTarget { kind: "Dataplane".into(), name: "dp-1".into(), mesh: "default".into() };
    let admin = global.server.admin();
    let dump = AdminQuery::ConfigDump { include_eds: false };
    until(&global.stores.status, "admin stream", |all| {
        all.iter().any(|r| {
            let streams = r.spec_as::<ZoneInsight>().and_then(|insight| insight.kds_streams.as_ref());
            r.meta.name == "east" && streams.is_some_and(|s| s.config_dump.is_some() && s.stats.is_some())
        })
    })
    .await;
    assert_eq!(admin.ask("east", target.clone(), dump).await.unwrap(), b"default/dp-1");
    let stats = AdminQuery::Stats { format: graticule_kds::net::OutputFormat::Json, used_only: true };
    let refused = admin.ask("east", target.clone(), stats).await;
    assert_eq!(refused, Err(AdminError::Failed("no admin endpoint".into())));
    assert_eq!(admin.ask("north", target, dump).await, Err(AdminError::Offline("north".into())));

    // A zone that stops is offline.
    east.stop.drain();
    while east.tasks.join_next().await.is_some() {}
    until(&global.stores.status, "east offline", |all| {
        all.iter()
            .any(|r| r.meta.name == "east" && r.spec_as::<ZoneInsight>().is_some_and(|i| !i.is_online()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_without_the_right_token_are_refused() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    let mut liar = mk_zone("east", &global, mk_stores(), "token-west");
    linked(&mut liar, "refused", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("Unauthenticated"))
    })
    .await;
    assert!(
        global.stores.config.snapshot().get(&Key::new(Kind::Zone, "", "east")).is_none(),
        "no trace is left"
    );
    assert_eq!(global.server.online_zones(), Vec::<String>::new());
    liar.stop.drain();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_global_is_found_again_and_sends_differences() {
    let first = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    for name in ["a", "b", "c"] {
        put(&first.stores.config, mk_timeout(name)).await;
    }
    let mut zone = mk_zone("east", &first, mk_stores(), "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    put(&zone.stores.config, mk_timeout("own")).await;
    let own = |all: &[Arc<Resource>]| all.iter().any(|r| r.meta.display_name() == "own");
    until(&first.stores.config, "own policy at global", own).await;
    let before = zone.stores.config.snapshot();

    // Global stops; the zone goes on with what it has, and can be written.
    let Global { stores, address, stop, mut tasks, mut _files, .. } = first;
    stop.drain();
    stop.force();
    while tasks.join_next().await.is_some() {}
    linked(&mut zone, "link lost", |link| link.connected_since.is_none()).await;
    put(&zone.stores.config, mk_timeout("while-away")).await;
    assert_eq!(zone.stores.config.snapshot().len(), before.len() + 1);

    // It comes back with its store: only what changed is written, in both directions.
    put(&stores.config, mk_timeout("d")).await;
    let mut zone_feed = zone.stores.config.watch(Some(zone.stores.config.snapshot().revision()));
    let again = mk_global(stores, GlobalOptions::default(), _files.take(), address.port()).await;
    linked(&mut zone, "synced again", |link| link.synced).await;
    let away = |all: &[Arc<Resource>]| all.iter().any(|r| r.meta.display_name() == "while-away");
    until(&again.stores.config, "written while away", away).await;
    until(&zone.stores.config, "new policy", |all| all.iter().any(|r| r.meta.display_name() == "d")).await;
    let mut changed = Vec::new();
    while let Ok(Some(Event::Batch(batch))) = tokio::time::timeout(Duration::ZERO, zone_feed.next()).await {
        changed.extend(batch.changes.iter().map(|change| change.key.name.to_string()));
    }
    // And how far the zone is.
    changed.retain(|name| name != "graticule-global-revision");
    assert_eq!(changed.len(), 1, "{changed:?}");
    let stats = insight_totals(&again.stores, "east");
    assert!(stats.0 >= 1, "responses were counted: {stats:?}");
    zone.stop.drain();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_connection_of_a_zone_wins() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    let mut first = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut first, "first synced", |link| link.synced).await;
    let mut second = mk_zone("east", &global, first.stores.clone(), "token-east");
    linked(&mut second, "second synced", |link| link.synced).await;
    linked(&mut first, "first cancelled", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("Cancelled"))
    })
    .await;
    first.stop.drain();
    while first.tasks.join_next().await.is_some() {}
    // The survivor works.
    linked(&mut second, "second synced", |link| link.synced).await;
    put(&global.stores.config, mk_timeout("timeout-all")).await;
    until(&second.stores.config, "policy", has(Kind::MeshTimeout, "timeout-all-2wbxwvfffv2z82fc")).await;
    global.stop.drain();
}

/// The zone hears nothing and says nothing, and its connection looks alive: the stream is ended, so that it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_acknowledges_nothing_is_sent_away() {
    let options = GlobalOptions {
        keep_alive: Duration::from_secs(300),
        stuck_after: Duration::from_millis(500),
        ..GlobalOptions::default()
    };
    let global = mk_global(mk_stores(), options, None, 0).await;
    let relay = Relay::to(global.address.port()).await;
    let mut zone = mk_zone_with("east", &global, relay.port, mk_stores(), "east-1", |_| {});
    linked(&mut zone, "synced", |link| link.synced).await;
    // An idle zone is not stuck.
    let idle = tokio::time::timeout(Duration::from_millis(1500), async {
        until_true("never", || global.server.online_zones().is_empty()).await;
    });
    assert!(idle.await.is_err(), "nothing was sent, nothing is missing");
    relay.fall_silent();
    put(&global.stores.config, mk_timeout("unheard")).await;
    until_true("the stream was ended", || global.server.online_zones().is_empty()).await;
    zone.stop.drain();
    zone.stop.force();
}

/// A zone knows how far it is behind global.
#[tokio::test(flavor = "multi_thread")]
async fn zones_hear_global_s_revision() {
    let options = GlobalOptions { health_interval: Duration::from_millis(100), ..GlobalOptions::default() };
    let global = mk_global(mk_stores(), options, None, 0).await;
    let mut zone = mk_zone("east", &global, mk_stores(), "token-east");
    put(&global.stores.config, mk_timeout("one")).await;
    let wanted = global.stores.config.snapshot().revision().0;
    linked(&mut zone, "in step", |link| {
        link.global_revision.is_some_and(|beat| beat.current >= wanted && beat.lag == 0)
    })
    .await;
    let revision = global.server.peer_report("east").unwrap().revision.unwrap();
    assert_eq!((revision.lag, revision.current), (0, revision.acknowledged));
    assert!(tells_revision(&global).await);
    zone.stop.drain();
    zone.stop.force();
    until_true("the zone is gone", || global.server.online_zones().is_empty()).await;
    // The streams may be at another replica by now: how far the zone is, this one does not know.
    put(&global.stores.config, mk_timeout("two")).await;
    assert!(!tells_revision(&global).await);
}

async fn tells_revision(global: &Global) -> bool {
    let mut request = tonic::Request::new(ZoneHealthCheckRequest::default());
    for (header, value) in [("client-id", "east"), ("authorization", "Bearer token-east")] {
        request.metadata_mut().insert(header, value.parse().unwrap());
    }
    let answer = global.server.health_check(request).await.unwrap();
    answer.metadata().contains_key("graticule-revision")
}
