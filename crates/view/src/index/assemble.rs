//! Assembles the inputs of one proxy (xds.md §3, §6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graticule_model::kinds::dataplane::{Dataplane, ListenerType, Networking, SERVICELESS_PORT};
use graticule_model::kinds::mesh_identity::{MeshIdentity, MeshIdentityStatus};
use graticule_model::kinds::mesh_service::MeshService;
use graticule_model::{Key, Kind, Resource, labels};
use graticule_policy::destinations::{Backend, ports};
use graticule_policy::effective::{Effective, MatchOptions};
use graticule_policy::inputs::{
    Cluster, ClusterRole, Dns, Identity, Inbound, IngressChain, Outbound, Protocol, ProxyInputs,
    TransparentProxy, UpstreamTls, ZoneIngress,
};
use graticule_policy::node::FEATURE_BIND_OUTBOUNDS;
use graticule_policy::{NodeFacts, ProxyId};

use super::mesh::MeshView;
use super::{Assembled, Surroundings, transparent};
use crate::identity::{self, IdentityTemplate};

/// Why a proxy has no inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputsError {
    /// It has no stream to this replica.
    #[error("proxy {0} is not connected")]
    NotConnected(ProxyId),
    /// Its Dataplane does not exist.
    #[error("proxy {0} has no Dataplane")]
    NoDataplane(ProxyId),
    /// Its mesh does not exist (any more): without policies and identity nothing that may be served.
    #[error("proxy {0}: its mesh does not exist")]
    NoMesh(ProxyId),
    /// Its address is a DNS name that does not resolve (yet).
    #[error("proxy {proxy}: networking.address \"{host}\" does not resolve")]
    Unresolved {
        /// The proxy.
        proxy: ProxyId,
        /// The name.
        host: String,
    },
}

pub(super) fn assemble(
    view: &mut MeshView,
    around: &Surroundings<'_>,
    proxy: &ProxyId,
    node: NodeFacts,
) -> Result<Assembled, InputsError> {
    let no_dataplane = || InputsError::NoDataplane(proxy.clone());
    let resource = view.dataplanes.get(&proxy.name).cloned().ok_or_else(no_dataplane)?;
    let dataplane = resource.spec_as::<Dataplane>().ok_or_else(no_dataplane)?;
    if view.mesh.is_none() {
        return Err(InputsError::NoMesh(proxy.clone()));
    }
    let networking = dataplane.networking();
    let address = around
        .resolve(&networking.address)
        .ok_or_else(|| InputsError::Unresolved { proxy: proxy.clone(), host: networking.address.clone() })?;
    let options = MatchOptions::default();
    let effective =
        view.memo.effective(&view.policies, &view.destinations, view.mesh.as_ref(), &resource, options);
    let warnings = effective.warnings().to_vec();
    let identity = identity(view, around, &resource.meta.labels);
    let transparent_proxy = transparent::effective(networking, &node, &address);
    let mut assembly = Assembly {
        view,
        around,
        resource: &resource,
        networking,
        node: &node,
        transparent: transparent_proxy.as_ref(),
        effective: &effective,
        identity: identity.as_ref(),
        clusters: BTreeMap::new(),
        uses: BTreeSet::new(),
        warnings,
    };
    let inbounds = assembly.inbounds();
    // Chains first: an ingress passes bytes on, so its clusters are not those of a client.
    let zone_ingresses = assembly.zone_ingresses();
    let outbounds = assembly.outbounds();
    let dns = assembly.dns(&outbounds);
    let Assembly { clusters, uses, warnings, .. } = assembly;
    view.uses.set(&proxy.name, uses);
    let inputs = ProxyInputs {
        mesh: proxy.mesh.clone(),
        name: proxy.name.clone(),
        zone: around.settings.zone.clone(),
        labels: resource.meta.labels.clone(),
        address,
        identity,
        trust: view.trust.clone(),
        internal_cidrs: if node.ipv6 { around.cidrs.both.clone() } else { around.cidrs.ipv4.clone() },
        sends_tags_header: Kind::from_name("MeshFaultInjection")
            .is_ok_and(|kind| !view.policies.of(kind).is_empty()),
        inbounds,
        outbounds,
        clusters,
        zone_ingresses,
        transparent_proxy,
        dns,
        node,
    };
    Ok(Assembled { inputs: Arc::new(inputs), warnings })
}

