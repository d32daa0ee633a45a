//! Streams of one proxy that overlap, and Dataplanes that outlive them.

use bytes::BytesMut;
use graticule_model::Timestamp;
use graticule_runtime::{Random, Supervisor};
use graticule_store::MemoryStore;
use graticule_store::status::{Group, Grouping, SharedStatus};
use graticule_view::ZoneSettings;
use serde_json::json;

use super::*;
use crate::insights::insight_key;
use crate::{Authorities, Engine, EngineSettings, Insights};

const DELAY: Duration = Duration::from_secs(10);

struct Zone {
    proxies: ZoneProxies,
    store: Arc<MemoryStore>,
    clock: Clock,
    status: SharedStatus,
    _supervisor: Supervisor,
}

fn resource(kind: Kind, value: serde_json::Value) -> Resource {
    Resource::from_rest(kind, &value).expect("well-formed")
}

/// A zone with mesh `default`, on a clock that follows tokio's paused time.
fn zone() -> Zone {
    let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().expect("a time"));
    let store = Arc::new(MemoryStore::new({
        let clock = clock.clone();
        move || clock.now()
    }));
    let mesh = resource(Kind::Mesh, json!({"type": "Mesh", "name": "default"}));
    store.commit_now(Txn::put(mesh)).expect("empty store");
    replica(store, clock, "a", false)
}

/// One control plane of a zone over its store.
fn replica(store: Arc<MemoryStore>, clock: Clock, name: &str, has_replicas: bool) -> Zone {
    let supervisor = Supervisor::new(Random::seeded(1));
    let spawner = supervisor.spawner();
    let status = SharedStatus::new(name, Grouping::Proxy, || Timestamp::UNIX_EPOCH);
    let (insights, insights_handle) = Insights::new(status.clone(), clock.clone(), "instance".into());
    let observations = Observations::default();
    let (engine, engine_handle) = Engine::new(
        EngineSettings { zone: ZoneSettings::new("west") },
        store.clone(),
        observations.clone(),
        insights_handle.clone(),
        Authorities::default(),
        clock.clone(),
        Random::seeded(2),
    );
    spawner.best_effort("engine", engine.run(spawner.drain()));
    spawner.best_effort("insights", insights.run(spawner.drain()));
    let settings = ProxySettings {
        mode: Mode::FederatedZone,
        zone: "west".into(),
        deregistration_delay: DELAY,
        has_replicas,
        meshes: vec!["default".into()],
    };
    let proxies = ZoneProxies::new(
        settings,
        store.clone(),
        engine_handle,
        observations,
        insights_handle,
        spawner,
        clock.clone(),
    );
    Zone { proxies, store, clock, status, _supervisor: supervisor }
}

fn id() -> ProxyId {
    ProxyId::new("default", "echo-1")
}

/// A proxy that registers itself; without inbounds, so nobody asks whether its ports still answer.
fn hello() -> Hello {
    let dataplane = resource(
        Kind::Dataplane,
        json!({"type": "Dataplane", "mesh": "default", "name": "echo-1", "networking": {"address": "127.0.0.1"}}),
    );
    Hello {
        id: id(),
        node: graticule_policy::NodeFacts::default(),
        metadata: serde_json::Map::new(),
        dataplane: Some(dataplane),
        resumes: false,
    }
}

fn stream(id: &str) -> StreamId {
    StreamId(id.into())
}

