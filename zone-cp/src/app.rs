//! Wiring of a zone: store, federation, engine, data plane server, REST API.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use graticule_api::{Api, Backups, Cluster, Deps, Federation, LeaveError, Options, Rules};
use graticule_control_plane::cluster::{NoAnswer, Question, Replicas};
use graticule_control_plane::command::{self, Started};
use graticule_control_plane::diagnostics::readiness_of;
use graticule_control_plane::federation::{
    self, Replica, accept_deletions_elsewhere, answer_json, status_elsewhere,
};
use graticule_control_plane::leading::{while_following, while_leading};
use graticule_control_plane::metrics::{measure_requests, measure_store};
use graticule_control_plane::serve::{
    DiagnosticsDeps, certificate, serve_api, serve_diagnostics, tls_versions,
};
use graticule_control_plane::{DefaultObjects, TokenKeys, check, mesh_setup, store as stores};
use graticule_envoygen::bootstrap::BootstrapSettings;
use graticule_kds::core::Meshes;
use graticule_kds::net::{
    self as kds, Dial, FederationLink, LeaveError as NotLeft, Stores, ZoneOptions, ZoneToken, finish_leaving,
    forget_leaving,
};
use graticule_model::Mode;
use graticule_policy::inputs::ConnectionLife;
use graticule_runtime::tls::ClientTrust;
use graticule_runtime::{
    Clock, ListenLimits, Metrics, Random, Spawner, Supervisor, TcpAcceptor, host, instance_id, version,
};
use graticule_store::Store;
use graticule_store::status::Grouping;
use graticule_view::{DeriveSettings, ZoneSettings};
use graticule_xds::net::{DataplaneServer, Deps as XdsDeps};
use graticule_zone::{
    Authorities, Engine, EngineHandle, EngineSettings, GeneratorSettings, Generators, Insights,
    InsightsHandle, Observations, ProxySettings, TokenAuthenticator, ZoneEnvoys, ZoneProxies,
    measure_proxies,
};

use crate::envoys::AskedByGlobal;
use crate::inspect::{AskedByReplicas, EngineInspector};
use crate::settings::{Settings, dataplane_token_keys, parse_cidr};

/// What every part is built from.
struct Parts {
    settings: Settings,
    mode: Mode,
    store: Arc<dyn Store>,
    replicas: Replicas,
    clock: Clock,
    random: Random,
    instance: String,
    spawner: Spawner,
    envoys: Arc<ZoneEnvoys>,
    /// Other replicas may serve this zone, too.
    has_replicas: bool,
    cluster: Arc<dyn Cluster>,
    link: FederationLink,
    metrics: Metrics,
}

/// What the API tells about the connection to global.
pub(crate) struct Global {
    zone: String,
    link: FederationLink,
    stores: Stores,
    clock: Clock,
    replicas: Replicas,
}

impl Global {
    /// What this replica is asked by others: only the one that is connected knows.
    pub(crate) fn answer(&self, question: &Question) -> Result<Bytes, NoAnswer> {
        let is_here = |zone: &String| *zone == self.zone && self.link.leads();
        match question {
            Question::ZoneStatus { zone } if is_here(zone) => {
                answer_json(Some(self.link.report(zone, &self.stores)))
            }
            Question::AcceptDeletions { zone } if is_here(zone) => answer_json(self.link.accept_deletions()),
            _ => Err(NoAnswer::NotFound),
        }
    }
}

#[async_trait]
impl Federation for Global {
    async fn status(&self, zone: &str) -> Option<serde_json::Value> {
        if zone != self.zone {
            return None;
        }
        if !self.link.leads()
            && let Some(status) = status_elsewhere(&self.replicas, zone).await
        {
            return Some(status);
        }
        serde_json::to_value(self.link.report(zone, &self.stores)).ok()
    }

    async fn accept_deletions(&self, zone: &str) -> Result<usize, String> {
        if zone != self.zone {
            return Err(format!(
                "this is zone {:?}: ask the control plane of {zone:?}, or global",
                self.zone
            ));
        }
        match self.link.accept_deletions() {
            Some(given_up) => Ok(given_up),
            None => accept_deletions_elsewhere(&self.replicas, zone).await,
        }
    }

