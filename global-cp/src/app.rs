//! Wiring of global: store, REST API, federation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use graticule_api::{Api, Deps, NoInspector, Options, Rules};
use graticule_control_plane::cluster::Replicas;
use graticule_control_plane::command::Started;
use graticule_control_plane::diagnostics::readiness_of;
use graticule_control_plane::federation::{self, Replica, accept_deletions_elsewhere, status_elsewhere};
use graticule_control_plane::metrics::{measure_requests, measure_store};
use graticule_control_plane::serve::{
    DiagnosticsDeps, certificate, serve_api, serve_diagnostics, tls_versions,
};
use graticule_control_plane::settings::Compat;
use graticule_control_plane::{DefaultObjects, TokenKeys, check, command, mesh_setup, store as stores};
use graticule_kds::net::{GlobalOptions, GlobalServer, TokenlessZones, ZoneAuthenticator, ZoneGrant};
use graticule_model::{Mode, Timestamp};
use graticule_runtime::supervisor::chain;
use graticule_runtime::{
    Clock, ListenLimits, Metrics, Random, Supervisor, TcpAcceptor, host, instance_id, version,
};
use graticule_store::Store;
use graticule_store::status::Grouping;

use crate::envoys::{AskedByReplicas, EnvoysOfZones};
use crate::settings::{Settings, zone_token_keys};

/// Starts everything, runs until a signal.
pub(crate) async fn run(started: Started<Settings>) -> Result<()> {
    let mut settings = started.settings.clone();
    started.apply(&mut settings.store.raft);
    let (clock, random) = (Clock::system(), Random::system());
    started.audit.open(&settings.audit, clock.clone())?;
    let instance = instance_id(&host::name(), &random);
    let supervisor = Supervisor::new(random.clone());
    let spawner = supervisor.spawner();
    let mut opened =
        stores::open(&settings.store, &settings.general, "global", started.data_dir, &clock, &random).await?;
    let status = stores::status(Grouping::Zone, &instance, &clock, &random);
    let replicas = Replicas::new(status);
    let cluster = opened.start_members(&replicas, &clock).await;
    let metrics = Metrics::new();
    let store = measure_store(opened.store(), &metrics, &clock);
    let soft = replicas.status().shown();

    let skip = settings.defaults.skip_tenant_resources;
    let objects = DefaultObjects {
        mode: Mode::Global,
        zone: String::new(),
        clock: clock.clone(),
        random: random.clone(),
        mesh: !settings.defaults.skip_mesh_creation && !skip,
        hostname_generators: !settings.defaults.skip_hostname_generators,
        admin_token: settings.api_server.authn.tokens.bootstrap_admin_token && !skip,
        signing_keys: !skip,
    };
    objects.start(&store, &spawner).await;

    let zones = serve_zones(&settings, &store, &replicas, &clock, &random, &instance, &supervisor).await?;
    replicas.answer_with(Arc::new(AskedByReplicas(zones.clone())));
    let measured = zones.clone();
    metrics.look_up(move || measured.measured());

    let api = Api::new(
        Options {
            server: settings.api_server.clone(),
            access: settings.access.clone(),
            rules: Rules {
                anonymous_writes: settings.compat.anonymous_writes,
                unsafe_delete: settings.store.unsafe_delete,
                issue_dataplane_tokens: settings.dp_server.authn.dp_proxy.dp_token.enable_issuer,
                issue_zone_tokens: settings.dp_server.authn.zone_proxy.zone_token.enable_issuer,
                ..Rules::default()
            },
            user_token_keys: check::user_token_keys(&settings.api_server)?,
        },
        Deps {
            store: store.clone(),
            soft: soft.clone(),
            mode: Mode::Global,
            zone: String::new(),
            clock: clock.clone(),
            random: random.clone(),
            instance: command::instance(&instance),
            config: serde_json::to_value(&settings)?,
            mesh_setup: mesh_setup(),
            backups: opened.backups(),
            inspector: Arc::new(NoInspector),
            admin: Arc::new(EnvoysOfZones { broker: zones.admin(), replicas: replicas.clone() }),
            cluster,
            federation: Arc::new(Zones { here: zones, replicas }),
        },
    );
    let api = measure_requests(api, &metrics, &clock);
    let addresses =
        serve_api(api, &settings.api_server, &settings.general, &clock, &random, &spawner).await?;
    let deps = DiagnosticsDeps {
        general: &settings.general,
        clock: &clock,
        random: &random,
        spawner: &spawner,
        metrics: &metrics,
    };
    serve_diagnostics(&settings.diagnostics, readiness_of(store.clone()), deps).await?;
    tracing::info!(version = version::VERSION, instance, api = ?addresses, "global control plane runs");
    let outcome = supervisor.run(command::SHUTDOWN_GRACE).await;
    opened.close().await;
    outcome.map_err(Into::into)
}

