//! `MeshTCPRoute` (policies.md §5).

use serde::{Deserialize, Serialize};

use super::Validate;
use crate::schema::common::{LABELS, TARGET_REF, TO_TARGET_REF};
use crate::schema::{Schema, field, int32, list, object, one_of, text};
use crate::targetref::{self, BackendRef, DESTINATIONS};
use crate::{Meta, TargetRef, Violations};

/// Splits connections over backends.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshTCPRoute {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<To>>,
}

/// Routes of one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct To {
    /// The destination.
    pub target_ref: TargetRef,
    /// At most one.
    #[serde(default)]
    pub rules: Vec<RouteRule>,
}

/// The split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteRule {
    /// The split.
    pub default: Conf,
}

/// The split.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_refs: Option<Vec<BackendRef>>,
}

const RULE: Schema = object(&[field(
    "default",
    "What is done with the connections.",
    object(&[field(
        "backendRefs",
        "Where connections go.",
        list(&object(&[
            field(
                "kind",
                "Kind of the backend.",
                one_of(&[
                    "Mesh",
                    "MeshService",
                    "MeshExternalService",
                    "MeshMultiZoneService",
                    "MeshHTTPRoute",
                    "Dataplane",
                ]),
            )
            .required(),
            field("labels", "Labels of the backend.", LABELS),
            field("port", "Port of the backend.", int32()),
            field("sectionName", "Name of the backend's port.", text()),
            field(
                "weight",
                "Share of the connections, relative to the other backends.",
                int32().min(0).max(4294967295).default_int(1),
            ),
        ])),
    )]),
)
.required()]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
    field(
        "to",
        "Destinations whose connections are routed.",
        list(&object(&[
            field("rules", "The route; at most one.", list(&RULE).max_items(1)).required(),
            field("targetRef", "The destination that clients address.", TO_TARGET_REF).required(),
        ]))
        .min_items(1),
    ),
]);

impl Validate for MeshTCPRoute {
    const DESCRIPTION: &'static str =
        "Sends TCP connections to other destinations than those that clients address.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        targetref::validate_top(self.target_ref.as_ref(), false, violations);
        for (index, to) in self.to.iter().flatten().enumerate() {
            let path = format!("spec.to[{index}]");
            targetref::validate(&to.target_ref, &format!("{path}.targetRef"), &DESTINATIONS, violations);
            for (rule_index, rule) in to.rules.iter().enumerate() {
                let path = format!("{path}.rules[{rule_index}].default.backendRefs");
                let refs = rule.default.backend_refs.as_deref().unwrap_or_default();
                if refs.is_empty() {
                    violations.add(&path, "must be defined");
                }
                for (position, backend) in refs.iter().enumerate() {
                    targetref::validate_backend(backend, &format!("{path}[{position}]"), violations);
                }
            }
        }
    }
}
