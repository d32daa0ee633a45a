//! Replicas of global and of zones: their processes, wired as the programs wire them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use graticule_control_plane::federation::{self, Replica};
use graticule_control_plane::store as stores;
use graticule_kds::core::{DeletionProtection, PeerReport};
use graticule_kds::net::{
    Dial, FederationLink, GlobalOptions, GlobalServer, ZoneAuthenticator, ZoneGrant, ZoneOptions, ZoneToken,
};
use graticule_runtime::{Backoff, Clock, Drain, Random};
use graticule_store::Store as _;
use graticule_store::status::Grouping;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::net::{self, PORT};
use super::oracle::{Actor, Oracle, PROTECTED, Shown, Site};
use super::workload::Writer;
use super::world::{World, elapsed};

/// Between two looks at a replica, with faults and while it heals.
const LOOK: Duration = Duration::from_millis(800);
const LOOK_CLOSELY: Duration = Duration::from_millis(250);
/// How often copies are compared.
const AUDIT: Duration = Duration::from_secs(4);
/// Time that a decision takes, with a new connection.
const DECISION_TAKES: Duration = Duration::from_secs(5);
/// How much may be missing when a stream begins.
const PROTECTION: DeletionProtection = DeletionProtection { share: 0.5, number: PROTECTED };

/// What the operators want.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// Whatever is held back is decided about.
    pub(super) heals: bool,
}

/// Where a replica runs; clones are the same place.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) site: Site,
    pub(super) place: usize,
    pub(super) world: World,
    pub(super) board: Arc<Mutex<Board>>,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    pub(super) seed: u64,
    pub(super) globals: usize,
    pub(super) zones: usize,
    starts: Arc<AtomicU64>,
}

/// The token of zone `x` is `token-x`.
struct Tokens;

impl ZoneAuthenticator for Tokens {
    fn authenticate(&self, zone: &str, token: &str) -> Result<ZoneGrant, String> {
        if token == format!("token-{zone}") {
            Ok(ZoneGrant::default())
        } else {
            Err("issued for another zone".into())
        }
    }

    fn revoked(&self, _grants: &BTreeSet<ZoneGrant>) -> BTreeMap<ZoneGrant, String> {
        BTreeMap::new()
    }
}

pub(super) fn zone_name(zone: usize) -> String {
    format!("zone-{zone}")
}

fn zone_number(name: &str) -> Option<usize> {
    name.strip_prefix("zone-")?.parse().ok()
}

/// Shape of a federation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) globals: usize,
    pub(super) zones: usize,
    pub(super) replicas: usize,
}

impl Place {
    /// All replicas of one control plane.
    pub(super) fn all(
        site: Site,
        shape: Shape,
        seed: u64,
        board: &Arc<Mutex<Board>>,
        oracle: &Arc<Mutex<Oracle>>,
    ) -> Vec<Place> {
        let replicas = if site == Site::Global { shape.globals } else { shape.replicas };
        let world = World::new(site, replicas, oracle);
        let place = |place| Place {
            site,
            place,
            world: world.clone(),
            board: board.clone(),
            oracle: oracle.clone(),
            seed,
            globals: shape.globals,
            zones: shape.zones,
            starts: Arc::default(),
        };
        (0..replicas).map(place).collect()
    }

    pub(super) fn host(&self) -> String {
        match self.site {
            Site::Global => format!("global-{}", self.place),
            Site::Zone(zone) => format!("{}-{}", zone_name(zone), self.place),
            Site::Rival => format!("rival-{}", self.place),
        }
    }

    /// The name that it has at global.
    pub(super) fn zone(&self) -> String {
        match self.site {
            Site::Global => String::new(),
            Site::Zone(zone) => zone_name(zone),
            Site::Rival => zone_name(0),
        }
    }

    fn random(&self, start: u64) -> Random {
        let site = match self.site {
            Site::Global => 1,
            Site::Rival => 2,
            Site::Zone(zone) => 3 + zone as u64,
        };
        let own = site << 8 | (self.place as u64) << 4;
        Random::seeded(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (own << 40) ^ start)
    }

