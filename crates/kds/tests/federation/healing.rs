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

/// The store of a zone says which revision of global it has all of, also when nobody is connected.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_knows_the_revision_that_it_contains() {
    let global = mk_global(mk_stores(), GlobalOptions::default(), None, 0).await;
    let mut zone = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut zone, "synced", |link| link.synced).await;
    for name in ["a", "b"] {
        let mut feed = zone.stores.config.watch(Some(zone.stores.config.snapshot().revision()));
        let txn = graticule_store::Txn::default().and_put(mk_timeout(name), graticule_store::Expect::Absent);
        let written = global.stores.config.commit(txn).await.unwrap().revision.0;
        // What it has of that revision, and that it has it, is one batch.
        let batch = loop {
            let event = tokio::time::timeout(DEADLINE, feed.next()).await.unwrap();
            let Some(Event::Batch(batch)) = event else { panic!("the store is open") };
            if batch.changes.iter().any(|change| change.key.kind == Kind::MeshTimeout) {
                break batch;
            }
        };
        let record = Key::new(Kind::Config, "", "graticule-global-revision");
        let record = batch.changes.iter().find(|change| change.key == record).unwrap().new.clone().unwrap();
        let text = record.spec_as::<graticule_model::kinds::config::Config>().unwrap().config.clone();
        assert!(text.parse::<u64>().unwrap() >= written, "{text} {written}");
        let taken = || zone.federation.report("east", &zone.stores).global_revision_taken;
        until_true("it says so", || taken() >= Some(written)).await;
    }
    let wanted = zone.federation.report("east", &zone.stores).global_revision_taken;
    zone.stop.drain();
    while zone.tasks.join_next().await.is_some() {}
    let later = graticule_kds::net::FederationLink::default().report("east", &zone.stores);
    assert!(later.global_revision_taken.is_some() && later.global_revision_taken <= wanted);
    assert_eq!(later.revision, None);
    let new = graticule_kds::net::FederationLink::default().report("east", &mk_stores());
    assert_eq!(new.global_revision_taken, None, "it does not claim what it does not know");
}

/// Labels that are not to leave stay, on both ways.
#[tokio::test(flavor = "multi_thread")]
async fn labels_with_prefixes_stay_at_home() {
    let skip = || vec!["internal.example/".to_owned()];
    let options = GlobalOptions { skip_label_prefixes: skip(), ..GlobalOptions::default() };
    let global = mk_global(mk_stores(), options, None, 0).await;
    let labelled = |name: &str| {
        let mut policy = mk_timeout(name);
        for label in ["internal.example/owner", "example/owner"] {
            policy.meta.labels.insert(label.into(), "a".into());
        }
        policy
    };
    put(&global.stores.config, labelled("down")).await;
    let port = global.address.port();
    let zone = mk_zone_with("east", &global, port, mk_stores(), "east-1", |options| {
        options.skip_label_prefixes = skip();
    });
    put(&zone.stores.config, labelled("up")).await;
    for (stores, name) in [(&zone.stores, "down"), (&global.stores, "up")] {
        until(&stores.config, name, |all| {
            all.iter().any(|r| {
                r.meta.display_name() == name
                    && r.meta.label("internal.example/owner").is_none()
                    && r.meta.label("example/owner") == Some("a")
            })
        })
        .await;
    }
    zone.stop.drain();
}
