//! SPIFFE ids as they stand in certificates. Who gets which id is decided where proxies are
//! (`graticule_view::identity`).

use std::fmt;

use graticule_model::targetref::check_spiffe_id;

/// A valid SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(String);

/// A text that is no SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id:?} is not a valid SPIFFE ID: {reason}")]
pub struct SpiffeError {
    /// The text.
    pub id: String,
    /// The rule that it breaks.
    pub reason: &'static str,
}

impl SpiffeId {
    /// Checks the grammar.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: impl Into<String>) -> Result<SpiffeId, SpiffeError> {
        let id = text.into();
        match check_spiffe_id(&id) {
            Ok(()) => Ok(SpiffeId(id)),
            Err(reason) => Err(SpiffeError { id, reason }),
        }
    }

    /// As text, with the scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_ids() {
        assert_eq!(
            SpiffeId::parse("spiffe://a.b/workload/web").expect("valid").as_str(),
            "spiffe://a.b/workload/web"
        );
        assert_eq!(
            SpiffeId::parse("spiffe://UPPER").expect_err("invalid").to_string(),
            "\"spiffe://UPPER\" is not a valid SPIFFE ID: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
        );
    }
}
