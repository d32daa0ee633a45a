use graticule_model::Timestamp;
use graticule_model::kinds::dataplane_insight::DiscoverySubscription;
use graticule_store::status::Grouping;
use tokio::task::JoinSet;

use super::*;

fn insight(streams: &[&str]) -> DataplaneInsight {
    let subscription = |id: &&str| DiscoverySubscription { id: (*id).into(), ..Default::default() };
    DataplaneInsight { subscriptions: streams.iter().map(subscription).collect(), ..Default::default() }
}

/// Streams that are shown once the last one is this.
async fn streams(status: &SharedStatus, proxy: &ProxyId, last: &str) -> Vec<String> {
    let shown = status.shown();
    let mut feed = shown.watch(None);
    loop {
        let resource = shown.snapshot().get(&insight_key(proxy));
        let known = resource.as_ref().and_then(|resource| resource.spec_as::<DataplaneInsight>());
        let ids: Vec<String> =
            known.iter().flat_map(|known| &known.subscriptions).map(|one| one.id.clone()).collect();
        if ids.last().is_some_and(|id| id == last) {
            return ids;
        }
        assert!(feed.next().await.is_some(), "the store ended");
    }
}

/// A replica is gone, and this one took over what it had observed: the history of a proxy that comes here goes on.
#[tokio::test(start_paused = true)]
async fn the_history_of_an_adopted_proxy_goes_on() {
    let proxy = ProxyId::new("default", "web-1");
    let status = SharedStatus::new("a", Grouping::Proxy, || Timestamp::UNIX_EPOCH);
    let adopt = async |streams: &[&str]| {
        let meta = Meta::new(proxy.mesh.clone(), proxy.name.clone());
        let resource = Resource::new(meta, insight(streams));
        status.own().commit(Txn::put(resource)).await.expect("stored");
        status.claim(&Group::proxy(&insight_key(&proxy)), true);
    };
    adopt(&["of-another"]).await;
    let (insights, handle) = Insights::new(status.clone(), Clock::system(), "a-1".into());
    let (signal, drain) = Drain::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(insights.run(drain));
    handle.open(&proxy, &"here".into(), Map::new(), true);
    assert_eq!(streams(&status, &proxy, "here").await, ["of-another", "here"]);
    // It goes there once more, and comes back the same way.
    adopt(&["here", "there-again"]).await;
    handle.open(&proxy, &"back".into(), Map::new(), true);
    assert_eq!(streams(&status, &proxy, "back").await, ["there-again", "back"]);
    // Without another replica the own history counts, also what was not written yet.
    handle.close(&proxy, &"back".into());
    handle.open(&proxy, &"last".into(), Map::new(), true);
    assert_eq!(streams(&status, &proxy, "last").await, ["back", "last"]);
    signal.drain();
}
