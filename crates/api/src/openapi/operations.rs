//! What each path does.

use graticule_model::{Kind, Scope};
use http::Method;
use serde_json::{Map, Value, json};

use crate::route::{ClusterPart, Form, PolicyDataplanes, ProxyView, Target, Tokens};

/// One method of a path.
pub(super) struct Operation {
    pub(super) method: Method,
    id: String,
    tag: &'static str,
    summary: String,
    /// Names of parameters of the query, in the components.
    query: &'static [&'static str],
    /// Schema of the body, if there is one.
    body: Option<Value>,
    /// Whether the body is a file instead.
    takes_file: bool,
    /// Status, description and content of success.
    success: Vec<(u16, &'static str, Content)>,
    /// Names of responses that are no success, in the components.
    errors: &'static [&'static str],
    is_deprecated: bool,
}

#[derive(Clone)]
enum Content {
    /// JSON or YAML with this schema.
    Document(Value),
    /// JSON alone.
    Json(Value),
    /// JSON, or text as Envoy writes it.
    JsonOrText,
    /// YAML alone.
    Yaml(Value),
    Text(&'static str),
    /// Bytes.
    File,
}

/// Answers that any request may get.
const ALWAYS: &[&str] = &["400", "401", "404", "405", "406", "503"];
const RESOURCES: &str = "Resources";
const SYSTEM: &str = "System";
const TOKENS: &str = "Tokens";
const INSPECTION: &str = "Inspection";

pub(super) fn tags() -> Value {
    json!([
        {"name": RESOURCES, "description": "Resources of all kinds."},
        {"name": INSPECTION, "description": "What the control plane makes of resources."},
        {"name": TOKENS, "description": "Tokens for users, proxies and zones."},
        {"name": SYSTEM, "description": "The control plane itself."},
    ])
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A page of a list.
fn page_of(items: Value) -> Value {
    json!({
        "type": "object",
        "required": ["total", "items", "next"],
        "properties": {
            "total": {"type": "integer", "minimum": 0, "description": "How many there are on all pages."},
            "items": {"type": "array", "items": items},
            "next": {"type": ["string", "null"], "description": "Address of the next page; null on the last."},
        },
    })
}

impl Operation {
    fn get(tag: &'static str, id: impl Into<String>, summary: impl Into<String>, answer: Value) -> Operation {
        Operation {
            method: Method::GET,
            id: id.into(),
            tag,
            summary: summary.into(),
            query: &[],
            body: None,
            takes_file: false,
            success: vec![(200, "The answer.", Content::Document(answer))],
            errors: &[],
            is_deprecated: false,
        }
    }

    fn query(mut self, names: &'static [&'static str]) -> Operation {
        self.query = names;
        self
    }

    fn errors(mut self, names: &'static [&'static str]) -> Operation {
        self.errors = names;
        self
    }

    fn deprecated_if(mut self, is_deprecated: bool) -> Operation {
        if is_deprecated {
            self.id.push_str("Legacy");
        }
        self.is_deprecated = is_deprecated;
        self
    }

    fn content(mut self, content: Content) -> Operation {
        self.success = vec![(200, "The answer.", content)];
        self
    }

