//! Peers that lost what they had do not take it away from the other side.

use std::sync::Arc;
use std::time::Duration;

use graticule_kds::core::{DeletionProtection, GlobalSeen};
use graticule_kds::net::GlobalOptions;
use graticule_model::kinds::config::Config;
use graticule_model::{Key, Kind, Resource};
use graticule_store::Replacement;

use crate::support::*;

fn names(stores: &graticule_kds::net::Stores, kind: Kind) -> Vec<String> {
    let mut names: Vec<String> =
        stores.config.snapshot().list(kind, None).map(|r| r.meta.display_name().to_owned()).collect();
    names.sort();
    names
}

/// A global that lost its disk, or another one: the zone keeps everything and says what to do; an operator may agree.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_takes_nothing_from_a_global_that_it_does_not_know() {
    let first = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    put(&first.stores.config, mk("{type: Mesh, name: default, mtls: {}}")).await;
    put(&first.stores.config, mk_timeout("of-first")).await;
    let mut zone = mk_zone("east", &first, mk_stores(), "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    put(&zone.stores.config, mk_timeout("own")).await;
    let stores = zone.stores.clone();
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}

    let second = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    put(&second.stores.config, mk_timeout("of-second")).await;
    let mut zone = mk_zone("east", &second, stores.clone(), "token-east");
    linked(&mut zone, "does not know it", |link| matches!(link.peer.global, GlobalSeen::Other { .. })).await;
    let report = zone.federation.report("east", &stores);
    assert_eq!((report.online, report.synced, report.protection.state), (true, Some(false), "otherGlobal"));
    assert!(report.protection.advice.contains("grat zone accept-deletions east"));
    // The zone's own resources reach it, nothing comes from it, and nothing goes.
    until_true("global hears that the zone does not follow it", || {
        second.server.peer_report("east").unwrap().protection.held_back_by_peer > 0
    })
    .await;
    until(&second.stores.config, "own policy", |all| all.iter().any(|r| r.meta.display_name() == "own"))
        .await;
    put(&second.stores.config, mk_timeout("later")).await;
    assert_eq!(names(&stores, Kind::MeshTimeout), ["of-first", "own"]);
    assert_eq!(names(&stores, Kind::Mesh), ["default"]);

    // It comes back as the global that it was: everything goes on, without anybody's decision.
    let id = Key::new(Kind::Config, "", "kuma-cluster-id");
    let known = first.stores.config.snapshot().get(&id).unwrap();
    put(&second.stores.config, known.as_ref().clone()).await;
    linked(&mut zone, "synced with the restored one", |link| link.synced).await;
    until(&stores.config, "what came meanwhile", |all| all.iter().any(|r| r.meta.display_name() == "later"))
        .await;
    assert_eq!(names(&stores, Kind::MeshTimeout), ["later", "of-second", "own"]);
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}

    // Or an operator agrees to the new one.
    let third = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    let mut zone = mk_zone("east", &third, stores.clone(), "token-east");
    linked(&mut zone, "does not know it", |link| matches!(link.peer.global, GlobalSeen::Other { .. })).await;
    assert_eq!(names(&stores, Kind::MeshTimeout), ["later", "of-second", "own"]);
    assert!(zone.federation.accept_deletions().is_some());
    linked(&mut zone, "synced with the new one", |link| link.synced).await;
    assert_eq!(names(&stores, Kind::MeshTimeout), ["own"]);
    assert_eq!(zone.federation.report("east", &stores).protection.state, "clear");
    zone.stop.drain();
}

