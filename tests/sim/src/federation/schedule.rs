//! The faults of a run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use graticule_runtime::Random;
use graticule_store::{Replacement, Snapshot};
use parking_lot::Mutex;

use super::oracle::{Oracle, Site};
use super::site::{Board, Place};
use super::world::Way;

/// Longest pause between two faults.
const PAUSE_MAX_MS: u64 = 900;
/// Message delays: usual and with a bad network.
pub(super) const LATENCY_MAX_MS: [u64; 4] = [20, 20, 150, 700];
/// Shares of messages that are lost, with the connection that they belong to.
const LOSS: [f64; 4] = [0.0, 0.0, 0.001, 0.01];
/// Shares of the store's answers that are lost.
const ANSWERS_LOST: [f64; 4] = [0.0, 0.05, 0.2, 0.5];
/// Times until a replica hears of a write of another one, in ms.
const LAGS_MS: [u64; 4] = [0, 20, 300, 1500];

/// What is broken at the moment, and what comes next.
pub(super) struct Schedule {
    random: Random,
    down: Vec<usize>,
    /// There is a second control plane with the name of the first zone.
    has_rival: bool,
    /// An older state of global.
    backup: Option<Snapshot>,
    faults: u64,
    board: Arc<Mutex<Board>>,
    oracle: Arc<Mutex<Oracle>>,
}

impl Schedule {
    /// The rival is down when the faults begin.
    pub(super) fn new(
        random: Random,
        places: &[Place],
        board: Arc<Mutex<Board>>,
        oracle: Arc<Mutex<Oracle>>,
    ) -> Schedule {
        let down: Vec<usize> = (0..places.len()).filter(|at| places[*at].site == Site::Rival).collect();
        Schedule { random, has_rival: !down.is_empty(), down, backup: None, faults: 0, board, oracle }
    }

    /// How many faults there were.
    pub(super) fn faults(&self) -> u64 {
        self.faults
    }

    fn pick(&self, below: usize) -> usize {
        usize::try_from(self.random.u64() % below.max(1) as u64).unwrap_or_default()
    }

    /// Breaks or repairs one thing. Time until the next one.
    pub(super) fn change(&mut self, sim: &mut turmoil::Sim<'_>, places: &[Place]) -> Duration {
        self.faults += 1;
        let at = self.pick(places.len());
        let place = &places[at];
        // Global and zones talk to each other, and to nobody else.
        let others: Vec<&Place> = places
            .iter()
            .filter(|other| (other.site == Site::Global) != (place.site == Site::Global))
            .collect();
        let other = others[self.pick(others.len())];
        let fault = self.pick(36);
        tracing::info!(at = ?sim.elapsed(), fault, place = place.host(), other = other.host(), "fault");
        match fault {
            0..=1 => sim.partition(place.host(), other.host()),
            2 => sim.partition_oneway(place.host(), other.host()),
            3 => others.iter().for_each(|other| sim.partition(place.host(), other.host())),
            4 => others.iter().for_each(|other| sim.partition_oneway(place.host(), other.host())),
            5..=8 => repair(sim, places),
            9..=11 => self.crash(sim, places, at),
            12..=14 => self.start_one(sim, places),
            15 => place.world.set_way(place.place, |way| way.is_cut = true),
            16..=17 => {
                places.iter().for_each(|place| place.world.set_way(place.place, |way| way.is_cut = false))
            }
            18 => {
                let lost = ANSWERS_LOST[self.pick(ANSWERS_LOST.len())];
                place.world.set_way(place.place, |way| way.answers_lost = lost);
            }
            19 => {
                let lag = LAGS_MS[self.pick(LAGS_MS.len())];
                place.world.set_way(place.place, |way| way.lag_max_ms = lag);
            }
            20..=21 => place.world.resign(sim.elapsed()),
            22 => {
                let latency = LATENCY_MAX_MS[self.pick(LATENCY_MAX_MS.len())];
                sim.set_max_message_latency(Duration::from_millis(latency));
            }
            23 => sim.set_fail_rate(LOSS[self.pick(LOSS.len())]),
            24 => {
                let latency = LATENCY_MAX_MS[self.pick(LATENCY_MAX_MS.len())];
                for other in others {
                    let latency = Duration::from_millis(latency);
                    sim.set_link_max_message_latency(place.host(), other.host(), latency);
                }
            }
            25 => self.backup = Some(places[0].world.snapshot()),
            26..=27 => place.is_slow.store(true, Ordering::Relaxed),
            28 => places.iter().for_each(|place| place.is_slow.store(false, Ordering::Relaxed)),
            29..=31 => self.damage(place),
            _ => self.lose(sim, places, at),
        }
        Duration::from_millis(self.random.u64() % PAUSE_MAX_MS)
    }

