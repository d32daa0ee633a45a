//! How a new data directory becomes part of a cluster.
//!
//! If one of the members that it was told of belongs to a cluster, it joins that. If none does, and it may form one, all
//! of them form one together: the member with the smallest number begins, and the others join it. It begins only when it
//! reached every one of them, none belongs to a cluster, and all of them have seen the same members. Hence two of them
//! never begin, whatever they can reach, and a member that lost its disk never begins while any other has one.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use graticule_store_raft::{Form, Member, MemberId};

use super::calls::{Join, State};
use super::{Local, hex};

/// Between two looks at the other members.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// The same, told once in this many looks.
const TELL_EVERY: u32 = 30;

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Join the cluster of the member at this address.
    Join(String),
    /// Begin the cluster.
    Begin,
    /// Look again; why.
    Wait(String),
}

/// What the others said, by their addresses.
type Answers = Vec<(String, Result<State, String>)>;

/// Decides from what the others said. `own` is the own number.
fn next(own: MemberId, may_begin: bool, answers: &Answers) -> (BTreeSet<MemberId>, Step) {
    let mut seen = BTreeSet::from([own]);
    let mut clusters: Vec<(&str, &str)> = Vec::new();
    let (mut silent, mut others) = (Vec::new(), Vec::new());
    for (address, answer) in answers {
        match answer {
            Err(reason) => silent.push(reason.as_str()),
            Ok(state) if state.is_initialized => clusters.push((&state.cluster, address)),
            Ok(state) => {
                seen.extend(MemberId::from_str_radix(&state.id, 16).ok());
                others.push(state);
            }
        }
    }
    let step = if let Some((cluster, address)) = clusters.first() {
        if clusters.iter().any(|(other, _)| other != cluster) {
            Step::Wait("members belong to different clusters: store.raft.members names the wrong ones".into())
        } else {
            Step::Join((*address).to_owned())
        }
    } else if !may_begin {
        Step::Wait(format!("no cluster to join: {}", silent.join("; ")))
    } else if !silent.is_empty() {
        Step::Wait(format!("members do not answer: {}", silent.join("; ")))
    } else if let Some(other) = others.iter().find(|other| set(&other.sees) != seen) {
        Step::Wait(format!("the member at {} has not seen the same members", other.address))
    } else if seen.first() == Some(&own) {
        Step::Begin
    } else {
        Step::Wait("another member begins".into())
    };
    (seen, step)
}

fn set(ids: &[String]) -> BTreeSet<MemberId> {
    ids.iter().filter_map(|id| MemberId::from_str_radix(id, 16).ok()).collect()
}

/// Returns once this member belongs to a cluster.
pub(super) async fn become_member(local: &Local, peers: &[String], form: Form, may_begin: bool) {
    let Some(calls) = &local.calls else { return };
    if form == Form::Alone {
        return;
    }
    let mut looks = 0_u32;
    let request =
        Join { id: hex(local.store.id()), name: local.name.clone(), address: local.address.clone() };
    while !local.is_initialized().await {
        let ask = peers.iter().map(|peer| async {
            let answer = calls.state(peer).await.map_err(|error| error.to_string());
            (peer.clone(), answer)
        });
        let answers = join_all(ask).await;
        let (seen, step) = next(local.store.id(), may_begin, &answers);
        *local.sees.lock() = seen;
        match step {
            Step::Begin => {
                tracing::info!(members = answers.len() + 1, "this member begins the cluster");
                if let Err(error) = local.store.initialize().await {
                    tracing::warn!(%error, "the cluster cannot be begun now");
                }
            }
            // Whoever belongs to it has the leader do it.
            Step::Join(address) => match calls.join(&address, &request).await {
                Ok(()) => wait_until_told(local).await,
                Err(error) => tracing::info!(%error, "not joined yet"),
            },
            Step::Wait(reason) => {
                if looks % TELL_EVERY == TELL_EVERY - 1 {
                    tracing::warn!(reason, "still no member of a cluster");
                }
                looks = looks.wrapping_add(1);
            }
        }
        local.clock.sleep(LOOK_INTERVAL).await;
    }
    tracing::info!(member = hex(local.store.id()), cluster = local.store.cluster(), "member of a cluster");
}

/// Returns once this member votes, or was removed. Being added may stop half-way: the leader changed, another member was
/// added in the same moment, or it took long to catch up.
pub(super) async fn become_voter(local: &Local) {
    let own = local.store.id();
    loop {
        let members = local.store.members();
        if members.iter().any(|member| member.id == own && member.votes) {
            return;
        }
        let is_known = members.iter().any(|member| member.id == own);
        if !is_known && !members.is_empty() {
            tracing::warn!("this member was removed from its cluster: it changes nothing and learns nothing");
            return;
        }
        let member = Member { name: local.name.clone(), address: local.address.clone() };
        if is_known && let Err(error) = local.store.add_member(own, member).await {
            tracing::debug!(%error, "this member does not vote yet");
        }
        local.clock.sleep(LOOK_INTERVAL).await;
    }
}

