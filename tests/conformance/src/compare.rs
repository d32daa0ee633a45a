//! JSON comparison of the data set (README §2.1), with the placeholders of the recordings.
//!
//! A placeholder stands for one value for the whole run: the first match binds it, later ones must be the same, and
//! two placeholders never stand for the same value ([`Bindings::shared`]: they may).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use serde_json::Value;

/// Characters of a value that a difference shows.
const SHOWN_MAX: usize = 400;

/// Where two documents differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// JSON pointer; items of lists of named objects go by their name.
    pub path: String,
    /// What was found there.
    pub found: Found,
}

/// What a difference consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The recording has it, ours does not.
    Missing(Value),
    /// Ours has it, the recording does not.
    Extra(Value),
    /// Both have it, with different values.
    Other {
        /// In the recording.
        recorded: Value,
        /// In our document.
        ours: Value,
    },
    /// A placeholder matches in form, but it already stands for another value.
    Unbound(String),
    /// The recording repeats one certificate, ours has it once.
    Repeated,
    /// The same items in another order.
    Order(Vec<String>, Vec<String>),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Value| {
            let text = value.to_string();
            let mut cut: String = text.chars().take(SHOWN_MAX).collect();
            if cut.len() < text.len() {
                cut.push('…');
            }
            cut
        };
        let path = if self.path.is_empty() { "/" } else { &self.path };
        match &self.found {
            Found::Missing(value) => write!(f, "{path}: missing, recorded: {}", shown(value)),
            Found::Extra(value) => write!(f, "{path}: not recorded, ours: {}", shown(value)),
            Found::Other { recorded, ours } => {
                write!(f, "{path}: recorded {}, ours {}", shown(recorded), shown(ours))
            }
            Found::Unbound(text) => write!(f, "{path}: {text}"),
            Found::Repeated => write!(f, "{path}: the recording repeats a certificate, ours has it once"),
            Found::Order(recorded, ours) => write!(f, "{path}: recorded order {recorded:?}, ours {ours:?}"),
        }
    }
}

/// What placeholders stand for.
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    values: BTreeMap<String, String>,
    placeholders: BTreeMap<String, String>,
    /// The placeholders of the REST recordings, of which several may stand for one value.
    shared: bool,
}

impl Bindings {
    /// With the placeholders of the REST recordings, of which several may stand for one value.
    pub fn shared() -> Bindings {
        Bindings { shared: true, ..Bindings::default() }
    }

    /// What a placeholder stands for; named without its brackets.
    pub fn get(&self, placeholder: &str) -> Option<&str> {
        self.values.get(placeholder).map(String::as_str)
    }

    /// Sets what a placeholder stands for.
    pub fn set(&mut self, placeholder: &str, value: &str) {
        self.values.insert(placeholder.into(), value.into());
    }

    fn bind(&mut self, placeholder: &str, value: &str) -> Result<(), String> {
        if let Some(bound) = self.values.get(placeholder) {
            return if bound == value {
                Ok(())
            } else {
                Err(format!("<{placeholder}> is another value elsewhere"))
            };
        }
        if let Some(other) = self.placeholders.get(value).filter(|_| !self.shared) {
            return Err(format!(
                "recorded <{placeholder}>, but ours is what is recorded as <{other}> elsewhere"
            ));
        }
        self.values.insert(placeholder.into(), value.into());
        self.placeholders.insert(value.into(), placeholder.into());
        Ok(())
    }
}

/// Compares; differences in the order of the recording.
pub fn compare(recorded: &Value, ours: &Value, bindings: &mut Bindings) -> Vec<Difference> {
    let mut found = Vec::new();
    Comparison { bindings, found: &mut found }.value("", recorded, ours);
    found
}

struct Comparison<'a> {
    bindings: &'a mut Bindings,
    found: &'a mut Vec<Difference>,
}

