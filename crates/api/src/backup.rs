//! `GET /_backup` and `POST /_restore` (beyond rest-api.md): everything that the store holds, as one file.
//!
//! Both are for administrators only, and both stream: a backup is encoded while the client reads it, a file that is
//! sent is decoded while it arrives. Nothing is changed before a file was read and checked to its end; then
//! [`Store::replace_all`](graticule_store::Store::replace_all) changes everything at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use graticule_model::kinds::config::CLUSTER_ID;
use graticule_model::{Key, Kind, Resource, Spec};
use graticule_runtime::{Progress, version};
use graticule_store::backup::{Backup, Description, Origin, ReadError, Reader, Writer};
use graticule_store::seal::Sealer;
use graticule_store::{CommitError, Replacement, Revision, Snapshot};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::audit::Done;
use crate::auth::User;
use crate::error::Error;
use crate::query::Query;
use crate::{Context, access, respond};

/// Bytes of a file that is restored.
const FILE_LEN_MAX: u64 = 8 << 30;
/// Bytes of a file that is refused which are still read, so that the client sees the answer instead of a broken
/// connection.
const DISCARDED_LEN_MAX: u64 = 16 << 20;
/// Backups that are written at once, and restores.
const AT_ONCE: usize = 1;
/// How often a restore that waits for the store says that it goes on.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
const MEDIA_TYPE: &str = "application/octet-stream";
/// Header: revision of the backup.
pub const REVISION_HEADER: &str = "graticule-revision";
/// Header: which control plane the backup is of: `global` or `zone-NAME`.
pub const ORIGIN_HEADER: &str = "graticule-origin";
/// Header: how many secrets the file holds as plain text.
pub const PLAIN_SECRETS_HEADER: &str = "graticule-plain-secrets";

pub(crate) const TITLE: &str = "Could not restore the backup";

/// What backups need that the rest of the API does not.
#[derive(Debug, Clone, Default)]
pub struct Backups {
    /// Seals the secrets of backups, and opens them.
    pub sealer: Arc<Sealer>,
    /// Revision at which the store holds nothing but what a new control plane makes for itself; none: unknown. A store
    /// that is still there may be replaced by any backup.
    pub untouched_at: Option<Revision>,
}

/// Who backs up and restores now.
pub(crate) struct Limits {
    saving: Arc<Semaphore>,
    restoring: Arc<Semaphore>,
}

impl Limits {
    pub(crate) fn new() -> Limits {
        Limits { saving: Arc::new(Semaphore::new(AT_ONCE)), restoring: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

fn permit(of: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, Error> {
    of.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("{what} is under way already: try again when it is done");
        Error::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable", detail)
    })
}

fn origin(context: &Context) -> Origin {
    if context.mode.is_global() { Origin::Global } else { Origin::Zone(context.zone.clone()) }
}

/// Writes everything that the store holds at one revision.
pub(crate) fn save(context: &Context, user: &User, parts: &Parts) -> Result<Response, Error> {
    access::backups(&context.options, user)?;
    let permit = permit(&context.backup_limits.saving, "another backup")?;
    let snapshot = context.store.snapshot();
    let sealer = context.backups.sealer.clone();
    let writer = Writer::new(&snapshot, origin(context), version::VERSION, context.clock.now(), sealer);
    let description = writer.description().clone();
    let progress = parts.extensions.get::<Progress>().cloned();
    let pieces = writer.map(move |piece| {
        // Held until the last piece is gone.
        let _one_at_a_time = &permit;
        if let Some(progress) = &progress {
            progress.made();
        }
        Ok::<_, Infallible>(piece)
    });
    let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces)));
    *response.headers_mut() = headers(&description);
    Ok(Done::Saved { revision: description.revision.0, resources: description.resources }.beside(response))
}

fn headers(description: &Description) -> HeaderMap {
    let origin = match &description.origin {
        Origin::Global => "global".to_owned(),
        Origin::Zone(name) => format!("zone-{name}"),
    };
    let plain = if description.key_id.is_some() { 0 } else { description.secrets };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REVISION_HEADER, description.revision.0.into());
    headers.insert(PLAIN_SECRETS_HEADER, plain.into());
    if let Ok(origin) = HeaderValue::from_str(&origin) {
        headers.insert(ORIGIN_HEADER, origin);
    }
    headers
}

