//! What the Envoy of a proxy says itself: `xds`, `stats`, `clusters` (rest-api.md §8.5).
//!
//! The API decides who may ask, whether the proxy exists and what the parameters mean; an [`EnvoyAdmin`] asks: at a
//! zone the proxy's admin listener, on global the zone.

use async_trait::async_trait;
use axum::response::Response;
use bytes::Bytes;
use graticule_model::{Key, Resource};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::error::{Error, title};
use crate::query::Query;
use crate::{Call, Context, access, respond};

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AdminFormat {
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// What is asked. Replicas pass it on in this form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum AdminQuery {
    /// The configuration dump, JSON.
    ConfigDump {
        /// With endpoints.
        include_eds: bool,
    },
    /// The statistics.
    Stats {
        /// Form.
        format: AdminFormat,
        /// Only what was ever counted.
        used_only: bool,
    },
    /// The clusters.
    Clusters {
        /// Form.
        format: AdminFormat,
    },
}

/// Why an Envoy was not heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unheard {
    /// Nobody asks Envoys here: 501.
    Unsupported,
    /// The zone is not there or says why: 400 with the text.
    Refused(String),
    /// Too many questions wait already: 503 with the text.
    Busy(String),
    /// The Envoy does not answer: 500, the reason only in the log.
    Failed(String),
}

/// Asks Envoys. An implementation limits time and size of answers and leaves out credentials.
#[async_trait]
pub trait EnvoyAdmin: Send + Sync {
    /// The answer of the Envoy of `proxy`, a Dataplane that exists.
    ///
    /// # Errors
    /// It was not heard.
    async fn ask(&self, proxy: &Resource, query: AdminQuery) -> Result<Bytes, Unheard>;
}

/// Asks nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEnvoyAdmin;

#[async_trait]
impl EnvoyAdmin for NoEnvoyAdmin {
    async fn ask(&self, _proxy: &Resource, _query: AdminQuery) -> Result<Bytes, Unheard> {
        Err(Unheard::Unsupported)
    }
}

/// Answers a question about a proxy; `word` is the end of the path.
pub(crate) async fn ask(context: &Context, call: &Call, key: &Key, word: &str) -> Result<Response, Error> {
    let query = AdminQuery::parse(word, &call.query).ok_or_else(|| Error::not_found(title::ADMIN))?;
    let missing = || Error::not_found(title::ADMIN_DATAPLANE);
    let proxy = context.store.snapshot().get(key).ok_or_else(missing)?;
    let may_ask = match query {
        AdminQuery::ConfigDump { .. } => access::config_dump,
        AdminQuery::Stats { .. } => access::stats,
        AdminQuery::Clusters { .. } => access::clusters,
    };
    may_ask(&context.options, &call.user)?;
    let answer = context.admin.ask(&proxy, query).await.map_err(|unheard| refusal(call, unheard))?;
    Ok(respond::bytes(StatusCode::OK, query.media_type(), answer))
}

impl AdminQuery {
    /// `None`: nothing that can be asked. Values that it does not know are as if they were not given.
    fn parse(word: &str, query: &Query) -> Option<AdminQuery> {
        let is = |key, value| query.get(key) == Some(value);
        let format = if is("format", "json") { AdminFormat::Json } else { AdminFormat::Text };
        match word {
            "xds" => Some(AdminQuery::ConfigDump { include_eds: is("include_eds", "true") }),
            "stats" => Some(AdminQuery::Stats { format, used_only: !is("usedonly", "false") }),
            "clusters" => Some(AdminQuery::Clusters { format }),
            _ => None,
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            AdminQuery::ConfigDump { .. } => "application/json",
            AdminQuery::Stats { format, .. } | AdminQuery::Clusters { format } => match format {
                AdminFormat::Json => "application/json",
                AdminFormat::Text => "text/plain",
            },
        }
    }
}

fn refusal(call: &Call, unheard: Unheard) -> Error {
    match unheard {
        Unheard::Unsupported => {
            Error::new(StatusCode::NOT_IMPLEMENTED, title::ADMIN, "this control plane does not ask Envoys")
        }
        Unheard::Refused(text) => Error::new(StatusCode::BAD_REQUEST, title::ADMIN, text),
        Unheard::Busy(text) => Error::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable", text),
        Unheard::Failed(reason) => {
            tracing::warn!(reason, path = call.path, "the Envoy of a proxy does not answer");
            Error::new(StatusCode::INTERNAL_SERVER_ERROR, title::ADMIN, "Internal Server Error")
        }
    }
}
