//! What a caller may do (tokens-and-access.md §6).

use graticule_model::Kind;

use crate::auth::User;
use crate::error::Error;
use crate::options::Allowed;
use crate::{Context, Options};

/// What is denied to those who may not see a proxy's inside.
const PROXY_INFO: &str = "envoy proxy info";

fn require(allowed: &Allowed, user: &User, action: &str) -> Result<(), Error> {
    if allowed.allows(user) {
        return Ok(());
    }
    Err(Error::denied(format!("user \"{user}\" cannot access {action}")))
}

/// Reading or writing resources of a kind.
pub(crate) fn resources(options: &Options, user: &User, kind: Kind) -> Result<(), Error> {
    if !kind.descriptor().capabilities.admin_only {
        return Ok(());
    }
    require(&options.access.r#static.admin_resources, user, &format!("the resource of type \"{kind}\""))
}

/// Writes need a credential (DESIGN decision 9); asked before the body is read.
pub(crate) fn writer(options: &Options, user: &User, kind: Kind) -> Result<(), Error> {
    if options.rules.anonymous_writes || !user.is_anonymous() {
        return Ok(());
    }
    Err(Error::denied(format!(
        "user \"{user}\" cannot write the resource of type \"{kind}\": send a user token, or write from the control plane's own machine"
    )))
}

/// `GET /_backup` and `POST /_restore`: they hold all secrets, and replace everything.
pub(crate) fn backups(options: &Options, user: &User) -> Result<(), Error> {
    require(&options.access.r#static.admin_resources, user, "backups")
}

/// `GET /config`.
pub(crate) fn metadata(options: &Options, user: &User) -> Result<(), Error> {
    require(&options.access.r#static.control_plane_metadata, user, "control-plane metadata")
}

/// The replicas of the control plane.
pub(crate) fn cluster(options: &Options, user: &User) -> Result<(), Error> {
    require(&options.access.r#static.admin_resources, user, "the cluster")
}

/// Decisions about what is held back.
pub(crate) fn federation(options: &Options, user: &User) -> Result<(), Error> {
    require(&options.access.r#static.admin_resources, user, "federation")
}

/// Configuration of a proxy: `_config`, `xds`.
pub(crate) fn config_dump(options: &Options, user: &User) -> Result<(), Error> {
    require(&options.access.r#static.view_config_dump, user, PROXY_INFO)
}

/// Statistics of a proxy.
pub(crate) fn stats(options: &Options, user: &User) -> Result<(), Error> {
    require(&options.access.r#static.view_stats, user, PROXY_INFO)
}

/// Clusters of a proxy.
pub(crate) fn clusters(options: &Options, user: &User) -> Result<(), Error> {
    require(&options.access.r#static.view_clusters, user, PROXY_INFO)
}

/// `POST /tokens/dataplane`.
pub(crate) fn dataplane_token(options: &Options, user: &User) -> Result<(), Error> {
    require(&options.access.r#static.generate_dp_token, user, "generate dataplane token")
}

/// `POST /tokens/zone`.
pub(crate) fn zone_token(options: &Options, user: &User, zone: &str) -> Result<(), Error> {
    let action = format!("generate zone token for zone '{zone}'");
    require(&options.access.r#static.generate_zone_token, user, &action)
}

/// `POST /tokens/user`.
pub(crate) fn user_token(options: &Options, user: &User) -> Result<(), Error> {
    if options.access.r#static.generate_user_token.allows(user) {
        return Ok(());
    }
    Err(Error::denied("action not allowed"))
}

/// The kind can be written over REST on this control plane (rest-api.md §5.4).
pub(crate) fn writable(context: &Context, kind: Kind) -> Result<(), Error> {
    if !is_read_only(context, kind) {
        return Ok(());
    }
    let detail: String = if context.options.server.read_only {
        return Err(serves_read_only());
    } else if kind.descriptor().capabilities.read_only {
        return Err(derived(kind.name()));
    } else if context.mode.is_global() {
        format!("resources of type {kind} belong to zones: change them on the zone control plane\n")
    } else {
        format!("resources of type {kind} belong to global: change them on the global control plane\n")
    };
    Err(Error::new(http::StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail))
}

/// Nothing is written over REST here.
pub(crate) fn serves_read_only() -> Error {
    let detail = "this control plane serves its resources read-only (apiServer.readOnly)\n";
    Error::new(http::StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail)
}

/// A kind that nobody writes over REST.
pub(crate) fn derived(kind: &str) -> Error {
    let detail = format!("resources of type {kind} are written by control planes only\n");
    Error::new(http::StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail)
}

pub(crate) fn is_read_only(context: &Context, kind: Kind) -> bool {
    context.options.server.read_only || kind.descriptor().is_read_only_on(context.mode)
}
