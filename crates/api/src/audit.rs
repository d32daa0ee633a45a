//! The audit log: one line for every write, token, backup and restore, refused ones too (tracing target `audit`).
//!
//! A line says who, what, from where and what came of it; the time is the log's. It never holds the content of a
//! resource or a token, nor what an error says about it.

use axum::response::Response;
use graticule_model::Key;
use graticule_runtime::{Peer, audit};
use graticule_store::Committed;
use http::Method;
use http::request::Parts;

use crate::auth::User;
use crate::error::Error;
use crate::route::{Target, Tokens};

/// What a handler tells about the write that it did, beside its answer.
#[derive(Debug, Clone)]
pub(crate) enum Done {
    /// A resource was written: its version before and after, and the revision of the store.
    Written { before: Option<u64>, after: Option<u64>, revision: u64, changes: usize },
    /// Global has the id of another federation: before and after, and the revision of the store.
    Adopted { from: String, to: String, revision: u64 },
    /// A token was issued: its id and whom it is for.
    Issued { jti: String, subject: String },
    /// A backup was begun: revision of the store, and how many resources there are.
    Saved { revision: u64, resources: u64 },
    /// A backup was restored: revision of the store afterwards, that of the backup, and how many resources changed.
    Restored { revision: u64, backup_revision: u64, changes: u64 },
}

impl Done {
    /// What a transaction did to `key`.
    pub(crate) fn written(key: &Key, committed: &Committed) -> Done {
        let change = committed.batch.changes.iter().find(|change| change.key == *key);
        let version = |resource: &std::sync::Arc<graticule_model::Resource>| resource.meta.version;
        Done::Written {
            before: change.and_then(|change| change.old.as_ref()).map(version),
            after: change.and_then(|change| change.new.as_ref()).map(version),
            revision: committed.revision.0,
            changes: committed.batch.changes.len(),
        }
    }

    /// Hands it to [`Entry::write`] together with the answer.
    pub(crate) fn beside(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

/// A line in the making.
#[derive(Debug)]
pub(crate) struct Entry {
    operation: &'static str,
    user: String,
    groups: String,
    from: String,
    kind: &'static str,
    mesh: String,
    name: String,
    path: String,
}

impl Entry {
    /// For a request that would change something, so not for a dry run. Without a user: its credential is not valid. Without a
    /// target: there is nothing at its path.
    pub(crate) fn of(parts: &Parts, user: Option<&User>, target: Option<&Target>) -> Option<Entry> {
        let operation = match parts.method {
            // All secrets leave the control plane.
            Method::GET if matches!(target, Some(Target::Backup)) => "back up",
            Method::GET | Method::HEAD | Method::OPTIONS => return None,
            Method::DELETE => "delete",
            _ => "put",
        };
        if matches!(target, Some(Target::DryRun { .. })) && user.is_some() {
            return None;
        }
        let mut entry = Entry {
            operation,
            user: user.map(|user| user.name.clone()).unwrap_or_default(),
            groups: user.map(|user| user.groups.join(",")).unwrap_or_default(),
            from: parts.extensions.get::<Peer>().map(|peer| peer.address.to_string()).unwrap_or_default(),
            kind: "",
            mesh: String::new(),
            name: String::new(),
            path: String::new(),
        };
        match target {
            Some(Target::One { kind, mesh, name, .. }) => {
                entry.kind = kind.name();
                entry.mesh = mesh.clone().unwrap_or_default();
                entry.name.clone_from(name);
            }
            Some(Target::Tokens(kind)) => {
                entry.operation = "issue token";
                entry.kind = match kind {
                    Tokens::Dataplane => "dataplane token",
                    Tokens::Zone => "zone token",
                    Tokens::User => "user token",
                };
            }
            Some(Target::Backup) => entry.kind = "backup",
            Some(Target::Restore) => (entry.operation, entry.kind) = ("restore", "backup"),
            _ => entry.path = parts.uri.path().to_owned(),
        }
        Some(entry)
    }

    /// Writes the line.
    pub(crate) fn write(self, answer: &Result<Response, Error>) {
        let (status, reason, done) = match answer {
            Ok(response) => (response.status(), "", response.extensions().get::<Done>()),
            Err(error) => (error.status(), error.title(), None),
        };
        let (mut before, mut after, mut revision, mut changes) = (None, None, None, None);
        let (mut jti, mut subject, mut resources, mut backup_revision) = (None, None, None, None);
        let (mut old_id, mut new_id) = (None, None);
        match done {
            Some(Done::Written { before: b, after: a, revision: r, changes: c }) => {
                (before, after, revision, changes) = (*b, *a, Some(*r), Some(*c as u64));
            }
            Some(Done::Adopted { from, to, revision: r }) => {
                (old_id, new_id, revision) = (Some(from.as_str()), Some(to.as_str()), Some(*r));
            }
            Some(Done::Issued { jti: id, subject: whom }) => {
                (jti, subject) = (Some(id.as_str()), Some(whom.as_str()));
            }
            Some(Done::Saved { revision: r, resources: count }) => {
                (revision, resources) = (Some(*r), Some(*count));
            }
            Some(Done::Restored { revision: r, backup_revision: b, changes: c }) => {
                (revision, backup_revision, changes) = (Some(*r), Some(*b), Some(*c));
            }
            None => {}
        }
        let operation = match (self.operation, status.as_u16()) {
            ("put", 201) => "create",
            ("put", 200) => "update",
            (operation, _) => operation,
        };
        let outcome = match status.as_u16() {
            200..=299 => "done",
            500..=599 => "failed",
            _ => "refused",
        };
        tracing::info!(
            target: audit::TARGET,
            operation,
            outcome,
            status = u64::from(status.as_u16()),
            reason = given(reason),
            user = self.user,
            groups = self.groups,
            from = self.from,
            kind = given(self.kind),
            mesh = given(&self.mesh),
            name = given(&self.name),
            path = given(&self.path),
            before,
            after,
            revision,
            changes,
            resources,
            backup_revision,
            old_id,
            new_id,
            jti,
            subject,
            "write"
        );
    }
}

/// Fields without a value are left out.
fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
