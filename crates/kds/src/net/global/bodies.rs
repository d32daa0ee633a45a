//! How GlobalToZoneSync is written to a connection.
//!
//! tonic keeps the buffers of the longest message for as long as a stream lives, and the first message of a stock zone is its
//! whole first state: with hundreds of zones, these buffers were most of global's memory. Here each message gets buffers of
//! its own, and a stream that has nothing to say has none.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use http::{HeaderMap, header::HeaderName};
use http_body_util::{BodyExt as _, StreamBody};
use parking_lot::Mutex;
use pb::global_kds_service_server::GlobalKdsServiceServer;
use pb::kds_sync_service_server::KdsSyncServiceServer;
use tonic::body::Body;
use tonic::codec::{Codec as _, CompressionEncoding, EncodeBody, SingleMessageCompressionOverride};
use tonic::service::Routes;
use tonic::{Response, Status};
use tonic_prost::ProstCodec;
use tower::util::MapResponse;

use super::GlobalServer;
use super::watchdog::{Pulse, Read};

/// Says how a response is compressed.
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// Says in trailers how a stream ended.
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

type Messages = BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

/// The services of global.
pub(super) type Fresh = MapResponse<Routes, fn(http::Response<Body>) -> http::Response<Body>>;

/// The messages of a response that are not handed to tonic.
#[derive(Clone)]
struct Detached {
    messages: Arc<Mutex<Option<Messages>>>,
    message_len_max: usize,
}

/// A response whose messages, of at most `message_len_max` bytes, are written by [`fresh`].
pub(super) fn detached(messages: Messages, message_len_max: usize) -> Response<Messages> {
    let mut response = Response::new(stream::pending().boxed());
    let messages = Arc::new(Mutex::new(Some(messages)));
    response.extensions_mut().insert(Detached { messages, message_len_max });
    response
}

/// A response of which is noticed whether it is read.
pub(super) fn pulsed<T>(mut response: Response<T>, pulse: Pulse) -> Response<T> {
    response.extensions_mut().insert(pulse);
    response
}

/// The services, with the bodies of detached responses.
pub(super) fn fresh(
    sync: KdsSyncServiceServer<GlobalServer>,
    calls: GlobalKdsServiceServer<GlobalServer>,
) -> Fresh {
    MapResponse::new(Routes::new(sync).add_service(calls), attached)
}

fn attached(mut response: http::Response<Body>) -> http::Response<Body> {
    let pulse = response.extensions_mut().remove::<Pulse>();
    let response = with_messages(response);
    match pulse {
        Some(pulse) => response.map(|body| Body::new(Read::new(body, pulse))),
        None => response,
    }
}

fn with_messages(mut response: http::Response<Body>) -> http::Response<Body> {
    let Some(detached) = response.extensions_mut().remove::<Detached>() else { return response };
    let Some(messages) = detached.messages.lock().take() else { return response };
    let is_gzip = response.headers().get(ENCODING).is_some_and(|encoding| encoding == "gzip");
    let encoding = is_gzip.then_some(CompressionEncoding::Gzip);
    response.map(|_pending| body(messages, encoding, detached.message_len_max))
}

/// Writes each message with buffers of its own.
fn body(messages: Messages, encoding: Option<CompressionEncoding>, message_len_max: usize) -> Body {
    let encode = move |message: Option<Result<DeltaDiscoveryResponse, Status>>| {
        let encoder = ProstCodec::<DeltaDiscoveryResponse, DeltaDiscoveryRequest>::default().encoder();
        let no_override = SingleMessageCompressionOverride::default();
        EncodeBody::new_server(encoder, stream::iter(message), encoding, no_override, Some(message_len_max))
    };
    // The stream, and what is written of its newest message; nothing once it has ended.
    let state = (Some(messages), None);
    let frames = stream::unfold(state, move |(mut messages, mut writing)| async move {
        loop {
            let Some(current) = &mut writing else {
                let next = messages.as_mut()?.next().await;
                if !matches!(next, Some(Ok(_))) {
                    messages = None;
                }
                writing = Some(Box::pin(encode(next)));
                continue;
            };
            match current.frame().await {
                Some(Ok(frame)) => {
                    // Each message ends with trailers; those of the last one, or of one that failed, are the stream's.
                    let failed = frame.trailers_ref().is_some_and(has_failed);
                    if failed {
                        messages = None;
                    }
                    if frame.is_data() || messages.is_none() {
                        return Some((Ok::<_, Status>(frame), (messages, writing)));
                    }
                }
                Some(Err(status)) => return Some((Err(status), (None, None))),
                None => writing = None,
            }
        }
    });
    Body::new(StreamBody::new(frames.boxed()))
}

fn has_failed(trailers: &HeaderMap) -> bool {
    trailers.get(STATUS).is_none_or(|status| status != "0")
}

#[cfg(test)]
mod tests {
    use graticule_proto::discovery::Resource;
    use tonic::codec::Streaming;

    use super::*;

    fn mk(nonce: &str, len: usize) -> DeltaDiscoveryResponse {
        let resources = vec![Resource { name: "x".repeat(len), ..Default::default() }];
        DeltaDiscoveryResponse { nonce: nonce.into(), resources, ..Default::default() }
    }

    /// Lengths of what arrives, and how it ends.
    async fn read(
        sent: Vec<Result<DeltaDiscoveryResponse, Status>>,
        encoding: Option<CompressionEncoding>,
    ) -> (Vec<(String, usize)>, Result<(), tonic::Code>) {
        let body = body(stream::iter(sent).boxed(), encoding, 1 << 20);
        let decoder = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default().decoder();
        let mut read = Streaming::new_response(decoder, body, http::StatusCode::OK, encoding, None);
        let mut arrived = Vec::new();
        loop {
            match read.message().await {
                Ok(Some(message)) => arrived.push((message.nonce, message.resources[0].name.len())),
                Ok(None) => return (arrived, Ok(())),
                Err(status) => return (arrived, Err(status.code())),
            }
        }
    }

    #[tokio::test]
    async fn a_peer_reads_what_was_sent_and_how_it_ended() {
        let three = || vec![Ok(mk("1", 900_000)), Ok(mk("2", 1)), Ok(mk("3", 40_000))];
        let all = [("1".to_owned(), 900_000), ("2".to_owned(), 1), ("3".to_owned(), 40_000)];
        for encoding in [None, Some(CompressionEncoding::Gzip)] {
            assert_eq!(read(three(), encoding).await, (all.to_vec(), Ok(())), "{encoding:?}");
            let mut aborted = three();
            aborted.push(Err(Status::aborted("connect again")));
            let want = (all.to_vec(), Err(tonic::Code::Aborted));
            assert_eq!(read(aborted, encoding).await, want, "{encoding:?}");
        }
        let too_long = vec![Ok(mk("1", 10)), Ok(mk("2", 2 << 20)), Ok(mk("3", 10))];
        let want = (vec![("1".to_owned(), 10)], Err(tonic::Code::OutOfRange));
        assert_eq!(read(too_long, None).await, want);
        assert_eq!(read(Vec::new(), None).await, (Vec::new(), Ok(())));
    }
}
