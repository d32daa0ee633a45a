//! The REST API of both control planes: resources, errors, authentication, tokens.
//!
//! Input: HTTP requests whose extensions carry the connection's [`Peer`]; output: transactions on a
//! [`Store`] and answers. Routes come from the kind registry, so a new kind needs no change here. Contract:
//! rest-api.md §2–§7, resources.md §2–§5, tokens-and-access.md §4–§6.
//!
//! Invariants: who calls is decided before the path and the body are looked at; every body has a size limit;
//! every write leaves one line in the log target `audit`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use graticule_model::labels::Site;
use graticule_model::{Mode, Violations};
use graticule_runtime::{Clock, Peer, Random};
use graticule_store::Store;
use http::request::Parts;
use http::{Method, Request, StatusCode, header};
use serde_json::Value;

mod access;
pub mod auth;
mod body;
mod error;
mod keys;
pub mod options;
mod query;
mod read;
mod respond;
mod route;
pub mod setup;
mod system;
mod tokens;
mod write;

pub use auth::User;
pub use keys::{TokenKeys, read_secret};
pub use options::{Access, ApiServer, Options, Rules};
pub use setup::MeshSetup;

use crate::error::{Error, PAGE_NOT_FOUND};
use crate::query::Query;
use crate::respond::Format;
use crate::route::{Form, Route, Target};

/// What the API works on.
#[derive(Clone)]
pub struct Deps {
    /// Resources that people and zones decide.
    pub store: Arc<dyn Store>,
    /// Observations: kinds that are `soft`.
    pub soft: Arc<dyn Store>,
    /// Role of this control plane.
    pub mode: Mode,
    /// Own zone name; empty on global.
    pub zone: String,
    /// Time.
    pub clock: Clock,
    /// Token ids.
    pub random: Random,
    /// What the index says.
    pub instance: Instance,
    /// What `GET /config` says; secrets masked by the caller.
    pub config: Value,
    /// What comes with a new Mesh.
    pub mesh_setup: MeshSetup,
}

/// What the index says about this process (rest-api.md §6.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance {
    /// Host name.
    pub hostname: String,
    /// Unique per process.
    pub id: String,
    /// Product name.
    pub product: String,
    /// Version that kumactl compares with its own.
    pub version: String,
    /// Version of Kuma that this is based on; empty: left out.
    pub based_on_kuma: String,
    /// Where the GUI is; empty: there is none.
    pub gui: String,
}

/// The API.
#[derive(Debug, Clone, Copy)]
pub struct Api;

impl Api {
    /// The API as a router without routes of its own: everything goes through its fallback, so further routes
    /// can be added beside it.
    #[expect(clippy::new_ret_no_self, reason = "the router is the API; there is nothing else to hold")]
    pub fn new(options: Options, deps: Deps) -> Router {
        let context = Arc::new(Context::new(options, deps));
        Router::new().fallback(handle).with_state(context)
    }
}

/// Everything that handlers share.
pub(crate) struct Context {
    options: Options,
    token_keys: TokenKeys,
    store: Arc<dyn Store>,
    soft: Arc<dyn Store>,
    mode: Mode,
    zone: String,
    clock: Clock,
    random: Random,
    instance: Instance,
    config: Value,
    mesh_setup: MeshSetup,
}

impl Context {
    fn new(options: Options, deps: Deps) -> Context {
        let Deps { store, soft, mode, zone, clock, random, instance, config, mesh_setup } = deps;
        let token_keys = TokenKeys::with_configured(
            store.clone(),
            options.user_token_keys.clone(),
            options.server.authn.tokens.validator.use_secrets,
        );
        Context { options, token_keys, store, soft, mode, zone, clock, random, instance, config, mesh_setup }
    }

    fn site(&self) -> Site<'_> {
        Site { mode: self.mode, zone: &self.zone }
    }
}