    async fn leave(&self, zone: &str, preview: bool) -> Result<serde_json::Value, LeaveError> {
        if zone != self.zone {
            return Err(LeaveError::NoGlobal);
        }
        let fates = if preview {
            self.link.fates_of_leaving(zone, &self.stores)
        } else {
            match self.link.leave(zone, &self.stores, &self.clock).await {
                Ok(fates) => fates,
                Err(NotLeft::Store(error)) => return Err(LeaveError::Store(error)),
                Err(error @ NotLeft::Elsewhere) => {
                    return Err(LeaveError::Refused(format!(
                        "{error}: ask the one that `grat cluster status` names"
                    )));
                }
                Err(error @ NotLeft::Open) => {
                    return Err(LeaveError::Refused(format!("{error} in time: ask again")));
                }
            }
        };
        serde_json::to_value(fates).map_err(|error| LeaveError::Refused(error.to_string()))
    }

    async fn may_join(&self) -> Result<bool, LeaveError> {
        forget_leaving(&self.stores, &self.clock).await.map_err(LeaveError::Store)
    }
}

/// The same of a zone that stands alone.
struct Alone {
    stores: Stores,
    clock: Clock,
}

#[async_trait]
impl Federation for Alone {
    async fn status(&self, _zone: &str) -> Option<serde_json::Value> {
        None
    }

    async fn accept_deletions(&self, _zone: &str) -> Result<usize, String> {
        Err("the zone stands alone: it has no global (multizone.zone.globalAddress)".into())
    }

    async fn may_join(&self) -> Result<bool, LeaveError> {
        forget_leaving(&self.stores, &self.clock).await.map_err(LeaveError::Store)
    }
}

/// Starts everything, runs until a signal.
pub(crate) async fn run(started: Started<Settings>) -> Result<()> {
    let mut settings = started.settings.clone();
    started.apply(&mut settings.store.raft);
    let (clock, random) = (Clock::system(), Random::system());
    started.audit.open(&settings.audit, clock.clone())?;
    let instance = instance_id(&host::name(), &random);
    let supervisor = Supervisor::new(random.clone());
    let name = format!("zone-{}", settings.multizone.zone.name);
    let mut opened =
        stores::open(&settings.store, &settings.general, &name, started.data_dir, &clock, &random).await?;
    let has_replicas = opened.has_replicas();
    let replicas = Replicas::new(stores::status(Grouping::Proxy, &instance, &clock, &random));
    let cluster = opened.start_members(&replicas, &clock).await;
    let is_federated = !settings.multizone.zone.global_address.is_empty();
    let metrics = Metrics::new();
    let store = measure_store(opened.store(), &metrics, &clock);
    let envoys = Arc::new(ZoneEnvoys::new(
        store.clone(),
        clock.clone(),
        random.clone(),
        settings.bootstrap_server.params.admin_port,
    ));
    let zone = Parts {
        mode: if is_federated { Mode::FederatedZone } else { Mode::StandaloneZone },
        has_replicas,
        cluster,
        link: FederationLink::default(),
        metrics,
        store,
        replicas,
        envoys,
        spawner: supervisor.spawner(),
        settings,
        clock: clock.clone(),
        random,
        instance,
    };
    zone.default_objects().await;
    let federation = if is_federated { Some(zone.federation()?) } else { None };
    zone.measure_federation();
    if !is_federated {
        zone.finish_leaving();
    }
    let (engine, observations, insights) = zone.start_engine()?;
    zone.serve_proxies(&engine, &observations, &insights).await?;
    zone.replicas
        .answer_with(Arc::new(AskedByReplicas { engine: engine.clone(), connection: zone.connection() }));
    let addresses = zone.serve_api(&engine, opened.backups()).await?;
    let deps = DiagnosticsDeps {
        general: &zone.settings.general,
        clock: &zone.clock,
        random: &zone.random,
        spawner: &zone.spawner,
        metrics: &zone.metrics,
    };
    serve_diagnostics(&zone.settings.diagnostics, readiness_of(zone.store.clone()), deps).await?;
    // Last: a process that cannot have its ports must not show up at global.
    if let Some(options) = federation {
        let (replica, link, drain) = (zone.replica(), zone.link.clone(), zone.spawner.drain());
        let admin = Arc::new(AskedByGlobal(zone.envoys.clone()));
        let replicas = zone.replicas.clone();
        zone.spawner.essential("federation", async move {
            let heard = || {
                let replicas = replicas.clone();
                async move { replicas.synced().await }
            };
            federation::zone_side(options, replica, link, Some(admin), heard, drain).await;
        });
    }
    tracing::info!(
        version = version::VERSION,
        instance = zone.instance,
        zone = zone.settings.multizone.zone.name,
        api = ?addresses,
        "zone control plane runs"
    );
    let outcome = supervisor.run(command::SHUTDOWN_GRACE).await;
    opened.close().await;
    outcome.map_err(Into::into)
}

