//! What both sides of a stream wait for: an acknowledgement that must come, and the end of what is in the way of something.

use std::time::Duration;

use graticule_store::{Event, Feed, Store};

use crate::core::Source;

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
