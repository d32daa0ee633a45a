//! The server on a real socket with TLS, and clients of the usual libraries against it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
};
use envoy_types::pb::envoy::service::health::v3 as hds;
use envoy_types::pb::envoy::service::health::v3::health_check_request_or_endpoint_health_response::RequestType;
use envoy_types::pb::envoy::service::health::v3::health_discovery_service_client::HealthDiscoveryServiceClient;
use envoy_types::pb::google::protobuf::{Struct, Value as ProtoValue, value::Kind as ProtoKind};
use graticule_envoygen::bootstrap::BootstrapSettings;
use graticule_envoygen::{EnvoyResource, Snapshot};
use graticule_model::{Resource, Timestamp};
use graticule_policy::ProxyId;
use graticule_runtime::tls::{CertOptions, ClientTrust, ServerCert, ServerTls, client_config};
use graticule_runtime::{Clock, Drain, DrainSignal, ListenLimits, Random, TcpAcceptor};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::*;
use crate::core::hds::HealthReport;
use crate::core::{Event, Hello, ResourceType, read_dataplane};

const DEADLINE: Duration = Duration::from_secs(20);
const TOKEN: &str = "good-token";

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

/// What the control plane was told, in order.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Connected(String, bool),
    Event(Event),
    Disconnected(End),
    Health(HealthReport),
    Drained(String),
}

struct Zone {
    stored: Mutex<BTreeMap<String, watch::Sender<Option<Arc<Resource>>>>>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    told: mpsc::Sender<Told>,
    refusal: Mutex<Option<ConnectError>>,
}

impl Zone {
    fn tell(&self, told: Told) {
        self.told.try_send(told).expect("room for what is told");
    }

    fn entry(&self, id: &ProxyId) -> watch::Receiver<Option<Arc<Resource>>> {
        self.stored.lock().entry(id.to_string()).or_insert_with(|| watch::channel(None).0).subscribe()
    }

    fn store(&self, id: &ProxyId, resource: Resource) {
        self.entry(id);
        self.stored.lock()[&id.to_string()].send_replace(Some(Arc::new(resource)));
    }
}

#[async_trait]
impl Proxies for Zone {
    async fn stored_dataplane(&self, id: &ProxyId) -> Option<Arc<Resource>> {
        self.entry(id).borrow().clone()
    }

    async fn has_mesh(&self, mesh: &str) -> bool {
        matches!(mesh, "m" | "pol")
    }

    async fn refusal(&self, id: &ProxyId) -> Option<String> {
        (id.mesh == "closed").then(|| "not served here".into())
    }

    async fn connect(&self, hello: Hello, _stream: &StreamId) -> Result<Snapshots, ConnectError> {
        if let Some(refusal) = self.refusal.lock().clone() {
            return Err(refusal);
        }
        self.tell(Told::Connected(hello.id.to_string(), hello.dataplane.is_some()));
        if let Some(dataplane) = hello.dataplane {
            self.store(&hello.id, dataplane);
        }
        Ok(self.snapshots.subscribe())
    }

    fn event(&self, _id: &ProxyId, _stream: &StreamId, event: Event) {
        if !matches!(event, Event::Sent { .. }) {
            self.tell(Told::Event(event));
        }
    }

    fn disconnected(&self, _id: &ProxyId, _stream: &StreamId, end: End) {
        self.tell(Told::Disconnected(end));
    }

    async fn watch_dataplane(&self, id: &ProxyId) -> watch::Receiver<Option<Arc<Resource>>> {
        self.entry(id)
    }

    async fn health(&self, _id: &ProxyId, report: HealthReport) {
        self.tell(Told::Health(report));
    }

    async fn drain(&self, id: &ProxyId) -> Result<(), ConnectError> {
        self.tell(Told::Drained(id.to_string()));
        Ok(())
    }
}

