//! What is refused of one kind, within bounds: a peer invents as many names and reasons as it likes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, DefaultHasher, Hash as _, Hasher as _, RandomState};

use super::sink::Obstacle;

/// Entries of each kind that keep their name and reason.
pub(super) const NAMED_MAX: usize = 200;
/// Entries of each kind that something else is in the way of keep it, and their name and reason: they are asked for again.
const OBSTRUCTED_MAX: usize = 4_096;
/// Further names of each kind that are told apart, by a hash of each.
const HASHED_MAX: usize = 8_192;
/// Bytes of a reason that are kept.
pub(super) const REASON_LEN_MAX: usize = 1024;
/// Bytes of a name that are kept; no resource has a longer one.
pub(super) const NAME_LEN_MAX: usize = 512;

/// The beginning of a text, of at most so many bytes.
pub(super) fn beginning(text: &str, len_max: usize) -> &str {
    let end = (0..=len_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// A reason, cut where it is too long.
pub(crate) fn short_reason(reason: &str) -> Cow<'_, str> {
    if reason.len() <= REASON_LEN_MAX {
        return reason.into();
    }
    format!("{}… ({} bytes)", beginning(reason, REASON_LEN_MAX), reason.len()).into()
}

/// A name, cut where it is longer than any name can be; two that begin alike stay different.
pub(crate) fn short_name(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_LEN_MAX {
        return name.into();
    }
    let mut hash = DefaultHasher::new();
    name.hash(&mut hash);
    format!("{}… {:016x}", beginning(name, NAME_LEN_MAX), hash.finish()).into()
}

#[derive(Debug)]
struct Refusal {
    reason: String,
    obstacle: Option<Obstacle>,
}

/// What is refused of one kind. Totals are exact up to 8,192 names and those that are kept; of more names than that, those beyond are not counted.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    named: BTreeMap<String, Refusal>,
    others: HashSet<u64>,
    hasher: RandomState,
}

impl Quarantine {
    /// Refused, for this reason, because of this obstacle.
    pub(super) fn insert(&mut self, name: &str, reason: &str, obstacle: Option<&Obstacle>) {
        let short = short_name(name);
        let hash = self.hasher.hash_one(name);
        let named_max = if obstacle.is_some() { OBSTRUCTED_MAX } else { NAMED_MAX };
        if self.named.len() < named_max || self.named.contains_key(&*short) {
            self.others.remove(&hash);
            let refusal = Refusal { reason: short_reason(reason).into_owned(), obstacle: obstacle.cloned() };
            self.named.insert(short.into_owned(), refusal);
        } else if self.others.len() < HASHED_MAX {
            self.others.insert(hash);
        }
    }

    /// No longer refused.
    pub(super) fn remove(&mut self, name: &str) {
        if self.named.remove(&*short_name(name)).is_none() && !self.others.is_empty() {
            self.others.remove(&self.hasher.hash_one(name));
        }
    }

    /// Whether this is refused.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.named.contains_key(&*short_name(name)) || self.others.contains(&self.hasher.hash_one(name))
    }

    /// Nothing is refused.
    pub(super) fn clear(&mut self) {
        self.named.clear();
        self.others = HashSet::new();
    }

    /// Names with their reasons.
    pub(super) fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named.iter().map(|(name, refusal)| (name.as_str(), refusal.reason.as_str()))
    }

    /// Names with what is in their way.
    pub(super) fn obstructed(&self) -> impl Iterator<Item = (&str, &Obstacle)> {
        self.named.iter().filter_map(|(name, refusal)| Some((name.as_str(), refusal.obstacle.as_ref()?)))
    }

    /// How many more there are.
    pub(super) fn unnamed(&self) -> usize {
        self.others.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_totals_are_true() {
        let mut quarantine = Quarantine::default();
        let long = "x".repeat(1 << 20);
        let count = |quarantine: &Quarantine| quarantine.named().count() + quarantine.unnamed();
        for n in 0..1_000 {
            quarantine.insert(&format!("n{n}"), &long, None);
            // Again, for another reason.
            quarantine.insert(&format!("n{n}"), "bad", None);
        }
        assert_eq!((count(&quarantine), quarantine.named().count()), (1_000, NAMED_MAX));
        // Both what has a name and what has none is forgotten when it is taken.
        for n in 0..100 {
            quarantine.remove(&format!("n{n}"));
            quarantine.remove(&format!("n{}", 900 + n));
        }
        assert_eq!(count(&quarantine), 800);
        let long = "x".repeat(2 * NAME_LEN_MAX);
        for n in 0..100_000 {
            quarantine.insert(&format!("{long}{n}"), &long, None);
        }
        assert_eq!(count(&quarantine), NAMED_MAX + HASHED_MAX);
        let len: usize = quarantine.named().map(|(name, reason)| name.len() + reason.len()).sum();
        assert!(len < NAMED_MAX * (NAME_LEN_MAX + REASON_LEN_MAX + 100), "{len}");
        // What can be repaired is remembered longer than what cannot.
        for n in 0..10_000 {
            quarantine.insert(&format!("o{n}"), "in the way", Some(&Obstacle::Store));
        }
        assert_eq!(quarantine.named().count(), OBSTRUCTED_MAX);
        assert_eq!(quarantine.obstructed().count(), OBSTRUCTED_MAX - NAMED_MAX);
        quarantine.clear();
        assert_eq!(count(&quarantine), 0);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(beginning("äöü", 3), "ä");
        assert_eq!(short_reason("short"), "short");
        let cut = short_reason(&"ä".repeat(800)).into_owned();
        assert!(cut.ends_with("… (1600 bytes)") && cut.len() < REASON_LEN_MAX + 30, "{cut}");
        let [a, b] = ["a", "b"].map(|end| short_name(&format!("{}{end}", "ä".repeat(400))).into_owned());
        assert!(a != b && a.len() < NAME_LEN_MAX + 30, "{a}");
    }
}