    /// Something breaks a copy that federation brought.
    fn damage(&mut self, place: &Place) {
        let choice = self.random.u64();
        let copies = self.oracle.lock().copies(place.site);
        let _was_there = place.world.damage(choice, |resource| copies(resource));
    }

    /// Something is lost for good; not often.
    fn lose(&mut self, sim: &mut turmoil::Sim<'_>, places: &[Place], at: usize) {
        let lost = self.pick(8);
        // Whoever forgets whose a name is gives it to who asks for it; and names stay reserved here.
        if self.has_rival && lost <= 3 {
            return;
        }
        match lost {
            0..=1 if places[at].site != Site::Global => {
                self.replace_disk(sim, places, places[at].site, Snapshot::empty())
            }
            2 => self.replace_disk(sim, places, Site::Global, Snapshot::empty()),
            3 => {
                if let Some(backup) = self.backup.clone() {
                    self.replace_disk(sim, places, Site::Global, backup);
                }
            }
            4 => {
                if let Some(backup) = &self.backup {
                    let resources = backup.iter().cloned().collect();
                    // Somebody restores a backup while everything runs.
                    let above = places[0].world.snapshot().revision();
                    places[0].world.replace(Replacement { resources, expect: None, above }).ok();
                }
            }
            _ => {}
        }
    }

    /// All replicas of a control plane stop, and come back on another disk.
    fn replace_disk(&mut self, sim: &mut turmoil::Sim<'_>, places: &[Place], site: Site, disk: Snapshot) {
        tracing::info!(at = ?sim.elapsed(), ?site, revision = %disk.revision(), "another disk");
        let theirs: Vec<usize> = (0..places.len()).filter(|at| places[*at].site == site).collect();
        for at in &theirs {
            self.crash(sim, places, *at);
        }
        if let Some(first) = theirs.first() {
            places[*first].world.set_disk(disk);
        }
        for at in theirs {
            self.down.retain(|down| *down != at);
            sim.bounce(places[at].host());
        }
    }

    fn crash(&mut self, sim: &mut turmoil::Sim<'_>, places: &[Place], at: usize) {
        if self.down.contains(&at) {
            return;
        }
        sim.crash(places[at].host());
        self.oracle.lock().gone(places[at].site, places[at].place);
        self.down.push(at);
    }

    fn start_one(&mut self, sim: &mut turmoil::Sim<'_>, places: &[Place]) {
        if self.down.is_empty() {
            return;
        }
        let at = self.down.remove(self.pick(self.down.len()));
        sim.bounce(places[at].host());
    }

    /// Repairs everything.
    pub(super) fn heal(&mut self, sim: &mut turmoil::Sim<'_>, places: &[Place]) {
        repair(sim, places);
        sim.set_fail_rate(0.0);
        let usual = Duration::from_millis(LATENCY_MAX_MS[0]);
        sim.set_max_message_latency(usual);
        for place in places {
            place.world.set_way(place.place, |way| *way = Way::default());
            place.is_slow.store(false, Ordering::Relaxed);
            for other in places.iter().filter(|other| other.host() != place.host()) {
                sim.set_link_max_message_latency(place.host(), other.host(), usual);
            }
        }
        for at in std::mem::take(&mut self.down) {
            sim.bounce(places[at].host());
        }
        self.board.lock().heals = true;
    }
}

fn repair(sim: &turmoil::Sim<'_>, places: &[Place]) {
    for global in places.iter().filter(|place| place.site == Site::Global) {
        for zone in places.iter().filter(|place| place.site != Site::Global) {
            sim.repair(global.host(), zone.host());
        }
    }
}
