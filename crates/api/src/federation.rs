//! `/zones/{name}/_status` and what is decided there: the connection between a zone and global (ours; the reference has
//! neither).

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use graticule_model::kinds::config::{CLUSTER_ID, Config};
use graticule_model::{Key, Kind, Meta, Resource, Violations};
use graticule_store::{CommitError, Expect, Txn};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::audit::Done;
use crate::error::{Error, title};
use crate::{Call, Context, access, cluster, read, respond, system};

/// Why a zone does not leave its global.
#[derive(Debug)]
pub enum LeaveError {
    /// It has none, or this is no zone.
    NoGlobal,
    /// Not here, or not now; the text says what to do.
    Refused(String),
    /// The store cannot write.
    Store(CommitError),
}

/// What the connections of federation tell.
#[async_trait]
pub trait Federation: Send + Sync {
    /// The connection between global and this zone, as the schema `ZoneStatus` says; `None`: there is none.
    async fn status(&self, zone: &str) -> Option<Value>;

    /// An operator gives up the copies that are kept although the other side no longer has them. Tells how many that
    /// concerns.
    ///
    /// # Errors
    /// No replica that can be reached is connected to that zone; the text says more.
    async fn accept_deletions(&self, zone: &str) -> Result<usize, String>;

    /// What becomes of the copies of this zone when it leaves its global (an array; the schema is in the OpenAPI document);
    /// unless it is a `preview`, it leaves.
    ///
    /// # Errors
    /// [`LeaveError`].
    async fn leave(&self, zone: &str, preview: bool) -> Result<Value, LeaveError> {
        let _ = (zone, preview);
        Err(LeaveError::NoGlobal)
    }

    /// An operator prepares a zone that has left its global to join one again: it connects when it is started with one. Tells
    /// whether it had left one.
    ///
    /// # Errors
    /// [`LeaveError`].
    async fn may_join(&self) -> Result<bool, LeaveError> {
        Err(LeaveError::NoGlobal)
    }
}

/// A zone that stands alone.
pub struct NoFederation;

impl NoFederation {
    /// As an argument of the API.
    pub fn shared() -> Arc<dyn Federation> {
        Arc::new(NoFederation)
    }
}

#[async_trait]
impl Federation for NoFederation {
    async fn status(&self, _zone: &str) -> Option<Value> {
        None
    }

    async fn accept_deletions(&self, _zone: &str) -> Result<usize, String> {
        Err("there is no federation here".into())
    }
}

fn known(context: &Context, zone: &str) -> Result<(), Error> {
    if context.store.snapshot().get(&Key::new(Kind::Zone, "", zone)).is_some() {
        return Ok(());
    }
    Err(Error::new(
        StatusCode::NOT_FOUND,
        title::GET,
        format!(
            "there is no zone {zone:?}: `grat get zones` lists those there are; global knows a zone once it has connected"
        ),
    ))
}

/// How the connection is; for everybody who may read zones.
pub(crate) async fn status(context: &Context, call: &Call, zone: &str) -> Result<Value, Error> {
    access::resources(&context.options, &call.user, Kind::Zone)?;
    known(context, zone)?;
    context.federation.status(zone).await.ok_or_else(|| {
        let detail = "this zone stands alone: it is connected to no global (multizone.zone.globalAddress)";
        Error::new(StatusCode::NOT_FOUND, title::GET, detail)
    })
}

/// Gives up what is held back; administrators only.
pub(crate) async fn accept_deletions(context: &Context, call: &Call, zone: &str) -> Result<Response, Error> {
    access::federation(&context.options, &call.user)?;
    known(context, zone)?;
    match context.federation.accept_deletions(zone).await {
        Ok(given_up) => Ok(respond::value(StatusCode::OK, call.format, &json!({"givenUp": given_up}))),
        Err(detail) => Err(Error::new(StatusCode::CONFLICT, TITLE, detail)),
    }
}

/// A zone leaves its global, asks what becomes of it then, or may join one again; administrators only.
pub(crate) async fn leave(
    context: &Context,
    call: &Call,
    method: &Method,
    zone: &str,
) -> Result<Response, Error> {
    access::federation(&context.options, &call.user)?;
    let preview = *method == Method::GET;
    if !preview && context.options.server.read_only {
        return Err(access::serves_read_only());
    }
    let outcome = if *method == Method::DELETE {
        // A zone that stands alone may join under any name.
        context.federation.may_join().await.map(|had_left| json!({"hadLeft": had_left}))
    } else {
        known(context, zone)?;
        context.federation.leave(zone, preview).await.map(|copies| json!({"copies": copies}))
    };
    let refused = |detail: String| Error::new(StatusCode::CONFLICT, LEAVE_TITLE, detail);
    match outcome {
        Ok(answer) => Ok(respond::value(StatusCode::OK, call.format, &answer)),
        Err(LeaveError::NoGlobal) if context.mode.is_global() => {
            Err(refused("this is global: ask the control plane of the zone".into()))
        }
        Err(LeaveError::NoGlobal) => {
            Err(refused("the zone stands alone: it has no global (multizone.zone.globalAddress)".into()))
        }
        Err(LeaveError::Refused(detail)) => Err(refused(detail)),
        Err(LeaveError::Store(error)) => Err(Error::from_commit(LEAVE_TITLE, error)),
    }
}

/// Bytes of the id of a federation.
const ID_LEN_MAX: usize = 64;

/// Gives global the id of the federation that its zones belong to, in place of the one that the caller saw; administrators of
/// global only.
pub(crate) async fn set_id(context: &Context, call: &Call, body: Body) -> Result<Response, Error> {
    access::federation(&context.options, &call.user)?;
    if context.options.server.read_only {
        return Err(access::serves_read_only());
    }
    let [id, expected] = cluster::texts(context, call, body, ["clusterId", "expected"]).await?;
    let mut violations = Violations::default();
    let id = id.unwrap_or_default();
    if id.is_empty() {
        violations.add("clusterId", "cannot be empty");
    } else if id.len() > ID_LEN_MAX || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        violations.add("clusterId", format!("must be at most {ID_LEN_MAX} letters, digits and dashes"));
    }
    let Some(expected) = expected else {
        violations.add("expected", "must be the id that global has now (`clusterId` at `/`; empty: none)");
        return Err(Error::invalid(title::REQUEST, violations));
    };
    read::check(title::REQUEST, violations)?;
    let conflict = |detail: String| Error::new(StatusCode::CONFLICT, title::UPDATE, detail);
    if !context.mode.is_global() {
        return Err(conflict("a zone has the id of its federation: set it at global".into()));
    }
    let snapshot = context.store.snapshot();
    let now = system::cluster_id(&snapshot);
    if now != expected {
        return Err(conflict(format!(
            "global has the id {now:?}, not {expected:?}: look again before you replace it"
        )));
    }
    let config = Resource::new(Meta::new("", CLUSTER_ID), Config { config: id.clone() });
    let key = config.key();
    let stored = snapshot.get(&key);
    let expect = stored.map_or(Expect::Absent, |stored| Expect::Version(stored.meta.version));
    let txn = Txn { at: Some(context.clock.now()), ..Txn::default().and_put(config, expect) };
    let committed =
        context.store.commit(txn).await.map_err(|error| Error::from_commit(title::UPDATE, error))?;
    let done = Done::Adopted { from: now, to: id, revision: committed.revision.0 };
    Ok(done.beside(respond::value(StatusCode::OK, call.format, &json!({}))))
}

const LEAVE_TITLE: &str = "Could not leave global";
const TITLE: &str = "Could not accept deletions";
