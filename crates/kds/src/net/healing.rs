//! What both sides of a stream wait for: an acknowledgement that must come, and the end of what is in the way of something.

use std::time::Duration;

use graticule_model::Key;
use graticule_runtime::{Clock, Random};
use graticule_store::{Event, Feed, Store};

use crate::core::{Held, Sink, Source};

/// Resources that a peer stores in a second at least: a Kuma global stores them one by one.
const STORED_PER_SECOND: u32 = 50;

/// Waits for acknowledgements, each for a limited time, longer while much is on its way: one that is lost leaves its kind silent for as long as the stream
/// lives (federation.md §2.5, rule 3), however busy the others are.
pub(super) struct Patience {
    limit: Duration,
    /// What is waited for, and since when; monotonic.
    waits: Option<(u64, Duration)>,
    /// How long it is waited for at present.
    lasts: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Patience {
        Patience { limit, waits: None, lasts: limit }
    }

    /// When it ends; `None`: nothing is waited for. `now` is monotonic.
    pub(super) fn ends_at(&mut self, source: &Source, now: Duration) -> Option<Duration> {
        let Some((_, nonce)) = source.waits_for() else {
            self.waits = None;
            return None;
        };
        let since = match self.waits {
            Some((other, since)) if other == nonce => since,
            _ => now,
        };
        self.waits = Some((nonce, since));
        let in_flight = u32::try_from(source.in_flight()).unwrap_or(u32::MAX);
        self.lasts = self.limit + Duration::from_secs(1) * in_flight / STORED_PER_SECOND;
        Some(since + self.lasts)
    }

    /// How long is waited for what was waited for last.
    pub(super) fn lasts(&self) -> Duration {
        self.lasts
    }
}

/// A zone that is behind global for this time, and does not come nearer, connects again.
const LAG_MAX: Duration = Duration::from_secs(60);
/// As long as its first state is not there, which may take long over a bad line, only if nothing at all comes for this time.
const SILENT_JOIN_MAX: Duration = Duration::from_secs(600);

/// Notices that a zone does not get up to where global is.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// What global says that the zone has all of, and since when nothing has come; monotonic.
    stands: Option<(u64, Duration)>,
}

/// What is known at a health check.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// Revisions of global: the present one, and the one that the zone has all of.
    pub(super) current: u64,
    pub(super) acknowledged: u64,
    /// The first state of every kind was taken.
    pub(super) is_synced: bool,
    /// Something was taken since the last health check.
    pub(super) has_taken: bool,
    /// Something waits for people: the zone cannot come nearer.
    pub(super) is_held: bool,
}

impl Lag {
    /// Whether it is time to connect again. `now` is monotonic.
    pub(super) fn is_stuck(&mut self, progress: Progress, now: Duration) -> bool {
        let Progress { current, acknowledged, is_synced, has_taken, is_held } = progress;
        if current <= acknowledged || is_held {
            self.stands = None;
            return false;
        }
        let since = match self.stands {
            Some((at, since)) if at == acknowledged && (is_synced || !has_taken) => since,
            _ => now,
        };
        self.stands = Some((acknowledged, since));
        now.saturating_sub(since) >= if is_synced { LAG_MAX } else { SILENT_JOIN_MAX }
    }
}

/// Copies that are compared before others have their turn.
const COMPARED_AT_ONCE: usize = 256;

/// Copies that are not as they were taken. Looks at many, so it lets others work meanwhile.
pub(super) async fn damaged(sink: &Sink, held: &dyn Held) -> Vec<Key> {
    let mut damaged = Vec::new();
    for (number, found) in sink.comparing(held).enumerate() {
        damaged.extend(found);
        if number % COMPARED_AT_ONCE == COMPARED_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
    }
    damaged
}

/// When copies are compared next, about so long from now; not those of all peers at once. Monotonic.
pub(super) fn next_audit(clock: &Clock, random: &Random, interval: Duration) -> Duration {
    clock.monotonic() + interval.mul_f64(0.5 + random.fraction() / 2.0)
}