/// The same global, with a part of what it had: small changes flow, a large loss waits at the zone, and both sides say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_keeps_what_a_partial_global_lost() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    for n in 10..32 {
        put(&global.stores.config, mk_timeout(&format!("t{n}"))).await;
    }
    let mut zone = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    // A person deletes one.
    delete(&global.stores.config, Key::new(Kind::MeshTimeout, "default", "t31")).await;
    until(&zone.stores.config, "one goes", |all| !all.iter().any(|r| r.meta.display_name() == "t31")).await;
    let stores = zone.stores.clone();
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}

    // While the zone is away, most of it is lost.
    for n in 10..30 {
        delete(&global.stores.config, Key::new(Kind::MeshTimeout, "default", format!("t{n}"))).await;
    }
    let mut zone = mk_zone("east", &global, stores.clone(), "token-east");
    linked(&mut zone, "synced again", |link| link.synced).await;
    assert_eq!(names(&stores, Kind::MeshTimeout).len(), 21, "the copies work on");
    let report = zone.federation.report("east", &stores);
    assert_eq!((report.protection.state, report.protection.held_back), ("holding", 20));
    assert_eq!(report.protection.resources.len(), 20);
    let by_peer = |report: graticule_kds::core::PeerReport| report.protection.held_back_by_peer;
    until_true("global says so", || by_peer(global.server.peer_report("east").unwrap()) == 20).await;

    // One is back, with other content; it is an ordinary copy again. New ones come.
    put(&global.stores.config, mk_timeout("t10")).await;
    put(&global.stores.config, mk_timeout("new")).await;
    until(&stores.config, "new one", |all| all.iter().any(|r| r.meta.display_name() == "new")).await;
    linked(&mut zone, "one less", |link| link.peer.held_back.len() == 19).await;

    // A restart decides nothing, also when they are few among many by now.
    for n in 10..40 {
        put(&global.stores.config, mk_timeout(&format!("x{n}"))).await;
    }
    until(&stores.config, "more", |all| all.iter().any(|r| r.meta.display_name() == "x39")).await;
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}
    let mut zone = mk_zone("east", &global, stores.clone(), "token-east");
    linked(&mut zone, "synced after a restart", |link| link.synced).await;
    linked(&mut zone, "as many", |link| link.peer.held_back.len() == 19).await;

    // The rest is given up.
    assert_eq!(zone.federation.accept_deletions(), Some(19));
    until(&stores.config, "they go", |all| !all.iter().any(|r| r.meta.display_name() == "t29")).await;
    let mut left = names(&stores, Kind::MeshTimeout);
    left.retain(|name| !name.starts_with('x'));
    assert_eq!(left, ["new", "t10", "t30"]);
    until_true("both are clear", || {
        let state = |report: graticule_kds::core::PeerReport| report.protection.state == "clear";
        state(global.server.peer_report("east").unwrap()) && state(zone.federation.report("east", &stores))
    })
    .await;
    zone.stop.drain();
}

/// A zone that lost its disk: global keeps its services until it has them again, or until an operator decides.
#[tokio::test(flavor = "multi_thread")]
async fn global_keeps_what_a_zone_lost() {
    let quick = || GlobalOptions { name_reserved_for: Duration::ZERO, ..GlobalOptions::default() };
    let global = mk_global(mk_stores(), quick(), None, 0).await;
    let mut zone = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    let service = |name: &str| {
        mk(&format!(
            "{{type: MeshService, mesh: default, name: {name}, labels: {{kuma.io/origin: zone}}, spec: {{ports: [{{port: 80}}]}}}}"
        ))
    };
    let at_global =
        |name: &'static str| move |all: &[Arc<Resource>]| all.iter().any(|r| r.meta.display_name() == name);
    for name in ["a", "b"] {
        put(&zone.stores.config, service(name)).await;
        until(&global.stores.config, "service", at_global(name)).await;
    }
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}

    let mut zone = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut zone, "the empty one synced", |link| link.synced).await;
    let held_back =
        |number: usize| move |report: graticule_kds::core::PeerReport| report.protection.held_back == number;
    until_true("global keeps them", || held_back(2)(global.server.peer_report("east").unwrap())).await;
    assert_eq!(names(&global.stores, Kind::MeshService), ["a", "b"]);
    until_true("the zone is told", || {
        zone.federation.report("east", &zone.stores).protection.held_back_by_peer == 2
    })
    .await;

    // It has one again; the other one is given up.
    put(&zone.stores.config, service("a")).await;
    until_true("one is back", || held_back(1)(global.server.peer_report("east").unwrap())).await;
    assert_eq!(global.server.accept_deletions("east").await.unwrap(), Some(1));
    until(&global.stores.config, "the other one goes", |all| !at_global("b")(all)).await;
    assert_eq!(names(&global.stores, Kind::MeshService), ["a"]);
    // Decided once for this loss: gradual deletions flow.
    delete(&zone.stores.config, Key::new(Kind::MeshService, "default", "a")).await;
    until(&global.stores.config, "the last one goes", |all| !at_global("a")(all)).await;
    zone.stop.drain();
}

/// The protection can be turned off.
#[tokio::test(flavor = "multi_thread")]
async fn without_protection_a_peer_is_believed() {
    let off = DeletionProtection { number: 0, ..DeletionProtection::default() };
    let first = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    put(&first.stores.config, mk_timeout("of-first")).await;
    let zone = mk_zone("east", &first, mk_stores(), "token-east");
    until(&zone.stores.config, "policy", |all| all.iter().any(|r| r.meta.display_name() == "of-first")).await;
    zone.stop.drain();
    let second = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    let port = second.address.port();
    let mut zone =
        mk_zone_with("east", &second, port, zone.stores, "east-2", |options| options.protection = off);
    linked(&mut zone, "synced", |link| link.synced).await;
    assert_eq!(names(&zone.stores, Kind::MeshTimeout), Vec::<String>::new());
    zone.stop.drain();
}

