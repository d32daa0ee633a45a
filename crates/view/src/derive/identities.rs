//! Status of MeshIdentities, requests for certificate authorities, and the MeshTrusts that bundled identities
//! publish (xds.md §4.3–§4.5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graticule_model::kinds::mesh_identity::{
    Bundled, MeshIdentity, MeshIdentityStatus, ProvidedCa, SecureDataSource,
};
use graticule_model::kinds::mesh_service::Condition;
use graticule_model::kinds::mesh_trust::{CaBundle, MeshTrust, MeshTrustStatus, Origin, Pem};
use graticule_model::kinds::secret::{Secret, SecretBytes};
use graticule_model::{Key, Kind, Meta, Resource, Spec, Status, Timestamp, TypedSpec};

use super::{DeriveState, Derived, Draft, mesh_owner};
use crate::identity::{self, IdentityTemplate};

/// A certificate authority that somebody with keys, randomness and files has to provide.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorityRequest {
    /// The MeshIdentity; owner of the Secrets that are made for it.
    pub identity: Key,
    /// Its trust domain.
    pub trust_domain: String,
    /// What is to be done.
    pub source: AuthoritySource,
}

/// Where an authority comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum AuthoritySource {
    /// It is to be made and stored in these two Secrets (PEM), both in one transaction.
    Generated {
        /// Secret of the certificate.
        certificate: Key,
        /// Secret of the key.
        private_key: Key,
    },
    /// A user provides it; it is to be loaded and checked (CA:true, keyCertSign, no keyAgreement), and the outcome
    /// to be reported.
    Provided {
        /// The certificate.
        certificate: Material,
        /// The key.
        private_key: Material,
        /// Self-signed authorities are admitted.
        allow_self_signed: bool,
    },
}

/// A piece of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// The bytes, from a Secret or from the resource itself.
    Bytes(SecretBytes),
    /// A file of the control plane.
    File(String),
    /// A variable of the control plane.
    EnvVar(String),
}

/// What came of an [`AuthorityRequest`].
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorityReport {
    /// The source it was about; a report about another source than the present one is void.
    pub source: AuthoritySource,
    /// PEM certificate, or why there is none.
    pub outcome: Result<String, String>,
}

/// MeshIdentities and MeshTrusts of a mesh as they are after this derivation.
pub(super) struct Identities {
    list: Vec<Effective>,
    trust_domains: BTreeSet<String>,
}

struct Effective {
    resource: Arc<Resource>,
    template: Option<IdentityTemplate>,
    is_initialized: bool,
    is_advertised: bool,
}

impl Identities {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Ids that all matching identities give to a Dataplane, not only the best one.
    pub(super) fn spiffe_ids(&self, labels: &BTreeMap<String, String>) -> Vec<String> {
        self.list
            .iter()
            .filter(|identity| identity.is_advertised)
            .filter(|identity| {
                identity.resource.spec_as::<MeshIdentity>().is_some_and(|spec| spec.selects(labels))
            })
            .filter_map(|identity| identity.template.as_ref()?.render(labels).ok())
            .collect()
    }

    /// The proxy gets a certificate that others accept.
    pub(super) fn is_trusted(&self, labels: &BTreeMap<String, String>) -> bool {
        let best = identity::best(self.list.iter().map(|identity| &identity.resource), labels);
        let best =
            best.and_then(|best| self.list.iter().find(|identity| Arc::ptr_eq(&identity.resource, best)));
        best.is_some_and(|identity| {
            identity.is_initialized
                && identity.template.as_ref().is_some_and(|template| {
                    self.trust_domains.contains(template.trust_domain()) && template.render(labels).is_ok()
                })
        })
    }
}