    pub(super) fn to_value(&self, path: &str) -> Value {
        let mut responses = Map::new();
        for (status, description, content) in &self.success {
            let content = match content {
                Content::Document(schema) => {
                    json!({"application/json": {"schema": schema}, "application/yaml": {"schema": schema}})
                }
                Content::Json(schema) => json!({"application/json": {"schema": schema}}),
                Content::JsonOrText => {
                    json!({"application/json": {"schema": {}}, "text/plain": {"schema": {"type": "string"}}})
                }
                Content::Yaml(schema) => json!({"application/yaml": {"schema": schema}}),
                Content::File => json!({"application/octet-stream": {"schema": {}}}),
                Content::Text(media_type) => {
                    let mut content = Map::new();
                    content.insert((*media_type).to_owned(), json!({"schema": {"type": "string"}}));
                    Value::Object(content)
                }
            };
            responses.insert(status.to_string(), json!({"description": description, "content": content}));
        }
        for name in ALWAYS.iter().chain(self.errors) {
            // Some answers of a status have a form of their own, such as `400-empty`.
            let status = name.split('-').next().unwrap_or(name);
            responses.insert(status.to_owned(), json!({"$ref": format!("#/components/responses/{name}")}));
        }
        let mut out = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "responses": responses,
        });
        if !self.query.is_empty() {
            let reference = |name: &&str| json!({"$ref": format!("#/components/parameters/{name}")});
            out["parameters"] = self.query.iter().map(reference).collect();
        }
        if self.takes_file {
            out["requestBody"] =
                json!({"required": true, "content": {"application/octet-stream": {"schema": {}}}});
        }
        if let Some(schema) = &self.body {
            out["requestBody"] = json!({
                "required": true,
                "content": {"application/json": {"schema": schema}, "application/yaml": {"schema": schema}},
            });
        }
        if self.is_deprecated {
            out["deprecated"] = true.into();
        }
        if path == "/" {
            out["security"] = json!([{}]);
        }
        out
    }
}

const PAGE: &[&str] = &["size", "offset", "nameContains"];
const LIST: &[&str] = &["size", "offset", "nameContains", "filter", "consistent"];
const DATAPLANES: &[&str] = &["size", "offset", "nameContains", "filter", "consistent", "gateway", "tag"];

/// The operations of a path, in the order of the header `Allow`.
pub(super) fn describe(target: &Target, path: &str) -> Vec<Operation> {
    match target {
        Target::List { kind, form, .. } => vec![list(*kind, *form, path)],
        Target::One { kind, form: Form::Plain, .. } => one(*kind, path),
        Target::One { kind, form: Form::Overview, .. } => {
            let summary = format!("One {kind} with what was observed of it.");
            let answer = reference(&format!("{kind}Overview"));
            let is_old = path.contains("+insights");
            let operation = Operation::get(RESOURCES, format!("get{kind}Overview"), summary, answer);
            vec![operation.errors(&["403"]).deprecated_if(is_old)]
        }
        Target::DryRun { kind, .. } => vec![dry_run(*kind)],
        Target::Proxy { view, .. } => vec![proxy(view)],
        Target::PolicyDataplanes { kind, shape, .. } => vec![policy_dataplanes(*kind, *shape)],
        Target::Tokens(tokens) => vec![token(*tokens)],
        Target::Cluster(part) => vec![cluster(part)],
        Target::ZoneStatus { .. } | Target::AcceptDeletions { .. } => vec![federation(target)],
        Target::LeaveGlobal { .. } => leave_global(),
        Target::ClusterId => vec![cluster_id()],
        Target::ServiceInsight { .. } => service_insight(),
        other => vec![system(other, path)],
    }
}

fn list(kind: Kind, form: Form, path: &str) -> Operation {
    let descriptor = kind.descriptor();
    let (id, items, what) = match form {
        Form::Plain => (format!("list{kind}"), kind.name().to_owned(), "All resources"),
        Form::Overview => (
            format!("list{kind}Overview"),
            format!("{kind}Overview"),
            "All resources, with what was observed of them,",
        ),
    };
    let is_in_mesh = path.starts_with("/meshes/");
    let id = if is_in_mesh { format!("{id}InMesh") } else { id };
    let place = match (descriptor.scope, is_in_mesh) {
        (_, true) => "of the mesh",
        (Scope::Mesh, false) => "of all meshes",
        (Scope::Global, false) => "of the control plane",
    };
    let is_old = path.contains("+insights") || is_alternative(kind, path);
    let query = if kind == Kind::Dataplane { DATAPLANES } else { LIST };
    Operation::get(RESOURCES, id, format!("{what} of kind {kind} {place}."), page_of(reference(&items)))
        .query(query)
        .errors(&["403"])
        .deprecated_if(is_old)
}

