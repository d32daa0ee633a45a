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
use graticule_model::{Key, Kind, Mode, Violations};
use graticule_runtime::{Clock, Peer, Random};
use graticule_store::Store;
use http::request::Parts;
use http::{Method, Request, StatusCode, header};
use serde_json::Value;
use tokio::sync::Semaphore;

mod access;
mod audit;
pub mod auth;
pub mod backup;
mod body;
pub mod cluster;
mod cors;
pub mod envoy_admin;
mod error;
pub mod federation;
mod gui;
mod hostnames;
mod insights;
mod inspect;
pub mod inspector;
mod keys;
mod layout;
pub mod openapi;
pub mod options;
mod query;
mod read;
mod respond;
mod route;
mod service_insights;
pub mod setup;
mod system;
mod tokens;
mod write;

pub use auth::User;
pub use backup::Backups;
pub use cluster::{Cluster, NoCluster};
pub use envoy_admin::{EnvoyAdmin, NoEnvoyAdmin};
pub use federation::{Federation, LeaveError, NoFederation};
pub use inspector::{Inspector, NoInspector};
pub use keys::{TokenKeys, read_secret};
pub use options::{Access, ApiServer, Options, PublicKey, Rules};
pub use setup::MeshSetup;

use crate::error::{Error, OUTSIDE_BASE_PATH, PAGE_NOT_FOUND};
use crate::query::Query;
use crate::respond::Format;
use crate::route::{Form, ProxyView, Route, Target};

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
    /// Answers that need the policies of a proxy.
    pub inspector: Arc<dyn Inspector>,
    /// Asks the Envoys of proxies.
    pub admin: Arc<dyn EnvoyAdmin>,
    /// For backups of the store.
    pub backups: Backups,
    /// The replicas of this control plane.
    pub cluster: Arc<dyn Cluster>,
    /// The connections between global and zones.
    pub federation: Arc<dyn Federation>,
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
    aggregates: insights::Aggregates,
    mode: Mode,
    zone: String,
    clock: Clock,
    random: Random,
    instance: Instance,
    config: Value,
    mesh_setup: MeshSetup,
    inspector: Arc<dyn Inspector>,
    admin: Arc<dyn EnvoyAdmin>,
    backups: Backups,
    backup_limits: backup::Limits,
    cluster: Arc<dyn Cluster>,
    federation: Arc<dyn Federation>,
    /// One permit per request that is being answered.
    requests: Semaphore,
}