/// The identity that a proxy has now: of the best MeshIdentity, once that is ready (xds.md §4.1, §4.4).
fn identity(
    view: &MeshView,
    around: &Surroundings<'_>,
    labels: &BTreeMap<String, String>,
) -> Option<Identity> {
    let best = identity::best(view.identities.values(), labels)?;
    let is_ready = best.status_of::<MeshIdentity>().is_some_and(MeshIdentityStatus::is_initialized);
    if !is_ready || best.spec_as::<MeshIdentity>()?.bundled().is_none() {
        return None;
    }
    let template = IdentityTemplate::of(best, &around.settings.zone).ok()?;
    Some(Identity { secret_name: best.kri()?.to_string(), spiffe_id: template.render(labels).ok()? })
}

struct Assembly<'a, 'b> {
    view: &'a mut MeshView,
    around: &'a Surroundings<'b>,
    resource: &'a Resource,
    networking: &'a Networking,
    node: &'a NodeFacts,
    transparent: Option<&'a TransparentProxy>,
    effective: &'a Effective,
    identity: Option<&'a Identity>,
    clusters: BTreeMap<String, Arc<Cluster>>,
    uses: BTreeSet<Key>,
    warnings: Vec<String>,
}

/// A destination port and where the proxy listens for it.
struct Entrance {
    backend: Backend,
    address: String,
    port: u32,
}

impl Assembly<'_, '_> {
    fn inbounds(&mut self) -> Vec<Inbound> {
        let mut inbounds = Vec::new();
        for inbound in self.networking.inbound.iter().filter(|inbound| inbound.port != SERVICELESS_PORT) {
            let declared = self.networking.inbound_address(inbound);
            let (workload, workload_port) = self.networking.workload_address(inbound);
            let (Some(address), Some(workload_address)) =
                (self.around.resolve(declared), self.around.resolve(workload))
            else {
                self.warnings.push(format!("inbound {}: its address does not resolve", inbound.section()));
                continue;
            };
            inbounds.push(Inbound {
                section: inbound.section(),
                address,
                port: inbound.port,
                workload_address,
                workload_port,
                protocol: Protocol::parse(&inbound.protocol),
                tls: self.effective.inbound_tls(declared, inbound.port),
                permissions: self.effective.permissions(declared, inbound.port),
                timeout: self.effective.inbound_timeout(declared, inbound.port),
                circuit_breaker: self.effective.inbound_circuit_breaker(declared, inbound.port),
            });
        }
        inbounds
    }

