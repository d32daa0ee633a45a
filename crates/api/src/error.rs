//! Errors: the one place that decides status codes and error documents (rest-api.md §3).

use graticule_model::{Kind, Violation, Violations};
use graticule_store::CommitError;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::respond;
use axum::response::Response;

/// An answer that is no success.
#[derive(Debug)]
pub(crate) enum Error {
    /// A JSON document.
    Document(Box<Document>),
    /// Plain text: the path or the form of the request is wrong.
    Framework {
        /// Status.
        status: StatusCode,
        /// Text.
        text: &'static str,
        /// Value of the header `Allow`.
        allow: Option<&'static str>,
    },
    /// A status and nothing else.
    Empty(StatusCode),
    /// Too many requests at once.
    Busy {
        /// How many are too many.
        limit: usize,
    },
}

/// The parts of an error document that differ.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) status: StatusCode,
    pub(crate) title: String,
    pub(crate) detail: String,
    pub(crate) parameters: Vec<Violation>,
}

pub(crate) mod title {
    pub(crate) const MESH: &str = "Failed to retrieve Mesh";
    pub(crate) const GET: &str = "Could not retrieve a resource";
    pub(crate) const LIST: &str = "Could not retrieve resources";
    pub(crate) const PROCESS: &str = "Could not process a resource";
    pub(crate) const CREATE: &str = "Failed to create a resource";
    pub(crate) const UPDATE: &str = "Could not update a resource";
    pub(crate) const DELETE: &str = "Could not delete a resource";
    pub(crate) const FORMAT: &str = "Could not format a resource";
    pub(crate) const TOKEN: &str = "Could not issue a token";
    pub(crate) const REQUEST: &str = "Invalid request";
    pub(crate) const MESH_CONTEXT: &str = "Failed to build MeshContext";
    pub(crate) const LAYOUT_DATAPLANE: &str = "Failed to retrieve Dataplane";
    pub(crate) const DATAPLANE: &str = "Could not retrieve Dataplane";
    pub(crate) const MATCHED_POLICIES: &str = "Could not get MatchedPolicies";
    pub(crate) const INSIGHT: &str = "Failed to fetch dataplane insight";
    pub(crate) const ADMIN: &str = "Could not execute admin operation";
    pub(crate) const ADMIN_DATAPLANE: &str = "Could not get dataplane resource";
    pub(crate) const POLICY: &str = "Could not retrieve policy";
    pub(crate) const SERVICE: &str = "could not retrieve service";
    pub(crate) const NOT_IMPLEMENTED: &str = "Not implemented";
}

pub(crate) const PAGE_NOT_FOUND: Error =
    Error::Framework { status: StatusCode::NOT_FOUND, text: "404: Page Not Found", allow: None };
/// A path that is not below the base path.
pub(crate) const OUTSIDE_BASE_PATH: Error =
    Error::Framework { status: StatusCode::NOT_FOUND, text: "404 page not found\n", allow: None };
pub(crate) const UNSUPPORTED_MEDIA_TYPE: Error = Error::Framework {
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    text: "415: Unsupported Media Type",
    allow: None,
};
pub(crate) const NOT_ACCEPTABLE: Error = Error::Framework {
    status: StatusCode::NOT_ACCEPTABLE,
    text: "406: Not Acceptable\n\nAvailable representations: application/json",
    allow: None,
};

/// When a client that was refused for lack of capacity should come again, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

impl Error {
    pub(crate) fn new(status: StatusCode, title: impl Into<String>, detail: impl Into<String>) -> Error {
        Error::Document(Box::new(Document {
            status,
            title: title.into(),
            detail: detail.into(),
            parameters: Vec::new(),
        }))
    }

    pub(crate) fn method_not_allowed(allow: &'static str) -> Error {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Error::Framework { status, text: "405: Method Not Allowed", allow: Some(allow) }
    }

    /// `endpoint` is the template of the path.
    pub(crate) fn needs_policy_engine(endpoint: &str) -> Error {
        let detail =
            format!("{endpoint} needs the policy engine, which this control plane does not have yet");
        Error::new(StatusCode::NOT_IMPLEMENTED, title::NOT_IMPLEMENTED, detail)
    }

