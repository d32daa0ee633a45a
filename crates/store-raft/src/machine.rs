//! The state machine: [`transaction::apply`] over the snapshot in memory, entry by entry.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use graticule_model::Timestamp;
use graticule_store::history::History;
use graticule_store::seal::Sealer;
use graticule_store::{ChangeBatch, CommitError, Committed, Revision, Snapshot, transaction};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::codec;
use crate::disk::Disk;
use crate::proposal::{Proposal, Work};
use crate::snapshot::{self, Contents, SnapshotFile};
use crate::staging::{self, Staging};
use crate::types::{Entry, LogId, Proposed, SnapshotMeta, StoredMembership, Types};
use crate::wire;

/// Proposals that are remembered, so that one that arrives twice is applied once.
const RECENT_LEN: usize = 4096;
/// Entries that are decoded together, and their bytes; the last of them may be longer.
const APPLY_COUNT_MAX: usize = 512;
const APPLY_LEN_MAX: usize = 4 << 20;

/// Identity of a proposal.
pub(crate) type ProposalId = [u8; 16];
type Answer = Result<Committed, CommitError>;

/// The state of one member. Shared by openraft, which writes it, and by the store, which reads it.
pub(crate) struct Machine {
    /// None once the store is closed.
    disk: Mutex<Option<Arc<dyn Disk>>>,
    pub(crate) history: History,
    /// Whether files are written by the caller itself (simulation: no threads).
    pub(crate) inline: bool,
    pub(crate) files: snapshot::Files,
    /// Whether a secret was read that the current key did not seal, so that a snapshot should be written.
    outdated: AtomicBool,
    /// Bytes of the newest snapshot file; 0 = there is none.
    snapshot_len: AtomicU64,
    state: Mutex<State>,
    waiting: Mutex<HashMap<ProposalId, oneshot::Sender<Answer>>>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<LogId>,
    membership: StoredMembership,
    snapshot: Snapshot,
    recent: Recent,
    staging: Option<Staging>,
}

/// The proposals that were applied last.
#[derive(Debug, Default)]
struct Recent {
    order: VecDeque<(ProposalId, u64)>,
    revisions: HashMap<ProposalId, u64>,
    /// Index of the newest proposal that is not in `order` any more.
    forgotten: u64,
}

impl Recent {
    fn restore(recent: &[wire::Recent], forgotten: u64) -> Recent {
        let mut restored = Recent { forgotten, ..Recent::default() };
        for proposal in recent {
            if let Some(id) = proposal_id(&proposal.id) {
                restored.order.push_back((id, proposal.index));
                restored.revisions.insert(id, proposal.revision);
            }
        }
        restored
    }

    fn remember(&mut self, id: ProposalId, index: u64, revision: u64) {
        self.order.push_back((id, index));
        self.revisions.insert(id, revision);
        while self.order.len() > RECENT_LEN {
            if let Some((id, index)) = self.order.pop_front() {
                self.revisions.remove(&id);
                self.forgotten = index;
            }
        }
    }

    fn to_wire(&self) -> Vec<wire::Recent> {
        let one = |(id, index): &(ProposalId, u64)| wire::Recent {
            id: Bytes::copy_from_slice(id),
            index: *index,
            revision: self.revisions.get(id).copied().unwrap_or_default(),
        };
        self.order.iter().map(one).collect()
    }
}

pub(crate) fn proposal_id(bytes: &[u8]) -> Option<ProposalId> {
    bytes.try_into().ok()
}