/// The leader has said so; its first message makes it true.
async fn wait_until_told(local: &Local) {
    for _ in 0..TELL_EVERY {
        if local.is_initialized().await {
            return;
        }
        local.clock.sleep(LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(id: MemberId, sees: &[MemberId]) -> Result<State, String> {
        Ok(State {
            id: hex(id),
            name: format!("m{id}"),
            address: format!("m{id}:1"),
            cluster: String::new(),
            is_initialized: false,
            sees: sees.iter().map(|id| hex(*id)).collect(),
        })
    }

    fn belongs(id: MemberId, cluster: &str) -> Result<State, String> {
        waits(id, &[id]).map(|state| State { cluster: cluster.into(), is_initialized: true, ..state })
    }

    fn silent() -> Result<State, String> {
        Err("no answer".into())
    }

    fn decide(own: MemberId, may_begin: bool, answers: &[Result<State, String>]) -> Step {
        let named = answers.iter().enumerate().map(|(index, answer)| (format!("p{index}:1"), answer.clone()));
        next(own, may_begin, &named.collect()).1
    }

    #[test]
    fn one_begins_and_the_others_join() {
        let all = [1, 2, 3];
        let begins = |own, answers: &[_]| decide(own, true, answers) == Step::Begin;
        assert!(begins(1, &[waits(2, &all), waits(3, &all)]));
        assert!(!begins(2, &[waits(1, &all), waits(3, &all)]), "only the smallest begins");
        assert!(!begins(1, &[waits(2, &all), silent()]), "somebody may have a disk with a cluster");
        assert!(!begins(1, &[waits(2, &[1, 2]), waits(3, &all)]), "2 cannot reach 3");
        assert!(!begins(1, &[waits(2, &[1, 2, 3, 4]), waits(3, &all)]), "2 was told of others");
        assert!(!begins(1, &[waits(2, &all), belongs(3, "c")]));
        assert!(
            begins(1, &[waits(1, &[1, 2]), waits(2, &[1, 2])]),
            "its own address is among those it was told"
        );
        assert_eq!(decide(1, true, &[silent(), belongs(3, "c")]), Step::Join("p1:1".into()));
        assert_eq!(decide(1, false, &[belongs(3, "c")]), Step::Join("p0:1".into()));
        assert!(matches!(decide(1, false, &[waits(2, &[1, 2])]), Step::Wait(_)), "it was told to join only");
        assert!(matches!(decide(1, true, &[belongs(2, "a"), belongs(3, "b")]), Step::Wait(_)));
    }

    /// Whatever of each other three members can reach, and in whatever order they look: at most one begins.
    #[test]
    fn never_two_clusters() {
        let pairs = [(1, 2), (1, 3), (2, 3)];
        for reachable in 0_u32..8 {
            let reach = |a: MemberId, b: MemberId| {
                let at = pairs.iter().position(|pair| *pair == (a.min(b), a.max(b))).unwrap_or_default();
                reachable & (1 << at) != 0
            };
            for order in 0_usize..27 {
                let mut sees = [BTreeSet::from([1]), BTreeSet::from([2]), BTreeSet::from([3])];
                let mut begun = BTreeSet::new();
                // Any order at first; then everybody looks again and again.
                let first = [order % 3, order / 3 % 3, order / 9];
                for own in first.into_iter().chain((0..9).map(|look| look % 3)) {
                    let id = own as MemberId + 1;
                    let others = (1..=3).filter(|other| *other != id);
                    let answers: Vec<_> = others
                        .map(|other| {
                            let seen: Vec<MemberId> = sees[other as usize - 1].iter().copied().collect();
                            match (reach(id, other), begun.contains(&other)) {
                                (false, _) => silent(),
                                (true, true) => belongs(other, &format!("of {other}")),
                                (true, false) => waits(other, &seen),
                            }
                        })
                        .collect();
                    let named =
                        answers.into_iter().enumerate().map(|(at, answer)| (format!("p{at}:1"), answer));
                    let (seen, step) = next(id, true, &named.collect());
                    sees[own] = seen;
                    if step == Step::Begin {
                        begun.insert(id);
                    }
                }
                assert!(begun.len() <= 1, "{begun:?} begin, reachable {reachable:b}, order {order}");
                let all_reach = reachable == 7;
                assert_eq!(!begun.is_empty(), all_reach, "reachable {reachable:b}, order {order}");
            }
        }
    }
}
