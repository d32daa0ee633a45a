use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};

use graticule_model::kinds::dataplane_insight::{DataplaneInsight, DiscoverySubscription};
use graticule_model::kinds::zone::{KdsSubscription, ZoneInsight};
use graticule_model::{Kind, Meta, labels};
use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn insight_key(proxy: &str) -> Key {
    Key::new(Kind::DataplaneInsight, "default", proxy)
}

/// The insight of a proxy with one stream.
fn insight(proxy: &str, stream: &str, is_open: bool) -> Resource {
    let subscription = DiscoverySubscription {
        id: stream.into(),
        connect_time: Some(at(1)),
        disconnect_time: (!is_open).then(|| at(2)),
        ..DiscoverySubscription::default()
    };
    let spec = DataplaneInsight { subscriptions: vec![subscription], ..DataplaneInsight::default() };
    Resource::new(Meta::new("default", proxy), spec)
}

fn put(status: &SharedStatus, resource: Resource) {
    let mut core = status.0.core.lock();
    status.0.commit(&mut core, Txn::put(resource)).expect("no expectations");
}

fn delete(status: &SharedStatus, key: Key) {
    let mut core = status.0.core.lock();
    status.0.commit(&mut core, Txn::delete(key)).expect("no expectations");
}

fn connect(status: &SharedStatus, proxy: &str, stream: &str) {
    status.claim(&Group::proxy(&insight_key(proxy)), true);
    put(status, insight(proxy, stream, true));
}

fn disconnect(status: &SharedStatus, proxy: &str, stream: &str) {
    put(status, insight(proxy, stream, false));
}

/// Proxy → newest stream and whether it is open.
fn shown(status: &SharedStatus) -> BTreeMap<String, (String, bool)> {
    let shown = status.shown().snapshot();
    let all = shown.list(Kind::DataplaneInsight, None).map(|resource| {
        let insight: &DataplaneInsight = resource.spec_as().expect("an insight");
        let newest = insight.subscriptions.last().map(|one| one.id.clone()).unwrap_or_default();
        (resource.meta.name.clone(), (newest, insight.is_online()))
    });
    all.collect()
}

fn mk(observer: &str, grouping: Grouping) -> SharedStatus {
    SharedStatus::new(observer, grouping, || at(100))
}

/// What is ready to be told.
fn next(frames: &mut Frames) -> Option<Bytes> {
    match pin!(frames.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(frame) => frame,
        Poll::Pending => None,
    }
}

/// Long enough for what counts no more to be forgotten.
fn wait(status: &SharedStatus) {
    for _ in 0..core::YIELD_AFTER {
        status.tick();
    }
}

fn deliver(frames: &mut Frames, to: &SharedStatus) {
    while let Some(frame) = next(frames) {
        to.take(&mut BytesMut::from(&frame[..])).expect("a frame");
    }
}

#[test]
fn everybody_shows_what_anybody_observes() {
    let (a, b) = (mk("a", Grouping::Proxy), mk("b", Grouping::Proxy));
    connect(&a, "p", "s1");
    let (mut from_a, mut from_b) = (a.frames(), b.frames());
    connect(&b, "q", "s2");
    deliver(&mut from_a, &b);
    deliver(&mut from_b, &a);
    let both = BTreeMap::from([("p".into(), ("s1".into(), true)), ("q".into(), ("s2".into(), true))]);
    assert_eq!((shown(&a), shown(&b)), (both.clone(), both));
    disconnect(&a, "p", "s1");
    delete(&b, insight_key("q"));
    deliver(&mut from_a, &b);
    deliver(&mut from_b, &a);
    let one = BTreeMap::from([("p".into(), ("s1".into(), false))]);
    assert_eq!((shown(&a), shown(&b)), (one.clone(), one));
    assert_eq!(b.owner(&Group::proxy(&insight_key("p"))).as_deref(), Some("a"));
}

