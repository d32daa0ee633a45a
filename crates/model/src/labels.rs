//! Reserved labels: names, meanings and computation (resources.md §3).

use std::collections::BTreeMap;

use crate::{Kind, Mode, Spec, Violations, kinds::dataplane::ListenerType};

/// Original name, before hashing or namespace suffixes.
pub const DISPLAY_NAME: &str = "kuma.io/display-name";
/// Mesh of the resource.
pub const MESH: &str = "kuma.io/mesh";
/// Which kind of control plane made the local copy: `global` or `zone`.
pub const ORIGIN: &str = "kuma.io/origin";
/// Zone of origin.
pub const ZONE: &str = "kuma.io/zone";
/// `universal` or `kubernetes`.
pub const ENV: &str = "kuma.io/env";
/// Kubernetes namespace of origin.
pub const NAMESPACE: &str = "k8s.kuma.io/namespace";
/// Kubernetes service account of a Dataplane.
pub const SERVICE_ACCOUNT: &str = "k8s.kuma.io/service-account";
/// Role of a policy.
pub const POLICY_ROLE: &str = "kuma.io/policy-role";
/// Workload of a Dataplane.
pub const WORKLOAD: &str = "kuma.io/workload";
/// `shadow`: the policy is only visible in what-if answers.
pub const EFFECT: &str = "kuma.io/effect";
/// Generator that owns the resource.
pub const MANAGED_BY: &str = "kuma.io/managed-by";
/// When a generated MeshService lost its last Dataplane.
pub const DELETION_GRACE_PERIOD_STARTED_AT: &str = "kuma.io/deletion-grace-period-started-at";
/// `enabled` or `disabled`: overrides whether the resource is federated.
pub const KDS_SYNC: &str = "kuma.io/kds-sync";
/// The Dataplane has a zone ingress listener.
pub const LISTENER_ZONE_INGRESS: &str = "kuma.io/listener-zoneingress";
/// The Dataplane has a zone egress listener.
pub const LISTENER_ZONE_EGRESS: &str = "kuma.io/listener-zoneegress";
/// Legacy label that is removed from Dataplanes.
pub const PROXY_TYPE: &str = "kuma.io/proxy-type";
/// Protocol key in endpoint metadata.
pub const PROTOCOL: &str = "kuma.io/protocol";
/// Legacy service tag.
pub const SERVICE: &str = "kuma.io/service";

/// `kuma.io/managed-by` of generated MeshServices.
pub const MESH_SERVICE_GENERATOR: &str = "meshservice-generator";
/// `kuma.io/managed-by` of generated Workloads.
pub const WORKLOAD_GENERATOR: &str = "workload-generator";

/// On what a zone kept of global's when it left the federation. Whoever writes the resource takes it over, without the label.
pub const FROM_GLOBAL: &str = "graticule/from-global";

/// Values of [`ORIGIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Made on the global control plane.
    Global,
    /// Made on a zone control plane.
    Zone,
}

impl Origin {
    /// Label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Global => "global",
            Origin::Zone => "zone",
        }
    }

    /// Reads a label value.
    pub fn parse(text: &str) -> Option<Origin> {
        match text {
            "global" => Some(Origin::Global),
            "zone" => Some(Origin::Zone),
            _ => None,
        }
    }
}

/// Where labels are computed.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Role of this control plane.
    pub mode: Mode,
    /// Own zone name; empty on global.
    pub zone: &'a str,
}

/// The labels that are stored for a resource written on this (Universal) control plane
/// (resources.md §3.2). `given` is the full set of the request.
pub fn compute(
    site: Site<'_>,
    kind: Kind,
    mesh: &str,
    name: &str,
    spec: &Spec,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let descriptor = kind.descriptor();
    let mut labels = given.clone();
    labels.insert(DISPLAY_NAME.into(), name.into());
    labels.remove(FROM_GLOBAL);
    if !descriptor.is_global_scoped() {
        labels
            .entry(MESH.into())
            .or_insert_with(|| if mesh.is_empty() { "default".into() } else { mesh.into() });
    }
    let origin = if site.mode.is_global() { Origin::Global } else { Origin::Zone };
    labels.insert(ORIGIN.into(), origin.as_str().into());
    if !site.mode.is_global() && descriptor.kds.provided_by_zone() {
        labels.entry(ZONE.into()).or_insert_with(|| site.zone.into());
        labels.entry(ENV.into()).or_insert_with(|| "universal".into());
    }
    if let Spec::Dataplane(dataplane) = spec {
        labels.remove(PROXY_TYPE);
        for (label, wanted) in [
            (LISTENER_ZONE_INGRESS, ListenerType::ZoneIngress),
            (LISTENER_ZONE_EGRESS, ListenerType::ZoneEgress),
        ] {
            if dataplane.networking.iter().flat_map(|n| &n.listeners).any(|l| l.r#type == wanted) {
                labels.insert(label.into(), "enabled".into());
            } else {
                labels.remove(label);
            }
        }
    }
    labels
}

/// Options of [`validate`].
#[derive(Debug, Clone, Copy, Default)]
pub struct LabelRules {
    /// Switches the two origin rules off (`multizone.zone.disableOriginLabelValidation`).
    pub skip_origin: bool,
}

/// The label rules of a REST write (resources.md §3.3), on the labels of the request.
pub fn validate(
    site: Site<'_>,
    rules: LabelRules,
    kind: Kind,
    mesh: &str,
    labels: &BTreeMap<String, String>,
    violations: &mut Violations,
) {
    let path = |key: &str| format!("labels[\"{key}\"]");
    let descriptor = kind.descriptor();
    let origin = labels.get(ORIGIN).map(String::as_str);
    if let Some(text) = origin
        && Origin::parse(text).is_none()
    {
        violations.add(path(ORIGIN), format!("unknown resource origin \"{text}\""));
    }
    let wanted = match site.mode {
        Mode::Global => origin.is_some().then_some(Origin::Global),
        Mode::FederatedZone => descriptor.is_plugin().then_some(Origin::Zone),
        Mode::StandaloneZone => None,
    };
    if let Some(wanted) = wanted.map(Origin::as_str)
        && origin != Some(wanted)
        && !rules.skip_origin
    {
        violations.add(path(ORIGIN), format!("the origin label must be set to '{wanted}'"));
    }
    if !site.mode.is_global() && origin != Some("global") {
        if let Some(zone) = labels.get(ZONE)
            && zone != site.zone
        {
            violations.add(path(ZONE), format!("kuma.io/zone label should have {} value", site.zone));
        }
        if let Some(label_mesh) = labels.get(MESH)
            && !descriptor.is_global_scoped()
            && label_mesh != mesh
        {
            violations.add(path(MESH), "kuma.io/mesh label must not differ from mesh set on resource");
        }
    }
    if descriptor.is_policy()
        && let Some(role) = labels.get(POLICY_ROLE)
        && role != "system"
    {
        violations.add(
            path(POLICY_ROLE),
            format!("kuma.io/policy-role label should have system value, got {role}"),
        );
    }
    for (key, value) in labels {
        for message in
            crate::name::label_key_errors(key).into_iter().chain(crate::name::label_value_errors(value))
        {
            violations.add(path(key), message);
        }
    }
}

/// True when every pair of `wanted` is among `labels`.
pub fn matches(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
