//! Documents that people write: where they are read from, and what makes them resources.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use graticule_model::{DecodeError, Kind, Resource};
use serde_json::Value;

use crate::client::Target;
use crate::{kinds, tls};

/// Longest time that a document may take to arrive from a URL.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest file, in bytes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A resource that was read and is valid.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// What was understood.
    pub(crate) resource: Resource,
    /// What is sent: the document with its mesh filled in.
    pub(crate) body: Value,
    /// File or URL, for messages.
    pub(crate) source: String,
    /// Paths of members that nobody reads.
    pub(crate) unknown: Vec<String>,
}

impl Document {
    pub(crate) fn kind(&self) -> Kind {
        self.resource.kind()
    }

    pub(crate) fn mesh(&self) -> &str {
        &self.resource.meta.mesh
    }

    pub(crate) fn name(&self) -> &str {
        &self.resource.meta.name
    }
}

/// Reads, renders and checks everything; nothing is sent before all of it is valid.
pub(crate) async fn read(
    places: &[PathBuf],
    variables: &BTreeMap<String, String>,
    mesh: Option<&str>,
) -> Result<Vec<Document>> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for place in places {
        for (source, text) in texts(place).await? {
            let values = render(&text, variables)
                .with_context(|| source.clone())
                .and_then(|text| parse(&text, &source));
            for value in values.unwrap_or_else(|error| {
                errors.push(error);
                Vec::new()
            }) {
                match check(value, mesh, &source).with_context(|| source.clone()) {
                    Ok(document) => found.push(document),
                    Err(error) => errors.push(error),
                }
            }
        }
    }
    match errors.len() {
        0 => Ok(found),
        1 => Err(errors.remove(0)),
        // Somebody who mends one wants to know of the others.
        count => {
            let texts: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
            bail!("{count} documents are not valid, and nothing was sent\n{}", texts.join("\n"))
        }
    }
}

/// The documents of a text; the items of lists, as `grat get -o yaml` writes them, count as documents.
fn parse(text: &str, source: &str) -> Result<Vec<Value>> {
    let documents = graticule_model::yaml::parse_all(text).with_context(|| source.to_owned())?;
    let mut all = Vec::new();
    for document in documents {
        match document {
            Value::Object(mut members) if !members.contains_key("type") && members.contains_key("items") => {
                match members.remove("items") {
                    Some(Value::Array(items)) => all.extend(items),
                    _ => bail!("{source}: `items` is no list"),
                }
            }
            other => all.push(other),
        }
    }
    ensure!(!all.is_empty(), "{source} holds no resource");
    Ok(all)
}

/// The texts behind an argument: (name for messages, text).
async fn texts(place: &Path) -> Result<Vec<(String, String)>> {
    if place.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().lock().take(BYTES_MAX).read_to_string(&mut text).context("standard input")?;
        return Ok(vec![("standard input".into(), text)]);
    }
    if let Some(url) =
        place.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://"))
    {
        return Ok(vec![(url.to_owned(), download(url).await.with_context(|| url.to_owned())?)]);
    }
    if !place.is_dir() {
        return Ok(vec![file(place)?]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(place)
        .with_context(|| place.display().to_string())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| {
            let extension = file.extension();
            file.is_file()
                && extension
                    .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
        })
        .collect();
    files.sort();
    ensure!(!files.is_empty(), "{} holds no .yaml, .yml or .json file", place.display());
    files.iter().map(|path| file(path)).collect()
}

fn file(path: &Path) -> Result<(String, String)> {
    let name = path.display().to_string();
    let length = std::fs::metadata(path).with_context(|| name.clone())?.len();
    ensure!(length <= BYTES_MAX, "{name}: larger than {} MiB", BYTES_MAX / 1024 / 1024);
    let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
    Ok((name, text))
}

async fn download(url: &str) -> Result<String> {
    let target = Target { address: url.to_owned(), ..Target::default() };
    let client = reqwest::Client::builder()
        .timeout(DOWNLOAD_TIMEOUT)
        .tls_backend_preconfigured(tls::config(&target)?)
        .build()?;
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        ensure!(length <= BYTES_MAX, "larger than {} MiB", BYTES_MAX / 1024 / 1024);
    }
    String::from_utf8(bytes).context("it is no text")
}