/// What the API tells about zones, whatever replica they are connected to.
struct Zones {
    here: GlobalServer,
    replicas: Replicas,
}

#[async_trait]
impl graticule_api::Federation for Zones {
    async fn status(&self, zone: &str) -> Option<serde_json::Value> {
        if !self.here.serves(zone)
            && let Some(status) = status_elsewhere(&self.replicas, zone).await
        {
            return Some(status);
        }
        serde_json::to_value(self.here.peer_report(zone)?).ok()
    }

    async fn accept_deletions(&self, zone: &str) -> Result<usize, String> {
        match self.here.accept_deletions(zone).await.map_err(|error| error.to_string())? {
            Some(given_up) => Ok(given_up),
            None => accept_deletions_elsewhere(&self.replicas, zone).await,
        }
    }
}

/// Zone tokens are checked with the keys of the store.
struct ZoneTokens {
    keys: TokenKeys,
    clock: Clock,
}

impl ZoneAuthenticator for ZoneTokens {
    fn authenticate(&self, zone: &str, token: &str) -> Result<ZoneGrant, String> {
        let (validated, key_mark) = self.keys.zone(token, self.clock.now()).map_err(|error| chain(&error))?;
        if validated.claims.zone != zone {
            return Err(format!("the token is for zone {:?}", validated.claims.zone));
        }
        let expires = validated.expires.and_then(timestamp);
        Ok(ZoneGrant {
            token: validated.jti,
            key: validated.kid,
            key_mark: key_mark.unwrap_or_default(),
            expires,
        })
    }

    fn revoked(&self, grants: &BTreeSet<ZoneGrant>) -> BTreeMap<ZoneGrant, String> {
        let revoked = self.keys.revoked_zone_tokens();
        let mut marks: BTreeMap<&str, Option<u64>> = BTreeMap::new();
        let mut gone = BTreeMap::new();
        for grant in grants {
            let mark = *marks.entry(&grant.key).or_insert_with(|| self.keys.zone_key_mark(&grant.key));
            let reason = if revoked.contains(&grant.token) {
                "the zone token is revoked".to_owned()
            } else if mark != Some(grant.key_mark) {
                format!("the signing key {} of the zone token is gone", grant.key)
            } else {
                continue;
            };
            gone.insert(grant.clone(), reason);
        }
        gone
    }
}

/// A time in seconds since 1970; `None`: so late that it does not matter.
fn timestamp(seconds: f64) -> Option<Timestamp> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is out of range becomes its end, and is no time then"
    )]
    Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()
}

fn tokenless_zones(compat: &Compat) -> TokenlessZones {
    if compat.allow_zones_without_token {
        TokenlessZones::All
    } else {
        TokenlessZones::Named(compat.zones_without_token.iter().cloned().collect())
    }
}