/// Watches a store while something in it is in the way of what a peer sends.
#[derive(Default)]
pub(super) struct Obstacles(Option<Box<dyn Feed>>);

impl Obstacles {
    /// The next change while `wanted`; first everything. Cancel-safe.
    pub(super) async fn next(&mut self, store: &dyn Store, wanted: bool) -> Event {
        if !wanted {
            self.0 = None;
            return std::future::pending().await;
        }
        match self.0.get_or_insert_with(|| store.watch(None)).next().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use graticule_model::kinds::mesh::Mesh;
    use graticule_model::{Kind, Meta, Resource};
    use graticule_proto::discovery::{DeltaDiscoveryRequest, Node};
    use graticule_store::{Revision, Snapshot};

    use super::*;
    use crate::core::{Catalog, Direction, Plane, TrustExchange};

    /// A first state that comes in many parts over a bad line is not begun anew; one that does not come is, and so is a zone
    /// that falls behind.
    #[test]
    fn lag_is_no_slow_join() {
        let joining =
            Progress { current: 9, acknowledged: 0, is_synced: false, has_taken: true, is_held: false };
        let silent = Progress { has_taken: false, ..joining };
        let behind = Progress { acknowledged: 5, is_synced: true, ..joining };
        let held = Progress { is_held: true, ..behind };
        let level = Progress { acknowledged: 9, ..behind };
        let nearer = Progress { acknowledged: 6, ..behind };
        for (case, steps, stuck_at) in [
            ("a slow join", vec![(0, joining), (300, joining), (2000, joining), (2100, silent)], None),
            ("a silent join", vec![(0, joining), (10, silent), (599, silent), (610, silent)], Some(610)),
            ("behind, although others come", vec![(0, behind), (30, behind), (60, behind)], Some(60)),
            ("held", vec![(0, behind), (30, held), (60, behind), (90, behind)], None),
            ("level meanwhile", vec![(0, behind), (30, level), (60, behind), (110, behind)], None),
            ("it comes nearer", vec![(0, behind), (30, nearer), (80, nearer), (90, nearer)], Some(90)),
        ] {
            let mut lag = Lag::default();
            let stuck = steps.into_iter().find(|(at, now)| lag.is_stuck(*now, Duration::from_secs(*at)));
            assert_eq!(stuck.map(|(at, _)| at), stuck_at, "{case}");
        }
    }

    #[test]
    fn much_takes_longer() {
        for (number, wanted) in [(0, 60), (500, 70)] {
            let meshes = (0..number).map(|n| Resource::new(Meta::new("", format!("m{n}")), Mesh::default()));
            let stored = Snapshot::restore(Revision(1), meshes.map(Into::into));
            let direction = Direction::ToZones { trust_exchange: TrustExchange::Automatic };
            let mut catalog = Catalog::new(direction, Vec::new());
            catalog.apply(Plane::Config, &Event::Resync(stored.clone()));
            catalog.apply(Plane::Status, &Event::Resync(stored));
            let mut source = Source::new("global", Some("east"), 10 << 20, &catalog);
            let mut patience = Patience::new(Duration::from_secs(60));
            assert_eq!(patience.ends_at(&source, Duration::ZERO), None);
            let request = DeltaDiscoveryRequest {
                node: Some(Node { id: "east".into(), ..Node::default() }),
                type_url: Kind::Mesh.name().into(),
                ..DeltaDiscoveryRequest::default()
            };
            source.on_request(request).expect("a request");
            while source.prepare(&catalog) {}
            assert_eq!(source.poll(&catalog).len(), 1);
            for now in [1, 5] {
                let ends_at = patience.ends_at(&source, Duration::from_secs(now));
                assert_eq!(ends_at, Some(Duration::from_secs(1 + wanted)), "{number}");
            }
        }
    }
}
