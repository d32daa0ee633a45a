//! The watch: brings what other replicas write, in order and once, across lost connections and compactions.

use std::sync::Arc;

use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse};
use graticule_store::seal::Sealer;

use crate::failure::{ContentsError, Failure};
use crate::keys::{Keys, Place};
use crate::load::{LoadError, decode_head, load, resource_of};
use crate::options::ANSWER_LEN_MAX;
use crate::replica::Delta;
use crate::store::Shared;
use crate::wire::Head;

/// How a watch ended.
enum Ended {
    /// The store is closed.
    Closing,
    /// The connection, or what it was used for, failed.
    Lost(Failure),
    /// Part of what comes next is gone: compacted away, or it does not fit.
    Gap(String),
    /// What etcd has cannot be used.
    Contents(ContentsError),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Ended {
        Ended::Lost(failure)
    }
}

/// Follows until the store is closed, or etcd's contents cannot be used any more.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut failures = 0;
    loop {
        let ended = match session(&shared, &mut failures).await {
            Ended::Gap(reason) => {
                tracing::info!(reason, "reading everything from etcd again");
                resync(&shared).await
            }
            ended => Some(ended),
        };
        match ended {
            // Read again; the next watch begins there.
            None | Some(Ended::Gap(_)) => {}
            Some(Ended::Closing) => return,
            Some(Ended::Contents(error)) => {
                tracing::error!(%error, "the store stands still");
                shared.stop(error);
                return;
            }
            Some(Ended::Lost(failure)) => {
                failures += 1;
                shared.cut_off(failure.reason());
                tracing::warn!(reason = failure.reason(), failures, "not connected to etcd");
                tokio::select! {
                    () = shared.closing.cancelled() => return,
                    () = shared.requests.pause(failures, &failure) => {}
                }
            }
        }
    }
}

/// Reads everything again; none = it went well.
async fn resync(shared: &Shared) -> Option<Ended> {
    let loaded = tokio::select! {
        () = shared.closing.cancelled() => return Some(Ended::Closing),
        loaded = load(&shared.requests, &shared.keys, &shared.options.sealer) => loaded,
    };
    let replaced = match loaded {
        Ok(loaded) if loaded.cluster != shared.cluster => Err(other_cluster()),
        Ok(loaded) => shared.replica.replace(loaded),
        Err(LoadError::Failed(failure)) => return Some(Ended::Lost(failure)),
        Err(LoadError::Contents(error)) => Err(error),
    };
    match replaced {
        Ok(is_new) => {
            tracing::info!(is_new, revision = %shared.replica.snapshot().revision(), "read everything again");
            None
        }
        Err(error) => Some(Ended::Contents(error)),
    }
}

fn other_cluster() -> ContentsError {
    ContentsError::WentBack("another cluster of etcd answers at the endpoints".into())
}

/// One watch, from where the copy is, until it ends.
async fn session(shared: &Shared, failures: &mut u32) -> Ended {
    tokio::select! {
        biased;
        () = shared.closing.cancelled() => Ended::Closing,
        ended = follow(shared, failures) => ended,
    }
}

async fn follow(shared: &Shared, failures: &mut u32) -> Ended {
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(shared.replica.seen() + 1)
        .with_progress_notify()
        // Answers are not larger than a request may be.
        .with_fragment();
    let mut client = shared.requests.client.watch_client().max_decoding_message_size(ANSWER_LEN_MAX);
    let mut stream = match shared.requests.bounded(client.watch(shared.keys.all(), Some(options))).await {
        Ok(stream) => stream,
        Err(failure) => return failure.into(),
    };
    // When another generation comes, everything is read again, and another session begins.
    let keys = shared.keys.of(&shared.replica.position().generation);
    let mut collector = Collector { sealer: shared.options.sealer.clone(), ..Collector::default() };
    loop {
        let message = tokio::select! {
            biased;
            message = stream.message() => message,
            () = shared.stuck.notified() => {
                return Failure::Missed("the watch stands still".into()).into();
            }
        };
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return Failure::Missed("etcd ended the watch".into()).into(),
            Err(error) => return Failure::from(error).into(),
        };
        if let Some(ended) = on_response(shared, &keys, &mut collector, &response) {
            return ended;
        }
        if response.created() {
            if let Err(ended) = is_same_history(shared, &response).await {
                return ended;
            }
            *failures = 0;
            shared.connected();
            // Who leads may have changed unseen.
            shared.leader_moved.send_modify(|count| *count += 1);
        }
    }
}