/// One request, as far as it is decided before the body is read.
pub(crate) struct Call {
    user: User,
    /// Format of the answer.
    format: Format,
    /// Format of the body, for methods that have one.
    body_format: Format,
    query: Query,
    /// The path without query, as sent.
    path: String,
    template: String,
    host: String,
    peer: Option<Peer>,
}

async fn handle(State(context): State<Arc<Context>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    match dispatch(&context, &parts, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn dispatch(context: &Context, parts: &Parts, body: Body) -> Result<Response, Error> {
    let user = auth::authenticate(context, parts)?;
    let Route { target, template } = find(&context.options.server.base_path, parts.uri.path())?;
    let allow = target.allow();
    if !allow.split(", ").any(|method| method == parts.method.as_str()) {
        return Err(Error::method_not_allowed(allow));
    }
    let body_format = if parts.method == Method::PUT || parts.method == Method::POST {
        let media_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        media_type.and_then(Format::of_media_type).ok_or(error::UNSUPPORTED_MEDIA_TYPE)?
    } else {
        Format::Json
    };
    let format = Format::accepted(&parts.headers).ok_or(error::NOT_ACCEPTABLE)?;
    let call = Call {
        user,
        format,
        body_format,
        query: Query::parse(parts.uri.query()),
        path: parts.uri.path().to_owned(),
        template,
        host: auth::host(parts).to_owned(),
        peer: parts.extensions.get::<Peer>().cloned(),
    };
    perform(context, &call, &parts.method, target, body).await
}

/// `/tokens/user` is at the root whatever the base path is (rest-api.md §7).
fn find(base_path: &str, path: &str) -> Result<Route, Error> {
    let base = base_path.trim_matches('/');
    let inner = if base.is_empty() || path.trim_end_matches('/') == "/tokens/user" {
        path
    } else {
        let below = path.strip_prefix('/').and_then(|path| path.strip_prefix(base));
        match below {
            Some("") => "/",
            Some(below) if below.starts_with('/') => below,
            _ => return Err(PAGE_NOT_FOUND),
        }
    };
    route::resolve(inner).ok_or(PAGE_NOT_FOUND)
}

async fn perform(
    context: &Context,
    call: &Call,
    method: &Method,
    target: Target,
    body: Body,
) -> Result<Response, Error> {
    let answer = match target {
        Target::Index => system::index(context),
        Target::WhoAmI => system::who_am_i(&call.user),
        Target::Config => system::config(context, &call.user)?,
        Target::Resources => system::resources(context),
        Target::Policies => system::policies(context),
        Target::GlobalInsight => system::global_insight(context),
        Target::GlobalInsights => system::global_insights(context),
        Target::ServiceInsights { mesh } => read::service_insights(context, mesh.as_deref())?,
        Target::ServiceInsight { .. } if *method != Method::GET => {
            return Err(access::derived("ServiceInsight"));
        }
        Target::ServiceInsight { mesh } => {
            read::require_mesh(context, Some(&mesh))?;
            return Err(Error::not_found(error::title::GET));
        }
        Target::Kri(kri) => read::by_kri(context, call, &kri)?,
        Target::Tokens(kind) => return tokens::issue(context, call, kind, body).await,
        Target::List { kind, mesh, form } => read::list(context, call, kind, mesh.as_deref(), form)?,
        Target::One { kind, mesh, name, form } => match *method {
            Method::PUT => return write::put(context, call, kind, mesh.as_deref(), &name, body).await,
            Method::DELETE => return write::delete(context, call, kind, mesh.as_deref(), &name).await,
            _ if form == Form::Overview => read::overview(context, call, kind, mesh.as_deref(), &name)?,
            _ => read::one(context, call, kind, mesh.as_deref(), &name)?,
        },
    };
    Ok(respond::value(StatusCode::OK, call.format, &answer))
}

/// One violation as an error document.
pub(crate) fn violation(title: &str, path: &str, message: impl Into<String>) -> Error {
    let mut violations = Violations::default();
    violations.add(path, message);
    Error::invalid(title, violations)
}

#[cfg(test)]
mod tests;