/// Replaces `{{ name }}`.
fn render(text: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    if variables.is_empty() {
        return Ok(text.to_owned());
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let Some(end) = rest[start..].find("}}") else {
            let line = text[..text.len() - rest.len() + start].lines().count();
            bail!("line {line}: `{{{{` without `}}}}`")
        };
        let name = rest[start + 2..start + end].trim();
        out.push_str(&rest[..start]);
        match variables.get(name) {
            Some(value) => out.push_str(value),
            // Hostname templates of resources have the same form; only what was asked for is replaced.
            None => out.push_str(&rest[start..start + end + 2]),
        }
        rest = &rest[start + end + 2..];
    }
    out.push_str(rest);
    Ok(out)
}

/// A document that is a valid resource, with its mesh filled in.
fn check(mut document: Value, mesh: Option<&str>, source: &str) -> Result<Document> {
    let text = |field: &str| document[field].as_str().map(str::to_owned);
    let Some(type_name) = text("type") else {
        if document.get("apiVersion").is_some() {
            bail!(
                "`type` is missing: this is the form of Kubernetes; write `type`, `mesh`, `name` and `spec` at the top, or apply it with kubectl"
            );
        }
        bail!("`type` is missing: a resource begins with `type: <kind>` and `name: <name>`");
    };
    let kind = Kind::from_name(&type_name)
        .map_err(|error| anyhow!("type: {error}{}", kinds::near_type(&type_name)))?;
    let name = text("name").unwrap_or_default();
    let what = || format!("{kind} {name} is not valid");
    let is_meshed = !kind.descriptor().is_global_scoped();
    if is_meshed && text("mesh").is_none_or(|mesh| mesh.is_empty()) && document.is_object() {
        document["mesh"] = mesh.unwrap_or("default").into();
    }
    let resource = Resource::from_rest(kind, &document).map_err(one_per_line).with_context(what)?;
    let unknown = unknown_members(&resource, &document);
    if let Err(violations) = resource.validate() {
        let error = one_per_line(DecodeError::Invalid(violations));
        // What is missing may be there under another name.
        let hints = unknown.iter().map(|path| format!("\nnobody reads `{path}`; is it misspelt?"));
        return Err(anyhow!("{error:#}{}", hints.collect::<String>())).with_context(what);
    }
    ensure!(!resource.meta.name.is_empty(), "{kind}: `name` is missing");
    Ok(Document { resource, body: document, source: source.to_owned(), unknown })
}

/// One violation stands in the line of the resource; several have a line each.
fn one_per_line(error: DecodeError) -> anyhow::Error {
    match error {
        DecodeError::Invalid(violations) if violations.0.len() > 1 => {
            let lines = violations.0.iter().map(|violation| match violation.path.as_str() {
                "" => format!("\n* {}", violation.message),
                path => format!("\n* {path}: {}", violation.message),
            });
            anyhow!("{} things are wrong{}", violations.0.len(), lines.collect::<String>())
        }
        DecodeError::Malformed { path, message } if !path.is_empty() => anyhow!("{path}: {message}"),
        other => other.into(),
    }
}

/// Members that every resource may have, whatever its kind.
const COMMON: [&str; 9] =
    ["type", "mesh", "name", "labels", "kri", "snis", "creationTime", "modificationTime", "status"];

/// Members that are sent but that nobody reads.
fn unknown_members(resource: &Resource, document: &Value) -> Vec<String> {
    let Some(members) = document.as_object() else { return Vec::new() };
    if resource.kind().descriptor().is_plugin() {
        let schema = resource.kind().schema();
        let outer = members.keys().filter(|key| *key != "spec" && !COMMON.contains(&key.as_str())).cloned();
        let spec = members.get("spec").map(|spec| schema.unknown_members("spec", spec));
        return outer.chain(spec.into_iter().flatten()).collect();
    }
    // Proto kinds are read more leniently than their schema says: what does not come back is not known.
    let back = resource.to_rest();
    let mut paths = Vec::new();
    for (key, value) in members.iter().filter(|(key, _)| !COMMON.contains(&key.as_str())) {
        lost(key, value, back.get(key), &mut paths);
    }
    paths
}