/// Checks that etcd has what the copy has. A member that was just started, or lags, may say an older revision than a
/// majority has; the watch waits for what comes after the copy then.
async fn is_same_history(shared: &Shared, created: &WatchResponse) -> Result<(), Ended> {
    let (at, cluster) = created.header().map_or((0, 0), |header| (header.revision(), header.cluster_id()));
    if cluster != shared.cluster {
        return Err(Ended::Contents(other_cluster()));
    }
    if at >= shared.replica.position().head {
        return Ok(());
    }
    let known = shared.replica.position().head;
    let keys_only = Some(GetOptions::new().with_keys_only());
    // Answered by a majority.
    let now = shared.requests.bounded(shared.requests.get(&shared.keys.head(), keys_only)).await?;
    let at = now.header().map_or(0, |header| header.revision());
    if at < known {
        let reason = format!("etcd went back to its revision {at}, and this replica saw {known}");
        return Err(Ended::Contents(ContentsError::WentBack(reason)));
    }
    Ok(())
}

fn on_response(
    shared: &Shared,
    keys: &Keys,
    collector: &mut Collector,
    response: &WatchResponse,
) -> Option<Ended> {
    if response.compact_revision() > 0 {
        return Some(Ended::Gap(format!("etcd compacted its history up to {}", response.compact_revision())));
    }
    if response.canceled() {
        return Some(Failure::Missed(format!("etcd ended the watch: {}", response.cancel_reason())).into());
    }
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        let value = (event.event_type() == EventType::Put).then(|| kv.value());
        let place = keys.place(kv.key());
        if place == Place::Leader {
            shared.leader_moved.send_modify(|count| *count += 1);
            continue;
        }
        let complete = match collector.take(keys, kv.mod_revision(), place, value) {
            Ok(Some(complete)) => complete,
            Ok(None) => continue,
            Err(error) => return Some(Ended::Contents(error)),
        };
        match shared.replica.follow(complete.at, &complete.head, complete.deltas) {
            Ok(()) => {}
            Err(ContentsError::Damaged(reason)) => return Some(Ended::Gap(reason)),
            Err(error) => return Some(Ended::Contents(error)),
        }
    }
    if response.events().is_empty() && !response.created() && collector.is_idle() {
        // A sign of life: everything up to here was sent.
        shared.replica.note_seen(response.header().map_or(0, |header| header.revision()));
    }
    None
}

/// Puts the events of one revision of etcd together.
#[derive(Debug, Default)]
struct Collector {
    sealer: Arc<Sealer>,
    at: i64,
    head: Option<Head>,
    deltas: Vec<Delta>,
}

/// One transaction.
#[derive(Debug)]
struct Complete {
    at: i64,
    head: Head,
    deltas: Vec<Delta>,
}

impl Collector {
    fn is_idle(&self) -> bool {
        self.head.is_none() && self.deltas.is_empty()
    }

