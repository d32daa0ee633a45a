//! What a transaction does, as a function: every backend applies transactions with [`apply`], so they all
//! mean the same, on every replica.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use graticule_model::{Key, Resource, Timestamp};

use crate::{Change, ChangeBatch, CommitError, Expect, Replacement, Revision, Snapshot, Txn, Write};

/// The result of [`apply`].
#[derive(Debug, Clone)]
pub struct Applied {
    /// The snapshot afterwards; the given one when nothing changed.
    pub snapshot: Snapshot,
    /// What changed; when nothing did, empty and with the revision of the given snapshot.
    pub batch: Arc<ChangeBatch>,
}

/// Applies `txn` to `before`; `now` counts where the transaction names no time.
///
/// Preconditions are about the state before the transaction. Deletes come first, with everything that they
/// cascade to, then puts, whatever their order in the transaction; at the end the owner of every resource that
/// was put must exist. Hence a put survives the deletion of its former owner only if it names another one.
pub fn apply(before: &Snapshot, txn: Txn, now: Timestamp) -> Result<Applied, CommitError> {
    let at = txn.at.unwrap_or(now);
    let stored = check(before, &txn)?;
    let mut removed = BTreeSet::new();
    let mut puts = Vec::new();
    for (write, old) in txn.writes.into_iter().zip(stored) {
        match write {
            Write::Delete { key, .. } => cascade(before, key, &mut removed),
            Write::Put { resource, touch, .. } => puts.push((*resource, touch, old)),
        }
    }
    let mut changes: BTreeMap<Key, Change> = BTreeMap::new();
    for key in removed {
        let old = before.get(&key);
        changes.insert(key.clone(), Change { key, old, new: None });
    }
    let mut owners = Vec::new();
    for (resource, touch, old) in puts {
        let key = resource.key();
        let is_removed = changes.contains_key(&key);
        let new = stored_form(resource, old.as_deref(), at);
        if let Some(owner) = &new.meta.owner {
            owners.push((key.clone(), owner.clone()));
        }
        let same = old.as_ref().is_some_and(|old| old.same_content(&new) && old.meta.owner == new.meta.owner);
        if same && !touch {
            // The resource stays as it is, even if the deletion of its owner reached it.
            if is_removed {
                changes.remove(&key);
            }
            continue;
        }
        changes.insert(key.clone(), Change { key, old, new: Some(Arc::new(new)) });
    }
    for (key, owner) in owners {
        let exists = match changes.get(&owner) {
            Some(change) => change.new.is_some(),
            None => before.contains(&owner),
        };
        if !exists {
            return Err(CommitError::OwnerMissing { key, owner });
        }
    }
    if changes.is_empty() {
        let batch = ChangeBatch { revision: before.revision(), committed_at: at, changes: Vec::new() };
        return Ok(Applied { snapshot: before.clone(), batch: Arc::new(batch) });
    }
    let revision = Revision(before.revision().0 + 1);
    let batch = ChangeBatch { revision, committed_at: at, changes: changes.into_values().collect() };
    Ok(Applied { snapshot: before.with(&batch), batch: Arc::new(batch) })
}

/// The revision that a store at `current` gets when everything is replaced.
///
/// # Errors
/// It is expected to be at another one, or there is none left.
pub fn revision_of_replacement(
    current: Revision,
    replacement: &Replacement,
) -> Result<Revision, CommitError> {
    if let Some(expected) = replacement.expect.filter(|expected| *expected != current) {
        return Err(CommitError::Moved { expected, current });
    }
    let above = current.max(replacement.above);
    let next = above.0.checked_add(1).map(Revision);
    next.ok_or_else(|| CommitError::Invalid(format!("there is no revision above {above}")))
}

