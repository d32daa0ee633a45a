//! What a Dataplane must be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::schema::SPEC;
use super::*;
use crate::kinds::Validate;
use crate::schema::Schema;
use crate::{Meta, Violations, name};

const PORT_RANGE: &str = "port must be in the range [1, 65535]";

impl Validate for Dataplane {
    const DESCRIPTION: &'static str =
        "A proxy: its address, the ports of the workload beside it, and what it does for the zone.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        let Some(networking) = &self.networking else {
            violations.add("networking", "must be defined");
            return;
        };
        validate_admin_port(networking, violations);
        if let Some(message) = address_error(&networking.address) {
            violations.add("networking.address", message);
        }
        if let Some(gateway) = &networking.gateway {
            if !networking.inbound.is_empty() {
                violations.add("networking.inbound", "inbound cannot be defined for delegated gateways");
            }
            if !networking.listeners.is_empty() {
                violations.add("networking.listeners", "listeners cannot be defined for delegated gateways");
            }
            validate_gateway_tags(&gateway.tags, violations);
        }
        for (index, inbound) in networking.inbound.iter().enumerate() {
            validate_inbound(networking, inbound, &format!("networking.inbound[{index}]"), violations);
        }
        for (index, outbound) in networking.outbound.iter().enumerate() {
            validate_outbound(outbound, &format!("networking.outbound[{index}]"), violations);
        }
        validate_reachable_backends(networking, violations);
        validate_listeners(networking, violations);
    }
}

fn validate_admin_port(networking: &Networking, violations: &mut Violations) {
    let Some(port) = networking.admin.as_ref().map(|a| a.port).filter(|port| *port != 0) else { return };
    let local = |address: &str| matches!(address, "" | "127.0.0.1" | "0.0.0.0" | "::1" | "::");
    if networking.inbound.iter().any(|i| i.port == port && local(networking.inbound_address(i))) {
        violations.add("networking.admin.port", "must differ from inbound");
    }
    if networking.outbound.iter().any(|o| o.port == port && local(&o.address)) {
        violations.add("networking.admin.port", "must differ from outbound");
    }
}

fn validate_gateway_tags(tags: &BTreeMap<String, String>, violations: &mut Violations) {
    let path = "networking.gateway.tags";
    if !tags.is_empty() && !tags.contains_key(crate::labels::SERVICE) {
        violations.add(path, "mandatory tag \"kuma.io/service\" is missing");
    }
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    for (key, value) in tags {
        let field = format!("{path}[\"{key}\"]");
        if key.is_empty() {
            violations.add(&field, "tag name must be non-empty");
        } else if !key.bytes().all(|c| plain(c) || c == b'/') {
            violations.add(
                &field,
                "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores",
            );
        }
        if value.is_empty() {
            violations.add(&field, "tag value must be non-empty");
        } else if !value.bytes().all(plain) {
            violations.add(
                &field,
                "tag value must consist of alphanumeric characters, dots, dashes and underscores",
            );
        }
    }
    if let Some(protocol) = tags.get(crate::labels::PROTOCOL)
        && protocol != "tcp"
    {
        let message = format!("other values than tcp are not allowed, provided value \"{protocol}\"");
        violations.add(format!("{path}[\"kuma.io/protocol\"]"), message);
    }
}

fn validate_inbound(networking: &Networking, inbound: &Inbound, path: &str, violations: &mut Violations) {
    if !is_port(inbound.port) {
        violations.add(format!("{path}.port"), PORT_RANGE);
    }
    if inbound.service_port != 0 && !is_port(inbound.service_port) {
        violations.add(format!("{path}.servicePort"), PORT_RANGE);
    }
    if !inbound.service_address.is_empty() {
        if inbound.service_address.parse::<IpAddr>().is_err() {
            violations.add(format!("{path}.serviceAddress"), "serviceAddress has to be valid IP address");
        }
        let workload_port = if inbound.service_port == 0 { inbound.port } else { inbound.service_port };
        if inbound.service_address == networking.inbound_address(inbound) && workload_port == inbound.port {
            violations.add(
                format!("{path}.serviceAddress"),
                "serviceAddress and servicePort has to differ from address and port",
            );
        }
    }
    if !inbound.address.is_empty() && inbound.address.parse::<IpAddr>().is_err() {
        violations.add(format!("{path}.address"), "address has to be valid IP address");
    }
    let known = ["grpc", "http", "http2", "mysql", "tcp", "tls"];
    if !inbound.protocol.is_empty() && !known.contains(&inbound.protocol.to_ascii_lowercase().as_str()) {
        let message =
            format!("has an invalid value \"{}\". Allowed values: grpc, http, http2, tcp", inbound.protocol);
        violations.add(format!("{path}.protocol"), message);
    }
    if let Some(probe) = &inbound.service_probe {
        let fields = [
            ("interval", probe.interval.is_some_and(|d| d.0 <= 0)),
            ("timeout", probe.timeout.is_some_and(|d| d.0 <= 0)),
            ("unhealthyThreshold", probe.unhealthy_threshold == Some(0)),
            ("healthyThreshold", probe.healthy_threshold == Some(0)),
        ];
        for (field, is_bad) in fields {
            if is_bad {
                violations.add(format!("{path}.serviceProbe.{field}"), "must have a positive value");
            }
        }
    }
}

