//! Certificates of proxies: one leaf per proxy and identity, one admin certificate per proxy; both outlive streams,
//! so that a reconnect sends nothing (xds.md §1.6, "ours").

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use graticule_control_plane::read_secret;
use graticule_envoygen::{AdminTls, LeafSecret, Secrets};
use graticule_identity::{AdminAuthority, Leaf, SpiffeId, admin, rotation};
use graticule_model::kinds::dataplane_insight::MTls;
use graticule_model::kinds::mesh_identity::{DEFAULT_EXPIRY, MeshIdentity};
use graticule_model::{Resource, Timestamp};
use graticule_policy::ProxyInputs;
use graticule_runtime::supervisor::chain;
use graticule_runtime::{Clock, Random};
use graticule_store::Snapshot;
use graticule_view::ProxyId;

use crate::authorities::Authorities;

/// A failed issue is tried again after this time; a change of the authority tries at once.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Issues and keeps certificates.
pub(crate) struct Certificates {
    authorities: Authorities,
    clock: Clock,
    random: Random,
    leaves: BTreeMap<ProxyId, Issued>,
    admin: BTreeMap<ProxyId, (String, AdminTls)>,
    admin_authority: Option<(Vec<u8>, Arc<AdminAuthority>)>,
}

struct Issued {
    spiffe_id: String,
    authority_pem: String,
    secret_name: String,
    leaf: Leaf,
    jitter: f64,
    count: u32,
}

/// What a proxy gets, and what is to be said about it.
pub(crate) struct Material {
    pub(crate) secrets: Secrets,
    /// Set when the certificate or the identity changed.
    pub(crate) news: Option<Option<MTls>>,
    /// When to look again.
    pub(crate) due: Option<Timestamp>,
}

impl Certificates {
    pub(crate) fn new(authorities: Authorities, clock: Clock, random: Random) -> Certificates {
        Certificates {
            authorities,
            clock,
            random,
            leaves: BTreeMap::new(),
            admin: BTreeMap::new(),
            admin_authority: None,
        }
    }

    /// Forgets a proxy whose Dataplane is gone.
    pub(crate) fn forget(&mut self, proxy: &ProxyId) {
        self.leaves.remove(proxy);
        self.admin.remove(proxy);
    }

    /// Certificates for the inputs of a proxy; `identity` is the MeshIdentity that they name.
    pub(crate) fn material(
        &mut self,
        proxy: &ProxyId,
        inputs: &ProxyInputs,
        identity: Option<&Resource>,
        snapshot: &Snapshot,
    ) -> Material {
        let admin = inputs.node.admin.as_ref().and_then(|_| self.admin(proxy, &inputs.address, snapshot));
        let (Some(wanted), Some(identity)) = (&inputs.identity, identity) else {
            let news = self.leaves.remove(proxy).map(|_| None);
            return Material { secrets: Secrets { identity: None, admin }, news, due: None };
        };
        let now = self.clock.now();
        match self.leaf(proxy, &wanted.spiffe_id, &wanted.secret_name, identity, snapshot, now) {
            Ok(news) => {
                let issued = self.leaves.get(proxy);
                let leaf = issued.map(|issued| LeafSecret {
                    chain_pem: issued.leaf.chain_pem.clone(),
                    key_pem: issued.leaf.key_pem.clone(),
                });
                let due = issued.map(|issued| {
                    rotation::at(issued.leaf.generated_at, issued.leaf.not_after, issued.jitter)
                });
                Material { secrets: Secrets { identity: leaf, admin }, news: news.map(Some), due }
            }
            Err(reason) => {
                tracing::warn!(%proxy, reason, "no certificate for the proxy");
                let due = now.checked_add(RETRY_AFTER).ok();
                Material { secrets: Secrets { identity: None, admin }, news: None, due }
            }
        }
    }

    /// Makes sure that the leaf fits; news when it is a new one.
    fn leaf(
        &mut self,
        proxy: &ProxyId,
        spiffe_id: &str,
        secret_name: &str,
        identity: &Resource,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Option<MTls>, String> {
        let authority = self.authorities.of(identity, snapshot).map_err(|error| chain(&error))?;
        if let Some(issued) = self.leaves.get(proxy)
            && issued.spiffe_id == spiffe_id
            && issued.secret_name == secret_name
            && issued.authority_pem == authority.cert_pem()
            && !rotation::due(issued.leaf.generated_at, issued.leaf.not_after, now, issued.jitter)
        {
            return Ok(None);
        }
        let expiry = identity
            .spec_as::<MeshIdentity>()
            .and_then(MeshIdentity::bundled)
            .and_then(|bundled| bundled.certificate_parameters.as_ref()?.expiry)
            .filter(|expiry| expiry.0 > 0)
            .unwrap_or(DEFAULT_EXPIRY);
        let id = SpiffeId::parse(spiffe_id).map_err(|error| error.to_string())?;
        let leaf = authority
            .issue_leaf(&id, now, expiry.to_std(), self.random.bytes16())
            .map_err(|error| chain(&error))?;
        let count = self.leaves.get(proxy).map_or(0, |issued| issued.count) + 1;
        let news = MTls {
            certificate_expiration_time: Some(leaf.not_after),
            last_certificate_regeneration: Some(leaf.generated_at),
            certificate_regenerations: count,
            issued_backend: secret_name.into(),
            supported_backends: trust_kris(snapshot, &proxy.mesh),
        };
        let issued = Issued {
            spiffe_id: spiffe_id.into(),
            authority_pem: authority.cert_pem().into(),
            secret_name: secret_name.into(),
            leaf,
            jitter: self.random.fraction(),
            count,
        };
        self.leaves.insert(proxy.clone(), issued);
        Ok(Some(news))
    }

    fn admin(&mut self, proxy: &ProxyId, address: &str, snapshot: &Snapshot) -> Option<AdminTls> {
        let data = read_secret(snapshot, None, admin::SECRET)?;
        if self.admin_authority.as_ref().is_none_or(|(known, _)| *known != data) {
            match AdminAuthority::from_secret(&data) {
                Ok(authority) => self.admin_authority = Some((data, Arc::new(authority))),
                Err(error) => {
                    tracing::error!(error = chain(&error), "GlobalSecret {} cannot be used", admin::SECRET);
                    return None;
                }
            }
            self.admin.clear();
        }
        let (_, authority) = self.admin_authority.as_ref()?;
        if let Some((known, tls)) = self.admin.get(proxy)
            && known == address
        {
            return Some(tls.clone());
        }
        let pair = authority.server_cert(address, self.clock.now(), self.random.bytes16());
        let pair =
            pair.inspect_err(|error| tracing::error!(%proxy, error = chain(error), "no admin certificate"));
        let pair = pair.ok()?;
        let tls = AdminTls {
            certificate_pem: pair.cert_pem,
            key_pem: pair.key_pem,
            ca_pem: authority.cert_pem().into(),
        };
        self.admin.insert(proxy.clone(), (address.into(), tls.clone()));
        Some(tls)
    }
}

fn trust_kris(snapshot: &Snapshot, mesh: &str) -> Vec<String> {
    let trusts = snapshot.list(graticule_model::Kind::MeshTrust, Some(mesh));
    let mut kris: Vec<String> = trusts.filter_map(|trust| Some(trust.kri()?.to_string())).collect();
    kris.sort();
    kris
}
