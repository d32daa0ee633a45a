//! Which proxy this is: from a Dataplane that is given here, or by the name of one that the control plane has.

use std::io::Read as _;
use std::path::Path;

use graticule_model::kinds::dataplane::Dataplane;
use graticule_model::{DecodeError, Typed, Violations, name, yaml};

use crate::template::{self, Variables};

/// Largest Dataplane, in bytes.
const TEXT_LEN_MAX: u64 = 1024 * 1024;

/// Where the Dataplane comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file; `-` is standard input.
    File(String),
    /// The text itself.
    Inline(String),
    /// The control plane has it already.
    Stored {
        /// Its mesh.
        mesh: String,
        /// Its name.
        name: String,
    },
}

/// The proxy, and its Dataplane if it was given here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) mesh: String,
    pub(crate) name: String,
    /// The REST form of the Dataplane as JSON text.
    pub(crate) resource: Option<String>,
}

/// Why there is no proxy to run; `origin` is the file or flag.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read the Dataplane from {origin}")]
    Read {
        origin: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{origin}: longer than 1 MiB")]
    TooLong { origin: String },
    #[error("{origin}")]
    Render {
        origin: String,
        #[source]
        source: template::Error,
    },
    #[error("{origin}")]
    Yaml {
        origin: String,
        #[source]
        source: yaml::YamlError,
    },
    #[error("{origin}: type: expected Dataplane, found {found}")]
    Kind { origin: String, found: String },
    #[error("{origin}: {path}")]
    Decode {
        origin: String,
        path: String,
        #[source]
        source: DecodeError,
    },
    #[error("{origin}: {violations}")]
    Invalid { origin: String, violations: Violations },
    #[error(
        "{origin}: networking.transparentProxying: not available in this version of the agent; list outbounds in networking.outbound instead"
    )]
    TransparentProxy { origin: String },
}

/// Reads, renders, decodes and validates.
pub(crate) fn load(source: &Source, variables: &Variables) -> Result<Proxy, Error> {
    let (origin, text) = match source {
        Source::Stored { mesh, name } => {
            let violations = name_violations(mesh, name);
            return match violations.into_result() {
                Ok(()) => Ok(Proxy { mesh: mesh.clone(), name: name.clone(), resource: None }),
                Err(violations) => Err(Error::Invalid { origin: "--mesh and --name".into(), violations }),
            };
        }
        Source::Inline(text) => ("--dataplane".to_owned(), text.clone()),
        Source::File(path) => read(path)?,
    };
    parse(&origin, &text, variables)
}

fn read(path: &str) -> Result<(String, String), Error> {
    let mut text = String::new();
    let (origin, outcome) = if path == "-" {
        (
            "standard input".to_owned(),
            std::io::stdin().lock().take(TEXT_LEN_MAX + 1).read_to_string(&mut text),
        )
    } else {
        let read = std::fs::File::open(Path::new(path))
            .and_then(|file| file.take(TEXT_LEN_MAX + 1).read_to_string(&mut text));
        (path.to_owned(), read)
    };
    match outcome {
        Err(source) => Err(Error::Read { origin, source }),
        Ok(len) if len as u64 > TEXT_LEN_MAX => Err(Error::TooLong { origin }),
        Ok(_) => Ok((origin, text)),
    }
}

/// The pure part of [`load`].
fn parse(origin: &str, text: &str, variables: &Variables) -> Result<Proxy, Error> {
    let origin = || origin.to_owned();
    let rendered =
        template::render(text, variables).map_err(|source| Error::Render { origin: origin(), source })?;
    let value = yaml::parse_one(&rendered).map_err(|source| Error::Yaml { origin: origin(), source })?;
    match value.get("type").and_then(serde_json::Value::as_str) {
        Some("Dataplane") => {}
        found => {
            let found = found.map_or_else(|| "nothing".to_owned(), |found| format!("{found:?}"));
            return Err(Error::Kind { origin: origin(), found });
        }
    }
    let resource = Typed::<Dataplane>::from_rest(&value).map_err(|source| match source {
        DecodeError::Invalid(violations) => Error::Invalid { origin: origin(), violations },
        DecodeError::Malformed { ref path, .. } => {
            let path = if path.is_empty() { "document".to_owned() } else { path.clone() };
            Error::Decode { origin: origin(), path, source }
        }
    })?;
    let mut violations = name_violations(&resource.meta.mesh, &resource.meta.name);
    if let Err(found) = resource.validate() {
        violations.0.extend(found.0);
    }
    violations.into_result().map_err(|violations| Error::Invalid { origin: origin(), violations })?;
    if redirects_traffic(&value) {
        return Err(Error::TransparentProxy { origin: origin() });
    }
    Ok(Proxy {
        mesh: resource.meta.mesh.clone(),
        name: resource.meta.name.clone(),
        resource: Some(resource.to_rest().to_string()),
    })
}