#[test]
fn a_proxy_that_moves_is_never_shown_offline() {
    let (a, b, c) = (mk("a", Grouping::Proxy), mk("b", Grouping::Proxy), mk("c", Grouping::Proxy));
    let (mut a_b, mut a_c, mut b_a, mut b_c) = (a.frames(), a.frames(), b.frames(), b.frames());
    connect(&a, "p", "s1");
    deliver(&mut a_b, &b);
    connect(&b, "p", "s2");
    // The old replica hears of the new stream before it notices the end of its own, or after.
    deliver(&mut b_a, &a);
    assert_eq!(shown(&a)["p"], ("s2".into(), true));
    disconnect(&a, "p", "s1");
    deliver(&mut a_c, &c);
    assert_eq!(shown(&c)["p"], ("s1".into(), false), "it has not heard the other one");
    deliver(&mut b_c, &c);
    for replica in [&a, &b, &c] {
        assert_eq!(shown(replica)["p"], ("s2".into(), true));
    }
    a.tick();
    assert!(!a.own().snapshot().is_empty(), "too early");
    wait(&a);
    assert!(a.own().snapshot().is_empty());
    deliver(&mut a_c, &c);
    // Late news of the old stream do not bring it back, and when the proxy is forgotten it is gone everywhere.
    disconnect(&a, "p", "s1");
    wait(&a);
    disconnect(&b, "p", "s2");
    for (frames, to) in [(&mut a_b, &b), (&mut a_c, &c), (&mut b_a, &a), (&mut b_c, &c)] {
        deliver(frames, to);
    }
    for replica in [&a, &b, &c] {
        assert_eq!(shown(replica)["p"], ("s2".into(), false));
    }
    delete(&b, insight_key("p"));
    deliver(&mut b_a, &a);
    deliver(&mut b_c, &c);
    for replica in [&a, &b, &c] {
        assert!(shown(replica).is_empty(), "{:?}", shown(replica));
    }
}

#[test]
fn the_time_of_day_does_not_decide() {
    // b is ten minutes ahead.
    let a = SharedStatus::new("a", Grouping::Proxy, || at(100));
    let b = SharedStatus::new("b", Grouping::Proxy, || at(700));
    connect(&b, "p", "s1");
    let (mut from_a, mut from_b) = (a.frames(), b.frames());
    deliver(&mut from_b, &a);
    connect(&a, "p", "s2");
    deliver(&mut from_a, &b);
    assert_eq!(shown(&b)["p"], ("s2".into(), true), "both are open, and the later claim counts");
    disconnect(&b, "p", "s1");
    deliver(&mut from_b, &a);
    assert_eq!((&shown(&a)["p"], &shown(&b)["p"]), (&("s2".into(), true), &("s2".into(), true)));
}

#[test]
fn a_replica_that_is_gone_leaves_ended_streams_to_the_leader() {
    let (a, b, c) = (mk("a", Grouping::Proxy), mk("b", Grouping::Proxy), mk("c", Grouping::Proxy));
    connect(&a, "p", "s1");
    connect(&a, "q", "s2");
    for other in [&b, &c] {
        deliver(&mut a.frames(), other);
        other.gone(&a.observer(), at(50));
        assert_eq!(shown(other)["p"], ("s1".into(), false));
        assert_eq!(shown(other)["q"], ("s2".into(), false));
    }
    let mut orphaned = b.orphaned();
    assert!(b.orphans().is_empty());
    b.adopt();
    assert!(orphaned.has_changed().expect("open"));
    orphaned.mark_unchanged();
    let mut from_b = b.frames();
    deliver(&mut from_b, &c);
    let names = |orphans: Vec<Orphan>| -> Vec<String> {
        orphans.into_iter().filter(|one| one.claim.brought).map(|one| one.key.name).collect()
    };
    assert_eq!(names(b.orphans()), ["p", "q"]);
    assert_eq!(c.owner(&Group::proxy(&insight_key("p"))).as_deref(), Some("b"));
    // One comes back elsewhere.
    connect(&c, "q", "s3");
    deliver(&mut c.frames(), &b);
    assert_eq!(names(b.orphans()), ["p"]);
    assert_eq!(shown(&b)["q"], ("s3".into(), true));
    deliver(&mut from_b, &c);
    // The replica was only cut off: what it has still counts.
    deliver(&mut a.frames(), &b);
    deliver(&mut a.frames(), &c);
    for other in [&b, &c] {
        assert_eq!(shown(other)["p"], ("s1".into(), true));
        assert_eq!(shown(other)["q"], ("s3".into(), true));
    }
    assert!(b.orphans().is_empty());
    b.adopt();
    assert!(b.orphans().is_empty() && !orphaned.has_changed().expect("open"), "nobody is gone");
}

