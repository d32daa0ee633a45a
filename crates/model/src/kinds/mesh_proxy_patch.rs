//! `MeshProxyPatch` (policies.md §19).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Validate;
use super::check::MUST_BE_DEFINED;
use crate::schema::common::{LABELS, TARGET_REF};
use crate::schema::{Schema, any, field, list, object, one_of, text};
use crate::targetref;
use crate::{Meta, TargetRef, Violations, yaml};

/// Changes of the Envoy configuration as it is, after all other policies.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshProxyPatch {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// The changes.
    #[serde(default)]
    pub default: Conf,
}

/// The changes, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// In this order, after those of less specific policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_modifications: Option<Vec<Modification>>,
}

/// One change; exactly one member is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Modification {
    /// Of clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Change<Operation, ClusterMatch>>,
    /// Of listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Change<Operation, ListenerMatch>>,
    /// Of network filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_filter: Option<Change<FilterOperation, FilterMatch>>,
    /// Of HTTP filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_filter: Option<Change<FilterOperation, FilterMatch>>,
    /// Of virtual hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<Change<Operation, VirtualHostMatch>>,
}

/// What is done to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change<O, M> {
    /// What is done.
    pub operation: O,
    /// To what; absent: everything of its kind.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub r#match: Option<M>,
    /// The Envoy resource to add or to merge, as YAML or JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Changes of single fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_patches: Option<Vec<JsonPatch>>,
}

/// What is done to a cluster, listener or virtual host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Operation {
    Add,
    Remove,
    Patch,
}

/// What is done to a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum FilterOperation {
    Remove,
    Patch,
    AddFirst,
    AddBefore,
    AddAfter,
    AddLast,
}

/// Selects clusters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterMatch {
    /// Where the resource comes from (policies.md §2.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Selects listeners.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListenerMatch {
    /// Where the resource comes from (policies.md §2.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tags in its metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// Selects filters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterMatch {
    /// Where the listener comes from (policies.md §2.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Name of the filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_name: Option<String>,
    /// Tags in the metadata of the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_tags: Option<BTreeMap<String, String>>,
}

/// Selects virtual hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualHostMatch {
    /// Where the listener comes from (policies.md §2.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the route configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_configuration_name: Option<String>,
}

/// One operation of a JSON patch (RFC 6902, without `test`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonPatch {
    /// The operation.
    pub op: JsonPatchOp,
    /// JSON pointer.
    pub path: String,
    /// JSON pointer of the source of `move` and `copy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// New value of `add` and `replace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// Operations of a JSON patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it all")]
pub enum JsonPatchOp {
    Add,
    Remove,
    Replace,
    Move,
    Copy,
}

const JSON_PATCHES: Schema = list(&object(&[
    field("from", "Path that `move` and `copy` take from.", text()),
    field("op", "Operation of JSON Patch.", one_of(&["add", "remove", "replace", "move", "copy"])).required(),
    field("path", "JSON Pointer of what is changed.", text()).required(),
    field("value", "The new value.", any()),
]));

const FILTER_MODIFICATION: Schema = object(&[
    field("jsonPatches", "JSON Patch operations, instead of `value`.", JSON_PATCHES),
    field(
        "match",
        "Which filters are meant; without it, all.",
        object(&[
            field("listenerName", "Name of the listener.", text()),
            field("listenerTags", "Tags of the listener.", LABELS),
            field("name", "Name of the filter.", text()),
            field("origin", "Which part of the control plane made the filter.", text()),
        ]),
    ),
    field(
        "operation",
        "What is done.",
        one_of(&["Remove", "Patch", "AddFirst", "AddBefore", "AddAfter", "AddLast"]),
    )
    .required(),
    field("value", "Envoy configuration in YAML that is added or merged.", text()),
]);

