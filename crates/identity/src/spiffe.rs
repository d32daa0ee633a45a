//! Who a proxy is: trust domain and SPIFFE id of a MeshIdentity (xds.md §4.2).

use std::collections::BTreeMap;
use std::fmt;

use graticule_model::kinds::mesh_identity::MeshIdentity;
use graticule_model::targetref::check_spiffe_id;
use graticule_model::template::{Template, TemplateError};
use graticule_model::{Meta, labels};

/// A valid SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(String);

/// Why there is no SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// A template of the MeshIdentity does not parse or render.
    #[error("{field}: {source}")]
    Template {
        /// The field of the MeshIdentity.
        field: &'static str,
        /// What is wrong.
        source: TemplateError,
    },
    /// The path template takes something that the Dataplane has no label for.
    #[error("{field} needs the label {label} on the Dataplane")]
    Label {
        /// The field of the MeshIdentity.
        field: &'static str,
        /// The label.
        label: &'static str,
    },
    /// What was rendered is no SPIFFE id.
    #[error("{id:?} is not a valid SPIFFE ID: {reason}")]
    Invalid {
        /// As rendered.
        id: String,
        /// What is wrong.
        reason: &'static str,
    },
}

const TRUST_DOMAIN: &str = "spec.spiffeID.trustDomain";
const PATH: &str = "spec.spiffeID.path";

impl SpiffeId {
    /// Checks the grammar.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: impl Into<String>) -> Result<SpiffeId, SpiffeError> {
        let id = text.into();
        match check_spiffe_id(&id) {
            Ok(()) => Ok(SpiffeId(id)),
            Err(reason) => Err(SpiffeError::Invalid { id, reason }),
        }
    }

    /// As text, with the scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or_default();
        rest.split_once('/').map_or(rest, |(domain, _)| domain)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The trust domain of an identity in `mesh`, as seen in the zone `zone`. An identity that carries a zone
/// label belongs to that zone.
///
/// # Errors
/// The template does not render, or not to a trust domain.
pub fn trust_domain(meta: &Meta, spec: &MeshIdentity, mesh: &str, zone: &str) -> Result<String, SpiffeError> {
    let template = parse(TRUST_DOMAIN, spec.trust_domain_template())?;
    let fields = [("Mesh", mesh), ("Zone", meta.zone().unwrap_or(zone))];
    let domain = render(TRUST_DOMAIN, &template, &fields, &meta.labels)?;
    SpiffeId::parse(format!("spiffe://{domain}")).and_then(|id| {
        if id.trust_domain() == domain {
            Ok(domain)
        } else {
            Err(SpiffeError::Invalid { id: domain, reason: "a trust domain has no path" })
        }
    })
}

/// The SPIFFE id of a Dataplane with these labels. `meta` and `spec` are the identity's.
///
/// # Errors
/// A label that the templates need is missing, or what they render is no SPIFFE id.
pub fn spiffe_id(
    meta: &Meta,
    spec: &MeshIdentity,
    dataplane_labels: &BTreeMap<String, String>,
    mesh: &str,
    zone: &str,
) -> Result<SpiffeId, SpiffeError> {
    let domain = trust_domain(meta, spec, mesh, zone)?;
    let template = parse(PATH, spec.path_template())?;
    let mut fields = vec![("TrustDomain", domain.as_str())];
    let from_labels = [
        ("Namespace", labels::NAMESPACE),
        ("ServiceAccount", labels::SERVICE_ACCOUNT),
        ("Workload", labels::WORKLOAD),
    ];
    for (field, label) in from_labels {
        match dataplane_labels.get(label).filter(|value| !value.is_empty()) {
            Some(value) => fields.push((field, value)),
            // No label has an empty key, so this asks for the field alone.
            None if template.uses(field, "") => return Err(SpiffeError::Label { field: PATH, label }),
            None => {}
        }
    }
    let path = render(PATH, &template, &fields, dataplane_labels)?;
    if !path.is_empty() && !path.starts_with('/') {
        // Without this check the path would change the trust domain.
        return Err(SpiffeError::Invalid { id: path, reason: "path must begin with a slash" });
    }
    SpiffeId::parse(format!("spiffe://{domain}{path}"))
}

