//! Which zones have acknowledged which change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A zone acknowledged a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Number of the change.
    pub(super) change: usize,
    /// Number of the zone.
    pub(super) zone: usize,
    /// When its ACK was handed to the connection.
    pub(super) at: Instant,
}

/// Changes on the way, and how long the others took.
#[derive(Debug)]
pub(super) struct Board {
    zones: usize,
    open: BTreeMap<usize, Open>,
    finished: usize,
    /// PUT → ACK of the last zone.
    pub(super) last: Vec<Duration>,
    /// PUT → ACK of each zone.
    pub(super) each: Vec<Duration>,
    /// PUT → its answer.
    pub(super) put: Vec<Duration>,
}

#[derive(Debug, Default)]
struct Open {
    /// When the PUT was sent; a zone may be faster than the answer.
    sent: Option<Instant>,
    acks: BTreeMap<usize, Instant>,
}

impl Board {
    /// Of changes that so many zones must acknowledge.
    pub(super) fn new(zones: usize) -> Board {
        let (last, each, put) = (Vec::new(), Vec::new(), Vec::new());
        Board { zones, open: BTreeMap::new(), finished: 0, last, each, put }
    }

    /// Changes that all zones have.
    pub(super) fn finished(&self) -> usize {
        self.finished
    }

    /// A change was sent and answered.
    pub(super) fn put(&mut self, change: usize, sent: Instant, answered: Instant) {
        self.put.push(answered.saturating_duration_since(sent));
        self.open.entry(change).or_default().sent = Some(sent);
        self.close(change);
    }

    /// A zone has a change.
    pub(super) fn seen(&mut self, seen: Seen) {
        self.open.entry(seen.change).or_default().acks.entry(seen.zone).or_insert(seen.at);
        self.close(seen.change);
    }

    fn close(&mut self, change: usize) {
        let Some(open) = self.open.get(&change) else { return };
        let (Some(sent), true) = (open.sent, open.acks.len() == self.zones) else { return };
        let took: Vec<Duration> = open.acks.values().map(|at| at.saturating_duration_since(sent)).collect();
        self.last.extend(took.iter().max());
        self.each.extend(took);
        self.open.remove(&change);
        self.finished += 1;
    }

    /// What does not arrive.
    pub(super) fn missing(&self) -> String {
        let changes: Vec<String> = self
            .open
            .iter()
            .take(3)
            .map(|(change, open)| format!("change {change} has {} of {} zones", open.acks.len(), self.zones))
            .collect();
        format!("nothing arrives any more: {} finished, {}", self.finished, changes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_ends_with_its_last_zone_in_any_order() {
        let start = graticule_testkit::wait::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut board = Board::new(2);
        let seen = |change, zone, milliseconds| Seen { change, zone, at: at(milliseconds) };
        // Faster than the answer to the PUT.
        board.seen(seen(1, 0, 3));
        board.seen(seen(1, 1, 5));
        // The zone of a later change says the same twice.
        board.seen(seen(2, 1, 4));
        board.seen(seen(2, 1, 9));
        assert_eq!(board.finished(), 0);
        board.put(1, at(1), at(6));
        assert_eq!(board.finished(), 1);
        board.put(2, at(2), at(3));
        assert!(board.missing().contains("change 2 has 1 of 2 zones"), "{}", board.missing());
        board.seen(seen(2, 0, 12));
        assert_eq!(board.finished(), 2);
        let milliseconds = |all: &[Duration]| all.iter().map(Duration::as_millis).collect::<Vec<_>>();
        assert_eq!(milliseconds(&board.last), [4, 10]);
        assert_eq!(milliseconds(&board.each), [2, 4, 10, 2]);
        assert_eq!(milliseconds(&board.put), [5, 1]);
    }
}
