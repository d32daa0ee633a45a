//! What a setting is, and the list of all settings of a program: the one table from which `--help`, the
//! command `settings`, `docs/settings.md` and the errors about unknown names are made (DESIGN decision 13).
//!
//! ```
//! use graticule_settings::{Setting, setting};
//! const PORT: Setting = setting("server.port", "SERVER_PORT", "where it listens").flag("--port");
//! assert_eq!((PORT.variable(), PORT.flag), ("GRATICULE_SERVER_PORT".to_owned(), "--port"));
//! ```

mod coverage;
mod flags;
mod list;
mod nearest;
pub mod reference;

pub use coverage::uncovered;
pub use flags::flag_rows;
pub use list::{List, Output, Page, Row, rows};
pub use nearest::nearest;

/// Prefix of our variables.
pub const PREFIX: &str = "GRATICULE_";
/// Prefix of Kuma's variables.
pub const KUMA_PREFIX: &str = "KUMA_";
/// The version that brought the first settings.
const FIRST_VERSION: &str = "0.1";

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Path in the file, `multizone.zone.name`. Empty: a flag or variable alone.
    pub path: &'static str,
    /// Variable without prefix, `MULTIZONE_ZONE_NAME`; empty: not settable by a variable.
    pub env: &'static str,
    /// Flag of the command line, `--cp-address`; empty: there is none.
    pub flag: &'static str,
    /// What it does, with its unit where that is not obvious.
    pub doc: &'static str,
    /// Version that brought it.
    pub since: &'static str,
}

/// A setting without a flag.
pub const fn setting(path: &'static str, env: &'static str, doc: &'static str) -> Setting {
    Setting { path, env, flag: "", doc, since: FIRST_VERSION }
}

impl Setting {
    /// The same with a flag.
    pub const fn flag(self, flag: &'static str) -> Setting {
        Setting { flag, ..self }
    }

    /// The same, brought by a later version.
    pub const fn since(self, since: &'static str) -> Setting {
        Setting { since, ..self }
    }

    /// The variable with our prefix; empty when there is none.
    pub fn variable(&self) -> String {
        if self.env.is_empty() { String::new() } else { format!("{PREFIX}{}", self.env) }
    }
}

/// A setting of Kuma, or of the other control plane, that this program understands and does not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// Path in the file. Everything below it counts too.
    pub path: &'static str,
    /// Variable without prefix; may be empty.
    pub env: &'static str,
    /// What comes of it.
    pub fate: Fate,
}

/// What comes of a setting that a program does not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It has no meaning here; the text says what stands in its place ("changes are pushed at once").
    Replaced(&'static str),
    /// It would have a meaning, and this version does not have it; the text says what happens instead.
    NotYet(&'static str),
}

impl Fate {
    /// The end of a sentence that begins with the names.
    pub fn explain(self) -> String {
        match self {
            Fate::Replaced(instead) => format!("no effect here: {instead}"),
            Fate::NotYet(instead) => format!("not supported yet, ignored: {instead}"),
        }
    }
}