/// The other path of a kind that has two.
fn is_alternative(kind: Kind, path: &str) -> bool {
    let alternative = kind.descriptor().alt_path;
    !alternative.is_empty() && path.split('/').any(|segment| segment == alternative)
}

fn one(kind: Kind, path: &str) -> Vec<Operation> {
    let is_old = is_alternative(kind, path);
    let warnings = json!({
        "type": "object",
        "properties": {"warnings": {
            "type": "array",
            "items": {"type": "string"},
            "description": "What is outdated in the resource; it was stored nevertheless.",
        }},
    });
    let get = Operation::get(RESOURCES, format!("get{kind}"), format!("One {kind}."), Value::Null)
        .content(Content::Document(json!({"anyOf": [reference(kind.name()), reference("KubernetesObject")]})))
        .query(&["format", "namespace", "consistent"])
        .errors(&["403"])
        .deprecated_if(is_old);
    let mut put = Operation::get(
        RESOURCES,
        format!("put{kind}"),
        format!("Creates or replaces a {kind}; {}", kind.description()),
        Value::Null,
    )
    .errors(&["403", "408", "409", "413", "415"])
    .deprecated_if(is_old);
    put.method = Method::PUT;
    put.body = Some(reference(kind.name()));
    put.success = vec![
        (200, "It was replaced.", Content::Document(warnings.clone())),
        (201, "It was created.", Content::Document(warnings)),
    ];
    let mut delete =
        Operation::get(RESOURCES, format!("delete{kind}"), format!("Deletes a {kind}."), Value::Null)
            .content(Content::Document(json!({"type": "object"})))
            .errors(&["403", "409"])
            .deprecated_if(is_old);
    delete.method = Method::DELETE;
    vec![put, delete, get]
}

fn dry_run(kind: Kind) -> Operation {
    let answer = json!({
        "type": "object",
        "required": ["resource"],
        "properties": {
            "resource": reference(kind.name()),
            "warnings": {"type": "array", "items": {"type": "string"}},
        },
    });
    let summary = format!("What a PUT of a {kind} would do: the same checks, nothing is written.");
    let mut put = Operation::get(RESOURCES, format!("dryRun{kind}"), summary, Value::Null)
        .errors(&["403", "408", "409", "413", "415"]);
    put.method = Method::PUT;
    put.body = Some(reference(kind.name()));
    put.success = vec![
        (200, "It would be replaced by this.", Content::Document(answer.clone())),
        (201, "It would be created like this.", Content::Document(answer)),
    ];
    put
}

fn service_insight() -> Vec<Operation> {
    let get = Operation::get(
        RESOURCES,
        "getServiceInsight",
        "A kind of the past: none is found.",
        json!({"type": "object"}),
    );
    let refused = |method, id| {
        let mut operation =
            Operation::get(RESOURCES, id, "Refused with 405.", Value::Null).errors(&["408", "413", "415"]);
        operation.method = method;
        operation.success = Vec::new();
        operation.is_deprecated = true;
        operation
    };
    vec![
        refused(Method::PUT, "putServiceInsight"),
        refused(Method::DELETE, "deleteServiceInsight"),
        get.errors(&["403"]).deprecated_if(true),
    ]
}

