//! `MeshTrafficPermission` (policies.md §14).

use serde::{Deserialize, Serialize};

use super::Validate;
use crate::schema::common::{MATCHES, TARGET_REF};
use crate::schema::{Schema, field, list, object};
use crate::targetref::{self, Match, Rule};
use crate::{Meta, TargetRef, Violations};

/// Who may call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshTrafficPermission {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Inbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<Rule<Conf>>>,
}

/// Verdicts: any deny wins, then any allow, else deny.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<Vec<Match>>,
    /// Admitted, and counted as if refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_with_shadow_deny: Option<Vec<Match>>,
    /// Admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Match>>,
}

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "rules",
        "Incoming traffic.",
        list(&object(&[field(
            "default",
            "Who may come in.",
            object(&[
                field("allow", "Clients that may.", MATCHES),
                field(
                    "allowWithShadowDeny",
                    "Clients that may, while a log line says that they would be refused.",
                    MATCHES,
                ),
                field("deny", "Clients that may not, whatever else allows them.", MATCHES),
            ]),
        )
        .required()])),
    ),
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
]);

impl Validate for MeshTrafficPermission {
    const DESCRIPTION: &'static str = "Says which clients may reach a proxy.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        let rules = self.rules.as_deref().unwrap_or_default();
        targetref::validate_top(self.target_ref.as_ref(), !rules.is_empty(), violations);
        if rules.is_empty() {
            violations.add("spec", "policy must define rules");
        }
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            let lists = [
                ("allow", &rule.default.allow),
                ("allowWithShadowDeny", &rule.default.allow_with_shadow_deny),
                ("deny", &rule.default.deny),
            ];
            if lists.iter().all(|(_, list)| list.as_ref().is_none_or(Vec::is_empty)) {
                violations
                    .add(&path, "at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined");
            }
            for (name, list) in lists {
                for (position, condition) in list.iter().flatten().enumerate() {
                    targetref::validate_match(
                        condition,
                        &format!("{path}.default.{name}[{position}]"),
                        violations,
                    );
                }
            }
        }
    }
}
