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
        txn: Some(codec::encode_txn(&txn, &Sealer::NONE)),
        ..wire::Proposal::default()
    })
}

fn mk_machine() -> Machine {
    Machine::new(Arc::new(MemoryDisk::new()), None, 16, true, crate::Options::default().files())
}

fn read(bytes: Bytes) -> Proposal {
    Proposal::read(bytes, &Sealer::NONE).expect("a proposal")
}

fn apply(machine: &Machine, term: u64, index: u64, bytes: Bytes) -> Option<Answer> {
    let id = wire::Proposal::id_of(&bytes);
    let mut waiter = machine.wait_for(id);
    let mut state = machine.state.lock();
    machine.apply_proposal(&mut state, log_id(term, index), read(bytes)).expect("decodes");
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
    leader.apply_proposal(&mut state, log_id(1, 2), read(proposal(2, 0, 9, "b"))).expect("decodes");
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
    follower.apply_proposal(&mut state, log_id(2, 3), read(proposal(1, 0, 0, "a"))).expect("decodes");
    assert_eq!(state.snapshot.revision(), Revision(1));
}

fn replacing(id: u8, proposal: u8, step: wire::ReplaceStep) -> Bytes {
    codec::bytes(&wire::Proposal {
        id: Bytes::copy_from_slice(&[proposal; 16]),
        replace: Some(wire::Replace { id: Bytes::copy_from_slice(&[id; 16]), step: Some(step) }),
        form: wire::PROPOSAL_FORM,
        ..wire::Proposal::default()
    })
}

fn part(number: u64, name: &str) -> wire::ReplaceStep {
    let resource = Resource::new(Meta::new("", name), Mesh::default());
    let resources = vec![codec::encode_resource(&resource, &Sealer::NONE)];
    wire::ReplaceStep::Part(wire::Part { number, resources })
}

fn finish(parts: u64) -> wire::ReplaceStep {
    wire::ReplaceStep::Finish(wire::Finish { parts, expect: None, above: 40 })
}

fn names(machine: &Machine) -> Vec<String> {
    machine.history.snapshot().iter().map(|resource| resource.meta.name.clone()).collect()
}

#[test]
fn a_replacement_happens_at_its_last_step() {
    let machine = mk_machine();
    apply(&machine, 1, 1, proposal(1, 0, 0, "old")).expect("answered").expect("applied");
    for (index, step) in [(2, part(0, "a")), (3, part(1, "b"))] {
        let staged = apply(&machine, 1, index, replacing(9, index as u8, step)).expect("answered");
        assert_eq!(staged.expect("staged").revision, Revision(1));
        assert_eq!(names(&machine), ["old"], "nothing has changed yet");
    }
    // A replica that takes a snapshot in between goes on with it, from the disk as well.
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let mut contents = machine.contents();
    contents.meta.last_log_id = Some(log_id(1, 3));
    let files = machine.files.clone();
    let file = snapshot::write(&disk, &contents, &files).expect("written");
    let other = mk_machine();
    other.install(snapshot::read(&file, &files).expect("read"));
    for machine in [&machine, &other] {
        let replaced = apply(machine, 1, 4, replacing(9, 4, finish(2))).expect("answered").expect("replaced");
        assert_eq!((replaced.revision, names(machine)), (Revision(41), vec!["a".to_owned(), "b".into()]));
        assert!(machine.state.lock().staging.is_none());
    }
}

#[test]
fn an_interrupted_replacement_changes_nothing() {
    let interrupted: [(&str, &[(u64, wire::ReplaceStep)]); 5] = [
        ("a part is missing", &[(9, part(0, "a")), (9, finish(2))]),
        ("a part out of order", &[(9, part(0, "a")), (9, part(2, "b"))]),
        ("it never began", &[(9, finish(0))]),
        ("another one began", &[(9, part(0, "a")), (8, part(0, "b")), (9, finish(1))]),
        (
            "it was abandoned",
            &[(9, part(0, "a")), (9, wire::ReplaceStep::Abandon(wire::Abandon {})), (9, finish(1))],
        ),
    ];
    for (what, steps) in interrupted {
        let machine = mk_machine();
        apply(&machine, 1, 1, proposal(1, 0, 0, "old")).expect("answered").expect("applied");
        let mut last = None;
        for (index, (id, step)) in (2..).zip(steps) {
            last = apply(&machine, 1, index, replacing(*id as u8, index as u8, step.clone()));
        }
        let error = last.expect("answered").expect_err(what);
        assert!(matches!(error, CommitError::Unavailable(_)), "{what}: {error}");
        assert_eq!(names(&machine), ["old"], "{what}");
    }
}

#[test]
fn what_nobody_finishes_is_given_up_on_every_replica_at_the_same_entry() {
    let machine = mk_machine();
    apply(&machine, 3, 1, replacing(9, 1, part(0, "a"))).expect("answered").expect("staged");
    let state = machine.state.lock();
    let staging = state.staging.as_ref().expect("staged");
    for (at, is_given_up) in
        [(log_id(3, 2), false), (log_id(3, 10_001), false), (log_id(3, 10_002), true), (log_id(4, 2), true)]
    {
        assert_eq!(staging.is_given_up(at), is_given_up, "{at}");
    }
}

#[test]
fn a_proposal_of_a_newer_form_stops_the_member() {
    let newer = codec::bytes(&wire::Proposal {
        id: Bytes::copy_from_slice(&[1; 16]),
        form: wire::PROPOSAL_FORM + 1,
        ..wire::Proposal::default()
    });
    let error = Proposal::read(newer, &Sealer::NONE).err().expect("it must not be overlooked");
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[test]
fn many_are_decoded_as_one_after_the_other() {
    let malformed = Bytes::from_static(&[0xff; 9]);
    for count in [0, 1, 63, 64, 65, 300] {
        let encoded: Vec<Bytes> = (0..count)
            .map(|number| match number % 7 {
                3 => malformed.clone(),
                _ => {
                    proposal(u8::try_from(number % 256).expect("below 256"), number, 0, &format!("m{number}"))
                }
            })
            .collect();
        for may_share in [false, true] {
            let all = Proposal::read_all(&encoded, &Sealer::NONE, may_share);
            assert_eq!(all.len(), encoded.len());
            for (number, proposal) in all.into_iter().enumerate() {
                match proposal {
                    Ok(proposal) => assert!(number % 7 != 3 && proposal.floor == number as u64),
                    Err(_) => assert_eq!(number % 7, 3),
                }
            }
        }
    }
}
