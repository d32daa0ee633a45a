//! The name that was probably meant.

/// Most names are within this distance of what was meant.
const DISTANCE_MAX: usize = 8;

/// The known name with the smallest edit distance, unless all are far away.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let limit = (name.chars().count() / 2).clamp(1, DISTANCE_MAX);
    known
        .map(|known| (distance(name, known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, known)| known.to_owned())
}

/// Insertions, deletions, replacements and swaps of neighbours between two names, case ignored.
fn distance(a: &str, b: &str) -> usize {
    let [a, b] = [a, b].map(|name| name.chars().flat_map(char::to_lowercase).collect::<Vec<_>>());
    // rows[i][j]: distance between the first i characters of a and the first j of b.
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let shortest = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { shortest.min(rows[i - 2][j - 2] + 1) } else { shortest }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["ZONE_NAME", "ZONE_PORT", "MODE"];
        for (name, want) in [
            ("ZONE_NMAE", Some("ZONE_NAME")),
            ("zone_port", Some("ZONE_PORT")),
            ("MODES", Some("MODE")),
            ("SOMETHING_ELSE_ALTOGETHER", None),
        ] {
            assert_eq!(nearest(name, known.into_iter()).as_deref(), want, "{name}");
        }
    }
}
