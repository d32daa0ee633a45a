//! Schemas, parameters and answers that several paths share.

use graticule_model::Kind;
use graticule_model::schema::json::{self as schema_json, Dialect};
use serde_json::{Map, Value, json};

use crate::read::insight_kind;

pub(super) fn components() -> Value {
    json!({
        "schemas": schemas(),
        "parameters": parameters(),
        "responses": responses(),
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "A user token, from `POST /tokens/user` or signed offline.",
            },
            "clientCertificate": {
                "type": "mutualTLS",
                "description": "A certificate of a client authority makes its owner the administrator.",
            },
        },
    })
}

fn schemas() -> Value {
    let mut out = Map::new();
    for kind in Kind::all().filter(|kind| !kind.descriptor().path.is_empty()) {
        out.insert(kind.name().into(), schema_json::body(kind));
        if let Some(insight) = insight_kind(kind) {
            out.insert(format!("{kind}Overview"), overview(kind, insight));
        }
    }
    out.insert("Error".into(), error());
    out.insert("AnyResource".into(), any_resource());
    out.insert("KubernetesObject".into(), kubernetes_object());
    out.insert("ResourceMeta".into(), resource_meta());
    out.insert("Index".into(), index());
    out.insert("Kinds".into(), kinds());
    out.insert("PolicyKinds".into(), policy_kinds());
    out.insert("GlobalInsight".into(), global_insight());
    out.insert("Cluster".into(), cluster());
    out.insert("ZoneStatus".into(), zone_status());
    out.insert("Layout".into(), layout());
    out.insert("ProxyPolicies".into(), proxy_policies());
    Value::Object(out)
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

/// Metadata of a kind beside its spec and its insight as members.
fn overview(kind: Kind, insight: Kind) -> Value {
    let mut out = schema_json::body(kind);
    let family = kind.descriptor().family;
    let member = kind.name().to_lowercase();
    let meta = ["name", "mesh", "labels", "creationTime", "modificationTime", "kri"];
    if let Some(Value::Object(properties)) = out.get_mut("properties") {
        properties.retain(|key, _| meta.contains(&key.as_str()));
    }
    let properties = &mut out["properties"];
    properties["type"] = json!({"const": format!("{kind}Overview"), "description": "Kind of the overview."});
    properties[&member] = kind.schema().publish(Dialect::JsonSchema, family);
    properties[format!("{member}Insight")] = insight.schema().publish(Dialect::JsonSchema, family);
    out["description"] = format!("A {kind} and what was observed of it.").into();
    out["required"] = json!(["type", "name", member]);
    out
}

fn error() -> Value {
    let list = |key: &str| {
        json!({"type": "array", "items": {
            "type": "object",
            "required": ["field", key],
            "properties": {"field": text("Path of what is wrong; may be empty."), key: text("What is wrong.")},
        }})
    };
    json!({
        "description": "Why a request was refused.",
        "type": "object",
        "required": ["type", "status", "title", "detail", "details"],
        "properties": {
            "type": {"const": "/std-errors"},
            "status": {"type": "integer", "description": "Status of the answer."},
            "title": text("What could not be done."),
            "detail": text("Why."),
            "details": text("The same, for older clients."),
            "instance": text("Id of the trace, if there is one."),
            "invalid_parameters": list("reason"),
            "causes": list("message"),
        },
    })
}

fn any_resource() -> Value {
    json!({
        "description": "A resource of any kind.",
        "type": "object",
        "required": ["type", "name"],
        "properties": {"type": text("Kind."), "name": text("Name."), "mesh": text("Mesh.")},
    })
}

fn kubernetes_object() -> Value {
    json!({
        "description": "A resource in the form of Kubernetes.",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "properties": {
            "apiVersion": text("`kuma.io/v1alpha1`, or `v1`."),
            "kind": text("Kind."),
            "metadata": {"type": "object"},
            "spec": {"type": "object"},
            "status": {"type": "object"},
        },
    })
}

fn resource_meta() -> Value {
    json!({
        "description": "Which resource.",
        "type": "object",
        "required": ["type", "mesh", "name", "labels"],
        "properties": {
            "type": text("Kind."),
            "mesh": text("Mesh."),
            "name": text("Name."),
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    })
}

fn index() -> Value {
    json!({
        "type": "object",
        "required": ["clusterId", "gui", "hostname", "instanceId", "product", "version"],
        "properties": {
            "clusterId": text("Id of the whole federation; empty until it is known."),
            "gui": text("Path of the GUI; empty if there is none."),
            "hostname": text("Host that the control plane runs on."),
            "instanceId": text("Id of the process."),
            "product": text("Name of the product."),
            "version": text("Version that clients compare with their own."),
            "basedOnKuma": text("Version of Kuma that this one is compatible with."),
            "store": {
                "type": "object",
                "description": "What is wrong with the store; absent when all is well.",
                "required": ["state", "reason"],
                "properties": {
                    "state": {"enum": ["stale", "readOnly"], "description": "Reads may be old, or writes fail."},
                    "reason": text("Why."),
                },
            },
        },
    })
}

fn kinds() -> Value {
    json!({"type": "object", "required": ["resources"], "properties": {"resources": {"type": "array", "items": {
        "type": "object",
        "required": ["name", "path", "scope", "readOnly"],
        "properties": {
            "name": text("The kind."),
            "path": text("Segment of paths."),
            "readOnly": flag("Whether this control plane refuses writes."),
            "singularDisplayName": text("Name for people."),
            "pluralDisplayName": text("Name for people."),
            "scope": {"enum": ["Mesh", "Global"], "description": "Whether resources belong to a mesh."},
            "shortName": text("Short name in identifiers; empty if there are none."),
            "includeInFederation": flag("Whether an export for federation has it."),
            "policy": {"type": "object", "description": "For policies: which sections the kind has."},
        },
    }}}})
}

fn policy_kinds() -> Value {
    json!({"type": "object", "required": ["policies"], "properties": {"policies": {"type": "array", "items": {
        "type": "object",
        "required": ["name", "path", "readOnly"],
        "properties": {
            "name": text("The kind."),
            "path": text("Segment of paths."),
            "readOnly": flag("Whether this control plane refuses writes."),
            "singularDisplayName": text("Name for people."),
            "pluralDisplayName": text("Name for people."),
            "isExperimental": flag("Whether it may still change."),
            "isTargetRefBased": flag("Whether it selects proxies by `targetRef`."),
            "isInbound": flag("Whether it has `rules`."),
            "isOutbound": flag("Whether it has `to`."),
        },
    }}}})
}

fn global_insight() -> Value {
    let stats = |members: &[&str]| {
        let members =
            members.iter().map(|name| ((*name).to_owned(), json!({"type": "integer", "minimum": 0})));
        json!({"type": "object", "properties": Value::Object(members.collect::<Map<_, _>>())})
    };
    let full = stats(&["online", "offline", "partiallyDegraded", "total"]);
    let (online, total) = (stats(&["online", "total"]), stats(&["total"]));
    json!({
        "type": "object",
        "required": ["createdAt", "zones", "meshes", "policies", "dataplanes", "services", "resources"],
        "properties": {
            "createdAt": {"type": "string", "format": "date-time"},
            "zones": {"type": "object", "properties": {
                "controlPlanes": online, "zoneIngresses": online, "zoneEgresses": online,
            }},
            "meshes": total,
            "policies": total,
            "dataplanes": {"type": "object", "properties": {"standard": full, "gatewayDelegated": full}},
            "services": {"type": "object", "properties": {
                "external": total, "internal": full, "gatewayDelegated": full,
            }},
            "resources": {"type": "object", "additionalProperties": total},
        },
    })
}

fn cluster() -> Value {
    let number = |description: &str| json!({"type": "integer", "minimum": 0, "description": description});
    json!({
        "type": "object",
        "required": ["cluster", "member", "term", "revision", "health", "members"],
        "properties": {
            "cluster": text("Identity of the cluster; empty until it is formed."),
            "member": text("Id of the member that answers."),
            "term": number("Term of the leader; grows with each election."),
            "revision": number("Revision that the member has."),
            "health": text("What the store of the member can do: `ready`, or the reason why not."),
            "members": {"type": "array", "items": {
                "type": "object",
                "required": ["id", "name", "address", "role", "votes", "health"],
                "properties": {
                    "id": text("Number of the member, in hexadecimal."),
                    "name": text("Name for people."),
                    "address": text("Where other members reach it; empty when it stands alone."),
                    "role": {"enum": ["leader", "follower", "learner"], "description": "What it does."},
                    "votes": flag("Whether it votes."),
                    "lag": number("Entries that it is behind the leader; absent when nobody knows."),
                    "health": text("`ready`, or the reason why not."),
                },
            }},
        },
    })
}

fn zone_status() -> Value {
    let number = |description: &str| json!({"type": "integer", "minimum": 0, "description": description});
    let time =
        |description: &str| json!({"type": "string", "format": "date-time", "description": description});
    let direction = json!({"enum": ["sent", "received"], "description": "Seen from who answers."});
    let quarantined = json!({"type": "object", "properties": {
        "kind": text("Kind."),
        "mesh": text("Mesh."),
        "name": text("Name on the wire; of what cannot be offered to anybody, the one it is stored under; empty: all of the kind."),
        "direction": direction,
        "reason": text("Why it does not cross."),
        "since": time("Since when."),
    }});
    json!({
        "type": "object",
        "required": ["zone", "reporter", "online", "kinds", "quarantine", "quarantineTotal", "protection"],
        "properties": {
            "zone": text("The zone."),
            "reporter": {"enum": ["global", "zone"], "description": "Who answers."},
            "online": flag("Whether they are connected."),
            "synced": flag("In a zone: every kind was brought up to date over this connection."),
            "connectedSince": time("Since when they are connected."),
            "lastError": text("In a zone: why the last connection ended."),
            "instances": {"type": "array", "items": {"type": "object", "properties": {
                "zoneInstance": text("Process of the zone."),
                "globalInstance": text("Replica of global that serves it."),
            }}},
            "revision": {"type": "object", "description": "Absent: only the replica knows that has the connection (instances).",
                "properties": {
                "current": number("Revision of the store of who answers."),
                "acknowledged": number("Revision that the other side has all of."),
                "lag": number("Difference."),
                "behindSince": time("Since when nothing more was acknowledged, although something is to be."),
            }},
            "globalRevisionTaken": number("In a zone: the newest revision of global that its store is known to have all of."),
            "kinds": {"type": "array", "items": {"type": "object", "properties": {
                "kind": text("Kind."),
                "direction": direction,
                "inSync": number("As they are at their source."),
                "pending": number("On their way."),
                "quarantined": number("Refused."),
                "heldBack": number("Deletions that wait for a decision."),
            }}},
            "quarantine": {"type": "array", "maxItems": 500, "items": quarantined},
            "quarantineTotal": number("How many there are."),
            "protection": {"type": "object", "properties": {
                "state": {"enum": ["clear", "holding", "otherGlobal"], "description": "Whether deletions are held back."},
                "advice": text("What to do."),
                "heldBack": number("How many are held back here."),
                "heldBackByPeer": number("How many the other side holds back."),
                "resources": {"type": "array", "maxItems": 500, "items": quarantined},
            }},
            "globalRevision": {"type": "object", "description": "In a zone: what global said with the last health check.",
                "properties": {
                    "at": time("When."),
                    "current": number("Revision of its store."),
                    "acknowledged": number("Revision that the zone has all of."),
                    "lag": number("Difference."),
                }},
            "usage": {"type": "object", "description": "At global: what the zone stores there.", "properties": {
                "resources": number("Its resources, of all kinds."),
                "resourcesMax": number("How many it may have; 0: any number."),
                "bytes": number("Their bytes, as they travel."),
                "bytesMax": number("How many they may take; 0: any number."),
            }},
            "conflict": {"type": "object", "description": "Another control plane with this zone's name, which was refused.",
                "properties": {
                    "address": text("Its address."),
                    "instance": text("Its process."),
                    "reason": text("What it was told."),
                    "since": time("First refusal."),
                    "last": time("Newest refusal."),
                }},
        },
    })
}

fn layout() -> Value {
    let part = |more: Value| {
        let mut part = json!({"type": "object", "properties": {
            "kri": {"type": ["string", "null"]},
            "port": {"type": "integer"},
            "proxyResourceName": text("What Envoy calls it."),
        }});
        if let (Value::Object(properties), Value::Object(more)) = (&mut part["properties"], more) {
            properties.extend(more);
        }
        json!({"type": "array", "items": part})
    };
    json!({
        "type": "object",
        "required": ["kri", "labels", "inbounds", "listeners", "outbounds"],
        "properties": {
            "kri": {"type": ["string", "null"], "description": "Identifier of the proxy."},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "inbounds": part(json!({"protocol": {"type": "string"}})),
            "listeners": part(json!({"type": {"enum": ["ZoneIngress", "ZoneEgress"]}})),
            "outbounds": part(json!({"protocol": {"type": "string"}})),
            "spiffeId": text("The identity of the proxy, if it has one."),
        },
    })
}

fn proxy_policies() -> Value {
    json!({"type": "object", "required": ["policies"], "properties": {"policies": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["kind", "origins"],
            "properties": {
                "kind": text("Kind of the policies."),
                "origins": {"type": "array", "items": {"type": "object"}, "description": "The policies."},
                "conf": {"description": "What they come to together."},
                "rules": {"type": "array", "items": {"type": "object"}},
            },
        },
    }}})
}

