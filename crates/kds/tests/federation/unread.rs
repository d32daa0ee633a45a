//! A zone that answers pings, and never reads.

use std::time::Duration;

use graticule_kds::net::GlobalOptions;
use graticule_model::Kind;
use graticule_proto::kuma::mesh::v1alpha1::kds_sync_service_client::KdsSyncServiceClient;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::*;

/// Its window is full, and the rest of a message waits for room: from then on its stream's state is asked for nothing.
async fn full_window(global: &Global) -> impl Sized {
    for name in ["a", "b", "c", "d"] {
        let items = "x".repeat(100_000);
        let mesh = format!("{{type: Mesh, name: {name}, skipCreatingInitialPolicies: [{items}]}}");
        put(&global.stores.config, mk(&mesh)).await;
    }
    let mut client = KdsSyncServiceClient::new(raw_channel(global).await);
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    requests.send(first_request("deaf", Kind::Mesh)).await.unwrap();
    let down = of_zone(ReceiverStream::new(queue), "deaf", Some("token-deaf"));
    let down = client.global_to_zone_sync(down).await.unwrap().into_inner();
    let sent = || global.server.report("deaf").is_some_and(|report| !report.peer.sent.is_empty());
    until_true("its first state was sent", sent).await;
    (client, requests, down)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_never_reads_is_sent_away() {
    let options = GlobalOptions {
        // The connection looks alive: a test that waits for dead ones would not end.
        keep_alive: Duration::from_secs(300),
        stuck_after: Duration::from_millis(500),
        ..GlobalOptions::default()
    };
    let global = mk_global(mk_stores(), options, None, 0).await;
    let deaf = full_window(&global).await;
    let mut other = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut other, "east synced", |link| link.synced).await;
    until_true("it is gone", || global.server.online_zones() == ["east"]).await;
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_never_reads_cannot_keep_a_revoked_token() {
    let tokens = Tokens::default();
    let options = GlobalOptions { keep_alive: Duration::from_secs(300), ..GlobalOptions::default() };
    let global = mk_global_with(mk_stores(), options, tokens.clone(), None, 0).await;
    let deaf = full_window(&global).await;
    until_true("it is there", || global.server.online_zones() == ["deaf"]).await;
    tokens.revoked.lock().insert("token-deaf".into());
    put(&global.stores.config, mk("{type: GlobalSecret, name: zone-token-revocations, data: eA==}")).await;
    until_true("it is gone", || global.server.online_zones().is_empty()).await;
    drop(deaf);
}
