//! Compares a program's settings with a table of Kuma's: tab-separated application, key, variable, type and
//! default (JSON). For tests; the table is no part of the product.

use graticule_model::GoDuration;
use serde_json::Value;

use crate::list::default_of;
use crate::{Foreign, KUMA_PREFIX, Setting};

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Settings of the program.
    pub settings: &'a [Setting],
    /// Settings of Kuma and of the other control plane that it does not use.
    pub foreign: &'a [Foreign],
    /// The tree of its default values.
    pub defaults: &'a Value,
    /// Paths whose default differs on purpose.
    pub other_defaults: &'a [&'a str],
}

/// One line for each setting of `application` (`cp` or `dp`) in the table that the program does not know, knows
/// by another variable, or has with another default; and for each foreign setting that the table does not have.
pub fn differences(table: &str, application: &str, own: &Own<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut paths = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[app, path, variable, r#type, default] = columns.as_slice() else {
            found.push(format!("unreadable line: {line}"));
            continue;
        };
        if app != application {
            continue;
        }
        paths.push(path);
        let env = variable.strip_prefix(KUMA_PREFIX).unwrap_or(variable);
        if let Some(setting) = own.settings.iter().find(|setting| setting.path == path) {
            if setting.env != env {
                found.push(format!("{path}: the variable is {env}, not {}", setting.env));
            }
            let ours = default_of(own.defaults, path);
            let is_same = same_default(r#type, default, &ours);
            if is_same == own.other_defaults.contains(&path) {
                found.push(format!("{path}: the default is {default}, ours is {ours}"));
            }
        } else {
            match own.foreign.iter().find(|foreign| foreign.path == path) {
                None => found.push(format!("{path} is not known")),
                Some(foreign) if foreign.env != env => {
                    found.push(format!("{path}: the variable is {env}, not {}", foreign.env));
                }
                Some(_) => {}
            }
        }
    }
    let is_known = |path: &str| paths.iter().any(|known| path.strip_prefix(known).is_some_and(ends_name));
    let gone = own.foreign.iter().filter(|foreign| !is_known(foreign.path));
    found.extend(gone.map(|foreign| format!("{} is not in the table", foreign.path)));
    found
}

/// Whether a name ends before `rest`, or a member of it follows.
fn ends_name(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('.')
}

fn same_default(r#type: &str, theirs: &str, ours: &Value) -> bool {
    let Ok(theirs) = serde_json::from_str::<Value>(theirs) else { return false };
    let duration = |value: &Value| value.as_str().and_then(|text| text.parse::<GoDuration>().ok());
    match r#type {
        "duration" => duration(&theirs).is_some() && duration(&theirs) == duration(ours),
        // Not set and empty are the same.
        _ if theirs.is_null() => ours.is_null() || *ours == Value::Array(Vec::new()),
        _ => theirs == *ours,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Fate, setting};

    #[test]
    fn tells_every_difference() {
        let table = "# head\n\
            cp\ta\tKUMA_A\tduration\t\"1m0s\"\n\
            cp\tb\tKUMA_B\tinteger\t1\n\
            cp\tc\tKUMA_C\tstring\t\"\"\n\
            cp\td\tKUMA_D\tstrings\tnull\n\
            dp\te\tKUMA_E\tbool\ttrue\n\
            rubbish\n";
        let fate = Fate::Replaced("x");
        let own = Own {
            settings: &[setting("a", "A", ""), setting("b", "BB", ""), setting("d", "D", "")],
            foreign: &[Foreign { path: "z", env: "", fate }],
            defaults: &json!({"a": "60s", "b": 2, "d": []}),
            other_defaults: &["d"],
        };
        assert_eq!(
            differences(table, "cp", &own),
            [
                "b: the variable is B, not BB",
                "b: the default is 1, ours is 2",
                "c is not known",
                "d: the default is null, ours is []",
                "unreadable line: rubbish",
                "z is not in the table",
            ]
        );
    }
}
