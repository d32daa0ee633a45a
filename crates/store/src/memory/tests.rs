use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::kinds::mesh::Mesh;
use graticule_model::{Key, Kind, Meta, Resource, Timestamp, labels};
use proptest::prelude::*;

use super::MemoryStore;
use crate::{Expect, Snapshot, Store, Txn};

#[tokio::test]
async fn conformance() {
    crate::conformance::run(async |len_max| {
        Arc::new(MemoryStore::with_history(|| Timestamp::UNIX_EPOCH, len_max)) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaces() {
    crate::conformance::replaces(100, async |len_max| {
        Arc::new(MemoryStore::with_history(|| Timestamp::UNIX_EPOCH, len_max)) as Arc<dyn Store>
    })
    .await;
}

/// A write of the model: node, label, owner.
#[derive(Debug, Clone)]
enum Op {
    Put { name: u8, label: u8, owner: Option<u8>, expect: Expect },
    Delete { name: u8, expect: Expect },
}

fn op() -> impl Strategy<Value = Op> {
    let expect = || {
        prop_oneof![
            5 => Just(Expect::Any),
            1 => Just(Expect::Absent),
            1 => Just(Expect::Present),
            1 => (1..4_u64).prop_map(Expect::Version),
        ]
    };
    prop_oneof![
        3 => (0..8_u8, 0..3_u8, proptest::option::of(0..8_u8), expect())
            .prop_map(|(name, label, owner, expect)| Op::Put { name, label, owner, expect }),
        1 => (0..8_u8, expect()).prop_map(|(name, expect)| Op::Delete { name, expect }),
    ]
}

fn key(name: u8) -> Key {
    Key::new(Kind::Mesh, "", format!("m{name}"))
}

fn txn(ops: &[Op]) -> Txn {
    ops.iter().fold(Txn::default(), |txn, op| match *op {
        Op::Put { name, label, owner, expect } => {
            let mut meta = Meta::new("", key(name).name);
            meta.labels.insert("label".into(), label.to_string());
            // Its own name, or the same for all.
            let display = [None, Some(meta.name.clone()), Some("m1".to_owned())][usize::from(label)].clone();
            meta.labels.extend(display.map(|display| (labels::DISPLAY_NAME.to_owned(), display)));
            meta.owner = owner.map(key);
            txn.and_put(Resource::new(meta, Mesh::default()), expect)
        }
        Op::Delete { name, expect } => txn.and_delete(key(name), expect),
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Node {
    label: u8,
    owner: Option<u8>,
    version: u64,
}

type Model = BTreeMap<u8, Node>;

/// The rules again, in the plainest form. `None` = refused.
fn model_apply(before: &Model, ops: &[Op]) -> Option<Model> {
    let name_of = |op: &Op| match *op {
        Op::Put { name, .. } | Op::Delete { name, .. } => name,
    };
    for (index, op) in ops.iter().enumerate() {
        if ops[..index].iter().any(|earlier| name_of(earlier) == name_of(op)) {
            return None;
        }
        let (Op::Put { expect, .. } | Op::Delete { expect, .. }) = op;
        let stored = before.get(&name_of(op));
        let holds = match expect {
            Expect::Any => true,
            Expect::Absent => stored.is_none(),
            Expect::Present => stored.is_some(),
            Expect::Version(version) => stored.is_some_and(|node| node.version == *version),
        };
        if !holds || matches!(op, Op::Put { name, owner: Some(owner), .. } if name == owner) {
            return None;
        }
    }
    let mut after = before.clone();
    for op in ops {
        if let Op::Delete { name, .. } = op {
            after.remove(name);
        }
    }
    // Repeats until no resource outlives the owner that it had.
    loop {
        let orphan = after.iter().find(|(_, node)| {
            node.owner.is_some_and(|owner| before.contains_key(&owner) && !after.contains_key(&owner))
        });
        let Some(name) = orphan.map(|(name, _)| *name) else { break };
        after.remove(&name);
    }
    for op in ops {
        if let Op::Put { name, label, owner, .. } = *op {
            let stored = before.get(&name);
            let owner = owner.or(stored.and_then(|node| node.owner));
            let same = stored.is_some_and(|node| node.label == label && node.owner == owner);
            let version = stored.map_or(1, |node| if same { node.version } else { node.version + 1 });
            after.insert(name, Node { label, owner, version });
        }
    }
    let orphaned = |op: &Op| match op {
        Op::Put { name, .. } => after[name].owner.is_some_and(|owner| !after.contains_key(&owner)),
        Op::Delete { .. } => false,
    };
    if ops.iter().any(orphaned) { None } else { Some(after) }
}

fn as_model(snapshot: &Snapshot) -> Model {
    let number = |text: &str| text.trim_start_matches('m').parse().expect("a number");
    let node = |resource: &Arc<Resource>| {
        let node = Node {
            label: number(resource.meta.label("label").expect("labeled")),
            owner: resource.meta.owner.as_ref().map(|owner| number(&owner.name)),
            version: resource.meta.version,
        };
        (number(&resource.meta.name), node)
    };
    snapshot.iter().map(node).collect()
}

/// The maintained indexes hold what a scan finds.
fn check_indexes(snapshot: &Snapshot) {
    for label in 0..3_u8 {
        let scan: Vec<_> = snapshot
            .list(Kind::Mesh, None)
            .filter(|resource| resource.meta.label("label") == Some(&label.to_string()))
            .collect();
        let indexed: Vec<_> = snapshot.by_label(Kind::Mesh, "", "label", &label.to_string()).collect();
        assert_eq!(indexed, scan);
    }
    for name in 0..8_u8 {
        let named = key(name).name;
        let scan: Vec<_> = snapshot
            .list(Kind::Mesh, None)
            .filter(|resource| resource.meta.label(labels::DISPLAY_NAME) == Some(&named))
            .collect();
        let indexed: Vec<_> = snapshot.by_label(Kind::Mesh, "", labels::DISPLAY_NAME, &named).collect();
        assert_eq!(indexed, scan, "display name {named}");
        let scan: Vec<_> =
            snapshot.list(Kind::Mesh, None).filter(|r| r.meta.owner.as_ref() == Some(&key(name))).collect();
        assert_eq!(snapshot.owned_by(&key(name)).collect::<Vec<_>>(), scan);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_plain_model(txns in proptest::collection::vec(proptest::collection::vec(op(), 0..5), 0..25)) {
        let store = MemoryStore::new(|| Timestamp::UNIX_EPOCH);
        let mut model = Model::new();
        let mut mirror = Snapshot::empty();
        for ops in &txns {
            let before = store.snapshot();
            let result = store.commit_now(txn(ops));
            match model_apply(&model, ops) {
                Some(after) => {
                    let committed = result.expect("the model accepts it");
                    prop_assert_eq!(committed.revision > before.revision(), after != model);
                    mirror = mirror.with(&committed.batch);
                    model = after;
                }
                None => {
                    result.expect_err("the model refuses it");
                    prop_assert_eq!(store.snapshot().revision(), before.revision());
                }
            }
            let after = store.snapshot();
            prop_assert_eq!(&as_model(&after), &model);
            prop_assert!(after.iter().eq(mirror.iter()));
            let restored = Snapshot::restore(after.revision(), after.iter().cloned());
            prop_assert!(restored.iter().eq(after.iter()));
            // In no order, and some twice: the last one counts.
            let mut mixed: Vec<_> = after.iter().cloned().collect();
            mixed.reverse();
            let mut older: Vec<_> = before.iter().filter(|old| after.contains(&old.key())).cloned().collect();
            older.append(&mut mixed);
            let mixed = Snapshot::restore(after.revision(), older);
            prop_assert!(mixed.iter().eq(after.iter()));
            prop_assert_eq!(mixed.len(), after.len());
            for snapshot in [&after, &restored, &mixed] {
                check_indexes(snapshot);
            }
        }
    }
}
