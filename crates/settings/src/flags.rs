//! Settings that are flags alone, taken from the definition of the command line.

use clap::{Arg, Command};
use serde_json::Value;

use crate::{FIRST_VERSION, Row};

/// One row for each flag of `command` that people see, except those named (without dashes) in `without`.
pub fn flag_rows(command: &Command, without: &[&str]) -> Vec<Row> {
    let is_listed = |arg: &&Arg| {
        let long = arg.get_long().unwrap_or_default();
        !long.is_empty()
            && !arg.is_hide_set()
            && long != "help"
            && long != "version"
            && !without.contains(&long)
    };
    command.get_arguments().filter(is_listed).map(row).collect()
}

fn row(arg: &Arg) -> Row {
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    Row {
        key: String::new(),
        variable: arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        flag: format!("--{}", arg.get_long().unwrap_or_default()),
        default: if defaults.is_empty() || !arg.get_action().takes_values() {
            Value::Null
        } else {
            defaults.join(",").into()
        },
        meaning: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        since: FIRST_VERSION.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_flags_only() {
        let command = Command::new("x")
            .arg(Arg::new("level").long("log-level").default_value("info").help("how much"))
            .arg(Arg::new("old").long("old").hide(true))
            .arg(Arg::new("url").long("url").env("X_URL"))
            .arg(Arg::new("skipped").long("skipped"))
            .arg(Arg::new("position"));
        let rows = flag_rows(&command, &["skipped"]);
        let brief: Vec<_> = rows
            .iter()
            .map(|r| (r.flag.as_str(), r.variable.as_str(), r.meaning.as_str(), r.default.clone()))
            .collect();
        assert_eq!(
            brief,
            [("--log-level", "", "how much", "info".into()), ("--url", "X_URL", "", Value::Null)]
        );
    }
}