impl Context {
    fn new(options: Options, deps: Deps) -> Context {
        let Deps { store, soft, mode, zone, clock, random, instance, config, .. } = deps;
        let (mesh_setup, inspector, admin) = (deps.mesh_setup, deps.inspector, deps.admin);
        let (backups, cluster, federation) = (deps.backups, deps.cluster, deps.federation);
        let token_keys = TokenKeys::with_configured(
            store.clone(),
            options.user_token_keys.clone(),
            options.server.authn.tokens.validator.use_secrets,
        );
        let requests =
            Semaphore::new(options.server.max_concurrent_requests.clamp(1, Semaphore::MAX_PERMITS));
        Context {
            aggregates: insights::Aggregates::new(store.clone(), soft.clone()),
            options,
            token_keys,
            store,
            soft,
            mode,
            zone,
            clock,
            random,
            instance,
            config,
            mesh_setup,
            inspector,
            admin,
            backups,
            backup_limits: backup::Limits::new(),
            cluster,
            federation,
            requests,
        }
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
    // Refused at once: a queue would only make every answer late.
    let Ok(_permit) = context.requests.try_acquire() else {
        return Error::Busy { limit: context.options.server.max_concurrent_requests }.into_response();
    };
    let (parts, body) = request.into_parts();
    let origin = cors::allowed_origin(&context.options.server.cors_allowed_domains, &parts.headers);
    let is_preflight = origin.is_some() && cors::is_preflight(&parts);
    let user = auth::authenticate(&context, &parts);
    let route = find(&context.options.server.base_path, parts.uri.path());
    let target = route.as_ref().ok().map(|route| &route.target);
    let audit = audit::Entry::of(&parts, user.as_ref().ok(), target);
    let answer = match user {
        Ok(_) if is_preflight => route.map(|route| cors::preflight(&parts, route.target.allow())),
        Ok(user) => dispatch(&context, &parts, user, route, body).await,
        Err(error) => Err(error),
    };
    if let Some(audit) = audit {
        audit.write(&answer);
    }
    let mut response = answer.unwrap_or_else(Error::into_response);
    if let Some(origin) = origin {
        cors::mark(&mut response, origin);
    }
    response
}

async fn dispatch(
    context: &Context,
    parts: &Parts,
    user: User,
    route: Result<Route, Error>,
    body: Body,
) -> Result<Response, Error> {
    let Route { target, template } = route?;
    let allow = target.allow();
    if !allow.split(", ").any(|method| method == parts.method.as_str()) {
        return Err(Error::method_not_allowed(allow));
    }
    // Browsers ask for pages with an `Accept` of their own.
    match target {
        Target::GuiRoot => return Ok(gui::root()),
        Target::Gui => return Ok(gui::page()),
        // Files, whatever media types a client names.
        Target::Backup => return backup::save(context, &user, parts),
        Target::Restore => return Box::pin(backup::restore(context, &user, parts, body)).await,
        _ => {}
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
    if parts.method == Method::GET && call.query.get("consistent") == Some("true") {
        // The replica that is asked may be behind the others otherwise.
        let reached = context.store.read_barrier().await;
        reached.map_err(|error| Error::from_commit(error::title::GET, error))?;
    }
    perform(context, &call, &parts.method, target, body).await
}

/// The route of a path. Below a base path is everything but `/gui` and `/tokens/user`, which stay at the root
/// (rest-api.md §1.1, §7).
fn find(base_path: &str, path: &str) -> Result<Route, Error> {
    let base = base_path.trim_matches('/');
    if base.is_empty() {
        return route::resolve(path).ok_or(PAGE_NOT_FOUND);
    }
    let is_at_root = |target: &Target| {
        matches!(target, Target::GuiRoot | Target::Gui | Target::Tokens(route::Tokens::User))
    };
    let below = path.strip_prefix('/').and_then(|path| path.strip_prefix(base));
    match below {
        Some("") => route::resolve("/").ok_or(PAGE_NOT_FOUND),
        Some(below) if below.starts_with('/') => {
            route::resolve(below).filter(|route| !is_at_root(&route.target)).ok_or(PAGE_NOT_FOUND)
        }
        _ => route::resolve(path).filter(|route| is_at_root(&route.target)).ok_or(OUTSIDE_BASE_PATH),
    }
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
        Target::GlobalInsight => insights::global_insight(context).await,
        Target::GlobalInsights => insights::global_insights(context),
        Target::ServiceInsights { mesh } => service_insights::list(context, call, mesh.as_deref())?,
        Target::ServiceInsight { .. } if *method != Method::GET => {
            return Err(access::derived("ServiceInsight"));
        }
        Target::ServiceInsight { mesh, name } => service_insights::one(context, &mesh, &name)?,
        Target::Proxy { mesh, name, view: ProxyView::Admin(word) } => {
            let key = Key::new(Kind::Dataplane, mesh, name);
            return envoy_admin::ask(context, call, &key, &word).await;
        }
        Target::Proxy { mesh, name, view } => inspect::proxy(context, call, &mesh, &name, &view).await?,
        Target::PolicyDataplanes { kind, mesh, name, shape } => {
            inspect::policy_dataplanes(context, call, &Key::new(kind, mesh, name), shape)?
        }
        Target::ServiceDataplanes { mesh, name } => inspect::service_dataplanes(context, call, &mesh, &name)?,
        Target::Hostnames { mesh, path, name } => hostnames::hostnames(context, call, &mesh, &path, &name)?,
        Target::GuiRoot | Target::Gui => return Ok(gui::page()),
        // `dispatch` has answered.
        Target::Backup | Target::Restore => return Err(PAGE_NOT_FOUND),
        Target::OpenApi(format) => return Ok(respond::value(StatusCode::OK, format, &openapi::document())),
        Target::Schema(file) => openapi::schema(&file).ok_or(PAGE_NOT_FOUND)?,
        Target::Kri(kri) => read::by_kri(context, call, &kri)?,
        Target::Cluster(part) => return cluster::answer(context, call, method, part, body).await,
        Target::ZoneStatus { zone } => federation::status(context, call, &zone).await?,
        Target::ClusterId => return federation::set_id(context, call, body).await,
        Target::LeaveGlobal { zone } => return federation::leave(context, call, method, &zone).await,
        Target::AcceptDeletions { zone } => return federation::accept_deletions(context, call, &zone).await,
        Target::Tokens(kind) => return tokens::issue(context, call, kind, body).await,
        Target::DryRun { kind, mesh, name } => {
            return write::dry_run(context, call, kind, mesh.as_deref(), &name, body).await;
        }
        Target::List { kind, mesh, form } => read::list(context, call, kind, mesh.as_deref(), form).await?,
        Target::One { kind, mesh, name, form } => match *method {
            Method::PUT => return write::put(context, call, kind, mesh.as_deref(), &name, body).await,
            Method::DELETE => return write::delete(context, call, kind, mesh.as_deref(), &name).await,
            _ if form == Form::Overview => {
                read::overview(context, call, kind, mesh.as_deref(), &name).await?
            }
            _ => read::one(context, call, kind, mesh.as_deref(), &name).await?,
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