/// What an identity's provider has to offer.
enum Provider {
    /// An authority; this is its PEM certificate.
    Ready(String),
    /// Asked for, nothing came yet.
    Pending,
    /// Cannot work.
    Failed { reason: &'static str, message: String },
    /// There is none: ids are advertised, nobody issues certificates.
    Absent,
}

impl Provider {
    fn init_error(message: impl Into<String>) -> Provider {
        Provider::Failed { reason: "ProviderInitializationError", message: message.into() }
    }
}

pub(super) fn derive(state: &DeriveState<'_>, mesh: &str, derived: &mut Derived) -> Identities {
    let mut trusts: BTreeMap<String, Draft> = state
        .resources
        .list(Kind::MeshTrust, mesh)
        .map(|stored| (stored.meta.name.clone(), Draft::of(stored)))
        .collect();
    let mut list = Vec::new();
    for (stored, spec) in state.resources.typed::<MeshIdentity>(mesh) {
        let template = IdentityTemplate::of(stored, state.zone);
        let provider = match &template {
            Ok(template) => assess(state, stored, spec, template.trust_domain(), derived),
            Err(error) => Provider::init_error(error.to_string()),
        };
        let trust = match (&provider, &template, spec.bundled()) {
            (Provider::Ready(pem), Ok(template), Some(bundled)) if publishes_trust(bundled) => {
                Some(publish(mesh, stored, template.trust_domain(), pem, &mut trusts))
            }
            _ => None,
        };
        let mut draft = Draft::of(stored);
        if let Status::MeshIdentity(status) = &mut draft.resource.status
            && let Some(conditions) = conditions(status, &provider, trust)
        {
            status.conditions = conditions;
        }
        let resource = Arc::new(draft.resource.clone());
        let status = resource.status_of::<MeshIdentity>();
        let is_initialized = status.is_some_and(MeshIdentityStatus::is_initialized);
        list.push(Effective {
            is_initialized,
            is_advertised: is_initialized || status.is_some_and(MeshIdentityStatus::is_partially_ready),
            template: template.ok(),
            resource,
        });
        derived.writes.extend(draft.into_write());
    }
    let trust_domains = trusts
        .values()
        .filter_map(|trust| trust.resource.spec_as::<MeshTrust>())
        .map(|t| t.trust_domain.clone());
    let trust_domains = trust_domains.collect();
    derived.writes.extend(trusts.into_values().filter_map(Draft::into_write));
    Identities { list, trust_domains }
}

fn publishes_trust(bundled: &Bundled) -> bool {
    bundled.mesh_trust_creation.as_deref() != Some("Disabled")
}

fn assess(
    state: &DeriveState<'_>,
    identity: &Resource,
    spec: &MeshIdentity,
    trust_domain: &str,
    derived: &mut Derived,
) -> Provider {
    let Some(provider) = &spec.provider else { return Provider::Absent };
    let Some(bundled) = spec.bundled() else {
        let message = format!("provider {} is not available in this control plane", provider.r#type);
        return Provider::Failed { reason: "ProviderNotFoundError", message };
    };
    let key = identity.key();
    let mut request = |source| {
        derived.authorities.push(AuthorityRequest {
            identity: key.clone(),
            trust_domain: trust_domain.into(),
            source,
        });
    };
    let allow_self_signed = bundled.insecure_allow_self_signed == Some(true);
    if bundled.autogenerate.as_ref().is_some_and(|autogenerate| autogenerate.enabled == Some(true)) {
        if !allow_self_signed {
            let message = "self-signed certificates are not allowed".into();
            return Provider::Failed { reason: "ProviderValidationError", message };
        }
        let secret = |suffix: &str| {
            Key::new(
                Kind::Secret,
                identity.meta.mesh.clone(),
                format!("{}-{suffix}", identity.meta.display_name()),
            )
        };
        let (certificate, private_key) = (secret("root-ca"), secret("private-key"));
        if let Some(found) = state.resources.get(&certificate)
            && state.resources.get(&private_key).is_some()
        {
            return match found.spec_as::<Secret>().and_then(|secret| pem(&secret.data)) {
                Some(pem) => Provider::Ready(pem),
                None => {
                    Provider::init_error(format!("secret \"{}\" holds no PEM certificate", certificate.name))
                }
            };
        }
        let source = AuthoritySource::Generated { certificate, private_key };
        let reported = reported(state, &key, &source);
        request(source);
        return match reported {
            Some(Err(reason)) => Provider::init_error(reason),
            _ => Provider::Pending,
        };
    }
    let source = match &bundled.ca {
        Some(ca) => provided(state, &identity.meta.mesh, ca, allow_self_signed),
        None => Err("spec.provider.bundled.ca: must be defined".into()),
    };
    match source {
        Err(message) => Provider::init_error(message),
        Ok(source) => match reported(state, &key, &source) {
            Some(Ok(pem)) => Provider::Ready(pem.clone()),
            Some(Err(reason)) => {
                Provider::Failed { reason: "ProviderValidationError", message: reason.clone() }
            }
            None => {
                request(source);
                Provider::Pending
            }
        },
    }
}

fn reported<'a>(
    state: &DeriveState<'a>,
    identity: &Key,
    source: &AuthoritySource,
) -> Option<&'a Result<String, String>> {
    state.authorities.get(identity).filter(|report| report.source == *source).map(|report| &report.outcome)
}

fn provided(
    state: &DeriveState<'_>,
    mesh: &str,
    ca: &ProvidedCa,
    allow_self_signed: bool,
) -> Result<AuthoritySource, String> {
    let path = "spec.provider.bundled.ca";
    let certificate = material(state, mesh, ca.certificate.as_ref(), &format!("{path}.certificate"))?;
    let private_key = material(state, mesh, ca.private_key.as_ref(), &format!("{path}.privateKey"))?;
    Ok(AuthoritySource::Provided { certificate, private_key, allow_self_signed })
}

