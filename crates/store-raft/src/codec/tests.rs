use bytes::Bytes;
use graticule_model::kinds::secret::{Secret, SecretBytes};
use graticule_model::{Meta, Resource};
use graticule_store::seal::Sealer;
use graticule_store::{Expect, Txn, Write};
use prost::Message as _;

use super::*;

#[test]
fn entries_and_members_survive() {
    let member = |name: &str| Member { name: name.into(), address: format!("{name}:5690") };
    let membership = Membership::new(
        vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])],
        BTreeMap::from([(1, member("a")), (2, member("b")), (3, member("c")), (4, member("learner"))]),
    )
    .expect("a joint configuration");
    for payload in [
        EntryPayload::Blank,
        EntryPayload::Normal(Proposed(Bytes::from_static(b"abc"))),
        EntryPayload::Membership(membership),
    ] {
        let entry = Entry::new(log_id(3, 17), payload);
        assert_eq!(decode_entry(encode_entry(&entry)).expect("decodes"), entry);
    }
    for vote in [Vote::new(4, 2), Vote::new_committed(4, 2)] {
        assert_eq!(decode_vote(encode_vote(&vote)), vote);
    }
}

#[test]
fn secrets_are_not_in_debug_output() {
    let secret = Resource::new(Meta::new("default", "s"), Secret { data: SecretBytes(b"hunter2".to_vec()) });
    let txn = Txn {
        at: None,
        writes: vec![Write::Put { resource: Box::new(secret), expect: Expect::Any, touch: false }],
    };
    let proposed = Proposed(encode_txn(&txn, &Sealer::NONE).encode_to_vec().into());
    assert_eq!(format!("{proposed:?}"), format!("Proposed({} bytes)", proposed.0.len()));
}
