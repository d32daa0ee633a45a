//! One stream per proxy: the newest takes over (xds.md §1.5).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use graticule_policy::ProxyId;
use graticule_runtime::Clock;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::deps::StreamId;
use crate::core::Contention;

/// Streams of one proxy that may wait for their turn; more are refused.
const WAITING_MAX: usize = 8;

/// The live stream of each proxy.
#[derive(Debug, Default)]
pub(super) struct Leases {
    slots: Mutex<HashMap<ProxyId, Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    live: Option<(StreamId, oneshot::Sender<()>)>,
    contention: Contention,
    waiting: usize,
}

/// The right to serve a proxy, until it is dropped or taken over.
#[derive(Debug)]
pub(super) struct Lease {
    leases: Arc<Leases>,
    id: ProxyId,
    stream: StreamId,
    taken: oneshot::Receiver<()>,
}

/// Too many streams of one proxy wait already.
#[derive(Debug)]
pub(super) struct Crowded;

impl Leases {
    /// Takes the proxy over from its live stream, if there is one: at once, or after a wait if that happens again and
    /// again.
    pub(super) async fn take(
        self: &Arc<Self>,
        id: &ProxyId,
        stream: &StreamId,
        clock: &Clock,
    ) -> Result<Lease, Crowded> {
        let wait = self.wait_of(id, clock)?;
        if let Some((wait, _turn)) = wait {
            clock.sleep(wait).await;
        }
        let (sender, taken) = oneshot::channel();
        let mut slots = self.slots.lock();
        let slot = slots.entry(id.clone()).or_default();
        // Dropping the sender tells the older stream.
        slot.live = Some((stream.clone(), sender));
        Ok(Lease { leases: self.clone(), id: id.clone(), stream: stream.clone(), taken })
    }

    fn wait_of(self: &Arc<Self>, id: &ProxyId, clock: &Clock) -> Result<Option<(Duration, Turn)>, Crowded> {
        let mut slots = self.slots.lock();
        let Some(slot) = slots.get_mut(id) else { return Ok(None) };
        if slot.live.is_none() && slot.waiting == 0 {
            return Ok(None);
        }
        let wait = slot.contention.on_replace(clock.monotonic());
        if wait.is_zero() {
            return Ok(None);
        }
        if slot.waiting >= WAITING_MAX {
            return Err(Crowded);
        }
        slot.waiting += 1;
        tracing::warn!(
            mesh = id.mesh,
            proxy = id.name,
            replacements = slot.contention.count(),
            ?wait,
            "streams keep replacing each other: is the name used by two proxies?"
        );
        Ok(Some((wait, Turn { leases: self.clone(), id: id.clone() })))
    }

    fn forget_if_idle(slots: &mut HashMap<ProxyId, Slot>, id: &ProxyId) {
        if let Entry::Occupied(slot) = slots.entry(id.clone())
            && slot.get().live.is_none()
            && slot.get().waiting == 0
        {
            slot.remove();
        }
    }
}

/// A place among those that wait.
struct Turn {
    leases: Arc<Leases>,
    id: ProxyId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut slots = self.leases.slots.lock();
        if let Some(slot) = slots.get_mut(&self.id) {
            slot.waiting = slot.waiting.saturating_sub(1);
        }
        // The slot stays as long as its live stream; a cancelled wait may have been the last user.
        Leases::forget_if_idle(&mut slots, &self.id);
    }
}

impl Lease {
    /// Returns when a newer stream took over.
    pub(super) async fn taken(&mut self) {
        let _ = (&mut self.taken).await;
    }

    /// Whether a newer stream took over.
    pub(super) fn is_taken(&self) -> bool {
        let slots = self.leases.slots.lock();
        let live = slots.get(&self.id).and_then(|slot| slot.live.as_ref());
        live.is_none_or(|(stream, _)| *stream != self.stream)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut slots = self.leases.slots.lock();
        if let Some(slot) = slots.get_mut(&self.id)
            && slot.live.as_ref().is_some_and(|(stream, _)| *stream == self.stream)
        {
            slot.live = None;
        }
        Leases::forget_if_idle(&mut slots, &self.id);
    }
}

#[cfg(test)]
mod tests {
    use graticule_model::Timestamp;

    use super::*;

    fn mk_id() -> ProxyId {
        ProxyId { mesh: "m".into(), name: "p".into() }
    }

    fn mk_stream(n: u32) -> StreamId {
        StreamId(n.to_string().into())
    }

    #[tokio::test]
    async fn the_newest_takes_over_and_a_fight_slows_down() {
        let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
        let leases = Arc::new(Leases::default());
        let mut held = Vec::new();
        for n in 0..4 {
            held.push(leases.take(&mk_id(), &mk_stream(n), &clock).await.expect("free"));
        }
        held[0].taken().await;
        assert!(held[2].is_taken() && !held[3].is_taken());
        let stream = mk_stream(4);
        let id = mk_id();
        let mut fifth = std::pin::pin!(leases.take(&id, &stream, &clock));
        assert!(futures::poll!(fifth.as_mut()).is_pending());
        assert!(!held[3].is_taken());
        hand.advance(Duration::from_secs(1));
        let fifth = fifth.await.expect("its turn");
        assert!(held[3].is_taken() && !fifth.is_taken());
        drop(held);
        assert!(!fifth.is_taken());
        drop(fifth);
        assert!(leases.slots.lock().is_empty());
    }

    #[tokio::test]
    async fn waiting_is_bounded() {
        let (clock, _hand) = Clock::manual(Timestamp::UNIX_EPOCH);
        let leases = Arc::new(Leases::default());
        let _live: Vec<_> = {
            let mut live = Vec::new();
            for n in 0..4 {
                live.push(leases.take(&mk_id(), &mk_stream(n), &clock).await.expect("free"));
            }
            live
        };
        let (id, stream) = (mk_id(), mk_stream(9));
        let mut waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| Box::pin(leases.take(&id, &stream, &clock))).collect();
        for wait in &mut waiting {
            assert!(futures::poll!(wait.as_mut()).is_pending());
        }
        assert!(leases.take(&id, &stream, &clock).await.is_err());
        drop(waiting);
        assert!(leases.slots.lock().get(&id).is_some_and(|slot| slot.waiting == 0));
    }
}
