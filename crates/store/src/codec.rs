//! Between the types of the store and their [`wire`] form.

use bytes::Bytes;
use graticule_model::{Key, Kind, Meta, Resource, Spec, Status, Timestamp};

use crate::seal::{Sealer, UnsealError};
use crate::{Expect, Txn, Write, wire};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No message of this form.
    #[error("{0} cannot be decoded: {1}")]
    Malformed(&'static str, String),
    /// A kind that this version does not know: a newer version wrote it.
    #[error(
        "a resource {name:?} of kind {kind:?}, which this version does not know: a newer version of the program wrote it; run that version again"
    )]
    UnknownKind {
        /// The kind.
        kind: String,
        /// The resource.
        name: String,
    },
    /// A resource whose spec or status this version cannot read.
    #[error("{key} cannot be read by this version: {reason}")]
    Unreadable {
        /// The resource.
        key: Key,
        /// Why.
        reason: String,
    },
    /// A secret that is sealed and does not open.
    #[error("{key} cannot be read: {reason}")]
    Sealed {
        /// The secret.
        key: Key,
        /// Why.
        reason: UnsealError,
    },
}

/// A field that must be there is not.
pub fn missing(what: &'static str) -> DecodeError {
    DecodeError::Malformed(what, "a field is missing".into())
}

/// Decodes a message; `what` names it in the error.
///
/// # Errors
/// The bytes are no such message.
pub fn message<M: prost::Message + Default>(what: &'static str, bytes: Bytes) -> Result<M, DecodeError> {
    M::decode(bytes).map_err(|error| DecodeError::Malformed(what, error.to_string()))
}

/// The stored form of a transaction, its secrets sealed.
pub fn encode_txn(txn: &Txn, sealer: &Sealer) -> wire::Txn {
    let writes = txn.writes.iter().map(|write| encode_write(write, sealer)).collect();
    wire::Txn { at: txn.at.map(encode_time), writes }
}

/// A transaction out of its stored form.
///
/// # Errors
/// It holds what this version does not understand, or a secret whose key is not there.
pub fn decode_txn(txn: wire::Txn, sealer: &Sealer) -> Result<Txn, DecodeError> {
    let writes = txn.writes.into_iter().map(|write| decode_write(write, sealer)).collect::<Result<_, _>>()?;
    Ok(Txn { at: txn.at.map(decode_time).transpose()?, writes })
}

fn encode_write(write: &Write, sealer: &Sealer) -> wire::Write {
    let (put, delete, expect, touch) = match write {
        Write::Put { resource, expect, touch } => {
            (Some(encode_resource(resource, sealer)), None, *expect, *touch)
        }
        Write::Delete { key, expect } => (None, Some(encode_key(key)), *expect, false),
    };
    let (expect, version) = match expect {
        Expect::Any => (wire::Expect::Any, 0),
        Expect::Absent => (wire::Expect::Absent, 0),
        Expect::Present => (wire::Expect::Present, 0),
        Expect::Version(version) => (wire::Expect::Version, version),
    };
    wire::Write { put, delete, expect: expect.into(), version, touch }
}

fn decode_write(write: wire::Write, sealer: &Sealer) -> Result<Write, DecodeError> {
    let expect = match wire::Expect::try_from(write.expect) {
        Ok(wire::Expect::Any) => Expect::Any,
        Ok(wire::Expect::Absent) => Expect::Absent,
        Ok(wire::Expect::Present) => Expect::Present,
        Ok(wire::Expect::Version) => Expect::Version(write.version),
        Err(error) => return Err(DecodeError::Malformed("a precondition", error.to_string())),
    };
    match (write.put, write.delete) {
        (Some(resource), None) => {
            let resource = Box::new(decode_resource(resource, sealer)?);
            Ok(Write::Put { resource, expect, touch: write.touch })
        }
        (None, Some(key)) => Ok(Write::Delete { key: decode_key(key)?, expect }),
        _ => Err(missing("a write")),
    }
}

fn encode_key(key: &Key) -> wire::Key {
    wire::Key { kind: key.kind.name().into(), mesh: key.mesh.clone(), name: key.name.clone() }
}

