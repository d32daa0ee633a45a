//! What our control planes tell each other with each response: in `system_version_info`, which Kuma peers leave empty and do
//! not read (federation.md §1.6). Only who says in its first requests that it takes parts is told.

use graticule_store::Revision;

/// The first word.
const MARK: &str = "graticule";
const REVISION: &str = "revision=";
const AGAIN: &str = "again=";
const MORE_FOLLOWS: &str = "more-follows";

/// What a response says besides its resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    /// Revision of the sender's store that the receiver has all of once it has taken this response and those before it.
    pub(super) revision: Revision,
    /// Which request for the kind it answers: 0, or the number that a further request bore.
    pub(super) again: u64,
    /// Other parts of a first state follow.
    pub(super) more_follows: bool,
}

impl Stamp {
    pub(super) fn to_text(self) -> String {
        let mut text = format!("{MARK} {REVISION}{}", self.revision.0);
        if self.again > 0 {
            text.push_str(&format!(" {AGAIN}{}", self.again));
        }
        if self.more_follows {
            text.push(' ');
            text.push_str(MORE_FOLLOWS);
        }
        text
    }

    /// `None`: the sender is a Kuma peer.
    pub(super) fn read(text: &str) -> Option<Stamp> {
        let mut words = text.split(' ');
        if words.next() != Some(MARK) {
            return None;
        }
        let mut stamp = Stamp::default();
        for word in words {
            if let Some(revision) = word.strip_prefix(REVISION) {
                stamp.revision = Revision(revision.parse().ok()?);
            } else if let Some(again) = word.strip_prefix(AGAIN) {
                stamp.again = again.parse().ok()?;
            } else if word == MORE_FOLLOWS {
                stamp.more_follows = true;
            }
            // A newer peer may say more.
        }
        Some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_read_as_they_are_written() {
        for (stamp, text) in [
            (Stamp::default(), "graticule revision=0"),
            (
                Stamp { revision: Revision(7), again: 2, more_follows: true },
                "graticule revision=7 again=2 more-follows",
            ),
        ] {
            assert_eq!(stamp.to_text(), text);
            assert_eq!(Stamp::read(text), Some(stamp));
        }
        for (text, want) in [
            ("", None),
            ("1", None),
            ("graticules revision=1", None),
            ("graticule revision=-1", None),
            ("graticule revision=1 again=x", None),
            ("graticule revision=3 later", Some(Stamp { revision: Revision(3), ..Stamp::default() })),
        ] {
            assert_eq!(Stamp::read(text), want, "{text:?}");
        }
    }
}
