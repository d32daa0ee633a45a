//! `POST /proxies/{mesh}/{name}/drain`: an agent says that its proxy is about to stop, before it stops it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use graticule_policy::ProxyId;

use super::server::{Credential, Shared};

/// 204 when nobody is sent new requests any more; 401 and 404 as they say.
pub(super) async fn serve(
    State(shared): State<Arc<Shared>>,
    Path((mesh, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let id = ProxyId { mesh, name };
    let credential = Credential::of(&headers);
    let credential = match credential.single() {
        Ok(credential) => credential,
        Err(reason) => return (StatusCode::UNAUTHORIZED, reason).into_response(),
    };
    let Some(stored) = shared.deps.proxies.stored_dataplane(&id).await else {
        return (StatusCode::NOT_FOUND, format!("Dataplane {:?} not found", id.to_string())).into_response();
    };
    if let Err(error) = shared.deps.authenticator.authenticate(credential, &stored).await {
        return (StatusCode::UNAUTHORIZED, format!("authentication failed: {error}")).into_response();
    }
    match shared.deps.proxies.drain(&id).await {
        Ok(()) => {
            tracing::info!(mesh = id.mesh, proxy = id.name, "proxy drains");
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}
