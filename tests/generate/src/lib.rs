//! Documents of every kind, generated from its schema (for tests and fuzz targets).
//!
//! [`Generator::document`] gives a document that the control plane admits: it is drawn from the schema and then
//! repaired where semantic validation says that something is wrong, so that nothing here needs to know the rules
//! of a kind. [`Generator::damaged`] changes one thing, so that the document must be refused at a known path.
//!
//! ```
//! use graticule_generate::Generator;
//! use graticule_model::{Kind, Resource};
//! let document = Generator::new(7).document(Kind::MeshTimeout);
//! assert!(Resource::from_rest(Kind::MeshTimeout, &document).is_ok_and(|resource| resource.validate().is_ok()));
//! ```

mod damage;
mod path;
mod repair;
mod texts;

pub use damage::Damage;
pub use path::fields;

use graticule_model::schema::{Form, Schema};
use graticule_model::{Family, Kind, Scope};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};

/// Draws documents; equal seeds give equal documents.
pub struct Generator {
    random: StdRng,
    /// How likely an optional member is there.
    fullness: f64,
}

impl Generator {
    /// A generator.
    pub fn new(seed: u64) -> Generator {
        let mut random = StdRng::seed_from_u64(seed);
        let fullness = random.random_range(0.15..0.85);
        Generator { random, fullness }
    }

    /// The whole REST form of a resource that is admitted.
    ///
    /// # Panics
    /// No such document was found: the schema and the validation of the kind contradict each other.
    pub fn document(&mut self, kind: Kind) -> Value {
        for _ in 0..20 {
            let spec = self.admitted(kind.schema(), "");
            let mut document = self.envelope(kind, spec);
            if repair::repair(self, kind, &mut document) {
                return document;
            }
        }
        panic!("no valid document of {kind} was found");
    }

    /// A value that a schema admits; `name` is the member that it is for.
    pub fn admitted(&mut self, schema: &Schema, name: &str) -> Value {
        match schema.form {
            Form::Object(fields) => {
                let mut members = Map::new();
                for field in fields {
                    if field.is_required || self.chance(self.fullness) {
                        members.insert(field.name.to_owned(), self.admitted(&field.schema, field.name));
                    }
                }
                Value::Object(members)
            }
            Form::Map(values) => {
                let count = self.random.random_range(0..3);
                let keys = (0..count).map(|_| self.pick(texts::KEYS).to_owned()).collect::<Vec<_>>();
                Value::Object(keys.into_iter().map(|key| (key, self.admitted(values, name))).collect())
            }
            Form::List(items) => {
                let least = schema.min_items.unwrap_or(0);
                let most = schema.max_items.unwrap_or(2).min(least + 2);
                let count = self.random.random_range(least..=most);
                (0..count).map(|_| self.admitted(items, name)).collect()
            }
            Form::Text if !schema.one_of.is_empty() => self.pick(schema.one_of).into(),
            Form::Text => self.text(schema, name).into(),
            Form::Duration => self.pick(texts::DURATIONS).into(),
            Form::Integer => self.integer(schema),
            Form::Boolean => self.chance(0.5).into(),
            Form::IntOrText if self.chance(0.5) => self.random.random_range(1..100).into(),
            Form::IntOrText => self.pick(&["2.5", "50", "99.9"]).into(),
            Form::Any => {
                self.pick_value(&[json!({"a": [1, "x", true]}), json!({}), json!({"b": {"c": "d"}})])
            }
        }
    }

    fn text(&mut self, schema: &Schema, name: &str) -> String {
        if schema.format == Some("date-time") {
            return self.pick(texts::TIMES).to_owned();
        }
        let fits = |text: &&&str| {
            let len = text.chars().count();
            schema.pattern.is_none_or(|pattern| (pattern.matches)(text))
                && schema.min_len.is_none_or(|least| len >= least)
                && schema.max_len.is_none_or(|most| len <= most)
        };
        let usual: Vec<&str> = texts::of(name).iter().filter(fits).copied().collect();
        if !usual.is_empty() && self.chance(0.9) {
            return self.pick(&usual).to_owned();
        }
        let any: Vec<&str> =
            texts::ALL.iter().flat_map(|(_, texts)| texts.iter()).filter(fits).copied().collect();
        assert!(!any.is_empty(), "no text for {name}: add one to the table of texts");
        self.pick(&any).to_owned()
    }

    fn integer(&mut self, schema: &Schema) -> Value {
        let (least, most) = (schema.minimum.unwrap_or(0), schema.maximum.unwrap_or(2_147_483_647));
        let usual =
            [least, most, 1, 2, 3, 50, 80, 200, 503, 8080, 9090].map(|number: i64| number.clamp(least, most));
        let number = self.pick_value(&usual.map(Value::from));
        if schema.format == Some("uint64") { number.to_string().into() } else { number }
    }

    /// Adds what every document has.
    fn envelope(&mut self, kind: Kind, spec: Value) -> Value {
        let descriptor = kind.descriptor();
        let mut out = json!({"type": kind.name(), "name": self.pick(&["web", "web-1", "a"])});
        if descriptor.scope == Scope::Mesh {
            out["mesh"] = self.pick(&["default", "prod"]).into();
        }
        if self.chance(0.5) {
            out["labels"] = json!({"team": "payments", "app": self.pick(&["web", ""])});
        }
        match (descriptor.family, spec) {
            (Family::Proto, Value::Object(members)) => {
                members.into_iter().for_each(|(key, value)| out[key] = value);
            }
            (_, spec) => out["spec"] = spec,
        }
        out
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.random.random_range(0..len)
    }

    pub(crate) fn pick<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.index(texts.len())]
    }

    pub(crate) fn pick_value(&mut self, values: &[Value]) -> Value {
        values[self.index(values.len())].clone()
    }
}
