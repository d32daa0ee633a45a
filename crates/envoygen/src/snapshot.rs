//! The resources of one proxy, and how unchanged ones are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use graticule_policy::inputs::{self, ProxyInputs};
use graticule_policy::node::{AdminFacts, FEATURE_REUSE_PORT, FEATURE_STRICT_INBOUND_PORTS};
use prost::Message;
use serde::Serialize;

use crate::cache::{Digest, SharedCache};
use crate::outbound::Surroundings;
use crate::{cluster, inbound, outbound, system, tls, type_url};

/// One named resource, encoded once.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvoyResource {
    /// Name (xds.md §2.2).
    pub name: Arc<str>,
    /// Hash of the input it was built from; survives restarts (DESIGN decision 12).
    pub version: Arc<str>,
    /// The encoded message: the value of the `Any`.
    pub body: Bytes,
}

impl fmt::Debug for EnvoyResource {
    /// Leaves the body out: it may hold a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.name, self.version, self.body.len())
    }
}

/// Resources of one type by name.
pub type Resources = BTreeMap<Arc<str>, Arc<EnvoyResource>>;

/// Everything that one proxy is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Clusters.
    pub clusters: Resources,
    /// Load assignments; one for every EDS cluster, even without endpoints.
    pub endpoints: Resources,
    /// Listeners.
    pub listeners: Resources,
    /// Certificates and validation contexts.
    pub secrets: Resources,
    /// Store revision that the inputs were computed from; set by the caller, [`snapshot`] leaves the previous one.
    pub revision: u64,
}

impl Snapshot {
    /// The resources of a type; none for a type that is not served.
    pub fn of_type(&self, type_url: &str) -> Option<&Resources> {
        match type_url {
            type_url::CLUSTER => Some(&self.clusters),
            type_url::ENDPOINT => Some(&self.endpoints),
            type_url::LISTENER => Some(&self.listeners),
            type_url::SECRET => Some(&self.secrets),
            _ => None,
        }
    }
}

/// Key material that goes into resources and must never be logged.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Certificate of the proxy's identity.
    pub identity: Option<LeafSecret>,
    /// TLS of the admin listener.
    pub admin: Option<AdminTls>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("identity", &self.identity.is_some())
            .field("admin", &self.admin.is_some())
            .finish_non_exhaustive()
    }
}

/// A leaf certificate with its chain, and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct LeafSecret {
    /// Leaf first, then intermediates.
    pub chain_pem: String,
    /// Private key.
    pub key_pem: String,
}

impl fmt::Debug for LeafSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafSecret").field("chain_bytes", &self.chain_pem.len()).finish_non_exhaustive()
    }
}

/// TLS of the admin listener (xds.md §3.9).
#[derive(Clone, PartialEq, Eq)]
pub struct AdminTls {
    /// Server certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
    /// Authority whose client certificates are accepted.
    pub ca_pem: String,
}

impl fmt::Debug for AdminTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminTls")
            .field("certificate_bytes", &self.certificate_pem.len())
            .finish_non_exhaustive()
    }
}

/// Builds the resources of a proxy.
///
/// A resource whose part of the input is unchanged keeps its `Arc`, version and bytes: from `previous`, else from
/// `cache`, which shares the resources of equal parts between proxies. Resources with key material are never cached.
/// Without `secrets` the admin certificates are empty and there is no identity secret: the form that shows a
/// configuration (`_config`), not one that Envoy accepts.
pub fn snapshot(
    inputs: &ProxyInputs,
    secrets: &Secrets,
    previous: Option<&Snapshot>,
    cache: &SharedCache,
) -> Snapshot {
    let revision = previous.map_or(0, |snapshot| snapshot.revision);
    let mut build = Build { previous, cache, snapshot: Snapshot { revision, ..Snapshot::default() } };
    if let Some(admin) = &inputs.node.admin {
        build.admin(inputs, admin, secrets.admin.as_ref());
    }
    build.passthrough(inputs);
    build.inbounds(inputs);
    build.dynconf(inputs);
    build.ingresses(inputs);
    build.outbounds(inputs);
    build.destinations(inputs);
    build.secrets(inputs, secrets.identity.as_ref());
    build.snapshot
}

/// Messages that are resources.
trait Kind: Message + Default {
    /// Tells equal parts of different kinds apart.
    const KIND: &'static str;

    fn of(snapshot: &Snapshot) -> &Resources;
    fn of_mut(snapshot: &mut Snapshot) -> &mut Resources;
}

macro_rules! kind {
    ($message:ty, $member:ident) => {
        impl Kind for $message {
            const KIND: &'static str = stringify!($member);

            fn of(snapshot: &Snapshot) -> &Resources {
                &snapshot.$member
            }

            fn of_mut(snapshot: &mut Snapshot) -> &mut Resources {
                &mut snapshot.$member
            }
        }
    };
}

