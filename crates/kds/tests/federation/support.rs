//! Control planes of a federation in one process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use graticule_kds::net::{
    AdminQuery, AdminTarget, Dial, FederationLink, GlobalDeps, GlobalOptions, GlobalServer, Link, ProxyAdmin,
    Stores, ZoneAuthenticator, ZoneClient, ZoneDeps, ZoneGrant, ZoneOptions, ZoneToken,
};
use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::{Key, Kind, Resource, Timestamp, yaml};
use graticule_proto::discovery::{DeltaDiscoveryRequest, Node};
use graticule_runtime::tls::{CertOptions, ClientTrust, ServerCert, ServerTls};
use graticule_runtime::{Backoff, Clock, Drain, DrainSignal, ListenLimits, Random, TcpAcceptor};
use graticule_store::{Expect, MemoryStore, Store, Txn, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The tokens of zone `x` begin with `token-x`.
#[derive(Clone, Default)]
pub(crate) struct Tokens {
    /// No longer good.
    pub(crate) revoked: Arc<Mutex<BTreeSet<String>>>,
    /// When all of them expire.
    pub(crate) expires: Option<Timestamp>,
}

impl ZoneAuthenticator for Tokens {
    fn authenticate(&self, zone: &str, token: &str) -> Result<ZoneGrant, String> {
        if !token.starts_with(&format!("token-{zone}")) {
            return Err("issued for another zone".into());
        }
        if self.revoked.lock().contains(token) {
            return Err("revoked".into());
        }
        Ok(ZoneGrant { token: token.into(), expires: self.expires, ..ZoneGrant::default() })
    }

    fn revoked(&self, grants: &BTreeSet<ZoneGrant>) -> BTreeMap<ZoneGrant, String> {
        let revoked = self.revoked.lock();
        let gone = grants.iter().filter(|grant| revoked.contains(&grant.token));
        gone.map(|grant| (grant.clone(), "revoked".to_owned())).collect()
    }
}

pub(crate) struct Echo;

#[async_trait]
impl ProxyAdmin for Echo {
    async fn ask(&self, target: AdminTarget, query: AdminQuery) -> Result<Vec<u8>, String> {
        match query {
            AdminQuery::ConfigDump { .. } => Ok(format!("{}/{}", target.mesh, target.name).into_bytes()),
            _ => Err("no admin endpoint".into()),
        }
    }
}

pub(crate) fn mk_stores() -> Stores {
    Stores {
        config: Arc::new(MemoryStore::new(Timestamp::now)),
        status: Arc::new(MemoryStore::new(Timestamp::now)),
    }
}

pub(crate) fn mk(text: &str) -> Resource {
    let value = yaml::parse_one(text).unwrap();
    Resource::from_rest(Kind::from_name(value["type"].as_str().unwrap()).unwrap(), &value).unwrap()
}

pub(crate) fn mk_timeout(name: &str) -> Resource {
    mk(&format!(
        "{{type: MeshTimeout, mesh: default, name: {name}, spec: {{to: [{{targetRef: {{kind: Mesh}}, default: {{idleTimeout: 20s}}}}]}}}}"
    ))
}

pub(crate) async fn put(store: &Arc<dyn Store>, resource: Resource) {
    let put = Write::Put { resource: Box::new(resource), expect: Expect::Any, touch: false };
    store.commit(Txn { at: Some(Timestamp::now()), writes: vec![put] }).await.unwrap();
}

pub(crate) async fn delete(store: &Arc<dyn Store>, key: Key) {
    let writes = vec![Write::Delete { key, expect: Expect::Present }];
    store.commit(Txn { at: Some(Timestamp::now()), writes }).await.unwrap();
}

/// Waits until the store holds (or no longer holds) what `wanted` looks for.
pub(crate) async fn until(store: &Arc<dyn Store>, what: &str, wanted: impl Fn(&[Arc<Resource>]) -> bool) {
    let mut feed = store.watch(None);
    let wait = async {
        loop {
            let all: Vec<Arc<Resource>> = store.snapshot().iter().cloned().collect();
            if wanted(&all) {
                return;
            }
            feed.next().await.expect("the store stays open");
        }
    };
    if tokio::time::timeout(DEADLINE, wait).await.is_err() {
        let names: Vec<String> =
            store.snapshot().iter().map(|r| format!("{} {:?}", r.key(), r.meta.labels)).collect();
        panic!("never happened: {what}; stored:\n{}", names.join("\n"));
    }
}

pub(crate) fn has(kind: Kind, name: &str) -> impl Fn(&[Arc<Resource>]) -> bool {
    move |all| all.iter().any(|r| r.kind() == kind && r.meta.name == name)
}

pub(crate) struct Global {
    pub(crate) server: GlobalServer,
    pub(crate) stores: Stores,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) trust: ClientTrust,
    pub(crate) stop: DrainSignal,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) _files: Option<tempfile::TempDir>,
}