    /// One run, until it is crashed.
    pub(super) async fn run(self) -> turmoil::Result {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let random = self.random(start);
        // Everybody's time of day is another one.
        let skew = format!("2026-01-01T00:{:02}:00Z", random.u64() % 20);
        let clock = Clock::simulated(skew.parse()?);
        let store = self.world.open(self.place, &random).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(store.clone().follow());
        tasks.spawn(store.clone().elect());
        let mut decided = BTreeMap::new();
        let instance = format!("{}-{start}", self.host());
        let grouping = if self.site == Site::Global { Grouping::Zone } else { Grouping::Proxy };
        let replica = Replica {
            store: Arc::new(store.acting(Actor::Sync)),
            status: stores::status(grouping, &instance, &clock, &random),
            clock,
            random: random.clone(),
            instance,
        };
        tasks.spawn(
            Writer {
                site: self.site,
                zone: self.zone(),
                store: store.clone(),
                random: random.clone(),
                oracle: self.oracle.clone(),
                zones: self.zones,
            }
            .run(),
        );
        let side = match self.site {
            Site::Global => {
                let server = federation::global_side(global_options(), replica.clone(), Arc::new(Tokens));
                let (running, incoming) = (server.clone(), crate::net::listen(PORT).await?);
                tasks.spawn(async move {
                    if let Err(error) = running.run(incoming, Drain::never()).await {
                        panic!("global cannot serve zones: {error}");
                    }
                });
                Side::Global(server)
            }
            Site::Zone(_) | Site::Rival => {
                let link = FederationLink::default();
                let (options, told, own) = (self.zone_options(&random), link.clone(), replica.clone());
                // There are no others to be heard: nothing else observes.
                let heard = || async {};
                tasks.spawn(async move {
                    federation::zone_side(options, own, told, None, heard, Drain::never()).await;
                });
                Side::Zone(link)
            }
        };
        loop {
            let heals = self.board.lock().heals;
            let shown =
                Shown { revision: store.snapshot().revision(), reports: side.reports(&self, &replica) };
            if heals || random.fraction() < 0.02 {
                self.decide(&side, &shown, &mut decided).await;
            }
            self.oracle.lock().show(self.site, self.place, shown);
            while let Some(ended) = tasks.try_join_next() {
                ended?;
            }
            tokio::time::sleep(if heals { LOOK_CLOSELY } else { LOOK }).await;
        }
    }

    fn zone_options(&self, random: &Random) -> ZoneOptions {
        let hosts = (0..self.globals).map(|place| format!("global-{place}")).collect();
        let dial =
            Dial { connector: net::connector(hosts, random), authority: "global:5685".into(), tls: false };
        ZoneOptions {
            token: ZoneToken::Inline(format!("token-{}", self.zone())),
            backoff: Backoff { base: Duration::from_millis(50), max: Duration::from_secs(2) },
            protection: PROTECTION,
            audit_interval: AUDIT,
            ..ZoneOptions::new(self.zone(), dial)
        }
    }

    /// An operator decides about what is held back.
    async fn decide(&self, side: &Side, shown: &Shown, decided: &mut BTreeMap<String, Duration>) {
        for (zone, report) in &shown.reports {
            if report.protection.held_back == 0 && report.protection.state != "otherGlobal" {
                continue;
            }
            // Nobody decides again before the first decision had its time.
            let last = decided.get(zone).copied();
            if last.is_some_and(|last| elapsed() < last + DECISION_TAKES) {
                continue;
            }
            decided.insert(zone.clone(), elapsed());
            match side {
                Side::Global(server) => {
                    if let Some(number) = zone_number(zone) {
                        self.oracle.lock().accepts(Site::Global, Site::Zone(number));
                    }
                    if *zone == zone_name(0) {
                        self.oracle.lock().accepts(Site::Global, Site::Rival);
                    }
                    if let Err(error) = server.accept_deletions(zone).await {
                        tracing::debug!(%error, zone, "a decision is not stored");
                    }
                }
                Side::Zone(link) => {
                    self.oracle.lock().accepts(self.site, Site::Global);
                    link.accept_deletions();
                }
            }
        }
    }
}

fn global_options() -> GlobalOptions {
    GlobalOptions {
        insight_flush_interval: Duration::from_secs(2),
        health_interval: Duration::from_secs(1),
        stuck_after: Duration::from_secs(5),
        audit_interval: AUDIT,
        protection: PROTECTION,
        keep_alive: Duration::from_secs(1),
        name_reserved_for: Duration::from_secs(3),
        ..GlobalOptions::default()
    }
}

enum Side {
    Global(GlobalServer),
    Zone(FederationLink),
}

impl Side {
    /// What is told about connections here.
    fn reports(&self, place: &Place, replica: &Replica) -> BTreeMap<String, PeerReport> {
        match self {
            Side::Global(server) => {
                let zones = server.online_zones().into_iter();
                zones.filter_map(|zone| Some((zone.clone(), server.peer_report(&zone)?))).collect()
            }
            Side::Zone(link) => {
                let report = link.report(&place.zone(), &federation::zone_stores(replica));
                std::iter::once((place.zone(), report)).collect()
            }
        }
    }
}
