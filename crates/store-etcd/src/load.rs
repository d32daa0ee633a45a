//! Reads everything, as it was at one revision of etcd.

use bytes::Bytes;
use etcd_client::{Error, GetOptions, KeyValue};
use graticule_model::Resource;
use graticule_store::codec::{self, DecodeError};
use graticule_store::seal::Sealer;
use graticule_store::wire as stored;

use crate::failure::{ContentsError, Failure, is_answer_too_large, is_compacted};
use crate::keys::{Keys, after};
use crate::options::PAGE_LEN;
use crate::request::Requests;
use crate::wire::{FORMAT, Head};

/// How often reading begins anew because etcd dropped the revision that was being read.
const ATTEMPTS_MAX: u32 = 5;

/// Everything.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Revision of etcd that was read.
    pub(crate) at: i64,
    /// Which etcd.
    pub(crate) cluster: u64,
    /// The head and the revision of etcd that changed it last; none = nothing was ever written.
    pub(crate) head: Option<(i64, Head)>,
    /// The resources.
    pub(crate) resources: Vec<Resource>,
}

/// Why not.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// etcd did not answer as it should.
    Failed(Failure),
    /// What it answered cannot be used.
    Contents(ContentsError),
}

impl From<ContentsError> for LoadError {
    fn from(error: ContentsError) -> LoadError {
        LoadError::Contents(error)
    }
}

/// Reads everything.
pub(crate) async fn load(requests: &Requests, keys: &Keys, sealer: &Sealer) -> Result<Loaded, LoadError> {
    let mut attempt = 1;
    loop {
        match attempt_load(requests, keys, sealer).await {
            Err(Interrupted::Compacted) if attempt < ATTEMPTS_MAX => attempt += 1,
            Err(Interrupted::Compacted) => {
                let reason = "etcd compacts faster than everything can be read".into();
                return Err(LoadError::Failed(Failure::Missed(reason)));
            }
            Err(Interrupted::Error(error)) => return Err(error),
            Ok(loaded) => return Ok(loaded),
        }
    }
}

enum Interrupted {
    Compacted,
    Error(LoadError),
}

impl<T: Into<LoadError>> From<T> for Interrupted {
    fn from(error: T) -> Interrupted {
        Interrupted::Error(error.into())
    }
}

impl From<Failure> for LoadError {
    fn from(failure: Failure) -> LoadError {
        LoadError::Failed(failure)
    }
}

async fn attempt_load(requests: &Requests, keys: &Keys, sealer: &Sealer) -> Result<Loaded, Interrupted> {
    let answer = requests.bounded(requests.get(&keys.head(), None)).await?;
    let (at, cluster) = answer.header().map_or((0, 0), |header| (header.revision(), header.cluster_id()));
    let head = match answer.kvs().first() {
        Some(kv) => Some((kv.mod_revision(), decode_head(&keys.head(), kv.value())?)),
        None => None,
    };
    let keys = keys.of(head.as_ref().map_or("", |(_, head)| &head.generation));
    let resources = read_resources(requests, &keys, sealer, at).await?;
    if head.is_none() && !resources.is_empty() {
        let reason = format!("there are resources, and no key {}", keys.head());
        return Err(ContentsError::Damaged(reason).into());
    }
    Ok(Loaded { at, cluster, head, resources })
}

async fn read_resources(
    requests: &Requests,
    keys: &Keys,
    sealer: &Sealer,
    at: i64,
) -> Result<Vec<Resource>, Interrupted> {
    let first = keys.resources();
    let end = after(&first);
    let mut from = first;
    let mut page_len = PAGE_LEN;
    let mut resources = Vec::new();
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(page_len).with_revision(at);
        let page = tokio::select! {
            biased;
            page = requests.get(&from, Some(options)) => page,
            () = requests.clock.sleep(requests.timeout) => return Err(crate::failure::no_answer().into()),
        };
        let page = match page {
            Ok(page) => page,
            Err(error) if is_compacted(&error) => return Err(Interrupted::Compacted),
            Err(error) if is_answer_too_large(&error) && page_len > 1 => {
                page_len = (page_len / 4).max(1);
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        for kv in page.kvs() {
            resources.push(decode_resource(kv, sealer)?);
        }
        match page.kvs().last() {
            Some(last) if page.more() => {
                let text = std::str::from_utf8(last.key()).map_err(|_| {
                    ContentsError::Damaged(format!("a key below {} is no text", keys.resources()))
                })?;
                from = format!("{text}\0");
            }
            _ => return Ok(resources),
        }
    }
}

fn failed(error: Error) -> Interrupted {
    Interrupted::Error(LoadError::Failed(Failure::from(error)))
}

fn decode_resource(kv: &KeyValue, sealer: &Sealer) -> Result<Resource, ContentsError> {
    resource_of(&String::from_utf8_lossy(kv.key()), kv.value(), sealer)
}

/// The resource that a value holds.
pub(crate) fn resource_of(key: &str, value: &[u8], sealer: &Sealer) -> Result<Resource, ContentsError> {
    let decoded = codec::message::<stored::Resource>("a resource", Bytes::copy_from_slice(value));
    decoded
        .and_then(|resource| codec::decode_resource(resource, sealer))
        .map_err(|source| ContentsError::Unreadable { key: key.to_owned(), source })
}

/// The head that a value holds, if this version understands it.
pub(crate) fn decode_head(key: &str, value: &[u8]) -> Result<Head, ContentsError> {
    let unreadable = |source: DecodeError| ContentsError::Unreadable { key: key.to_owned(), source };
    let head: Head = codec::message("the head", Bytes::copy_from_slice(value)).map_err(unreadable)?;
    if head.format > FORMAT {
        return Err(ContentsError::TooNew(head.format));
    }
    if head.format == 0 || head.revision == 0 {
        return Err(ContentsError::Damaged(format!("key {key} is no head of a store")));
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_newer_versions_are_refused() {
        let head = Head { format: FORMAT, revision: 7, ..Head::default() };
        assert_eq!(decode_head("k", &codec::bytes(&head)), Ok(head.clone()));
        let newer = Head { format: FORMAT + 1, ..head.clone() };
        let error = decode_head("k", &codec::bytes(&newer)).expect_err("too new");
        assert!(error.to_string().contains("run the newer version"), "{error}");
        for wrong in [Head { format: 0, ..head.clone() }, Head { revision: 0, ..head }] {
            assert!(matches!(decode_head("k", &codec::bytes(&wrong)), Err(ContentsError::Damaged(_))));
        }
        assert!(matches!(decode_head("k", &[0xff; 9]), Err(ContentsError::Unreadable { .. })));
        assert!(matches!(resource_of("k", &[0xff; 9], &Sealer::NONE), Err(ContentsError::Unreadable { .. })));
    }
}
