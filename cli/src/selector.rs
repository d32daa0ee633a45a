//! Label selectors: `-l team=a,env!=prod,owner,!legacy`.

use std::str::FromStr;

use serde_json::Value;

/// All of its requirements must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Is(String),
    IsNot(String),
    Present,
    Absent,
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Selector, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let requirements = parts.map(requirement).collect::<Result<Vec<_>, _>>()?;
        if requirements.is_empty() {
            return Err("it is empty; write key=value, key!=value, key or !key, separated by commas".into());
        }
        Ok(Selector(requirements))
    }
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let (key, test) = if let Some((key, value)) = text.split_once("!=") {
        (key, Test::IsNot(value.trim().into()))
    } else if let Some((key, value)) = text.split_once('=') {
        (key, Test::Is(value.strip_prefix('=').unwrap_or(value).trim().into()))
    } else if let Some(key) = text.strip_prefix('!') {
        (key, Test::Absent)
    } else {
        (text, Test::Present)
    };
    let key = key.trim();
    match graticule_model::name::label_key_errors(key).first() {
        None => Ok(Requirement { key: key.into(), test }),
        Some(error) => Err(format!("\"{key}\" is no label: {error}")),
    }
}

impl Selector {
    /// The requirements that the API can check (rest-api.md §4), so that less is sent; the others are left to
    /// [`matches`](Self::matches).
    pub(crate) fn query(&self) -> Vec<(String, String)> {
        let pairs = self.0.iter().filter_map(|requirement| match &requirement.test {
            Test::Is(value) => Some((format!("filter[labels.{}]", requirement.key), value.clone())),
            _ => None,
        });
        pairs.collect()
    }

    /// Whether a resource is selected.
    pub(crate) fn matches(&self, item: &Value) -> bool {
        self.0.iter().all(|requirement| {
            let value = item["labels"].get(&requirement.key).and_then(Value::as_str);
            match &requirement.test {
                Test::Is(wanted) => value == Some(wanted),
                Test::IsNot(other) => value != Some(other),
                Test::Present => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selection() {
        let item = json!({"labels": {"team": "a", "kuma.io/zone": "east"}});
        for (text, wanted) in [
            ("team=a", true),
            ("team==a", true),
            ("team=b", false),
            ("team!=b,kuma.io/zone", true),
            ("!team", false),
            ("!other, team = a", true),
            ("other!=x", true),
            ("other=", false),
        ] {
            assert_eq!(text.parse::<Selector>().expect(text).matches(&item), wanted, "{text}");
        }
        assert!(!"a".parse::<Selector>().expect("selector").matches(&json!({})));
        for text in ["", ",", "=a", "a b=c"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_api_checks() {
        let selector: Selector = "a/b=c,d!=e,f".parse().expect("selector");
        assert_eq!(selector.query(), [("filter[labels.a/b]".to_owned(), "c".to_owned())]);
    }
}