/// Replaces everything by what a backup holds, or says what that would change.
pub(crate) async fn restore(
    context: &Context,
    user: &User,
    parts: &Parts,
    body: Body,
) -> Result<Response, Error> {
    access::backups(&context.options, user)?;
    if context.options.server.read_only {
        return Err(access::serves_read_only());
    }
    let wish = Wish::parse(&Query::parse(parts.uri.query()))?;
    let _one_at_a_time = permit(&context.backup_limits.restoring, "another restore")?;
    let progress = parts.extensions.get::<Progress>().cloned();
    let backup = receive(context, body, progress.as_ref()).await?;
    let work = replace(context, wish, backup);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            answer = work.as_mut() => return answer,
            () = context.clock.sleep(PROGRESS_INTERVAL) => {
                if let Some(progress) = &progress {
                    progress.made();
                }
            }
        }
    }
}

/// What the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    force: bool,
    dry_run: bool,
}

impl Wish {
    fn parse(query: &Query) -> Result<Wish, Error> {
        let flag = |name: &str| match query.get(name) {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(other) => Err(Error::bad_request(format!("{name}: {other:?} is neither true nor false"))),
        };
        Ok(Wish { force: flag("force")?, dry_run: flag("dryRun")? })
    }
}

/// Reads a file to its end, whatever is wrong with it.
async fn receive(context: &Context, mut body: Body, progress: Option<&Progress>) -> Result<Backup, Error> {
    let mut reader = Reader::new(context.backups.sealer.clone());
    let (mut len, mut refused, mut discarded) = (0_u64, None, 0_u64);
    let pause_max = context.options.server.read_timeout.to_std();
    loop {
        let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let frame = tokio::select! {
            biased;
            frame = next => frame,
            () = context.clock.sleep(pause_max) => {
                let detail = "the file did not arrive in time";
                return Err(Error::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", detail));
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "a backup cannot be received");
            Error::new(StatusCode::BAD_REQUEST, TITLE, "the file is cut short; nothing was changed")
        })?;
        if let Some(progress) = progress {
            progress.made();
        }
        let Ok(data) = frame.into_data() else { continue };
        len += data.len() as u64;
        if refused.is_some() {
            discarded += data.len() as u64;
            if discarded > DISCARDED_LEN_MAX {
                break;
            }
        } else if let Err(error) = take(context, &mut reader, &data, len) {
            refused = Some(error);
        }
    }
    match refused {
        Some(error) => Err(error),
        None => reader.finish().map_err(|error| unreadable(&error)),
    }
}

fn take(context: &Context, reader: &mut Reader, data: &[u8], len: u64) -> Result<(), Error> {
    if len > FILE_LEN_MAX {
        let detail = format!("the file is larger than {FILE_LEN_MAX} bytes");
        return Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large", detail));
    }
    reader.push(data).map_err(|error| unreadable(&error))?;
    let own = origin(context);
    match reader.description() {
        Some(description) if description.origin != own => {
            let detail =
                format!("the backup is of {}, and this is {own}; nothing was changed", description.origin);
            Err(Error::new(StatusCode::BAD_REQUEST, TITLE, detail))
        }
        _ => Ok(()),
    }
}

fn unreadable(error: &ReadError) -> Error {
    Error::new(StatusCode::BAD_REQUEST, TITLE, format!("{error}; nothing was changed"))
}

async fn replace(context: &Context, wish: Wish, backup: Backup) -> Result<Response, Error> {
    let stored = context.store.snapshot();
    let (before, untouched_at) = (stored.revision(), context.backups.untouched_at);
    let compared = tokio::task::spawn_blocking(move || {
        let plan = Plan::new(&stored, &backup, untouched_at);
        (plan, backup)
    });
    let (plan, Backup { description, resources }) = compared.await.map_err(|error| {
        tracing::error!(%error, "a backup cannot be compared");
        Error::new(StatusCode::INTERNAL_SERVER_ERROR, TITLE, "Internal Server Error")
    })?;
    if let (Some(obstacle), false, false) = (&plan.obstacle, wish.force, wish.dry_run) {
        let detail = format!("{obstacle}; nothing was changed; with force (`--force`) it is replaced");
        return Err(Error::new(StatusCode::CONFLICT, TITLE, detail));
    }
    let revision = if wish.dry_run || plan.changes() == 0 {
        before
    } else {
        let expect = (!wish.force).then_some(before);
        let replacement = Replacement { resources, expect, above: description.revision };
        context.store.replace_all(replacement).await.map_err(refused)?
    };
    if !wish.dry_run {
        tracing::info!(
            revision = revision.0,
            backup_revision = description.revision.0,
            changes = plan.changes(),
            "the store was replaced by a backup"
        );
    }
    let answer = plan.answer(&description, before, revision, wish);
    let done = Done::Restored {
        revision: revision.0,
        backup_revision: description.revision.0,
        changes: if wish.dry_run { 0 } else { plan.changes() },
    };
    Ok(done.beside(respond::json(StatusCode::OK, &answer)))
}