impl Comparison<'_> {
    fn note(&mut self, path: &str, found: Found) {
        self.found.push(Difference { path: path.into(), found });
    }

    fn value(&mut self, path: &str, recorded: &Value, ours: &Value) {
        match (recorded, ours) {
            (Value::Object(recorded), Value::Object(ours)) => {
                for (key, value) in recorded {
                    let path = format!("{path}/{key}");
                    match ours.get(key) {
                        Some(ours) => self.value(&path, value, ours),
                        None => self.note(&path, Found::Missing(value.clone())),
                    }
                }
                for (key, value) in ours.iter().filter(|(key, _)| !recorded.contains_key(*key)) {
                    self.note(&format!("{path}/{key}"), Found::Extra(value.clone()));
                }
            }
            (Value::Array(recorded), Value::Array(ours)) => self.array(path, recorded, ours),
            (Value::String(recorded), Value::String(ours)) => self.string(path, recorded, ours),
            (Value::Number(a), Value::Number(b)) if a == b || a.as_f64() == b.as_f64() => {}
            _ if recorded == ours => {}
            _ => self.note(path, Found::Other { recorded: recorded.clone(), ours: ours.clone() }),
        }
    }

    fn array(&mut self, path: &str, recorded: &[Value], ours: &[Value]) {
        if let (Some(recorded), Some(ours)) = (named(recorded), named(ours)) {
            return self.named_array(path, &recorded, &ours);
        }
        for (index, value) in recorded.iter().enumerate() {
            let path = format!("{path}/{index}");
            match ours.get(index) {
                Some(ours) => self.value(&path, value, ours),
                None => self.note(&path, Found::Missing(value.clone())),
            }
        }
        for (index, value) in ours.iter().enumerate().skip(recorded.len()) {
            self.note(&format!("{path}/{index}"), Found::Extra(value.clone()));
        }
    }

    /// Like any list, but what is missing or too much does not shift what follows.
    fn named_array(&mut self, path: &str, recorded: &[(&str, &Value)], ours: &[(&str, &Value)]) {
        for (name, value) in recorded {
            let path = format!("{path}/{name}");
            match ours.iter().find(|(other, _)| other == name) {
                Some((_, ours)) => self.value(&path, value, ours),
                None => self.note(&path, Found::Missing((*value).clone())),
            }
        }
        for (name, value) in ours {
            if !recorded.iter().any(|(other, _)| other == name) {
                self.note(&format!("{path}/{name}"), Found::Extra((*value).clone()));
            }
        }
        let common = |of: &[(&str, &Value)], other: &[(&str, &Value)]| -> Vec<String> {
            let both = of.iter().filter(|(name, _)| other.iter().any(|(o, _)| o == name));
            both.map(|(name, _)| (*name).to_owned()).collect()
        };
        let (order, our_order) = (common(recorded, ours), common(ours, recorded));
        if order != our_order {
            self.note(path, Found::Order(order, our_order));
        }
    }

    fn string(&mut self, path: &str, recorded: &str, ours: &str) {
        if recorded == ours {
            return;
        }
        let other = || Found::Other { recorded: recorded.into(), ours: ours.into() };
        if let Some(placeholders) = pem_placeholders(recorded).filter(|_| !self.bindings.shared) {
            match pem_blocks(ours) {
                Some(blocks) => self.certificates(path, &placeholders, &blocks, other),
                None => self.note(path, other()),
            }
            return;
        }
        let pattern: &Regex = if self.bindings.shared { &REST_PLACEHOLDER } else { &PLACEHOLDER };
        let Some(captures) = matches(pattern, recorded, ours) else { return self.note(path, other()) };
        for (placeholder, value) in captures {
            if let Err(text) = self.bindings.bind(&placeholder, &value) {
                self.note(path, Found::Unbound(text));
            }
        }
    }

    fn certificates(&mut self, path: &str, recorded: &[&str], ours: &[String], other: impl Fn() -> Found) {
        let distinct: BTreeSet<&str> = recorded.iter().copied().collect();
        let repeated = distinct.len() < recorded.len() && ours.len() == distinct.len();
        let wanted: Vec<&str> = if repeated { distinct.into_iter().collect() } else { recorded.to_vec() };
        if wanted.len() != ours.len() {
            return self.note(path, other());
        }
        for (placeholder, block) in wanted.into_iter().zip(ours) {
            if let Err(text) = self.bindings.bind(placeholder, block) {
                self.note(path, Found::Unbound(text));
            }
        }
        if repeated {
            self.note(path, Found::Repeated);
        }
    }
}