kind!(Cluster, clusters);
kind!(ClusterLoadAssignment, endpoints);
kind!(Listener, listeners);
kind!(Secret, secrets);

/// A snapshot in the making.
struct Build<'a> {
    previous: Option<&'a Snapshot>,
    cache: &'a SharedCache,
    snapshot: Snapshot,
}

impl Build<'_> {
    /// A resource of this proxy alone; `part` is all that `build` reads.
    fn own<M: Kind>(&mut self, name: &str, part: &impl Serialize, build: impl FnOnce() -> Option<M>) {
        let digest = Digest::of(M::KIND, &(name, part));
        let previous = self.previous_of::<M>(name).filter(|previous| digest.is_version(&previous.version));
        let resource = match previous {
            Some(previous) => Some(Arc::clone(previous)),
            None => build().map(|message| encode(name, digest, &message)),
        };
        self.put::<M>(resource);
    }

    /// A resource that other proxies may have as well, made of a part that they share and of what `around` stands
    /// for; `digest` identifies the part's value.
    fn shared<M: Kind, T: Send + Sync + 'static>(
        &mut self,
        name: &str,
        (part, around): (&Arc<T>, Digest),
        digest: impl FnOnce(&T) -> Digest,
        build: impl FnOnce() -> Option<M>,
    ) {
        let key = (Arc::as_ptr(part) as usize, around, M::KIND);
        if let Some(known) = self.cache.known(key).filter(|known| *known.name == *name) {
            let kept = self.previous_of::<M>(name).filter(|previous| previous.version == known.version);
            let resource = kept.map_or(known, Arc::clone);
            return self.put::<M>(Some(resource));
        }
        let digest = Digest::of(M::KIND, &(name, around, digest(part)));
        let previous = self.previous_of::<M>(name).filter(|previous| digest.is_version(&previous.version));
        let resource = match previous {
            Some(previous) => Some(Arc::clone(previous)),
            None => self.cache.resource(digest, || build().map(|message| encode(name, digest, &message))),
        };
        if let Some(resource) = &resource {
            self.cache.remember(key, part, resource);
        }
        self.put::<M>(resource);
    }

    fn previous_of<M: Kind>(&self, name: &str) -> Option<&Arc<EnvoyResource>> {
        M::of(self.previous?).get(name)
    }

    fn put<M: Kind>(&mut self, resource: Option<Arc<EnvoyResource>>) {
        if let Some(resource) = resource {
            M::of_mut(&mut self.snapshot).insert(Arc::clone(&resource.name), resource);
        }
    }

    fn admin(&mut self, inputs: &ProxyInputs, admin: &AdminFacts, tls: Option<&AdminTls>) {
        for cluster in system::admin_clusters(admin) {
            self.own::<Cluster>(&cluster.name.clone(), admin, || Some(cluster));
        }
        // The certificate stands for its key: a new key always comes with a new certificate.
        let material = tls.map(|tls| (&tls.certificate_pem, &tls.ca_pem));
        let part = (&inputs.address, admin, inputs.node.ipv6, reuses_port(inputs), material);
        self.own::<Listener>(system::ADMIN, &part, || system::admin_listener(inputs, admin, tls));
    }

    fn passthrough(&mut self, inputs: &ProxyInputs) {
        let strict: Vec<_> = inputs.inbounds.iter().map(|i| (i.port, inbound::is_strict(&i.tls))).collect();
        let features = (reuses_port(inputs), inputs.node.has(FEATURE_STRICT_INBOUND_PORTS));
        let redirect = &inputs.transparent_proxy;
        let system::Passthrough { clusters, listeners } = system::passthrough(inputs);
        for cluster in clusters {
            self.own::<Cluster>(&cluster.name.clone(), &"passthrough", || Some(cluster));
        }
        let part = (redirect, features, inputs.identity.is_some(), strict);
        for listener in listeners {
            self.own::<Listener>(&listener.name.clone(), &part, || Some(listener));
        }
    }

    fn inbounds(&mut self, inputs: &ProxyInputs) {
        let transparent = inputs.transparent_proxy.is_some();
        let identity = inputs.identity.as_ref().map(|identity| &identity.secret_name);
        let domains: Vec<_> = inputs.trust.domains.keys().collect();
        let proxy = (
            &inputs.labels,
            identity,
            domains,
            &inputs.internal_cidrs,
            inputs.node.ipv6,
            reuses_port(inputs),
        );
        for input in &inputs.inbounds {
            let name = inbound::name(input);
            let workload = (&input.workload_address, input.workload_port, transparent);
            let part = (workload, input.protocol, &input.timeout, &input.circuit_breaker);
            self.own::<Cluster>(&name, &part, || Some(inbound::application_cluster(input, transparent)));
            let own =
                (&input.address, input.port, input.protocol, &input.tls, &input.permissions, &input.timeout);
            let part = (own, transparent, &proxy);
            self.own::<Listener>(&name, &part, || Some(inbound::inbound_listener(inputs, input)));
        }
    }

    fn dynconf(&mut self, inputs: &ProxyInputs) {
        if let Some(dns) = &inputs.dns {
            let part = (dns, &inputs.node.workdir, inputs.node.ipv6);
            self.own::<Listener>(system::DYNCONF, &part, || Some(system::dynconf_listener(inputs, dns)));
        }
    }

    fn ingresses(&mut self, inputs: &ProxyInputs) {
        for ingress in &inputs.zone_ingresses {
            let part = (ingress, reuses_port(inputs));
            let name = system::ingress_name(ingress);
            self.own::<Listener>(&name, &part, || system::ingress_listener(inputs, ingress));
        }
    }

    fn outbounds(&mut self, inputs: &ProxyInputs) {
        let tags = inputs.sends_tags_header.then(|| outbound::tags_header(&inputs.labels));
        let around = Surroundings {
            internal_cidrs: &inputs.internal_cidrs,
            ipv6: inputs.node.ipv6,
            tags_header: tags.as_deref(),
        };
        let surroundings = Digest::of("around", &(&inputs.internal_cidrs, inputs.node.ipv6, &tags));
        for input in &inputs.outbounds {
            let digest = |outbound: &inputs::Outbound| Digest::of("outbound", outbound);
            let build = || outbound::outbound_listener(input, around);
            self.shared::<Listener, _>(&input.name, (input, surroundings), digest, build);
        }
    }

    fn destinations(&mut self, inputs: &ProxyInputs) {
        let around = Digest::of("around", &());
        for (name, input) in &inputs.clusters {
            let digest = |cluster: &inputs::Cluster| Digest::of("destination", &ClusterPart::of(cluster));
            let build = || Some(cluster::destination(name, input));
            self.shared::<Cluster, _>(name, (input, around), digest, build);
            let digest = |cluster: &inputs::Cluster| Digest::of("endpoints", &cluster.endpoints);
            let build = || Some(cluster::load_assignment(name, &input.endpoints));
            self.shared::<ClusterLoadAssignment, _>(name, (input, around), digest, build);
        }
    }

    fn secrets(&mut self, inputs: &ProxyInputs, leaf: Option<&LeafSecret>) {
        if !inputs.trust.domains.is_empty() {
            let around = Digest::of("around", &());
            let digest = |trust: &inputs::Trust| Digest::of("trust", trust);
            let build = || Some(tls::trust_bundle(&inputs.trust));
            self.shared::<Secret, _>(tls::TRUST_BUNDLE, (&inputs.trust, around), digest, build);
        }
        if let (Some(identity), Some(leaf)) = (&inputs.identity, leaf) {
            // The certificate stands for its key, see admin.
            let name = &identity.secret_name;
            self.own::<Secret>(name, &leaf.chain_pem, || Some(tls::identity_secret(name, leaf)));
        }
    }
}

