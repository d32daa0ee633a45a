//! What is answered to a response.

use graticule_proto::discovery::{DeltaDiscoveryRequest, Node};
use graticule_proto::google::protobuf::Any;
use graticule_proto::google::rpc;
use graticule_proto::graticule::kds::v1 as pb;
use prost::Message;

use super::Rejection;
use crate::core::member::{self, HELD_BACK_MEMBER};
use crate::core::quarantine::{short_name, short_reason};

/// Rejections that one acknowledgement explains; of the others it says the names.
const REJECTIONS_EXPLAINED_MAX: usize = 64;
/// Bytes of names that it says; then only that there are more.
const REJECTIONS_LEN_MAX: usize = 1024 * 1024;

/// The acknowledgement of a response; a peer of ours hears how many removals of the kind wait here.
pub(super) fn acknowledgement(
    node: &Node,
    type_url: &str,
    nonce: &str,
    waiting: usize,
) -> DeltaDiscoveryRequest {
    let mut own = Node { id: node.id.clone(), ..Node::default() };
    member::tell_number(&mut own, HELD_BACK_MEMBER, waiting as u64);
    DeltaDiscoveryRequest {
        node: Some(own),
        type_url: type_url.into(),
        response_nonce: nonce.into(),
        ..DeltaDiscoveryRequest::default()
    }
}

/// Why they were not taken, for people and (the details) for a peer of ours.
pub(super) fn error_detail(rejections: &[Rejection]) -> rpc::Status {
    let explained = &rejections[..rejections.len().min(REJECTIONS_EXPLAINED_MAX)];
    let mut lines: Vec<String> =
        explained.iter().map(|rejection| short_reason(&rejection.reason).into_owned()).collect();
    if rejections.len() > explained.len() {
        lines.push(format!("and {} more", rejections.len() - explained.len()));
    }
    let mut len = 0;
    let named = rejections.iter().map(|rejection| (short_name(&rejection.name), rejection)).take_while(
        |(name, _)| {
            len += name.len();
            len <= REJECTIONS_LEN_MAX
        },
    );
    let listed: Vec<pb::Rejection> = named
        .enumerate()
        .map(|(at, (name, rejection))| {
            let reason = if at < explained.len() { short_reason(&rejection.reason) } else { "".into() };
            pb::Rejection { name: name.into_owned(), reason: reason.into_owned() }
        })
        .collect();
    let truncated = listed.len() < rejections.len();
    let detail = pb::Rejections { rejections: listed, truncated };
    rpc::Status {
        code: 0,
        message: lines.join("\n"),
        details: vec![Any {
            type_url: "type.googleapis.com/graticule.kds.v1.Rejections".into(),
            value: detail.encode_to_vec(),
        }],
    }
}
