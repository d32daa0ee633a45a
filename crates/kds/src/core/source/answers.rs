//! What a peer says about a response.

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_proto::google::rpc;
use graticule_proto::graticule::kds::v1::Rejections;
use prost::Message as _;

use super::{Phase, Received, TypeState};
use crate::core::quarantine::{NAMED_MAX, short_reason};

/// What is said of a name that the peer lists without a reason.
const NO_REASON: &str = "refused; the peer tells its reasons for the first ones only";
/// What is said of a name that the peer may have refused.
const SUSPECTED: &str = "perhaps refused: the peer refused more than it lists";
/// Stands for the reasons of those that are refused beyond what a report names.
const REASON_NOT_KEPT: &str = "refused; the log of the peer has the reason";
impl TypeState {
    /// The peer took the response that is in flight, or refused some of it.
    pub(super) fn answered(&mut self, error: Option<rpc::Status>) -> Received {
        // Nonces are not compared: with one response in flight, any request answers it.
        if self.phase == Phase::Waiting {
            self.phase = Phase::Armed;
            self.acknowledged = self.sent;
        }
        let in_flight = std::mem::take(&mut self.in_flight);
        let Some(error) = error else {
            for name in &in_flight {
                self.rejected.remove(name);
            }
            return Received::Acked(self.kind);
        };
        let message = short_reason(&error.message).into_owned();
        self.refused(in_flight, &error, &message);
        Received::Nacked { kind: self.kind, message }
    }

    fn refused(&mut self, in_flight: Vec<Arc<str>>, error: &rpc::Status, message: &str) {
        let details: Vec<Rejections> = error
            .details
            .iter()
            .filter(|detail| detail.type_url.ends_with("/graticule.kds.v1.Rejections"))
            .filter_map(|detail| Rejections::decode(detail.value.as_slice()).ok())
            .collect();
        let is_truncated = details.iter().any(|detail| detail.truncated);
        let listed = details.into_iter().flat_map(|detail| detail.rejections);
        let named: BTreeMap<String, String> =
            listed.map(|rejection| (rejection.name, rejection.reason)).collect();
        let message: Arc<str> = message.into();
        let [no_reason, suspected, not_kept] = [NO_REASON, SUSPECTED, REASON_NOT_KEPT].map(Arc::<str>::from);
        for name in in_flight {
            let reason = match named.get(&*name).map(String::as_str) {
                Some("") => no_reason.clone(),
                Some(_) if self.rejected.len() >= NAMED_MAX => not_kept.clone(),
                Some(reason) => short_reason(reason).into(),
                // A peer that names nothing leaves all of the response under suspicion.
                None if named.is_empty() => message.clone(),
                None if is_truncated => suspected.clone(),
                None => {
                    self.rejected.remove(&name);
                    continue;
                }
            };
            self.rejected.insert(name, reason);
        }
    }
}
