//! The subset of Go templates that the model uses: `{{ .Field }}` and `{{ label "key" }}`.

use std::collections::BTreeMap;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
    Label(String),
}

/// Why a text is no template, or a template does not render.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("unclosed action")]
    Unclosed,
    /// Something else than a field or `label "key"`.
    #[error("unsupported action {0:?}: only fields and label \"key\" are available")]
    Action(String),
    /// A field that does not exist here.
    #[error("unknown field .{0}")]
    Field(String),
    /// A label that the resource does not have.
    #[error("label {0:?} is not set")]
    Label(String),
}

impl Template {
    /// Parses.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            if start > 0 {
                parts.push(Part::Text(rest[..start].into()));
            }
            let after = &rest[start + 2..];
            let end = after.find("}}").ok_or(TemplateError::Unclosed)?;
            parts.push(action(after[..end].trim())?);
            rest = &after[end + 2..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Template(parts))
    }

    /// Renders with the given fields and labels.
    pub fn render(
        &self,
        fields: &[(&str, &str)],
        labels: &BTreeMap<String, String>,
    ) -> Result<String, TemplateError> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(name) => out.push_str(
                    fields
                        .iter()
                        .find(|(field, _)| field == name)
                        .ok_or_else(|| TemplateError::Field(name.clone()))?
                        .1,
                ),
                Part::Label(key) => {
                    out.push_str(labels.get(key).ok_or_else(|| TemplateError::Label(key.clone()))?);
                }
            }
        }
        Ok(out)
    }

    /// True when the template takes this field or this label.
    pub fn uses(&self, field: &str, label: &str) -> bool {
        self.0.iter().any(|part| match part {
            Part::Text(_) => false,
            Part::Field(name) => name == field,
            Part::Label(key) => key == label,
        })
    }
}

fn action(text: &str) -> Result<Part, TemplateError> {
    let text = text.trim_start_matches('-').trim_end_matches('-').trim();
    let unsupported = || TemplateError::Action(text.into());
    if let Some(field) = text.strip_prefix('.') {
        let is_name = !field.is_empty() && field.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        return if is_name { Ok(Part::Field(field.into())) } else { Err(unsupported()) };
    }
    let key = text.strip_prefix("label").map(str::trim).ok_or_else(unsupported)?;
    let quoted = |quote: char| key.strip_prefix(quote).and_then(|k| k.strip_suffix(quote));
    let key = quoted('"').or_else(|| quoted('`')).ok_or_else(unsupported)?;
    Ok(Part::Label(key.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders() {
        let template =
            Template::parse("{{ .DisplayName }}.svc.{{.Zone}}.{{ label \"a/b\" }}").expect("parses");
        let labels = BTreeMap::from([("a/b".to_owned(), "x".to_owned())]);
        let fields = [("DisplayName", "echo"), ("Zone", "west")];
        assert_eq!(template.render(&fields, &labels).as_deref(), Ok("echo.svc.west.x"));
        assert_eq!(template.render(&fields, &BTreeMap::new()), Err(TemplateError::Label("a/b".into())));
        assert_eq!(Template::parse("{{ .A"), Err(TemplateError::Unclosed));
        assert!(Template::parse("{{ if .A }}").is_err());
    }
}