impl Machine {
    /// The state that `contents` says, or none.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        contents: Option<Contents>,
        history_len: usize,
        inline: bool,
        files: snapshot::Files,
    ) -> Machine {
        let outdated = contents.as_ref().is_some_and(|contents| contents.is_outdated);
        let snapshot_len = contents.as_ref().map_or(0, |contents| contents.len);
        let state = contents.map_or_else(State::default, State::of);
        Machine {
            disk: Mutex::new(Some(disk)),
            history: History::new(state.snapshot.clone(), history_len),
            inline,
            files,
            outdated: AtomicBool::new(outdated),
            snapshot_len: AtomicU64::new(snapshot_len),
            state: Mutex::new(state),
            waiting: Mutex::new(HashMap::new()),
        }
    }

    /// The data directory, until the store is closed.
    pub(crate) fn disk(&self) -> io::Result<Arc<dyn Disk>> {
        self.disk.lock().clone().ok_or_else(|| io::Error::other("the store is closed"))
    }

    /// Lets go of the data directory.
    pub(crate) fn release_disk(&self) {
        self.disk.lock().take();
    }

    /// What opens and seals secrets.
    pub(crate) fn sealer(&self) -> &Sealer {
        &self.files.sealer
    }

    /// Whether files hold secrets that the current key did not seal, as far as they were read.
    pub(crate) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }

    /// Bytes of the newest snapshot file.
    pub(crate) fn snapshot_len(&self) -> usize {
        usize::try_from(self.snapshot_len.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Index of the last entry that was applied.
    pub(crate) fn applied(&self) -> u64 {
        self.state.lock().last.map_or(0, |last| last.index)
    }

    /// The answer to a proposal, once it is applied here.
    pub(crate) fn wait_for(&self, id: ProposalId) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(id, sender);
        receiver
    }

    /// Nobody waits for this proposal any more.
    pub(crate) fn give_up(&self, id: &ProposalId) {
        self.waiting.lock().remove(id);
    }

    fn answer(&self, id: &ProposalId, answer: Answer) {
        if let Some(sender) = self.waiting.lock().remove(id) {
            // The writer may have gone.
            let _ = sender.send(answer);
        }
    }

    fn apply_proposal(
        &self,
        state: &mut State,
        id: LogId,
        proposal: Proposal,
    ) -> Result<(), codec::DecodeError> {
        if state.recent.revisions.contains_key(&proposal.id) {
            // It was sent again because an answer was lost; the first one counts.
            return Ok(());
        }
        let answer = if proposal.floor < state.recent.forgotten {
            Err(CommitError::Uncertain("it came too late to know whether it is a repetition".into()))
        } else if proposal.fence != 0 && proposal.fence != id.leader_id.term {
            Err(CommitError::Fenced(proposal.fence))
        } else {
            if proposal.is_outdated {
                self.outdated.store(true, Ordering::Relaxed);
            }
            match proposal.work? {
                Work::Txn(txn) => self.apply_txn(state, txn),
                Work::Replace(replace) => self.apply_replace(state, id, replace)?,
            }
        };
        let revision = answer.as_ref().map_or(0, |committed| committed.revision.0);
        state.recent.remember(proposal.id, id.index, revision);
        self.answer(&proposal.id, answer);
        Ok(())
    }

    fn apply_replace(
        &self,
        state: &mut State,
        id: LogId,
        replace: wire::Replace,
    ) -> Result<Answer, codec::DecodeError> {
        let replaced = match staging::step(&mut state.staging, &state.snapshot, id, replace, self.sealer())? {
            Ok(replaced) => replaced,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Some(snapshot) = replaced {
            state.snapshot = snapshot.clone();
            self.history.reset(snapshot);
        }
        let revision = state.snapshot.revision();
        // The changes are told by the feed, which resynchronises.
        let batch = ChangeBatch { revision, committed_at: Timestamp::UNIX_EPOCH, changes: Vec::new() };
        Ok(Ok(Committed { revision, batch: Arc::new(batch) }))
    }

    fn apply_txn(&self, state: &mut State, txn: graticule_store::Txn) -> Answer {
        // Every proposal says its time.
        let applied = transaction::apply(&state.snapshot, txn, Timestamp::UNIX_EPOCH)?;
        let revision = applied.batch.revision;
        if !applied.batch.changes.is_empty() {
            state.snapshot = applied.snapshot.clone();
            self.history.publish(applied.snapshot, applied.batch.clone());
        }
        Ok(Committed { revision, batch: applied.batch })
    }

    fn contents(&self) -> Contents {
        let state = self.state.lock();
        Contents {
            meta: SnapshotMeta { last_log_id: state.last, last_membership: state.membership.clone() },
            snapshot: state.snapshot.clone(),
            recent: state.recent.to_wire(),
            forgotten: state.recent.forgotten,
            staging: state.staging.clone(),
            is_outdated: false,
            len: 0,
        }
    }

    /// Writes a snapshot of the state.
    pub(crate) fn write_snapshot(&self) -> io::Result<SnapshotFile> {
        let file = snapshot::write(&self.disk()?, &self.contents(), &self.files)?;
        self.note_snapshot(&file);
        Ok(file)
    }

    fn note_snapshot(&self, file: &SnapshotFile) {
        // One that came from the leader meanwhile may have taken its place.
        if let Ok(len) = file.len() {
            self.snapshot_len.store(len, Ordering::Relaxed);
        }
    }

    /// Replaces everything by the contents of a snapshot.
    fn install(&self, contents: Contents) {
        self.snapshot_len.store(contents.len, Ordering::Relaxed);
        let mut state = self.state.lock();
        *state = State::of(contents);
        self.history.reset(state.snapshot.clone());
        let mut waiting: Vec<ProposalId> = self.waiting.lock().keys().copied().collect();
        waiting.sort_unstable();
        for id in waiting {
            let Some(revision) = state.recent.revisions.get(&id).copied() else { continue };
            let answer = match revision {
                0 => Err(CommitError::Unavailable(
                    "the write was refused, and the reason went by while this replica caught up".into(),
                )),
                revision => Ok(Committed {
                    revision: Revision(revision),
                    // The changes came with the snapshot.
                    batch: Arc::new(ChangeBatch {
                        revision: Revision(revision),
                        committed_at: Timestamp::UNIX_EPOCH,
                        changes: Vec::new(),
                    }),
                }),
            };
            self.answer(&id, answer);
        }
    }
}

impl State {
    fn of(contents: Contents) -> State {
        State {
            last: contents.meta.last_log_id,
            membership: contents.meta.last_membership,
            snapshot: contents.snapshot,
            recent: Recent::restore(&contents.recent, contents.forgotten),
            staging: contents.staging,
        }
    }
}

/// The handle that openraft has.
#[derive(Clone)]
pub(crate) struct MachineHandle(pub(crate) Arc<Machine>);

/// The proposal of an entry, if it is one.
fn proposed(next: &io::Result<EntryResponder<Types>>) -> Option<&Bytes> {
    match next {
        Ok((Entry { payload: EntryPayload::Normal(Proposed(bytes)), .. }, _)) => Some(bytes),
        _ => None,
    }
}

impl MachineHandle {
    fn apply_entry(
        &self,
        entry: Entry,
        proposal: Option<Result<Proposal, codec::DecodeError>>,
    ) -> io::Result<()> {
        let id = entry.log_id();
        let mut state = self.0.state.lock();
        // The member before one that was started again in place may have been at work a little longer.
        if state.last.is_some_and(|last| last.index >= id.index) {
            return Ok(());
        }
        state.staging.take_if(|staging| staging.is_given_up(id));
        if let EntryPayload::Membership(membership) = entry.payload {
            state.membership = StoredMembership::new(Some(id), membership);
        }
        if let Some(proposal) = proposal {
            let applied = proposal.and_then(|proposal| self.0.apply_proposal(&mut state, id, proposal));
            applied.map_err(|error| io::Error::other(format!("entry {} of the log: {error}", id.index)))?;
        }
        state.last = Some(id);
        Ok(())
    }
}

impl RaftStateMachine<Types> for MachineHandle {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.0.state.lock();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = entries.fuse();
        while let Some(first) = entries.next().await {
            // What is there at once is decoded together.
            let mut len = proposed(&first).map_or(0, Bytes::len);
            let mut chunk = vec![first];
            while chunk.len() < APPLY_COUNT_MAX
                && len < APPLY_LEN_MAX
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                len += proposed(&next).map_or(0, Bytes::len);
                chunk.push(next);
            }
            let encoded: Vec<Bytes> = chunk.iter().filter_map(proposed).cloned().collect();
            let mut proposals = Proposal::read_all(&encoded, self.0.sealer(), !self.0.inline).into_iter();
            drop(encoded);
            for next in chunk {
                let (entry, responder) = next?;
                let proposal = match &entry.payload {
                    EntryPayload::Normal(_) => proposals.next(),
                    _ => None,
                };
                self.apply_entry(entry, proposal)?;
                if let Some(responder) = responder {
                    responder.send(());
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.0.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: SnapshotFile) -> Result<(), io::Error> {
        let machine = self.0.clone();
        let wanted = meta.last_log_id;
        let contents = blocking(machine.inline, move || snapshot::install(&file, &machine.files)).await??;
        if contents.meta.last_log_id != wanted {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the snapshot is not the one that was announced",
            ));
        }
        self.0.install(contents);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::type_config::alias::SnapshotOf<Types, SnapshotFile>>, io::Error> {
        let Some(file) = snapshot::newest(&self.0.disk()?)? else { return Ok(None) };
        let disk_file = file.clone();
        let meta = blocking(self.0.inline, move || snapshot::read_meta(&disk_file)).await?;
        let meta = meta.map_err(io::Error::other)?;
        Ok(Some(openraft::Snapshot { meta, snapshot: file }))
    }
}

/// Writes what the state is when it is asked to.
pub(crate) struct Builder(Arc<Machine>);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::type_config::alias::SnapshotOf<Types, SnapshotFile>, io::Error> {
        // A persistent map: the copy costs nothing, and writes go on beside it.
        let contents = self.0.contents();
        let meta = contents.meta.clone();
        let disk = self.0.disk()?;
        let machine = self.0.clone();
        let file =
            blocking(self.0.inline, move || snapshot::write(&disk, &contents, &machine.files)).await??;
        self.0.note_snapshot(&file);
        if self.0.outdated.swap(false, Ordering::Relaxed)
            && let Some(key) = self.0.sealer().key_id()
        {
            tracing::info!(
                key,
                file = %file.path().display(),
                "secrets are encrypted with this key from this snapshot on; the store needs no other key any more"
            );
        }
        Ok(openraft::Snapshot { meta, snapshot: file })
    }
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    inline: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if inline {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