/// Somebody damages copies at both ends; the next comparison finds and repairs them.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_copies_heal() {
    let often = Duration::from_millis(300);
    let global =
        mk_global(mk_stores(), GlobalOptions { audit_interval: often, ..GlobalOptions::default() }, None, 0)
            .await;
    for name in ["a", "b"] {
        put(&global.stores.config, mk_timeout(name)).await;
    }
    let port = global.address.port();
    let change = |options: &mut graticule_kds::net::ZoneOptions| options.audit_interval = often;
    let mut zone = mk_zone_with("east", &global, port, mk_stores(), "east-1", change);
    linked(&mut zone, "synced", |link| link.synced).await;
    put(&zone.stores.config, mk_timeout("own")).await;
    until(&global.stores.config, "own", |all| all.iter().any(|r| r.meta.display_name() == "own")).await;

    let copies: Vec<Arc<Resource>> =
        zone.stores.config.snapshot().list(Kind::MeshTimeout, None).cloned().collect();
    let find = |name: &str| copies.iter().find(|r| r.meta.display_name() == name).unwrap();
    delete(&zone.stores.config, find("a").key()).await;
    let mut changed = find("b").as_ref().clone();
    changed.meta.labels.insert("damaged".into(), "yes".into());
    put(&zone.stores.config, changed).await;
    until(&zone.stores.config, "both are whole again", |all| {
        all.iter().any(|r| r.meta.display_name() == "a")
            && all.iter().all(|r| r.meta.label("damaged").is_none())
    })
    .await;

    let copy = global
        .stores
        .config
        .snapshot()
        .list(Kind::MeshTimeout, None)
        .find(|r| r.meta.display_name() == "own")
        .cloned()
        .unwrap();
    delete(&global.stores.config, copy.key()).await;
    until(&global.stores.config, "global's copy is there again", |all| {
        all.iter().any(|r| r.key() == copy.key())
    })
    .await;
    zone.stop.drain();
}

/// What is deleted while both are connected was decided: many at once, one again and again.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_flow_at_once() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    let mut zone = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    let key = |name: &str| Key::new(Kind::MeshTimeout, "default", name);
    let gone = |all: &[Arc<Resource>]| !all.iter().any(|r| r.kind() == Kind::MeshTimeout);
    for _ in 0..15 {
        put(&global.stores.config, mk_timeout("again")).await;
        until(&zone.stores.config, "it comes", |all| !gone(all)).await;
        delete(&global.stores.config, key("again")).await;
        until(&zone.stores.config, "it goes", gone).await;
    }
    for n in 0..30 {
        put(&global.stores.config, mk_timeout(&format!("t{n}"))).await;
    }
    until(&zone.stores.config, "all come", |all| {
        all.iter().filter(|r| r.kind() == Kind::MeshTimeout).count() == 30
    })
    .await;
    let writes = (0..30)
        .map(|n| graticule_store::Write::Delete {
            key: key(&format!("t{n}")),
            expect: graticule_store::Expect::Present,
        })
        .collect();
    let txn = graticule_store::Txn { at: Some(graticule_model::Timestamp::now()), writes };
    global.stores.config.commit(txn).await.unwrap();
    until(&zone.stores.config, "all go", gone).await;
    assert!(zone.link.borrow().peer.held_back.is_empty());
    zone.stop.drain();
}

/// A backup from when something was held back is restored while the zone is connected: it is held back again.
#[tokio::test]
async fn a_restored_doubt_is_a_doubt() {
    let quick = GlobalOptions { name_reserved_for: Duration::ZERO, ..GlobalOptions::default() };
    let global = mk_global(mk_stores(), quick, None, 0).await;
    let config = global.stores.config.clone();
    let former = mk_zone("east", &global, mk_stores(), "token-east");
    put(&former.stores.config, mk_timeout("a")).await;
    let has = |name: &'static str| {
        move |all: &[Arc<Resource>]| all.iter().any(|one| one.meta.display_name() == name)
    };
    until(&config, "the policy", has("a")).await;
    former.stop.drain();
    drop(former);
    let mut zone = mk_zone("east", &global, mk_stores(), "token-east");
    let held_back = || global.server.peer_report("east").map_or(0, |report| report.protection.held_back);
    until_true("global keeps what the zone lost", || held_back() == 1).await;
    let key = Key::new(Kind::Config, "", "graticule-zone-identity.east");
    let is_doubted = || {
        let bound = config.snapshot().get(&key);
        bound.is_some_and(|bound| {
            bound.spec_as::<Config>().is_some_and(|id| id.config.ends_with(" unconfirmed"))
        })
    };
    assert!(is_doubted());
    let resources = config.snapshot().iter().cloned().collect();
    assert_eq!(global.server.accept_deletions("east").await.unwrap(), Some(1));
    until(&config, "it goes", |all| !has("a")(all)).await;
    linked(&mut zone, "in step", |link| link.synced).await;
    until_true("nothing is in doubt", || !is_doubted()).await;

    config
        .replace_all(Replacement { resources, ..Replacement::default() })
        .await
        .expect("it was stored before");
    put(&zone.stores.config, mk_timeout("late")).await;
    until(&config, "the zone goes on", has("late")).await;
    until_true("it is kept again", || held_back() == 1).await;
    assert!(is_doubted() && has("a")(&config.snapshot().iter().cloned().collect::<Vec<_>>()));
    zone.stop.drain();
}
