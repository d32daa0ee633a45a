//! Who holds a zone's name at global: one control plane at a time, and the right one (federation.md §7).
//!
//! A zone of ours keeps an identity in its store and shows it with every call. The same identity is the same
//! zone: its newest stream wins at once, whatever became of the older ones. Anybody else waits until nobody
//! holds the name any more, and a name that an identity held stays reserved for it for a while. A stock Kuma
//! zone shows none; two of them are told apart by their streams only.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A name stays reserved for the identity that held it for this time after its last stream: a restart does not lose it.
pub const RESERVED_FOR: Duration = Duration::from_secs(30);
/// An instance that was replaced does not replace its successor again for this time: two copies of one zone's
/// disk do not throw each other out for ever.
const NO_RETURN_FOR: Duration = Duration::from_secs(60);
/// Replaced instances that are remembered.
const REPLACED_MAX: usize = 8;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claimant {
    /// The zone's identity; a stock Kuma zone has none.
    pub identity: Option<String>,
    /// The process, where it says so.
    pub instance: String,
    /// The term in which the process leads its zone, where it says so.
    pub term: Option<u64>,
    /// Where it calls from, for people.
    pub address: String,
}

/// The process that led a zone when it connected last, to whatever replica of global.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneLeader {
    /// The zone's identity.
    pub identity: String,
    /// The process.
    pub instance: String,
    /// The term in which it leads.
    pub term: u64,
}

impl ZoneLeader {
    /// What a caller says of itself; `None`: it does not say enough.
    pub fn of(claimant: &Claimant) -> Option<ZoneLeader> {
        let instance = Some(&claimant.instance).filter(|instance| !instance.is_empty())?.clone();
        Some(ZoneLeader { identity: claimant.identity.clone()?, instance, term: claimant.term? })
    }

    /// Whether this caller is a former leader of the same zone, that does not know yet.
    pub fn replaced(&self, claimant: &Claimant) -> bool {
        claimant.identity.as_ref() == Some(&self.identity)
            && claimant.term.is_some_and(|term| term < self.term)
    }
}

/// Where else the name is connected, as far as is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The other replica of global.
    pub replica: String,
    /// Who led the zone when its leader connected last.
    pub leader: Option<ZoneLeader>,
}

/// What becomes of a new stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It opens; older streams of the name end.
    Admitted,
    /// Somebody else holds the name, and may be gone soon.
    Held {
        /// Where the holder is.
        by: String,
    },
    /// Another leader of the same zone holds it, in a newer term: this one has not heard yet that it leads no more.
    Replaced {
        /// Where the leader is.
        by: String,
    },
    /// Nobody holds it now, but it is kept for who held it.
    Reserved {
        /// For this time.
        remaining: Duration,
    },
}

/// One open stream of the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding<'a> {
    /// Who opened it.
    pub by: &'a Claimant,
    /// It is a stream of the kind that is asked for.
    pub same_kind: bool,
}

/// The name's history, as far as it decides.
#[derive(Debug, Clone)]
pub struct Tenure {
    /// Identity that held it last.
    pub identity: Option<String>,
    /// When its last stream ended, or this process began to watch; monotonic.
    pub away_since: Duration,
    reserved_for: Duration,
    /// Instances that a newer one replaced, and when.
    replaced: VecDeque<(String, Duration)>,
}

impl Tenure {
    /// Of a name that is watched since `away_since` (monotonic), and that stays reserved for `reserved_for`.
    pub fn new(away_since: Duration, reserved_for: Duration) -> Tenure {
        Tenure { identity: None, away_since, reserved_for, replaced: VecDeque::new() }
    }

