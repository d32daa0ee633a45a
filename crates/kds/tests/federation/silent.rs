//! Global control planes of Kuma that fall silent over a connection that looks alive (federation.md §1.4, §7).

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{Stream, StreamExt as _};
use graticule_kds::core::kinds_for_global;
use graticule_kds::net::ZoneOptions;
use graticule_kds::wire::Encoded;
use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use parking_lot::Mutex;
use pb::global_kds_service_server::{GlobalKdsService, GlobalKdsServiceServer};
use pb::kds_sync_service_server::{KdsSyncService, KdsSyncServiceServer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What goes wrong; always on the first connection only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing is sent to the zone once it has its first state.
    Downward,
    /// Nothing is sent to the zone at all.
    DownwardFromTheStart,
    /// What the zone sends after its first state is not acknowledged.
    Upward,
    /// It never asks the zone for anything.
    NeverAsks,
    /// It does not say which federation it is (on every connection).
    NoFederation,
    /// It acknowledges nothing before so many health checks were made.
    Slow,
    /// None: it is one of ours, but its health checks are answered by another replica, which does not know how far the zone is.
    Balanced,
}

const SLOW_CHECKS: usize = 10;

struct Kuma {
    fault: Fault,
    joins: [AtomicUsize; 2],
    policy: Notify,
    taken: Mutex<BTreeSet<String>>,
    /// Kinds that the zone has answered for.
    answered: AtomicUsize,
    /// Streams to the zone that it has seen.
    seen: watch::Sender<usize>,
    checks: watch::Sender<usize>,
    /// Streams of the zone when the first one was acknowledged at last.
    joins_when_slow: AtomicUsize,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Clone)]
struct Server(Arc<Kuma>);

