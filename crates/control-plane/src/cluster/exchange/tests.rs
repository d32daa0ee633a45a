use graticule_api::envoy_admin::AdminFormat;
use graticule_model::kinds::dataplane_insight::DataplaneInsight;
use graticule_model::{Meta, Resource};
use graticule_store::status::{Group, Grouping};
use graticule_store::{MemoryStore, Replacement, Revision};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn mk(observer: &str) -> SharedStatus {
    SharedStatus::new(observer, Grouping::Proxy, || at(100))
}

#[test]
fn the_form_of_questions_and_refusals() {
    let envoy = |query| Question::Envoy { zone: "east".into(), mesh: "m".into(), name: "p".into(), query };
    let asked = |query: Value| json!({"envoy": {"zone": "east", "mesh": "m", "name": "p", "query": query}});
    for (question, form) in [
        (
            Question::ProxyConfig { mesh: "m".into(), name: "p".into() },
            json!({"proxyConfig": {"mesh": "m", "name": "p"}}),
        ),
        (
            envoy(AdminQuery::ConfigDump { include_eds: true }),
            asked(json!({"configDump": {"includeEds": true}})),
        ),
        (
            envoy(AdminQuery::Stats { format: AdminFormat::Json, used_only: false }),
            asked(json!({"stats": {"format": "json", "usedOnly": false}})),
        ),
        (
            envoy(AdminQuery::Clusters { format: AdminFormat::Text }),
            asked(json!({"clusters": {"format": "text"}})),
        ),
        (Question::ZoneStatus { zone: "east".into() }, json!({"zoneStatus": {"zone": "east"}})),
        (Question::AcceptDeletions { zone: "east".into() }, json!({"acceptDeletions": {"zone": "east"}})),
    ] {
        assert_eq!(serde_json::to_value(&question).expect("JSON"), form);
        assert_eq!(serde_json::from_value::<Question>(form).expect("a question"), question);
    }
    for (refusal, form) in [
        (NoAnswer::NotFound, json!("notFound")),
        (NoAnswer::Unsupported, json!("unsupported")),
        (NoAnswer::Refused("why".into()), json!({"refused": "why"})),
        (NoAnswer::Busy("why".into()), json!({"busy": "why"})),
        (NoAnswer::Failed("why".into()), json!({"failed": "why"})),
        (NoAnswer::Unreachable("why".into()), json!({"unreachable": "why"})),
    ] {
        assert_eq!(serde_json::to_value(&refusal).expect("JSON"), form);
        assert_eq!(serde_json::from_value::<NoAnswer>(form).expect("a refusal"), refusal);
    }
}

/// Answers when it is told to.
struct Slow(Notify);

#[async_trait]
impl Answers for Slow {
    async fn answer(&self, _: Question) -> Result<Bytes, NoAnswer> {
        self.0.notified().await;
        Ok(Bytes::from_static(b"yes"))
    }
}

#[tokio::test]
async fn questions_have_a_limit_and_a_reason_when_nobody_answers() {
    let replicas = Replicas::new(mk("a"));
    let question = || Question::ProxyConfig { mesh: "m".into(), name: "p".into() };
    assert!(matches!(replicas.answer(question()).await, Err(NoAnswer::Unreachable(_))), "still starting");
    let unknown = replicas.ask(&Observer::from("b"), &question()).await.expect_err("nobody is known");
    assert_eq!(replicas.ask_around(&question()).await, Err(NoAnswer::NotFound), "there are no others");
    assert_eq!(unknown.to_string(), "the replica that could answer is not reached: no connection to b");
    let slow = Arc::new(Slow(Notify::new()));
    replicas.answer_with(slow.clone());
    let mut asking = JoinSet::new();
    for _ in 0..ASKED_MAX {
        let replicas = replicas.clone();
        asking.spawn(async move { replicas.answer(question()).await });
    }
    while replicas.0.asked.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(replicas.answer(question()).await, Err(NoAnswer::Busy(_))));
    for _ in 0..ASKED_MAX {
        slow.0.notify_one();
        tokio::task::yield_now().await;
    }
    slow.0.notify_waiters();
    for answer in asking.join_all().await {
        assert_eq!(answer, Ok(Bytes::from_static(b"yes")));
    }
}