const MODIFICATION: Schema = object(&[
    field(
        "cluster",
        "Changes a cluster.",
        object(&[
            field("jsonPatches", "JSON Patch operations, instead of `value`.", JSON_PATCHES),
            field(
                "match",
                "Which clusters are meant; without it, all.",
                object(&[
                    field("name", "Name of the cluster.", text()),
                    field("origin", "Which part of the control plane made the cluster.", text()),
                ]),
            ),
            field("operation", "What is done.", one_of(&["Add", "Remove", "Patch"])).required(),
            field("value", "Envoy configuration in YAML that is added or merged.", text()),
        ]),
    ),
    field("httpFilter", "Changes an HTTP filter.", FILTER_MODIFICATION),
    field(
        "listener",
        "Changes a listener.",
        object(&[
            field("jsonPatches", "JSON Patch operations, instead of `value`.", JSON_PATCHES),
            field(
                "match",
                "Which listeners are meant; without it, all.",
                object(&[
                    field("name", "Name of the listener.", text()),
                    field("origin", "Which part of the control plane made the listener.", text()),
                    field("tags", "Tags of the listener.", LABELS),
                ]),
            ),
            field("operation", "What is done.", one_of(&["Add", "Remove", "Patch"])).required(),
            field("value", "Envoy configuration in YAML that is added or merged.", text()),
        ]),
    ),
    field("networkFilter", "Changes a network filter.", FILTER_MODIFICATION),
    field(
        "virtualHost",
        "Changes a virtual host.",
        object(&[
            field("jsonPatches", "JSON Patch operations, instead of `value`.", JSON_PATCHES),
            field(
                "match",
                "Which virtual hosts are meant.",
                object(&[
                    field("name", "Name of the virtual host.", text()),
                    field("origin", "Which part of the control plane made the route configuration.", text()),
                    field("routeConfigurationName", "Name of the route configuration.", text()),
                ]),
            )
            .required(),
            field("operation", "What is done.", one_of(&["Add", "Remove", "Patch"])).required(),
            field("value", "Envoy configuration in YAML that is added or merged.", text()),
        ]),
    ),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "default",
        "What is changed.",
        object(&[field("appendModifications", "Changes, made in this order.", list(&MODIFICATION))]),
    )
    .required(),
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
]);

impl Validate for MeshProxyPatch {
    const DESCRIPTION: &'static str =
        "Changes the Envoy configuration of proxies directly, where no other policy can.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        targetref::validate_top(self.target_ref.as_ref(), false, violations);
        let modifications = self.default.append_modifications.as_deref().unwrap_or_default();
        if modifications.is_empty() {
            violations.add("spec.default.appendModifications", "must not be empty");
        }
        for (index, modification) in modifications.iter().enumerate() {
            validate_modification(
                modification,
                &format!("spec.default.appendModifications[{index}]"),
                violations,
            );
        }
    }
}

fn validate_modification(modification: &Modification, path: &str, violations: &mut Violations) {
    let set = [
        modification.cluster.is_some(),
        modification.listener.is_some(),
        modification.network_filter.is_some(),
        modification.http_filter.is_some(),
        modification.virtual_host.is_some(),
    ];
    let count = set.into_iter().filter(|is_set| *is_set).count();
    if count != 1 {
        let message = format!(
            "exactly one modification can be defined at a time. Currently, {count} modifications are defined"
        );
        violations.add(path, message);
        return;
    }
    if let Some(change) = &modification.cluster {
        let path = format!("{path}.cluster");
        if change.operation == Operation::Add && change.r#match.is_some() {
            violations.add(format!("{path}.match"), "must not be defined");
        }
        validate_operation(change.operation, change, &path, violations);
    }
    if let Some(change) = &modification.listener {
        let path = format!("{path}.listener");
        if change.operation == Operation::Add && change.r#match.is_some() {
            violations.add(format!("{path}.match"), "must not be defined");
        }
        validate_operation(change.operation, change, &path, violations);
    }
    if let Some(change) = &modification.virtual_host {
        let path = format!("{path}.virtualHost");
        let has_name = change.r#match.as_ref().is_some_and(|m| m.name.is_some());
        if change.operation == Operation::Add && has_name {
            violations.add(format!("{path}.match.name"), "must not be defined");
        }
        validate_operation(change.operation, change, &path, violations);
    }
    for (name, filter) in
        [("networkFilter", &modification.network_filter), ("httpFilter", &modification.http_filter)]
    {
        if let Some(change) = filter {
            validate_filter(change, &format!("{path}.{name}"), violations);
        }
    }
}

