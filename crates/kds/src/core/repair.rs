//! When what is missing or damaged is asked for again: soon, but neither again and again nor in storms.

use std::collections::BTreeMap;
use std::time::Duration;

use graticule_model::Kind;

/// Between two further requests for one kind.
const KIND_PAUSE: Duration = Duration::from_secs(5);
/// What was asked for and is wrong again waits this long, then twice as long, and so on.
const WAIT_MIN: Duration = Duration::from_secs(60);
/// Longest such wait.
const WAIT_MAX: Duration = Duration::from_secs(6 * 3600);
/// What was not wrong for this long begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Names that are remembered.
const NAMES_MAX: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Tries {
    made: u32,
    /// Not asked for before. Monotonic.
    not_before: Duration,
}

/// What has to be asked for again. Times are monotonic.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    tries: BTreeMap<(Kind, String), Tries>,
    asked: BTreeMap<Kind, Duration>,
    due: BTreeMap<Kind, Duration>,
}

impl Repairs {
    /// Something is missing. False: it was asked for lately, and has to wait.
    pub(super) fn want(&mut self, kind: Kind, name: &str, now: Duration) -> bool {
        if self.tries.len() >= NAMES_MAX {
            self.tries.retain(|_, tries| now < tries.not_before);
        }
        if self.tries.len() >= NAMES_MAX {
            // So much is wrong that nobody is asked for each of it.
            return false;
        }
        let fresh = Tries { made: 0, not_before: now };
        let tries = self.tries.entry((kind, name.to_owned())).or_insert(fresh);
        if now < tries.not_before {
            return false;
        }
        if now.saturating_sub(tries.not_before) > FORGOTTEN_AFTER {
            *tries = fresh;
        }
        tries.not_before = now + (WAIT_MIN * 2_u32.saturating_pow(tries.made.min(16))).min(WAIT_MAX);
        tries.made += 1;
        let at = self.asked.get(&kind).map_or(now, |asked| now.max(*asked + KIND_PAUSE));
        self.due.entry(kind).or_insert(at);
        true
    }

    /// When something has to be asked for.
    pub(super) fn next(&self) -> Option<Duration> {
        self.due.values().min().copied()
    }

    /// What has to be asked for now; it counts as asked for.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Kind> {
        let due: Vec<Kind> = self.due.iter().filter(|(_, at)| **at <= now).map(|(kind, _)| *kind).collect();
        for kind in &due {
            self.due.remove(kind);
            self.asked.insert(*kind, now);
        }
        due
    }

    /// A new stream asks for everything anyway.
    pub(super) fn all_asked(&mut self) {
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_again_waits_longer_each_time() {
        let kind = Kind::MeshTimeout;
        let mut repairs = Repairs::default();
        let (mut asked, mut now) = (Vec::new(), Duration::ZERO);
        while now < Duration::from_secs(20 * 3600) {
            repairs.want(kind, "a.default", now);
            if repairs.next().is_some_and(|at| at <= now) {
                assert_eq!(repairs.take_due(now), [kind]);
                asked.push(now.as_secs());
            }
            now += Duration::from_secs(10);
        }
        assert_eq!(asked[..5], [0, 60, 180, 420, 900]);
        let waits: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(waits.last(), Some(&WAIT_MAX.as_secs()));
        // After a day without damage it is like the first time.
        now += 2 * FORGOTTEN_AFTER;
        assert!(repairs.want(kind, "a.default", now) && !repairs.want(kind, "a.default", now));
        assert!(repairs.want(kind, "a.default", now + WAIT_MIN));
    }

    #[test]
    fn many_of_one_kind_are_one_request() {
        let mut repairs = Repairs::default();
        let at = Duration::from_secs;
        for name in ["a.", "b.", "c."] {
            assert!(repairs.want(Kind::Mesh, name, at(1)));
        }
        assert_eq!(repairs.take_due(at(1)), [Kind::Mesh]);
        assert_eq!(repairs.next(), None);
        assert!(repairs.want(Kind::Mesh, "d.", at(2)));
        assert_eq!((repairs.next(), repairs.take_due(at(2))), (Some(at(6)), vec![]), "in a moment");
        assert!(repairs.want(Kind::Secret, "e.default", at(3)), "others do not wait for it");
        assert_eq!(repairs.take_due(at(3)), [Kind::Secret]);
        assert_eq!(repairs.take_due(at(6)), [Kind::Mesh]);
        // A flood is bounded.
        for number in 0..3 * NAMES_MAX {
            repairs.want(Kind::Mesh, &number.to_string(), at(7));
        }
        assert!(repairs.tries.len() <= NAMES_MAX);
    }
}
