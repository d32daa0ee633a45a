//! `GET /meshes/{mesh}/dataplanes/{name}/_config`: what a proxy is sent (rest-api.md §8.4).

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use graticule_view::ProxyId;
use serde_json::json;

use crate::engine::EngineHandle;

/// Routes beside those of the REST API.
pub fn routes(engine: EngineHandle) -> Router {
    Router::new().route("/meshes/{mesh}/dataplanes/{name}/_config", get(config)).with_state(engine)
}

async fn config(State(engine): State<EngineHandle>, Path((mesh, name)): Path<(String, String)>) -> Response {
    match engine.inspect(ProxyId::new(mesh, name)).await {
        Some(xds) => Json(json!({ "xds": xds })).into_response(),
        None => {
            let body = json!({
                "type": "/std-errors",
                "status": 404,
                "title": "Failed to fetch dataplane insight",
                "detail": "Not found: the proxy is not connected to this control plane",
                "details": "Not found: the proxy is not connected to this control plane",
            });
            (StatusCode::NOT_FOUND, Json(body)).into_response()
        }
    }
}
