//! Whether what clients saw of a register could have happened: linearizability of histories in which every write has a
//! value of its own (Gibbons and Korach, "Testing Shared Memories", SIAM J. Comput. 26, 1997).
//!
//! All that was done with one value is a cluster. Between its first end and its last beginning the register must have
//! had the value (a forward zone), or else it had it at some moment between its last beginning and its first end (a
//! backward zone). A history is linearizable exactly if no read ends before its write begins, no two forward zones
//! overlap, and no backward zone lies within a forward zone.

use std::collections::BTreeMap;

/// One operation on a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What it did.
    pub action: Action,
    /// When it began; all times are of one clock, and differ.
    pub begin: u64,
    /// When it was answered; none: never, so that it may have happened at any time since, or not at all.
    pub end: Option<u64>,
}

/// What an operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Wrote a value that nobody else writes.
    Write(String),
    /// Read a value; none: nothing was written yet.
    Read(Option<String>),
}

/// The times of everything that was done with one value.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    write_begin: u64,
    first_end: u64,
    last_begin: u64,
}

impl Cluster {
    fn add(&mut self, operation: &Operation) {
        self.first_end = self.first_end.min(operation.end.unwrap_or(u64::MAX));
        self.last_begin = self.last_begin.max(operation.begin);
    }
}

/// Checks the history of one register.
///
/// # Errors
/// Why it cannot have happened.
pub fn check(operations: &[Operation]) -> Result<(), String> {
    // Before everything, nothing was there.
    let nothing = Cluster { write_begin: 0, first_end: 0, last_begin: 0 };
    let mut clusters: BTreeMap<Option<&str>, Cluster> = BTreeMap::from([(None, nothing)]);
    for operation in operations {
        let Action::Write(value) = &operation.action else { continue };
        let cluster = Cluster { write_begin: operation.begin, first_end: u64::MAX, last_begin: 0 };
        if clusters.insert(Some(value), cluster).is_some() {
            return Err(format!("{value:?} is written twice"));
        }
        if let Some(cluster) = clusters.get_mut(&Some(value.as_str())) {
            cluster.add(operation);
        }
    }
    for operation in operations {
        let Action::Read(value) = &operation.action else { continue };
        // A read without an answer says nothing.
        let Some(end) = operation.end else { continue };
        let Some(cluster) = clusters.get_mut(&value.as_deref()) else {
            return Err(format!("{value:?} is read at {end}, and nobody wrote it"));
        };
        if end < cluster.write_begin {
            return Err(format!("{value:?} is read at {end}, before it was written"));
        }
        cluster.add(operation);
    }
    // What was never answered and never seen need not have happened.
    let seen = clusters.iter().filter(|(_, cluster)| cluster.first_end != u64::MAX);
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for (value, cluster) in seen {
        if cluster.first_end < cluster.last_begin {
            forward.push((cluster.first_end, cluster.last_begin, *value));
        } else {
            backward.push((cluster.last_begin, cluster.first_end, *value));
        }
    }
    forward.sort_unstable();
    for pair in forward.windows(2) {
        let [(_, end, earlier), (begin, _, later)] = pair else { continue };
        if begin < end {
            return Err(format!("{earlier:?} was there until {end} at least, and {later:?} since {begin}"));
        }
    }
    for (begin, end, value) in backward {
        let within = forward.iter().find(|(first, last, _)| *first < begin && end < *last);
        if let Some((first, last, other)) = within {
            return Err(format!(
                "{value:?} was there between {begin} and {end}, and {other:?} all the time from {first} to {last}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    fn write(value: &str, begin: u64, end: impl Into<Option<u64>>) -> Operation {
        Operation { action: Action::Write(value.into()), begin, end: end.into() }
    }

    fn read(value: Option<&str>, begin: u64, end: u64) -> Operation {
        Operation { action: Action::Read(value.map(Into::into)), begin, end: Some(end) }
    }

    #[test]
    fn histories() {
        for (what, history, is_good) in [
            ("nothing", vec![], true),
            ("a write is read", vec![write("a", 1, 2), read(Some("a"), 3, 4)], true),
            ("a lost write", vec![write("a", 1, 2), read(None, 3, 4)], false),
            ("a read from the future", vec![read(Some("a"), 1, 2), write("a", 3, 4)], false),
            ("a stale read", vec![write("a", 1, 2), write("b", 3, 4), read(Some("a"), 5, 6)], false),
            ("a read beside a write", vec![write("a", 1, 2), write("b", 3, 6), read(Some("a"), 4, 5)], true),
            (
                "back in time",
                vec![write("a", 1, 2), write("b", 3, 10), read(Some("b"), 4, 5), read(Some("a"), 6, 7)],
                false,
            ),
            ("no answer, not there", vec![write("a", 1, None), read(None, 2, 3)], true),
            ("no answer, there", vec![write("a", 1, None), read(None, 2, 3), read(Some("a"), 4, 5)], true),
            (
                "no answer, there and gone",
                vec![write("a", 1, None), read(Some("a"), 2, 3), read(None, 4, 5)],
                false,
            ),
            ("out of nowhere", vec![read(Some("x"), 1, 2)], false),
        ] {
            assert_eq!(check(&history).is_ok(), is_good, "{what}: {:?}", check(&history));
        }
    }

    /// Tries all orders.
    fn is_linearizable(operations: &[Operation], state: Option<&str>) -> bool {
        if operations.iter().all(|operation| operation.end.is_none()) {
            return true;
        }
        let first_end = operations.iter().filter_map(|operation| operation.end).min().unwrap_or(u64::MAX);
        (0..operations.len()).any(|index| {
            let operation = &operations[index];
            if operation.begin > first_end {
                return false;
            }
            let rest: Vec<Operation> =
                operations.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, o)| o.clone()).collect();
            match &operation.action {
                Action::Write(value) => is_linearizable(&rest, Some(value)),
                Action::Read(value) => value.as_deref() == state && is_linearizable(&rest, state),
            }
        })
    }

    #[test]
    fn agrees_with_trying_all_orders() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut counts = [0_u32; 2];
        for _ in 0..20_000 {
            let len = random.random_range(1..=6_usize);
            let mut times: Vec<u64> = (1..=2 * len as u64).collect();
            for index in (1..times.len()).rev() {
                times.swap(index, random.random_range(0..=index));
            }
            let values = ["a", "b", "c"];
            let mut written = 0;
            let mut history = Vec::new();
            for pair in times.chunks(2) {
                let (begin, end) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                if written < values.len() && random.random_bool(0.5) {
                    let end = random.random_bool(0.8).then_some(end);
                    history.push(write(values[written], begin, end));
                    written += 1;
                } else {
                    let value = random.random_range(0..=values.len());
                    history.push(read(values.get(value).copied(), begin, end));
                }
            }
            let wanted = is_linearizable(&history, None);
            assert_eq!(check(&history).is_ok(), wanted, "{history:?}: {:?}", check(&history));
            counts[usize::from(wanted)] += 1;
        }
        assert!(counts.iter().all(|count| *count > 1000), "{counts:?}");
    }
}
