//! Calls of other members.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use graticule_runtime::listen::Io;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::rpc::{self, Answer, Appended, Call, ForwardAnswer};
use crate::codec;
use crate::machine::blocking;
use crate::snapshot::SnapshotFile;
use crate::types::{Member, MemberId, Types, Vote};

/// Makes one connection to a member, authenticated in both directions. A simulation passes its own.
pub type Connector = Arc<dyn Fn(Member) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// Idle connections that are kept per member and purpose.
const IDLE_MAX: usize = 8;
/// Writes that are under way to the leader at once, each on a connection of its own; more wait.
const FORWARDS_MAX: usize = 64;
/// Time to connect and be greeted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for entries to be sent, made durable and answered, beside [`APPEND_RATE`].
const APPEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of entries per second that a member must take at least.
const APPEND_RATE: usize = 1 << 20;
/// Time for one part of a snapshot; the last one takes as long as installing it.
const PART_TIMEOUT: Duration = Duration::from_secs(60);

/// What connections of a member begin with.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) connector: Option<Connector>,
    pub(crate) from: MemberId,
    pub(crate) cluster: Arc<Mutex<String>>,
    /// Where the members are now; a stream of openraft may know an older address.
    pub(crate) members: Arc<Mutex<BTreeMap<MemberId, Member>>>,
    /// Whether a leader has said that this one is no member any more.
    pub(crate) is_removed: Arc<AtomicBool>,
    /// Members that could not be reached when it was tried last: each loss is told once.
    pub(crate) lost: Arc<Mutex<BTreeSet<MemberId>>>,
    pub(crate) inline: bool,
}

/// Calls of one member for one purpose: connections are reused and never shared at the same time.
pub(crate) struct Peer {
    network: Network,
    id: MemberId,
    member: Member,
    idle: Mutex<Vec<Box<dyn Io>>>,
    forwards: Semaphore,
}

impl Network {
    pub(crate) fn peer(&self, id: MemberId, member: Member) -> Peer {
        let forwards = Semaphore::new(FORWARDS_MAX);
        Peer { network: self.clone(), id, member, idle: Mutex::default(), forwards }
    }
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer that does not fit the call")
}

