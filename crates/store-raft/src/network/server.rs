//! Answers calls of other members.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use graticule_runtime::listen::Incoming;
use graticule_runtime::{Connection, Drain};
use openraft::async_runtime::WatchReceiver as _;
use openraft::entry::RaftEntry as _;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::{ReadPolicy, ServerState};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::rpc::{self, Answer, Appended, Call, ForwardAnswer};
use crate::codec::{self, DecodeError};
use crate::log::Log;
use crate::machine::blocking;
use crate::node::{RaftHandle, Running, Shared};
use crate::snapshot::Arriving;
use crate::types::{Entry, MemberId, Membership, Proposed, Types, Vote};
use crate::{cluster, wire};

/// Open connections of members; more wait.
const CONNECTIONS_MAX: usize = 256;
/// Time for the first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest first message.
const HELLO_LEN_MAX: usize = 4096;
/// Silence after which a connection is closed; who needs it makes another one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest snapshot that is taken.
const SNAPSHOT_LEN_MAX: u64 = 64 << 30;

/// Serves members until the drain. Connections come authenticated.
pub(crate) async fn serve(shared: Arc<Shared>, mut incoming: Incoming, drain: Drain) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = drain.signaled() => return,
            () = shared.closing.cancelled() => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            next = incoming.next(), if connections.len() < CONNECTIONS_MAX => {
                let Some(next) = next else { return };
                if let Ok(connection) = next {
                    let shared = shared.clone();
                    connections.spawn(async move {
                        if let Err(error) = Session::new(shared).run(connection).await {
                            tracing::debug!(%error, "the connection of a member ended");
                        }
                    });
                }
            }
        }
    }
}

