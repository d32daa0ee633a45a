//! Log levels of single components, changed while the process runs (rest-api.md §1.2).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;

/// Components that may have a level of their own at the same time.
const OVERRIDES_MAX: usize = 100;

/// Levels that there are.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

static PROCESS: OnceLock<Levels> = OnceLock::new();

/// The levels of this process, once logging is set up.
pub fn of_process() -> Option<&'static Levels> {
    PROCESS.get()
}

/// Logging is set up once, so a second call changes nothing.
pub(super) fn set_of_process(levels: Levels) {
    let _first = PROCESS.set(levels);
}

/// Why a level cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// No component is named.
    #[error("component name must not be empty")]
    NoComponent,
    /// No component has such a name.
    #[error("component name {0:?} must consist of letters, digits, '-', '_', '.' and ':'")]
    Component(String),
    /// Not a level.
    #[error("invalid log level: unknown log level {0:?}")]
    Level(String),
    /// There is a limit.
    #[error("more than {OVERRIDES_MAX} components have levels of their own: reset some")]
    TooMany,
    /// The logging library refuses.
    #[error("cannot change the log level: {0}")]
    Refused(String),
}

/// The level that the process was started with, and what was changed since.
pub struct Levels {
    base: String,
    overrides: Mutex<BTreeMap<String, String>>,
    apply: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Levels").field("base", &self.base).field("overrides", &self.overrides).finish()
    }
}

impl Levels {
    /// `base` is a valid filter; `apply` makes a new one effective.
    pub fn new(
        base: String,
        apply: impl Fn(EnvFilter) -> Result<(), String> + Send + Sync + 'static,
    ) -> Levels {
        Levels { base, overrides: Mutex::default(), apply: Box::new(apply) }
    }

    /// Components with a level of their own.
    pub fn list(&self) -> BTreeMap<String, String> {
        self.overrides.lock().clone()
    }

    /// Gives a component a level: the crate of that name, with or without our prefix (`kds`, `graticule_kds`), or
    /// one of its modules (`graticule_kds::net`).
    ///
    /// # Errors
    /// [`LevelError`]; nothing is changed then.
    pub fn set(&self, component: &str, level: &str) -> Result<(), LevelError> {
        if component.is_empty() {
            return Err(LevelError::NoComponent);
        }
        if !component.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c)) {
            return Err(LevelError::Component(component.into()));
        }
        let level = level.to_ascii_lowercase();
        if !LEVELS.contains(&level.as_str()) {
            return Err(LevelError::Level(level));
        }
        self.change(|overrides| {
            overrides.insert(component.into(), level);
        })
    }

    /// Takes the level of a component away; it need not have one.
    ///
    /// # Errors
    /// The logging library refuses.
    pub fn reset(&self, component: &str) -> Result<(), LevelError> {
        self.change(|overrides| {
            overrides.remove(component);
        })
    }

    /// Takes all of them away.
    ///
    /// # Errors
    /// The logging library refuses.
    pub fn reset_all(&self) -> Result<(), LevelError> {
        self.change(BTreeMap::clear)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) -> Result<(), LevelError> {
        let mut overrides = self.overrides.lock();
        let mut changed = overrides.clone();
        change(&mut changed);
        if changed.len() > OVERRIDES_MAX {
            return Err(LevelError::TooMany);
        }
        let filter = EnvFilter::builder()
            .parse(directives(&self.base, &changed))
            .map_err(|error| LevelError::Refused(error.to_string()))?;
        (self.apply)(filter).map_err(LevelError::Refused)?;
        *overrides = changed;
        Ok(())
    }
}

/// Later directives win over earlier ones of the same target.
fn directives(base: &str, overrides: &BTreeMap<String, String>) -> String {
    let mut text = base.to_owned();
    for (component, level) in overrides {
        let target = component.replace(['-', '.'], "_");
        text.push_str(&format!(",{target}={level},graticule_{target}={level}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn levels() -> (Levels, Arc<Mutex<Vec<String>>>) {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = applied.clone();
        let apply = move |filter: EnvFilter| {
            seen.lock().push(filter.to_string());
            Ok(())
        };
        (Levels::new("info".into(), apply), applied)
    }

    #[test]
    fn a_level_is_applied_listed_and_taken_away() {
        let (levels, applied) = levels();
        levels.set("kds", "DEBUG").expect("a level");
        assert_eq!(levels.list(), BTreeMap::from([("kds".to_owned(), "debug".to_owned())]));
        levels.reset("none").expect("nothing to do");
        levels.reset_all().expect("reset");
        assert!(levels.list().is_empty());
        let applied = applied.lock();
        assert!(applied[0].contains("graticule_kds=debug"), "{applied:?}");
        assert!(!applied[2].contains("kds"), "{applied:?}");
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let (levels, applied) = levels();
        for (component, level, text) in [
            ("", "debug", "component name must not be empty"),
            ("xds", "loud", "invalid log level: unknown log level \"loud\""),
            ("a=trace,b", "debug", "component name \"a=trace,b\" must consist of"),
        ] {
            let error = levels.set(component, level).expect_err("refused").to_string();
            assert!(error.starts_with(text), "{error}");
        }
        for number in 0..OVERRIDES_MAX {
            levels.set(&format!("c{number}"), "debug").expect("below the limit");
        }
        assert_eq!(levels.set("one-more", "debug"), Err(LevelError::TooMany));
        assert_eq!(levels.list().len(), OVERRIDES_MAX);
        assert_eq!(applied.lock().len(), OVERRIDES_MAX);
    }
}