fn response(type_url: &str, nonce: usize, resources: &[Resource]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: type_url.into(),
        nonce: nonce.to_string(),
        resources: resources.iter().map(|one| Encoded::of(one).unwrap().to_discovery()).collect(),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl KdsSyncService for Server {
    type GlobalToZoneSyncStream = Out<DeltaDiscoveryResponse>;
    type ZoneToGlobalSyncStream = Out<DeltaDiscoveryRequest>;

    async fn global_to_zone_sync(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::GlobalToZoneSyncStream>, Status> {
        let kuma = self.0.clone();
        let is_first = kuma.joins[0].fetch_add(1, Ordering::SeqCst) == 0;
        kuma.seen.send_modify(|seen| *seen += 1);
        let mut requests = request.into_inner();
        let (out, queue) = mpsc::channel(64);
        self.0.tasks.lock().spawn(async move {
            let (mut seen, mut nonce) = (BTreeSet::new(), 0);
            loop {
                tokio::select! {
                    request = requests.message() => {
                        let Ok(Some(request)) = request else { return };
                        if is_first && kuma.fault == Fault::DownwardFromTheStart {
                            continue;
                        }
                        if !seen.insert(request.type_url.clone()) {
                            continue;
                        }
                        let id = "{type: Config, name: kuma-cluster-id, config: 11111111-2222-3333-4444-555555555555,
                            labels: {kuma.io/origin: global}}";
                        let resources = match request.type_url.as_str() {
                            "Config" if kuma.fault == Fault::NoFederation => continue,
                            "Config" => vec![mk(id)],
                            _ => Vec::new(),
                        };
                        nonce += 1;
                        let mut response = response(&request.type_url, nonce, &resources);
                        if kuma.fault == Fault::Balanced {
                            response.system_version_info = "graticule revision=1".into();
                        }
                        let _ = out.send(Ok(response)).await;
                    }
                    () = kuma.policy.notified() => {
                        if is_first && kuma.fault != Fault::Upward {
                            kuma.policy.notify_one();
                            let () = std::future::pending().await;
                        }
                        nonce += 1;
                        let mut policy = mk_timeout("late");
                        policy.meta.labels.insert("kuma.io/origin".into(), "global".into());
                        let _ = out.send(Ok(response("MeshTimeout", nonce, &[policy]))).await;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(queue).boxed()))
    }

    async fn zone_to_global_sync(
        &self,
        request: Request<Streaming<DeltaDiscoveryResponse>>,
    ) -> Result<Response<Self::ZoneToGlobalSyncStream>, Status> {
        let kuma = self.0.clone();
        let is_first = kuma.joins[1].fetch_add(1, Ordering::SeqCst) == 0;
        let mut responses = request.into_inner();
        let (out, queue) = mpsc::channel(64);
        self.0.tasks.lock().spawn(async move {
            let ask = |type_url: &str, nonce: &str| DeltaDiscoveryRequest {
                node: Some(Node { id: "east".into(), ..Default::default() }),
                type_url: type_url.into(),
                response_nonce: nonce.into(),
                ..Default::default()
            };
            // Else a connection that ends soon could be seen in one direction only, and the next one have the fault.
            let _ = kuma.seen.subscribe().wait_for(|seen| *seen > 0).await;
            if !(is_first && kuma.fault == Fault::NeverAsks) {
                for kind in kinds_for_global() {
                    let _ = out.send(Ok(ask(kind.name(), ""))).await;
                }
            }
            let mut seen = BTreeSet::new();
            while let Ok(Some(response)) = responses.message().await {
                if is_first && kuma.fault == Fault::Slow {
                    let _ = kuma.checks.subscribe().wait_for(|made| *made >= SLOW_CHECKS).await;
                    let joins = kuma.joins[1].load(Ordering::SeqCst);
                    let _ =
                        kuma.joins_when_slow.compare_exchange(0, joins, Ordering::SeqCst, Ordering::SeqCst);
                }
                let is_news = !seen.insert(response.type_url.clone());
                kuma.answered.fetch_max(seen.len(), Ordering::SeqCst);
                if is_first && is_news && kuma.fault == Fault::Upward {
                    continue;
                }
                let names = response.resources.iter().map(|one| one.name.clone());
                kuma.taken.lock().extend(names);
                let _ = out.send(Ok(ask(&response.type_url, &response.nonce))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(queue).boxed()))
    }
}

#[tonic::async_trait]
impl GlobalKdsService for Server {
    type StreamXDSConfigsStream = Out<pb::XdsConfigRequest>;
    type StreamStatsStream = Out<pb::StatsRequest>;
    type StreamClustersStream = Out<pb::ClustersRequest>;

    async fn health_check(
        &self,
        _request: Request<pb::ZoneHealthCheckRequest>,
    ) -> Result<Response<pb::ZoneHealthCheckResponse>, Status> {
        self.0.checks.send_modify(|made| *made += 1);
        let mut answer = pb::ZoneHealthCheckResponse::default();
        if matches!(self.0.fault, Fault::Slow | Fault::Balanced) {
            answer.interval.get_or_insert_default().nanos = 100_000_000;
        }
        Ok(Response::new(answer))
    }

    async fn stream_xds_configs(
        &self,
        _request: Request<Streaming<pb::XdsConfigResponse>>,
    ) -> Result<Response<Self::StreamXDSConfigsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn stream_stats(
        &self,
        _request: Request<Streaming<pb::StatsResponse>>,
    ) -> Result<Response<Self::StreamStatsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn stream_clusters(
        &self,
        _request: Request<Streaming<pb::ClustersResponse>>,
    ) -> Result<Response<Self::StreamClustersStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A Kuma global with this fault, and a zone that has joined it.
async fn joined(
    fault: Fault,
    stores: graticule_kds::net::Stores,
    change: impl FnOnce(&mut ZoneOptions),
) -> (Arc<Kuma>, ZoneCp, JoinSet<()>) {
    let kuma = Arc::new(Kuma {
        fault,
        joins: Default::default(),
        policy: Notify::new(),
        taken: Mutex::default(),
        answered: AtomicUsize::new(0),
        seen: watch::Sender::new(0),
        checks: watch::Sender::new(0),
        joins_when_slow: AtomicUsize::new(0),
        tasks: Mutex::default(),
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let gzip = tonic::codec::CompressionEncoding::Gzip;
    let server = tonic::transport::Server::builder()
        .add_service(KdsSyncServiceServer::new(Server(kuma.clone())).accept_compressed(gzip))
        .add_service(GlobalKdsServiceServer::new(Server(kuma.clone())).accept_compressed(gzip));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
    let dial = graticule_kds::net::Dial::tcp(
        &format!("grpc://localhost:{port}"),
        &graticule_runtime::tls::ClientTrust::System,
    );
    let zone = mk_zone_at("east", dial.unwrap(), stores, "east-1", change);
    (kuma, zone, tasks)
}

/// An acknowledgement is lost: the kind would be silent for good while the connection looks fine.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_acknowledgement_is_noticed() {
    for fault in [Fault::Upward, Fault::NeverAsks] {
        let quick = |options: &mut ZoneOptions| options.stuck_after = Duration::from_secs(1);
        let (kuma, mut zone, _tasks) = joined(fault, mk_stores(), quick).await;
        linked(&mut zone, "synced", |link| link.synced).await;
        if fault == Fault::Upward {
            let all = kinds_for_global().count();
            until_true("the first states are there", || kuma.answered.load(Ordering::SeqCst) == all).await;
        }
        put(&zone.stores.config, mk_timeout("one")).await;
        put(
            &zone.stores.config,
            mk("{type: Dataplane, mesh: default, name: p, networking: {address: 127.0.0.1}}"),
        )
        .await;
        let taken = |name: &str| kuma.taken.lock().iter().any(|taken| taken.starts_with(name));
        until_true("it arrives after all", || taken("one-") && taken("p-")).await;
        assert!(kuma.joins[1].load(Ordering::SeqCst) >= 2, "{fault:?}");
        linked(&mut zone, "the reason is told", |link| {
            link.last_error.as_ref().is_some_and(|error| error.contains("connecting again"))
        })
        .await;
        zone.stop.drain();
    }
}

/// Global says nothing any more: the zone connects again now and then, because nothing would tell it.
#[tokio::test(flavor = "multi_thread")]
async fn a_global_that_fell_silent_is_asked_again() {
    for fault in [Fault::Downward, Fault::DownwardFromTheStart] {
        let quick = |options: &mut ZoneOptions| {
            options.resync_after_join = Duration::from_millis(500);
            options.resync_interval = Duration::from_secs(100);
        };
        let (kuma, mut zone, _tasks) = joined(fault, mk_stores(), quick).await;
        if fault == Fault::Downward {
            linked(&mut zone, "synced", |link| link.synced).await;
        }
        kuma.policy.notify_one();
        until(&zone.stores.config, "the policy", has(Kind::MeshTimeout, "late")).await;
        // That was the precaution after joining; the next one is far away.
        assert_eq!(kuma.joins[0].load(Ordering::SeqCst), 2, "{fault:?}");
        assert_eq!(zone.link.borrow().last_error, None, "nothing was wrong, as far as it knows");
        zone.stop.drain();
    }
}

/// One that needs long to store what the zone sends is not silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_global_is_waited_for() {
    let quick = |options: &mut ZoneOptions| {
        options.resync_after_join = Duration::from_millis(300);
        options.resync_interval = Duration::from_secs(100);
    };
    let (kuma, zone, _tasks) = joined(Fault::Slow, mk_stores(), quick).await;
    let joins = || kuma.joins_when_slow.load(Ordering::SeqCst);
    until_true("it acknowledges at last", || joins() > 0).await;
    assert_eq!(joins(), 1, "the zone did not connect again meanwhile");
    zone.stop.drain();
}

/// Behind a balancer the replica that answers health checks need not be the one that has the streams.
#[tokio::test(flavor = "multi_thread")]
async fn a_global_of_ours_is_not_silent_whoever_answers_health_checks() {
    let quick = |options: &mut ZoneOptions| {
        options.resync_after_join = Duration::from_millis(300);
        options.resync_interval = Duration::from_millis(300);
    };
    let (kuma, mut zone, _tasks) = joined(Fault::Balanced, mk_stores(), quick).await;
    linked(&mut zone, "synced", |link| link.synced).await;
    let made = *kuma.checks.borrow();
    // A second, at least.
    until_true("time passes", || *kuma.checks.borrow() >= made + 10).await;
    assert_eq!(kuma.joins[0].load(Ordering::SeqCst), 1, "the zone did not connect again");
    zone.stop.drain();
}

/// A zone that has copies takes nothing of a global that does not say which federation it is, however long it waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_global_without_federation_is_not_believed() {
    let stores = mk_stores();
    for text in [
        "{type: Config, name: kuma-cluster-id, config: 11111111-2222-3333-4444-555555555555, labels: {kuma.io/origin: global}}",
        "{type: Mesh, name: default, labels: {kuma.io/origin: global}}",
    ] {
        put(&stores.config, mk(text)).await;
    }
    let quick = |options: &mut ZoneOptions| options.federation_id_timeout = Duration::from_millis(300);
    let (kuma, mut zone, _tasks) = joined(Fault::NoFederation, stores, quick).await;
    until_true("it tries again", || kuma.joins[0].load(Ordering::SeqCst) >= 3).await;
    linked(&mut zone, "the reason is told", |link| {
        link.last_error.as_ref().is_some_and(|error| error.contains("which federation"))
    })
    .await;
    assert!(has(Kind::Mesh, "default")(&zone.stores.config.snapshot().iter().cloned().collect::<Vec<_>>()));
    zone.stop.drain();
}
