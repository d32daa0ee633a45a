use graticule_model::kinds::mesh::Mesh;
use graticule_model::{Meta, Resource};
use graticule_store::Txn;

use super::*;
use crate::disk::MemoryDisk;
use crate::types::log_id;

fn proposal(id: u8, floor: u64, fence: u64, name: &str) -> Bytes {
    let mut txn = Txn::put(Resource::new(Meta::new("", name), Mesh::default()));
    txn.at = Some(Timestamp::UNIX_EPOCH);
    codec::bytes(&wire::Proposal {
        id: Bytes::copy_from_slice(&[id; 16]),
        floor,
        fence,
        txn: Some(codec::encode_txn(&txn)),
    })
}

fn mk_machine() -> Machine {
    Machine::new(Arc::new(MemoryDisk::new()), None, 16, true)
}

fn apply(machine: &Machine, term: u64, index: u64, bytes: Bytes) -> Option<Answer> {
    let id = wire::Proposal::id_of(&bytes);
    let mut waiter = machine.wait_for(id);
    let mut state = machine.state.lock();
    machine.apply_proposal(&mut state, log_id(term, index), bytes).expect("decodes");
    drop(state);
    let answer = waiter.try_recv().ok();
    machine.give_up(&id);
    answer
}

impl wire::Proposal {
    fn id_of(bytes: &Bytes) -> ProposalId {
        let decoded: wire::Proposal = codec::message("a proposal", bytes.clone()).expect("decodes");
        proposal_id(&decoded.id).expect("16 bytes")
    }
}

#[test]
fn a_repeated_proposal_counts_once() {
    let machine = mk_machine();
    let first = apply(&machine, 1, 1, proposal(1, 0, 0, "a")).expect("answered").expect("applied");
    assert_eq!(first.revision, Revision(1));
    assert!(apply(&machine, 2, 2, proposal(1, 0, 0, "a")).is_none(), "nothing happens the second time");
    assert_eq!(machine.history.snapshot().revision(), Revision(1));
}

#[test]
fn a_proposal_of_a_former_leader_has_no_effect() {
    let machine = mk_machine();
    let fenced = apply(&machine, 5, 1, proposal(1, 0, 4, "a")).expect("answered");
    assert_eq!(fenced.expect_err("fenced"), CommitError::Fenced(4));
    apply(&machine, 5, 2, proposal(2, 0, 5, "a")).expect("answered").expect("its own term");
}

#[test]
fn a_proposal_that_may_have_been_forgotten_is_refused() {
    let machine = mk_machine();
    let count = RECENT_LEN as u64 + 10;
    let mut state = machine.state.lock();
    for index in 1..=count {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&index.to_le_bytes());
        state.recent.remember(id, index, index);
    }
    assert_eq!(state.recent.forgotten, 10);
    drop(state);
    let late = apply(&machine, 1, count + 1, proposal(1, 9, 0, "a")).expect("answered");
    assert!(matches!(late, Err(CommitError::Uncertain(_))), "{late:?}");
    apply(&machine, 1, count + 2, proposal(2, count, 0, "a")).expect("answered").expect("in time");
}

#[test]
fn a_replica_that_catches_up_by_snapshot_answers_its_writers() {
    let leader = mk_machine();
    apply(&leader, 1, 1, proposal(1, 0, 0, "a")).expect("answered").expect("applied");
    let mut state = leader.state.lock();
    leader.apply_proposal(&mut state, log_id(1, 2), proposal(2, 0, 9, "b")).expect("decodes");
    state.last = Some(log_id(1, 2));
    drop(state);
    let follower = mk_machine();
    let mut applied = follower.wait_for([1; 16]);
    let mut refused = follower.wait_for([2; 16]);
    let mut unknown = follower.wait_for([3; 16]);
    let mut feed = follower.history.watch(Some(Revision(0)));
    follower.install(leader.contents());
    assert_eq!(applied.try_recv().expect("answered").expect("applied").revision, Revision(1));
    assert!(matches!(refused.try_recv().expect("answered"), Err(CommitError::Unavailable(_))));
    assert!(unknown.try_recv().is_err(), "still on its way");
    let event = futures::executor::block_on(feed.next()).expect("open");
    assert!(matches!(event, graticule_store::Event::Resync(s) if s.revision() == Revision(1)));
    // The copy knows what was applied before.
    let mut state = follower.state.lock();
    follower.apply_proposal(&mut state, log_id(2, 3), proposal(1, 0, 0, "a")).expect("decodes");
    assert_eq!(state.snapshot.revision(), Revision(1));
}
