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
/// Names of each kind that wait for themselves; what is wrong beyond them waits together.
const NAMES_MAX: usize = 1024;
/// Between two new connections to a peer that has to be connected to anew; then twice as long, and so on.
const RECONNECT_MIN: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy)]
struct Tries {
    made: u32,
    /// Not asked for before. Monotonic.
    not_before: Duration,
    /// Asked for with the next request.
    wanted: bool,
}

impl Tries {
    fn new(now: Duration) -> Tries {
        Tries { made: 0, not_before: now, wanted: false }
    }

    fn is_forgotten(&self, now: Duration) -> bool {
        now.saturating_sub(self.not_before) > FORGOTTEN_AFTER
    }

    fn made(&mut self, now: Duration, wait_min: Duration) {
        self.not_before = now + (wait_min * 2_u32.saturating_pow(self.made.min(16))).min(WAIT_MAX);
        self.made = self.made.saturating_add(1);
    }
}

/// What has to be asked for again of one kind.
#[derive(Debug, Default)]
struct OfKind {
    tries: BTreeMap<String, Tries>,
    /// All names beyond those.
    others: Option<Tries>,
    asked: Option<Duration>,
    due: Option<Duration>,
}

/// What has to be asked for again. Times are monotonic.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    kinds: BTreeMap<Kind, OfKind>,
    reconnected: Option<Tries>,
}

impl Repairs {
    /// Something is missing. False: it was asked for lately, and is asked for again when its time has come.
    pub(super) fn want(&mut self, kind: Kind, name: &str, now: Duration) -> bool {
        let state = self.kinds.entry(kind).or_default();
        let has_own = state.tries.len() < NAMES_MAX || state.tries.contains_key(name);
        let tries = if has_own {
            state.tries.entry(name.to_owned()).or_insert(Tries::new(now))
        } else {
            state.others.get_or_insert(Tries::new(now))
        };
        if tries.is_forgotten(now) {
            *tries = Tries::new(now);
        }
        let is_news = !tries.wanted;
        tries.wanted = true;
        let at = state.asked.map_or(now, |asked| now.max(asked + KIND_PAUSE)).max(tries.not_before);
        state.due = Some(state.due.map_or(at, |due| due.min(at)));
        is_news && tries.not_before <= now
    }

    /// When something has to be asked for.
    pub(super) fn next(&self) -> Option<Duration> {
        self.kinds.values().filter_map(|state| state.due).min()
    }

    /// What has to be asked for now; it counts as asked for.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Kind> {
        let is_due = |state: &OfKind| state.due.is_some_and(|at| at <= now);
        let due = self.kinds.iter_mut().filter(|(_, state)| is_due(state));
        due.map(|(kind, state)| {
            state.due = None;
            state.asked = Some(now);
            for tries in state.tries.values_mut().chain(&mut state.others) {
                // What has to wait longer comes with the others, and was not what was asked for.
                if std::mem::take(&mut tries.wanted) && tries.not_before <= now {
                    tries.made(now, WAIT_MIN);
                }
            }
            state.tries.retain(|_, tries| !tries.is_forgotten(now));
            *kind
        })
        .collect()
    }

    /// A new stream asks for everything anyway.
    pub(super) fn all_asked(&mut self) {
        for state in self.kinds.values_mut() {
            state.due = None;
            state.tries.values_mut().chain(&mut state.others).for_each(|tries| tries.wanted = false);
        }
    }

    /// When a peer that has to be connected to anew may be.
    pub(super) fn next_reconnect(&self) -> Option<Duration> {
        let next = self.next()?;
        Some(self.reconnected.map_or(next, |tries| next.max(tries.not_before)))
    }

    /// It is connected to anew now.
    pub(super) fn reconnect(&mut self, now: Duration) {
        self.take_due(now);
        let tries = self.reconnected.get_or_insert(Tries::new(now));
        if tries.is_forgotten(now) {
            *tries = Tries::new(now);
        }
        tries.made(now, RECONNECT_MIN);
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
        assert_eq!((repairs.take_due(now), repairs.want(kind, "a.default", now)), (vec![kind], false));
        assert_eq!(repairs.next(), Some(now + WAIT_MIN));
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
    }

    #[test]
    fn what_has_to_wait_comes_when_its_time_has_come() {
        let mut repairs = Repairs::default();
        let at = Duration::from_secs;
        assert!(repairs.want(Kind::Mesh, "a.", at(0)));
        assert_eq!(repairs.take_due(at(0)), [Kind::Mesh]);
        for now in [10, 20] {
            assert!(!repairs.want(Kind::Mesh, "a.", at(now)), "it was asked for lately");
            assert_eq!(repairs.next(), Some(WAIT_MIN));
        }
        // Another one of the kind is asked for soon, and brings it.
        assert!(repairs.want(Kind::Mesh, "b.", at(30)));
        assert_eq!(repairs.next(), Some(at(30)));
        assert_eq!((repairs.take_due(at(30)), repairs.next()), (vec![Kind::Mesh], None));
        assert!(!repairs.want(Kind::Mesh, "a.", at(40)));
        assert_eq!((repairs.take_due(at(59)), repairs.take_due(at(60))), (vec![], vec![Kind::Mesh]));
        // A new stream asks for all of it.
        assert!(!repairs.want(Kind::Mesh, "a.", at(70)));
        repairs.all_asked();
        assert_eq!(repairs.next(), None);
    }

    #[test]
    fn a_flood_of_one_kind_waits_longer_each_time_and_is_in_nobody_s_way() {
        let mut repairs = Repairs::default();
        let (mut asked, mut now) = (Vec::new(), Duration::ZERO);
        while now < Duration::from_secs(12 * 3600) {
            // Ever other ones, and some that stay.
            for number in 0..2 * NAMES_MAX {
                repairs.want(Kind::Mesh, &number.to_string(), now);
                repairs.want(Kind::Mesh, &format!("{number} at {}", now.as_secs() / 3600), now);
            }
            if repairs.next().is_some_and(|at| at <= now) {
                assert_eq!(repairs.take_due(now), [Kind::Mesh]);
                asked.push(now.as_secs() / 60);
            }
            now += Duration::from_secs(300);
        }
        assert!((4..16).contains(&asked.len()), "{asked:?}");
        assert!(repairs.want(Kind::Secret, "e.default", now), "others do not wait for it");
        assert!(repairs.next().is_some_and(|at| at <= now));
        assert_eq!(repairs.take_due(now).last(), Some(&Kind::Secret));
    }
}