fn proxy(view: &ProxyView) -> Operation {
    let policies = || reference("ProxyPolicies");
    let of_list = |member: &str| {
        let mut out = json!({"type": "object", "required": [member]});
        out["properties"][member] = json!({"type": "array", "items": {"type": "object"}});
        out
    };
    let waiting = &["403", "501"];
    let operation = |id: &str, summary: &str, answer| Operation::get(INSPECTION, id, summary, answer);
    match view {
        ProxyView::Layout => {
            let answer = reference("Layout");
            operation("getProxyLayout", "The parts of a proxy and what its Envoy calls them.", answer)
                .errors(&["403"])
        }
        ProxyView::Rules => {
            let summary = "The rules of all policies that are in force for a proxy.";
            operation("getProxyRules", summary, of_list("rules")).errors(waiting)
        }
        ProxyView::Policies => {
            operation("getProxyPolicies", "The policies of a proxy as a whole.", policies()).errors(waiting)
        }
        ProxyView::InboundPolicies { .. } => {
            operation("getInboundPolicies", "The policies of an inbound.", policies()).errors(waiting)
        }
        ProxyView::OutboundPolicies { .. } => {
            operation("getOutboundPolicies", "The policies of an outbound.", policies()).errors(waiting)
        }
        ProxyView::OutboundRoutes { .. } => {
            operation("getOutboundRoutes", "The routes of an outbound.", of_list("routes")).errors(waiting)
        }
        ProxyView::RoutePolicies { .. } => {
            operation("getRoutePolicies", "The policies of a route of an outbound.", policies())
                .errors(waiting)
        }
        ProxyView::MatchedPolicies => {
            let summary = "The policies that select a proxy, in the form of older clients.";
            operation("getMatchedPolicies", summary, of_list("items")).errors(waiting).deprecated_if(true)
        }
        ProxyView::Config => {
            let summary = "The Envoy configuration that a proxy is sent; only on a zone control plane.";
            let answer = json!({"type": "object", "required": ["xds"], "properties": {
                "xds": {"type": "object", "description": "Resources by type and name."},
                "diff": {
                    "type": "array",
                    "items": {"type": "object"},
                    "description": "JSON Patch from the configuration without shadow policies.",
                },
            }});
            operation("getProxyConfig", summary, answer).query(&["shadow", "include"]).errors(waiting)
        }
        ProxyView::Admin(word) => {
            let (id, query): (_, &[&str]) = match word.as_str() {
                "xds" => ("getProxyXds", &["include_eds"]),
                "stats" => ("getProxyStats", &["adminFormat", "usedonly"]),
                _ => ("getProxyClusters", &["adminFormat"]),
            };
            let content = if word == "xds" { Content::Json(json!({})) } else { Content::JsonOrText };
            operation(id, &format!("What the Envoy of a proxy says about its {word}."), Value::Null)
                .content(content)
                .query(query)
                .errors(&["403", "500", "501"])
        }
    }
}

fn policy_dataplanes(kind: Kind, shape: PolicyDataplanes) -> Operation {
    let summary = format!("The Dataplanes that a {kind} selects.");
    let items = |items: Value| {
        json!({"type": "object", "required": ["total", "items"], "properties": {
            "total": {"type": "integer", "minimum": 0},
            "items": {"type": "array", "items": items},
            "next": {"type": "string", "description": "Address of the next page; absent on the last."},
        }})
    };
    match shape {
        PolicyDataplanes::Paged => {
            let id = format!("list{kind}Dataplanes");
            let answer = items(reference("ResourceMeta"));
            Operation::get(INSPECTION, id, summary, answer).query(PAGE).errors(&["403", "501"])
        }
        PolicyDataplanes::Attachments => {
            let id = format!("list{kind}Attachments");
            let answer = items(json!({"type": "object"}));
            Operation::get(INSPECTION, id, summary, answer).errors(&["403", "501"]).deprecated_if(true)
        }
    }
}

