//! Transparent proxy settings that apply to a proxy (xds.md §3.1, dataplane-agent.md §3.9).

use std::net::IpAddr;

use graticule_model::kinds::dataplane::{IpFamilyMode, Networking};
use graticule_policy::NodeFacts;
use graticule_policy::inputs::TransparentProxy;
use graticule_policy::node::FEATURE_TRANSPARENT_PROXY_IN_METADATA;
use serde_json::Value;

const DEFAULT_INBOUND_PORT: u32 = 15006;
const DEFAULT_OUTBOUND_PORT: u32 = 15001;

/// The effective settings; none = off. `address` is the resolved address of the proxy.
pub(super) fn effective(
    networking: &Networking,
    node: &NodeFacts,
    address: &str,
) -> Option<TransparentProxy> {
    let (inbound_port, outbound_port, ipv4_only) = if node.has(FEATURE_TRANSPARENT_PROXY_IN_METADATA) {
        from_metadata(node.transparent_proxy.as_ref().unwrap_or(&Value::Null))
    } else {
        let declared = networking.transparent_proxying.as_ref()?;
        let port = |port: u32| (port != 0).then_some(port);
        (
            port(declared.redirect_port_inbound),
            port(declared.redirect_port_outbound),
            declared.ip_family_mode == IpFamilyMode::IPv4,
        )
    };
    let is_redirected = inbound_port.is_some() || outbound_port.is_some();
    let fits_family = !ipv4_only || matches!(address.parse::<IpAddr>(), Ok(IpAddr::V4(_)));
    (is_redirected && fits_family).then_some(TransparentProxy {
        inbound_port,
        outbound_port,
        ipv6: !ipv4_only,
    })
}

/// What the agent says; what it leaves out has the agent's defaults.
fn from_metadata(metadata: &Value) -> (Option<u32>, Option<u32>, bool) {
    let port = |direction: &str, default: u32| {
        let redirect = &metadata["redirect"][direction];
        let is_on = redirect["enabled"].as_bool().unwrap_or(true);
        let given = &redirect["port"];
        // Numbers may travel as texts, and as floats in a protobuf Struct.
        let given = given.as_u64().or_else(|| given.as_str()?.parse().ok()).or_else(|| {
            given.as_f64().filter(|number| (1.0..=65535.0).contains(number)).map(|number| number as u64)
        });
        let given = given.and_then(|port| u32::try_from(port).ok()).filter(|port| (1..=65535).contains(port));
        is_on.then_some(given.unwrap_or(default))
    };
    let ipv4_only = metadata["ipFamilyMode"].as_str().is_some_and(|mode| mode.eq_ignore_ascii_case("ipv4"));
    (port("inbound", DEFAULT_INBOUND_PORT), port("outbound", DEFAULT_OUTBOUND_PORT), ipv4_only)
}