fn lost(path: &str, given: &Value, back: Option<&Value>, paths: &mut Vec<String>) {
    match (given, back) {
        // Values that mean the same as absent are not written back.
        (Value::Null | Value::Bool(false), None) => {}
        (Value::Number(number), None) if number.as_f64() == Some(0.0) => {}
        (Value::String(text), None) if text.is_empty() => {}
        (Value::Array(items), None) if items.is_empty() => {}
        (Value::Object(members), None) if members.is_empty() => {}
        (_, None) => paths.push(path.to_owned()),
        (Value::Object(given), Some(Value::Object(back))) => {
            for (key, value) in given {
                lost(&format!("{path}.{key}"), value, back.get(key), paths);
            }
        }
        (Value::Array(given), Some(Value::Array(back))) => {
            for (index, (value, back)) in given.iter().zip(back).enumerate() {
                lost(&format!("{path}[{index}]"), value, Some(back), paths);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_document(text: &str) -> Result<Document> {
        check(graticule_model::yaml::parse_one(text)?, None, "a file")
    }

    #[test]
    fn variables_and_templates() {
        let variables = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(render("x {{ a }} {{a}} {{ .Zone }}", &variables).expect("renders"), "x 1 1 {{ .Zone }}");
        let error = render("a: 1\nb: {{ a", &variables).expect_err("open");
        assert_eq!(error.to_string(), "line 2: `{{` without `}}`");
    }

    #[test]
    fn documents_are_checked_before_any_call() {
        let error =
            mk_document("type: MeshZoneAddress\nname: a\nspec: {address: '', port: 0}").expect_err("invalid");
        assert!(format!("{error:#}").contains("MeshZoneAddress a is not valid: "), "{error:#}");
        assert!(format!("{error:#}").contains("spec.address: "), "{error:#}");
    }

    #[test]
    fn what_is_missing_may_be_misspelt() {
        let text = "{type: MeshTrafficPermission, name: a, spec: {rules: [{default: {alow: [{spiffeID: \
            {type: Exact, value: spiffe://domain/a}}]}}]}}";
        let error = format!("{:#}", mk_document(text).expect_err("nothing is allowed"));
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines[0].contains("spec.rules[0]: at least one of 'allow'"), "{error}");
        assert_eq!(lines[1..], ["nobody reads `spec.rules[0].default.alow`; is it misspelt?"]);
    }

    #[test]
    fn errors_name_what_was_meant() {
        for (text, expected) in [
            ("type: MeshTimout\nname: a", "did you mean MeshTimeout?"),
            ("type: meshtimeout\nname: a", "did you mean MeshTimeout?"),
            ("type: Nothing\nname: a", "known are: Mesh"),
            ("apiVersion: kuma.io/v1alpha1\nkind: Mesh", "form of Kubernetes"),
            ("hello", "a resource begins with"),
            ("[1]", "a resource begins with"),
            ("type: MeshTimeout\nname: a\nspec: {to: 5}", "MeshTimeout a is not valid: spec.to"),
        ] {
            let error = format!("{:#}", mk_document(text).expect_err(text));
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_mesh_is_filled_in() {
        let document = mk_document("type: Secret\nname: a\ndata: dGVzdA==").expect("valid");
        assert_eq!((document.mesh(), &document.body["mesh"]), ("default", &Value::from("default")));
        let zone = mk_document("type: Zone\nname: a").expect("valid");
        assert_eq!(zone.body.get("mesh"), None);
    }

    #[test]
    fn lists_hold_documents() {
        let text = "items:\n- {type: Zone, name: a}\n- {type: Zone, name: b}\nnext: null\ntotal: 2";
        assert_eq!(parse(text, "x").expect("list").len(), 2);
        assert!(parse("items: []", "x").is_err());
    }

    #[test]
    fn members_that_nobody_reads() {
        for (text, wanted) in [
            ("{type: Zone, name: a, enabled: false}", vec![]),
            ("{type: Zone, name: a, enable: false, enabld: true}", vec!["enabld"]),
            (
                "{type: MeshTimeout, name: a, tags: 1, spec: {to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 3s, idle: 1}}]}}",
                vec!["tags", "spec.to[0].default.idle"],
            ),
            (
                "{type: Dataplane, mesh: default, name: a, networking: {address: 1.1.1.1, inbounds: [{port: 1}]}}",
                vec!["networking.inbounds"],
            ),
        ] {
            assert_eq!(mk_document(text).expect(text).unknown, wanted, "{text}");
        }
    }
}