fn token(tokens: Tokens) -> Operation {
    let valid_for = json!({
        "type": ["string", "null"],
        "description": "Lifetime in Go notation, such as `24h`.",
    });
    let text = |description: &str| json!({"type": ["string", "null"], "description": description});
    let texts = |description: &str| json!({"type": ["array", "null"], "items": {"type": "string"}, "description": description});
    let (id, summary, required, mut properties) = match tokens {
        Tokens::Dataplane => (
            "createDataplaneToken",
            "A token with which a proxy proves what it is.",
            vec!["mesh"],
            json!({
                "name": text("Name of the Dataplane; empty is any."),
                "mesh": text("Mesh of the Dataplane."),
                "tags": {
                    "type": ["object", "null"],
                    "additionalProperties": {"type": "array", "items": {"type": "string"}},
                    "description": "Allowed values by label.",
                },
                "type": {"enum": ["", "dataplane", null], "description": "Type of the proxy."},
                "workload": text("Workload that the proxy must belong to; empty is any."),
            }),
        ),
        Tokens::Zone => (
            "createZoneToken",
            "A token with which a zone control plane proves its zone.",
            vec!["zone"],
            json!({"zone": text("Name of the zone."), "scope": texts("What it may be used for.")}),
        ),
        Tokens::User => (
            "createUserToken",
            "A token with which a user proves name and groups.",
            vec!["name", "validFor"],
            json!({"name": text("Name of the user."), "groups": texts("Groups of the user.")}),
        ),
    };
    properties["validFor"] = valid_for;
    let mut operation = Operation::get(TOKENS, id, summary, Value::Null)
        .content(Content::Text("text/plain"))
        .errors(&["400-empty", "403", "408", "413", "415"]);
    operation.method = Method::POST;
    operation.body = Some(json!({"type": "object", "properties": properties, "required": required}));
    operation
}

fn federation(target: &Target) -> Operation {
    if let Target::ZoneStatus { .. } = target {
        let summary =
            "The connection between global and a zone: at global that of any zone, in a zone that of itself.";
        return Operation::get(SYSTEM, "getZoneStatus", summary, reference("ZoneStatus"))
            .errors(&["403", "404"]);
    }
    let summary = "Gives up the copies that are kept although the other side no longer has them.";
    let answer = json!({"type": "object", "properties": {
        "givenUp": {"type": "integer", "minimum": 0, "description": "How many copies that concerns."},
    }});
    let mut operation = Operation::get(SYSTEM, "acceptZoneDeletions", summary, answer);
    operation.method = Method::POST;
    operation.errors = &["403", "404", "409", "415"];
    operation
}

fn cluster_id() -> Operation {
    let summary =
        "Sets the id of the federation: a global that was made anew becomes the one that its zones know.";
    let mut operation = Operation::get(SYSTEM, "setClusterId", summary, json!({"type": "object"}));
    operation.method = Method::PUT;
    operation.body = Some(json!({
        "type": "object", "required": ["clusterId", "expected"], "additionalProperties": false, "properties": {
            "clusterId": {
                "type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$", "description": "As the zones show it at `/`.",
            },
            "expected": {
                "type": "string",
                "description": "The id that global has now, as it shows it at `/`; with another one the call is refused.",
            },
        },
    }));
    operation.errors = &["403", "408", "409", "413", "415"];
    operation
}

fn leave_global() -> Vec<Operation> {
    let one = json!({"type": "object", "required": ["kind", "name"], "properties": {
        "kind": {"type": "string", "description": "Kind of the copy."},
        "mesh": {"type": "string", "description": "Its mesh; absent for kinds without."},
        "name": {"type": "string", "description": "The name under which the zone has it."},
        "becomes": {"type": "string", "description": "The name of the zone's own resource; absent when the copy goes."},
        "ofZone": {"type": "string", "description": "The zone that it is of; such a copy goes."},
    }});
    let answer = json!({"type": "object", "required": ["copies"], "properties": {
        "copies": {"type": "array", "items": one, "description": "The zone's copies, and what becomes of each."},
    }});
    let summary = "What becomes of the copies of a zone that leaves its global; ask the zone.";
    let preview =
        Operation::get(SYSTEM, "getLeavingGlobal", summary, answer.clone()).errors(&["403", "404", "409"]);
    let summary =
        "Ends the connection of a zone to its global for good, and makes its copies its own; ask the zone.";
    let mut leave = Operation::get(SYSTEM, "leaveGlobal", summary, answer);
    leave.method = Method::POST;
    leave.errors = &["403", "404", "409", "415", "503"];
    let summary = "A zone that has left its global may join one again: it connects when it is started with one; ask the zone.";
    let answer = json!({"type": "object", "required": ["hadLeft"], "properties": {
        "hadLeft": {"type": "boolean", "description": "Whether it had left one."},
    }});
    let mut back = Operation::get(SYSTEM, "mayJoinGlobal", summary, answer);
    back.method = Method::DELETE;
    back.errors = &["403", "409", "503"];
    vec![preview, leave, back]
}