async fn serve_zones(
    settings: &Settings,
    store: &Arc<dyn Store>,
    replicas: &Replicas,
    clock: &Clock,
    random: &Random,
    instance: &str,
    supervisor: &Supervisor,
) -> Result<GlobalServer> {
    let kds = &settings.multizone.global.kds;
    let validator = &settings.dp_server.authn.zone_proxy.zone_token.validator;
    let keys = TokenKeys::with_configured(store.clone(), zone_token_keys(settings)?, validator.use_secrets);
    let server = federation::global_side(
        GlobalOptions {
            message_len_max: kds.max_msg_size,
            skip_label_prefixes: kds.labels.skip_prefixes.clone(),
            trust_exchange: settings.federation.trust_exchange.into(),
            tokenless_zones: tokenless_zones(&settings.compat),
            protection: settings.federation.deletion_protection,
            zone_limit: settings.federation.zone_limit,
            health_interval: kds.health_interval.to_std(),
            version: version::KUMA_COMPATIBLE.into(),
            ..GlobalOptions::default()
        },
        Replica {
            store: store.clone(),
            status: replicas.status().clone(),
            clock: clock.clone(),
            random: random.clone(),
            instance: instance.into(),
        },
        Arc::new(ZoneTokens { keys, clock: clock.clone() }),
    );
    let address = ([0, 0, 0, 0], kds.grpc_port).into();
    let acceptor =
        TcpAcceptor::bind(address, "multizone.global.kds.grpcPort", ListenLimits::default()).await?;
    let incoming = if kds.tls_enabled {
        let own = (kds.tls_cert_file.as_str(), kds.tls_key_file.as_str());
        let certificate = certificate("multizone.global.kds", own, &settings.general, clock, random)?;
        let versions = tls_versions((&kds.tls_min_version, &kds.tls_max_version), &settings.general);
        acceptor.tls(certificate.config(&versions).context("multizone.global.kds")?)
    } else {
        acceptor.plain()
    };
    let (drain, running) = (supervisor.drain(), server.clone());
    supervisor.spawner().essential("federation", async move { running.run(incoming, drain).await });
    Ok(server)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use graticule_identity::tokens::{SigningKey, TokenKind, ZoneClaims};
    use graticule_model::kinds::secret::{GlobalSecret, SecretBytes};
    use graticule_model::{GoDuration, Key, Kind, Meta, Resource};
    use graticule_store::{
        CommitError, Committed, Expect, Feed, MemoryStore, Revision, Snapshot, Txn, Write,
    };

    use super::*;

    async fn put_secret(store: &Arc<dyn Store>, name: &str, data: Vec<u8>) {
        let resource = Box::new(Resource::new(Meta::new("", name), GlobalSecret { data: SecretBytes(data) }));
        let put = Write::Put { resource, expect: Expect::Any, touch: false };
        store.commit(Txn { at: None, writes: vec![put] }).await.expect("stored");
    }

    /// Its first reader sees an earlier state.
    struct Turning {
        before: Snapshot,
        was_read: AtomicBool,
        now: Arc<dyn Store>,
    }

    #[async_trait]
    impl Store for Turning {
        async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
            self.now.commit(txn).await
        }

        fn snapshot(&self) -> Snapshot {
            if self.was_read.swap(true, Ordering::SeqCst) { self.now.snapshot() } else { self.before.clone() }
        }

        fn watch(&self, from: Option<Revision>) -> Box<dyn Feed> {
            self.now.watch(from)
        }
    }

    /// A grant never speaks of a key that its token was not checked with.
    #[tokio::test]
    async fn a_key_that_is_replaced_while_a_token_is_checked_is_not_forgotten() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let name = TokenKind::Zone.secret_name(1);
        let mk_key = || SigningKey::generate().expect("a key");
        let key = mk_key();
        put_secret(&store, &name, key.to_pem().into_bytes()).await;
        let claims = ZoneClaims { zone: "east".into(), scope: None };
        let hour = GoDuration::from_secs(3600);
        let token = graticule_identity::tokens::issue(&claims, &key, "1", now, hour, "a").expect("signed");
        let before = store.snapshot();
        put_secret(&store, &name, mk_key().to_pem().into_bytes()).await;
        let turning = Arc::new(Turning { before, was_read: AtomicBool::new(false), now: store });
        let tokens = ZoneTokens { keys: TokenKeys::new(turning), clock: Clock::manual(now).0 };
        let grant = tokens.authenticate("east", &token).expect("it was good");
        let gone = tokens.revoked(&BTreeSet::from([grant]));
        assert_eq!(gone.values().collect::<Vec<_>>(), ["the signing key 1 of the zone token is gone"]);
    }

    /// What is remembered of a token says when it is no longer good.
    #[tokio::test]
    async fn grants_end_with_their_token_and_its_key() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(|| Timestamp::UNIX_EPOCH));
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let clock = Clock::manual(now).0;
        let tokens = ZoneTokens { keys: TokenKeys::new(store.clone()), clock };
        let key = SigningKey::generate().expect("a key");
        let name = TokenKind::Zone.secret_name(1);
        let keep = || put_secret(&store, &name, key.to_pem().into_bytes());
        keep().await;
        let mut grants = BTreeSet::new();
        for jti in ["a", "b"] {
            let claims = ZoneClaims { zone: "east".into(), scope: None };
            let hour = GoDuration::from_secs(3600);
            let token =
                graticule_identity::tokens::issue(&claims, &key, "1", now, hour, jti).expect("signed");
            let refused = tokens.authenticate("west", &token).expect_err("another zone");
            assert!(refused.contains("east"), "{refused}");
            let grant = tokens.authenticate("east", &token).expect("good");
            assert_eq!(grant.expires, Some("2026-01-01T01:00:00Z".parse().expect("a time")));
            grants.insert(grant);
        }
        let gone = |wanted: &str| {
            let gone = tokens.revoked(&grants);
            assert!(gone.values().all(|reason| reason.contains(wanted)), "{gone:?}");
            gone.keys().map(|grant| grant.token.clone()).collect::<Vec<_>>()
        };
        assert_eq!(gone(""), Vec::<String>::new());
        put_secret(&store, &TokenKind::Zone.revocations_name(), b"x, b".to_vec()).await;
        assert_eq!(gone("revoked"), ["b"]);
        put_secret(&store, &TokenKind::Zone.revocations_name(), b"x".to_vec()).await;
        assert_eq!(gone(""), Vec::<String>::new());
        // Another key with the same id, and none.
        let other = SigningKey::generate().expect("a key");
        put_secret(&store, &name, other.to_pem().into_bytes()).await;
        assert_eq!(gone("signing key 1"), ["a", "b"]);
        keep().await;
        assert_eq!(gone(""), Vec::<String>::new());
        let delete =
            Write::Delete { key: Key::new(Kind::GlobalSecret, "", name.as_str()), expect: Expect::Present };
        store.commit(Txn { at: None, writes: vec![delete] }).await.expect("deleted");
        assert_eq!(gone("signing key 1"), ["a", "b"]);
    }
}
