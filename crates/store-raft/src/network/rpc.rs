//! Messages between members. A connection carries one request at a time, each answered before the next; the first
//! one is [`Hello`].

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::wire;

/// Version of the protocol; members of another one are refused.
pub(crate) const PROTOCOL: u32 = 1;
/// Longest message: entries up to [`READ_LEN_MAX`](crate::log::READ_LEN_MAX), one transaction of the largest size
/// behind them, and what is around them.
pub(crate) const MESSAGE_LEN_MAX: usize = crate::options::TXN_LEN_MAX + crate::log::READ_LEN_MAX + (1 << 20);
/// Room for a message that is made before its bytes arrive; the rest is made as they come.
const ROOM_LEN: usize = 64 << 10;
/// Bytes of a snapshot in one message.
pub(crate) const CHUNK_LEN: usize = 512 << 10;

/// A request.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct Request {
    #[prost(oneof = "Call", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub(crate) call: Option<Call>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
#[prost(skip_debug)]
pub(crate) enum Call {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Append(Append),
    #[prost(message, tag = "3")]
    Vote(VoteCall),
    #[prost(message, tag = "4")]
    PreVote(VoteCall),
    #[prost(message, tag = "5")]
    Transfer(Transfer),
    /// An encoded proposal for the leader.
    #[prost(bytes = "bytes", tag = "6")]
    Forward(Bytes),
    #[prost(message, tag = "7")]
    Snapshot(SnapshotPart),
    /// Up to which entry must be applied for a read that begins now?
    #[prost(bool, tag = "8")]
    ReadIndex(bool),
    #[prost(message, tag = "9")]
    Change(Change),
}

/// Who calls whom.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) protocol: u32,
    #[prost(string, tag = "2")]
    pub(crate) cluster: String,
    #[prost(uint64, tag = "3")]
    pub(crate) from: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) to: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct Append {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<wire::Vote>,
    #[prost(message, optional, tag = "2")]
    pub(crate) previous: Option<wire::LogId>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) entries: Vec<wire::Entry>,
    #[prost(message, optional, tag = "4")]
    pub(crate) committed: Option<wire::LogId>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VoteCall {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<wire::Vote>,
    #[prost(message, optional, tag = "2")]
    pub(crate) last: Option<wire::LogId>,
    #[prost(bool, tag = "3")]
    pub(crate) is_transfer: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Transfer {
    #[prost(message, optional, tag = "1")]
    pub(crate) from: Option<wire::Vote>,
    #[prost(uint64, tag = "2")]
    pub(crate) to: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) last: Option<wire::LogId>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct SnapshotPart {
    /// The leader's vote.
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<wire::Vote>,
    /// Where the bytes go; 0 begins a new file.
    #[prost(uint64, tag = "2")]
    pub(crate) offset: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) bytes: Bytes,
    /// Whether the file is complete.
    #[prost(bool, tag = "4")]
    pub(crate) is_last: bool,
}

/// A change of the members, for the leader.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Change {
    #[prost(enumeration = "ChangeKind", tag = "1")]
    pub(crate) kind: i32,
    /// Whom it is about; name and address matter when it is added.
    #[prost(message, optional, tag = "2")]
    pub(crate) member: Option<wire::Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ChangeKind {
    /// What an unset field says: no change that this version knows.
    Unknown = 0,
    Add = 1,
    Remove = 2,
    Transfer = 3,
}

/// An answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6, 7, 8, 15")]
    pub(crate) answer: Option<Answer>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Answer {
    /// The member that was meant.
    #[prost(bool, tag = "1")]
    Welcome(bool),
    #[prost(message, tag = "2")]
    Append(AppendAnswer),
    #[prost(message, tag = "3")]
    Vote(VoteAnswer),
    #[prost(message, tag = "4")]
    Transfer(TransferAnswer),
    #[prost(enumeration = "ForwardAnswer", tag = "5")]
    Forward(i32),
    #[prost(message, tag = "6")]
    Snapshot(SnapshotAnswer),
    /// None: this member does not lead.
    #[prost(message, tag = "7")]
    ReadIndex(ReadIndexAnswer),
    #[prost(message, tag = "8")]
    Change(ChangeAnswer),
    /// The call failed at the other member.
    #[prost(string, tag = "15")]
    Failed(String),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AppendAnswer {
    #[prost(enumeration = "Appended", tag = "1")]
    pub(crate) outcome: i32,
    /// How far a part was appended.
    #[prost(message, optional, tag = "2")]
    pub(crate) upto: Option<wire::LogId>,
    #[prost(message, optional, tag = "3")]
    pub(crate) higher: Option<wire::Vote>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Appended {
    /// What an unset field says: no answer at all.
    Unknown = 0,
    All = 1,
    Part = 2,
    Conflict = 3,
    HigherVote = 4,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VoteAnswer {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<wire::Vote>,
    #[prost(bool, tag = "2")]
    pub(crate) granted: bool,
    #[prost(message, optional, tag = "3")]
    pub(crate) last: Option<wire::LogId>,
    /// The candidate is no member any more, says the leader.
    #[prost(bool, tag = "4")]
    pub(crate) is_removed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TransferAnswer {
    /// Why not; empty = it stands for election.
    #[prost(string, tag = "1")]
    pub(crate) refused: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ForwardAnswer {
    /// It may have been proposed.
    Unknown = 0,
    /// It is committed and was applied there.
    Applied = 1,
    /// It was not proposed: this member does not lead.
    NotLeader = 2,
    /// It was not proposed: this member cannot write.
    Unavailable = 3,
    /// It was not proposed: it comes from somebody who is no member any more.
    Removed = 4,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadIndexAnswer {
    /// Index of the entry; none: this member does not lead.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) index: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ChangeAnswer {
    #[prost(enumeration = "ChangeOutcome", tag = "1")]
    pub(crate) outcome: i32,
    /// Why not, in words.
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ChangeOutcome {
    /// What an unset field says: no answer at all.
    Unknown = 0,
    Done = 1,
    NotLeader = 2,
    NoMember = 3,
    LastMember = 4,
    Failed = 5,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SnapshotAnswer {
    /// The vote of the member, once the snapshot is installed.
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<wire::Vote>,
}

/// A message as it is sent: its length, then itself.
pub(crate) fn frame(message: &impl prost::Message) -> io::Result<Bytes> {
    let len = message.encoded_len();
    if len > MESSAGE_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a message of {len} bytes")));
    }
    let mut bytes = Vec::with_capacity(4 + len);
    bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    message.encode(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.into())
}

/// Sends a message.
pub(crate) async fn send(
    io: &mut (impl AsyncWrite + Unpin),
    message: &impl prost::Message,
) -> io::Result<()> {
    io.write_all(&frame(message)?).await?;
    io.flush().await
}

/// Receives a message; none at the end of the connection.
pub(crate) async fn receive<M: prost::Message + Default>(
    io: &mut (impl AsyncRead + Unpin),
    len_max: usize,
) -> io::Result<Option<M>> {
    let mut head = [0; 4];
    if io.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    io.read_exact(&mut head[1..]).await?;
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if len > len_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes")));
    }
    // Not all at once: whoever says that much must send it, too.
    let mut bytes = Vec::with_capacity(len.min(ROOM_LEN));
    io.take(len as u64).read_to_end(&mut bytes).await?;
    if bytes.len() != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let decoded = M::decode(Bytes::from(bytes));
    decoded.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