impl Peer {
    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    async fn connect(&self, limit: Duration) -> io::Result<Box<dyn Io>> {
        let connected = timeout(CONNECT_TIMEOUT.min(limit), self.connect_and_greet()).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        self.tell(connected.as_ref().err());
        connected.map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error))
    }

    /// Says when the member is lost, and when it is back.
    fn tell(&self, failure: Option<&io::Error>) {
        let (member, address) = (format!("{:016x}", self.id), &self.member.address);
        let mut lost = self.network.lost.lock();
        match failure {
            Some(error) if lost.insert(self.id) => {
                tracing::warn!(member, address, %error, "a member of the store cannot be reached");
            }
            None if lost.remove(&self.id) => {
                tracing::info!(member, address, "the member of the store can be reached again");
            }
            _ => {}
        }
    }

    async fn connect_and_greet(&self) -> io::Result<Box<dyn Io>> {
        let Some(connector) = &self.network.connector else {
            return Err(io::Error::other("this member stands alone and has no connections to others"));
        };
        let known = self.network.members.lock().get(&self.id).cloned();
        let mut io = connector(known.unwrap_or_else(|| self.member.clone())).await?;
        let hello = rpc::Hello {
            protocol: rpc::PROTOCOL,
            cluster: self.network.cluster.lock().clone(),
            from: self.network.from,
            to: self.id,
        };
        let hello = rpc::frame(&rpc::Request { call: Some(Call::Hello(hello)) })?;
        match exchange(&mut io, &hello).await? {
            Answer::Welcome(true) => Ok(io),
            Answer::Failed(reason) => Err(io::Error::other(reason)),
            _ => Err(unexpected()),
        }
    }

    /// One call. After an error nothing is known about its effect, unless it is `NotConnected`: then there is none.
    async fn call(&self, call: Call, limit: Duration) -> io::Result<Answer> {
        self.call_again(call, limit, &mut false).await
    }

    /// As [`call`](Self::call), which may send twice: `is_repeated` says whether an earlier request may have been taken,
    /// also when an answer comes.
    async fn call_again(&self, call: Call, limit: Duration, is_repeated: &mut bool) -> io::Result<Answer> {
        let request = rpc::frame(&rpc::Request { call: Some(call) })?;
        let kept = self.idle.lock().pop();
        if let Some(mut io) = kept {
            match timeout(limit, exchange(&mut io, &request)).await {
                Ok(Ok(answer)) => return self.answered(io, answer),
                // Probably the other member was restarted; calls may be repeated.
                Ok(Err(_)) => {
                    *is_repeated = true;
                    self.idle.lock().clear();
                }
                Err(_) => {
                    self.idle.lock().clear();
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
        let mut io = self.connect(limit).await.map_err(|error| match *is_repeated {
            true => io::Error::new(io::ErrorKind::ConnectionAborted, error),
            false => error,
        })?;
        // A connection whose call did not end is dropped with it.
        let answer = timeout(limit, exchange(&mut io, &request)).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        self.answered(io, answer)
    }

    fn answered(&self, io: Box<dyn Io>, answer: Answer) -> io::Result<Answer> {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(io);
        }
        match answer {
            Answer::Failed(reason) => Err(io::Error::other(reason)),
            answer => Ok(answer),
        }
    }

    /// Hands a proposal to the leader. The answer is about the last time that it was sent; `is_repeated` says whether an
    /// earlier one may have been taken.
    pub(crate) async fn forward(
        &self,
        proposal: Bytes,
        limit: Duration,
        is_repeated: &mut bool,
    ) -> io::Result<ForwardAnswer> {
        let _permit = self.forwards.acquire().await.map_err(io::Error::other)?;
        match self.call_again(Call::Forward(proposal), limit, is_repeated).await? {
            Answer::Forward(answer) => {
                let answer = ForwardAnswer::try_from(answer).map_err(|_| unexpected())?;
                if answer == ForwardAnswer::Removed {
                    self.network.is_removed.store(true, Ordering::Relaxed);
                }
                Ok(answer)
            }
            _ => Err(unexpected()),
        }
    }

    /// Index of the entry that must be applied for a read that begins now; none: it does not lead.
    pub(crate) async fn read_index(&self, limit: Duration) -> io::Result<Option<u64>> {
        match self.call(Call::ReadIndex(true), limit).await? {
            Answer::ReadIndex(answer) => Ok(answer.index),
            _ => Err(unexpected()),
        }
    }

    /// Hands a change of the members to the leader.
    pub(crate) async fn change(&self, change: rpc::Change, limit: Duration) -> io::Result<rpc::ChangeAnswer> {
        match self.call(Call::Change(change), limit).await? {
            Answer::Change(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    async fn ballot(&self, call: Call, limit: Duration) -> io::Result<VoteResponse<Types>> {
        match self.call(call, limit).await? {
            Answer::Vote(answer) => {
                if answer.is_removed {
                    self.network.is_removed.store(true, Ordering::Relaxed);
                }
                let vote = codec::decode_vote(answer.vote.ok_or_else(unexpected)?);
                Ok(VoteResponse::new(vote, answer.last.map(codec::decode_log_id), answer.granted))
            }
            _ => Err(unexpected()),
        }
    }

    async fn append(&self, request: AppendEntriesRequest<Types>) -> io::Result<AppendEntriesResponse<Types>> {
        let append = rpc::Append {
            vote: Some(codec::encode_vote(&request.vote)),
            previous: request.prev_log_id.as_ref().map(codec::encode_log_id),
            entries: request.entries.iter().map(codec::encode_entry).collect(),
            committed: request.leader_commit.as_ref().map(codec::encode_log_id),
        };
        // The one of openraft is the interval of heartbeats, which a large entry or a slow disk may exceed.
        let len = prost::Message::encoded_len(&append) / APPEND_RATE;
        let limit = APPEND_TIMEOUT + Duration::from_secs(len as u64);
        let Answer::Append(answer) = self.call(Call::Append(append), limit).await? else {
            return Err(unexpected());
        };
        match answer.outcome() {
            Appended::All => Ok(AppendEntriesResponse::Success),
            Appended::Part => {
                Ok(AppendEntriesResponse::PartialSuccess(answer.upto.map(codec::decode_log_id)))
            }
            Appended::Conflict => Ok(AppendEntriesResponse::Conflict),
            Appended::HigherVote => {
                let vote = answer.higher.map(codec::decode_vote).ok_or_else(unexpected)?;
                Ok(AppendEntriesResponse::HigherVote(vote))
            }
            Appended::Unknown => Err(unexpected()),
        }
    }

    /// On one connection: the parts belong together.
    async fn send_snapshot(&self, vote: Vote, file: SnapshotFile) -> io::Result<SnapshotResponse<Types>> {
        let mut io = self.connect(CONNECT_TIMEOUT).await?;
        let (inline, source) = (self.network.inline, Arc::new(file.source()?));
        let mut offset = 0;
        loop {
            let source = source.clone();
            let (bytes, is_last) = blocking(inline, move || source.part(offset, rpc::CHUNK_LEN)).await??;
            let len = bytes.len() as u64;
            let part = rpc::SnapshotPart { vote: Some(codec::encode_vote(&vote)), offset, bytes, is_last };
            let request = rpc::frame(&rpc::Request { call: Some(Call::Snapshot(part)) })?;
            let answer = timeout(PART_TIMEOUT, exchange(&mut io, &request)).await;
            let answer = match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
                Answer::Snapshot(answer) => answer,
                Answer::Failed(reason) => return Err(io::Error::other(reason)),
                _ => return Err(unexpected()),
            };
            offset += len;
            if let Some(higher) = answer.vote.map(codec::decode_vote) {
                return Ok(SnapshotResponse::new(higher));
            }
            if is_last {
                return Err(unexpected());
            }
        }
    }
}

async fn exchange(io: &mut Box<dyn Io>, request: &[u8]) -> io::Result<Answer> {
    io.write_all(request).await?;
    io.flush().await?;
    let response: Option<rpc::Response> = rpc::receive(io, rpc::MESSAGE_LEN_MAX).await?;
    let response = response.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    response.answer.ok_or_else(unexpected)
}

fn rpc_error(error: io::Error) -> RPCError<Types> {
    if error.kind() == io::ErrorKind::NotConnected {
        return Unreachable::new(&error).into();
    }
    NetworkError::new(&error).into()
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: MemberId, node: &Member) -> Peer {
        self.peer(target, node.clone())
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.append(rpc).await.map_err(rpc_error)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(Call::Vote(vote_call(&rpc)), option.soft_ttl()).await.map_err(rpc_error)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(Call::PreVote(vote_call(&rpc)), option.soft_ttl()).await.map_err(rpc_error)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot.snapshot) => sent.map_err(|error| {
                if error.kind() == io::ErrorKind::NotConnected {
                    return Unreachable::new(&error).into();
                }
                NetworkError::new(&error).into()
            }),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<Types>, RPCError<Types>> {
        let call = rpc::Transfer {
            from: Some(codec::encode_vote(req.from_leader())),
            to: *req.to_node_id(),
            last: req.last_log_id().map(codec::encode_log_id),
        };
        match self.call(Call::Transfer(call), option.soft_ttl()).await.map_err(rpc_error)? {
            // Why it refused is in its own log; openraft only looks at whether the call arrived.
            Answer::Transfer(_) => Ok(Ok(())),
            _ => Err(rpc_error(unexpected())),
        }
    }
}

fn vote_call(request: &VoteRequest<Types>) -> rpc::VoteCall {
    rpc::VoteCall {
        vote: Some(codec::encode_vote(&request.vote)),
        last: request.last_log_id.as_ref().map(codec::encode_log_id),
        is_transfer: request.leadership_transfer,
    }
}
