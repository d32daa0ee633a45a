//! A whole federation under faults: replicas of global and of several zones, with writes on all sides.
//!
//! At every moment: the sync writes nothing that the source did not say, in no other order, never touches what a site made
//! itself, deletes nothing that the source did not give up, and nothing that a source only lost, until an operator agrees.
//! After the faults: global and zones hold exactly what the contract says, and say so.

mod expected;
mod net;
mod oracle;
mod schedule;
mod site;
mod workload;
mod world;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use graticule_runtime::Random;
use parking_lot::Mutex;

use self::oracle::{Oracle, Site};
use self::schedule::{LATENCY_MAX_MS, Schedule};
use self::site::{Board, Place, Shape, zone_name};

/// Step of the simulation.
const TICK: Duration = Duration::from_millis(10);
/// Simulated time with faults.
const FAULTS: Duration = Duration::from_secs(20);
/// Simulated time that beginning and healing may take, each.
const HEALING: Duration = Duration::from_secs(60);
/// How often everything is compared.
const COMPARISON: Duration = Duration::from_millis(200);
/// Writes that are acknowledged after the faults.
const WRITES_AFTER: u64 = 20;
/// What has arrived stays as it is for this time.
const REST: Duration = Duration::from_secs(1);
/// In every so many runs somebody else wants the name of the first zone.
const RIVAL_EVERY: u64 = 4;

/// What a run saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Faults that were injected.
    pub faults: u64,
    /// Acknowledged writes of people and zones.
    pub acknowledged: u64,
    /// Writes that were refused for certain.
    pub refused: u64,
    /// Writes whose outcome stayed unknown.
    pub uncertain: u64,
    /// Changes that federation wrote.
    pub synced: u64,
    /// Decisions of operators about what was held back.
    pub decisions: u64,
    /// Simulated time from the end of the faults until everything agreed, in ms.
    pub healed_after: u64,
    /// Hash of everything that was written, in order.
    pub digest: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { faults, acknowledged, refused, uncertain, synced, decisions, healed_after, digest } =
            self;
        write!(
            f,
            "{faults} faults, {acknowledged} writes acknowledged, {refused} refused, {uncertain} uncertain, {synced} \
             changes federated, {decisions} decisions, healed after {healed_after} ms, digest {digest}"
        )
    }
}

impl FromStr for Report {
    type Err = anyhow::Error;

    /// What [`Display`](fmt::Display) wrote.
    fn from_str(text: &str) -> Result<Report> {
        let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
        let numbers = numbers.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let &[faults, acknowledged, refused, uncertain, synced, decisions, healed_after, digest] =
            &numbers[..]
        else {
            bail!("no report: {text}");
        };
        Ok(Report { faults, acknowledged, refused, uncertain, synced, decisions, healed_after, digest })
    }
}

impl Report {
    /// Adds the counts of another run; the longest time stays, and the hashes are mixed.
    pub fn add(&mut self, other: &Report) {
        self.faults += other.faults;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.uncertain += other.uncertain;
        self.synced += other.synced;
        self.decisions += other.decisions;
        self.healed_after = self.healed_after.max(other.healed_after);
        self.digest ^= other.digest;
    }
}

/// Runs one seed: global with three replicas, five zones with two each.
///
/// # Errors
/// A rule was broken, or the federation did not come into step.
pub fn simulate(seed: u64) -> Result<Report> {
    let has_rival = seed % RIVAL_EVERY == RIVAL_EVERY - 1;
    simulate_shape(seed, Shape { globals: 3, zones: 5, replicas: 2, has_rival })
}

fn simulate_shape(seed: u64, shape: Shape) -> Result<Report> {
    let oracle = Arc::new(Mutex::new(Oracle::default()));
    let board = Arc::new(Mutex::new(Board::default()));
    let all = |site| Place::all(site, shape, seed, &board, &oracle);
    let mut places = all(Site::Global);
    places.extend((0..shape.zones).flat_map(|zone| all(Site::Zone(zone))));
    if shape.has_rival {
        places.extend(all(Site::Rival));
    }
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(3600))
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(LATENCY_MAX_MS[0]))
        .tcp_capacity(4096)
        .build();
    for place in &places {
        let place = place.clone();
        sim.host(place.host(), move || place.clone().run());
    }
    let mut run = Run { sim, oracle, places, shape };
    for rival in run.places.iter().filter(|place| place.site == Site::Rival) {
        run.sim.crash(rival.host());
    }
    run.until("the federation begins", |run| run.is_online())?;
    let random = Random::seeded(seed.wrapping_mul(0x9e37_79b9) ^ 7);
    let mut schedule = Schedule::new(random, &run.places, board, run.oracle.clone());
    let end = run.sim.elapsed() + FAULTS;
    let mut next = run.sim.elapsed();
    while run.sim.elapsed() < end {
        if run.sim.elapsed() >= next {
            next = run.sim.elapsed() + schedule.change(&mut run.sim, &run.places);
        }
        run.step()?;
    }
    schedule.heal(&mut run.sim, &run.places);
    let healed = run.sim.elapsed();
    let before = run.oracle.lock().acknowledged();
    run.until("writes go on", |run| run.oracle.lock().acknowledged() >= before + WRITES_AFTER)?;
    run.oracle.lock().stop();
    run.until("all agree", |run| run.is_settled().is_ok())?;
    let healed_after = run.sim.elapsed() - healed;
    let end = run.sim.elapsed() + REST;
    while run.sim.elapsed() < end {
        run.step()?;
    }
    run.is_settled().map_err(|why| anyhow!("what had arrived did not stay: {why}"))?;
    let oracle = run.oracle.lock();
    for place in &run.places {
        oracle.finish(place.site, &place.world.snapshot()).map_err(|why| anyhow!(why))?;
    }
    let healed_after = u64::try_from(healed_after.as_millis()).unwrap_or(u64::MAX);
    Ok(Report { faults: schedule.faults(), healed_after, ..oracle.report() })
}

