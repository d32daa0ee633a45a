//! What is missing or damaged is asked for over the living connection.

use super::*;
use graticule_kds::net::ZoneOptions;

fn secret(origin: &str, data: &str) -> Resource {
    mk(&format!("{{type: Secret, mesh: default, name: x, labels: {{{origin}}}, data: {data}}}"))
}

/// Somebody damages copies at both ends; the next comparison finds and repairs them, and nothing else is disturbed.
#[tokio::test(flavor = "multi_thread")]
async fn damage_ends_no_connection() {
    let often = Duration::from_millis(300);
    let global =
        mk_global(mk_stores(), GlobalOptions { audit_interval: often, ..GlobalOptions::default() }, None, 0)
            .await;
    put(&global.stores.config, mk_timeout("a")).await;
    let change = |options: &mut ZoneOptions| options.audit_interval = often;
    let mut zone = mk_zone_with("east", &global, global.address.port(), mk_stores(), "east-1", change);
    linked(&mut zone, "synced", |link| link.synced).await;
    put(&zone.stores.config, mk_timeout("own")).await;
    until(&global.stores.config, "own", |all| all.iter().any(|r| r.meta.display_name() == "own")).await;
    let since = zone.link.borrow().connected_since;
    for (stores, name) in [(&zone.stores, "a"), (&global.stores, "own")] {
        let snapshot = stores.config.snapshot();
        let mut copies = snapshot.list(Kind::MeshTimeout, None);
        let copy = copies.find(|r| r.meta.display_name() == name).unwrap();
        delete(&stores.config, copy.key()).await;
        until(&stores.config, "it is there again", |all| all.iter().any(|r| r.key() == copy.key())).await;
    }
    let link = zone.link.borrow().clone();
    assert_eq!((link.connected_since, link.last_error, link.synced), (since, None, true));
    zone.stop.drain();
}

/// A local Secret keeps global's of the same name out; when it goes, global's comes, without anything else happening.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_comes_when_nothing_is_in_its_way() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    let stores = mk_stores();
    put(&stores.config, secret("kuma.io/origin: zone", "b3du")).await;
    put(&global.stores.config, secret("", "Z2xvYmFs")).await;
    let mut zone = mk_zone("east", &global, stores, "token-east");
    linked(&mut zone, "refused", |link| link.synced && link.peer.refused_here.len() == 1).await;
    let refused = || global.server.peer_report("east").unwrap().quarantine_total;
    until_true("global knows", || refused() == 1).await;
    delete(&zone.stores.config, Key::new(Kind::Secret, "default", "x")).await;
    until(&zone.stores.config, "global's", |all| {
        all.iter().any(|r| r.kind() == Kind::Secret && r.meta.label("kuma.io/origin") == Some("global"))
    })
    .await;
    linked(&mut zone, "nothing is refused", |link| link.peer.refused_here.is_empty()).await;
    until_true("global knows that, too", || refused() == 0).await;
    assert_eq!(zone.link.borrow().last_error, None);
    zone.stop.drain();
}

/// What cannot be sent to anybody is in the report of every zone.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_offered_is_reported() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    put(&global.stores.config, mk("{type: GlobalSecret, name: zone-token-signing-key-1, data: aGVsbG8=}"))
        .await;
    let mut zone = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    until_true("it is counted", || {
        let report = global.server.peer_report("east").unwrap();
        report.kinds.iter().any(|kind| kind.kind == "GlobalSecret" && kind.quarantined == 1)
    })
    .await;
    let report = global.server.peer_report("east").unwrap();
    assert_eq!(report.quarantine_total, 1);
    let one = &report.quarantine[0];
    assert_eq!((one.kind.as_str(), one.name.as_str()), ("GlobalSecret", "zone-token-signing-key-1"));
    assert!(one.reason.contains("PEM"), "{}", one.reason);
    zone.stop.drain();
}
