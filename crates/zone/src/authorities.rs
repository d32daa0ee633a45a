//! Certificate authorities of MeshIdentities: made once, loaded from Secrets or from what a user provides.

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_control_plane::read_secret;
use graticule_identity::{CaError, CertificateAuthority};
use graticule_model::kinds::mesh_identity::MeshIdentity;
use graticule_model::kinds::secret::{Secret, SecretBytes};
use graticule_model::{Key, Meta, Resource, Timestamp, TypedSpec};
use graticule_runtime::Random;
use graticule_store::{Expect, Snapshot, Txn, Write};
use graticule_view::derive::{AuthorityReport, AuthorityRequest, AuthoritySource, Material};
use parking_lot::Mutex;

/// Authorities in use, by MeshIdentity. Cheap to clone.
#[derive(Clone, Default)]
pub struct Authorities(Arc<Mutex<BTreeMap<Key, Loaded>>>);

#[derive(Clone)]
struct Loaded {
    authority: Arc<CertificateAuthority>,
    /// Certificate of the source, to notice another one.
    pem: Vec<u8>,
}

/// Why there is no authority. The text names the identity and holds no key material.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// Secrets or files are not there.
    #[error("MeshIdentity {0} has no certificate authority yet")]
    Missing(String),
    /// They cannot be used.
    #[error("certificate authority of MeshIdentity {identity} cannot be used")]
    Unusable {
        /// The identity.
        identity: String,
        /// Reason.
        #[source]
        source: CaError,
    },
}

impl Authorities {
    /// The authority of an identity: from its Secrets when it is generated, else what was provided.
    pub(crate) fn of(
        &self,
        identity: &Resource,
        snapshot: &Snapshot,
    ) -> Result<Arc<CertificateAuthority>, AuthorityError> {
        let key = identity.key();
        let generated = identity
            .spec_as::<MeshIdentity>()
            .and_then(MeshIdentity::bundled)
            .is_some_and(|bundled| bundled.autogenerate.as_ref().is_some_and(|a| a.enabled == Some(true)));
        let name = identity.meta.display_name();
        let missing = || AuthorityError::Missing(name.into());
        if !generated {
            return self.0.lock().get(&key).map(|loaded| loaded.authority.clone()).ok_or_else(missing);
        }
        let mesh = Some(identity.meta.mesh.as_str());
        let certificate = read_secret(snapshot, mesh, &format!("{name}-root-ca")).ok_or_else(missing)?;
        if let Some(loaded) = self.0.lock().get(&key)
            && loaded.pem == certificate
        {
            return Ok(loaded.authority.clone());
        }
        let private_key = read_secret(snapshot, mesh, &format!("{name}-private-key")).ok_or_else(missing)?;
        let authority = CertificateAuthority::from_pem(&certificate, &private_key)
            .map_err(|source| AuthorityError::Unusable { identity: name.into(), source })?;
        let authority = Arc::new(authority);
        self.0.lock().insert(key, Loaded { authority: authority.clone(), pem: certificate });
        Ok(authority)
    }

    /// Answers a request of the derivation: a transaction that stores a new authority, or a report.
    pub(crate) fn provide(&self, request: &AuthorityRequest, now: Timestamp, random: &Random) -> Provided {
        match &request.source {
            AuthoritySource::Generated { certificate, private_key } => {
                match CertificateAuthority::generate(&request.trust_domain, now, random.bytes16()) {
                    Ok(authority) => {
                        Provided::Store(secrets_txn(request, certificate, private_key, &authority, now))
                    }
                    Err(error) => Provided::Report(report(request, Err(error.to_string()))),
                }
            }
            AuthoritySource::Provided { certificate, private_key, allow_self_signed } => {
                let outcome = load(certificate, private_key, *allow_self_signed);
                let outcome = outcome.map(|(pem, authority)| {
                    let text = authority.cert_pem().to_owned();
                    let loaded = Loaded { authority: Arc::new(authority), pem };
                    self.0.lock().insert(request.identity.clone(), loaded);
                    text
                });
                Provided::Report(report(request, outcome))
            }
        }
    }
}

/// Outcome of [`Authorities::provide`].
pub(crate) enum Provided {
    /// To be committed; the derivation sees the Secrets afterwards.
    Store(Txn),
    /// To be passed to the next derivation.
    Report(AuthorityReport),
}

fn report(request: &AuthorityRequest, outcome: Result<String, String>) -> AuthorityReport {
    AuthorityReport { source: request.source.clone(), outcome }
}

fn load(
    certificate: &Material,
    private_key: &Material,
    allow_self_signed: bool,
) -> Result<(Vec<u8>, CertificateAuthority), String> {
    let pem = read(certificate).map_err(|reason| format!("ca.certificate: {reason}"))?;
    let key = read(private_key).map_err(|reason| format!("ca.privateKey: {reason}"))?;
    let authority = CertificateAuthority::from_pem(&pem, &key).map_err(|error| error.to_string())?;
    if authority.is_self_signed() && !allow_self_signed {
        return Err("the authority is self-signed and insecureAllowSelfSigned is not set".into());
    }
    Ok((pem, authority))
}

/// Largest file of an authority, in bytes.
const MATERIAL_BYTES_MAX: u64 = 1 << 20;

fn read(material: &Material) -> Result<Vec<u8>, String> {
    match material {
        Material::Bytes(bytes) => Ok(bytes.0.clone()),
        Material::EnvVar(name) => {
            std::env::var(name).map(String::into_bytes).map_err(|_| format!("variable {name} is not set"))
        }
        Material::File(path) => {
            let length = std::fs::metadata(path).map_err(|error| format!("{path}: {error}"))?.len();
            if length > MATERIAL_BYTES_MAX {
                return Err(format!("{path} is larger than {MATERIAL_BYTES_MAX} bytes"));
            }
            std::fs::read(path).map_err(|error| format!("{path}: {error}"))
        }
    }
}

fn secrets_txn(
    request: &AuthorityRequest,
    certificate: &Key,
    private_key: &Key,
    authority: &CertificateAuthority,
    now: Timestamp,
) -> Txn {
    let pair = authority.to_pem();
    let secret = |key: &Key, pem: String| {
        let mut meta = Meta::new(key.mesh.clone(), key.name.clone());
        meta.owner = Some(request.identity.clone());
        let data = SecretBytes(pem.into_bytes());
        let status = graticule_model::Status::empty(Secret::KIND);
        let resource = Box::new(Resource { meta, spec: Secret { data }.wrap(), status });
        // Whoever was first wins: both Secrets are written together or not at all.
        Write::Put { resource, expect: Expect::Absent, touch: false }
    };
    let writes = vec![secret(certificate, pair.cert_pem), secret(private_key, pair.key_pem)];
    Txn { at: Some(now), writes }
}
