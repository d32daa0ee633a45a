//! Two control planes with the name of one zone.

use std::time::Duration;

use graticule_kds::net::GlobalOptions;
use graticule_model::{Key, Kind};

use crate::support::*;

/// Dead connections are noticed within 1 s, names are reserved for 2 s.
fn quick() -> GlobalOptions {
    GlobalOptions {
        keep_alive: Duration::from_millis(500),
        name_reserved_for: Duration::from_secs(2),
        ..GlobalOptions::default()
    }
}

fn was_refused(zone: &ZoneCp, text: &str) -> bool {
    zone.link.borrow().last_error.as_ref().is_some_and(|error| error.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_zone_of_the_same_name_is_refused() {
    let global = mk_global(mk_stores(), quick(), None, 0).await;
    let port = global.address.port();
    let mut first = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut first, "first synced", |link| link.synced).await;
    put(&first.stores.config, mk_timeout("of-first")).await;
    let of_first = |all: &[_]| {
        all.iter().any(|r: &std::sync::Arc<graticule_model::Resource>| r.meta.display_name() == "of-first")
    };
    until(&global.stores.config, "policy of the first", of_first).await;

    let mut second = mk_zone_with("east", &global, port, mk_stores(), "east-b", |_| {});
    linked(&mut second, "second refused", |link| {
        link.last_error.as_ref().is_some_and(|error| {
            error.contains("AlreadyExists")
                && error.contains("east-1")
                && error.contains("multizone.zone.name")
        })
    })
    .await;
    // So is one that shows no identity.
    let mut stock =
        mk_zone_with("east", &global, port, mk_stores(), "", |options| options.keeps_identity = false);
    linked(&mut stock, "third refused", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("AlreadyExists"))
    })
    .await;
    let conflict = global.server.report("east").unwrap().conflict.expect("global tells about it");
    assert!(conflict.reason.contains("east-1") && conflict.address == "127.0.0.1", "{conflict:?}");

    // The first one has lost nothing, and still gets changes.
    assert!(
        first.link.borrow().synced && first.link.borrow().last_error.is_none(),
        "{:?}",
        first.link.borrow()
    );
    put(&global.stores.config, mk_timeout("timeout-all")).await;
    let policy = has(Kind::MeshTimeout, "timeout-all-2wbxwvfffv2z82fc");
    until(&first.stores.config, "policy", &policy).await;
    assert!(of_first(&global.stores.config.snapshot().iter().cloned().collect::<Vec<_>>()));
    assert!(
        second.stores.config.snapshot().list(Kind::MeshTimeout, None).next().is_none(),
        "nothing was told"
    );

    // Its name waits for it while it restarts, however often the others ask.
    let stores = first.stores.clone();
    first.stop.drain();
    while first.tasks.join_next().await.is_some() {}
    linked(&mut second, "reserved", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("belongs to a control plane that left"))
    })
    .await;
    let mut again = mk_zone_with("east", &global, port, stores, "east-2", |_| {});
    linked(&mut again, "first is back", |link| link.synced).await;
    linked(&mut second, "held again", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("east-2"))
    })
    .await;

    // When it is gone for good, the name goes to whoever asks for it.
    again.stop.drain();
    stock.stop.drain();
    while again.tasks.join_next().await.is_some() {}
    linked(&mut second, "takes over", |link| link.synced).await;
    let conflict = global.server.report("east").unwrap().conflict;
    assert!(conflict.is_none_or(|conflict| conflict.instance != "east-b"), "it is no rival any more");
    second.stop.drain();
    global.stop.drain();
}

/// The old connection is dead, but neither end knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_gets_in_beside_its_own_dead_connection() {
    for (keeps_identity, what) in [(true, "the same zone"), (false, "a stock zone")] {
        let patient = GlobalOptions {
            // A zone with an identity need not wait for this.
            keep_alive: if keeps_identity { Duration::from_secs(300) } else { Duration::from_millis(500) },
            ..GlobalOptions::default()
        };
        let global = mk_global(mk_stores(), patient, None, 0).await;
        let port = global.address.port();
        let relay = Relay::to(port).await;
        let stores = mk_stores();
        let identity =
            |options: &mut graticule_kds::net::ZoneOptions| options.keeps_identity = keeps_identity;
        let mut old = mk_zone_with("east", &global, relay.port, stores.clone(), "east-1", identity);
        linked(&mut old, what, |link| link.synced).await;
        relay.fall_silent();

        let mut new = mk_zone_with("east", &global, port, stores, "east-2", identity);
        linked(&mut new, what, |link| link.synced).await;
        assert!(!was_refused(&new, "AlreadyExists"), "{what}: {:?}", new.link.borrow());
        put(&global.stores.config, mk_timeout("timeout-all")).await;
        until(&new.stores.config, what, has(Kind::MeshTimeout, "timeout-all-2wbxwvfffv2z82fc")).await;
        old.stop.drain();
        old.stop.force();
        new.stop.drain();
        global.stop.drain();
    }
}

/// A copy of a zone's disk runs beside the zone: one of the two works, and it stays the same one.
#[tokio::test(flavor = "multi_thread")]
async fn copies_of_one_zone_do_not_throw_each_other_out() {
    let global = mk_global(mk_stores(), quick(), None, 0).await;
    let port = global.address.port();
    let stores = mk_stores();
    let mut original = mk_zone_with("east", &global, port, stores.clone(), "east-1", |_| {});
    linked(&mut original, "original synced", |link| link.synced).await;
    let mut copy = mk_zone_with("east", &global, port, stores, "east-2", |_| {});
    linked(&mut copy, "copy synced", |link| link.synced).await;
    linked(&mut original, "original refused", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("east-2"))
    })
    .await;
    assert!(copy.link.borrow().synced && copy.link.borrow().last_error.is_none());
    original.stop.drain();
    copy.stop.drain();
}

/// The identity of a zone survives a restart of global, and goes with the Zone.
#[tokio::test(flavor = "multi_thread")]
async fn global_remembers_whose_name_it_is() {
    let stores = mk_stores();
    let global = mk_global(stores.clone(), quick(), None, 0).await;
    let mut first = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut first, "first synced", |link| link.synced).await;
    global.stop.drain();
    global.stop.force();
    first.stop.drain();
    first.stop.force();
    while first.tasks.join_next().await.is_some() {}

    let global = mk_global(stores.clone(), quick(), None, 0).await;
    let port = global.address.port();
    let mut second = mk_zone_with("east", &global, port, mk_stores(), "east-b", |_| {});
    linked(&mut second, "reserved", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("belongs to a control plane that left"))
    })
    .await;
    let identity = Key::new(Kind::Config, "", "graticule-zone-identity.east");
    assert!(stores.config.snapshot().get(&identity).is_some());
    delete(&stores.config, Key::new(Kind::Zone, "", "east")).await;
    until(&stores.config, "the Zone is there again, for the second", |all| {
        all.iter().any(|r| r.key() == identity) && all.iter().any(|r| r.kind() == Kind::Zone)
    })
    .await;
    linked(&mut second, "second synced", |link| link.synced).await;
    second.stop.drain();
    global.stop.drain();
}