fn parse(field: &'static str, text: &str) -> Result<Template, SpiffeError> {
    Template::parse(text).map_err(|source| SpiffeError::Template { field, source })
}

fn render(
    field: &'static str,
    template: &Template,
    fields: &[(&str, &str)],
    labels: &BTreeMap<String, String>,
) -> Result<String, SpiffeError> {
    template.render(fields, labels).map_err(|source| SpiffeError::Template { field, source })
}

#[cfg(test)]
mod tests {
    use graticule_model::kinds::mesh_identity;

    use super::*;

    fn mk_labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn mk_spec(trust_domain: Option<&str>, path: Option<&str>) -> MeshIdentity {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let id = mesh_identity::SpiffeId { trust_domain: text(trust_domain), path: text(path) };
        MeshIdentity { spiffe_id: Some(id), ..MeshIdentity::default() }
    }

    fn check(
        spec: &MeshIdentity,
        identity_labels: &[(&str, &str)],
        dataplane_labels: &[(&str, &str)],
        expect: Result<&str, &str>,
    ) {
        let mut meta = Meta::new("default", "id");
        meta.labels = mk_labels(identity_labels);
        let got = spiffe_id(&meta, spec, &mk_labels(dataplane_labels), "default", "east");
        let got = got.map(|id| id.to_string()).map_err(|error| error.to_string());
        assert_eq!(got.as_deref().map_err(String::as_str), expect);
    }

    #[test]
    fn ids() {
        let web = [(labels::WORKLOAD, "web")];
        let default = MeshIdentity::default();
        check(&default, &[], &web, Ok("spiffe://default.east.mesh.local/workload/web"));
        check(&default, &[(labels::ZONE, "west")], &web, Ok("spiffe://default.west.mesh.local/workload/web"));
        check(
            &default,
            &[],
            &[],
            Err("spec.spiffeID.path needs the label kuma.io/workload on the Dataplane"),
        );
        let kubernetes = mk_spec(Some("td"), Some("/ns/{{ .Namespace }}/sa/{{ .ServiceAccount }}"));
        let pod = [(labels::NAMESPACE, "shop"), (labels::SERVICE_ACCOUNT, "web")];
        check(&kubernetes, &[], &pod, Ok("spiffe://td/ns/shop/sa/web"));
        let labelled =
            mk_spec(Some("{{ label \"team\" }}.x"), Some("/{{ .TrustDomain }}/{{ label \"app\" }}"));
        check(&labelled, &[("team", "a")], &[("app", "b")], Ok("spiffe://a.x/a.x/b"));
        check(&labelled, &[], &[("app", "b")], Err("spec.spiffeID.trustDomain: label \"team\" is not set"));
        check(&labelled, &[("team", "a")], &[], Err("spec.spiffeID.path: label \"app\" is not set"));
        check(
            &mk_spec(Some("UPPER"), None),
            &[],
            &web,
            Err(
                "\"spiffe://UPPER\" is not a valid SPIFFE ID: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
            ),
        );
        check(
            &mk_spec(Some("a"), Some(".evil/{{ .Workload }}")),
            &[],
            &web,
            Err("\".evil/web\" is not a valid SPIFFE ID: path must begin with a slash"),
        );
        check(
            &mk_spec(Some("a/b"), None),
            &[],
            &web,
            Err("\"a/b\" is not a valid SPIFFE ID: a trust domain has no path"),
        );
        let unknown = mk_spec(Some("{{ .Nope }}"), None);
        check(&unknown, &[], &web, Err("spec.spiffeID.trustDomain: unknown field .Nope"));
    }
}
