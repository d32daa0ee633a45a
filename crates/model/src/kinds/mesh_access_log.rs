//! `MeshAccessLog` (policies.md §9).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Validate;
use super::check::{self, MUST_BE_DEFINED};
use super::mesh_open_telemetry_backend::{self as otel, BackendRef};
use crate::schema::common::{ATTRIBUTE_KEY_PATTERN, MATCHES, OTEL_BACKEND_REF, TARGET_REF, TO_TARGET_REF};
use crate::schema::{Schema, any, boolean, field, list, object, one_of, text};
use crate::targetref::{self, Rule, ToItem};
use crate::{Meta, TargetRef, Violations};

/// Where requests and connections are logged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshAccessLog {
    /// Which proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Outbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<ToItem<Conf>>>,
    /// Inbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<Rule<Conf>>>,
}

/// Where it is logged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Conf {
    /// All of these; an empty list turns logging off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Backend>>,
}

/// One destination of log entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Which member is set.
    pub r#type: BackendType,
    /// A TCP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// A file of the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File>,
    /// A collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_telemetry: Option<OpenTelemetry>,
}

/// Kinds of [`Backend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named like the members of Backend")]
pub enum BackendType {
    Tcp,
    File,
    OpenTelemetry,
}

/// A TCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tcp {
    /// Form of the entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// `host:port`.
    pub address: String,
}

/// A file of the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Form of the entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Its path.
    pub path: String,
}

/// Form of log entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Format {
    /// Which member is set.
    pub r#type: FormatType,
    /// A line with placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<String>,
    /// Members of a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Vec<KeyValue>>,
    /// Leaves out what is not known.
    #[serde(default = "no", skip_serializing_if = "Option::is_none")]
    pub omit_empty_values: Option<bool>,
}

fn no() -> Option<bool> {
    Some(false)
}

/// Kinds of [`Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named like the members of Format")]
pub enum FormatType {
    Plain,
    Json,
}

/// A key and a value with placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// A collector.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenTelemetry {
    /// Which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<BackendRef>,
    /// Attributes of each entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Vec<KeyValue>>,
    /// Body of each entry, an OTLP `AnyValue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

const CONF: Schema =
    object(&[field("backends", "Where log lines are sent; several are possible.", list(&BACKEND))]);

const FORMAT: Schema = object(&[
    field(
        "json",
        "Members of the JSON object of a line.",
        list(&object(&[
            field("key", "Name of the member.", text()).required(),
            field("value", "Value of the member, with placeholders.", text()).required(),
        ])),
    ),
    field("omitEmptyValues", "Leaves members without a value out.", boolean().default_bool(false)),
    field("plain", "Text of a line, with placeholders.", text()),
    field("type", "Form of a line: the text `plain` or the object `json`.", one_of(&["Plain", "Json"]))
        .required(),
]);

const BACKEND: Schema = object(&[
    field(
        "file",
        "Appends lines to a file beside the proxy.",
        object(&[
            field("format", "What a line looks like.", FORMAT),
            field("path", "Path of the file.", text().min_len(1)).required(),
        ]),
    ),
    field(
        "openTelemetry",
        "Sends log records to an OpenTelemetry collector.",
        object(&[
            field(
                "attributes",
                "Attributes of a record.",
                list(&object(&[
                    field("key", "Name of the attribute.", text().matching(ATTRIBUTE_KEY_PATTERN)).required(),
                    field("value", "Value of the attribute, with placeholders.", text()).required(),
                ])),
            ),
            field("backendRef", "The collector.", OTEL_BACKEND_REF),
            field("body", "Body of a record, with placeholders; any JSON value.", any()),
        ]),
    ),
    field(
        "tcp",
        "Sends lines over a TCP connection.",
        object(&[
            field("address", "Host and port of the receiver.", text().min_len(1)).required(),
            field("format", "What a line looks like.", FORMAT),
        ]),
    ),
    field("type", "Which of the backends is used.", one_of(&["Tcp", "File", "OpenTelemetry"])).required(),
]);

/// What a document must look like.
const SPEC: Schema = object(&[
    field(
        "rules",
        "Incoming requests that are logged.",
        list(&object(&[
            field("default", "What is done with the incoming requests.", CONF).required(),
            field("matches", "Conditions on the client; without any, every client.", MATCHES),
        ])),
    ),
    field("targetRef", "Proxies that the policy configures; without it, all of the mesh.", TARGET_REF),
    field(
        "to",
        "Outgoing requests that are logged.",
        list(&object(&[
            field("default", "What is done with the outgoing requests.", CONF).required(),
            field("targetRef", "Destination of the outgoing requests.", TO_TARGET_REF).required(),
        ])),
    ),
]);