fn refused(error: CommitError) -> Error {
    match error {
        CommitError::Moved { .. } => {
            let detail = format!(
                "{error}: it was written to while the backup was checked; nothing was changed; try again, or with force (`--force`)"
            );
            Error::new(StatusCode::CONFLICT, TITLE, detail)
        }
        // The file says so, not the request.
        CommitError::OwnerMissing { .. } => {
            Error::new(StatusCode::BAD_REQUEST, TITLE, format!("{error}; nothing was changed"))
        }
        error => Error::from_commit(TITLE, error),
    }
}

/// What a restore changes.
#[derive(Debug, Default)]
struct Plan {
    kinds: BTreeMap<&'static str, Counts>,
    /// Why it should not happen by mistake.
    obstacle: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    created: u64,
    updated: u64,
    deleted: u64,
    unchanged: u64,
}

impl Plan {
    fn new(stored: &Snapshot, backup: &Backup, untouched_at: Option<Revision>) -> Plan {
        let restored = Snapshot::restore(backup.description.revision, backup.resources.iter().cloned());
        let mut plan = Plan::default();
        for resource in restored.iter() {
            let counts = plan.counts(resource);
            match stored.get(&resource.key()) {
                None => counts.created += 1,
                Some(old) if old == *resource => counts.unchanged += 1,
                Some(_) => counts.updated += 1,
            }
        }
        for resource in stored.iter().filter(|resource| !restored.contains(&resource.key())) {
            plan.counts(resource).deleted += 1;
        }
        if plan.changes() > 0 && untouched_at != Some(stored.revision()) {
            plan.obstacle = obstacle(stored, &restored, &backup.description);
        }
        plan
    }

    fn counts(&mut self, resource: &Resource) -> &mut Counts {
        self.kinds.entry(resource.kind().name()).or_default()
    }

    fn changes(&self) -> u64 {
        self.kinds.values().map(|counts| counts.created + counts.updated + counts.deleted).sum()
    }

    fn answer(&self, description: &Description, before: Revision, after: Revision, wish: Wish) -> Value {
        let kinds = self.kinds.iter().map(|(kind, counts)| {
            json!({
                "kind": kind,
                "created": counts.created,
                "updated": counts.updated,
                "deleted": counts.deleted,
                "unchanged": counts.unchanged,
            })
        });
        json!({
            "dryRun": wish.dry_run,
            "revisionBefore": before.0,
            "revision": after.0,
            "changes": self.changes(),
            "kinds": kinds.collect::<Value>(),
            "needsForce": self.obstacle,
            "backup": {
                "revision": description.revision.0,
                "created": description.created.to_string(),
                "version": description.version,
                "origin": description.origin.to_string(),
                "resources": description.resources,
                "secrets": description.secrets,
                "encryptedWith": description.key_id,
            },
        })
    }
}

/// What would be lost: changes that are newer than the backup, or a store that the backup is not of.
fn obstacle(stored: &Snapshot, restored: &Snapshot, description: &Description) -> Option<String> {
    let (own, theirs) = (cluster_id(stored), cluster_id(restored));
    if let (Some(own), Some(theirs)) = (&own, &theirs)
        && own != theirs
    {
        return Some(format!(
            "the backup is of another control plane (its cluster id is {theirs}, this one's {own})"
        ));
    }
    let (now, then) = (stored.revision(), description.revision);
    if now > then {
        return Some(format!("the store is at revision {now}, the backup is of revision {then}"));
    }
    let newest = stored.iter().max_by_key(|resource| resource.meta.modification_time)?;
    let (at, created) = (newest.meta.modification_time, description.created);
    (at > created).then(|| format!("{} was changed at {at}, the backup is of {created}", newest.key()))
}

fn cluster_id(snapshot: &Snapshot) -> Option<String> {
    match &snapshot.get(&Key::new(Kind::Config, "", CLUSTER_ID))?.spec {
        Spec::Config(config) => Some(config.config.clone()),
        _ => None,
    }
}
