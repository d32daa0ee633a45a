//! Figures for docs/performance.md: `cargo test --package graticule-store-etcd --test etcd -- --ignored --nocapture measure`.

use std::sync::Arc;
use std::time::Duration;

use graticule_store::{Store, Txn};
use graticule_store_etcd::{EtcdStore, Options};
use graticule_testkit::wait::now;
use tokio::task::JoinSet;

use crate::harness::{Etcd, mesh, next, open, options};

const WRITES: usize = 500;
const WRITES_AT_ONCE: usize = 3200;
const SPEC_LEN: usize = 3000;

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() - 1) * percent / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn measure() {
    for members in [1, 3] {
        let etcds = match members {
            1 => Etcd::start().await.map(|etcd| vec![etcd]),
            _ => Etcd::start_three().await,
        };
        let Some(etcds) = etcds else { return };
        let endpoints: Vec<String> = etcds.iter().map(Etcd::endpoint).collect();
        let here = Options { endpoints, ..options(String::new()) };
        let store = open(here.clone()).await;
        let other = open(Options { name: "b".into(), ..here.clone() }).await;
        let mut feed = other.watch(Some(other.snapshot().revision()));
        let filler = "x".repeat(SPEC_LEN);
        let (mut written, mut seen) = (Vec::new(), Vec::new());
        let start = now();
        for n in 0..WRITES {
            let mut resource = mesh(&format!("m{}", n % 100), n as u64);
            resource.meta.labels.insert("filler".into(), filler.clone());
            let sent = now();
            store.commit(Txn::put(resource)).await.expect("written");
            written.push(sent.elapsed());
            next(&mut feed).await;
            seen.push(sent.elapsed());
        }
        let rate = WRITES as f64 / start.elapsed().as_secs_f64();
        println!(
            "{members} member(s): write p50 {:?} p99 {:?}; seen by another replica p50 {:?} p99 {:?}; {rate:.0}/s one after the other",
            percentile(&mut written, 50),
            percentile(&mut written, 99),
            percentile(&mut seen, 50),
            percentile(&mut seen, 99),
        );
        let store = Arc::new(store);
        for writers in [16, 64] {
            let (rate, mut times) = at_once(&store, writers, &filler).await;
            println!(
                "{members} member(s), {writers} writers at once: {rate:.0} writes/s, p50 {:?} p99 {:?}",
                percentile(&mut times, 50),
                percentile(&mut times, 99),
            );
        }
    }
}

/// Writers that each write resources of their own: writes each second, and how long each took.
async fn at_once(store: &Arc<EtcdStore>, writers: usize, filler: &str) -> (f64, Vec<Duration>) {
    let start = now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (store, filler) = (store.clone(), filler.to_owned());
        tasks.spawn(async move {
            let mut times = Vec::new();
            for n in 0..WRITES_AT_ONCE / writers {
                let mut resource = mesh(&format!("of-{writer}-{}", n % 5), n as u64);
                resource.meta.labels.insert("filler".into(), filler.clone());
                let sent = now();
                store.commit(Txn::put(resource)).await.expect("written");
                times.push(sent.elapsed());
            }
            times
        });
    }
    let times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    (times.len() as f64 / start.elapsed().as_secs_f64(), times)
}