/// Accepts [`TOKEN`], and `token-of-NAME` for the Dataplane `NAME` with the label `owner: me` or none.
struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, credential: Option<&str>, dataplane: &Resource) -> Result<(), AuthError> {
        let own = format!("token-of-{}", dataplane.meta.name);
        match credential {
            Some(TOKEN) => Ok(()),
            Some(token)
                if token == own && dataplane.meta.label("owner").is_none_or(|owner| owner == "me") =>
            {
                Ok(())
            }
            Some(_) => Err(AuthError("the token is for somebody else".into())),
            None => Err(AuthError("no token".into())),
        }
    }
}

struct Server {
    zone: Arc<Zone>,
    told: mpsc::Receiver<Told>,
    port: u16,
    router: axum::Router,
    signal: DrainSignal,
    running: tokio::task::JoinHandle<()>,
    ca: String,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Server {
        graticule_runtime::tls::install_crypto_provider();
        let dir = tempfile::tempdir().expect("a directory");
        let options = CertOptions { cert_file: "", key_file: "", work_dir: dir.path(), hostnames: &[] };
        let random = Random::seeded(1);
        let cert = ServerCert::load_or_generate(&options, Timestamp::now(), &random).expect("a certificate");
        let acceptor = TcpAcceptor::bind(
            "127.0.0.1:0".parse().expect("an address"),
            "dpServer.port",
            ListenLimits::default(),
        )
        .await
        .expect("a free port");
        let port = acceptor.local_addr().port();
        let (told_sender, told) = mpsc::channel(1_000);
        let zone = Arc::new(Zone {
            stored: Mutex::default(),
            snapshots: watch::channel(None).0,
            told: told_sender,
            refusal: Mutex::default(),
        });
        let deps = Deps {
            proxies: zone.clone(),
            authenticator: Arc::new(Tokens),
            cert: cert.clone(),
            bootstrap: BootstrapSettings { xds_host: String::new(), ..BootstrapSettings::default() },
            clock: Clock::system(),
            random,
            instance_id: "cp-1".into(),
        };
        let (signal, drain) = Drain::new();
        let server = DataplaneServer::new(Options::default(), deps, drain);
        let router = server.router();
        let incoming = acceptor.tls(cert.config(&ServerTls::default()).expect("TLS"));
        #[expect(clippy::disallowed_methods, reason = "the test owns the task")]
        let running = tokio::spawn(server.run(incoming));
        let ca = cert.chain_pem();
        Server { zone, told, port, router, signal, running, ca, _dir: dir }
    }