    /// Takes one event at revision `at` of etcd; `value` is none when the key was deleted. Gives the transaction once
    /// it is complete.
    fn take(
        &mut self,
        keys: &Keys,
        at: i64,
        place: Place,
        value: Option<&[u8]>,
    ) -> Result<Option<Complete>, ContentsError> {
        if at != self.at {
            if !self.is_idle() {
                tracing::warn!(at = self.at, "something else than a control plane changed keys of the store");
            }
            *self = Collector { sealer: self.sealer.clone(), at, ..Collector::default() };
        }
        match (place, value) {
            (Place::Head, Some(value)) => self.head = Some(decode_head(&keys.head(), value)?),
            (Place::Head, None) => {
                return Err(ContentsError::WentBack("the store was deleted from etcd".into()));
            }
            (Place::Resource(key), Some(value)) => {
                let new = resource_of(&keys.resource(&key), value, &self.sealer)?;
                self.deltas.push(Delta { key, new: Some(new) });
            }
            (Place::Resource(key), None) => self.deltas.push(Delta { key, new: None }),
            (Place::UnknownKind { kind, name }, _) => {
                let source = graticule_store::codec::DecodeError::UnknownKind { kind, name: name.clone() };
                return Err(ContentsError::Unreadable { key: name, source });
            }
            (Place::Leader | Place::Other, _) => return Ok(None),
        }
        match &self.head {
            Some(head) if head.changes as usize == self.deltas.len() => {}
            _ => return Ok(None),
        }
        let Some(head) = self.head.take() else { return Ok(None) };
        Ok(Some(Complete { at, head, deltas: std::mem::take(&mut self.deltas) }))
    }
}

#[cfg(test)]
mod tests {
    use graticule_model::kinds::mesh::Mesh;
    use graticule_model::{Key, Kind, Meta, Resource};
    use graticule_store::codec::{bytes, encode_resource};

    use super::*;
    use crate::wire::FORMAT;

    fn head(revision: u64, changes: u32) -> Vec<u8> {
        bytes(&Head { format: FORMAT, revision, changes, ..Head::default() }).to_vec()
    }

    fn mesh(name: &str) -> (Place, Vec<u8>) {
        let resource = Resource::new(Meta::new("", name), Mesh::default());
        (Place::Resource(resource.key()), bytes(&encode_resource(&resource, &Sealer::NONE)).to_vec())
    }

    #[test]
    fn a_transaction_is_complete_when_all_its_keys_were_seen() {
        let keys = Keys::new("/s");
        let mut collector = Collector::default();
        let mut take =
            |at, place, value: Option<&[u8]>| collector.take(&keys, at, place, value).expect("readable");
        let (a, value) = mesh("a");
        assert!(take(5, Place::Head, Some(&head(1, 2))).is_none());
        assert!(take(5, a.clone(), Some(&value)).is_none());
        assert!(take(5, Place::Other, Some(b"x")).is_none());
        let gone = Place::Resource(Key::new(Kind::Mesh, "", "b"));
        let complete = take(5, gone, None).expect("complete");
        assert_eq!((complete.at, complete.head.revision, complete.deltas.len()), (5, 1, 2));
        // The head may come last.
        assert!(take(6, a.clone(), Some(&value)).is_none());
        assert!(take(6, Place::Head, Some(&head(2, 1))).is_some());
        // What came without a head is left out.
        assert!(take(7, a.clone(), None).is_none());
        assert!(take(8, a, Some(&value)).is_none());
        let complete = take(8, Place::Head, Some(&head(3, 1))).expect("complete");
        assert_eq!(complete.deltas.len(), 1);
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let keys = Keys::new("/s");
        let take = |place, value: Option<&[u8]>| {
            Collector::default().take(&keys, 5, place, value).expect_err("refused").to_string()
        };
        assert!(take(Place::Head, None).contains("deleted"));
        let newer = Head { format: FORMAT + 1, revision: 1, ..Head::default() };
        assert!(take(Place::Head, Some(&bytes(&newer))).contains("newer version"));
        assert!(take(mesh("a").0, Some(b"\xff\xff")).contains("/s/r/Mesh//a"));
        let unknown = Place::UnknownKind { kind: "MeshWormhole".into(), name: "w".into() };
        assert!(take(unknown, Some(b"")).contains("MeshWormhole"));
    }
}