fn parameters() -> Value {
    let path = |name: &str, description: &str| {
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": description,
            "schema": {"type": "string", "minLength": 1},
        })
    };
    let query = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema});
    let text = || json!({"type": "string"});
    let mut filter = query(
        "filter",
        "Only resources with these labels: `filter[labels.<key>]=<value>`.",
        json!({
            "type": "object",
            "additionalProperties": {"type": "string"},
            "propertyNames": {"pattern": "^labels\\."},
        }),
    );
    filter["style"] = "deepObject".into();
    filter["explode"] = true.into();
    let tags = json!({"type": "array", "items": {"type": "string"}});
    json!({
        "mesh": path("mesh", "Name of the mesh."),
        "name": path("name", "Name of the resource."),
        "member": path("member", "Id, address or name of a member of the cluster."),
        "kri": path("kri", "Identifier of the resource, such as `kri_mt_default___slow_`."),
        "inbound": path("inbound", "Identifier of the proxy with the inbound as its section."),
        "outbound": path("outbound", "Identifier of the destination, with its port as the section."),
        "route": path("route", "Identifier of the route."),
        "path": path("path", "Path of a file."),
        "file": path("file", "Kind with the ending `.json`, such as `MeshTimeout.json`."),
        "size": query("size", "Most items of a page.", json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})),
        "offset": query("offset", "Where the page begins, from `next` of the page before.", text()),
        "nameContains": query("name", "Only resources whose name has this in it.", text()),
        "filter": filter,
        "gateway": query("gateway", "Only gateways, or only proxies that are none.", json!({"enum": ["true", "false", "delegated"]})),
        "tag": query("tag", "Only proxies with these labels: `<key>:<part of the value>`.", tags),
        "format": query("format", "Form of the resource.", json!({"enum": ["universal", "k8s", "kubernetes"], "default": "universal"})),
        "namespace": query("namespace", "Namespace in the form of Kubernetes.", text()),
        "serviceType": query("type", "Only services of these types: `internal`, `external`, `gateway_delegated`, separated by commas.", text()),
        "consistent": query("consistent", "`true`: everything that any replica acknowledged before is seen, or the answer is 503. Otherwise the replica that is asked answers with what it has.", json!({"enum": ["true", "false"]})),
        "shadow": query("shadow", "Whether shadow policies take part.", json!({"enum": ["true", "false"]})),
        "include": query("include", "`diff`: what the shadow policies change.", json!({"enum": ["diff"]})),
        "include_eds": query("include_eds", "Whether endpoints are part of the answer.", json!({"enum": ["true", "false"]})),
        "adminFormat": query("format", "`json`, or text without it.", text()),
        "force": query("force", "Replaces a store that is newer than the backup, or of another control plane.", json!({"type": "boolean", "default": false})),
        "dryRun": query("dryRun", "Says what would change and changes nothing.", json!({"type": "boolean", "default": false})),
        "usedonly": query("usedonly", "Leaves out what was never written.", json!({"enum": ["true", "false"]})),
    })
}

