//! `/_cluster`: the replicas of this control plane (ours; the reference has none).

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use graticule_model::Violations;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, title};
use crate::route::ClusterPart;
use crate::{Call, Context, access, body, read, respond};

/// A cluster as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Identity of the cluster; empty until it is formed.
    pub cluster: String,
    /// Id of the member that answers.
    pub member: String,
    /// Term of the leader; grows with each election.
    pub term: u64,
    /// Revision that the member has.
    pub revision: u64,
    /// What the member's store can do: `ready`, or the reason why not.
    pub health: String,
    /// All members.
    pub members: Vec<Member>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its number, in hexadecimal.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Where other members reach it; empty when it stands alone.
    pub address: String,
    /// `leader`, `follower` or `learner`.
    pub role: String,
    /// Whether it votes.
    pub votes: bool,
    /// Entries that it is behind the leader; absent when nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// `ready`, or the reason why not.
    pub health: String,
}

/// What may be done with the members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Adds the member that waits at this address.
    Add {
        /// `host:port`.
        address: String,
    },
    /// Removes a member: its id, address or name.
    Remove {
        /// The member.
        member: String,
    },
    /// Hands leadership over.
    Transfer {
        /// To this member; without it, to any that votes and has caught up.
        member: Option<String>,
    },
    /// Makes the member that is asked a cluster of its own, with what it has.
    Recover,
}

/// Why nothing was changed, or nobody can tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The store has no members that could be changed here.
    #[error("{0}")]
    None(String),
    /// There is no such member.
    #[error("there is no member {0}")]
    NoMember(String),
    /// It cannot be done as things are.
    #[error("{0}")]
    Refused(String),
    /// It may work later.
    #[error("{0}")]
    Unavailable(String),
}

/// The members of this control plane's store.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// How the members are.
    ///
    /// # Errors
    /// There are none.
    async fn status(&self) -> Result<Status, ClusterError>;

    /// Changes the members; done, and known to a majority, when it returns.
    ///
    /// # Errors
    /// See [`ClusterError`].
    async fn change(&self, change: Change) -> Result<(), ClusterError>;
}

/// A store without members: one process, or a database of its own.
pub struct NoCluster;

impl NoCluster {
    /// As an argument of the API.
    pub fn shared() -> Arc<dyn Cluster> {
        Arc::new(NoCluster)
    }

    fn none<T>() -> Result<T, ClusterError> {
        Err(ClusterError::None("the store of this control plane has no members: see store.type".into()))
    }
}

#[async_trait]
impl Cluster for NoCluster {
    async fn status(&self) -> Result<Status, ClusterError> {
        NoCluster::none()
    }

    async fn change(&self, _change: Change) -> Result<(), ClusterError> {
        NoCluster::none()
    }
}

const TITLE: &str = "Could not change the cluster";

fn refused(error: ClusterError) -> Error {
    let status = match error {
        ClusterError::None(_) => StatusCode::NOT_IMPLEMENTED,
        ClusterError::NoMember(_) => StatusCode::NOT_FOUND,
        ClusterError::Refused(_) => StatusCode::CONFLICT,
        ClusterError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Error::new(status, TITLE, error.to_string())
}

/// Answers for `/_cluster` and what is below it; administrators only.
pub(crate) async fn answer(
    context: &Context,
    call: &Call,
    method: &Method,
    part: ClusterPart,
    body: Body,
) -> Result<Response, Error> {
    access::cluster(&context.options, &call.user)?;
    let change = match part {
        ClusterPart::Status => {
            let status = context.cluster.status().await.map_err(refused)?;
            let status = serde_json::to_value(status).unwrap_or_default();
            return Ok(respond::value(StatusCode::OK, call.format, &status));
        }
        ClusterPart::Member(member) if *method == Method::DELETE => Change::Remove { member },
        // Nothing else is allowed at a member.
        ClusterPart::Member(member) => return Err(refused(ClusterError::NoMember(member))),
        ClusterPart::Members => Change::Add { address: required(context, call, body, "address").await? },
        ClusterPart::Transfer => Change::Transfer { member: text(context, call, body, "member").await? },
        ClusterPart::Recover => {
            let confirmed = text(context, call, body, "confirm").await?;
            if confirmed.as_deref() != Some(CONFIRMATION) {
                return Err(wrong("confirm", &format!("must be {CONFIRMATION:?}")));
            }
            Change::Recover
        }
    };
    context.cluster.change(change).await.map_err(refused)?;
    Ok(respond::value(StatusCode::OK, call.format, &json!({})))
}

/// What a request to recover must say, so that nobody does it by accident.
const CONFIRMATION: &str = "the other members are lost";

pub(crate) fn wrong(field: &str, reason: &str) -> Error {
    let mut violations = Violations::default();
    violations.add(field, reason);
    Error::invalid(title::REQUEST, violations)
}

/// A text that must be in the body, an object with nothing else.
async fn required(context: &Context, call: &Call, body: Body, field: &str) -> Result<String, Error> {
    let text = text(context, call, body, field).await?.unwrap_or_default();
    let mut violations = Violations::default();
    if text.is_empty() {
        violations.add(field, "cannot be empty");
    }
    read::check(title::REQUEST, violations)?;
    Ok(text)
}

/// A text in the body, an object.
async fn text(context: &Context, call: &Call, body: Body, field: &str) -> Result<Option<String>, Error> {
    let [text] = texts(context, call, body, [field]).await?;
    Ok(text)
}

/// Texts in the body, an object with nothing else.
pub(crate) async fn texts<const N: usize>(
    context: &Context,
    call: &Call,
    body: Body,
    fields: [&str; N],
) -> Result<[Option<String>; N], Error> {
    let bytes = body::read(context, body).await?;
    let document = body::parse(call.body_format, &bytes).map_err(Error::bad_request)?;
    let Value::Object(mut members) = document else { return Err(wrong("", "must be an object")) };
    if let Some(unknown) = members.keys().find(|key| !fields.contains(&key.as_str())) {
        return Err(wrong(unknown, "is not known"));
    }
    let mut texts = [const { None }; N];
    for (text, field) in texts.iter_mut().zip(fields) {
        *text = match members.remove(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err(wrong(field, "must be a text")),
        };
    }
    Ok(texts)
}
