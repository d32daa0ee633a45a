//! Durations in the notation of Go (`1h30m`, `250ms`), as the resource model uses them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A signed duration in nanoseconds, read from and written in Go notation (`2h0m0s`, `25ms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GoDuration(pub i64);

impl GoDuration {
    /// From whole seconds.
    pub const fn from_secs(secs: i64) -> GoDuration {
        GoDuration(secs * 1_000_000_000)
    }

    /// From whole milliseconds.
    pub const fn from_millis(millis: i64) -> GoDuration {
        GoDuration(millis * 1_000_000)
    }

    /// Clamped to zero when negative.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<Duration> for GoDuration {
    fn from(value: Duration) -> Self {
        GoDuration(i64::try_from(value.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// Text that is no duration; the message is the one of Go's parser.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number, or nothing at all.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that does not exist.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || DurationError::Invalid(text.into());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(GoDuration(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, tail) = rest.split_at(number_len);
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
                return Err(invalid());
            }
            let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, next) = tail.split_at(unit_len);
            let scale: i128 = match unit {
                "" => return Err(DurationError::MissingUnit(text.into())),
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                other => return Err(DurationError::UnknownUnit { unit: other.into(), text: text.into() }),
            };
            let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
            let mut part = whole.checked_mul(scale).ok_or_else(invalid)?;
            let mut digit_scale = scale;
            for digit in fraction.bytes() {
                digit_scale /= 10;
                part += i128::from(digit - b'0') * digit_scale;
            }
            total = total.checked_add(part).ok_or_else(invalid)?;
            rest = next;
        }
        if negative {
            total = -total;
        }
        i64::try_from(total).map(GoDuration).map_err(|_| invalid())
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < 1_000_000_000 {
            let (scale, unit) = if nanos >= 1_000_000 {
                (1_000_000, "ms")
            } else if nanos >= 1_000 {
                (1_000, "µs")
            } else {
                (1, "ns")
            };
            return write!(f, "{}{unit}", fraction(nanos, scale));
        }
        let secs = nanos / 1_000_000_000;
        let (hours, minutes) = (secs / 3600, secs / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", fraction(nanos % 60_000_000_000, 1_000_000_000))
    }
}

/// `value / scale` in decimal without trailing zeros.
fn fraction(value: u64, scale: u64) -> String {
    let digits = scale.ilog10() as usize;
    let mut text = format!("{}.{:0digits$}", value / scale, value % scale);
    if digits == 0 {
        text.truncate(text.len() - 2);
        return text;
    }
    let trimmed = text.trim_end_matches('0').trim_end_matches('.').len();
    text.truncate(trimmed);
    text
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_notation() {
        for (text, want) in [
            ("20m", "20m0s"),
            ("1h", "1h0m0s"),
            ("111s", "1m51s"),
            ("0s", "0s"),
            ("0", "0s"),
            ("25ms", "25ms"),
            ("1.5s", "1.5s"),
            ("-90m", "-1h30m0s"),
            ("1us", "1µs"),
            ("1h0m0.5s", "1h0m0.5s"),
            (".5s", "500ms"),
            ("7ns", "7ns"),
        ] {
            assert_eq!(text.parse::<GoDuration>().expect(text).to_string(), want, "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in ["", "-", "ten", "1d", "3600", "1.2.3s", ".s", "9999999999999h"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
        assert_eq!("ten".parse::<GoDuration>().unwrap_err().to_string(), "time: invalid duration \"ten\"");
    }
}
