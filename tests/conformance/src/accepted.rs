//! Differences from the recordings that are meant: every one has its reason, and nothing else is let through.

use serde_json::Value;

use crate::compare::{Difference, Found};
use crate::report::CaseReport;

/// An accepted difference.
#[derive(Debug)]
pub struct Accepted {
    /// Glob over names of cases (`*` matches anything).
    pub case: &'static str,
    /// Glob over paths in the document.
    pub path: &'static str,
    /// What ours must be there.
    pub ours: Ours,
    /// Why.
    pub reason: &'static str,
}

/// What is accepted as our value.
#[derive(Debug)]
pub enum Ours {
    /// Exactly this JSON text.
    Is(&'static str),
    /// A string that matches this glob.
    Like(&'static str),
    /// Nothing: the recording has the member or item and we do not.
    Absent,
    /// A member or item that the recording does not have.
    Additional,
    /// One that is exactly this JSON text.
    Added(&'static str),
    /// The same certificate once, where the recording repeats it.
    Deduplicated,
    /// The same items in another order.
    Reordered,
    /// A number that is smaller by one.
    OneLess,
    /// A value of the right form, where the recording has the same one as elsewhere.
    Another,
}

/// An accepted difference.
pub const fn differs(case: &'static str, path: &'static str, ours: Ours, reason: &'static str) -> Accepted {
    Accepted { case, path, ours, reason }
}

/// The entry that accepts a difference, if one does.
pub fn find(list: &'static [Accepted], case: &str, difference: &Difference) -> Option<&'static Accepted> {
    list.iter().find(|accepted| {
        glob(accepted.case, case)
            && glob(accepted.path, &difference.path)
            && accepted.ours.covers(&difference.found)
    })
}

/// Differences that an entry of the list accepts, with the entry, and the others.
pub fn split(
    list: &'static [Accepted],
    case: &str,
    found: Vec<Difference>,
) -> (Vec<(Difference, &'static Accepted)>, Vec<Difference>) {
    let (mut accepted, mut unlisted) = (Vec::new(), Vec::new());
    for difference in found {
        match find(list, case, &difference) {
            Some(entry) => accepted.push((difference, entry)),
            None => unlisted.push(difference),
        }
    }
    (accepted, unlisted)
}

/// The case that fails when a difference of the list does not occur any more: its entry would hide others.
pub fn stale(suite: &str, list: &'static [Accepted], cases: &[CaseReport]) -> CaseReport {
    let is_met = |entry: &Accepted| {
        cases.iter().flat_map(|case| &case.accepted).any(|(_, met)| std::ptr::eq(*met, entry))
    };
    let stale: String = list
        .iter()
        .filter(|entry| !is_met(entry))
        .map(|entry| format!("    {} {} does not occur any more\n", entry.case, entry.path))
        .collect();
    let failure = (!stale.is_empty()).then_some(stale);
    CaseReport { name: format!("{suite}/accepted-differences"), failure, ..CaseReport::default() }
}

impl Ours {
    fn covers(&self, found: &Found) -> bool {
        match (self, found) {
            (Ours::Is(text), Found::Other { ours, .. }) => {
                serde_json::from_str::<Value>(text).is_ok_and(|value| value == *ours)
            }
            (Ours::Added(text), Found::Extra(ours)) => {
                serde_json::from_str::<Value>(text).is_ok_and(|value| value == *ours)
            }
            (Ours::Like(pattern), Found::Other { ours: Value::String(ours), .. }) => glob(pattern, ours),
            (Ours::OneLess, Found::Other { recorded, ours }) => {
                number(recorded).zip(number(ours)).is_some_and(|(recorded, ours)| recorded - ours == 1)
            }
            (Ours::Another, Found::Unbound(_)) => true,
            (Ours::Deduplicated, Found::Repeated) | (Ours::Reordered, Found::Order(..)) => true,
            (Ours::Absent, Found::Missing(_)) | (Ours::Additional, Found::Extra(_)) => true,
            _ => false,
        }
    }
}

/// A number, or a text that is one.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// `*` matches any text, also `/`.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            rest.is_empty()
                || tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| glob(rest, &tail[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn globs() {
        for (pattern, text, matches) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("a/*/c", "a/x/y/c", true),
            ("*", "", true),
            ("*/c", "a/d", false),
            ("a*b*c", "aXbYc", true),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} on {text}");
        }
    }
}
