//! Replicas of global and of zones: their processes, wired as the programs wire them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use graticule_control_plane::federation::{self, Replica};
use graticule_control_plane::store as stores;
use graticule_kds::core::{DeletionProtection, PeerReport};
use graticule_kds::net::{
    Dial, FederationLink, GlobalOptions, GlobalServer, ZoneAuthenticator, ZoneGrant, ZoneOptions, ZoneToken,
};
use graticule_runtime::{Backoff, Clock, Drain, Random};
use graticule_store::status::Grouping;
use graticule_store::{Snapshot, Store as _};
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
#[derive(Default)]
pub(super) struct Board {
    /// Whatever is held back is decided about.
    pub(super) heals: bool,
    /// What operators look into.
    worlds: BTreeMap<Site, World>,
}

impl Board {
    /// What a control plane stores.
    fn stored(&self, site: Site) -> Snapshot {
        self.worlds.get(&site).map(World::snapshot).unwrap_or_default()
    }
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
    pub(super) has_rival: bool,
    /// It reads slowly what global says.
    pub(super) is_slow: Arc<AtomicBool>,
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
    /// A second control plane calls itself like the first zone.
    pub(super) has_rival: bool,
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
        let replicas = match site {
            Site::Global => shape.globals,
            Site::Zone(_) => shape.replicas,
            Site::Rival => 1,
        };
        let world = World::new(site, replicas, oracle);
        board.lock().worlds.insert(site, world.clone());
        let place = |place| Place {
            site,
            place,
            world: world.clone(),
            board: board.clone(),
            oracle: oracle.clone(),
            seed,
            globals: shape.globals,
            zones: shape.zones,
            has_rival: shape.has_rival,
            is_slow: Arc::default(),
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
                has_rival: self.has_rival,
            }
            .run(),
        );
        let side = match self.site {
            Site::Global => {
                let options = global_options(self.has_rival);
                let server = federation::global_side(options, replica.clone(), Arc::new(Tokens));
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
            let shown = Shown {
                revision: store.snapshot().revision(),
                reports: side.reports(&self, &replica),
                refused_rival: self.has_rival && side.has_conflict(),
            };
            if heals || random.fraction() < 0.02 {
                self.decide(&side, &shown, &mut decided).await;
            }
            let stored = self.world.snapshot();
            self.oracle.lock().show(self.site, self.place, shown, &stored);
            while let Some(ended) = tasks.try_join_next() {
                ended?;
            }
            tokio::time::sleep(if heals { LOOK_CLOSELY } else { LOOK }).await;
        }
    }

    fn zone_options(&self, random: &Random) -> ZoneOptions {
        let hosts = (0..self.globals).map(|place| format!("global-{place}")).collect();
        let dial = Dial {
            connector: net::connector(hosts, random, &self.is_slow),
            authority: "global:5685".into(),
            tls: false,
        };
        ZoneOptions {
            token: ZoneToken::Inline(format!("token-{}", self.zone())),
            backoff: Backoff { base: Duration::from_millis(50), max: Duration::from_secs(2) },
            protection: PROTECTION,
            audit_interval: AUDIT,
            ..ZoneOptions::new(self.zone(), dial)
        }
    }

    /// An operator decides about what is held back: what the peer has lost is given up, and nothing that it has.
    async fn decide(&self, side: &Side, shown: &Shown, decided: &mut BTreeMap<String, Duration>) {
        for (zone, report) in &shown.reports {
            if report.protection.held_back == 0 && report.protection.state != "otherGlobal" {
                continue;
            }
            let peer = match side {
                Side::Global(_) => zone_number(zone).map(Site::Zone),
                Side::Zone(_) => Some(Site::Global),
            };
            let Some(peer) = peer else { continue };
            let (stored, at_peer) = (self.world.snapshot(), self.board.lock().stored(peer));
            // With another federation nothing is compared, so that what is told to be held back may be there again: whoever
            // agrees to it loses only what it does not have.
            let is_other = report.protection.state == "otherGlobal";
            if !is_other && !self.oracle.lock().is_lost(self.site, report, &stored, &at_peer) {
                continue;
            }
            // Nobody decides again before the first decision had its time.
            let last = decided.get(zone).copied();
            if last.is_some_and(|last| elapsed() < last + DECISION_TAKES) {
                continue;
            }
            decided.insert(zone.clone(), elapsed());
            self.oracle.lock().accepts(self.site, peer);
            match side {
                Side::Global(server) => {
                    if let Err(error) = server.accept_deletions(zone).await {
                        tracing::debug!(%error, zone, "a decision is not stored");
                    }
                }
                Side::Zone(link) => {
                    link.accept_deletions();
                }
            }
        }
    }
}

fn global_options(has_rival: bool) -> GlobalOptions {
    // Nobody is away for so long that the rival gets the name.
    let name_reserved_for = Duration::from_secs(if has_rival { 3600 } else { 3 });
    GlobalOptions {
        insight_flush_interval: Duration::from_secs(2),
        health_interval: Duration::from_secs(1),
        stuck_after: Duration::from_secs(5),
        audit_interval: AUDIT,
        protection: PROTECTION,
        keep_alive: Duration::from_secs(1),
        name_reserved_for,
        ..GlobalOptions::default()
    }
}

enum Side {
    Global(GlobalServer),
    Zone(FederationLink),
}

impl Side {
    /// Whether somebody was refused the first zone's name here.
    fn has_conflict(&self) -> bool {
        match self {
            Side::Global(server) => {
                server.report(&zone_name(0)).is_some_and(|report| report.conflict.is_some())
            }
            Side::Zone(_) => false,
        }
    }

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
