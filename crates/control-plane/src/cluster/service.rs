//! The members' listener: connections for the store, and calls about the cluster.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{StreamExt as _, stream};
use graticule_api::cluster::Member;
use graticule_runtime::listen::{Incoming, incoming_from};
use graticule_runtime::{Connection, Drain, HttpLimits, serve_http};
use http::StatusCode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Local;
use super::calls::{self, BODY_LEN_MAX, Join, Refusal, State};
use super::exchange::{HEARTBEAT, NoAnswer, Question};
use super::tls::{CALLS, STORE};

/// Connections that wait to be served.
const QUEUE_LEN: usize = 64;

/// Serves members until the store is closed.
pub(super) async fn serve(local: Arc<Local>, mut incoming: Incoming) {
    let (for_store, store) = mpsc::channel::<Connection>(QUEUE_LEN);
    let (for_calls, calls) = mpsc::channel::<Connection>(QUEUE_LEN);
    let split = async {
        while let Some(next) = incoming.next().await {
            let Ok(connection) = next else { continue };
            let queue = match connection.protocol() {
                Some(STORE) => &for_store,
                Some(CALLS) => &for_calls,
                // A member that speaks neither is of another version.
                _ => continue,
            };
            if queue.send(connection).await.is_err() {
                return;
            }
        }
    };
    let store = local.store.serve(incoming_from(ReceiverStream::new(store)), Drain::never());
    let calls = serve_http(
        router(local.clone()),
        incoming_from(ReceiverStream::new(calls)),
        HttpLimits::default(),
        Drain::never(),
    );
    tokio::select! {
        () = split => {}
        () = store => {}
        () = calls => {}
    }
}

fn router(local: Arc<Local>) -> Router {
    Router::new()
        .route(calls::STATE, get(state))
        .route(calls::MEMBERS, get(members))
        .route(calls::JOIN, post(join))
        .route(calls::STATUS, get(status))
        .route(calls::ASK, post(ask))
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .with_state(local)
}

async fn state(Shared(local): Shared<Arc<Local>>) -> Json<State> {
    Json(local.state().await)
}

async fn members(Shared(local): Shared<Arc<Local>>) -> Json<Vec<Member>> {
    Json(local.members())
}

async fn join(Shared(local): Shared<Arc<Local>>, Json(join): Json<Join>) -> Response {
    match local.admit(&join).await {
        Ok(()) => Json(()).into_response(),
        Err(error) => {
            let refusal = Refusal { reason: error.to_string() };
            (StatusCode::SERVICE_UNAVAILABLE, Json(refusal)).into_response()
        }
    }
}

/// What this member observes, for ever.
async fn status(Shared(local): Shared<Arc<Local>>) -> Response {
    let frames = local.replicas.status().frames();
    let told = stream::unfold((local, frames), |(local, mut frames)| async move {
        let frame = tokio::select! {
            biased;
            frame = frames.next() => frame?,
            () = local.clock.sleep(HEARTBEAT) => local.replicas.status().heartbeat(),
        };
        Some((Ok::<_, Infallible>(frame), (local, frames)))
    });
    Body::from_stream(told).into_response()
}

async fn ask(Shared(local): Shared<Arc<Local>>, Json(question): Json<Question>) -> Response {
    let error = match local.replicas.answer(question).await {
        Ok(answer) => return answer.into_response(),
        Err(error) => error,
    };
    let status = match error {
        NoAnswer::NotFound => StatusCode::NOT_FOUND,
        NoAnswer::Unsupported => StatusCode::NOT_IMPLEMENTED,
        NoAnswer::Refused(_) => StatusCode::BAD_REQUEST,
        NoAnswer::Busy(_) | NoAnswer::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
        NoAnswer::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(error)).into_response()
}