fn responses() -> Value {
    let error = json!({"schema": {"$ref": "#/components/schemas/Error"}});
    let plain = json!({"schema": {"type": "string"}});
    let document =
        |description: &str| json!({"description": description, "content": {"application/json": error}});
    let text = |description: &str| json!({"description": description, "content": {"text/plain": plain}});
    let both = |description: &str| json!({"description": description, "content": {"application/json": error, "text/plain": plain}});
    json!({
        "400": document("The request cannot be understood, or the resource is not valid."),
        "400-empty": {"description": "The request is not valid (an error document), or cannot be read (no body)."},
        "401": document("The credential is not valid."),
        "403": document("The caller may not do this."),
        "404": both("There is no such resource (JSON) or no such path (plain text)."),
        "405": both("The resource cannot be written on this control plane (JSON), or the path has no such method (plain text)."),
        "406": text("None of the wanted media types is offered."),
        "408": document("The body did not arrive in time."),
        "409": document("The resource was changed by somebody else at the same time."),
        "413": document("The body is too large."),
        "415": text("The body has another media type than JSON or YAML, or none."),
        "500": document("The Envoy of the proxy does not answer; the log says why."),
        "501": document("This control plane cannot answer this."),
        "503": document("The control plane is too busy, or has no leader; try again."),
    })
}