    async fn channel(&self) -> Channel {
        let (port, ca) = (self.port, self.ca.clone());
        let connector = tower::service_fn(move |_| {
            let ca = ca.clone();
            async move { dial(port, &ca, "h2").await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        in_time("connecting", endpoint.connect_with_connector(connector)).await.expect("connects")
    }

    async fn told(&mut self) -> Told {
        in_time("being told", self.told.recv()).await.expect("told")
    }

    async fn open(&self, credentials: &[&str], first: DeltaDiscoveryRequest) -> Client {
        let (requests, receiver) = mpsc::channel(100);
        requests.send(first).await.expect("room");
        let mut request = Request::new(ReceiverStream::new(receiver));
        for credential in credentials {
            request.metadata_mut().append("authorization", credential.parse().expect("metadata"));
        }
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel().await);
        let responses =
            in_time("opening", client.delta_aggregated_resources(request)).await.expect("opens").into_inner();
        Client { requests, responses }
    }

    async fn refused(&self, credentials: &[&str], first: DeltaDiscoveryRequest) -> (Code, String) {
        let mut client = self.open(credentials, first).await;
        let status = client.ended().await;
        (status.code(), status.message().to_owned())
    }

    /// Status, content type and body.
    async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String, String) {
        let io = TokioIo::new(dial(self.port, &self.ca, "http/1.1").await.expect("connects"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("handshake");
        let mut request = http::Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:5678");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(bytes::Bytes::from(body.to_owned()))).expect("a request");
        let exchange = async {
            let response = sender.send_request(request).await.expect("an answer");
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let content_type =
                head.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
            (head.status.as_u16(), content_type.to_owned(), String::from_utf8_lossy(&body).into_owned())
        };
        in_time("an HTTP exchange", async {
            tokio::select! {
                answer = exchange => answer,
                () = async { let _ = connection.await; std::future::pending().await } => unreachable!("pending"),
            }
        })
        .await
    }
}

type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// A TLS connection to the server, which it proves to be by its certificate.
async fn dial(port: u16, ca: &str, alpn: &str) -> std::io::Result<Tls> {
    let trust = ClientTrust::Pem(ca.as_bytes().to_vec());
    let config = client_config(&trust, &[alpn]).expect("a certificate");
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let name = "localhost".try_into().expect("a name");
    tokio_rustls::TlsConnector::from(config).connect(name, tcp).await
}

struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.expect("the stream is open");
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        in_time("a response", self.responses.message()).await.expect("no error").expect("a response")
    }

    /// Receives a response of a type and acknowledges it.
    async fn take(&mut self, kind: ResourceType) -> Vec<String> {
        let response = self.next().await;
        assert_eq!(response.type_url, kind.type_url());
        assert_eq!(response.control_plane.expect("set").identifier, "cp-1");
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..Default::default()
        })
        .await;
        let removed = response.removed_resources.iter().map(|name| format!("-{name}"));
        response.resources.iter().map(|r| format!("{}@{}", r.name, r.version)).chain(removed).collect()
    }

    async fn ended(&mut self) -> Status {
        loop {
            match in_time("the end", self.responses.message()).await {
                Err(status) => return status,
                Ok(None) => return Status::ok("ended"),
                Ok(Some(_)) => {}
            }
        }
    }
}

const DATAPLANE: &str = "{type: Dataplane, mesh: m, name: p, networking: {address: 10.0.0.1, inbound: [{port: 80, serviceProbe: {tcp: {}}}]}}";

fn mk_node(id: &str, metadata: &[(&str, &str)]) -> Node {
    let text = |value: &str| ProtoValue { kind: Some(ProtoKind::StringValue(value.into())) };
    let fields: HashMap<_, _> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    Node { id: id.into(), metadata: Some(Struct { fields }), ..Default::default() }
}

fn mk_first(id: &str, metadata: &[(&str, &str)]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { node: Some(mk_node(id, metadata)), ..mk_request(ResourceType::Cluster, &[], &[]) }
}

fn mk_hello() -> DeltaDiscoveryRequest {
    mk_first("m.p", &[("dataplane.resource", DATAPLANE)])
}

fn mk_request(kind: ResourceType, names: &[&str], versions: &[(&str, &str)]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().into(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        initial_resource_versions: versions.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..Default::default()
    }
}

fn mk_snapshot(revision: u64, cluster: &str, listener: &str) -> Option<Arc<Snapshot>> {
    let resource = |name: &str, version: &str| {
        let resource = EnvoyResource {
            name: name.into(),
            version: version.into(),
            body: bytes::Bytes::from_static(b"x"),
        };
        [(Arc::<str>::from(name), Arc::new(resource))].into()
    };
    Some(Arc::new(Snapshot {
        clusters: resource("a", cluster),
        listeners: resource("l", listener),
        revision,
        ..Snapshot::default()
    }))
}