    /// Ingress listeners, each with one chain per port of the zone's own services (xds.md §6.2).
    fn zone_ingresses(&mut self) -> Vec<ZoneIngress> {
        let listeners: Vec<_> =
            self.networking.listeners.iter().filter(|l| l.r#type == ListenerType::ZoneIngress).collect();
        if listeners.is_empty() {
            return Vec::new();
        }
        let chains = self.ingress_chains();
        let mut ingresses = Vec::new();
        for listener in listeners {
            let declared = self.networking.listener_address(listener);
            let Some(address) = self.around.resolve(declared) else {
                self.warnings.push(format!("listener {}: its address does not resolve", listener.section()));
                continue;
            };
            ingresses.push(ZoneIngress {
                section: listener.section(),
                address,
                port: listener.port,
                chains: chains.clone(),
                timeout: self.effective.inbound_timeout(declared, listener.port),
            });
        }
        ingresses
    }

    fn ingress_chains(&mut self) -> Vec<IngressChain> {
        let is_own =
            |service: &&Arc<Resource>| service.kind() == Kind::MeshService && service.meta.is_local_to_zone();
        let services: Vec<Arc<Resource>> = self.view.destinations.iter().filter(is_own).cloned().collect();
        let mut chains: BTreeMap<String, String> = BTreeMap::new();
        for service in services {
            let Some(kri) = service.kri() else { continue };
            for port in ports(&service) {
                let kri = kri.clone().with_section(port.section.clone());
                let sni = match graticule_model::sni(&kri) {
                    Ok(sni) => sni,
                    Err(error) => {
                        self.warnings.push(format!("{kri} cannot be reached from other zones: {error}"));
                        continue;
                    }
                };
                let name = kri.to_string();
                if chains.contains_key(&sni) {
                    self.warnings.push(format!("{kri}: another service has the same server name {sni}"));
                    continue;
                }
                chains.insert(sni, name.clone());
                self.uses.insert(service.key());
                let cluster = Cluster {
                    name: name.clone(),
                    role: ClusterRole::ZoneIngress,
                    protocol: port.protocol,
                    tls: None,
                    timeout: None,
                    circuit_breaker: None,
                    connection_life: None,
                    endpoints: self.view.endpoints(self.around, &service, &port.section),
                };
                self.clusters.insert(name.clone(), self.view.clusters.share(&name, cluster));
            }
        }
        chains.into_iter().map(|(sni, cluster)| IngressChain { sni, cluster }).collect()
    }

    fn binds_outbounds(&self) -> bool {
        self.node.has(FEATURE_BIND_OUTBOUNDS)
    }

    fn outbounds(&mut self) -> Vec<Arc<Outbound>> {
        let by_address = self.transparent.is_some() || self.binds_outbounds();
        let entrances = if by_address { self.entrances_by_address() } else { self.declared_entrances() };
        let bind_to_port = (self.transparent.is_some() && !self.binds_outbounds()).then_some(false);
        let mut outbounds: BTreeMap<String, Arc<Outbound>> = BTreeMap::new();
        let mut places = BTreeSet::new();
        for Entrance { backend, address, port } in entrances {
            let name = backend.kri.to_string();
            self.uses.insert(backend.resource.key());
            if outbounds.contains_key(&name) || !places.insert((address.clone(), port)) {
                self.warnings.push(format!(
                    "outbound {name} on {address}:{port}: declared twice, the first one counts"
                ));
                continue;
            }
            let destinations = &self.view.destinations;
            let routes = self.effective.routing(&backend.kri, &backend.resource, &backend.port, destinations);
            if let Some(taken) = routes.clusters.iter().find(|cluster| self.is_ingress_cluster(cluster)) {
                let message =
                    format!("outbound {name}: left out, the ingress uses the cluster {}", taken.kri);
                self.warnings.push(message);
                continue;
            }
            for cluster in &routes.clusters {
                self.cluster(cluster);
            }
            let outbound = Outbound {
                name: name.clone(),
                address,
                port,
                bind_to_port,
                protocol: backend.port.protocol,
                routing: routes.routing,
                timeout: self.effective.outbound_timeout(&backend.kri),
                retry: self.effective.outbound_retry(&backend.kri),
            };
            let outbound = self.view.outbounds.share(&name, outbound);
            outbounds.insert(name, outbound);
        }
        outbounds.into_values().collect()
    }

    fn is_ingress_cluster(&self, backend: &Backend) -> bool {
        let cluster = self.clusters.get(&backend.kri.to_string());
        cluster.is_some_and(|cluster| cluster.role == ClusterRole::ZoneIngress)
    }

    /// Outbounds of the Dataplane (xds.md §3.5, second row).
    fn declared_entrances(&mut self) -> Vec<Entrance> {
        let mut entrances = Vec::new();
        for (index, outbound) in self.networking.outbound.iter().enumerate() {
            let Some(reference) = &outbound.backend_ref else { continue };
            let found = self.view.destinations.resolve_outbound(reference, &self.resource.meta);
            if found.len() > 1 {
                let message = format!(
                    "networking.outbound[{index}]: several destinations match, the oldest one counts"
                );
                self.warnings.push(message);
            }
            let oldest = found
                .into_iter()
                .min_by_key(|backend| (backend.resource.meta.creation_time, backend.kri.to_string()));
            let Some(backend) = oldest else {
                self.warnings.push(format!("networking.outbound[{index}]: no destination matches"));
                continue;
            };
            let address = if outbound.address.is_empty() { "127.0.0.1" } else { &outbound.address };
            entrances.push(Entrance { backend, address: address.into(), port: outbound.port });
        }
        entrances
    }

    /// Destinations by their own addresses (xds.md §3.5, first row).
    fn entrances_by_address(&mut self) -> Vec<Entrance> {
        let reachable = self.reachable();
        let own: BTreeSet<(String, u32)> = self
            .networking
            .inbound
            .iter()
            .filter_map(|inbound| {
                Some((self.around.resolve(self.networking.inbound_address(inbound))?, inbound.port))
            })
            .collect();
        let mut entrances = Vec::new();
        for resource in self.view.destinations.iter() {
            let (Some(address), Some(kri)) = (virtual_address(resource), resource.kri()) else { continue };
            for port in ports(resource) {
                let is_reachable = reachable
                    .as_ref()
                    .is_none_or(|reachable| reachable.contains(&(resource.key(), port.section.clone())));
                if is_reachable && !own.contains(&(address.to_owned(), port.number)) {
                    let kri = kri.clone().with_section(port.section.clone());
                    let (address, number) = (address.to_owned(), port.number);
                    let backend = Backend { kri, resource: resource.clone(), port };
                    entrances.push(Entrance { backend, address, port: number });
                }
            }
        }
        entrances
    }

    /// Ports that the Dataplane limits itself to; none = all.
    fn reachable(&self) -> Option<BTreeSet<(Key, String)>> {
        let destinations = &self.view.destinations;
        let mut declared = self.networking.outbound.iter().filter_map(|o| o.backend_ref.as_ref()).peekable();
        let found: Vec<Backend> = if declared.peek().is_some() {
            declared
                .flat_map(|reference| destinations.resolve_outbound(reference, &self.resource.meta))
                .collect()
        } else {
            let reachable = self.networking.transparent_proxying.as_ref()?.reachable_backends.as_ref()?;
            let refs = reachable.refs.iter();
            refs.flat_map(|reference| destinations.resolve_reachable(reference, &self.resource.meta))
                .collect()
        };
        Some(found.into_iter().map(|backend| (backend.resource.key(), backend.port.section)).collect())
    }

    /// The cluster of a destination port (xds.md §3.7).
    fn cluster(&mut self, backend: &Backend) {
        let name = backend.kri.to_string();
        self.uses.insert(backend.resource.key());
        if self.clusters.contains_key(&name) {
            return;
        }
        let is_local = backend.resource.meta.is_local_to_zone();
        let Some(service) = backend.resource.spec_as::<MeshService>() else {
            // Without its own rules for TLS and endpoints a cluster would send to the wrong place, or in clear.
            self.warnings
                .push(format!("{name}: destinations of kind {} are not built", backend.resource.kind()));
            return;
        };
        let is_ready =
            backend.resource.status_of::<MeshService>().is_some_and(|status| status.tls.status == "Ready");
        let tls = match self.identity.filter(|_| !is_local || is_ready) {
            None => None,
            Some(identity) => {
                let by_name = backend.kri.clone().with_section(backend.port.section.clone());
                let sni = match graticule_model::sni(&by_name) {
                    Ok(sni) => sni,
                    Err(error) => {
                        self.warnings.push(format!("{name} cannot be reached: {error}"));
                        return;
                    }
                };
                let mut spiffe_ids: Vec<String> =
                    service.spiffe_ids().into_iter().map(str::to_owned).collect();
                spiffe_ids.dedup();
                let identity_secret = identity.secret_name.clone();
                Some(UpstreamTls {
                    sni,
                    spiffe_ids,
                    identity_secret,
                    params: self.effective.mesh_tls_params(),
                })
            }
        };
        let cluster = Cluster {
            name: name.clone(),
            role: ClusterRole::Outbound,
            protocol: backend.port.protocol,
            tls,
            timeout: self.effective.outbound_timeout(&backend.kri),
            circuit_breaker: self.effective.outbound_circuit_breaker(&backend.kri),
            connection_life: self.around.settings.cross_zone.filter(|_| !is_local),
            endpoints: self.view.endpoints(self.around, &backend.resource, &backend.port.section),
        };
        let cluster = self.view.clusters.share(&name, cluster);
        self.clusters.insert(name, cluster);
    }

    /// Names of the destinations that have outbounds (xds.md §3.10).
    fn dns(&self, outbounds: &[Arc<Outbound>]) -> Option<Dns> {
        let transparent = self.transparent.filter(|_| self.node.dns_port > 0 && !self.binds_outbounds())?;
        let listening: BTreeSet<&str> = outbounds.iter().map(|outbound| outbound.address.as_str()).collect();
        let mut records = BTreeMap::new();
        for service in self.view.destinations.iter() {
            let Some(address) = virtual_address(service).filter(|address| listening.contains(address)) else {
                continue;
            };
            let mut addresses = vec![address.to_owned()];
            if transparent.ipv6
                && let Ok(address) = address.parse::<std::net::Ipv4Addr>()
            {
                let bits = u32::from(address);
                addresses.push(format!("::ffff:{:x}:{:x}", bits >> 16, bits & 0xffff));
            }
            for hostname in
                service.status_of::<MeshService>().into_iter().flat_map(|status| &status.addresses)
            {
                records.insert(hostname.hostname.clone(), addresses.clone());
            }
        }
        let label = |key: &str| self.resource.meta.label(key).unwrap_or_default();
        let extra_labels = [
            ("mesh", self.resource.meta.mesh.as_str()),
            ("kuma_io_zone", label(labels::ZONE)),
            ("kuma_workload", label(labels::WORKLOAD)),
            ("k8s_kuma_io_namespace", label(labels::NAMESPACE)),
        ];
        let extra_labels =
            extra_labels.into_iter().filter(|(key, value)| *key == "mesh" || !value.is_empty());
        let extra_labels = extra_labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Some(Dns { records, extra_labels })
    }
}

/// The address that clients reach a destination by.
fn virtual_address(destination: &Resource) -> Option<&str> {
    let status = destination.status_of::<MeshService>()?;
    status.vips.iter().map(|vip| vip.ip.as_str()).find(|ip| !ip.is_empty())
}