/// `at` a known address with known trust, or anew.
pub(crate) async fn mk_global(
    stores: Stores,
    options: GlobalOptions,
    files: Option<tempfile::TempDir>,
    port: u16,
) -> Global {
    mk_global_with(stores, options, Tokens::default(), files, port).await
}

/// One of several replicas.
pub(crate) async fn mk_replica(instance: &str, stores: Stores, options: GlobalOptions) -> Global {
    mk_global_as(instance, stores, options, Tokens::default(), None, 0).await
}

pub(crate) async fn mk_global_with(
    stores: Stores,
    options: GlobalOptions,
    tokens: Tokens,
    files: Option<tempfile::TempDir>,
    port: u16,
) -> Global {
    mk_global_as("global-1", stores, options, tokens, files, port).await
}

async fn mk_global_as(
    instance: &str,
    stores: Stores,
    options: GlobalOptions,
    tokens: Tokens,
    files: Option<tempfile::TempDir>,
    port: u16,
) -> Global {
    let clock = Clock::system();
    let random = Random::system();
    let files = files.unwrap_or_else(|| tempfile::tempdir().unwrap());
    let cert = ServerCert::load_or_generate(
        &CertOptions { cert_file: "", key_file: "", work_dir: files.path(), hostnames: &[] },
        clock.now(),
        &random,
    )
    .unwrap();
    let limits = ListenLimits::default();
    let acceptor = TcpAcceptor::bind(([127, 0, 0, 1], port).into(), "test", limits).await.unwrap();
    let address = acceptor.local_addr();
    let incoming = acceptor.tls(cert.config(&ServerTls::default()).unwrap());
    let deps = GlobalDeps {
        stores: stores.clone(),
        authenticator: Arc::new(tokens),
        clock,
        random,
        instance_id: instance.into(),
        shared: None,
    };
    let server = GlobalServer::new(options, deps);
    let (stop, drain) = Drain::new();
    let mut tasks = JoinSet::new();
    let running = server.clone();
    tasks.spawn(async move { running.run(incoming, drain).await.unwrap() });
    let trust = ClientTrust::Pem(cert.chain_pem().into_bytes());
    Global { server, stores, address, trust, stop, tasks, _files: Some(files) }
}

pub(crate) struct ZoneCp {
    pub(crate) stores: Stores,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) federation: FederationLink,
    pub(crate) stop: DrainSignal,
    pub(crate) tasks: JoinSet<()>,
}

pub(crate) fn mk_zone(name: &str, global: &Global, stores: Stores, token: &str) -> ZoneCp {
    let (port, instance) = (global.address.port(), format!("{name}-1"));
    mk_zone_with(name, global, port, stores, &instance, |options| {
        options.token = ZoneToken::Inline(token.into());
    })
}

pub(crate) fn mk_zone_with(
    name: &str,
    global: &Global,
    port: u16,
    stores: Stores,
    instance: &str,
    change: impl FnOnce(&mut ZoneOptions),
) -> ZoneCp {
    let address = format!("grpcs://localhost:{port}");
    mk_zone_at(name, Dial::tcp(&address, &global.trust).unwrap(), stores, instance, change)
}