fn cluster(part: &ClusterPart) -> Operation {
    let (id, summary, method, body) = match part {
        ClusterPart::Status => {
            let summary = "The members of the cluster of replicas that this control plane belongs to.";
            return Operation::get(SYSTEM, "getCluster", summary, reference("Cluster"))
                .errors(&["403", "501"]);
        }
        ClusterPart::Members => (
            "addClusterMember",
            "Adds the member that waits at an address.",
            Method::POST,
            Some(("address", "`host:port` of the member.", true)),
        ),
        ClusterPart::Member(_) => ("removeClusterMember", "Removes a member.", Method::DELETE, None),
        ClusterPart::Transfer => (
            "transferLeadership",
            "Hands leadership over to another member.",
            Method::POST,
            Some(("member", "Id, address or name; without it, any that votes and has caught up.", false)),
        ),
        ClusterPart::Recover => (
            "recoverCluster",
            "Makes this member a cluster of its own, when the majority of the others is lost for good. What only they had is lost.",
            Method::POST,
            Some(("confirm", "`the other members are lost`.", true)),
        ),
    };
    let mut operation = Operation::get(SYSTEM, id, summary, json!({"type": "object"}));
    operation.method = method;
    operation.errors = &["403", "408", "409", "413", "415", "501"];
    if let Some((field, description, is_required)) = body {
        let mut schema = json!({"type": "object", "additionalProperties": false});
        let kind = if is_required { json!("string") } else { json!(["string", "null"]) };
        schema["properties"][field] = json!({"type": kind, "description": description});
        if is_required {
            schema["required"] = json!([field]);
        }
        operation.body = Some(schema);
    }
    operation
}