fn validate_filter(change: &Change<FilterOperation, FilterMatch>, path: &str, violations: &mut Violations) {
    let has_name =
        change.r#match.as_ref().is_some_and(|m| m.name.as_ref().is_some_and(|name| !name.is_empty()));
    let message = match change.operation {
        FilterOperation::AddBefore => {
            "must be defined. You need to pick a filter before which this one will be added"
        }
        FilterOperation::AddAfter => {
            "must be defined. You need to pick a filter after which this one will be added"
        }
        _ => MUST_BE_DEFINED,
    };
    let operation = match change.operation {
        FilterOperation::Remove => Operation::Remove,
        FilterOperation::Patch => Operation::Patch,
        _ => Operation::Add,
    };
    let needs_name = matches!(
        change.operation,
        FilterOperation::AddBefore | FilterOperation::AddAfter | FilterOperation::Patch
    );
    if needs_name && !has_name {
        violations.add(format!("{path}.match.name"), message);
    }
    validate_operation(operation, change, path, violations);
}

/// What holds for all kinds: which of `value` and `jsonPatches` must be there, and their form.
fn validate_operation<O, M>(
    operation: Operation,
    change: &Change<O, M>,
    path: &str,
    violations: &mut Violations,
) {
    let patches = change.json_patches.as_deref().unwrap_or_default();
    match (operation, &change.value) {
        (Operation::Remove, Some(_)) => violations.add(format!("{path}.value"), "must not be defined"),
        (Operation::Remove, None) => {}
        (Operation::Add, None) => violations.add(format!("{path}.value"), MUST_BE_DEFINED),
        (Operation::Patch, Some(_)) if !patches.is_empty() => {
            violations.add(path, format!("{path} must have only one type defined: value, jsonPatches"));
        }
        (Operation::Patch, None) if patches.is_empty() => {
            violations.add(path, format!("{path} must have exactly one defined: value, jsonPatches"));
        }
        (_, Some(value)) => validate_value(value, path, violations),
        (Operation::Patch, None) => {}
    }
    for (index, patch) in patches.iter().enumerate() {
        validate_patch(patch, &format!("{path}.jsonPatches[{index}]"), violations);
    }
}

/// The text must be one YAML or JSON object; whether Envoy knows its fields is seen when it is applied.
fn validate_value(value: &str, path: &str, violations: &mut Violations) {
    let reason = match yaml::parse_one(value) {
        Ok(Value::Object(_)) => return,
        Ok(_) => "expected an object".to_owned(),
        Err(error) => error.message,
    };
    violations.add(format!("{path}.value"), format!("native Envoy resource is not valid: {reason}"));
}

fn validate_patch(patch: &JsonPatch, path: &str, violations: &mut Violations) {
    if patch.op == JsonPatchOp::Remove && matches!(patch.path.as_str(), "" | "/") {
        violations.add(format!("{path}.path"), "must not be the root when op is remove");
    }
    let wants_from = matches!(patch.op, JsonPatchOp::Move | JsonPatchOp::Copy);
    let wants_value = matches!(patch.op, JsonPatchOp::Add | JsonPatchOp::Replace);
    for (field, wanted, is_set) in
        [("from", wants_from, patch.from.is_some()), ("value", wants_value, patch.value.is_some())]
    {
        match (wanted, is_set) {
            (true, false) => violations.add(format!("{path}.{field}"), MUST_BE_DEFINED),
            (false, true) => violations.add(format!("{path}.{field}"), "must not be defined"),
            _ => {}
        }
    }
}