impl Validate for MeshAccessLog {
    const DESCRIPTION: &'static str = "Logs requests and connections of proxies.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        let rules = self.rules.as_deref().unwrap_or_default();
        let to = self.to.as_deref().unwrap_or_default();
        targetref::validate_top(self.target_ref.as_ref(), !rules.is_empty(), violations);
        if !rules.is_empty() && !to.is_empty() {
            violations.add("spec", "'to' must be empty when 'rules' is defined");
        }
        if rules.is_empty() && to.is_empty() {
            violations.add("spec", "at least one of 'to' or 'rules' has to be defined");
        }
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            for (position, condition) in rule.matches.iter().flatten().enumerate() {
                targetref::validate_match(condition, &format!("{path}.matches[{position}]"), violations);
            }
            validate_conf(&rule.default, &format!("{path}.default"), violations);
        }
        for (index, item) in to.iter().enumerate() {
            let path = format!("spec.to[{index}]");
            targetref::validate(&item.target_ref, &format!("{path}.targetRef"), &check::TO_KINDS, violations);
            validate_conf(&item.default, &format!("{path}.default"), violations);
        }
    }
}

fn validate_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    let path = format!("{path}.backends");
    let Some(backends) = &conf.backends else {
        violations.add(path, MUST_BE_DEFINED);
        return;
    };
    for (index, backend) in backends.iter().enumerate() {
        validate_backend(backend, &format!("{path}[{index}]"), violations);
    }
}

fn validate_backend(backend: &Backend, path: &str, violations: &mut Violations) {
    match backend.r#type {
        BackendType::File => match &backend.file {
            None => violations.add(format!("{path}.file"), MUST_BE_DEFINED),
            Some(file) => {
                validate_format(file.format.as_ref(), &format!("{path}.file.format"), violations);
                if !check::is_file_path(&file.path) {
                    violations.add(format!("{path}.file.path"), "file backend requires a valid path");
                }
            }
        },
        BackendType::Tcp => match &backend.tcp {
            None => violations.add(format!("{path}.tcp"), MUST_BE_DEFINED),
            Some(tcp) => {
                validate_format(tcp.format.as_ref(), &format!("{path}.tcp.format"), violations);
                if !is_host_and_port(&tcp.address) {
                    violations.add(format!("{path}.tcp.address"), "tcp backend requires valid address");
                }
            }
        },
        BackendType::OpenTelemetry => match &backend.open_telemetry {
            None => violations.add(format!("{path}.openTelemetry"), MUST_BE_DEFINED),
            Some(collector) => {
                let path = format!("{path}.openTelemetry");
                otel::validate_ref(collector.backend_ref.as_ref(), &path, violations);
                for (index, attribute) in collector.attributes.iter().flatten().enumerate() {
                    if let Some(message) = attribute_key_error(&attribute.key) {
                        violations.add(format!("{path}.attributes[{index}].key"), message);
                    }
                }
            }
        },
    }
}

fn validate_format(format: Option<&Format>, path: &str, violations: &mut Violations) {
    let Some(format) = format else { return };
    match format.r#type {
        FormatType::Plain => match format.plain.as_deref() {
            None => violations.add(format!("{path}.plain"), MUST_BE_DEFINED),
            Some("") => violations.add(format!("{path}.plain"), "must not be empty"),
            Some(_) => {}
        },
        FormatType::Json => match format.json.as_deref() {
            None => violations.add(format!("{path}.json"), MUST_BE_DEFINED),
            Some([]) => violations.add(format!("{path}.json"), "must not be empty"),
            Some(members) => {
                for (index, member) in members.iter().enumerate() {
                    if member.key.is_empty() {
                        violations.add(format!("{path}.json[{index}].key"), "key cannot be empty");
                    }
                    if member.value.is_empty() {
                        violations.add(format!("{path}.json[{index}].value"), "value cannot be empty");
                    }
                    if [&member.key, &member.value].into_iter().any(|text| !fits_into_json(text)) {
                        violations.add(format!("{path}.json[{index}]"), "is not a valid JSON object");
                    }
                }
            }
        },
    }
}

/// Whether a text can stand between quotation marks in JSON as it is.
fn fits_into_json(text: &str) -> bool {
    serde_json::from_str::<String>(&format!("\"{text}\"")).is_ok()
}

fn attribute_key_error(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        Some(MUST_BE_DEFINED)
    } else if key.contains('%') {
        Some("must be a static OpenTelemetry attribute name; placeholders are only supported in values")
    } else if key.starts_with("otel.") {
        Some("must not use the reserved OpenTelemetry prefix 'otel.'")
    } else {
        None
    }
}

/// `host:port`, also with a scheme before it.
fn is_host_and_port(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let Some((host, port)) = rest.rsplit_once(':') else { return false };
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let host_fits = !host.is_empty() && (is_bracketed || !host.contains(':')) && !host.contains([' ', '/']);
    host_fits && port.bytes().all(|c| c.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0)
}
