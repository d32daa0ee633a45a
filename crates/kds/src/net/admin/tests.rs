use std::pin::pin;

use futures::{FutureExt as _, poll};
use graticule_model::Timestamp;
use graticule_runtime::ClockHand;

use super::*;

const DUMP: AdminQuery = AdminQuery::ConfigDump { include_eds: true };
const STATS: AdminQuery = AdminQuery::Stats { format: OutputFormat::Json, used_only: true };

fn mk_broker() -> (AdminBroker, ClockHand) {
    let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
    (AdminBroker::new(clock, Random::seeded(1)), hand)
}

fn mk_target(name: &str) -> AdminTarget {
    AdminTarget { kind: "Dataplane".into(), name: name.into(), mesh: "default".into() }
}

fn pending(broker: &AdminBroker) -> usize {
    broker.0.state.lock().pending.len()
}

#[tokio::test]
async fn answers_find_their_questions_in_any_order() {
    let (broker, _hand) = mk_broker();
    let mut dumps = broker.connect("east", StreamKind::ConfigDump);
    let mut stats = broker.connect("east", StreamKind::Stats);
    let mut first = pin!(broker.ask("east", mk_target("a"), DUMP));
    let mut second = pin!(broker.ask("east", mk_target("b"), DUMP));
    let mut third = pin!(broker.ask("east", mk_target("c"), STATS));
    assert!(
        poll!(&mut first).is_pending() && poll!(&mut second).is_pending() && poll!(&mut third).is_pending()
    );
    let (a, b) = (dumps.next().await.unwrap(), dumps.next().await.unwrap());
    let c = stats.next().await.unwrap();
    assert_eq!((a.target, b.target, c.target), (mk_target("a"), mk_target("b"), mk_target("c")));
    assert_ne!(a.id, b.id);

    dumps.answered("unknown", Ok(b"x".to_vec()));
    stats.answered(&a.id, Ok(b"of another stream".to_vec()));
    dumps.answered(&b.id, Err("no Envoy".into()));
    assert!(poll!(&mut first).is_pending(), "nobody answered it");
    assert_eq!(second.await, Err(AdminError::Failed("no Envoy".into())));
    dumps.answered(&a.id, Ok(b"dump".to_vec()));
    assert_eq!(first.await, Ok(b"dump".to_vec()));
    stats.answered(&c.id, Ok(Vec::new()));
    assert_eq!(third.await, Ok(Vec::new()));
    assert_eq!(pending(&broker), 0);
}

#[tokio::test]
async fn a_late_answer_is_dropped_and_a_stale_question_is_not_sent() {
    let (broker, hand) = mk_broker();
    let mut dumps = broker.connect("east", StreamKind::ConfigDump);
    {
        let mut sent = pin!(broker.ask("east", mk_target("sent"), DUMP));
        let mut waits = pin!(broker.ask("east", mk_target("waits"), DUMP));
        assert!(poll!(&mut sent).is_pending() && poll!(&mut waits).is_pending());
        let question = dumps.next().await.unwrap();
        hand.advance(ADMIN_TIMEOUT);
        assert_eq!(sent.await, Err(AdminError::Timeout("east".into())));
        assert_eq!(waits.await, Err(AdminError::Timeout("east".into())));
        dumps.answered(&question.id, Ok(b"late".to_vec()));
    }
    assert!(dumps.next().now_or_never().is_none(), "nobody waits for it");
    let mut fresh = pin!(broker.ask("east", mk_target("fresh"), DUMP));
    assert!(poll!(&mut fresh).is_pending());
    assert_eq!(dumps.next().await.unwrap().target, mk_target("fresh"));
}

#[tokio::test]
async fn a_stuck_zone_blocks_nobody() {
    let (broker, _hand) = mk_broker();
    let _stuck = broker.connect("stuck", StreamKind::ConfigDump);
    let mut works = broker.connect("works", StreamKind::ConfigDump);
    let mut asked: Vec<_> =
        (0..PENDING_PER_STREAM_MAX).map(|_| Box::pin(broker.ask("stuck", mk_target("a"), DUMP))).collect();
    for ask in &mut asked {
        assert!(poll!(ask).is_pending());
    }
    assert_eq!(broker.ask("stuck", mk_target("a"), DUMP).await, Err(AdminError::Busy("stuck".into())));
    let mut other = pin!(broker.ask("works", mk_target("a"), DUMP));
    assert!(poll!(&mut other).is_pending());
    let question = works.next().await.unwrap();
    works.answered(&question.id, Ok(b"dump".to_vec()));
    assert_eq!(other.await, Ok(b"dump".to_vec()));
    // Whoever gives up makes room.
    asked.pop();
    assert_eq!(pending(&broker), PENDING_PER_STREAM_MAX - 1);
}

#[tokio::test]
async fn streams_that_end() {
    let (broker, _hand) = mk_broker();
    let offline = Err(AdminError::Offline("east".into()));
    assert_eq!(broker.ask("east", mk_target("a"), DUMP).await, offline);
    let old = broker.connect("east", StreamKind::ConfigDump);
    assert_eq!(broker.ask("east", mk_target("a"), STATS).await, offline, "another stream");
    let mut waits = pin!(broker.ask("east", mk_target("a"), DUMP));
    assert!(poll!(&mut waits).is_pending());
    // The end of a replaced stream does not touch the new one.
    let mut new = broker.connect("east", StreamKind::ConfigDump);
    drop(old);
    assert_eq!(waits.await, Err(AdminError::Ended("east".into())));
    let mut again = pin!(broker.ask("east", mk_target("b"), DUMP));
    assert!(poll!(&mut again).is_pending());
    let question = new.next().await.unwrap();
    new.answered(&question.id, Ok(b"dump".to_vec()));
    assert_eq!(again.await, Ok(b"dump".to_vec()));
    drop(new);
    assert_eq!(broker.ask("east", mk_target("a"), DUMP).await, offline);
}
