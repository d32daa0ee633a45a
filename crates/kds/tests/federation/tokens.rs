//! How long a zone token opens anything, and for whom.

use std::collections::BTreeSet;
use std::time::Duration;

use graticule_kds::net::{GlobalOptions, TokenlessZones};
use graticule_model::{Key, Kind, Timestamp};
use graticule_proto::kuma::mesh::v1alpha1::ZoneHealthCheckRequest;
use graticule_proto::kuma::mesh::v1alpha1::global_kds_service_client::GlobalKdsServiceClient;
use graticule_proto::kuma::mesh::v1alpha1::kds_sync_service_client::KdsSyncServiceClient;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::*;

/// Both sync streams of a zone that says nothing more, above all no health check.
async fn quiet_zone(global: &Global, zone: &str, token: &str) -> Vec<Quiet> {
    let mut client = KdsSyncServiceClient::new(raw_channel(global).await);
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    requests.send(first_request(zone, Kind::Mesh)).await.unwrap();
    let down = of_zone(ReceiverStream::new(queue), zone, Some(token));
    let down = client.global_to_zone_sync(down).await.unwrap().into_inner();
    let (responses, queue) = tokio::sync::mpsc::channel(1);
    let up = of_zone(ReceiverStream::new(queue), zone, Some(token));
    let up = client.zone_to_global_sync(up).await.unwrap().into_inner();
    vec![Quiet::Down(down, requests), Quiet::Up(up, responses)]
}

enum Quiet {
    Down(
        Streaming<graticule_proto::discovery::DeltaDiscoveryResponse>,
        tokio::sync::mpsc::Sender<graticule_proto::discovery::DeltaDiscoveryRequest>,
    ),
    Up(
        Streaming<graticule_proto::discovery::DeltaDiscoveryRequest>,
        tokio::sync::mpsc::Sender<graticule_proto::discovery::DeltaDiscoveryResponse>,
    ),
}

impl Quiet {
    /// Reads until the stream ends.
    async fn end(self) -> Status {
        let read = async {
            match self {
                Quiet::Down(mut stream, _kept) => loop {
                    match stream.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => return Status::ok("ended"),
                        Err(status) => return status,
                    }
                },
                Quiet::Up(mut stream, _kept) => loop {
                    match stream.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => return Status::ok("ended"),
                        Err(status) => return status,
                    }
                },
            }
        };
        tokio::time::timeout(DEADLINE, read).await.expect("the stream ends")
    }
}