fn zone_insight(zone: &str, stream: &str, is_open: bool) -> Resource {
    let subscription = KdsSubscription {
        id: stream.into(),
        connect_time: Some(at(1)),
        disconnect_time: (!is_open).then(|| at(2)),
        ..KdsSubscription::default()
    };
    let spec = ZoneInsight { subscriptions: vec![subscription], ..ZoneInsight::default() };
    Resource::new(Meta::new("", zone), spec)
}

fn insight_of_zone(zone: &str, proxy: &str) -> Resource {
    let mut insight = insight(proxy, "s", true);
    insight.meta.labels.insert(labels::ZONE.into(), zone.into());
    insight
}

#[test]
fn a_zone_that_moves_takes_its_proxies_along() {
    let (a, b) = (mk("a", Grouping::Zone), mk("b", Grouping::Zone));
    a.claim(&Group::zone("east"), false);
    put(&a, zone_insight("east", "k1", true));
    put(&a, insight_of_zone("east", "p"));
    put(&a, insight_of_zone("east", "q"));
    let (mut from_a, mut from_b) = (a.frames(), b.frames());
    deliver(&mut from_a, &b);
    assert!(b.is_live(&Group::zone("east")) && b.own().snapshot().is_empty());
    // Its connection goes to the other replica, which needs only differences from then on. The first observation may come
    // before the claim.
    put(&b, zone_insight("east", "", false));
    b.claim(&Group::zone("east"), false);
    let kept: BTreeSet<String> =
        b.own().snapshot().list(Kind::DataplaneInsight, None).map(|one| one.meta.name.clone()).collect();
    assert_eq!(kept, BTreeSet::from(["p".to_owned(), "q".to_owned()]));
    let all_online = |status: &SharedStatus| shown(status).values().all(|(_, online)| *online);
    assert!(all_online(&b) && shown(&b).len() == 2);
    put(&b, zone_insight("east", "k2", true));
    delete(&b, insight_key("q"));
    put(&a, zone_insight("east", "k1", false));
    deliver(&mut from_b, &a);
    wait(&a);
    deliver(&mut from_a, &b);
    for replica in [&a, &b] {
        assert_eq!(shown(replica).into_keys().collect::<Vec<_>>(), ["p"]);
        assert!(replica.is_live(&Group::zone("east")) && all_online(replica));
    }
    assert!(a.own().snapshot().is_empty(), "the old replica keeps nothing");
    // It moves again after its stream has ended, with an observation before the claim, and then in small pieces: at no moment
    // do its proxies vanish anywhere.
    put(&b, zone_insight("east", "k2", false));
    deliver(&mut from_b, &a);
    for number in 0..2_000 {
        put(&b, insight_of_zone("east", &format!("{}-{number}", "p".repeat(200))));
    }
    deliver(&mut from_b, &a);
    put(&a, zone_insight("east", "", false));
    assert_eq!(shown(&a).len(), 2_001);
    a.claim(&Group::zone("east"), false);
    put(&a, zone_insight("east", "k3", true));
    let mut frames = 0;
    while let Some(frame) = next(&mut from_a) {
        b.take(&mut BytesMut::from(&frame[..])).expect("a frame");
        assert_eq!((shown(&a).len(), shown(&b).len()), (2_001, 2_001), "after frame {frames}");
        frames += 1;
    }
    wait(&b);
    assert!(frames > 2 && b.own().snapshot().is_empty(), "{frames} frames");
    b.claim(&Group::zone("east"), false);
    put(&b, zone_insight("east", "k4", true));
    deliver(&mut from_b, &a);
    for number in 0..2_000 {
        let name = format!("{}-{number}", "p".repeat(200));
        delete(&b, insight_key(&name));
    }
    put(&a, zone_insight("east", "k3", false));
    deliver(&mut from_b, &a);
    wait(&a);
    deliver(&mut from_a, &b);
    // The replica of global dies: the zone is offline, its proxies are what they were.
    a.gone(&b.observer(), at(60));
    assert!(!a.is_live(&Group::zone("east")));
    assert!(all_online(&a) && shown(&a).len() == 1);
}