/// True when the Dataplane expects that the host redirects traffic to the proxy.
fn redirects_traffic(value: &serde_json::Value) -> bool {
    ["redirectPortInbound", "redirectPortOutbound"].iter().any(|port| {
        let path = format!("/networking/transparentProxying/{port}");
        value.pointer(&path).and_then(serde_json::Value::as_u64).is_some_and(|port| port > 0)
    })
}

/// Names become parts of paths and identities: nothing else may be in them.
fn name_violations(mesh: &str, proxy: &str) -> Violations {
    let mut violations = Violations::default();
    if let Some(message) = name::mesh_name_error(mesh) {
        violations.add("mesh", message);
    }
    if let Some(message) = name::resource_name_error(proxy) {
        violations.add("name", message);
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAPLANE: &str = "
type: Dataplane
mesh: default
name: {{ name }}
labels: {kuma.io/workload: web}
networking:
  address: 10.0.0.1
  inbound: [{port: 8080, name: http, protocol: http}]
";

    fn check(text: &str) -> Result<Proxy, String> {
        let variables = Variables::from([("name".into(), "web-1".into())]);
        parse("dp.yaml", text, &variables).map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    #[test]
    fn good() {
        let proxy = check(DATAPLANE).expect("parses");
        assert_eq!((proxy.mesh.as_str(), proxy.name.as_str()), ("default", "web-1"));
        let rest: serde_json::Value =
            serde_json::from_str(&proxy.resource.expect("has a resource")).expect("is JSON");
        assert_eq!(rest["type"], "Dataplane");
        assert_eq!(rest["kri"], "kri_dp_default___web-1_");
        assert_eq!(rest["creationTime"], "0001-01-01T00:00:00Z");
        assert_eq!(rest["labels"]["kuma.io/workload"], "web");
        assert_eq!(rest["networking"]["address"], "10.0.0.1");
        assert_eq!(rest["networking"]["inbound"][0]["port"], 8080);
    }

    #[test]
    fn mistakes_name_file_and_field() {
        for (from, to, part) in [
            ("{{ name }}", "{{ nmae }}", "dp.yaml: line 4: variable \"nmae\""),
            ("{{ name }}", "Web_1", "dp.yaml: name: invalid characters"),
            ("name: {{ name }}", "", "dp.yaml: name: cannot be empty"),
            ("type: Dataplane", "type: Mesh", "dp.yaml: type: expected Dataplane, found \"Mesh\""),
            ("type: Dataplane", "", "dp.yaml: type: expected Dataplane, found nothing"),
            ("port: 8080", "port: eighty", "dp.yaml: networking.inbound[0].port"),
            ("port: 8080", "port: 70000", "networking.inbound[0].port"),
            ("inbound: [", "inbound: ", "dp.yaml: document 1"),
            (
                "  address: 10.0.0.1",
                "  address: 10.0.0.1\n  transparentProxying: {redirectPortInbound: 15006, redirectPortOutbound: 15001}",
                "networking.transparentProxying: not available",
            ),
        ] {
            let error = check(&DATAPLANE.replace(from, to)).expect_err("refused");
            assert!(error.contains(part), "{to}: {error}");
        }
    }

    #[test]
    fn stored() {
        let stored = |mesh: &str, name: &str| {
            load(&Source::Stored { mesh: mesh.into(), name: name.into() }, &Variables::new())
        };
        assert!(stored("default", "web-7c5.shop").is_ok_and(|proxy| proxy.resource.is_none()));
        assert!(stored("default", "../web").is_err());
        assert!(stored("", "web").is_err());
    }
}
