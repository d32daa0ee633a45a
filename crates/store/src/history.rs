//! The current snapshot, the last batches, and the feeds that read them. Shared by all backends.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{ChangeBatch, Event, Feed, Revision, Snapshot};

/// Batches that are kept for readers that resume or lag, unless set otherwise.
pub const HISTORY_LEN_DEFAULT: usize = 4096;

/// What is current, and how it came to be. Dropping it ends its feeds once they have read everything.
#[derive(Debug)]
pub struct History {
    shared: Arc<RwLock<Shared>>,
    head: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Shared {
    snapshot: Snapshot,
    /// Oldest first; the last one made the snapshot. Revisions are consecutive.
    batches: VecDeque<Arc<ChangeBatch>>,
    len_max: usize,
}

impl History {
    /// Starts at `snapshot`, with no batches before it; keeps at most `len_max` batches.
    pub fn new(snapshot: Snapshot, len_max: usize) -> History {
        let (head, _) = watch::channel(snapshot.revision());
        let shared = Shared { snapshot, batches: VecDeque::new(), len_max };
        History { shared: Arc::new(RwLock::new(shared)), head }
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.read().snapshot.clone()
    }

    /// Makes `snapshot`, which `batch` led to, the current one. The caller is the only writer.
    pub fn publish(&self, snapshot: Snapshot, batch: Arc<ChangeBatch>) {
        let revision = snapshot.revision();
        {
            let mut shared = self.shared.write();
            let follows = batch.revision.0 == shared.snapshot.revision().0 + 1;
            if !follows {
                // Something was left out: readers that are not at the head resynchronise.
                shared.batches.clear();
            }
            if follows {
                shared.batches.push_back(batch);
            }
            while shared.batches.len() > shared.len_max {
                shared.batches.pop_front();
            }
            shared.snapshot = snapshot;
        }
        self.head.send_replace(revision);
    }

    /// Replaces everything (a backend installed a snapshot of a peer): all readers resynchronise.
    pub fn reset(&self, snapshot: Snapshot) {
        let revision = snapshot.revision();
        {
            let mut shared = self.shared.write();
            shared.batches.clear();
            shared.snapshot = snapshot;
        }
        self.head.send_replace(revision);
    }

    /// A feed, see [`Store::watch`](crate::Store::watch).
    pub fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        Box::new(Reader { shared: self.shared.clone(), head: self.head.subscribe(), position: from })
    }
}

impl Shared {
    /// What a reader that has seen everything up to `position` sees next.
    fn next(&self, position: Option<Revision>) -> Option<Event> {
        let head = self.snapshot.revision();
        let resync = || Some(Event::Resync(self.snapshot.clone()));
        let Some(position) = position else { return resync() };
        if position == head {
            return None;
        }
        let Some(oldest) = self.batches.front() else { return resync() };
        let wanted = position.0.checked_add(1).and_then(|wanted| wanted.checked_sub(oldest.revision.0));
        let batch = wanted.and_then(|offset| usize::try_from(offset).ok()).and_then(|i| self.batches.get(i));
        batch.map_or_else(resync, |batch| Some(Event::Batch(batch.clone())))
    }
}

struct Reader {
    shared: Arc<RwLock<Shared>>,
    head: watch::Receiver<Revision>,
    /// Everything up to here was delivered.
    position: Option<Revision>,
}

#[async_trait]
impl Feed for Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            self.head.borrow_and_update();
            let event = self.shared.read().next(self.position);
            if let Some(event) = event {
                self.position = Some(match &event {
                    Event::Batch(batch) => batch.revision,
                    Event::Resync(snapshot) => snapshot.revision(),
                });
                return Some(event);
            }
            // The only await; nothing was taken before it, so the feed is cancel-safe.
            self.head.changed().await.ok()?;
        }
    }
}