/// One connection.
struct Session {
    shared: Arc<Shared>,
    from: MemberId,
    /// Identity of the cluster when it began; another one ends it.
    cluster: String,
    /// A snapshot that arrives.
    arriving: Option<Arriving>,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn malformed(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Session {
    fn new(shared: Arc<Shared>) -> Session {
        Session { shared, from: 0, cluster: String::new(), arriving: None }
    }

    async fn run(mut self, mut io: Connection) -> io::Result<()> {
        let hello = timeout(HELLO_TIMEOUT, rpc::receive::<rpc::Request>(&mut io, HELLO_LEN_MAX)).await;
        let hello = hello.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let Some(rpc::Request { call: Some(Call::Hello(hello)) }) = hello else {
            return Err(invalid("the first message is no greeting"));
        };
        let refused = self.check(&hello).err();
        if let Some(reason) = &refused {
            tracing::warn!(reason, from = format!("{:016x}", hello.from), "a member is refused");
        }
        let is_welcome = refused.is_none();
        let answer = refused.map_or(Answer::Welcome(true), Answer::Failed);
        rpc::send(&mut io, &rpc::Response { answer: Some(answer) }).await?;
        if !is_welcome {
            return Ok(());
        }
        (self.from, self.cluster) = (hello.from, hello.cluster);
        loop {
            let request = timeout(IDLE_TIMEOUT, rpc::receive::<rpc::Request>(&mut io, rpc::MESSAGE_LEN_MAX));
            let request = request.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            let Some(request) = request else { return Ok(()) };
            if *self.shared.network.cluster.lock() != self.cluster {
                return Err(invalid("this member belongs to another cluster now"));
            }
            let answer = match request.call {
                Some(call) => self.answer(call).await,
                None => Err(invalid("a call of a kind that this version does not know")),
            };
            let answer = answer.unwrap_or_else(|error| Answer::Failed(error.to_string()));
            rpc::send(&mut io, &rpc::Response { answer: Some(answer) }).await?;
        }
    }

    fn check(&self, hello: &rpc::Hello) -> Result<(), String> {
        if hello.protocol != rpc::PROTOCOL {
            let (found, own) = (hello.protocol, rpc::PROTOCOL);
            return Err(format!("protocol {found} is spoken, this member speaks {own}"));
        }
        if hello.to != self.shared.id {
            return Err(format!("member {:016x} was meant, this is {:016x}", hello.to, self.shared.id));
        }
        self.shared.join_cluster(&hello.cluster)
    }

    fn running(&self) -> io::Result<Running> {
        self.shared.running().ok_or_else(|| io::Error::other("the member does not run now"))
    }

    /// Whether this member leads and knows that the caller was removed.
    fn is_removed(&self, raft: &RaftHandle) -> bool {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let knows = |members: &Membership| members.get_node(&self.from).is_some();
        metrics.state == ServerState::Leader
            && !knows(metrics.committed_membership_config.membership())
            && !knows(metrics.membership_config.membership())
    }

    async fn answer(&mut self, call: Call) -> io::Result<Answer> {
        let Running { raft, log } = self.running()?;
        match call {
            Call::Hello(_) => Err(invalid("a second greeting")),
            Call::Append(append) => self.answer_append(&raft, append).await,
            Call::Vote(call) => {
                let answer = raft.vote(vote_request(call)?).await.map_err(io::Error::other)?;
                Ok(vote_answer(&answer, false))
            }
            Call::PreVote(call) => {
                let answer = raft.pre_vote(vote_request(call)?).await.map_err(io::Error::other)?;
                Ok(vote_answer(&answer, self.is_removed(&raft)))
            }
            Call::Transfer(call) => {
                let from = codec::decode_vote(call.from.ok_or_else(|| invalid("a transfer without vote"))?);
                let request = TransferLeaderRequest::new(from, call.to, call.last.map(codec::decode_log_id));
                let answer = raft.handle_transfer_leader(request).await.map_err(io::Error::other)?;
                let refused = answer.err().map(|error| error.to_string()).unwrap_or_default();
                Ok(Answer::Transfer(rpc::TransferAnswer { refused }))
            }
            Call::Forward(proposal) => self.answer_forward(proposal).await,
            Call::Snapshot(part) => self.answer_snapshot(&raft, &log, part).await,
            Call::ReadIndex(_) => answer_read_index(&raft).await,
            Call::Change(change) => Ok(Answer::Change(cluster::answer_change(&raft, change).await)),
        }
    }

    async fn answer_append(&self, raft: &RaftHandle, append: rpc::Append) -> io::Result<Answer> {
        let entries: Result<Vec<Entry>, _> = append.entries.into_iter().map(codec::decode_entry).collect();
        let request = AppendEntriesRequest {
            vote: codec::decode_vote(append.vote.ok_or_else(|| invalid("an append without vote"))?),
            prev_log_id: append.previous.map(codec::decode_log_id),
            entries: entries.map_err(malformed)?,
            leader_commit: append.committed.map(codec::decode_log_id),
        };
        check_order(&request)?;
        let answer = raft.append_entries(request).await.map_err(io::Error::other)?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.shared.heard_of_leader();
        }
        let answer = match answer {
            AppendEntriesResponse::Success => (Appended::All, None, None),
            AppendEntriesResponse::PartialSuccess(upto) => {
                (Appended::Part, upto.as_ref().map(codec::encode_log_id), None)
            }
            AppendEntriesResponse::Conflict => (Appended::Conflict, None, None),
            AppendEntriesResponse::HigherVote(vote) => {
                (Appended::HigherVote, None, Some(codec::encode_vote(&vote)))
            }
        };
        let (outcome, upto, higher) = answer;
        Ok(Answer::Append(rpc::AppendAnswer { outcome: outcome.into(), upto, higher }))
    }

    async fn answer_forward(&self, proposal: Bytes) -> io::Result<Answer> {
        let Running { raft, log } = self.running()?;
        // What this version cannot read must not get into the log.
        let decoded: wire::Proposal = codec::message("a proposal", proposal.clone()).map_err(malformed)?;
        if decoded.id.len() != 16 {
            return Err(invalid("a proposal without identity"));
        }
        self.check_proposal(decoded).map_err(malformed)?;
        let answer = if self.is_removed(&raft) {
            ForwardAnswer::Removed
        } else if !log.has_room(proposal.len() as u64) {
            ForwardAnswer::Unavailable
        } else {
            match raft.client_write(Proposed(proposal)).await {
                Ok(_) => ForwardAnswer::Applied,
                // It was refused before it came into the log.
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => ForwardAnswer::NotLeader,
                Err(_) => ForwardAnswer::Unknown,
            }
        };
        Ok(Answer::Forward(answer.into()))
    }

    fn check_proposal(&self, proposal: wire::Proposal) -> Result<(), DecodeError> {
        if proposal.form > wire::PROPOSAL_FORM {
            return Err(DecodeError::Malformed(
                "a proposal",
                "a newer version of the program wrote it".into(),
            ));
        }
        let sealer = self.shared.machine.sealer();
        codec::decode_txn(proposal.txn.unwrap_or_default(), sealer)?;
        if let Some(wire::ReplaceStep::Part(part)) = proposal.replace.and_then(|replace| replace.step) {
            for resource in part.resources {
                codec::decode_resource(resource, sealer)?;
            }
        }
        Ok(())
    }

    async fn answer_snapshot(
        &mut self,
        raft: &RaftHandle,
        log: &Log,
        part: rpc::SnapshotPart,
    ) -> io::Result<Answer> {
        let vote = codec::decode_vote(part.vote.ok_or_else(|| invalid("a snapshot without vote"))?);
        let own = raft.metrics().borrow_watched().vote;
        if own > vote {
            return Ok(snapshot_answer(Some(own)));
        }
        self.shared.heard_of_leader();
        let (disk, inline) = (self.shared.machine.disk()?, self.shared.options.log.inline);
        let arriving = match self.arriving.take() {
            Some(arriving) if part.offset > 0 => arriving,
            _ => {
                let name = format!("snapshot-{:016x}.received.tmp", self.shared.random.u64());
                blocking(inline, move || Arriving::create(disk, name)).await??
            }
        };
        if part.offset != arriving.len() || arriving.len() > SNAPSHOT_LEN_MAX {
            return Err(invalid("a part of a snapshot that does not follow the one before"));
        }
        let bytes = part.bytes;
        let arriving = blocking(inline, move || {
            let mut arriving = arriving;
            arriving.append(&bytes).map(|()| arriving)
        });
        let arriving = arriving.await??;
        if !part.is_last {
            self.arriving = Some(arriving);
            return Ok(snapshot_answer(None));
        }
        let files = self.shared.options.files();
        let finished = blocking(inline, move || arriving.finish(&files)).await?;
        let (meta, snapshot) = finished.map_err(io::Error::other)?;
        // The leader has sent the entries by now, and sent the snapshot again because an answer was lost: there is
        // nothing to install, and openraft would take its log for shorter than it is until the next entry comes.
        let own = raft.metrics().borrow_watched().vote;
        if own == vote && meta.last_log_id.is_some_and(|last| log.has(last)) {
            return Ok(snapshot_answer(Some(own)));
        }
        let answer = raft.install_full_snapshot(vote, openraft::Snapshot { meta, snapshot }).await;
        let answer = answer.map_err(io::Error::other)?;
        Ok(snapshot_answer(Some(answer.vote)))
    }
}

fn snapshot_answer(vote: Option<Vote>) -> Answer {
    Answer::Snapshot(rpc::SnapshotAnswer { vote: vote.as_ref().map(codec::encode_vote) })
}

async fn answer_read_index(raft: &RaftHandle) -> io::Result<Answer> {
    let index = match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Some(linearizer.read_log_id().log_id().index),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => None,
        Err(error) => return Err(io::Error::other(error)),
    };
    Ok(Answer::ReadIndex(rpc::ReadIndexAnswer { index }))
}

