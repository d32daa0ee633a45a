//! How openraft reaches other members.

use std::future::Future;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;

use crate::snapshot::SnapshotFile;
use crate::types::{Member, MemberId, Types, Vote};

/// Why a call of a member that stands alone fails.
#[derive(Debug, thiserror::Error)]
#[error("this member stands alone and has no connections to others")]
struct Alone;

/// The network of a member that stands alone.
pub(crate) struct NoNetwork;

impl RaftNetworkFactory<Types> for NoNetwork {
    type Network = NoNetwork;

    async fn new_client(&mut self, _target: MemberId, _node: &Member) -> NoNetwork {
        NoNetwork
    }
}

impl RaftNetworkV2<Types> for NoNetwork {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(Unreachable::new(&Alone).into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(Unreachable::new(&Alone).into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: SnapshotOf<Types, SnapshotFile>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(Unreachable::new(&Alone).into())
    }
}
