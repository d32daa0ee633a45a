//! `/zones/{name}/_status` and what is decided there: the connection between a zone and global (ours; the reference has
//! neither).

use std::sync::Arc;

use axum::response::Response;
use graticule_model::{Key, Kind};
use http::StatusCode;
use serde_json::{Value, json};

use crate::error::{Error, title};
use crate::{Call, Context, access, respond};

/// What the connections of federation tell.
pub trait Federation: Send + Sync {
    /// The connection between global and this zone, as the schema `ZoneStatus` says; `None`: there is none here.
    fn status(&self, zone: &str) -> Option<Value>;

    /// An operator gives up the copies that are kept although the other side no longer has them. Tells how many that
    /// concerns; `None`: another replica is connected to that zone.
    fn accept_deletions(&self, zone: &str) -> Option<usize>;
}

/// A zone that stands alone.
pub struct NoFederation;

impl NoFederation {
    /// As an argument of the API.
    pub fn shared() -> Arc<dyn Federation> {
        Arc::new(NoFederation)
    }
}

impl Federation for NoFederation {
    fn status(&self, _zone: &str) -> Option<Value> {
        None
    }

    fn accept_deletions(&self, _zone: &str) -> Option<usize> {
        None
    }
}

fn known(context: &Context, zone: &str) -> Result<(), Error> {
    if context.store.snapshot().get(&Key::new(Kind::Zone, "", zone)).is_some() {
        return Ok(());
    }
    Err(Error::new(StatusCode::NOT_FOUND, title::GET, format!("there is no zone {zone:?}")))
}

/// How the connection is; for everybody who may read zones.
pub(crate) fn status(context: &Context, call: &Call, zone: &str) -> Result<Value, Error> {
    access::resources(&context.options, &call.user, Kind::Zone)?;
    known(context, zone)?;
    context.federation.status(zone).ok_or_else(|| {
        let detail = "this zone stands alone: it is connected to no global (multizone.zone.globalAddress)";
        Error::new(StatusCode::NOT_FOUND, title::GET, detail)
    })
}

/// Gives up what is held back; administrators only.
pub(crate) fn accept_deletions(context: &Context, call: &Call, zone: &str) -> Result<Response, Error> {
    access::federation(&context.options, &call.user)?;
    known(context, zone)?;
    match context.federation.accept_deletions(zone) {
        Some(given_up) => Ok(respond::value(StatusCode::OK, call.format, &json!({"givenUp": given_up}))),
        None => {
            let detail = "no connection of this zone is here: ask the replica that has it (see instances of its status)";
            Err(Error::new(StatusCode::CONFLICT, TITLE, detail))
        }
    }
}

const TITLE: &str = "Could not accept deletions";