    /// What becomes of a stream of `claimant`. `open` are the streams of the name here; `elsewhere` tells of another
    /// replica of global at which the name is connected.
    pub fn judge<'a>(
        &self,
        claimant: &Claimant,
        open: impl Iterator<Item = Holding<'a>>,
        elsewhere: Option<&Elsewhere>,
        now: Duration,
    ) -> Verdict {
        let is_same = claimant.identity.is_some() && claimant.identity == self.identity;
        let returns = self.was_replaced(&claimant.instance, now);
        // However late it comes.
        let is_former = |by: &Claimant| {
            claimant.identity.is_some()
                && by.identity == claimant.identity
                && by.instance != claimant.instance
                && claimant.term.zip(by.term).is_some_and(|(own, other)| own < other)
        };
        let rival = |holding: &Holding<'_>| match (&claimant.identity, &holding.by.identity) {
            (Some(own), Some(other)) if own == other => {
                let is_newer = claimant.term.zip(holding.by.term).is_some_and(|(own, other)| own > other);
                let returns_now = holding.by.instance != claimant.instance && returns && !is_newer;
                is_former(holding.by) || returns_now
            }
            // The name belongs to who asks: whoever took it meanwhile yields.
            _ if is_same => false,
            (None, None) => holding.same_kind,
            _ => true,
        };
        if let Some(Holding { by, .. }) = { open }.find(rival) {
            let (is_former, by) = (is_former(by), describe(by));
            return if is_former { Verdict::Replaced { by } } else { Verdict::Held { by } };
        }
        if let Some(Elsewhere { replica, leader: Some(leader) }) = elsewhere
            && leader.instance != claimant.instance
            && leader.replaced(claimant)
        {
            return Verdict::Replaced { by: format!("control plane {}, over {replica},", leader.instance) };
        }
        if is_same || self.identity.is_none() {
            return Verdict::Admitted;
        }
        if let Some(Elsewhere { replica, .. }) = elsewhere {
            return Verdict::Held { by: format!("a control plane that is connected to {replica}") };
        }
        match self.reserved_for.checked_sub(now.saturating_sub(self.away_since)) {
            Some(remaining) if !remaining.is_zero() => Verdict::Reserved { remaining },
            _ => Verdict::Admitted,
        }
    }

    /// A stream of `claimant` opened in the place of these.
    pub fn admitted<'a>(
        &mut self,
        claimant: &Claimant,
        older: impl Iterator<Item = &'a Claimant>,
        now: Duration,
    ) {
        self.identity.clone_from(&claimant.identity);
        for older in older.filter(|older| older.instance != claimant.instance && !older.instance.is_empty()) {
            if !self.was_replaced(&older.instance, now) {
                if self.replaced.len() == REPLACED_MAX {
                    self.replaced.pop_front();
                }
                self.replaced.push_back((older.instance.clone(), now));
            }
        }
        self.replaced.retain(|(instance, _)| *instance != claimant.instance);
    }

    /// `claimant` may not open a stream now. An instance that was replaced and keeps asking stays replaced.
    pub fn refused(&mut self, claimant: &Claimant, now: Duration) {
        for (_, at) in self.replaced.iter_mut().filter(|(instance, _)| *instance == claimant.instance) {
            *at = now;
        }
    }

    fn was_replaced(&self, instance: &str, now: Duration) -> bool {
        let recent = |at: &Duration| now.saturating_sub(*at) < NO_RETURN_FOR;
        self.replaced.iter().any(|(replaced, at)| replaced == instance && recent(at))
    }
}