pub(crate) fn mk_zone_at(
    name: &str,
    dial: Dial,
    stores: Stores,
    instance: &str,
    change: impl FnOnce(&mut ZoneOptions),
) -> ZoneCp {
    let mut options = ZoneOptions::new(name, dial);
    options.token = ZoneToken::Inline(format!("token-{name}"));
    options.backoff = Backoff { base: Duration::from_millis(20), max: Duration::from_millis(200) };
    change(&mut options);
    let deps = ZoneDeps {
        stores: stores.clone(),
        clock: Clock::system(),
        random: Random::system(),
        instance_id: instance.into(),
        link: FederationLink::default(),
        admin: Some(Arc::new(Echo)),
    };
    let federation = deps.link.clone();
    let client = ZoneClient::new(options, deps);
    let link = client.link();
    let (stop, drain) = Drain::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { client.run(drain).await });
    ZoneCp { stores, link, federation, stop, tasks }
}

pub(crate) async fn linked(zone: &mut ZoneCp, what: &str, wanted: impl FnMut(&Link) -> bool) {
    let waited = tokio::time::timeout(DEADLINE, zone.link.wait_for(wanted)).await.is_ok();
    assert!(waited, "{what}: {:?}", zone.link.borrow());
}

pub(crate) fn insight_totals(stores: &Stores, zone: &str) -> (u64, u64) {
    let insight = stores.status.snapshot().get(&Key::new(Kind::ZoneInsight, "", zone));
    let spec = insight.as_ref().and_then(|insight| insight.spec_as::<ZoneInsight>());
    let last = spec.and_then(|insight| insight.subscriptions.last());
    let total = last.and_then(|s| s.status.as_ref()).map(|status| status.total);
    total.map_or((0, 0), |total| (total.responses_sent, total.responses_acknowledged))
}

/// Forwards connections to a control plane until it is told to fall silent: then both sides keep an open connection on
/// which nothing arrives any more.
pub(crate) struct Relay {
    pub(crate) port: u16,
    silent: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn to(port: u16) -> Relay {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (silent, _) = watch::channel(false);
        let told = silent.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let mut silence = told.subscribe();
                open.spawn(async move {
                    let (mut near, mut far) = (near, far);
                    let silence = async { silence.wait_for(|silent| *silent).await.is_ok() };
                    let silenced = tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
                        silenced = silence => silenced,
                    };
                    if silenced {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Relay { port: own, silent, _tasks: tasks }
    }

    /// What is connected now, and what connects later, hears nothing any more.
    pub(crate) fn fall_silent(&self) {
        self.silent.send_replace(true);
    }
}

/// Waits until something that nobody tells about holds.
pub(crate) async fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while !holds() {
            pause.tick().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "never happened: {what}");
}

/// A connection of a peer that does as it likes, with the smallest windows.
pub(crate) async fn raw_channel(global: &Global) -> Channel {
    let dial = Dial::tcp(&format!("grpcs://localhost:{}", global.address.port()), &global.trust).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", dial.authority))
        .unwrap()
        .origin(format!("https://{}", dial.authority).parse().unwrap())
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535);
    let connector = dial.connector.clone();
    let connect = endpoint.connect_with_connector(tower::service_fn(move |_: http::Uri| {
        let connecting = connector();
        async move { connecting.await.map(TokioIo::new) }
    }));
    connect.await.unwrap()
}

/// A call of a stock zone.
pub(crate) fn of_zone<T>(body: T, zone: &str, token: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(body);
    request.metadata_mut().insert("client-id", zone.parse().unwrap());
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

pub(crate) fn first_request(zone: &str, kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node { id: zone.into(), ..Node::default() }),
        type_url: kind.name().into(),
        resource_names_subscribe: vec!["*".into()],
        ..DeltaDiscoveryRequest::default()
    }
}
