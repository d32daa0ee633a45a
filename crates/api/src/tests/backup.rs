//! Backups over REST: what is saved comes back, what cannot be used changes nothing.

use graticule_model::kinds::config::{CLUSTER_ID, Config};
use graticule_model::kinds::secret::Secret;
use graticule_store::seal::Sealer;
use graticule_store::{Expect, Replacement, Revision};

use super::*;

fn sealer() -> Arc<Sealer> {
    Arc::new(Sealer::parse("k MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").expect("a key file"))
}

/// A control plane that has run for a while, from noon of 2026-01-01 on.
struct Site {
    router: Router,
    store: Arc<MemoryStore>,
    hand: graticule_runtime::ClockHand,
}

fn mk_site(mode: Mode, cluster: &str, backups: Backups) -> Site {
    let (clock, hand) = Clock::manual("2026-01-01T12:00:00Z".parse().expect("a time"));
    let now = clock.clone();
    let store = Arc::new(MemoryStore::new(move || now.now()));
    let id = Config { config: cluster.into() };
    let secret = Secret { data: SecretBytes(b"hunter2".to_vec()) };
    let txn = Txn::put(Resource::new(Meta::new("", "default"), Mesh::default()))
        .and_put(Resource::new(Meta::new("", CLUSTER_ID), id), Expect::Any)
        .and_put(Resource::new(Meta::new("default", "s"), secret), Expect::Any);
    store.commit_now(txn).expect("stored");
    let deps = Deps {
        store: store.clone(),
        soft: Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH)),
        mode,
        zone: if mode.is_global() { String::new() } else { "east".into() },
        clock,
        random: Random::seeded(1),
        instance: Instance::default(),
        config: Value::Null,
        mesh_setup: MeshSetup::default(),
        inspector: Arc::new(NoInspector),
        admin: Arc::new(NoEnvoyAdmin),
        cluster: crate::NoCluster::shared(),
        federation: crate::NoFederation::shared(),
        backups,
    };
    Site { router: Api::new(Options::default(), deps), store, hand }
}

impl Site {
    async fn call(
        &self,
        from: &str,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> (u16, http::HeaderMap, Vec<u8>) {
        let address = format!("{from}:40000").parse().expect("an address");
        let peer = Peer { address, local: "127.0.0.1:5681".parse().expect("an address"), tls: false };
        let request = Request::builder().method(method).uri(path).header("host", "localhost:5681");
        let request = request.extension(peer).body(Body::from(body)).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.into_body().collect().await.expect("a body").to_bytes().to_vec())
    }

    async fn save(&self) -> Vec<u8> {
        let (status, _, file) = self.call("127.0.0.1", "GET", "/_backup", Vec::new()).await;
        assert_eq!(status, 200);
        file
    }

    async fn restore(&self, query: &str, file: &[u8]) -> (u16, Value) {
        let (status, _, body) =
            self.call("127.0.0.1", "POST", &format!("/_restore{query}"), file.to_vec()).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    fn put(&self, name: &str) {
        self.store.commit_now(Txn::put(address(name, &[]))).expect("stored");
    }

    fn contents(&self) -> Vec<Arc<Resource>> {
        self.store.snapshot().iter().cloned().collect()
    }
}

#[tokio::test]
async fn what_is_saved_comes_back() {
    let site = mk_site(Mode::Global, "c1", Backups::default());
    site.put("a");
    let (before, revision) = (site.contents(), site.store.snapshot().revision());
    let (status, headers, file) = site.call("127.0.0.1", "GET", "/_backup", Vec::new()).await;
    assert_eq!(status, 200);
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("graticule-revision", "2"),
        ("graticule-origin", "global"),
        ("graticule-plain-secrets", "1"),
    ] {
        assert_eq!(headers.get(name).map(http::HeaderValue::as_bytes), Some(value.as_bytes()), "{name}");
    }
    let (status, answer) = site.restore("", &file).await;
    assert_eq!((status, &answer["changes"], &answer["revision"]), (200, &json!(0), &json!(2)), "{answer}");

    site.hand.advance(std::time::Duration::from_secs(60));
    site.put("b");
    site.store.commit_now(Txn::delete(address("a", &[]).key())).expect("deleted");
    let (status, answer) = site.restore("?dryRun=true", &file).await;
    assert_eq!((status, &answer["changes"]), (200, &json!(2)));
    assert_eq!(answer["needsForce"], "the store is at revision 4, the backup is of revision 2");
    let address_counts =
        json!({"kind": "MeshZoneAddress", "created": 1, "updated": 0, "deleted": 1, "unchanged": 0});
    assert!(answer["kinds"].as_array().expect("kinds").contains(&address_counts), "{answer}");
    let (status, answer) = site.restore("", &file).await;
    assert_eq!((status, &answer["title"]), (409, &json!("Could not restore the backup")), "{answer}");
    assert_eq!(site.store.snapshot().revision(), Revision(4), "nothing was changed");

