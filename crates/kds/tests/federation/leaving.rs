//! A zone leaves its global while both run, and comes back.

use std::sync::Arc;

use graticule_kds::net::{GlobalOptions, LeaveError, finish_leaving, forget_leaving};
use graticule_model::{Key, Kind, Resource, labels};
use graticule_runtime::Clock;

use crate::support::*;

fn is_copy(name: &'static str) -> impl Fn(&[Arc<Resource>]) -> bool {
    move |all| {
        all.iter().any(|r| {
            r.kind() == Kind::MeshTimeout && r.meta.display_name() == name && !r.meta.is_local_to_zone()
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_leaves_and_joins_again() {
    let clock = Clock::system();
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    put(&global.stores.config, mk("{type: Mesh, name: default}")).await;
    put(&global.stores.config, mk_timeout("shared")).await;
    let mut zone = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    until(&zone.stores.config, "the copy", is_copy("shared")).await;
    let fates = zone.federation.fates_of_leaving("east", &zone.stores);
    assert!(fates.iter().any(|fate| fate.becomes.as_deref() == Some("shared")), "{fates:?}");
    assert!(zone.link.borrow().synced, "a look changes nothing");

    // While it leaves, global writes on.
    let writes = async {
        for n in 0..200 {
            put(&global.stores.config, mk_timeout(&format!("busy-{n}"))).await;
            tokio::task::yield_now().await;
        }
    };
    let (left, ()) = tokio::join!(zone.federation.leave("east", &zone.stores, &clock), writes);
    assert!(!left.unwrap().is_empty());
    linked(&mut zone, "it has left", |link| link.left && link.connected_since.is_none()).await;
    until_true("global sees it go", || !global.server.peer_report("east").unwrap().online).await;
    let all: Vec<Arc<Resource>> = zone.stores.config.snapshot().iter().cloned().collect();
    assert!(all.iter().all(|r| r.meta.is_local_to_zone()), "{all:?}");
    assert!(has(Kind::MeshTimeout, "shared")(&all));
    put(&global.stores.config, mk_timeout("afterwards")).await;
    assert!(zone.federation.leave("east", &zone.stores, &clock).await.unwrap().is_empty(), "once");
    assert!(zone.federation.report("east", &zone.stores).last_error.unwrap().contains("has left"));

    // Another start with the old settings does not connect either.
    let stores = zone.stores.clone();
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}
    let mut zone = mk_zone("east", &global, stores.clone(), "token-east");
    linked(&mut zone, "it stays away", |link| link.left).await;
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}
    assert!(matches!(zone.federation.leave("east", &stores, &clock).await, Err(LeaveError::Elsewhere)));

    // It stands alone for a while, then it joins again: global's copies are copies again, once.
    finish_leaving("east", &stores, &clock).await;
    // A replica that has the old settings still leads once more: it stays away as well.
    let mut zone = mk_zone("east", &global, stores.clone(), "token-east");
    linked(&mut zone, "it stays away", |link| link.left).await;
    assert!(zone.federation.has_left());
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}
    assert!(forget_leaving(&stores, &clock).await.unwrap());
    let mut zone = mk_zone("east", &global, stores.clone(), "token-east");
    linked(&mut zone, "synced again", |link| link.synced).await;
    until(&stores.config, "the copy is back", is_copy("shared")).await;
    until(&stores.config, "what came meanwhile", is_copy("afterwards")).await;
    let snapshot = stores.config.snapshot();
    let shared = snapshot.list(Kind::MeshTimeout, None).filter(|r| r.meta.display_name() == "shared");
    assert_eq!(shared.count(), 1);
    assert!(snapshot.iter().all(|r| r.meta.label(labels::FROM_GLOBAL).is_none()), "nothing is left over");
    assert_eq!(zone.federation.report("east", &stores).protection.state, "clear");
    assert!(snapshot.contains(&Key::new(Kind::Mesh, "", "default")));
    zone.stop.drain();
}