fn decode_key(key: wire::Key) -> Result<Key, DecodeError> {
    let Ok(kind) = Kind::from_name(&key.kind) else {
        return Err(DecodeError::UnknownKind { kind: key.kind, name: key.name });
    };
    Ok(Key { kind, mesh: key.mesh, name: key.name })
}

/// The stored form of a time.
pub fn encode_time(time: Timestamp) -> wire::Time {
    wire::Time { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

/// A time out of its stored form.
///
/// # Errors
/// It is out of range.
pub fn decode_time(time: wire::Time) -> Result<Timestamp, DecodeError> {
    Timestamp::new(time.seconds, time.nanos)
        .map_err(|error| DecodeError::Malformed("a time", error.to_string()))
}

/// The stored form of a resource; the spec of a secret is sealed when `sealer` has a key.
pub fn encode_resource(resource: &Resource, sealer: &Sealer) -> wire::Resource {
    let kind = resource.kind();
    let has_status = kind.descriptor().capabilities.has_status && resource.status != Status::empty(kind);
    let status = if has_status { resource.status.to_text().into() } else { Bytes::new() };
    let mut spec = Bytes::from(resource.spec.to_text());
    let sealed = sealer.seal(&resource.key(), &spec);
    if sealed.is_some() {
        spec = Bytes::new();
    }
    let meta = &resource.meta;
    wire::Resource {
        key: Some(wire::Key { kind: kind.name().into(), mesh: meta.mesh.clone(), name: meta.name.clone() }),
        labels: meta.labels.clone(),
        creation_time: Some(encode_time(meta.creation_time)),
        modification_time: Some(encode_time(meta.modification_time)),
        version: meta.version,
        owner: meta.owner.as_ref().map(encode_key),
        spec,
        status,
        sealed: sealed.map(|sealed| wire::Sealed { key_id: sealed.key_id, bytes: sealed.bytes.into() }),
    }
}

/// Whether a stored resource is a secret that the current key of `sealer` did not seal, so that it should be written
/// again.
pub fn is_outdated(resource: &wire::Resource, sealer: &Sealer) -> bool {
    let key_id = resource.sealed.as_ref().map(|sealed| sealed.key_id.as_str());
    let kind = resource.key.as_ref().and_then(|key| Kind::from_name(&key.kind).ok());
    kind.is_some_and(|kind| sealer.is_outdated(kind, key_id))
}

/// A resource out of its stored form.
///
/// # Errors
/// This version does not know the kind, or cannot read the spec or status, or the key of a sealed spec is not there.
pub fn decode_resource(resource: wire::Resource, sealer: &Sealer) -> Result<Resource, DecodeError> {
    let key = decode_key(resource.key.ok_or_else(|| missing("a resource"))?)?;
    let kind = key.kind;
    let unreadable = |reason: String| DecodeError::Unreadable { key: key.clone(), reason };
    let refused = |error: graticule_model::DecodeError| match error {
        graticule_model::DecodeError::Malformed { path, message } if !path.is_empty() => {
            unreadable(format!("{path}: {message}"))
        }
        error => unreadable(error.to_string()),
    };
    let spec = match &resource.sealed {
        Some(sealed) => match sealer.open(&key, &sealed.key_id, &sealed.bytes) {
            Ok(spec) => spec.into(),
            Err(reason) => return Err(DecodeError::Sealed { key, reason }),
        },
        None => resource.spec,
    };
    let spec = utf8(&spec).map_err(unreadable)?;
    let spec = Spec::from_text(kind, spec).map_err(refused)?;
    let status = if resource.status.is_empty() {
        Status::empty(kind)
    } else {
        let status = utf8(&resource.status).map_err(unreadable)?;
        Status::from_text(kind, status).map_err(refused)?
    };
    let time = |time: Option<wire::Time>| time.map_or(Ok(Timestamp::UNIX_EPOCH), decode_time);
    let meta = Meta {
        mesh: key.mesh.clone(),
        name: key.name.clone(),
        labels: resource.labels,
        creation_time: time(resource.creation_time)?,
        modification_time: time(resource.modification_time)?,
        version: resource.version,
        owner: resource.owner.map(decode_key).transpose()?,
    };
    Ok(Resource { meta, spec, status })
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

/// An encoded message.
pub fn bytes(message: &impl prost::Message) -> Bytes {
    prost::Message::encode_to_vec(message).into()
}

#[cfg(test)]
mod tests;