struct Run<'a> {
    sim: turmoil::Sim<'a>,
    oracle: Arc<Mutex<Oracle>>,
    places: Vec<Place>,
    shape: Shape,
}

impl Run<'_> {
    fn step(&mut self) -> Result<()> {
        self.sim
            .step()
            .map_err(|error| anyhow!("at {:?}: a replica failed: {error:#}", self.sim.elapsed()))?;
        let violation = self.oracle.lock().violation();
        violation.map_or(Ok(()), |violation| Err(anyhow!("at {:?}: {violation}", self.sim.elapsed())))
    }

    fn until(&mut self, what: &str, done: impl Fn(&Run<'_>) -> bool) -> Result<()> {
        let end = self.sim.elapsed() + HEALING;
        let mut next = self.sim.elapsed();
        loop {
            if self.sim.elapsed() >= next {
                if done(self) {
                    return Ok(());
                }
                next = self.sim.elapsed() + COMPARISON;
            }
            let state = || self.is_settled().err().unwrap_or_default();
            ensure!(self.sim.elapsed() < end, "{what}: not within {HEALING:?}; {}", state());
            self.step()?;
        }
    }

    fn world(&self, site: Site) -> Option<&world::World> {
        self.places.iter().find(|place| place.site == site).map(|place| &place.world)
    }

    /// Whether every zone was brought up to date.
    fn is_online(&self) -> bool {
        let oracle = self.oracle.lock();
        (0..self.shape.zones).all(|zone| {
            let shown = oracle.shown.iter().filter(|((site, _), _)| *site == Site::Zone(zone));
            shown.flat_map(|(_, shown)| shown.reports.values()).any(|report| report.synced == Some(true))
        })
    }

    /// Whether all say that they are in step, and all are; why not.
    fn is_settled(&self) -> Result<(), String> {
        self.say_so()?;
        if self.shape.has_rival && !self.oracle.lock().has_refused_rival() {
            return Err("nobody refused the second control plane with the name of zone-0".into());
        }
        let snapshot = |site| self.world(site).map(world::World::snapshot).unwrap_or_default();
        let global = snapshot(Site::Global);
        let zones: Vec<_> =
            (0..self.shape.zones).map(|zone| (zone_name(zone), snapshot(Site::Zone(zone)))).collect();
        let up = expected::at_global(zones.iter().map(|(name, stored)| (name.as_str(), stored)));
        let mut wrong = expected::differences("global", &up, &expected::copies_at_global(&global));
        for (name, stored) in &zones {
            let down = expected::at_zone(&global, name);
            wrong.extend(expected::differences(name, &down, &expected::copies_at_zone(stored)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Whether the leader of every zone, and the replica of global that serves it, say that nothing is left to do.
    fn say_so(&self) -> Result<(), String> {
        let oracle = self.oracle.lock();
        for zone in 0..self.shape.zones {
            let name = zone_name(zone);
            let leader = self.world(Site::Zone(zone)).and_then(world::World::leader);
            let at_zone = leader.and_then(|place| oracle.shown.get(&(Site::Zone(zone), place)));
            let at_zone = at_zone.and_then(|shown| shown.reports.get(&name));
            let at_zone = at_zone.ok_or_else(|| format!("{name} has no leader"))?;
            let shown = oracle.shown.iter().filter(|((site, _), _)| *site == Site::Global);
            let at_global: Vec<_> = shown.filter_map(|(_, shown)| shown.reports.get(&name)).collect();
            let [at_global] = at_global.as_slice() else {
                return Err(format!("{name} is connected to {} replicas of global", at_global.len()));
            };
            for report in [at_zone, at_global] {
                let pending: usize = report.kinds.iter().map(|kind| kind.pending + kind.held_back).sum();
                let is_well = report.online
                    && report.synced != Some(false)
                    && pending == 0
                    && report.quarantine_total == 0
                    && report.revision.is_some_and(|revision| revision.lag == 0)
                    && report.protection.state == "clear";
                if !is_well {
                    return Err(format!(
                        "{name} as its {} sees it: online {}, synced {:?}, {pending} pending, {} in quarantine {:?}, {:?}, \
                         {}, last error {:?}",
                        report.reporter,
                        report.online,
                        report.synced,
                        report.quarantine_total,
                        report.quarantine.first(),
                        report.revision,
                        report.protection.state,
                        report.last_error,
                    ));
                }
            }
        }
        Ok(())
    }
}
