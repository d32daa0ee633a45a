use async_trait::async_trait;
use graticule_model::{Timestamp, yaml};
use graticule_store::{Committed, Feed, MemoryStore, Revision, Snapshot};

use super::*;

/// A store that takes no more than so many bytes at once.
struct Narrow {
    inner: Arc<MemoryStore>,
    len_max: usize,
}

#[async_trait]
impl Store for Narrow {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        let len: usize = txn.writes.iter().map(write_len).sum();
        if len > self.len_max {
            return Err(CommitError::Invalid(format!("{len} bytes")));
        }
        self.inner.commit(txn).await
    }

    fn snapshot(&self) -> Snapshot {
        self.inner.snapshot()
    }

    fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
        self.inner.watch(from)
    }
}

fn mk(text: &str) -> Resource {
    let value = yaml::parse_one(text).unwrap();
    let kind = Kind::from_name(value["type"].as_str().unwrap()).unwrap();
    Resource::from_rest(kind, &value).unwrap()
}

fn mk_secret(name: &str, len: usize) -> Resource {
    let data = "AAAA".repeat(len / 3);
    mk(&format!(
        "{{type: Secret, mesh: default, name: {name}, data: {data}, labels: {{kuma.io/origin: global}}}}"
    ))
}

/// Copies: a mesh and secrets of these sizes.
fn mk_stores(secrets: &[(&str, usize)], len_max: usize) -> Stores {
    let inner = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    inner.commit_now(Txn::put(mk("{type: Mesh, name: default, labels: {kuma.io/origin: global}}"))).unwrap();
    for (name, len) in secrets {
        inner.commit_now(Txn::put(mk_secret(name, *len))).unwrap();
    }
    let status = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
    Stores { config: Arc::new(Narrow { inner, len_max }), status }
}

fn copies(stores: &Stores) -> Vec<String> {
    let snapshot = stores.config.snapshot();
    snapshot.iter().filter(|r| !r.meta.is_local_to_zone()).map(|r| r.meta.name.clone()).collect()
}

#[test]
fn what_is_committed_together_is_bounded() {
    let step = |writes: usize, len: usize| Step {
        fate: Fate { kind: "Secret", mesh: String::new(), name: String::new(), becomes: None, of_zone: None },
        writes: (0..writes)
            .map(|_| Write::Put {
                resource: Box::new(mk_secret("s", len)),
                expect: Expect::Any,
                touch: false,
            })
            .collect(),
    };
    for (steps, wanted) in [
        (vec![], vec![]),
        (vec![step(1, 3); 2], vec![2]),
        (vec![step(2, 3); 251], vec![250, 1]),
        (vec![step(1, 250_000); 7], vec![3, 3, 1]),
        (vec![step(1, 3), step(1, 2_000_000), step(1, 3)], vec![1, 1, 1]),
    ] {
        let lens: Vec<usize> = chunks(steps).iter().map(Vec::len).collect();
        assert_eq!(lens, wanted);
    }
}

#[tokio::test]
async fn a_copy_that_the_store_refuses_stops_no_other() {
    let stores = mk_stores(&[("a", 300), ("huge", 50_000), ("z", 300)], 10_000);
    let clock = Clock::system();
    let error = adopt("east", &stores, &clock).await.unwrap_err();
    assert!(error.to_string().contains("copies that stay copies: 1: Secret default/huge: "), "{error}");
    assert_eq!(copies(&stores), ["huge"]);
    // A start without global ends as well, and the zone does not connect again.
    let mark = Resource::new(Meta::new("", LEFT_CONFIG), Config { config: "yes".into() });
    stores.config.commit(Txn::put(mark)).await.unwrap();
    finish_leaving("east", &stores, &clock).await;
    assert!(has_left(&stores.config));
}

#[tokio::test]
async fn that_a_zone_has_left_stays_until_it_may_join_again() {
    let stores = mk_stores(&[("a", 300)], usize::MAX);
    let clock = Clock::system();
    assert!(!forget_leaving(&stores, &clock).await.unwrap());
    let mark = Resource::new(Meta::new("", LEFT_CONFIG), Config { config: "yes".into() });
    stores.config.commit(Txn::put(mark)).await.unwrap();
    finish_leaving("east", &stores, &clock).await;
    assert_eq!(copies(&stores), [""; 0]);
    assert!(has_left(&stores.config));
    assert!(forget_leaving(&stores, &clock).await.unwrap());
    assert!(!has_left(&stores.config));
}