/// The items with their names, when all have different ones.
fn named(items: &[Value]) -> Option<Vec<(&str, &Value)>> {
    let named: Vec<(&str, &Value)> = items
        .iter()
        .map(|item| item.get("name")?.as_str().map(|name| (name, item)))
        .collect::<Option<_>>()?;
    let names: BTreeSet<&str> = named.iter().map(|(name, _)| *name).collect();
    (names.len() == named.len()).then_some(named)
}

/// `pem-1`, `pem-1` of `<pem-1>+<pem-1>`.
fn pem_placeholders(text: &str) -> Option<Vec<&str>> {
    text.trim()
        .split('+')
        .map(|part| part.strip_prefix('<')?.strip_suffix('>').filter(|name| name.starts_with("pem-")))
        .collect()
}

/// The PEM blocks of a text, which may be in base64.
fn pem_blocks(text: &str) -> Option<Vec<String>> {
    let text = if text.contains("-----BEGIN ") {
        text.to_owned()
    } else {
        String::from_utf8(STANDARD.decode(text).ok()?).ok()?
    };
    let blocks: Vec<String> =
        text.split("-----BEGIN ").skip(1).map(|block| block.trim().to_owned()).collect();
    (!blocks.is_empty()).then_some(blocks)
}

/// Placeholders other than certificates, and what they match.
static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"<(time|hash|count|text|(?:uuid|instance|jwt)-\d+|vip [^>]+)>")
        .expect("a constant expression")
});

/// Placeholders of the REST recordings.
static REST_PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"<(time|text|(?:time|uuid|instance|jwt|pem|base64-of-pem|base64-of-jwt)-\d+|instance|hostname|version|address|instance-address|work-dir|dp-work-dir|zone-config-json)>",
    )
    .expect("a constant expression")
});

/// Placeholders that stand for any value of their form, each time another.
const ANY: [&str; 4] = ["time", "hash", "count", "text"];

fn form(placeholder: &str) -> &'static str {
    match placeholder.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "base64-of-pem-" => return r"(LS0tLS1CRUdJTi[A-Za-z0-9+/]+=*)",
        "base64-of-jwt-" => return r"(ZXlK[A-Za-z0-9+/]+=*)",
        "instance-address" => return r"([0-9A-Fa-f.:]*)",
        "work-dir" | "dp-work-dir" => return r"(/[^\s,]+)",
        _ => {}
    }
    match placeholder.split(['-', ' ']).next().unwrap_or_default() {
        "time" => r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?Z)",
        "hash" => r"([0-9a-f]{64})",
        "count" => r"(\d+)",
        "uuid" => r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
        "instance" | "hostname" | "version" => r"([0-9A-Za-z][0-9A-Za-z.-]*)",
        "address" => r"([0-9A-Za-z.\[\]:-]+:\d+)",
        "pem" => r"(-----BEGIN [\s\S]+-----END [A-Z ]+-----\n?)",
        "jwt" => r"([\w-]+\.[\w-]+\.[\w-]+)",
        "vip" => r"([a-z]+ 24[1-3]\.\d+\.\d+\.\d+)",
        _ => r"([\s\S]*)",
    }
}

/// What each placeholder that binds stands for, or `None` when the text does not match.
fn matches(placeholders: &Regex, recorded: &str, ours: &str) -> Option<Vec<(String, String)>> {
    let (mut pattern, mut names, mut end) = (String::from("^"), Vec::new(), 0);
    for found in placeholders.captures_iter(recorded) {
        let (whole, name) = (found.get(0)?, found.get(1)?.as_str());
        pattern.push_str(&regex::escape(&recorded[end..whole.start()]));
        pattern.push_str(form(name));
        names.push(name.to_owned());
        end = whole.end();
    }
    if names.is_empty() {
        return None;
    }
    pattern.push_str(&regex::escape(&recorded[end..]));
    pattern.push('$');
    let captures = Regex::new(&pattern).ok()?.captures(ours)?;
    let values = captures.iter().skip(1).flatten().map(|value| value.as_str().to_owned());
    Some(names.into_iter().zip(values).filter(|(name, _)| !ANY.contains(&name.as_str())).collect())
}

#[cfg(test)]
mod tests;
