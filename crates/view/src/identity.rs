//! Who a proxy is: selection of the MeshIdentity, trust domain and SPIFFE id (xds.md §4.1, §4.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::kinds::mesh_identity::MeshIdentity;
use graticule_model::targetref::check_spiffe_id;
use graticule_model::template::Template;
use graticule_model::{Resource, labels};

/// Why an identity has no trust domain, or a proxy has no SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The resource is no MeshIdentity.
    #[error("not a MeshIdentity")]
    Kind,
    /// The template of the trust domain does not render.
    #[error("spec.spiffeID.trustDomain: {0}")]
    TrustDomain(String),
    /// The template of the path does not render, or the id is malformed.
    #[error("spec.spiffeID.path: {0}")]
    Path(String),
}

/// The best MeshIdentity for a Dataplane with these labels: most selector labels, then the smallest stored name.
///
/// Readiness plays no part (xds.md §4.1).
pub fn best<'a>(
    identities: impl IntoIterator<Item = &'a Arc<Resource>>,
    dataplane_labels: &BTreeMap<String, String>,
) -> Option<&'a Arc<Resource>> {
    identities
        .into_iter()
        .filter_map(|resource| Some((resource, resource.spec_as::<MeshIdentity>()?)))
        .filter(|(_, identity)| identity.selects(dataplane_labels))
        .min_by(|(a, left), (b, right)| {
            right.specificity().cmp(&left.specificity()).then_with(|| a.meta.name.cmp(&b.meta.name))
        })
        .map(|(resource, _)| resource)
}

/// Trust domain of an identity in the zone `local_zone`.
pub fn trust_domain(identity: &Resource, local_zone: &str) -> Result<String, IdentityError> {
    let spec = identity.spec_as::<MeshIdentity>().ok_or(IdentityError::Kind)?;
    let fail = |error: &dyn std::fmt::Display| IdentityError::TrustDomain(error.to_string());
    let zone = identity.meta.zone().unwrap_or(local_zone);
    let fields = [("Mesh", identity.meta.mesh.as_str()), ("Zone", zone)];
    let text = Template::parse(spec.trust_domain_template())
        .and_then(|template| template.render(&fields, &identity.meta.labels))
        .map_err(|error| fail(&error))?;
    check_spiffe_id(&format!("spiffe://{text}")).map_err(|reason| fail(&reason))?;
    if text.contains('/') {
        return Err(fail(&"a trust domain has no path"));
    }
    if text.len() > 253 {
        return Err(fail(&"a trust domain must not be longer than 253 characters"));
    }
    Ok(text)
}

/// The templates of an identity, ready to make the ids of many proxies.
#[derive(Debug, Clone)]
pub struct IdentityTemplate {
    trust_domain: String,
    path: Template,
}

impl IdentityTemplate {
    /// Templates of a MeshIdentity in the zone `local_zone`.
    pub fn of(identity: &Resource, local_zone: &str) -> Result<IdentityTemplate, IdentityError> {
        let spec = identity.spec_as::<MeshIdentity>().ok_or(IdentityError::Kind)?;
        let path =
            Template::parse(spec.path_template()).map_err(|error| IdentityError::Path(error.to_string()))?;
        Ok(IdentityTemplate { trust_domain: trust_domain(identity, local_zone)?, path })
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// SPIFFE id of a Dataplane with these labels.
    pub fn render(&self, dataplane_labels: &BTreeMap<String, String>) -> Result<String, IdentityError> {
        let label = |key: &str| dataplane_labels.get(key).map(String::as_str).unwrap_or_default();
        let fields = [
            ("Namespace", label(labels::NAMESPACE)),
            ("ServiceAccount", label(labels::SERVICE_ACCOUNT)),
            ("Workload", label(labels::WORKLOAD)),
            ("TrustDomain", self.trust_domain.as_str()),
        ];
        let fail = |error: &dyn std::fmt::Display| IdentityError::Path(error.to_string());
        let path = self.path.render(&fields, dataplane_labels).map_err(|error| fail(&error))?;
        if !path.starts_with('/') {
            return Err(fail(&format!("the path \"{path}\" must start with /")));
        }
        let id = format!("spiffe://{}{path}", self.trust_domain);
        check_spiffe_id(&id).map_err(|reason| fail(&format!("\"{id}\": {reason}")))?;
        Ok(id)
    }
}

/// The certificates of a PEM text, each without line breaks: equal certificates have equal texts.
pub(crate) fn certificates(pem: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    let mut rest = pem;
    while let Some(start) = rest.find(BEGIN) {
        let body = &rest[start + BEGIN.len()..];
        let Some(end) = body.find(END) else { break };
        let text: String = body[..end].chars().filter(|c| !c.is_ascii_whitespace()).collect();
        if !text.is_empty() {
            found.push(text);
        }
        rest = &body[end + END.len()..];
    }
    found
}

#[cfg(test)]
mod tests {
    use graticule_model::Meta;
    use graticule_model::kinds::mesh_identity::SpiffeId;

    use super::*;

    fn mk_labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn mk_spec(trust_domain: Option<&str>, path: Option<&str>) -> MeshIdentity {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let id = SpiffeId { trust_domain: text(trust_domain), path: text(path) };
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
        let template = IdentityTemplate::of(&Resource::new(meta, spec.clone()), "east");
        let got = template.and_then(|template| template.render(&mk_labels(dataplane_labels)));
        let got = got.map_err(|error| error.to_string());
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
            Err(
                "spec.spiffeID.path: \"spiffe://default.east.mesh.local/workload/\": path cannot have a trailing slash",
            ),
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
                "spec.spiffeID.trustDomain: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
            ),
        );
        let elsewhere = mk_spec(Some("a"), Some(".evil/{{ .Workload }}"));
        check(&elsewhere, &[], &web, Err("spec.spiffeID.path: the path \".evil/web\" must start with /"));
        check(
            &mk_spec(Some("a/b"), None),
            &[],
            &web,
            Err("spec.spiffeID.trustDomain: a trust domain has no path"),
        );
        let unknown = mk_spec(Some("{{ .Nope }}"), None);
        check(&unknown, &[], &web, Err("spec.spiffeID.trustDomain: unknown field .Nope"));
    }
}
