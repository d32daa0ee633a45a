//! What replicas tell each other about what they observe, as messages.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use graticule_model::{Key, Kind};
use prost::Message as _;

use super::core::{Claim, Group, Item, Part};
use crate::codec;
use crate::seal::Sealer;
use crate::wire;

/// Version of the form of frames.
const FORM: u32 = 1;
/// Bytes of the length before each frame.
pub const PREFIX_LEN: usize = 4;
/// Longest frame that is read, in bytes.
pub const FRAME_LEN_MAX: usize = 16 * 1024 * 1024;
/// A frame is full with this many bytes of resources; one resource may be longer.
const FRAME_LEN_WANTED: usize = 256 * 1024;

/// Why a frame is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No message of this form.
    #[error("a frame cannot be decoded: {0}")]
    Malformed(String),
    /// Another version of the protocol.
    #[error("a frame of form {0}, which this version does not know")]
    Form(u32),
    /// It says a length above the limit.
    #[error("a frame of {0} bytes, above the limit of {FRAME_LEN_MAX}")]
    TooLong(usize),
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Frame {
    #[prost(uint32, tag = "1")]
    form: u32,
    #[prost(string, tag = "2")]
    observer: String,
    #[prost(uint64, tag = "3")]
    time: u64,
    #[prost(bool, tag = "4")]
    reset: bool,
    #[prost(bool, tag = "5")]
    complete: bool,
    #[prost(message, repeated, tag = "6")]
    items: Vec<Observation>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Observation {
    #[prost(string, tag = "1")]
    group: String,
    /// Of the claim that holds from now on; none: the one before.
    #[prost(uint64, optional, tag = "2")]
    stamp: Option<u64>,
    #[prost(bool, tag = "3")]
    brought: bool,
    /// None: there is no such observation any more.
    #[prost(message, optional, tag = "4")]
    resource: Option<wire::Resource>,
    /// Only without a resource.
    #[prost(message, optional, tag = "5")]
    removed: Option<wire::Key>,
}

/// One or several frames that say this, each with its length before it.
pub(super) fn encode(part: &Part) -> Vec<Bytes> {
    let mut frames = Vec::new();
    let (mut items, mut len) = (Vec::new(), 0);
    for item in &part.items {
        let item = observation(item);
        len += item.encoded_len();
        items.push(item);
        if len >= FRAME_LEN_WANTED {
            frames.push(std::mem::take(&mut items));
            len = 0;
        }
    }
    if !items.is_empty() || frames.is_empty() {
        frames.push(items);
    }
    let last = frames.len() - 1;
    let framed = frames.into_iter().enumerate().map(|(index, items)| {
        let frame = Frame {
            form: FORM,
            observer: part.observer.to_string(),
            time: part.time,
            reset: part.reset && index == 0,
            complete: part.complete && index == last,
            items,
        };
        let len = frame.encoded_len();
        let mut bytes = BytesMut::with_capacity(PREFIX_LEN + len);
        bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&frame.encode_to_vec());
        bytes.freeze()
    });
    framed.collect()
}

fn observation(item: &Item) -> Observation {
    let key = &item.key;
    let removed = wire::Key { kind: key.kind.name().into(), mesh: key.mesh.clone(), name: key.name.clone() };
    Observation {
        group: item.group.to_string(),
        stamp: item.claim.map(|claim| claim.stamp),
        brought: item.claim.is_some_and(|claim| claim.brought),
        resource: item.resource.as_ref().map(|resource| codec::encode_resource(resource, &Sealer::NONE)),
        removed: item.resource.is_none().then_some(removed),
    }
}

/// Takes the first whole frame out of what was received; none when more has to come.
///
/// # Errors
/// It is none, or too long: the connection is of no use any more.
pub(super) fn decode(received: &mut BytesMut) -> Result<Option<Part>, FrameError> {
    let Some(prefix) = received.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
    let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
    if len > FRAME_LEN_MAX {
        return Err(FrameError::TooLong(len));
    }
    if received.len() < PREFIX_LEN + len {
        return Ok(None);
    }
    let frame = received.split_to(PREFIX_LEN + len).freeze().slice(PREFIX_LEN..);
    let frame = Frame::decode(frame).map_err(|error| FrameError::Malformed(error.to_string()))?;
    if frame.form != FORM {
        return Err(FrameError::Form(frame.form));
    }
    // What a newer version observes and this one does not know is left out.
    let items = frame.items.into_iter().filter_map(item).collect();
    let Frame { observer, time, reset, complete, .. } = frame;
    Ok(Some(Part { observer: observer.into(), time, reset, complete, items }))
}

fn item(observation: Observation) -> Option<Item> {
    let claim = observation.stamp.map(|stamp| Claim { stamp, brought: observation.brought });
    let group = Group::from_wire(observation.group);
    let (key, resource) = match (observation.resource, observation.removed) {
        (Some(resource), _) => {
            let resource = codec::decode_resource(resource, &Sealer::NONE).ok()?;
            (resource.key(), Some(Arc::new(resource)))
        }
        (None, Some(key)) => (Key::new(Kind::from_name(&key.kind).ok()?, key.mesh, key.name), None),
        (None, None) => return None,
    };
    key.kind.descriptor().capabilities.soft.then_some(Item { group, claim, key, resource })
}
