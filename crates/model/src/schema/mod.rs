//! The schema of a kind's spec as data: one tree per kind, written next to the kind.
//!
//! The tree is what a document of a plugin kind is checked against before it is read ([`Schema::check`],
//! resources.md §2.2; proto kinds are read more leniently), what says which defaults a writer may rely on
//! ([`Schema::fill_defaults`]), and what the JSON Schemas, the OpenAPI document and the custom resource
//! definitions are generated from.
//!
//! ```
//! use graticule_model::schema::{Schema, field, object, one_of, int32};
//! const PORT: Schema = object(&[
//!     field("port", "Where it listens.", int32().min(1).max(65535)).required(),
//!     field("protocol", "What it speaks.", one_of(&["tcp", "http"]).default_text("tcp")),
//! ]);
//! let errors = PORT.check("spec", &serde_json::json!({"port": 0}));
//! assert_eq!(errors, ["spec.port in body should be greater than or equal to 1"]);
//! ```

mod check;
pub mod common;
pub mod crd;
mod defaults;
pub mod json;
pub mod published;
mod unknown;

pub(crate) use check::{add_to, type_name};

/// What a JSON value must look like. `null` counts as absent everywhere.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Type of the value.
    pub form: Form,
    /// All texts that are allowed; empty: any.
    pub one_of: &'static [&'static str],
    /// Published format, such as `int32` or `date-time`.
    pub format: Option<&'static str>,
    /// Smallest number.
    pub minimum: Option<i64>,
    /// Largest number.
    pub maximum: Option<i64>,
    /// Fewest characters.
    pub min_len: Option<usize>,
    /// Most characters.
    pub max_len: Option<usize>,
    /// Fewest entries of a list.
    pub min_items: Option<usize>,
    /// Most entries of a list.
    pub max_items: Option<usize>,
    /// What a text must match.
    pub pattern: Option<Pattern>,
    /// Value when it is absent.
    pub default: Option<Default>,
}

/// Type of a value.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// An object with these members; others are ignored.
    Object(&'static [Field]),
    /// An object with any keys.
    Map(&'static Schema),
    /// A list.
    List(&'static Schema),
    /// A text.
    Text,
    /// A duration in Go notation; the notation is read after the schema was checked.
    Duration,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A whole number or a text.
    IntOrText,
    /// Anything, kept as it is.
    Any,
}

/// A member of an object.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its key.
    pub name: &'static str,
    /// What it means, for published schemas.
    pub description: &'static str,
    /// Whether it must be there (if it has no default).
    pub is_required: bool,
    /// What its value must look like.
    pub schema: Schema,
}

/// A regular expression together with a function that says the same.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// The regular expression.
    pub text: &'static str,
    /// The function.
    pub matches: fn(&str) -> bool,
}

/// Value of an absent member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// A text.
    Text(&'static str),
    /// A number.
    Int(i64),
    /// A flag.
    Bool(bool),
}

const fn of(form: Form) -> Schema {
    Schema {
        form,
        one_of: &[],
        format: None,
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

/// A member that may be absent; the description says what it means, not its type.
pub const fn field(name: &'static str, description: &'static str, schema: Schema) -> Field {
    Field { name, description, is_required: false, schema }
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
    Schema { format: Some("int32"), ..of(Form::Integer) }
}

/// A number of at most 64 bits.
pub const fn int64() -> Schema {
    Schema { format: Some("int64"), ..of(Form::Integer) }
}

/// A number of at most 32 bits without sign; proto kinds only.
pub const fn uint32() -> Schema {
    Schema { format: Some("uint32"), ..of(Form::Integer) }.min(0).max(u32::MAX as i64)
}

/// A number of at most 64 bits without sign, written as text; proto kinds only.
pub const fn uint64() -> Schema {
    Schema { format: Some("uint64"), ..of(Form::Integer) }.min(0)
}

/// A point in time (RFC 3339).
pub const fn time() -> Schema {
    Schema { format: Some("date-time"), ..text() }
}

/// Bytes in base64.
pub const fn bytes() -> Schema {
    Schema { format: Some("byte"), ..text() }
}

/// A duration in Go notation.
pub const fn duration() -> Schema {
    of(Form::Duration)
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