#[tokio::test]
async fn a_proxy_connects_updates_and_resumes() {
    let mut server = Server::start().await;
    server.zone.snapshots.send_replace(mk_snapshot(1, "1", "1"));
    let mut client = server.open(&[TOKEN], mk_hello()).await;
    assert_eq!(client.take(ResourceType::Cluster).await, ["a@1"]);
    client.send(mk_request(ResourceType::Listener, &[], &[])).await;
    assert_eq!(client.take(ResourceType::Listener).await, ["l@1"]);
    let acked = |kind, revision| Told::Event(Event::Acked { kind, revision });
    assert_eq!(server.told().await, Told::Connected("m.p".into(), true));
    assert_eq!(server.told().await, acked(ResourceType::Cluster, 1));
    assert_eq!(server.told().await, acked(ResourceType::Listener, 1));
    assert_eq!(server.told().await, Told::Event(Event::Serving));
    assert_eq!(server.told().await, Told::Event(Event::Synced { revision: 1, rejected: 0 }));

    server.zone.snapshots.send_replace(mk_snapshot(2, "1", "2"));
    assert_eq!(client.take(ResourceType::Listener).await, ["l@2"]);
    assert_eq!(server.told().await, acked(ResourceType::Listener, 2));
    assert_eq!(server.told().await, Told::Event(Event::Synced { revision: 2, rejected: 0 }));

    drop(client);
    assert_eq!(server.told().await, Told::Disconnected(End::Client));
    let first =
        DeltaDiscoveryRequest { initial_resource_versions: [("a".into(), "1".into())].into(), ..mk_hello() };
    let mut again = server.open(&[TOKEN], first).await;
    assert!(again.take(ResourceType::Cluster).await.is_empty());
    again.send(mk_request(ResourceType::Listener, &[], &[("l", "2")])).await;
    assert!(again.take(ResourceType::Listener).await.is_empty());
    server.zone.snapshots.send_replace(None);
    server.zone.snapshots.send_replace(mk_snapshot(3, "3", "2"));
    assert_eq!(again.take(ResourceType::Cluster).await, ["a@3"]);
}

#[tokio::test]
async fn the_newest_stream_wins() {
    let mut server = Server::start().await;
    server.zone.snapshots.send_replace(mk_snapshot(1, "1", "1"));
    let mut old = server.open(&[TOKEN], mk_hello()).await;
    assert_eq!(old.take(ResourceType::Cluster).await, ["a@1"]);
    let mut new = server.open(&[TOKEN], mk_hello()).await;
    assert_eq!(new.take(ResourceType::Cluster).await, ["a@1"]);
    let status = old.ended().await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, "replaced by a newer stream of the same proxy")
    );
    let mut ends = Vec::new();
    while ends.is_empty() {
        if let Told::Disconnected(end) = server.told().await {
            ends.push(end);
        }
    }
    assert_eq!(ends, [End::Replaced]);
    server.zone.snapshots.send_replace(mk_snapshot(2, "2", "1"));
    assert_eq!(new.take(ResourceType::Cluster).await, ["a@2"]);
}

