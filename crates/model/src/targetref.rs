//! References to what a policy selects and to backends, shared by all policies (policy-engine.md §1, §8).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Violations, name};

/// Kinds that a reference may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TargetKind {
    /// The whole mesh.
    Mesh,
    /// Proxies.
    Dataplane,
    /// A service of one zone.
    MeshService,
    /// A service outside the mesh.
    MeshExternalService,
    /// A service of several zones.
    MeshMultiZoneService,
    /// A route.
    MeshHTTPRoute,
}

impl TargetKind {
    /// Rank in all kind comparisons (policy-engine.md §1.1).
    pub fn rank(self) -> u8 {
        match self {
            TargetKind::Mesh => 1,
            TargetKind::Dataplane => 2,
            TargetKind::MeshService => 5,
            TargetKind::MeshExternalService => 6,
            TargetKind::MeshMultiZoneService => 7,
            TargetKind::MeshHTTPRoute => 9,
        }
    }

    /// Wire name.
    pub fn name(self) -> &'static str {
        match self {
            TargetKind::Mesh => "Mesh",
            TargetKind::Dataplane => "Dataplane",
            TargetKind::MeshService => "MeshService",
            TargetKind::MeshExternalService => "MeshExternalService",
            TargetKind::MeshMultiZoneService => "MeshMultiZoneService",
            TargetKind::MeshHTTPRoute => "MeshHTTPRoute",
        }
    }
}

/// What a policy or a `to` item selects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Kind of the selected things.
    pub kind: TargetKind,
    /// Labels they must have; absent differs from empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Inbound, listener or port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

impl TargetRef {
    /// The whole mesh, which is also what an absent top-level reference means.
    pub const MESH: TargetRef = TargetRef { kind: TargetKind::Mesh, labels: None, section_name: None };

    /// The section, if it is not empty.
    pub fn section(&self) -> Option<&str> {
        self.section_name.as_deref().filter(|section| !section.is_empty())
    }
}

/// A destination that a route sends traffic to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// The destination.
    #[serde(flatten)]
    pub target: TargetRef,
    /// Port number; the section of the name it gets in Envoy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Share of the traffic; the schema default is 1.
    #[serde(default = "one", skip_serializing_if = "Option::is_none")]
    pub weight: Option<u64>,
}

fn one() -> Option<u64> {
    Some(1)
}

/// One entry of `spec.to`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToItem<C> {
    /// Destination of the traffic.
    pub target_ref: TargetRef,
    /// The configuration.
    #[serde(default)]
    pub default: C,
}

/// One entry of `spec.rules`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule<C> {
    /// Any of these must match; absent or empty matches everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Vec<Match>>,
    /// The configuration.
    #[serde(default)]
    pub default: C,
}

/// A condition on the peer; both fields together must match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// Condition on the client's SPIFFE id.
    #[serde(default, rename = "spiffeID", skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<SpiffeIdMatch>,
    /// Condition on the requested server name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<SniMatch>,
}

/// Condition on a SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SpiffeIdMatch {
    /// How `value` is compared.
    pub r#type: MatchType,
    /// A SPIFFE id, also for prefixes.
    pub value: String,
}

/// Condition on the SNI.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SniMatch {
    /// Only `Exact`.
    pub r#type: MatchType,
    /// The server name.
    pub value: String,
}

/// How texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MatchType {
    /// Equal.
    Exact,
    /// Starts with.
    Prefix,
}

/// Validates a top-level reference; `has_rules` = the policy has inbound rules.
pub fn validate_top(target: Option<&TargetRef>, has_rules: bool, violations: &mut Violations) {
    let Some(target) = target else { return };
    validate(target, "spec.targetRef", &[TargetKind::Mesh, TargetKind::Dataplane], violations);
    if target.kind == TargetKind::Dataplane && target.section().is_some() && !has_rules {
        violations.add("spec.targetRef.sectionName", "can only be used with inbound policies");
    }
}

