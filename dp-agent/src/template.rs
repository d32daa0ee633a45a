//! Variables in the text of a Dataplane: the Mustache form `{{ name }}` (dataplane-agent.md §3.2).
//!
//! Values are put in as they are. Sections and partials of Mustache have no use in a Dataplane and are refused.

use std::collections::BTreeMap;

/// Variables by (possibly dotted) name.
pub(crate) type Variables = BTreeMap<String, String>;

/// Why a text cannot be rendered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("line {line}: variable {name:?} has no value: give it with --dataplane-var {name}=VALUE")]
    Unknown { line: usize, name: String },
    #[error("line {line}: `{{{{` is not closed")]
    Unclosed { line: usize },
    #[error("line {line}: `{{{{{tag}}}}}`: only plain variables are supported")]
    Unsupported { line: usize, tag: String },
    #[error("variable {0:?} must have the form NAME=VALUE")]
    NotAPair(String),
}

/// Reads `name=value` texts. One text may hold several pairs with commas between them; a comma that no pair
/// follows belongs to the value.
pub(crate) fn parse_variables(texts: &[String]) -> Result<Variables, Error> {
    let mut variables = Variables::new();
    for text in texts {
        let mut last: Option<String> = None;
        for part in text.split(',') {
            match (part.split_once('='), &last) {
                (Some((name, value)), _) if !name.trim().is_empty() => {
                    variables.insert(name.trim().into(), value.into());
                    last = Some(name.trim().into());
                }
                (_, Some(name)) => {
                    if let Some(value) = variables.get_mut(name) {
                        value.push(',');
                        value.push_str(part);
                    }
                }
                (_, None) => return Err(Error::NotAPair(text.clone())),
            }
        }
    }
    Ok(variables)
}

/// Replaces every variable by its value.
pub(crate) fn render(text: &str, variables: &Variables) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let line = 1 + text[..text.len() - rest.len() + start].matches('\n').count();
        out.push_str(&rest[..start]);
        let (closing, tag_start) =
            if rest[start..].starts_with("{{{") { ("}}}", start + 3) } else { ("}}", start + 2) };
        let tag_len = rest[tag_start..].find(closing).ok_or(Error::Unclosed { line })?;
        let tag = &rest[tag_start..tag_start + tag_len];
        rest = &rest[tag_start + tag_len + closing.len()..];
        if tag.starts_with('!') {
            continue;
        }
        if tag.starts_with(['#', '^', '/', '>', '=', '<', '$']) {
            return Err(Error::Unsupported { line, tag: tag.into() });
        }
        let name = tag.strip_prefix('&').unwrap_or(tag).trim();
        let value = variables.get(name).ok_or_else(|| Error::Unknown { line, name: name.into() })?;
        out.push_str(value);
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn rendering() {
        let variables = mk_variables(&[("name", "web-1"), ("host.address", "10.0.0.1"), ("odd", "a&\"b")]);
        let unknown = |line, name: &str| Err(Error::Unknown { line, name: name.into() });
        for (text, expected) in [
            ("plain: text", Ok("plain: text".into())),
            ("name: {{ name }}\nx: {{name}}", Ok("name: web-1\nx: web-1".into())),
            ("address: {{ host.address }}", Ok("address: 10.0.0.1".into())),
            ("{{{odd}}} {{& odd }} {{odd}}", Ok("a&\"b a&\"b a&\"b".into())),
            ("a{{! a remark }}b", Ok("ab".into())),
            ("json: {\"a\": {\"b\": 1}}", Ok("json: {\"a\": {\"b\": 1}}".into())),
            ("a\nb: {{ nmae }}", unknown(2, "nmae")),
            ("{{ }}", unknown(1, "")),
            ("a\n\n{{ name", Err(Error::Unclosed { line: 3 })),
            ("{{#each}}", Err(Error::Unsupported { line: 1, tag: "#each".into() })),
        ] {
            assert_eq!(render(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn variables() {
        let texts = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        for (given, expected) in [
            (texts(&["a=1", "b=x=y"]), Ok(mk_variables(&[("a", "1"), ("b", "x=y")]))),
            (texts(&["a=1,b=2"]), Ok(mk_variables(&[("a", "1"), ("b", "2")]))),
            (texts(&["a=1,2"]), Ok(mk_variables(&[("a", "1,2")]))),
            (texts(&["a="]), Ok(mk_variables(&[("a", "")]))),
            (texts(&["a"]), Err(Error::NotAPair("a".into()))),
            (texts(&["=1"]), Err(Error::NotAPair("=1".into()))),
        ] {
            assert_eq!(parse_variables(&given), expected, "{given:?}");
        }
    }
}
