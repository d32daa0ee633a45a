//! Kinds as people name them: plural, singular, short, in any case.

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use graticule_model::{Kind, Scope};

/// A name that is at most this many edits away was probably meant.
const NEAR: usize = 3;
/// Longer names are cut before they are compared.
const LONGEST: usize = 64;

/// Kinds that the API serves.
pub(crate) fn served() -> impl Iterator<Item = Kind> {
    Kind::all().filter(|kind| !kind.descriptor().path.is_empty())
}

/// The word that a person uses for one of a kind; lower case.
pub(crate) fn singular(kind: Kind) -> String {
    kind.name().to_ascii_lowercase()
}

/// The kind that a person means.
pub(crate) fn find(text: &str) -> Option<Kind> {
    let lower = text.to_ascii_lowercase();
    served().find(|kind| words(*kind).contains(&lower))
}

/// Every word for a kind.
fn words(kind: Kind) -> Vec<String> {
    let descriptor = kind.descriptor();
    let mut words = vec![descriptor.path.to_owned(), singular(kind)];
    words.extend([descriptor.alt_path, descriptor.short_name].map(str::to_owned));
    // `global-secret` besides `global-secrets`, `mesh-insight` besides `mesh-insights`.
    words.extend(
        [descriptor.alt_path, descriptor.path].map(|path| {
            if path.contains('-') { path.trim_end_matches('s').to_owned() } else { String::new() }
        }),
    );
    words.retain(|word| !word.is_empty());
    words
}

/// Says that a word is no kind, and which one was probably meant.
pub(crate) fn unknown(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let near = served()
        .flat_map(words)
        .map(|word| (distance(&lower, &word), word))
        .filter(|(distance, _)| *distance <= NEAR.min(lower.len() / 3))
        .min();
    match near {
        Some((_, word)) => format!("unknown kind \"{text}\"; did you mean {word}?"),
        None => format!(
            "unknown kind \"{text}\"; known are: {}",
            served().map(|kind| kind.descriptor().path).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// What was probably meant by the `type` of a document; empty when nothing is near.
pub(crate) fn near_type(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let near = served()
        .map(|kind| (distance(&lower, &singular(kind)), kind.name()))
        .filter(|(distance, _)| *distance <= NEAR)
        .min();
    match near {
        Some((_, name)) => format!("; did you mean {name}?"),
        None => format!("; known are: {}", served().map(Kind::name).collect::<Vec<_>>().join(", ")),
    }
}

/// The mesh of a kind's resources in messages: ` in mesh "m"`, or nothing.
pub(crate) fn in_mesh(kind: Kind, mesh: &str) -> String {
    match kind.descriptor().scope {
        Scope::Global => String::new(),
        Scope::Mesh => format!(" in mesh \"{mesh}\""),
    }
}

/// Edit distance of two short texts.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(LONGEST).enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Reads a kind of the command line; completion offers plurals and singulars.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Argument {
    /// Further words that are no kinds.
    pub(crate) only_policies: bool,
}

/// Any kind that the API serves.
pub(crate) const ANY: Argument = Argument { only_policies: false };

impl TypedValueParser for Argument {
    type Value = Kind;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Kind, clap::Error> {
        let text = StringValueParser::new().parse_ref(command, None, value)?;
        find(&text).filter(|kind| !self.only_policies || kind.descriptor().is_policy()).ok_or_else(|| {
            clap::Error::raw(ErrorKind::InvalidValue, format!("{}\n", unknown(&text))).with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let kinds = served().filter(|kind| !self.only_policies || kind.descriptor().is_policy());
        Some(Box::new(kinds.flat_map(|kind| {
            [
                PossibleValue::new(kind.descriptor().path)
                    .alias(singular(kind))
                    .help(kind.descriptor().display_names.1),
                PossibleValue::new(singular(kind)).hide(true),
            ]
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_any_of_their_names() {
        for text in ["meshtimeout", "meshtimeouts", "mt", "MeshTimeout"] {
            assert_eq!(find(text), Some(Kind::MeshTimeout), "{text}");
        }
        for text in ["global-secrets", "global-secret", "globalsecret", "globalsecrets"] {
            assert_eq!(find(text), Some(Kind::GlobalSecret), "{text}");
        }
        for (text, kind) in [("mesh-insight", Kind::MeshInsight), ("m", Kind::Mesh), ("meshes", Kind::Mesh)] {
            assert_eq!(find(text), Some(kind), "{text}");
        }
        assert_eq!(find("config"), None, "has no endpoint");
    }

    #[test]
    fn what_was_meant() {
        assert_eq!(unknown("meshtimout"), "unknown kind \"meshtimout\"; did you mean meshtimeout?");
        assert!(unknown("nope").contains("known are: "), "nothing is near");
        assert!(unknown("quite-something-else").contains("known are: meshes"));
    }
}
