//! Times as people want to read them.

use jiff::Timestamp;
use serde_json::Value;

/// How long ago: `12s`, `5m`, `3h`, `2d`; `never` without a time.
pub(crate) fn age(time: Option<Timestamp>, now: Timestamp) -> String {
    let Some(time) = time else { return "never".into() };
    let seconds = now.as_second().saturating_sub(time.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time of a document; the zero time of the reference counts as none.
pub(crate) fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok().filter(|time: &Timestamp| time.as_second() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let now: Timestamp = "2026-08-10T12:00:00Z".parse().expect("time");
        for (text, wanted) in [
            ("2026-08-10T11:59:58.5Z", "2s"),
            ("2026-08-10T12:00:09Z", "0s"),
            ("2026-08-10T11:55:00Z", "5m"),
            ("2026-08-10T03:00:00Z", "9h"),
            ("2026-07-31T12:00:00Z", "10d"),
            ("0001-01-01T00:00:00Z", "never"),
            ("nonsense", "never"),
        ] {
            assert_eq!(age(time(&text.into()), now), wanted, "{text}");
        }
    }
}