    pub(crate) fn not_found(title: &str) -> Error {
        Error::new(StatusCode::NOT_FOUND, title, "Not found")
    }

    pub(crate) fn bad_request(text: impl std::fmt::Display) -> Error {
        Error::new(StatusCode::BAD_REQUEST, "Bad Request", format!("bad request: {text}"))
    }

    pub(crate) fn undecodable(kind: Kind, text: impl std::fmt::Display) -> Error {
        // Quoted, so that quotes inside are escaped.
        let detail = format!("invalid {kind} object: {:?}", text.to_string());
        Error::new(StatusCode::BAD_REQUEST, "Bad Request", detail)
    }

    pub(crate) fn invalid(title: &str, violations: Violations) -> Error {
        Error::with_parameters(title, "Resource is not valid", violations)
    }

    pub(crate) fn with_parameters(title: &str, detail: &str, violations: Violations) -> Error {
        Error::Document(Box::new(Document {
            status: StatusCode::BAD_REQUEST,
            title: title.into(),
            detail: detail.into(),
            parameters: violations.0,
        }))
    }

    pub(crate) fn denied(detail: impl Into<String>) -> Error {
        Error::new(StatusCode::FORBIDDEN, "Access Denied", detail)
    }

    pub(crate) fn from_commit(title: &str, error: CommitError) -> Error {
        match error {
            CommitError::NotFound(_) => Error::not_found(title),
            CommitError::Exists(_) | CommitError::Conflict { .. } | CommitError::Moved { .. } => {
                Error::new(StatusCode::CONFLICT, "Conflict", error.to_string())
            }
            CommitError::OwnerMissing { owner, .. } => {
                let mut violations = Violations::default();
                violations.add("mesh", format!("mesh of name {} is not found", owner.name));
                Error::with_parameters(title, "Mesh is not found", violations)
            }
            CommitError::Invalid(_) => Error::bad_request(error),
            CommitError::Unavailable(_) | CommitError::Fenced(_) | CommitError::Uncertain(_) => {
                Error::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable", error.to_string())
            }
        }
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Error::Document(document) => document.status,
            Error::Framework { status, .. } | Error::Empty(status) => *status,
            Error::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What kind of error it is; never holds anything of the request.
    pub(crate) fn title(&self) -> &str {
        match self {
            Error::Document(document) => &document.title,
            Error::Framework { text, .. } => text.lines().next().unwrap_or_default(),
            Error::Empty(_) | Error::Busy { .. } => "",
        }
    }

    pub(crate) fn into_response(self) -> Response {
        match self {
            Error::Document(document) => respond::json(document.status, &document.body()),
            Error::Framework { status, text, allow } => {
                let mut headers = HeaderMap::new();
                if let Some(allow) = allow {
                    headers.insert(header::ALLOW, HeaderValue::from_static(allow));
                }
                respond::text(status, "text/plain; charset=utf-8", headers, text.to_owned())
            }
            Error::Empty(status) => respond::empty(status),
            Error::Busy { limit } => {
                let detail = format!(
                    "{limit} requests are being answered already (apiServer.maxConcurrentRequests): try again"
                );
                let error = Error::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable", detail);
                let mut response = error.into_response();
                let seconds = HeaderValue::from_static(RETRY_AFTER_SECONDS);
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
                response
            }
        }
    }
}

impl Document {
    fn body(&self) -> Value {
        let mut body = json!({
            "type": "/std-errors",
            "status": self.status.as_u16(),
            "title": self.title,
            "detail": self.detail,
            "details": self.detail,
        });
        if !self.parameters.is_empty() {
            let list = |key: &str| {
                let one = |v: &Violation| json!({"field": v.path, key: v.message});
                self.parameters.iter().map(one).collect::<Value>()
            };
            body["invalid_parameters"] = list("reason");
            body["causes"] = list("message");
        }
        body
    }
}