fn system(target: &Target, path: &str) -> Operation {
    let get = |id: &str, summary: &str, answer| Operation::get(SYSTEM, id, summary, answer);
    let object = || json!({"type": "object"});
    match target {
        Target::Index => get("getIndex", "Which control plane this is.", reference("Index")),
        Target::WhoAmI => {
            let answer = json!({"type": "object", "required": ["name", "groups"], "properties": {
                "name": {"type": "string"},
                "groups": {"type": "array", "items": {"type": "string"}},
            }});
            get("getUser", "Who the caller is.", answer)
        }
        Target::Config => {
            get("getConfig", "The configuration of the control plane, secrets masked.", object())
                .errors(&["403"])
        }
        Target::Resources => get("listKinds", "All kinds.", reference("Kinds")),
        Target::Policies => get("listPolicyKinds", "All kinds of policies.", reference("PolicyKinds")),
        Target::GlobalInsight => {
            get("getGlobalInsight", "Counters of everything.", reference("GlobalInsight"))
        }
        Target::GlobalInsights => {
            get("getGlobalInsights", "Counters of resources, in the form of older clients.", object())
                .deprecated_if(true)
        }
        Target::Kri(_) => {
            let answer = json!({"anyOf": [reference("AnyResource"), reference("KubernetesObject")]});
            get("getResourceByKri", "The resource of an identifier.", answer)
                .query(&["format", "namespace"])
                .errors(&["403"])
        }
        Target::ServiceInsights { .. } => {
            let in_mesh = if path.starts_with("/meshes/") { "InMesh" } else { "" };
            let id = format!("listServiceInsight{in_mesh}");
            let summary = "A kind of the past: the list is empty.";
            let operation = Operation::get(RESOURCES, id, summary, page_of(object()));
            operation
                .query(&["size", "offset", "nameContains", "serviceType"])
                .errors(&["403"])
                .deprecated_if(true)
        }
        Target::ServiceDataplanes { .. } => {
            let answer = json!({"type": "object", "required": ["total", "items"], "properties": {
                "total": {"type": "integer", "minimum": 0},
                "items": {"type": "array", "items": reference("ResourceMeta")},
                "next": {"type": "string", "description": "Address of the next page; absent on the last."},
            }});
            Operation::get(
                INSPECTION,
                "listMeshServiceDataplanes",
                "The Dataplanes behind a MeshService.",
                answer,
            )
            .query(PAGE)
            .errors(&["403"])
        }
        Target::Hostnames { path: kind, .. } => {
            let kind = Kind::from_path(kind).map_or("Service", Kind::name);
            let answer = json!({"type": "object", "required": ["total", "items"], "properties": {
                "total": {"type": "integer", "minimum": 0},
                "items": {"type": ["array", "null"], "items": {"type": "object", "properties": {
                    "hostname": {"type": "string"},
                    "zones": {"type": "array", "items": {"type": "object"}},
                }}},
            }});
            let id = format!("list{kind}Hostnames");
            let summary = format!("The hostnames of a {kind}, by zone.");
            Operation::get(INSPECTION, id, summary, answer).errors(&["403"])
        }
        Target::OpenApi(_) => {
            let format = if path.ends_with("yaml") { "Yaml" } else { "Json" };
            let operation = get(&format!("getOpenApi{format}"), "This document.", object());
            let content = if format == "Yaml" { Content::Yaml(object()) } else { Content::Json(object()) };
            operation.content(content)
        }
        Target::Backup => {
            let summary = "Everything that the store holds at one revision, as a backup file.";
            get("getBackup", summary, Value::Null).content(Content::File).errors(&["403"])
        }
        Target::Restore => {
            let number =
                |description: &str| json!({"type": "integer", "minimum": 0, "description": description});
            let counts = json!({"type": "object", "properties": {
                "kind": {"type": "string"},
                "created": number("Only in the backup."),
                "updated": number("Different in the backup."),
                "deleted": number("Not in the backup."),
                "unchanged": number("The same."),
            }});
            let answer = json!({
                "type": "object",
                "required": ["dryRun", "revisionBefore", "revision", "changes", "kinds", "backup"],
                "properties": {
                    "dryRun": {"type": "boolean", "description": "Whether nothing was changed."},
                    "revisionBefore": number("Revision of the store before."),
                    "revision": number("Revision of the store now."),
                    "changes": number("How many resources differ."),
                    "kinds": {"type": "array", "items": counts},
                    "needsForce": {"type": ["string", "null"], "description": "What `force` is needed for."},
                    "backup": {"type": "object", "description": "What the file says of itself."},
                },
            });
            let summary = "Replaces everything that the store holds by what a backup file holds, at once.";
            let operation = get("restoreBackup", summary, Value::Null).content(Content::Json(answer));
            let mut operation = operation.query(&["force", "dryRun"]).errors(&["403", "408", "409", "413"]);
            operation.method = Method::POST;
            operation.takes_file = true;
            operation
        }
        Target::Schema(_) => get("getSchema", "The JSON Schema of a kind.", object()),
        Target::GuiRoot => {
            let mut operation = get("getGuiRoot", "Redirects to the GUI.", Value::Null);
            operation.success = vec![(307, "To `/gui/`.", Content::Text("text/html"))];
            operation
        }
        Target::Gui => get("getGui", "The GUI.", Value::Null).content(Content::Text("text/html")),
        Target::List { .. }
        | Target::One { .. }
        | Target::DryRun { .. }
        | Target::Proxy { .. }
        | Target::PolicyDataplanes { .. }
        | Target::Tokens(_)
        | Target::Cluster(_)
        | Target::ZoneStatus { .. }
        | Target::AcceptDeletions { .. }
        | Target::LeaveGlobal { .. }
        | Target::ClusterId
        | Target::ServiceInsight { .. } => {
            // Described by `describe`.
            get("", "", Value::Null)
        }
    }
}