fn describe(claimant: &Claimant) -> String {
    match (claimant.instance.as_str(), claimant.address.as_str()) {
        ("", "") => "another control plane".into(),
        ("", address) => format!("a control plane at {address}"),
        (instance, address) => format!("control plane {instance} at {address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk(identity: &str, instance: &str) -> Claimant {
        Claimant {
            identity: Some(identity.to_owned()).filter(|identity| !identity.is_empty()),
            instance: instance.into(),
            term: None,
            address: "192.0.2.1".into(),
        }
    }

    /// Holder of the name, what it was before, who asks, and what becomes of it.
    #[test]
    fn verdicts() {
        let held = |by: &str| Verdict::Held { by: by.into() };
        let reserved = |seconds| Verdict::Reserved { remaining: Duration::from_secs(seconds) };
        let (a, b, stock) = (mk("a", "a-1"), mk("b", "b-1"), mk("", ""));
        let at_a = "control plane a-1 at 192.0.2.1";
        struct Case<'a> {
            what: &'a str,
            last: Option<&'a str>,
            open: Vec<(&'a Claimant, bool)>,
            elsewhere: Option<&'a Elsewhere>,
            asks: &'a Claimant,
            now: u64,
            want: Verdict,
        }
        let case =
            |what, last, open, asks, now, want| Case { what, last, open, elsewhere: None, asks, now, want };
        let other_leader = mk("a", "a-2");
        let at_other = Elsewhere { replica: "global-2".into(), leader: None };
        for Case { what, last, open, elsewhere, asks, now, want } in [
            case("a new zone", None, vec![], &a, 0, Verdict::Admitted),
            case("a new stock zone", None, vec![], &stock, 0, Verdict::Admitted),
            case("its other streams", Some("a"), vec![(&a, false)], &a, 0, Verdict::Admitted),
            case("its old stream is dead", Some("a"), vec![(&a, true)], &a, 0, Verdict::Admitted),
            case("another leader", Some("a"), vec![(&a, true)], &other_leader, 0, Verdict::Admitted),
            case("a second zone", Some("a"), vec![(&a, true)], &b, 0, held(at_a)),
            case("a second zone, other stream", Some("a"), vec![(&a, false)], &b, 0, held(at_a)),
            case("a stock zone beside ours", Some("a"), vec![(&a, false)], &stock, 0, held(at_a)),
            case(
                "two stock zones",
                None,
                vec![(&stock, true)],
                &stock,
                0,
                held("a control plane at 192.0.2.1"),
            ),
            case("other streams of a stock zone", None, vec![(&stock, false)], &stock, 0, Verdict::Admitted),
            case(
                "ours beside a stock zone",
                None,
                vec![(&stock, false)],
                &a,
                0,
                held("a control plane at 192.0.2.1"),
            ),
            case("the owner after a usurper", Some("a"), vec![(&b, true)], &a, 0, Verdict::Admitted),
            case("a lost disk, too early", Some("a"), vec![], &b, 105, reserved(25)),
            case("a lost disk", Some("a"), vec![], &b, 130, Verdict::Admitted),
            case("a stock zone instead of ours", Some("a"), vec![], &stock, 130, Verdict::Admitted),
            Case {
                elsewhere: Some(&at_other),
                ..case(
                    "held at another replica",
                    Some("a"),
                    vec![],
                    &b,
                    500,
                    held("a control plane that is connected to global-2"),
                )
            },
            Case {
                elsewhere: Some(&at_other),
                ..case("came over from another replica", Some("a"), vec![], &a, 500, Verdict::Admitted)
            },
            Case {
                elsewhere: Some(&at_other),
                ..case(
                    "streams of a stock zone over a balancer",
                    None,
                    vec![],
                    &stock,
                    500,
                    Verdict::Admitted,
                )
            },
        ] {
            let mut tenure = Tenure::new(Duration::from_secs(100), RESERVED_FOR);
            tenure.identity = last.map(str::to_owned);
            let open = open.into_iter().map(|(by, same_kind)| Holding { by, same_kind });
            assert_eq!(tenure.judge(asks, open, elsewhere, Duration::from_secs(now)), want, "{what}");
        }
    }

    /// Leaders of one zone: the newest term has the name, whoever connects last.
    #[test]
    fn a_former_leader_does_not_replace_the_leader() {
        let led = |instance: &str, term| Claimant { term, ..mk("a", instance) };
        let tenure = Tenure { identity: Some("a".into()), ..Tenure::new(Duration::ZERO, RESERVED_FOR) };
        let judge = |tenure: &Tenure, asks: &Claimant, holds: &Claimant| {
            let open = [Holding { by: holds, same_kind: true }].into_iter();
            let verdict = tenure.judge(asks, open, None, Duration::from_secs(10));
            let is_told = asks.term.is_none() || matches!(verdict, Verdict::Replaced { .. });
            assert!(verdict == Verdict::Admitted || is_told, "{verdict:?}");
            verdict == Verdict::Admitted
        };
        for (asks, holds, is_admitted) in [
            (led("a-1", Some(1)), led("a-2", Some(2)), false),
            (led("a-2", Some(2)), led("a-1", Some(1)), true),
            (led("a-1", Some(2)), led("a-2", Some(2)), true),
            (led("a-1", Some(1)), led("a-1", Some(2)), true),
            (led("a-1", None), led("a-2", Some(2)), true),
            (led("a-1", Some(1)), led("a-2", None), true),
        ] {
            assert_eq!(judge(&tenure, &asks, &holds), is_admitted, "{asks:?} {holds:?}");
        }
        // Who was replaced and leads again comes back at once.
        let mut replaced = tenure;
        replaced.admitted(&led("a-2", Some(2)), [&led("a-1", Some(1))].into_iter(), Duration::from_secs(9));
        assert!(!judge(&replaced, &led("a-1", None), &led("a-2", None)));
        assert!(judge(&replaced, &led("a-1", Some(3)), &led("a-2", Some(2))));
    }

    /// The leader is connected to another replica of global.
    #[test]
    fn a_former_leader_does_not_replace_the_leader_at_another_replica() {
        let tenure = Tenure { identity: Some("a".into()), ..Tenure::new(Duration::ZERO, RESERVED_FOR) };
        for (identity, instance, term, leads, is_admitted) in [
            ("a", "a-1", Some(1), Some(("a", 2)), false),
            ("a", "a-1", Some(2), Some(("a", 2)), true),
            ("a", "a-1", Some(3), Some(("a", 2)), true),
            // It does not say, or nobody said before.
            ("a", "a-1", None, Some(("a", 2)), true),
            ("a", "a-1", Some(1), None, true),
            // The connection there is its own older one.
            ("a", "a-2", Some(1), Some(("a", 2)), true),
            // That one led what had the name before.
            ("a", "a-1", Some(1), Some(("b", 2)), true),
        ] {
            let asks = Claimant { term, ..mk(identity, instance) };
            let leader =
                leads.map(|(of, term)| ZoneLeader { identity: of.into(), instance: "a-2".into(), term });
            let elsewhere = Elsewhere { replica: "global-2".into(), leader };
            let verdict = tenure.judge(&asks, std::iter::empty(), Some(&elsewhere), Duration::from_secs(99));
            let want = match is_admitted {
                true => Verdict::Admitted,
                false => Verdict::Replaced { by: "control plane a-2, over global-2,".into() },
            };
            assert_eq!(verdict, want, "{asks:?} {elsewhere:?}");
        }
    }

    /// Two processes with one identity: the newer one stays, the older one does not come back while it does.
    #[test]
    fn copies_of_one_disk_do_not_alternate() {
        let (first, second) = (mk("a", "a-1"), mk("a", "a-2"));
        let at = Duration::from_secs;
        let mut tenure = Tenure::new(at(0), RESERVED_FOR);
        tenure.admitted(&first, std::iter::empty(), at(0));
        tenure.admitted(&second, [&first].into_iter(), at(10));
        let open = |by| [Holding { by, same_kind: true }].into_iter();
        assert!(matches!(tenure.judge(&first, open(&second), None, at(20)), Verdict::Held { .. }));
        assert_eq!(tenure.judge(&first, std::iter::empty(), None, at(20)), Verdict::Admitted, "it is gone");
        assert_eq!(tenure.judge(&second, open(&second), None, at(20)), Verdict::Admitted);
        let mut asking = tenure.clone();
        asking.refused(&first, at(50));
        assert!(
            matches!(asking.judge(&first, open(&second), None, at(100)), Verdict::Held { .. }),
            "it kept asking"
        );
        assert_eq!(tenure.judge(&first, open(&second), None, at(70)), Verdict::Admitted, "much later");
        for instance in 0..10 * REPLACED_MAX {
            tenure.admitted(&second, [&mk("a", &format!("x-{instance}"))].into_iter(), at(70));
        }
        assert!(tenure.replaced.len() <= REPLACED_MAX);
    }
}