/// What [`Store::replace_all`](crate::Store::replace_all) makes of `before`. Every resource must be one that a
/// transaction could have stored: well formed, no two with one key, every owner there.
pub fn replace(before: &Snapshot, replacement: Replacement) -> Result<Snapshot, CommitError> {
    let revision = revision_of_replacement(before.revision(), &replacement)?;
    let resources = replacement.resources;
    let count = resources.len();
    for resource in &resources {
        well_formed(resource)?;
        if !resource.meta.mesh.is_empty() && resource.kind().descriptor().is_global_scoped() {
            return Err(CommitError::Invalid(format!("{}: its kind has no mesh", resource.key())));
        }
    }
    let after = Snapshot::restore(revision, resources);
    if after.len() != count {
        let twice = count - after.len();
        return Err(CommitError::Invalid(format!(
            "{twice} of {count} resources have the key of another one"
        )));
    }
    let orphan = after.iter().find_map(|resource| {
        let owner = resource.meta.owner.as_ref().filter(|owner| !after.contains(owner))?;
        Some((resource.key(), owner.clone()))
    });
    match orphan {
        Some((key, owner)) => Err(CommitError::OwnerMissing { key, owner }),
        None => Ok(after),
    }
}

/// Gives what is stored under the keys of the writes.
fn check(before: &Snapshot, txn: &Txn) -> Result<Vec<Option<Arc<Resource>>>, CommitError> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::with_capacity(txn.writes.len());
    for write in &txn.writes {
        let (key, expect) = match write {
            Write::Put { resource, expect, .. } => {
                well_formed(resource)?;
                (resource.key(), *expect)
            }
            Write::Delete { key, expect } => (key.clone(), *expect),
        };
        let stored = before.get(&key);
        precondition(&key, stored.as_ref().map(|stored| stored.meta.version), expect)?;
        all.push(stored);
        if !seen.insert(key.clone()) {
            return Err(CommitError::Invalid(format!("{key} is written twice")));
        }
    }
    Ok(all)
}

fn well_formed(resource: &Resource) -> Result<(), CommitError> {
    let key = resource.key();
    let reason = if key.name.is_empty() {
        "it has no name"
    } else if key.mesh.is_empty() && !key.kind.descriptor().is_global_scoped() {
        "it has no mesh"
    } else if resource.meta.owner.as_ref() == Some(&key) {
        "it owns itself"
    } else {
        return Ok(());
    };
    Err(CommitError::Invalid(format!("{key}: {reason}")))
}

fn precondition(key: &Key, stored: Option<u64>, expect: Expect) -> Result<(), CommitError> {
    match (expect, stored) {
        (Expect::Any, _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => Ok(()),
        (Expect::Absent, Some(_)) => Err(CommitError::Exists(key.clone())),
        (Expect::Present | Expect::Version(_), None) => Err(CommitError::NotFound(key.clone())),
        (Expect::Version(wanted), Some(current)) if wanted == current => Ok(()),
        (Expect::Version(_), Some(current)) => Err(CommitError::Conflict { key: key.clone(), current }),
    }
}

/// Adds `root` and everything below it, if it is stored. Cycles of owners end.
fn cascade(before: &Snapshot, root: Key, removed: &mut BTreeSet<Key>) {
    if !before.contains(&root) {
        return;
    }
    let mut queue = vec![root];
    while let Some(key) = queue.pop() {
        queue.extend(before.owned_by(&key).map(|owned| owned.key()).filter(|owned| !removed.contains(owned)));
        removed.insert(key);
    }
}

fn stored_form(mut resource: Resource, old: Option<&Resource>, at: Timestamp) -> Resource {
    if resource.kind().descriptor().is_global_scoped() {
        resource.meta.mesh.clear();
    }
    let meta = &mut resource.meta;
    meta.modification_time = at;
    match old {
        Some(old) => {
            meta.creation_time = old.meta.creation_time;
            meta.version = old.meta.version + 1;
            if meta.owner.is_none() {
                meta.owner.clone_from(&old.meta.owner);
            }
        }
        None => {
            meta.creation_time = at;
            meta.version = 1;
        }
    }
    resource
}