#[tokio::test]
async fn refusals_come_before_registration() {
    let mut server = Server::start().await;
    let labelled =
        "{type: Dataplane, mesh: m, name: taken, labels: {owner: other}, networking: {address: 10.0.0.1}}";
    server
        .zone
        .store(&ProxyId { mesh: "m".into(), name: "taken".into() }, read_dataplane(labelled).expect("valid"));
    let mine =
        "{type: Dataplane, mesh: m, name: taken, labels: {owner: me}, networking: {address: 10.0.0.1}}";
    let cases: Vec<(&[&str], DeltaDiscoveryRequest, &str)> = vec![
        (&["wrong"], mk_hello(), "authentication failed: the token is for somebody else"),
        (&[], mk_hello(), "authentication failed: no token"),
        (&[TOKEN, TOKEN], mk_hello(), "authentication failed: more than one authorization header"),
        (&[TOKEN], mk_first("", &[]), "invalid node ID: it must not be empty"),
        (&[TOKEN], mk_first("m", &[]), "invalid node ID: the name should be provided after the dot"),
        (
            &[TOKEN],
            mk_request(ResourceType::Cluster, &[], &[]),
            "the first request of a stream must have a node",
        ),
        (
            &[TOKEN],
            mk_first("m.q", &[("dataplane.resource", DATAPLANE)]),
            "node ID m.q does not match the Dataplane m.p in node metadata dataplane.resource",
        ),
        (
            &[TOKEN],
            mk_first("m.p", &[("dataplane.proxyType", "ingress"), ("dataplane.resource", DATAPLANE)]),
            "unsupported proxy type \"ingress\"",
        ),
        (
            &[TOKEN],
            mk_first("m.nobody", &[]),
            "resource \"m.nobody\" not found; create a Dataplane in the control plane first or pass it as an argument to the agent",
        ),
        // The token fits what the proxy brings, not what it would replace.
        (
            &["token-of-taken"],
            mk_first("m.taken", &[("dataplane.resource", mine)]),
            "authentication failed: the token is for somebody else",
        ),
    ];
    for (credentials, first, expected) in cases {
        assert_eq!(server.refused(credentials, first).await, (Code::Unknown, expected.into()));
    }
    assert!(server.told.try_recv().is_err(), "nobody was registered");

    *server.zone.refusal.lock() = Some(ConnectError::Refused("missing required label".into()));
    assert_eq!(server.refused(&[TOKEN], mk_hello()).await, (Code::Unknown, "missing required label".into()));
    assert_eq!(server.told().await, Told::Disconnected(End::Refused));
}

#[tokio::test]
async fn state_of_the_world_is_not_served() {
    let server = Server::start().await;
    let mut client = AggregatedDiscoveryServiceClient::new(server.channel().await);
    let request = Request::new(tokio_stream::iter([DiscoveryRequest::default()]));
    let error = client.stream_aggregated_resources(request).await.map(|_| ()).expect_err("not served");
    assert_eq!(error.code(), Code::Unimplemented);
}

#[tokio::test]
async fn shutdown_sends_proxies_away() {
    let mut server = Server::start().await;
    server.zone.snapshots.send_replace(mk_snapshot(1, "1", "1"));
    let mut client = server.open(&[TOKEN], mk_hello()).await;
    client.take(ResourceType::Cluster).await;
    server.signal.drain();
    assert_eq!(client.ended().await.code(), Code::Unavailable);
    while server.told().await != Told::Disconnected(End::Shutdown) {}
    drop(client);
    in_time("the end of the server", server.running).await.expect("no panic");
}

#[tokio::test]
async fn health_is_asked_for_and_passed_on() {
    let mut server = Server::start().await;
    let (requests, receiver) = mpsc::channel(10);
    let mut request = Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().append("authorization", TOKEN.parse().expect("metadata"));
    let send =
        |request_type| hds::HealthCheckRequestOrEndpointHealthResponse { request_type: Some(request_type) };
    let first = hds::HealthCheckRequest { node: Some(mk_node("m.p", &[])), capability: None };
    requests.send(send(RequestType::HealthCheckRequest(first))).await.expect("room");
    let mut client = HealthDiscoveryServiceClient::new(server.channel().await);
    let mut answers =
        in_time("opening", client.stream_health_check(request)).await.expect("opens").into_inner();
    // The Dataplane comes later, as it does when the ADS stream registers it.
    let id = ProxyId { mesh: "m".into(), name: "p".into() };
    server.zone.store(&id, read_dataplane(DATAPLANE).expect("valid"));
    let specifier = in_time("a specifier", answers.message()).await.expect("no error").expect("a specifier");
    let names: Vec<_> = specifier.cluster_health_checks.iter().map(|c| c.cluster_name.as_str()).collect();
    assert_eq!(names, ["localhost:80"]);

    let report = |healthy: i32| {
        let endpoint = hds::EndpointHealth { health_status: healthy, ..Default::default() };
        let locality = hds::LocalityEndpointsHealth { locality: None, endpoints_health: vec![endpoint] };
        let cluster = hds::ClusterEndpointsHealth {
            cluster_name: "localhost:80".into(),
            locality_endpoints_health: vec![locality],
        };
        send(RequestType::EndpointHealthResponse(hds::EndpointHealthResponse {
            cluster_endpoints_health: vec![cluster],
            ..Default::default()
        }))
    };
    for (status, expected) in [(1, Some(true)), (1, None), (2, Some(false))] {
        requests.send(report(status)).await.expect("room");
        if let Some(expected) = expected {
            let report = HealthReport { admin_healthy: true, workloads: [(80, expected)].into() };
            assert_eq!(server.told().await, Told::Health(report));
        }
    }
}

