//! `Mesh` (resources.md §7.1).

use serde::{Deserialize, Serialize};

use super::Validate;
use crate::schema::common::TEXTS;
use crate::schema::{Schema, field, object};
use crate::{Meta, Violations, name};

/// A mesh: the outermost boundary of identity and policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mesh {
    /// Default policies that are not created with the mesh: kinds, or `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip_creating_initial_policies: Vec<String>,
}

impl Validate for Mesh {
    const DESCRIPTION: &'static str =
        "A mesh: services inside it share identities and policies, and are apart from those of other meshes.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, meta: &Meta, violations: &mut Violations) {
        if let Some(message) = name::dns1035_error(meta.display_name()) {
            violations.add("name", message);
        }
    }
}

/// What a document looks like.
const SPEC: Schema = object(&[field(
    "skipCreatingInitialPolicies",
    "Kinds of which no default policy is made with the mesh; `*` is all.",
    TEXTS,
)]);