/// Entries follow each other and are of the leader's term at most: openraft relies on it.
fn check_order(request: &AppendEntriesRequest<Types>) -> io::Result<()> {
    let out_of_order = || invalid("entries that do not follow each other");
    let (mut index, mut term) = match &request.prev_log_id {
        Some(previous) => (previous.index.checked_add(1).ok_or_else(out_of_order)?, previous.leader_id.term),
        None => (0, 0),
    };
    for entry in &request.entries {
        let id = entry.log_id();
        if id.index != index || id.leader_id.term < term {
            return Err(out_of_order());
        }
        term = id.leader_id.term;
        index = index.checked_add(1).ok_or_else(out_of_order)?;
    }
    if term > request.vote.leader_id.term || !request.vote.committed {
        return Err(invalid("entries of somebody who does not lead"));
    }
    Ok(())
}

fn vote_request(call: rpc::VoteCall) -> io::Result<VoteRequest<Types>> {
    let vote = codec::decode_vote(call.vote.ok_or_else(|| invalid("a ballot without vote"))?);
    let last_log_id = call.last.map(codec::decode_log_id);
    Ok(VoteRequest { vote, last_log_id, leadership_transfer: call.is_transfer })
}

fn vote_answer(answer: &VoteResponse<Types>, is_removed: bool) -> Answer {
    Answer::Vote(rpc::VoteAnswer {
        vote: Some(codec::encode_vote(&answer.vote)),
        granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(codec::encode_log_id),
        is_removed,
    })
}
