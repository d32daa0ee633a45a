//! Members of one store under faults.
//!
//! Safety at every moment: what was acknowledged is never lost, what was refused never happens, nothing happens
//! twice, no revision is skipped, repeated or different on two replicas, writes and reads are linearizable, a former
//! leader changes nothing. Liveness after the faults: everybody has the same and writes go on.

mod member;
mod oracle;
mod schedule;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use graticule_runtime::Random;
use graticule_store_raft::{MemoryDisk, seed_elections};
use parking_lot::Mutex;

use self::member::Site;
use self::oracle::Oracle;
use self::schedule::{Schedule, restart_closed};

/// Step of the simulation.
const TICK: Duration = Duration::from_millis(5);
/// Simulated time with faults.
const FAULTS: Duration = Duration::from_secs(30);
/// Simulated time that forming, healing and catching up may take, each.
const HEALING: Duration = Duration::from_secs(90);
/// Writes that are acknowledged after the faults before they count as healed.
const WRITES_AFTER: u64 = 20;

/// What a run saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Writes that were refused for certain.
    pub refused: u64,
    /// Writes whose outcome stayed unknown.
    pub uncertain: u64,
    /// Linearizable reads that were answered.
    pub reads: u64,
    /// Revision at the end.
    pub revision: u64,
    /// Terms that had a leader.
    pub leaders: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Hash of everything that was written, in order.
    pub digest: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { acknowledged, refused, uncertain, reads, revision, leaders, faults, digest } = self;
        write!(
            f,
            "{faults} faults, {leaders} leaders, {acknowledged} writes acknowledged, {refused} refused, \
             {uncertain} uncertain, {reads} linearizable reads, revision {revision}, digest {digest}"
        )
    }
}

impl FromStr for Report {
    type Err = anyhow::Error;

    /// What [`Display`](fmt::Display) wrote.
    fn from_str(text: &str) -> Result<Report> {
        let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
        let numbers = numbers.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let &[faults, leaders, acknowledged, refused, uncertain, reads, revision, digest] = &numbers[..]
        else {
            bail!("no report: {text}");
        };
        Ok(Report { acknowledged, refused, uncertain, reads, revision, leaders, faults, digest })
    }
}

impl Report {
    /// Adds the counts of another run; the highest revision stays, and the hashes are mixed.
    pub fn add(&mut self, other: &Report) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.uncertain += other.uncertain;
        self.reads += other.reads;
        self.leaders += other.leaders;
        self.faults += other.faults;
        self.revision = self.revision.max(other.revision);
        self.digest ^= other.digest;
    }
}

/// Runs one seed with this many members.
///
/// # Errors
/// A rule was broken, or the members did not recover.
pub fn simulate(seed: u64, members: usize) -> Result<Report> {
    seed_elections(seed);
    let oracle = Arc::new(Mutex::new(Oracle::default()));
    let sites: Vec<Site> = Site::all(members, seed, &oracle);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(3600))
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(4096)
        .build();
    for site in &sites {
        let site = site.clone();
        sim.host(site.name(), move || site.clone().run());
    }
    let mut run = Run { sim, oracle, sites, members };
    run.until("the cluster forms", |run| run.voters() == run.members)?;
    let mut schedule =
        Schedule::new(Random::seeded(seed.wrapping_mul(0x9e37_79b9) ^ members as u64), members);
    let end = run.sim.elapsed() + FAULTS;
    let mut next = run.sim.elapsed();
    while run.sim.elapsed() < end {
        if run.sim.elapsed() >= next {
            next = run.sim.elapsed() + schedule.change(&mut run.sim, &run.sites, &run.oracle);
        }
        run.step()?;
    }
    schedule.heal(&mut run.sim, &run.sites, &run.oracle);
    run.until("all members are back", |run| run.voters() == run.members)?;
    let before = run.oracle.lock().acknowledged();
    run.until("writes go on", |run| run.oracle.lock().acknowledged() >= before + WRITES_AFTER)?;
    run.oracle.lock().stop();
    run.until("all replicas have the same and say that they are well", |run| {
        run.oracle.lock().is_settled(members)
    })?;
    let oracle = run.oracle.lock();
    oracle.finish()?;
    Ok(Report { faults: schedule.faults(), ..oracle.report() })
}

/// The disk of a member is replaced with it.
type Disk = Arc<Mutex<MemoryDisk>>;

struct Run<'a> {
    sim: turmoil::Sim<'a>,
    oracle: Arc<Mutex<Oracle>>,
    sites: Vec<Site>,
    members: usize,
}

impl Run<'_> {
    fn step(&mut self) -> Result<()> {
        self.sim
            .step()
            .map_err(|error| anyhow!("at {:?}: a member failed: {error:#}", self.sim.elapsed()))?;
        let violation = self.oracle.lock().violation();
        violation.map_or(Ok(()), |violation| Err(anyhow!("at {:?}: {violation}", self.sim.elapsed())))
    }

    /// Members that vote, as somebody sees it who leads.
    fn voters(&self) -> usize {
        self.oracle.lock().voters(&self.sites)
    }

    fn until(&mut self, what: &str, done: impl Fn(&Run<'_>) -> bool) -> Result<()> {
        let end = self.sim.elapsed() + HEALING;
        while !done(self) {
            let state = || self.oracle.lock().state();
            ensure!(self.sim.elapsed() < end, "{what}: not within {HEALING:?}; {}", state());
            // Some began to close before the faults ended.
            restart_closed(&mut self.sim, &self.sites, &self.oracle);
            self.step()?;
        }
        Ok(())
    }
}
