//! The schema of a kind's spec as data: one tree per plugin kind, written next to the kind.
//!
//! The tree is what a document is checked against before it is read ([`Schema::check`], resources.md §2.2), what
//! says which defaults a writer may rely on ([`Schema::fill_defaults`]), and what published schemas are generated
//! from.
//!
//! ```
//! use graticule_model::schema::{Schema, field, object, one_of, int32};
//! const PORT: Schema = object(&[
//!     field("port", int32().min(1).max(65535)).required(),
//!     field("protocol", one_of(&["tcp", "http"]).default_text("tcp")),
//! ]);
//! let errors = PORT.check("spec", &serde_json::json!({"port": 0}));
//! assert_eq!(errors, ["spec.port in body should be greater than or equal to 1"]);
//! ```

mod check;
pub mod common;
mod defaults;
mod json;
mod unknown;

pub(crate) use check::{add_to, type_name};

/// What a JSON value must look like. `null` counts as absent everywhere.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    form: Form,
    one_of: &'static [&'static str],
    minimum: Option<i64>,
    maximum: Option<i64>,
    min_len: Option<usize>,
    max_len: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    pattern: Option<Pattern>,
    default: Option<Default>,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Object(&'static [Field]),
    Map(&'static Schema),
    List(&'static Schema),
    Text,
    Integer { format: Option<&'static str> },
    Boolean,
    IntOrText,
    Any,
}

/// A member of an object.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    name: &'static str,
    is_required: bool,
    schema: Schema,
}

/// A regular expression together with a function that says the same.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    text: &'static str,
    matches: fn(&str) -> bool,
}

#[derive(Debug, Clone, Copy)]
enum Default {
    Text(&'static str),
    Int(i64),
    Bool(bool),
}

const fn of(form: Form) -> Schema {
    Schema {
        form,
        one_of: &[],
        minimum: None,
        maximum: None,
        min_len: None,
        max_len: None,
        min_items: None,
        max_items: None,
        pattern: None,
        default: None,
    }
}

/// An object with these members; others are ignored.
pub const fn object(fields: &'static [Field]) -> Schema {
    of(Form::Object(fields))
}

/// A member that may be absent.
pub const fn field(name: &'static str, schema: Schema) -> Field {
    Field { name, is_required: false, schema }
}

/// An object with any keys.
pub const fn map(values: &'static Schema) -> Schema {
    of(Form::Map(values))
}

/// A list.
pub const fn list(items: &'static Schema) -> Schema {
    of(Form::List(items))
}

/// A text.
pub const fn text() -> Schema {
    of(Form::Text)
}

/// One of these texts.
pub const fn one_of(texts: &'static [&'static str]) -> Schema {
    Schema { one_of: texts, ..text() }
}

/// A number of at most 32 bits.
pub const fn int32() -> Schema {
    of(Form::Integer { format: Some("int32") })
}

/// A number of at most 64 bits.
pub const fn int64() -> Schema {
    of(Form::Integer { format: Some("int64") })
}

/// `true` or `false`.
pub const fn boolean() -> Schema {
    of(Form::Boolean)
}

/// A number or a text.
pub const fn int_or_text() -> Schema {
    of(Form::IntOrText)
}

/// Anything, kept as it is.
pub const fn any() -> Schema {
    of(Form::Any)
}

/// A pattern; `matches` must accept what `text` accepts.
pub const fn pattern(text: &'static str, matches: fn(&str) -> bool) -> Pattern {
    Pattern { text, matches }
}

impl Field {
    /// Makes it mandatory.
    pub const fn required(mut self) -> Field {
        self.is_required = true;
        self
    }
}

impl Schema {
    /// Smallest number.
    pub const fn min(mut self, minimum: i64) -> Schema {
        self.minimum = Some(minimum);
        self
    }

    /// Largest number.
    pub const fn max(mut self, maximum: i64) -> Schema {
        self.maximum = Some(maximum);
        self
    }

    /// Fewest characters.
    pub const fn min_len(mut self, chars: usize) -> Schema {
        self.min_len = Some(chars);
        self
    }

    /// Most characters.
    pub const fn max_len(mut self, chars: usize) -> Schema {
        self.max_len = Some(chars);
        self
    }

    /// Fewest entries of a list.
    pub const fn min_items(mut self, entries: usize) -> Schema {
        self.min_items = Some(entries);
        self
    }

    /// Most entries of a list.
    pub const fn max_items(mut self, entries: usize) -> Schema {
        self.max_items = Some(entries);
        self
    }

    /// What a text must match.
    pub const fn matching(mut self, pattern: Pattern) -> Schema {
        self.pattern = Some(pattern);
        self
    }

    /// Value of an absent text.
    pub const fn default_text(mut self, value: &'static str) -> Schema {
        self.default = Some(Default::Text(value));
        self
    }

    /// Value of an absent number.
    pub const fn default_int(mut self, value: i64) -> Schema {
        self.default = Some(Default::Int(value));
        self
    }

    /// Value of an absent flag.
    pub const fn default_bool(mut self, value: bool) -> Schema {
        self.default = Some(Default::Bool(value));
        self
    }
}

#[cfg(test)]
mod tests;