async fn touch_secrets(global: &Global) {
    let secret = "{type: GlobalSecret, name: zone-token-revocations, data: eA==}";
    put(&global.stores.config, mk(secret)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_open_streams() {
    let tokens = Tokens::default();
    let global = mk_global_with(mk_stores(), GlobalOptions::default(), tokens.clone(), None, 0).await;
    let thief = quiet_zone(&global, "east", "token-east-stolen").await;
    let mut honest = mk_zone("west", &global, mk_stores(), "token-west");
    linked(&mut honest, "west synced", |link| link.synced).await;
    let since = honest.link.borrow().connected_since;
    until_true("both are online", || global.server.online_zones() == ["east", "west"]).await;

    tokens.revoked.lock().insert("token-east-stolen".into());
    touch_secrets(&global).await;
    for stream in thief {
        let status = stream.end().await;
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains("revoked"), "{status:?}");
    }
    until_true("only west is online", || global.server.online_zones() == ["west"]).await;
    assert_eq!(honest.link.borrow().connected_since, since, "another zone's connection lives on");

    // The zone itself, whose token was renewed, is let in.
    let mut renewed = mk_zone("east", &global, mk_stores(), "token-east-renewed");
    linked(&mut renewed, "east synced", |link| link.synced).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_ends_open_streams() {
    let expires = Timestamp::now() + Duration::from_millis(1_500);
    let tokens = Tokens { expires: Some(expires), ..Tokens::default() };
    let global = mk_global_with(mk_stores(), GlobalOptions::default(), tokens, None, 0).await;
    for stream in quiet_zone(&global, "east", "token-east").await {
        let status = stream.end().await;
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains("expired"), "{status:?}");
    }
    assert!(Timestamp::now() >= expires, "not earlier");
}

async fn health(global: &Global, zone: &str, token: Option<&str>) -> Result<(), String> {
    let mut client = GlobalKdsServiceClient::new(raw_channel(global).await);
    let called = client.health_check(of_zone(ZoneHealthCheckRequest::default(), zone, token)).await;
    called.map(|_| ()).map_err(|status| status.message().to_owned())
}

/// A name that was used with a token is not for those who have none.
#[tokio::test(flavor = "multi_thread")]
async fn zones_without_a_token_get_no_name_of_one_with_a_token() {
    let options = |tokenless_zones| GlobalOptions { tokenless_zones, ..GlobalOptions::default() };
    let global = mk_global(mk_stores(), options(TokenlessZones::All), None, 0).await;
    // A zone of ours, and a stock one that was given a token.
    let mut own = mk_zone("own", &global, mk_stores(), "token-own");
    linked(&mut own, "own synced", |link| link.synced).await;
    let stock = quiet_zone(&global, "stock", "token-stock").await;
    drop(stock);
    for (zone, token, is_let_in) in [
        ("own", None, false),
        ("own", Some("token-own"), true),
        ("stock", None, false),
        ("stock", Some("token-stock"), true),
        ("new", None, true),
    ] {
        let said = health(&global, zone, token).await;
        assert_eq!(said.is_ok(), is_let_in, "{zone} {token:?}: {said:?}");
        assert!(said.err().is_none_or(|said| said.contains("used with one before")), "{zone}");
    }
    // A zone that shows an identity, and no token, is like a stock one: the name stays open.
    let mut bare = mk_zone_with("bare", &global, global.address.port(), mk_stores(), "bare-1", |options| {
        options.token = graticule_kds::net::ZoneToken::None;
    });
    linked(&mut bare, "bare synced", |link| link.synced).await;
    assert_eq!(health(&global, "bare", None).await, Ok(()));
    // Whoever wants to use a name without a token deletes the Zone.
    delete(&global.stores.config, Key::new(Kind::Zone, "", "stock")).await;
    assert_eq!(health(&global, "stock", None).await, Ok(()));

    let some = TokenlessZones::Named(BTreeSet::from(["stock".to_owned()]));
    let global = mk_global(mk_stores(), options(some), None, 0).await;
    assert_eq!(health(&global, "stock", None).await, Ok(()));
    assert!(health(&global, "other", None).await.unwrap_err().contains("a zone token is required"));
}

/// Streams for questions alone make no Zone, and are none.
#[tokio::test(flavor = "multi_thread")]
async fn who_opens_no_streams_for_resources_is_no_zone() {
    let options = GlobalOptions { tokenless_zones: TokenlessZones::All, ..GlobalOptions::default() };
    let global = mk_global(mk_stores(), options, None, 0).await;
    let mut client = GlobalKdsServiceClient::new(raw_channel(&global).await);
    let answers = of_zone(tokio_stream::pending(), "ghost", None);
    let mut asks = tokio::task::JoinSet::new();
    asks.spawn(async move { client.stream_stats(answers).await.map(|_| ()) });
    // What is written of others is written after what would have been written of this one.
    let mut zone = mk_zone("east", &global, mk_stores(), "token-east");
    linked(&mut zone, "east synced", |link| link.synced).await;
    until(&global.stores.status, "east is seen", has(Kind::ZoneInsight, "east")).await;
    assert!(asks.try_join_next().is_none(), "it waits for its Zone");
    assert!(global.server.report("ghost").is_none());
    assert!(!global.stores.status.snapshot().contains(&Key::new(Kind::ZoneInsight, "", "ghost")));
    zone.stop.drain();
}