const DESTINATION_KINDS: [&str; 3] = ["MeshExternalService", "MeshMultiZoneService", "MeshService"];

fn validate_outbound(outbound: &Outbound, path: &str, violations: &mut Violations) {
    if !is_port(outbound.port) {
        violations.add(format!("{path}.port"), PORT_RANGE);
    }
    if !outbound.address.is_empty() && outbound.address.parse::<IpAddr>().is_err() {
        violations.add(format!("{path}.address"), "address has to be valid IP address");
    }
    let path = format!("{path}.backendRef");
    let Some(backend) = &outbound.backend_ref else {
        violations.add(path, "must be defined");
        return;
    };
    if !DESTINATION_KINDS.contains(&backend.kind.as_str()) {
        let message = format!("invalid value. Available values are: {}", DESTINATION_KINDS.join(","));
        violations.add(format!("{path}.kind"), message);
    }
    if backend.name.is_empty() && backend.labels.is_empty() {
        violations.add(&path, "either 'name' or 'labels' should be specified");
    }
    if backend.kind != "MeshExternalService" && !is_port(backend.port) {
        violations.add(format!("{path}.port"), PORT_RANGE);
    }
}

fn validate_reachable_backends(networking: &Networking, violations: &mut Violations) {
    let refs =
        networking.transparent_proxying.iter().flat_map(|t| &t.reachable_backends).flat_map(|r| &r.refs);
    for (index, backend) in refs.enumerate() {
        let path = format!("networking.transparentProxying.reachableBackends.refs[{index}]");
        if !DESTINATION_KINDS.contains(&backend.kind.as_str()) {
            let message = format!("invalid value. Available values are: {}", DESTINATION_KINDS.join(","));
            violations.add(format!("{path}.kind"), message);
        }
        if backend.name.is_empty() && backend.labels.is_empty() {
            violations.add(format!("{path}.name"), "name or labels are required");
        }
        if backend.name.is_empty() && !backend.namespace.is_empty() {
            violations.add(format!("{path}.name"), "name is required, when namespace is defined");
        }
        if !backend.name.is_empty() {
            if let Some(message) = name::mesh_name_error(&backend.name) {
                violations.add(format!("{path}.name"), message);
            }
            if !backend.labels.is_empty() {
                violations.add(format!("{path}.labels"), "labels cannot be defined when name is specified");
            }
        }
    }
}

fn validate_listeners(networking: &Networking, violations: &mut Violations) {
    let mut names: BTreeSet<&str> =
        networking.inbound.iter().map(|i| i.name.as_str()).filter(|name| !name.is_empty()).collect();
    let inbounds: BTreeSet<(&str, u32)> =
        networking.inbound.iter().map(|i| (networking.inbound_address(i), i.port)).collect();
    let mut taken: BTreeMap<(&str, u32), ListenerType> = BTreeMap::new();
    for (index, listener) in networking.listeners.iter().enumerate() {
        let path = format!("networking.listeners[{index}]");
        if listener.r#type == ListenerType::Unspecified {
            violations.add(format!("{path}.type"), "type must be ZoneIngress or ZoneEgress");
        }
        if let Some(message) = address_error(&listener.address) {
            violations.add(format!("{path}.address"), message);
        }
        if !is_port(listener.port) {
            violations.add(format!("{path}.port"), PORT_RANGE);
        }
        if !listener.name.is_empty() && !names.insert(&listener.name) {
            let message = format!("name \"{}\" must be unique across inbounds and listeners", listener.name);
            violations.add(format!("{path}.name"), message);
        }
        let socket = (listener.address.as_str(), listener.port);
        let shown = format!("{}:{}", listener.address, listener.port);
        match taken.insert(socket, listener.r#type) {
            Some(other) if other == listener.r#type => {
                violations.add(&path, format!("address:port {shown} is already used by another listener"));
            }
            Some(_) => {
                violations
                    .add(&path, format!("address:port {shown} is used by listeners of different types"));
            }
            None => {}
        }
        if inbounds.contains(&socket) {
            violations.add(&path, format!("address:port {shown} collides with an inbound listener"));
        }
    }
}