impl Parts {
    fn name(&self) -> &str {
        &self.settings.multizone.zone.name
    }

    /// The leader makes them. Returns when it did, or when another replica leads.
    async fn default_objects(&self) {
        let skip = self.settings.defaults.skip_tenant_resources;
        let objects = DefaultObjects {
            mode: self.mode,
            zone: self.name().into(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            mesh: !self.settings.defaults.skip_mesh_creation && !skip,
            hostname_generators: !self.settings.defaults.skip_hostname_generators,
            admin_token: self.settings.api_server.authn.tokens.bootstrap_admin_token && !skip,
            signing_keys: !skip,
        };
        objects.start(&self.store, &self.spawner).await;
    }

    /// The leader of a zone that stands alone now ends what it was in a federation.
    fn finish_leaving(&self) {
        let status = self.replicas.status().shown();
        let (zone, clock, drain) = (self.name().to_owned(), self.clock.clone(), self.spawner.drain());
        let store = self.store.clone();
        self.spawner.essential("end of a federation", async move {
            let finish = |fenced: Arc<dyn Store>| {
                let stores = Stores { config: fenced, status: status.clone() };
                let (zone, clock) = (zone.clone(), clock.clone());
                async move {
                    finish_leaving(&zone, &stores, &clock).await;
                    Ok::<(), Infallible>(())
                }
            };
            while_leading("end of a federation", &store, drain, finish).await
        });
    }

    fn replica(&self) -> Replica {
        Replica {
            store: self.store.clone(),
            status: self.replicas.status().clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            instance: self.instance.clone(),
        }
    }

    /// The meshes that the zone takes part in; empty: all. Without a global it has what it has.
    fn meshes(&self) -> Vec<String> {
        if self.mode == Mode::StandaloneZone {
            return Vec::new();
        }
        self.settings.multizone.zone.meshes.clone()
    }

    /// What the leader connects to global with, again whenever the connection ends.
    fn federation(&self) -> Result<ZoneOptions> {
        let zone = &self.settings.multizone.zone;
        let trust = if zone.kds.tls_skip_verify {
            ClientTrust::Anybody
        } else if zone.kds.root_ca_file.is_empty() {
            ClientTrust::System
        } else {
            let file = &zone.kds.root_ca_file;
            ClientTrust::Pem(
                std::fs::read(file).with_context(|| format!("multizone.zone.kds.rootCaFile {file}"))?,
            )
        };
        let dial = Dial::tcp(&zone.global_address, &trust)?;
        let token = match zone.kds.token_file.as_str() {
            "" => ZoneToken::None,
            file => {
                let token = ZoneToken::File(file.into());
                token.check().context("multizone.zone.kds.tokenFile")?;
                token
            }
        };
        let config = serde_json::json!({
            "mode": "zone",
            "environment": "universal",
            "store": {"type": self.settings.store.r#type},
            "multizone": {"zone": {"name": zone.name, "globalAddress": zone.global_address}},
        });
        Ok(ZoneOptions {
            token,
            message_len_max: zone.kds.max_msg_size,
            skip_label_prefixes: zone.kds.labels.skip_prefixes.clone(),
            config_json: config.to_string(),
            version: version::KUMA_COMPATIBLE.into(),
            protection: self.settings.federation.deletion_protection,
            meshes: Meshes::of(self.meshes()),
            // A store that is lost with the process cannot tell who the zone was.
            keeps_identity: self.settings.store.r#type != "memory",
            ..ZoneOptions::new(zone.name.clone(), dial)
        })
    }

    /// The replica that is connected tells; what the others would tell is not true of the zone.
    fn measure_federation(&self) {
        if self.mode == Mode::StandaloneZone {
            return;
        }
        let stores = Stores { config: self.store.clone(), status: self.replicas.status().shown() };
        let (zone, link) = (self.name().to_owned(), self.link.clone());
        self.metrics.look_up(move || {
            let report = (link.leads() && !link.has_left()).then(|| link.report(&zone, &stores));
            kds::measured(report.map(|report| (report, true)))
        });
    }

    fn link_to_global(&self) -> Arc<dyn Federation> {
        let (stores, clock) = (federation::zone_stores(&self.replica()), self.clock.clone());
        if self.mode == Mode::StandaloneZone {
            return Arc::new(Alone { stores, clock });
        }
        Arc::new(self.connection())
    }

    /// The connection to global, for those who ask about it.
    fn connection(&self) -> Global {
        Global {
            zone: self.name().into(),
            link: self.link.clone(),
            stores: federation::zone_stores(&self.replica()),
            clock: self.clock.clone(),
            replicas: self.replicas.clone(),
        }
    }

    fn start_engine(&self) -> Result<(EngineHandle, Observations, InsightsHandle)> {
        let observations = Observations::default();
        let authorities = Authorities::default();
        let (insights, insights_handle) =
            Insights::new(self.replicas.status().clone(), self.clock.clone(), self.instance.as_str().into());
        let cross_zone = &self.settings.cross_zone;
        let life = cross_zone.balance_requests.then(|| ConnectionLife {
            max_requests: cross_zone.max_requests_per_connection,
            max_duration_ms: u64::try_from(cross_zone.max_connection_duration.to_std().as_millis())
                .unwrap_or(u64::MAX),
        });
        let zone = ZoneSettings {
            zone: self.name().into(),
            internal_cidrs: self.settings.ipam.known_internal_cidrs.clone(),
            cross_zone: life,
        };
        let (engine, engine_handle) = Engine::new(
            EngineSettings { zone },
            self.store.clone(),
            observations.clone(),
            insights_handle.clone(),
            authorities.clone(),
            self.clock.clone(),
            self.random.clone(),
        );
        let (vip_network, vip_prefix_len) = parse_cidr(&self.settings.ipam.mesh_service.cidr)?;
        let settings = GeneratorSettings {
            zone: self.name().into(),
            derive: DeriveSettings {
                vip_network,
                vip_prefix_len,
                deletion_grace_period: self.settings.mesh_service.deletion_grace_period.to_std(),
            },
            leads: false,
        };
        let drain = || self.spawner.drain();
        self.spawner.essential("status of proxies", insights.run(drain()));
        self.spawner.essential("engine", engine.run(drain()));
        self.run_generators(settings, &observations, &authorities);
        Ok((engine_handle, observations, insights_handle))
    }

    /// The leader derives and writes, the others only derive.
    fn run_generators(
        &self,
        settings: GeneratorSettings,
        observations: &Observations,
        authorities: &Authorities,
    ) {
        let (observations, authorities) = (observations.clone(), authorities.clone());
        let (clock, random, drain) = (self.clock.clone(), self.random.clone(), self.spawner.drain());
        let until = drain.clone();
        let run = move |leads: bool, store: Arc<dyn Store>| {
            let settings = GeneratorSettings { leads, ..settings.clone() };
            let (observations, authorities) = (observations.clone(), authorities.clone());
            let generators =
                Generators::new(settings, store, observations, authorities, clock.clone(), random.clone());
            let drain = drain.clone();
            async move {
                generators.run(drain).await;
                Ok::<(), Infallible>(())
            }
        };
        let (store, drain, lead) = (self.store.clone(), until.clone(), run.clone());
        self.spawner.essential("generators", async move {
            while_leading("generators", &store, drain, |fenced| lead(true, fenced)).await
        });
        let (store, drain) = (self.store.clone(), until);
        self.spawner.essential("authorities of identities", async move {
            while_following("authorities of identities", &store, drain, || run(false, store.clone())).await
        });
    }

    async fn serve_proxies(
        &self,
        engine: &EngineHandle,
        observations: &Observations,
        insights: &InsightsHandle,
    ) -> Result<()> {
        let options = self.settings.dp_server.clone();
        let own = (options.tls_cert_file.as_str(), options.tls_key_file.as_str());
        let cert = certificate("dpServer", own, &self.settings.general, &self.clock, &self.random)?;
        let versions =
            tls_versions((&options.tls_min_version, &options.tls_max_version), &self.settings.general);
        let address = ([0, 0, 0, 0], options.port).into();
        let acceptor = TcpAcceptor::bind(address, "dpServer.port", ListenLimits::default()).await?;
        let incoming = acceptor.tls(cert.config(&versions).context("dpServer")?);
        let proxies = ZoneProxies::new(
            ProxySettings {
                mode: self.mode,
                zone: self.name().into(),
                deregistration_delay: self.settings.xds_server.dataplane_deregistration_delay.to_std(),
                has_replicas: self.has_replicas,
                meshes: self.meshes(),
            },
            self.store.clone(),
            engine.clone(),
            observations.clone(),
            insights.clone(),
            self.spawner.clone(),
            self.clock.clone(),
        );
        let lost = proxies.clone().look_for_lost(self.spawner.drain());
        self.spawner.best_effort("proxies of an earlier run", lost);
        let found = proxies.clone().look_for_found(self.spawner.drain());
        self.spawner.best_effort("proxies of other replicas", found);
        let status = self.replicas.status();
        let orphans = proxies.clone().look_for_orphans(status.clone(), self.spawner.drain());
        self.spawner.best_effort("proxies of replicas that are gone", orphans);
        if self.has_replicas {
            let others = observations.clone().follow_others(status.clone(), self.spawner.drain());
            self.spawner.best_effort("status of other replicas", others);
        }
        let authenticator = TokenAuthenticator {
            keys: self.dataplane_token_keys()?,
            store: self.store.clone(),
            clock: self.clock.clone(),
            admits_everybody: options.authn.is_none(),
        };
        let deps = XdsDeps {
            proxies: measure_proxies(Arc::new(proxies), &self.metrics, &self.clock),
            authenticator: Arc::new(authenticator),
            cert,
            bootstrap: self.bootstrap_settings(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            instance_id: self.instance.as_str().into(),
        };
        let server = DataplaneServer::new(options, deps, self.spawner.drain());
        self.spawner.essential("data plane server", async move { server.run(incoming).await });
        Ok(())
    }

    /// What tokens are checked with: configured keys, and keys of the meshes unless that is turned off.
    fn dataplane_token_keys(&self) -> Result<TokenKeys> {
        let uses_secrets = self.settings.dp_server.authn.dp_proxy.dp_token.validator.use_secrets;
        let configured = dataplane_token_keys(&self.settings)?;
        Ok(TokenKeys::with_configured(self.store.clone(), configured, uses_secrets))
    }

    fn bootstrap_settings(&self) -> BootstrapSettings {
        let params = &self.settings.bootstrap_server.params;
        BootstrapSettings {
            admin_port: params.admin_port.into(),
            admin_address: params.admin_address.clone(),
            admin_unix_socket: params.envoy_admin_unix_socket,
            admin_access_log_path: params.admin_access_log_path.clone(),
            xds_host: params.xds_host.clone(),
            xds_host_ipv4_only: false,
            xds_port: if params.xds_port == 0 { self.settings.dp_server.port } else { params.xds_port },
            connect_timeout: params.xds_connect_timeout.to_std(),
            hds_enabled: self.settings.dp_server.hds.enabled,
            reloadable_tokens: self.settings.dp_server.authn.enable_reloadable_tokens,
            max_receive_message_bytes: params.xds_grpc_max_receive_message_bytes,
            ca_pem: String::new(),
        }
    }

    async fn serve_api(&self, engine: &EngineHandle, backups: Backups) -> Result<Vec<std::net::SocketAddr>> {
        let settings = &self.settings;
        let api = Api::new(
            Options {
                server: settings.api_server.clone(),
                access: settings.access.clone(),
                rules: Rules {
                    anonymous_writes: settings.compat.anonymous_writes,
                    unsafe_delete: settings.store.unsafe_delete,
                    skip_origin_validation: settings.multizone.zone.disable_origin_label_validation,
                    meshes: self.meshes(),
                    issue_dataplane_tokens: settings.dp_server.authn.dp_proxy.dp_token.enable_issuer,
                    ..Rules::default()
                },
                user_token_keys: check::user_token_keys(&settings.api_server)?,
            },
            Deps {
                store: self.store.clone(),
                soft: self.replicas.status().shown(),
                mode: self.mode,
                zone: self.name().into(),
                clock: self.clock.clone(),
                random: self.random.clone(),
                instance: command::instance(&self.instance),
                config: serde_json::to_value(settings)?,
                mesh_setup: mesh_setup(),
                backups,
                inspector: Arc::new(EngineInspector {
                    engine: engine.clone(),
                    replicas: self.replicas.clone(),
                }),
                admin: self.envoys.clone(),
                cluster: self.cluster.clone(),
                federation: self.link_to_global(),
            },
        );
        let api = measure_requests(api, &self.metrics, &self.clock);
        let addresses =
            serve_api(api, &settings.api_server, &settings.general, &self.clock, &self.random, &self.spawner)
                .await?;
        Ok(addresses)
    }
}