#[test]
fn what_is_forgotten_has_a_successor_everywhere() {
    let (a, b, c) = (mk("a", Grouping::Zone), mk("b", Grouping::Zone), mk("c", Grouping::Zone));
    a.claim(&Group::zone("east"), false);
    put(&a, zone_insight("east", "k1", true));
    put(&a, insight_of_zone("east", "p"));
    let (mut a_b, mut a_c, mut b_a, mut b_c) = (a.frames(), a.frames(), b.frames(), b.frames());
    deliver(&mut a_b, &b);
    deliver(&mut a_c, &c);
    put(&a, zone_insight("east", "k1", false));
    b.claim(&Group::zone("east"), false);
    put(&b, zone_insight("east", "k2", true));
    // One link is faster than the other.
    deliver(&mut b_a, &a);
    deliver(&mut a_c, &c);
    assert_eq!(shown(&c)["p"], ("s".into(), true));
    deliver(&mut b_c, &c);
    wait(&a);
    deliver(&mut a_c, &c);
    assert_eq!(shown(&c)["p"], ("s".into(), true));
    assert_eq!(c.owner(&Group::zone("east")).as_deref(), Some("b"));
}

#[test]
fn frames_have_limits() {
    let a = mk("a", Grouping::Proxy);
    for number in 0..2_000 {
        connect(&a, &format!("proxy-{number}"), &"s".repeat(500));
    }
    let b = mk("b", Grouping::Proxy);
    let mut frames = a.frames();
    let (mut count, mut complete) = (0, 0);
    while let Some(frame) = next(&mut frames) {
        let told = b.take(&mut BytesMut::from(&frame[..])).expect("a frame");
        complete += told.iter().filter(|(_, complete)| *complete).count();
        count += 1;
    }
    assert!(count > 2 && complete == 1, "{count} frames, {complete} complete");
    assert_eq!(shown(&b).len(), 2_000);
    // In pieces, as they come over a network.
    let c = mk("c", Grouping::Proxy);
    let mut frames = a.frames();
    let mut received = BytesMut::new();
    while let Some(frame) = next(&mut frames) {
        for piece in frame.chunks(1_000) {
            received.extend_from_slice(piece);
            c.take(&mut received).expect("frames");
        }
    }
    assert_eq!(shown(&c), shown(&b));
    let mut long = BytesMut::from(&[0xff_u8; 8][..]);
    assert_eq!(c.take(&mut long), Err(FrameError::TooLong(0xffff_ffff)));
    let mut bad = BytesMut::from(&[0, 0, 0, 2, 0xff, 0xff][..]);
    assert!(matches!(c.take(&mut bad), Err(FrameError::Malformed(_))));
    let mut newer = BytesMut::from(&[0, 0, 0, 2, 8, 9][..]);
    assert_eq!(c.take(&mut newer), Err(FrameError::Form(9)));
}