#[tokio::test]
async fn who_stands_alone_waits_for_nobody() {
    let replicas = Replicas::new(mk("a"));
    replicas.alone();
    replicas.synced().await;
}

/// `b` as `a` knows it, with a proxy.
async fn heard() -> (Replicas, Observer, Group) {
    let (a, b) = (mk("a"), mk("b"));
    let insight: DataplaneInsight = serde_json::from_value(
        json!({"subscriptions": [{"id": "s", "connectTime": "2026-01-01T00:00:00Z"}]}),
    )
    .expect("an insight");
    let resource = Resource::new(graticule_model::Meta::new("default", "p"), insight);
    let group = Group::proxy(&resource.key());
    b.claim(&group, true);
    b.own().commit(Txn::put(resource)).await.expect("no expectations");
    let mut frames = b.frames();
    let mut received = BytesMut::from(&frames.next().await.expect("a frame")[..]);
    a.take(&mut received).expect("a frame");
    (Replicas::new(a), b.observer(), group)
}

#[tokio::test]
async fn a_replica_is_gone_after_a_while_or_with_its_membership() {
    let second = Duration::from_secs;
    let members = BTreeMap::from([(7, "b.example:5686".to_owned())]);
    for (what, broken, members, now, is_gone) in [
        ("its stream works", None, &members, second(100), false),
        ("broken a moment ago", Some(second(50)), &members, second(54), false),
        ("broken for long", Some(second(50)), &members, second(55), true),
        ("removed, but still heard", None, &BTreeMap::new(), second(100), false),
        ("removed", Some(second(50)), &BTreeMap::new(), second(50), true),
    ] {
        let (replicas, observer, group) = heard().await;
        let links = Links::default();
        let broken = broken.map(|since| Broken { since, at: at(99) });
        links.lock().entry(7).or_default().observers.insert(observer.clone(), broken);
        assert_eq!(give_up(&replicas.0, &links, members, now), is_gone, "{what}");
        assert_eq!(replicas.status().is_live(&group), !is_gone, "{what}");
        assert!(!give_up(&replicas.0, &links, members, now), "{what}: said once");
    }
}

/// What was deleted while this replica missed the changes: it learns of it by everything at once, and forgets it, too.
#[tokio::test]
async fn what_was_deleted_unseen_is_forgotten() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(|| at(1)));
    let dataplane = |name: &str| {
        let spec = graticule_model::kinds::dataplane::Dataplane::default();
        Resource::new(Meta::new("default", name), spec)
    };
    let insight = |name: &str| Resource::new(Meta::new("default", name), DataplaneInsight::default());
    let status = mk("a");
    let own = status.own();
    for name in ["stays", "goes"] {
        store.commit(Txn::put(dataplane(name))).await.expect("stored");
        own.commit(Txn::put(insight(name))).await.expect("stored");
    }
    // Its Dataplane is on its way.
    own.commit(Txn::put(insight("early"))).await.expect("stored");
    let mut forgets = std::pin::pin!(forget_deleted(store.clone(), status, Drain::never()));
    let mut look = async || {
        tokio::select! {
            biased;
            () = &mut forgets => {}
            () = tokio::task::yield_now() => {}
        }
        let snapshot = own.snapshot();
        snapshot.list(Kind::DataplaneInsight, None).map(|one| one.meta.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(look().await, ["early", "goes", "stays"]);
    let stays = store.snapshot().get(&dataplane("stays").key()).expect("it is there");
    let replacement = Replacement { resources: vec![stays], expect: None, above: Revision(0) };
    store.replace_all(replacement).await.expect("replaced");
    let mut left = look().await;
    for _ in 0..100 {
        left = look().await;
    }
    assert_eq!(left, ["early", "stays"]);
}
