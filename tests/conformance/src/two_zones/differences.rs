//! The accepted differences of the suite.

use crate::accepted::{Accepted, Ours, differs};

const ONCE: &str = "equal CA certificates of one trust domain are in the bundle once (deviations: Proxies)";
const EXCHANGED: &str = "global passes the MeshTrusts of zones on to the other zones, nobody applied any at global \
                         (deviations: Federation)";
const KEPT: &str = "certificates are kept across streams (deviations: Proxies)";
const AGENT: &str =
    "what dp-agent says of itself: its own version, and no OpenTelemetry pipe (deviations: Proxies)";
const BALANCED: &str = "calls to other zones are balanced by request (deviations: Proxies)";

const ANCHORED: &str = "the same matches for a fraction of the work (deviations: Proxies)";

/// Every one is in `docs/deviations.md`.
pub(super) static ACCEPTED: &[Accepted] = &[
    differs("*", "*/system_trust_bundle/*/inlineBytes", Ours::Deduplicated, ONCE),
    differs("*", "*/system_trust_bundle/*/inline_bytes", Ours::Deduplicated, ONCE),
    differs(
        "bootstrap/answer/*",
        "/statsConfig/statsTags/3/regex",
        Ours::Is(r#""^((.+?)\\.)rbac\\.""#),
        ANCHORED,
    ),
    // MeshTrusts: two were applied at global in the recording.
    differs("exchange/list/*/meshtrusts", "/items/trust-*", Ours::Absent, EXCHANGED),
    differs("exchange/list/*/meshtrusts", "/total", Ours::Is("2"), EXCHANGED),
    differs("*/list/east/meshtrusts", "/items/identity-*-*", Ours::Additional, EXCHANGED),
    differs("*/list/west/meshtrusts", "/items/identity-*-*", Ours::Additional, EXCHANGED),
    differs("by-hand/list/*/meshtrusts", "/total", Ours::Is("4"), EXCHANGED),
    differs("*", "*/mTLS/supportedBackends/1", Ours::Like("kri_mtrust_default_*__identity-*_"), EXCHANGED),
    differs("*", "*/mTLS/supportedBackends/2", Ours::Absent, EXCHANGED),
    differs("*", "*/mTLS/certificateRegenerations", Ours::Is("1"), KEPT),
    differs("*", "*/metadata/features/feature-otel-via-kuma-dp", Ours::Absent, AGENT),
    differs("*", "*/metadata/otelEnvInventory", Ours::Absent, AGENT),
    differs("*", "*/version/kumaDp/gitTag", Ours::Like("v*"), AGENT),
    differs("*", "*/version/kumaDp/version", Ours::Like("*.*.*"), AGENT),
    differs("*", "*/version/envoy/kumaDpCompatible", Ours::Additional, AGENT),
    differs(
        "balanced/config/client-1",
        "*/kri_msvc_default_west__echo_8080/*/commonHttpProtocolOptions/maxConnectionDuration",
        Ours::Is("\"10s\""),
        BALANCED,
    ),
    differs(
        "balanced/config/client-1",
        "*/kri_msvc_default_west__echo_8080/*/commonHttpProtocolOptions/maxRequestsPerConnection",
        Ours::Additional,
        BALANCED,
    ),
];