/// New ones are refused; one whose Dataplane is there is served until it goes.
#[tokio::test]
async fn proxies_of_meshes_that_the_zone_takes_no_part_in() {
    let zone = zone();
    zone.store
        .commit_now(Txn::put(resource(Kind::Mesh, json!({"type": "Mesh", "name": "other"}))))
        .expect("stored");
    let brought = || {
        let mut dataplane = hello().dataplane.expect("it brings one");
        dataplane.meta.mesh = "other".into();
        dataplane
    };
    let hello = || Hello { id: ProxyId::new("other", "echo-1"), dataplane: Some(brought()), ..hello() };
    let refused = zone.proxies.connect(hello(), &stream("1")).await.err();
    let Some(ConnectError::Refused(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("multizone.zone.meshes"), "{reason}");
    assert!(!zone.store.snapshot().contains(&hello().id.key()));
    zone.store.commit_now(Txn::put(brought())).expect("stored");
    assert!(zone.proxies.connect(hello(), &stream("2")).await.is_ok());
}

impl Zone {
    async fn connect(&self, name: &str) -> Snapshots {
        self.proxies.connect(hello(), &stream(name)).await.expect("connects")
    }

    fn is_stored(&self) -> bool {
        self.store.snapshot().contains(&id().key())
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_late_leaves_the_next_one_alone() {
    let zone = zone();
    let mut first = zone.connect("first").await;
    first.wait_for(Option::is_some).await.expect("a snapshot");

    zone.proxies.disconnected(&id(), &stream("first"), End::Client);
    let second = zone.connect("second").await;
    zone.clock.sleep(DELAY * 2).await;

    assert!(second.has_changed().is_ok(), "the engine gave up the proxy");
    assert!(zone.is_stored());
    assert_eq!(zone.proxies.0.observations.serving(&id()), Serving::Starting);
    assert!(zone.proxies.0.observations.state().connected.contains(&id()));
}

/// The control plane was started anew; its proxies serve all the time, and come back one after the other.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_resumes_after_a_restart_stays_an_endpoint() {
    for (resumes, after) in [(true, Serving::Unknown), (false, Serving::Starting)] {
        let Zone { store, clock, .. } = zone();
        let earlier = replica(store.clone(), clock.clone(), "a", false);
        let _first = earlier.connect("first").await;
        drop(earlier);
        let now = replica(store, clock, "a", false);
        assert_eq!(now.proxies.0.observations.serving(&id()), Serving::Unknown, "judged by its Dataplane");
        let back = Hello { resumes, ..hello() };
        let _snapshots = now.proxies.connect(back, &stream("second")).await.expect("connects");
        assert_eq!(now.proxies.0.observations.serving(&id()), after);
        now.proxies.event(&id(), &stream("second"), Event::Serving);
        assert_eq!(now.proxies.0.observations.serving(&id()), Serving::Serving);
    }
}

/// Two replicas of one zone.
fn replicas() -> (Zone, Zone) {
    let Zone { store, clock, .. } = zone();
    let first = replica(store.clone(), clock.clone(), "a", true);
    (first, replica(store, clock, "b", true))
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_went_to_another_replica_stays() {
    let (a, b) = replicas();
    let _at_a = a.connect("first").await;
    a.proxies.disconnected(&id(), &stream("first"), End::Client);
    let _at_b = b.connect("second").await;
    a.clock.sleep(DELAY * 2).await;
    assert!(a.is_stored(), "a removed what b has");
    assert_eq!(a.proxies.0.observations.serving(&id()), Serving::Unknown);

    // It comes back to the first replica, whose earlier knowledge is of no use, and then ends.
    b.proxies.disconnected(&id(), &stream("second"), End::Client);
    let _again = a.connect("third").await;
    a.clock.sleep(DELAY * 2).await;
    assert!(a.is_stored(), "b removed what a has");
    a.proxies.disconnected(&id(), &stream("third"), End::Client);
    a.clock.sleep(DELAY * 2).await;
    assert!(!a.is_stored(), "nobody removed what nobody has");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_goes_to_and_fro_stays() {
    let (a, b) = replicas();
    let _at_a = a.connect("first").await;
    a.proxies.disconnected(&id(), &stream("first"), End::Client);
    let _at_b = b.connect("second").await;
    b.proxies.disconnected(&id(), &stream("second"), End::Client);
    // Within the delay: the first replica still remembers it.
    let _again = a.connect("third").await;
    a.clock.sleep(DELAY * 2).await;
    assert!(a.is_stored(), "b removed what a has");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_is_back_elsewhere_is_not_lost() {
    let (a, b) = replicas();
    let (signal, drain) = Drain::new();
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    let looking = tokio::spawn(a.proxies.clone().look_for_found(drain));
    let _at_a = a.connect("first").await;
    a.proxies.0.observations.set_serving(&id(), Serving::Gone);
    let _at_b = b.connect("second").await;
    let mut changes = a.proxies.0.observations.changes();
    while a.proxies.0.observations.serving(&id()) == Serving::Gone {
        changes.changed().await.expect("observations last");
    }
    signal.drain();
    looking.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn other_replicas_hear_of_a_drain() {
    let (a, b) = replicas();
    let ready = |zone: &Zone| {
        let stored = zone.proxies.dataplane(&id()).expect("stored");
        stored.spec_as::<Dataplane>().expect("a Dataplane").networking().inbound[0].is_ready()
    };
    let hello = || {
        let inbound = json!([{"port": 1, "tags": {"kuma.io/service": "echo"}}]);
        let dataplane = resource(
            Kind::Dataplane,
            json!({"type": "Dataplane", "mesh": "default", "name": "echo-1",
                "networking": {"address": "127.0.0.1", "inbound": inbound}}),
        );
        Hello { dataplane: Some(dataplane), ..hello() }
    };
    let _at_a = a.proxies.connect(hello(), &stream("first")).await.expect("connects");
    assert!(ready(&b));
    a.proxies.drain(&id()).await.expect("drains");
    assert!(!ready(&b), "the other replica sends it traffic");

    // It comes back elsewhere; what the first replica thinks of it is of no interest any more.
    let _at_b = b.proxies.connect(hello(), &stream("second")).await.expect("connects");
    assert!(ready(&a));
    a.proxies.withdraw(&id()).await;
    assert!(ready(&a), "a spoke for a proxy that b has");
    a.proxies.disconnected(&id(), &stream("first"), End::Client);
    a.clock.sleep(DELAY * 2).await;
    assert!(a.is_stored() && ready(&b));
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_registered_goes_when_it_does_not_come_back() {
    let zone = zone();
    let snapshots = zone.connect("first").await;
    zone.proxies.disconnected(&id(), &stream("first"), End::Client);
    zone.clock.sleep(DELAY / 2).await;
    assert!(zone.is_stored(), "too early");
    assert!(snapshots.has_changed().is_err(), "the engine still works for a proxy that is gone");

    zone.clock.sleep(DELAY).await;
    assert!(!zone.is_stored());
    assert!(!zone.proxies.0.observations.state().connected.contains(&id()));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_keeps_what_proxies_registered() {
    let zone = zone();
    let _snapshots = zone.connect("first").await;
    zone.proxies.disconnected(&id(), &stream("first"), End::Shutdown);
    zone.clock.sleep(DELAY * 2).await;
    assert!(zone.is_stored());
}

#[tokio::test(start_paused = true)]
async fn proxies_of_an_earlier_run_that_are_gone_are_no_endpoints() {
    let zone = zone();
    // A port that refuses connections, and one that is listened on.
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("bound").port();
    for (name, port) in [("gone", free), ("serving", taken), ("back", free)] {
        let inbound = json!([{"port": port, "tags": {"kuma.io/service": "echo"}}]);
        let dataplane = resource(
            Kind::Dataplane,
            json!({"type": "Dataplane", "mesh": "default", "name": name,
                "networking": {"address": "127.0.0.1", "inbound": inbound}}),
        );
        zone.store.commit_now(Txn::put(dataplane)).expect("stored");
    }
    let back = Hello { id: ProxyId::new("default", "back"), dataplane: None, ..hello() };
    zone.proxies.connect(back, &stream("first")).await.expect("connects");
    zone.proxies.mark_lost().await;
    let serving = |name| zone.proxies.0.observations.serving(&ProxyId::new("default", name));
    assert_eq!(serving("gone"), Serving::Gone);
    assert_eq!(serving("serving"), Serving::Unknown);
    assert_ne!(serving("back"), Serving::Gone);
}

/// Tells one replica everything that the other observes.
async fn tell(from: &Zone, to: &Zone) {
    let frame = from.status.frames().next().await.expect("everything is one frame");
    to.status.take(&mut BytesMut::from(&frame[..])).expect("a frame");
}

/// Waits until a proxy's stream is known.
async fn until_observed(zone: &Zone) {
    let group = Group::proxy(&insight_key(&id()));
    let mut feed = zone.status.shown().watch(None);
    while !zone.status.is_live(&group) {
        feed.next().await.expect("the feed lasts");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_of_a_lost_replica_registered_goes_when_it_does_not_come_back() {
    for (back, wanted) in [(None, false), (Some("b"), true)] {
        let (a, b) = replicas();
        let (signal, drain) = Drain::new();
        #[expect(clippy::disallowed_methods, reason = "joined below")]
        let looking = tokio::spawn(b.proxies.clone().look_for_orphans(b.status.clone(), drain));
        let _at_a = a.connect("first").await;
        until_observed(&a).await;
        tell(&a, &b).await;
        b.status.gone(&a.status.observer(), b.clock.now());
        b.status.adopt();
        assert_eq!(b.status.orphans().len(), 1);
        let _at_b = match back {
            Some(_) => Some(b.connect("second").await),
            None => None,
        };
        b.clock.sleep(DELAY / 2).await;
        assert!(b.is_stored(), "too early");
        b.clock.sleep(DELAY * 2).await;
        assert!(b.is_stored(), "no answer from its address proves nothing yet");
        b.clock.sleep(orphans::SILENT_FOR + DELAY).await;
        assert_eq!(b.is_stored(), wanted);
        assert_eq!(b.status.shown().snapshot().contains(&insight_key(&id())), wanted);
        signal.drain();
        looking.await.expect("it ends");
    }
}

#[tokio::test(start_paused = true)]
async fn connected_elsewhere_is_connected() {
    let (a, b) = replicas();
    let (signal, drain) = Drain::new();
    let observations = b.proxies.0.observations.clone();
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    let following = tokio::spawn(observations.clone().follow_others(b.status.clone(), drain));
    let mut changes = observations.changes();
    let _at_a = a.connect("first").await;
    until_observed(&a).await;
    tell(&a, &b).await;
    while !observations.state().elsewhere.contains(&id()) {
        changes.changed().await.expect("observations last");
    }
    b.status.gone(&a.status.observer(), b.clock.now());
    while observations.state().elsewhere.contains(&id()) {
        changes.changed().await.expect("observations last");
    }
    // A proxy of this replica is none of others.
    let _at_b = b.connect("second").await;
    until_observed(&b).await;
    assert!(
        !observations.state().elsewhere.contains(&id()) && observations.state().connected.contains(&id())
    );
    signal.drain();
    following.await.expect("it ends");
}