#[tokio::test]
async fn drain_of_a_proxy() {
    let mut server = Server::start().await;
    let id = ProxyId { mesh: "m".into(), name: "p".into() };
    server.zone.store(&id, read_dataplane(DATAPLANE).expect("valid"));
    let path = "/proxies/m/p/drain";
    assert_eq!(server.http("POST", path, &[], "").await.0, 401);
    assert_eq!(server.http("POST", path, &[("authorization", "wrong")], "").await.0, 401);
    assert_eq!(server.http("POST", "/proxies/m/q/drain", &[("authorization", TOKEN)], "").await.0, 404);
    assert!(server.told.try_recv().is_err());
    assert_eq!(server.http("POST", path, &[("authorization", TOKEN)], "").await.0, 204);
    assert_eq!(server.told().await, Told::Drained("m.p".into()));
}

#[tokio::test]
async fn bootstrap_statuses() {
    let server = Server::start().await;
    let json = [("accept", "application/json"), ("content-type", "application/json")];
    let request = |changes: serde_json::Value| {
        let mut request = serde_json::json!({"mesh": "m", "name": "p", "proxyType": "dataplane", "dataplaneToken": "t",
            "dataplaneResource": DATAPLANE, "workdir": "/run/p", "readinessPort": 9902, "caCert": "",
            "version": {"kumaDp": {"version": "3.0.0"}, "envoy": {"version": "1.39.3"}}});
        for (key, value) in changes.as_object().expect("an object") {
            request[key] = value.clone();
        }
        request.to_string()
    };
    let plain = "text/plain; charset=utf-8";
    let dataplane =
        |networking: &str| format!("{{type: Dataplane, mesh: m, name: p, networking: {networking}}}");
    let not_ca = {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["cp".into()]).expect("parameters");
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.self_signed(&key).expect("a certificate").pem()
    };
    let cases: Vec<(String, u16, &str, &str)> = vec![
        ("{\"mesh\":".into(), 400, "", ""),
        (request(serde_json::json!({"dataplaneToken": ""})), 422, plain, super::bootstrap::TOKEN_REQUIRED),
        (
            request(
                serde_json::json!({"dataplaneResource": dataplane("{address: '', inbound: [{port: 0}]}")}),
            ),
            422,
            plain,
            "networking.address: address can't be empty; networking.inbound[0].port: port must be in the range [1, 65535]",
        ),
        (
            request(serde_json::json!({"dataplaneResource": DATAPLANE.replace("mesh: m", "mesh: nomesh")})),
            422,
            plain,
            "mesh: mesh \"nomesh\" does not exist",
        ),
        (
            request(serde_json::json!({"dataplaneResource": DATAPLANE.replace("mesh: m", "mesh: closed")})),
            422,
            plain,
            "mesh: not served here",
        ),
        (
            request(serde_json::json!({
                "dataplaneResource": dataplane("{address: 10.0.0.1, outbound: [{port: 1, backendRef: {kind: MeshService, name: a, port: 2}}]}"),
                "dataplaneConfig": {"redirect": {"inbound": {"enabled": true}}},
            })),
            422,
            plain,
            "outbound: should be empty since dataplane is in Transparent Proxying mode",
        ),
        (request(serde_json::json!({"dataplaneResource": ""})), 404, "", ""),
        (request(serde_json::json!({"dataplaneResource": "{type: Mesh, name: x}"})), 500, "", ""),
        (request(serde_json::json!({"proxyType": "ingress"})), 500, "", ""),
        (request(serde_json::json!({"caCert": "not a pem"})), 500, "", ""),
        (request(serde_json::json!({"caCert": not_ca})), 400, plain, super::bootstrap::NOT_A_CA),
    ];
    for (body, status, content_type, expected) in cases {
        let answer = server.http("POST", "/bootstrap", &json, &body).await;
        assert_eq!(answer, (status, content_type.into(), expected.into()), "{body}");
    }

    let good = request(serde_json::json!({}));
    let (status, content_type, body) =
        server.http("POST", "/bootstrap", &[("host", "cp.example.org:5678"), json[0]], &good).await;
    assert_eq!((status, content_type.as_str()), (400, plain));
    assert!(
        body.starts_with(
            "A data plane proxy is trying to connect to the control plane using \"cp.example.org\" address"
        ),
        "{body}"
    );

    let (status, content_type, body) = server.http("POST", "/bootstrap", &json, &good).await;
    assert_eq!((status, content_type.as_str()), (200, "application/json"), "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        answer["kumaSidecarConfiguration"],
        serde_json::json!({"networking": {"address": "10.0.0.1"}, "metrics": {"aggregate": null}})
    );
    let (status, content_type, text) = server.http("GET", "/bootstrap", &[], &good).await;
    assert_eq!((status, content_type.as_str()), (200, "text/x-yaml"));
    let envoy = graticule_model::yaml::parse_one(&text).expect("YAML");
    assert_eq!(envoy["node"]["id"], "m.p");
    use base64::Engine;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(answer["bootstrap"].as_str().expect("text"))
        .expect("base64");
    assert_eq!(String::from_utf8(decoded).expect("UTF-8"), text);

    let large = http::Request::post("/bootstrap")
        .body(axum::body::Body::from("x".repeat(2 << 20)))
        .expect("a request");
    let answer = tower::ServiceExt::oneshot(server.router.clone(), large).await.expect("infallible");
    assert_eq!(answer.status(), 413);
    let unknown = server.http("POST", "/nothere", &[], "").await;
    assert_eq!(unknown, (404, plain.into(), "404 page not found\n".into()));
}

