//! The store over a real etcd: the conformance suite, and what only a store over a network meets.

mod faults;
mod harness;
mod leaders;
mod limits;
mod measure;
mod replace;
mod secured;

use std::sync::Arc;

use graticule_store::{Store, conformance};
use graticule_store_etcd::Options;

use harness::{Etcd, open, options, pair};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance() {
    let Some(etcd) = Etcd::start().await else { return };
    conformance::run(async |history_len| {
        let options = Options { history_len, ..options(etcd.endpoint()) };
        Arc::new(open(options).await) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_of_replicas() {
    let Some(etcd) = Etcd::start().await else { return };
    conformance::replicas(async |history_len| pair(&etcd, history_len).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_of_replacing() {
    let Some(etcd) = Etcd::start().await else { return };
    // Several requests, one of which is not enough.
    let filler_len = 10_000;
    conformance::replaces(filler_len, async |history_len| {
        let options = Options { history_len, ..options(etcd.endpoint()) };
        Arc::new(open(options).await) as Arc<dyn Store>
    })
    .await;
}