/// Validates a reference at `path` against the kinds allowed there (policy-engine.md §8.2).
pub fn validate(target: &TargetRef, path: &str, allowed: &[TargetKind], violations: &mut Violations) {
    if !allowed.contains(&target.kind) {
        violations.add(format!("{path}.kind"), format!("value '{}' is not supported", target.kind.name()));
        return;
    }
    let name = target.kind.name();
    let has_labels = target.labels.as_ref().is_some_and(|labels| !labels.is_empty());
    match target.kind {
        TargetKind::Mesh => {
            if has_labels {
                violations.add(format!("{path}.labels"), "must not be set with kind Mesh");
            }
            if target.section().is_some() {
                violations.add(format!("{path}.sectionName"), "must not be set with kind Mesh");
            }
        }
        TargetKind::Dataplane => {}
        TargetKind::MeshService | TargetKind::MeshMultiZoneService => {
            if !has_labels {
                violations.add(format!("{path}.labels"), format!("must be set when kind is {name}"));
            }
        }
        TargetKind::MeshExternalService | TargetKind::MeshHTTPRoute => {
            if !has_labels {
                violations.add(format!("{path}.labels"), format!("must be set when kind is {name}"));
            }
            if target.section().is_some() {
                violations.add(format!("{path}.sectionName"), format!("must not be set with kind {name}"));
            }
        }
    }
}

/// The three destination kinds.
pub const DESTINATIONS: [TargetKind; 3] =
    [TargetKind::MeshService, TargetKind::MeshExternalService, TargetKind::MeshMultiZoneService];

/// Validates a backend reference.
pub fn validate_backend(backend: &BackendRef, path: &str, violations: &mut Violations) {
    validate(&backend.target, path, &DESTINATIONS, violations);
    if backend.target.kind == TargetKind::MeshMultiZoneService && backend.port.is_none() {
        violations.add(format!("{path}.port"), "must be defined with kind MeshMultiZoneService");
    }
    if backend.weight.is_some_and(|weight| weight > u64::from(u32::MAX)) {
        violations.add(format!("{path}.weight"), "must be in inclusive range [0, 4294967295]");
    }
}

/// Validates a [`Match`] at `path` (policy-engine.md §8.4).
pub fn validate_match(condition: &Match, path: &str, violations: &mut Violations) {
    if let Some(spiffe) = &condition.spiffe_id
        && let Err(reason) = check_spiffe_id(&spiffe.value)
    {
        violations.add(format!("{path}.spiffeID"), format!("must be a valid Spiffe ID: {reason}"));
    }
    if let Some(sni) = &condition.sni {
        if sni.r#type != MatchType::Exact {
            violations
                .add(format!("{path}.sni.type"), "unrecognized type \"Prefix\", supported values are: Exact");
        }
        if sni.value.is_empty() {
            violations.add(format!("{path}.sni.value"), "must be set");
        } else if !name::is_dns1123_subdomain(&sni.value) {
            violations.add(format!("{path}.sni.value"), name::DNS1123_SUBDOMAIN_ERROR);
        }
    }
}

/// Validates `rules[].matches` of policies that condition on the peer: each match needs a condition.
pub fn validate_rule_matches(matches: Option<&[Match]>, path: &str, violations: &mut Violations) {
    for (index, condition) in matches.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}.matches[{index}]");
        if condition.spiffe_id.is_none() && condition.sni.is_none() {
            violations.add(&path, "must specify at least one of 'spiffeID' or 'sni'");
        }
        validate_match(condition, &path, violations);
    }
}

/// The SPIFFE grammar: lower-case trust domain, no empty or dot path segments.
pub fn check_spiffe_id(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("cannot be empty");
    }
    let Some(rest) = text.strip_prefix("spiffe://") else { return Err("scheme is missing or invalid") };
    let (trust_domain, path) =
        rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
    if trust_domain.is_empty() {
        return Err("trust domain is missing");
    }
    let domain_char = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.' | b'_');
    if !trust_domain.bytes().all(domain_char) {
        return Err(
            "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
        );
    }
    for segment in path.iter().flat_map(|path| path.split('/')) {
        if segment.is_empty() {
            return Err(if path == Some("") || text.ends_with('/') {
                "path cannot have a trailing slash"
            } else {
                "path cannot contain empty segments"
            });
        }
        if segment == "." || segment == ".." {
            return Err("path cannot contain dot segments");
        }
        if !segment.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_')) {
            return Err(
                "path segment characters are limited to letters, numbers, dots, dashes, and underscores",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spiffe_grammar() {
        for good in ["spiffe://default.", "spiffe://a.b/ns/x", "spiffe://td/workload/echo"] {
            assert_eq!(check_spiffe_id(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "http://a",
            "spiffe://",
            "spiffe://A",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/..",
            "spiffe://a/b c",
        ] {
            assert!(check_spiffe_id(bad).is_err(), "{bad}");
        }
    }
}
