//! From the store to what a connected proxy is sent, in real tasks on simulated time.

use graticule_model::kinds::mesh_identity::DEFAULT_EXPIRY;
use graticule_model::yaml;
use graticule_runtime::DrainSignal;
use graticule_store::status::{Grouping, SharedStatus};
use graticule_store::{Expect, MemoryStore, Txn, Write};
use graticule_view::derive::{AuthorityRequest, AuthoritySource};

use super::*;
use crate::Insights;
use crate::authorities::Provided;

const MESH: &str = "{type: Mesh, name: default}";
const DATAPLANE: &str = "{type: Dataplane, mesh: default, name: echo-1, labels: {kuma.io/workload: echo}, \
    networking: {address: 10.0.0.1, inbound: [{port: 8080, name: http, protocol: http}]}}";
const TIMEOUT: &str = "{type: MeshTimeout, mesh: default, name: t, \
    spec: {rules: [{default: {connectionTimeout: 7s}}]}}";
const IDENTITY: &str = "{type: MeshIdentity, mesh: default, name: everyone, \
    spec: {selector: {dataplane: {matchLabels: {}}}, provider: {type: Bundled, bundled: \
    {insecureAllowSelfSigned: true, autogenerate: {enabled: true}}}}, \
    status: {conditions: [{type: Ready, status: 'True', reason: Ready}]}}";

type Snapshots = watch::Receiver<Option<Arc<EnvoySnapshot>>>;

struct Zone {
    store: Arc<MemoryStore>,
    engine: EngineHandle,
    clock: Clock,
    _drain: DrainSignal,
}

fn mk_zone() -> Zone {
    let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().expect("a time"));
    let store = Arc::new(MemoryStore::new({
        let clock = clock.clone();
        move || clock.now()
    }));
    let status = SharedStatus::new("a", Grouping::Proxy, || Timestamp::UNIX_EPOCH);
    let (insights, insights_handle) = Insights::new(status, clock.clone(), "instance".into());
    let (engine, handle) = Engine::new(
        EngineSettings { zone: ZoneSettings::new("east") },
        store.clone(),
        Observations::default(),
        insights_handle,
        Authorities::default(),
        clock.clone(),
        Random::seeded(1),
    );
    let (signal, drain) = Drain::new();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move { tokio::join!(engine.run(drain.clone()), insights.run(drain)) });
    Zone { store, engine: handle, clock, _drain: signal }
}

fn id() -> ProxyId {
    ProxyId::new("default", "echo-1")
}

impl Zone {
    fn put(&self, text: &str) {
        let value = yaml::parse_one(text).expect("yaml");
        let kind = Kind::from_name(value["type"].as_str().expect("a type")).expect("a kind");
        let resource = Resource::from_rest(kind, &value).expect("well-formed");
        let put = Write::Put { resource: Box::new(resource), expect: Expect::Any, touch: false };
        self.store.commit_now(Txn { at: None, writes: vec![put] }).expect("stored");
    }

    /// What the generators do for a MeshIdentity: a new authority in two Secrets.
    fn make_authority(&self, seed: u64) {
        let secret = |name: &str| Key::new(Kind::Secret, "default", name);
        let request = AuthorityRequest {
            identity: Key::new(Kind::MeshIdentity, "default", "everyone"),
            trust_domain: "default.east.mesh.local".into(),
            source: AuthoritySource::Generated {
                certificate: secret("everyone-root-ca"),
                private_key: secret("everyone-private-key"),
            },
        };
        let provided = Authorities::default().provide(&request, self.clock.now(), &Random::seeded(seed));
        let Provided::Store(mut txn) = provided else { panic!("a generated authority is stored") };
        for write in &mut txn.writes {
            if let Write::Put { expect, .. } = write {
                *expect = Expect::Any;
            }
        }
        self.store.commit_now(txn).expect("stored");
    }

    async fn connect(&self, stream: &str) -> Snapshots {
        let connected = self.engine.connect(id(), StreamId(stream.into()), NodeFacts::default()).await;
        connected.expect("the engine runs")
    }

    /// Everything committed so far is published: the engine takes the feed before it answers.
    async fn settle(&self) {
        let _shown = self.engine.inspect(id()).await;
        let _shown = self.engine.inspect(id()).await;
    }
}

async fn next(snapshots: &mut Snapshots) -> Arc<EnvoySnapshot> {
    snapshots.wait_for(Option::is_some).await.expect("the engine runs");
    snapshots.borrow_and_update().clone().expect("waited for")
}

async fn changed(snapshots: &mut Snapshots) -> Arc<EnvoySnapshot> {
    snapshots.changed().await.expect("the engine runs");
    snapshots.borrow_and_update().clone().expect("is never taken back")
}

#[tokio::test(start_paused = true)]
async fn what_differs_is_published_and_nothing_else() {
    let zone = mk_zone();
    zone.put(MESH);
    zone.put(DATAPLANE);
    let mut snapshots = zone.connect("s1").await;
    let first = next(&mut snapshots).await;
    assert!(!first.listeners.is_empty());

    zone.put(TIMEOUT);
    let second = changed(&mut snapshots).await;
    assert_ne!((&first.clusters, &first.listeners), (&second.clusters, &second.listeners));
    assert!(second.revision > first.revision);

    zone.put(&TIMEOUT.replace("name: t,", "name: u, labels: {note: same},"));
    zone.put("{type: Mesh, name: other}");
    zone.settle().await;
    assert!(!snapshots.has_changed().expect("the engine runs"), "nothing that Envoy sees differs");
}

#[tokio::test(start_paused = true)]
async fn certificates_outlive_streams_and_follow_authority_and_time() {
    let zone = mk_zone();
    zone.put(MESH);
    zone.put(IDENTITY);
    zone.put(DATAPLANE);
    zone.make_authority(1);
    let mut snapshots = zone.connect("s1").await;
    let first = next(&mut snapshots).await;
    assert!(!first.secrets.is_empty(), "a certificate was issued");

    zone.engine.disconnect(id(), StreamId("s1".into())).await;
    let mut snapshots = zone.connect("s2").await;
    let again = next(&mut snapshots).await;
    assert_eq!(first.secrets, again.secrets, "a reconnect sends nothing new");

    zone.make_authority(2);
    let reissued = changed(&mut snapshots).await;
    assert_ne!(again.secrets, reissued.secrets, "the authority is another one");

    let before = zone.clock.now();
    let rotated = changed(&mut snapshots).await;
    assert_ne!(reissued.secrets, rotated.secrets);
    let age = Duration::try_from(zone.clock.now().duration_since(before)).expect("time goes forward");
    let life = DEFAULT_EXPIRY.to_std();
    assert!(age > life / 2 && age < life, "rotated after {age:?}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_without_dataplane_costs_nothing() {
    let zone = mk_zone();
    zone.put(MESH);
    zone.put(IDENTITY);
    zone.put(DATAPLANE);
    zone.make_authority(1);
    let mut snapshots = zone.connect("s1").await;
    next(&mut snapshots).await;
    let gone = Write::Delete { key: id().key(), expect: Expect::Any };
    zone.store.commit_now(Txn { at: None, writes: vec![gone] }).expect("stored");
    zone.settle().await;
    // Its certificate is due, and there is nothing to renew it for: time must still pass.
    zone.clock.sleep(2 * DEFAULT_EXPIRY.to_std()).await;
    assert!(!snapshots.has_changed().expect("the engine runs"), "the last good configuration stays");
}
