//! What `run --check-config` says.

use graticule_runtime::config::{Examined, Fate};

/// All that a configuration means for `program`, as text; errors come last, without the lines themselves.
pub(crate) fn text<T>(program: &str, examined: &Examined<T>, errors: usize) -> String {
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("{title}:\n"));
            for line in lines {
                text.push_str(&format!("  {line}\n"));
            }
        }
    };
    let changed = examined.changed.iter();
    let line = |c: &graticule_runtime::config::Changed| {
        format!("{}: {} (default {}; from {})", c.path, c.value, c.default, c.source)
    };
    section("Settings that differ from their defaults", changed.map(line).collect());
    section("Settings without meaning here", ignored(examined, |fate| matches!(fate, Fate::Replaced(_))));
    section(
        "Settings of Kuma that this version does not support yet; they are ignored",
        ignored(examined, |fate| matches!(fate, Fate::NotYet(_))),
    );
    section("Variables that nobody knows; they are ignored", examined.unknown_kuma.clone());
    if errors > 0 {
        text.push_str(&format!("{program} cannot run with this configuration.\nErrors:\n"));
    } else {
        text.push_str(&format!("{program} can run with this configuration.\n"));
    }
    text
}

/// The settings with the same reason in one line.
fn ignored<T>(examined: &Examined<T>, is_wanted: impl Fn(Fate) -> bool) -> Vec<String> {
    let mut groups: Vec<(Fate, Vec<&str>)> = Vec::new();
    for ignored in examined.ignored.iter().filter(|ignored| is_wanted(ignored.fate)) {
        let name = ignored.name.rsplit(' ').next().unwrap_or(&ignored.name);
        match groups.iter_mut().find(|(fate, _)| *fate == ignored.fate) {
            Some((_, names)) => names.push(name),
            None => groups.push((ignored.fate, vec![name])),
        }
    }
    let line = |(fate, names): (Fate, Vec<&str>)| {
        let (Fate::Replaced(instead) | Fate::NotYet(instead)) = fate;
        format!("{}: {instead}", names.join(", "))
    };
    groups.into_iter().map(line).collect()
}
