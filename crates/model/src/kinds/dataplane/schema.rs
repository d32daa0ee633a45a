//! What a Dataplane looks like in a document.

use crate::schema::common::{LABELS, TEXTS};
use crate::schema::{Pattern, Schema, boolean, field, list, object, one_of, pattern, text, uint32};

/// A duration in proto JSON, such as `1.500s`.
const SECONDS: Schema = text().matching(SECONDS_PATTERN);
const SECONDS_PATTERN: Pattern = pattern(r"^-?[0-9]+(\.[0-9]{1,9})?s$", is_seconds);

fn is_seconds(text: &str) -> bool {
    let Some(number) = text.strip_suffix('s') else { return false };
    let number = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    is_digits(whole) && is_digits(fraction) && fraction.len() <= 9
}

const INBOUND: Schema = object(&[
    field("port", "Port of the proxy.", uint32()),
    field("servicePort", "Port of the workload; absent or 0 is `port`.", uint32()),
    field("address", "Address of the proxy; without it, `networking.address`.", text()),
    field("serviceAddress", "Address of the workload; without it, that of the proxy.", text()),
    field(
        "health",
        "Older way to say whether the workload is healthy.",
        object(&[field("ready", "Whether it is.", boolean())]),
    ),
    field(
        "serviceProbe",
        "How the proxy finds out whether the workload is healthy.",
        object(&[
            field("interval", "Time between two probes.", SECONDS),
            field("timeout", "Time until a probe counts as failed.", SECONDS),
            field("unhealthyThreshold", "Probes that must fail in a row.", uint32()),
            field("healthyThreshold", "Probes that must succeed in a row.", uint32()),
            field("tcp", "Probes by connecting.", object(&[])),
        ]),
    ),
    field("state", "Whether others may send traffic.", one_of(&["Ready", "NotReady", "Ignored"])),
    field("name", "Name of the port; without it, the number.", text()),
    field("protocol", "Protocol of the port, such as `http`; without it, `tcp`.", text()),
]);
const OUTBOUND: Schema = object(&[
    field("address", "Local address; without it, 127.0.0.1.", text()),
    field("port", "Local port.", uint32()),
    field(
        "backendRef",
        "The destination.",
        object(&[
            field("kind", "Kind of the destination.", text()),
            field("name", "Name of the destination.", text()),
            field("port", "Port of the destination.", uint32()),
            field("labels", "Labels of the destination, instead of its name.", LABELS),
        ]),
    ),
]);
const REACHABLE: Schema = object(&[
    field("kind", "Kind of the destinations.", text()),
    field("name", "Name of the destination.", text()),
    field("namespace", "Kubernetes namespace of the destination.", text()),
    field("port", "Port of the destination; without it, all.", uint32()),
    field("labels", "Labels of the destinations, instead of a name.", LABELS),
]);
const LISTENER: Schema = object(&[
    field("type", "What the listener does.", one_of(&["Unspecified", "ZoneIngress", "ZoneEgress"])),
    field("address", "Address of the listener.", text()),
    field("port", "Port of the listener.", uint32()),
    field("name", "Name of the listener; without it, the port.", text()),
    field("state", "Whether it may receive traffic.", one_of(&["Ready", "NotReady"])),
]);
const TRANSPARENT_PROXYING: Schema = object(&[
    field("redirectPortInbound", "Port that incoming traffic is redirected to; 0 is none.", uint32()),
    field("redirectPortOutbound", "Port that outgoing traffic is redirected to; 0 is none.", uint32()),
    field("directAccessServices", "Services that are reached by the addresses of their instances.", TEXTS),
    field("ipFamilyMode", "IP families.", one_of(&["UnSpecified", "DualStack", "IPv4", "IPv6"])),
    field(
        "reachableBackends",
        "Limits the destinations that the proxy is told of.",
        object(&[field("refs", "The destinations.", list(&REACHABLE))]),
    ),
]);

/// What a document looks like.
pub(super) const SPEC: Schema = object(&[field(
    "networking",
    "Addresses and ports.",
    object(&[
        field("address", "IP address or hostname of the proxy.", text()),
        field(
            "gateway",
            "Marks a gateway that is not Envoy, with a proxy beside it.",
            object(&[
                field("tags", "Tags of the gateway.", LABELS),
                field("type", "Always `DELEGATED`; not written.", one_of(&["DELEGATED"])),
            ]),
        ),
        field("inbound", "Ports of the workload.", list(&INBOUND)),
        field(
            "outbound",
            "Local ports that lead to destinations; for proxies without redirection.",
            list(&OUTBOUND),
        ),
        field(
            "transparentProxying",
            "Redirection of the workload's traffic to the proxy.",
            TRANSPARENT_PROXYING,
        ),
        field("admin", "Envoy's admin interface.", object(&[field("port", "Its port.", uint32())])),
        field("listeners", "What the proxy does for its zone.", list(&LISTENER)),
    ]),
)]);
