//! `Dataplane` ⇄ its message (federation.md §2.6).

use graticule_model::kinds::dataplane as model;
use graticule_proto::google::protobuf::UInt32Value;
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use pb::dataplane::Networking as NetworkingPb;
use pb::dataplane::networking as net;

use super::structs::{from_duration, to_duration};

pub(super) fn to_message(spec: &model::Dataplane) -> pb::Dataplane {
    pb::Dataplane { networking: spec.networking.as_ref().map(to_networking) }
}

fn to_networking(from: &model::Networking) -> NetworkingPb {
    NetworkingPb {
        inbound: from.inbound.iter().map(to_inbound).collect(),
        outbound: from.outbound.iter().map(to_outbound).collect(),
        gateway: from.gateway.as_ref().map(|gateway| net::Gateway { tags: gateway.tags.clone(), r#type: 0 }),
        transparent_proxying: from.transparent_proxying.as_ref().map(to_transparent),
        address: from.address.clone(),
        admin: from.admin.as_ref().map(|admin| pb::EnvoyAdmin { port: admin.port }),
        listeners: from.listeners.iter().map(to_listener).collect(),
    }
}

fn to_inbound(from: &model::Inbound) -> net::Inbound {
    net::Inbound {
        port: from.port,
        service_port: from.service_port,
        address: from.address.clone(),
        service_address: from.service_address.clone(),
        health: from.health.as_ref().map(|health| net::inbound::Health { ready: health.ready }),
        service_probe: from.service_probe.as_ref().map(|probe| net::inbound::ServiceProbe {
            interval: probe.interval.map(|interval| to_duration(interval.0)),
            timeout: probe.timeout.map(|timeout| to_duration(timeout.0)),
            unhealthy_threshold: probe.unhealthy_threshold.map(wrap),
            healthy_threshold: probe.healthy_threshold.map(wrap),
            tcp: probe.tcp.map(|_| net::inbound::service_probe::Tcp {}),
        }),
        state: from.state.number(),
        name: from.name.clone(),
        protocol: from.protocol.clone(),
    }
}

fn to_outbound(from: &model::Outbound) -> net::Outbound {
    net::Outbound {
        address: from.address.clone(),
        port: from.port,
        backend_ref: from.backend_ref.as_ref().map(|backend| net::outbound::BackendRef {
            kind: backend.kind.clone(),
            name: backend.name.clone(),
            port: backend.port,
            labels: backend.labels.clone(),
        }),
    }
}

fn to_transparent(from: &model::TransparentProxying) -> net::TransparentProxying {
    use net::transparent_proxying::{ReachableBackendRef, ReachableBackends};
    net::TransparentProxying {
        redirect_port_inbound: from.redirect_port_inbound,
        redirect_port_outbound: from.redirect_port_outbound,
        direct_access_services: from.direct_access_services.clone(),
        ip_family_mode: from.ip_family_mode.number(),
        reachable_backends: from.reachable_backends.as_ref().map(|reachable| ReachableBackends {
            refs: reachable
                .refs
                .iter()
                .map(|backend| ReachableBackendRef {
                    kind: backend.kind.clone(),
                    name: backend.name.clone(),
                    namespace: backend.namespace.clone(),
                    port: backend.port.map(wrap),
                    labels: backend.labels.clone(),
                })
                .collect(),
        }),
    }
}

fn to_listener(from: &model::Listener) -> net::Listener {
    net::Listener {
        r#type: from.r#type.number(),
        address: from.address.clone(),
        port: from.port,
        name: from.name.clone(),
        state: from.state.number(),
    }
}

fn wrap(value: u32) -> UInt32Value {
    UInt32Value { value }
}

pub(super) fn from_message(from: pb::Dataplane) -> Result<model::Dataplane, String> {
    Ok(model::Dataplane { networking: from.networking.map(from_networking).transpose()? })
}

fn from_networking(from: NetworkingPb) -> Result<model::Networking, String> {
    Ok(model::Networking {
        address: from.address,
        gateway: from
            .gateway
            .map(|gateway| model::Gateway { tags: gateway.tags, ..model::Gateway::default() }),
        inbound: from.inbound.into_iter().map(from_inbound).collect::<Result<_, _>>()?,
        outbound: from.outbound.into_iter().map(from_outbound).collect(),
        transparent_proxying: from.transparent_proxying.map(from_transparent).transpose()?,
        admin: from.admin.map(|admin| model::Admin { port: admin.port }),
        listeners: from.listeners.into_iter().map(from_listener).collect::<Result<_, _>>()?,
    })
}

fn from_inbound(from: net::Inbound) -> Result<model::Inbound, String> {
    let state = model::InboundState::from_number(from.state)
        .ok_or_else(|| format!("networking.inbound.state: unknown value {}", from.state))?;
    Ok(model::Inbound {
        port: from.port,
        service_port: from.service_port,
        address: from.address,
        service_address: from.service_address,
        health: from.health.map(|health| model::Health { ready: health.ready }),
        service_probe: from.service_probe.map(from_probe).transpose()?,
        state,
        name: from.name,
        protocol: from.protocol,
    })
}

fn from_probe(from: net::inbound::ServiceProbe) -> Result<model::ServiceProbe, String> {
    let duration = |pb: Option<_>| pb.map(|pb| from_duration(&pb).map(model::ProtoDuration)).transpose();
    Ok(model::ServiceProbe {
        interval: duration(from.interval)?,
        timeout: duration(from.timeout)?,
        unhealthy_threshold: from.unhealthy_threshold.map(|wrapped| wrapped.value),
        healthy_threshold: from.healthy_threshold.map(|wrapped| wrapped.value),
        tcp: from.tcp.map(|_| model::TcpProbe {}),
    })
}

fn from_outbound(from: net::Outbound) -> model::Outbound {
    model::Outbound {
        address: from.address,
        port: from.port,
        backend_ref: from.backend_ref.map(|backend| model::OutboundBackendRef {
            kind: backend.kind,
            name: backend.name,
            port: backend.port,
            labels: backend.labels,
        }),
    }
}

fn from_transparent(from: net::TransparentProxying) -> Result<model::TransparentProxying, String> {
    let ip_family_mode = model::IpFamilyMode::from_number(from.ip_family_mode).ok_or_else(|| {
        format!("networking.transparentProxying.ipFamilyMode: unknown value {}", from.ip_family_mode)
    })?;
    Ok(model::TransparentProxying {
        redirect_port_inbound: from.redirect_port_inbound,
        redirect_port_outbound: from.redirect_port_outbound,
        direct_access_services: from.direct_access_services,
        ip_family_mode,
        reachable_backends: from.reachable_backends.map(|reachable| model::ReachableBackends {
            refs: reachable
                .refs
                .into_iter()
                .map(|backend| model::ReachableBackendRef {
                    kind: backend.kind,
                    name: backend.name,
                    namespace: backend.namespace,
                    port: backend.port.map(|wrapped| wrapped.value),
                    labels: backend.labels,
                })
                .collect(),
        }),
    })
}

fn from_listener(from: net::Listener) -> Result<model::Listener, String> {
    Ok(model::Listener {
        r#type: model::ListenerType::from_number(from.r#type)
            .ok_or_else(|| format!("networking.listeners.type: unknown value {}", from.r#type))?,
        address: from.address,
        port: from.port,
        name: from.name,
        state: model::ListenerState::from_number(from.state)
            .ok_or_else(|| format!("networking.listeners.state: unknown value {}", from.state))?,
    })
}