const REPLICAS: usize = 3;
const PROXIES: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Connect {
        proxy: usize,
        replica: usize,
    },
    Disconnect {
        proxy: usize,
    },
    /// An old replica notices the end of a stream that went elsewhere.
    Notice {
        which: usize,
    },
    /// One frame.
    Deliver {
        from: usize,
        to: usize,
    },
    Break {
        from: usize,
        to: usize,
    },
    Heal {
        from: usize,
        to: usize,
    },
    /// A broken link counts as the end of the replica behind it.
    GiveUp {
        from: usize,
        to: usize,
    },
    Kill {
        replica: usize,
    },
    Adopt {
        replica: usize,
    },
    Tick {
        replica: usize,
    },
    Wait {
        seconds: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (proxy, replica) = (0..PROXIES, 0..REPLICAS);
    prop_oneof![
        6 => (proxy.clone(), replica.clone()).prop_map(|(proxy, replica)| Step::Connect { proxy, replica }),
        3 => proxy.prop_map(|proxy| Step::Disconnect { proxy }),
        4 => (0..8_usize).prop_map(|which| Step::Notice { which }),
        20 => (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::Deliver { from, to }),
        2 => (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::Break { from, to }),
        4 => (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::Heal { from, to }),
        2 => (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::GiveUp { from, to }),
        1 => replica.clone().prop_map(|replica| Step::Kill { replica }),
        2 => replica.clone().prop_map(|replica| Step::Adopt { replica }),
        8 => replica.prop_map(|replica| Step::Tick { replica }),
        2 => (0..30_i64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// Replicas, the links between them, and what is really true of the proxies.
struct World {
    time: Arc<AtomicI64>,
    skews: Vec<i64>,
    replicas: Vec<SharedStatus>,
    runs: usize,
    /// From → to.
    links: BTreeMap<(usize, usize), Frames>,
    /// Observers that each replica has heard and that do not run any more.
    dead: Vec<BTreeSet<Observer>>,
    streams: usize,
    /// Where the newest stream of each proxy is, if it is open.
    open: BTreeMap<usize, (usize, String)>,
    /// Streams that ended without their replica knowing it yet.
    unnoticed: Vec<(usize, usize, String)>,
}

impl World {
    fn new(skews: &[i64]) -> World {
        let mut world = World {
            time: Arc::new(AtomicI64::new(1_000)),
            skews: skews.to_vec(),
            replicas: Vec::new(),
            runs: 0,
            links: BTreeMap::new(),
            dead: vec![BTreeSet::new(); REPLICAS],
            streams: 0,
            open: BTreeMap::new(),
            unnoticed: Vec::new(),
        };
        for replica in 0..REPLICAS {
            let started = world.start(replica);
            world.replicas.push(started);
        }
        for (from, to) in pairs() {
            world.heal(from, to);
        }
        world
    }

    fn start(&mut self, replica: usize) -> SharedStatus {
        self.runs += 1;
        let (time, skew) = (self.time.clone(), self.skews[replica]);
        let name = format!("{replica}/{}", self.runs);
        SharedStatus::new(name, Grouping::Proxy, move || at(time.load(Ordering::Relaxed) + skew))
    }

    fn heal(&mut self, from: usize, to: usize) {
        self.links.entry((from, to)).or_insert_with(|| self.replicas[from].frames());
    }

    fn give_up(&mut self, from: usize, to: usize) {
        if self.links.contains_key(&(from, to)) {
            return;
        }
        let now = at(self.time.load(Ordering::Relaxed));
        self.replicas[to].gone(&self.replicas[from].observer(), now);
        for observer in std::mem::take(&mut self.dead[to]) {
            self.replicas[to].gone(&observer, now);
        }
    }

    fn notice(&mut self, which: usize) {
        if which < self.unnoticed.len() {
            let (replica, proxy, stream) = self.unnoticed.remove(which);
            disconnect(&self.replicas[replica], &name(proxy), &stream);
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Connect { proxy, replica } => {
                self.streams += 1;
                let stream = format!("s{}", self.streams);
                connect(&self.replicas[replica], &name(proxy), &stream);
                if let Some((old, ended)) = self.open.insert(proxy, (replica, stream))
                    && old != replica
                {
                    self.unnoticed.push((old, proxy, ended));
                }
                self.unnoticed.retain(|(at, of, _)| (*at, *of) != (replica, proxy));
            }
            Step::Disconnect { proxy } => {
                if let Some((replica, stream)) = self.open.remove(&proxy) {
                    disconnect(&self.replicas[replica], &name(proxy), &stream);
                }
            }
            Step::Notice { which } => self.notice(which),
            Step::Deliver { from, to } => {
                if let Some(frame) = self.links.get_mut(&(from, to)).and_then(next) {
                    self.replicas[to].take(&mut BytesMut::from(&frame[..])).expect("a frame");
                }
            }
            Step::Break { from, to } => drop(self.links.remove(&(from, to))),
            Step::Heal { from, to } => {
                if from != to {
                    self.heal(from, to);
                }
            }
            Step::GiveUp { from, to } => {
                if from != to {
                    self.give_up(from, to);
                }
            }
            Step::Kill { replica } => {
                let observer = self.replicas[replica].observer();
                self.replicas[replica] = self.start(replica);
                for other in (0..REPLICAS).filter(|other| *other != replica) {
                    self.links.remove(&(replica, other));
                    self.links.remove(&(other, replica));
                    self.dead[other].insert(observer.clone());
                }
                self.dead[replica].clear();
                self.open.retain(|_, (at, _)| *at != replica);
                self.unnoticed.retain(|(at, _, _)| *at != replica);
            }
            Step::Adopt { replica } => self.replicas[replica].adopt(),
            Step::Tick { replica } => self.replicas[replica].tick(),
            Step::Wait { seconds } => drop(self.time.fetch_add(seconds, Ordering::Relaxed)),
        }
    }

    /// Everything works and everything is told.
    fn settle(&mut self) {
        for (from, to) in pairs() {
            // Whoever is dead is known to be.
            if !self.dead[to].is_empty() {
                self.links.remove(&(from, to));
                self.give_up(from, to);
            }
        }
        for (from, to) in pairs() {
            self.heal(from, to);
        }
        while !self.unnoticed.is_empty() {
            self.notice(0);
        }
        self.tell();
        // The leader first, the others what it does not know.
        for replica in 0..REPLICAS {
            self.replicas[replica].adopt();
        }
        self.tell();
        self.replicas.iter().for_each(wait);
        self.tell();
    }

    fn tell(&mut self) {
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for (&(_, to), link) in &mut self.links {
                while let Some(frame) = next(link) {
                    self.replicas[to].take(&mut BytesMut::from(&frame[..])).expect("a frame");
                    quiet = false;
                }
            }
        }
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..REPLICAS).flat_map(|from| (0..REPLICAS).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

fn name(proxy: usize) -> String {
    format!("p{proxy}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happened: once replicas hear each other, all show the same, and it is true.
    #[test]
    fn all_replicas_come_to_show_what_is_true(
        skews in proptest::collection::vec(-600..600_i64, REPLICAS),
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(&skews);
        for step in &steps {
            world.run(step);
        }
        world.settle();
        let first = shown(&world.replicas[0]);
        for replica in &world.replicas {
            prop_assert_eq!(&shown(replica), &first);
        }
        for proxy in 0..PROXIES {
            let found = first.get(&name(proxy));
            match world.open.get(&proxy) {
                Some((_, stream)) => prop_assert_eq!(found, Some(&(stream.clone(), true))),
                None => prop_assert!(found.is_none_or(|(_, online)| !online), "{:?}", found),
            }
        }
        // Each source is observed once.
        let observed: usize = world.replicas.iter().map(|replica| replica.own().snapshot().len()).sum();
        prop_assert_eq!(observed, first.len());
        // The feed of what is shown leads to what is shown.
        for replica in &world.replicas {
            let mut feed = replica.shown().watch(Some(crate::Revision(0)));
            let mut rebuilt = Snapshot::empty();
            while let Poll::Ready(Some(event)) = pin!(feed.next()).poll(&mut Context::from_waker(Waker::noop())) {
                rebuilt = match event {
                    Event::Resync(snapshot) => snapshot,
                    Event::Batch(batch) => rebuilt.with(&batch),
                };
            }
            let all = |snapshot: &Snapshot| snapshot.iter().cloned().collect::<Vec<_>>();
            prop_assert_eq!(all(&rebuilt), all(&replica.shown().snapshot()));
        }
    }
}