fn reuses_port(inputs: &ProxyInputs) -> bool {
    inputs.node.has(FEATURE_REUSE_PORT)
}

fn encode(name: &str, digest: Digest, message: &impl Message) -> Arc<EnvoyResource> {
    Arc::new(EnvoyResource {
        name: name.into(),
        version: digest.version(),
        body: Bytes::from(message.encode_to_vec()),
    })
}

/// A cluster without its endpoints, which are a resource of their own.
#[derive(Serialize)]
struct ClusterPart<'a> {
    role: inputs::ClusterRole,
    protocol: inputs::Protocol,
    tls: &'a Option<inputs::UpstreamTls>,
    timeout: &'a Option<graticule_model::kinds::mesh_timeout::Conf>,
    circuit_breaker: &'a Option<graticule_model::kinds::mesh_circuit_breaker::Conf>,
    connection_life: Option<inputs::ConnectionLife>,
}

impl<'a> ClusterPart<'a> {
    fn of(cluster: &'a inputs::Cluster) -> Self {
        let inputs::Cluster {
            name: _,
            role,
            protocol,
            tls,
            timeout,
            circuit_breaker,
            connection_life,
            endpoints: _,
        } = cluster;
        let (role, protocol, connection_life) = (*role, *protocol, *connection_life);
        ClusterPart { role, protocol, tls, timeout, circuit_breaker, connection_life }
    }
}