/// Recorded requests that are refused: same status, content type and body.
#[tokio::test]
async fn recorded_refusals_of_bootstrap() {
    let Some(root) = std::env::var_os("GRATICULE_CONFORMANCE_DIR") else {
        println!("skipped: GRATICULE_CONFORMANCE_DIR is not set");
        return;
    };
    let dir = std::path::Path::new(&root).join("recordings/dataplane/bootstrap");
    let server = Server::start().await;
    let mut checked = 0;
    for entry in std::fs::read_dir(dir).expect("recordings") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !name.starts_with("error-") || !name.ends_with(".json") {
            continue;
        }
        let recorded: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("JSON");
        let request = &recorded["request"];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let headers: Vec<(String, String)> = request["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .map(|(key, value)| (key.to_ascii_lowercase(), text(value)))
            .collect();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let body = match &request["body"] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (method, path) = (text(&request["method"]), text(&request["path"]));
        let (status, content_type, answer) = server.http(&method, &path, &headers, &body).await;
        assert_eq!(u64::from(status), recorded["status"].as_u64().expect("a status"), "{name}");
        assert_eq!(content_type, text(&recorded["contentType"]), "{name}");
        if let Some(expected) = recorded["body"].as_str() {
            // Free text after the names of the certificate, which differ.
            let expected = expected.split('<').next().unwrap_or_default();
            assert!(
                answer.starts_with(expected) && answer.is_empty() == expected.is_empty(),
                "{name}: {answer}"
            );
        }
        checked += 1;
    }
    assert!(checked > 10, "{checked} recordings");
}