    let mut feed = site.store.watch(Some(Revision(4)));
    let (status, answer) = site.restore("?force=true", &file).await;
    assert_eq!((status, &answer["revision"]), (200, &json!(5)), "{answer}");
    assert_eq!(site.contents(), before, "versions, times and owners included");
    assert!(matches!(feed.next().await, Some(Event::Resync(s)) if s.revision() == Revision(5)));
    assert!(site.store.snapshot().revision() > revision);
}

#[tokio::test]
async fn a_new_control_plane_takes_any_backup_of_its_kind() {
    let old = mk_site(Mode::Global, "c1", Backups { sealer: sealer(), untouched_at: None });
    old.store
        .replace_all(Replacement { resources: old.contents(), expect: None, above: Revision(500) })
        .await
        .expect("replaced");
    let file = old.save().await;
    assert!(!file.windows(9).any(|part| part == b"aHVudGVyM"), "secrets are encrypted");
    let backups = Backups { sealer: sealer(), untouched_at: Some(Revision(1)) };
    let new = mk_site(Mode::Global, "c2", backups);
    let (status, answer) = new.restore("", &file).await;
    assert_eq!((status, &answer["revision"]), (200, &json!(502)), "{answer}");
    assert_eq!(new.contents(), old.contents());
    // From now on it holds what must not be lost.
    let touched = mk_site(Mode::Global, "c2", Backups { sealer: sealer(), untouched_at: Some(Revision(0)) });
    let (status, answer) = touched.restore("", &file).await;
    assert_eq!(status, 409);
    let detail = answer["detail"].as_str().expect("a reason");
    assert!(detail.contains("of another control plane (its cluster id is c1, this one's c2)"), "{detail}");

    let keyless =
        mk_site(Mode::Global, "c2", Backups { sealer: Arc::default(), untouched_at: Some(Revision(1)) });
    let (status, answer) = keyless.restore("", &file).await;
    let detail = answer["detail"].as_str().expect("a reason");
    assert_eq!(status, 400);
    assert!(
        detail.contains("encrypted with the key \"k\"") && detail.contains("nothing was changed"),
        "{detail}"
    );

    let zone = mk_site(Mode::StandaloneZone, "c1", Backups { sealer: sealer(), untouched_at: None });
    let (status, answer) = zone.restore("?force=true", &file).await;
    let detail = "the backup is of global, and this is zone \"east\"; nothing was changed";
    assert_eq!((status, &answer["detail"]), (400, &json!(detail)));
}

#[tokio::test]
async fn changes_that_are_newer_than_the_backup_are_kept() {
    let old = mk_site(Mode::Global, "c1", Backups::default());
    old.put("a");
    old.put("b");
    let file = old.save().await;
    // Fewer revisions, as after a move to another backend, but a change since.
    let site = mk_site(Mode::Global, "c1", Backups::default());
    site.hand.advance(std::time::Duration::from_secs(60));
    site.put("new");
    let (status, answer) = site.restore("", &file).await;
    let detail = answer["detail"].as_str().unwrap_or_default();
    assert_eq!(status, 409, "{answer}");
    assert!(detail.contains("new") && detail.contains("was changed at 2026-01-01T12:01:00Z"), "{detail}");
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing() {
    let site = mk_site(Mode::Global, "c1", Backups::default());
    let file = site.save().await;
    site.put("later");
    let before = site.store.snapshot();
    let mut damaged = file.clone();
    let middle = file.len() / 2;
    damaged[middle] ^= 1;
    for (query, file, status, says) in [
        ("?force=true", damaged, 400, "damaged at offset"),
        ("?force=true", file[..middle].to_vec(), 400, "the file ends early"),
        ("?force=true", b"kind: Mesh".to_vec(), 400, "this is no backup"),
        ("?force=true", Vec::new(), 400, "this is no backup"),
        ("?force=perhaps", file.clone(), 400, "neither true nor false"),
        ("", file.clone(), 409, "revision"),
    ] {
        let (got, answer) = site.restore(query, &file).await;
        let detail = answer["detail"].as_str().unwrap_or_default();
        assert!(got == status && detail.contains(says), "{says}: {got} {answer}");
        assert_eq!(site.store.snapshot().revision(), before.revision(), "{says}");
    }
}

#[tokio::test]
async fn administrators_only() {
    let site = mk_site(Mode::Global, "c1", Backups::default());
    for (method, path) in [("GET", "/_backup"), ("POST", "/_restore?force=true")] {
        let (status, _, body) = site.call("192.0.2.7", method, path, Vec::new()).await;
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((status, &answer["title"]), (403, &json!("Access Denied")), "{method} {path}");
    }
    let (status, _, _) = site.call("127.0.0.1", "DELETE", "/_backup", Vec::new()).await;
    assert_eq!(status, 405);
}