fn material(
    state: &DeriveState<'_>,
    mesh: &str,
    source: Option<&SecureDataSource>,
    path: &str,
) -> Result<Material, String> {
    let source = source.ok_or_else(|| format!("{path}: must be defined"))?;
    let found = match source.r#type.as_str() {
        "File" => source.file.as_ref().map(|file| Material::File(file.path.clone())),
        "EnvVar" => source.env_var.as_ref().map(|variable| Material::EnvVar(variable.name.clone())),
        "InsecureInline" => source
            .insecure_inline
            .as_ref()
            .map(|inline| Material::Bytes(SecretBytes(inline.value.clone().into_bytes()))),
        "Secret" => match &source.secret_ref {
            None => None,
            Some(reference) => {
                let stored = state.resources.get(&Key::new(Kind::Secret, mesh, reference.name.clone()));
                let secret = stored.and_then(|stored| stored.spec_as::<Secret>());
                let secret =
                    secret.ok_or_else(|| format!("{path}: secret \"{}\" does not exist", reference.name))?;
                Some(Material::Bytes(secret.data.clone()))
            }
        },
        other => {
            return Err(format!("{path}.type: {other} must be one of: File, Secret, EnvVar, InsecureInline"));
        }
    };
    found.ok_or_else(|| format!("{path}: {} must be defined", source.r#type))
}

fn pem(data: &SecretBytes) -> Option<String> {
    let text = std::str::from_utf8(&data.0).ok()?;
    (!identity::certificates(text).is_empty()).then(|| text.to_owned())
}

/// Adds the authority to the MeshTrust of the identity's name, which is made if it does not exist. Authorities are
/// never removed and the trust domain never changed: rotation is append first, then edit.
fn publish(
    mesh: &str,
    identity: &Resource,
    trust_domain: &str,
    pem: &str,
    trusts: &mut BTreeMap<String, Draft>,
) -> Result<(), String> {
    let name = &identity.meta.name;
    let Some(draft) = trusts.get_mut(name) else {
        let mut meta = Meta::new(mesh, name.clone());
        meta.owner = mesh_owner(mesh);
        let mut resource = Resource::new(meta, MeshTrust::of_pem(trust_domain, pem));
        let kri = identity.kri().map(|kri| kri.to_string());
        resource.status = MeshTrust::wrap_status(MeshTrustStatus { origin: Some(Origin { kri }) });
        trusts.insert(name.clone(), Draft::new(resource, Timestamp::UNIX_EPOCH));
        return Ok(());
    };
    if !draft.resource.meta.is_local_to_zone() {
        return Err(format!("MeshTrust \"{name}\" is a copy of another control plane's"));
    }
    let Spec::MeshTrust(trust) = &mut draft.resource.spec else { return Ok(()) };
    if trust.trust_domain != trust_domain {
        return Err(format!(
            "MeshTrust \"{name}\" is for trust domain {}, not {trust_domain}",
            trust.trust_domain
        ));
    }
    let known: BTreeSet<String> = trust.pems().flat_map(identity::certificates).collect();
    if !identity::certificates(pem).iter().all(|certificate| known.contains(certificate)) {
        let pem = Some(Pem { value: pem.into() });
        trust.ca_bundles.push(CaBundle { r#type: "Pem".into(), pem });
    }
    Ok(())
}

/// The conditions; `None` = they stay as they are.
fn conditions(
    current: &MeshIdentityStatus,
    provider: &Provider,
    trust: Option<Result<(), String>>,
) -> Option<Vec<Condition>> {
    let condition = |r#type: &str, holds: bool, reason: &str, message: &str| Condition {
        r#type: r#type.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: reason.into(),
        message: message.into(),
    };
    let failure = || condition("Ready", false, "Failure", "One of initialization steps failed");
    Some(match provider {
        // Waiting takes no readiness away: proxies with certificates would fall back to plaintext.
        Provider::Pending if current.is_initialized() => return None,
        Provider::Pending => {
            let message = "waiting for the certificate authority";
            vec![condition("Provider", false, "ProviderInitializationError", message), failure()]
        }
        Provider::Failed { reason, message } => {
            vec![condition("Provider", false, reason, message), failure()]
        }
        Provider::Absent => vec![
            condition("SpiffeIDProvider", true, "SpiffeIDProvided", "SPIFFE ids are provided"),
            condition("Ready", false, "PartiallyReady", "no provider issues certificates"),
        ],
        Provider::Ready(_) => {
            let mut conditions =
                vec![condition("Provider", true, "ProviderInitialized", "Provider successfully initialized")];
            conditions.extend(trust.map(|outcome| match outcome {
                Ok(()) => condition(
                    "MeshTrustCreated",
                    true,
                    "MeshTrustCreated",
                    "MeshTrust has been successfully created",
                ),
                Err(message) => condition("MeshTrustCreated", false, "MeshTrustCreationError", &message),
            }));
            conditions.push(condition("Ready", true, "Ready", "Successfully initialized"));
            conditions
        }
    })
}
