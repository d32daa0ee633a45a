//! The faults of a run.

use std::sync::Arc;
use std::time::Duration;

use graticule_runtime::Random;
use parking_lot::Mutex;

use super::member::{DISK_DELAY, Site, name};
use super::oracle::Oracle;

/// Longest pause between two faults.
const PAUSE_MAX_MS: u64 = 2000;
/// Message delays: usual and with a bad network.
const LATENCY_MAX_MS: [u64; 4] = [20, 20, 150, 600];
/// Shares of messages that are lost.
const LOSS: [f64; 4] = [0.0, 0.0, 0.005, 0.03];
/// Shares of answers that are lost together with their connections.
const ANSWERS_LOST: [f64; 4] = [0.0, 0.02, 0.1, 0.3];
/// Delays of disks, in ms.
const DISK_DELAY_MS: [u64; 4] = [1, 10, 150, 800];

/// What is broken at the moment, and what comes next.
pub(super) struct Schedule {
    random: Random,
    members: usize,
    down: Vec<usize>,
    faults: u64,
}

impl Schedule {
    pub(super) fn new(random: Random, members: usize) -> Schedule {
        Schedule { random, members, down: Vec::new(), faults: 0 }
    }

    /// How many faults there were.
    pub(super) fn faults(&self) -> u64 {
        self.faults
    }

    fn pick(&self, below: usize) -> usize {
        usize::try_from(self.random.u64() % below as u64).unwrap_or_default()
    }

    fn pick_other(&self, member: usize) -> usize {
        (member + 1 + self.pick(self.members - 1)) % self.members
    }

    /// Breaks or repairs one thing. Time until the next one.
    pub(super) fn change(
        &mut self,
        sim: &mut turmoil::Sim<'_>,
        sites: &[Site],
        oracle: &Arc<Mutex<Oracle>>,
    ) -> Duration {
        self.faults += 1;
        let member = self.pick(self.members);
        let other = self.pick_other(member);
        let disk = sites[member].disk.lock().clone();
        match self.pick(22) {
            0 => sim.partition(name(member), name(other)),
            1 => sim.partition_oneway(name(member), name(other)),
            2 => self.split(sim, &[member]),
            3 => {
                let side: Vec<usize> = (0..self.members).filter(|_| self.random.fraction() < 0.5).collect();
                self.split(sim, &side);
            }
            4..=6 => self.repair(sim),
            7 | 8 => self.crash(sim, sites, oracle, member),
            9 if !self.down.contains(&member) => {
                sites[member].board.lock().closing.insert(member);
            }
            10 | 11 => self.start_one(sim, sites),
            12 => disk.set_delay(Duration::from_millis(DISK_DELAY_MS[self.pick(DISK_DELAY_MS.len())])),
            13 => disk.set_failing(self.random.fraction() < 0.5),
            14 => disk.set_full(self.random.fraction() < 0.5),
            15 => {
                let latency = LATENCY_MAX_MS[self.pick(LATENCY_MAX_MS.len())];
                sim.set_max_message_latency(Duration::from_millis(latency));
            }
            16 => sim.set_fail_rate(LOSS[self.pick(LOSS.len())]),
            17 | 18 => self.change_members(sites, member),
            19 | 20 => {
                let lost = ANSWERS_LOST[self.pick(ANSWERS_LOST.len())];
                sites[member].board.lock().answers_lost = lost;
            }
            _ => self.replace(sim, sites, oracle, member),
        }
        Duration::from_millis(self.random.u64() % PAUSE_MAX_MS)
    }

    fn split(&self, sim: &turmoil::Sim<'_>, side: &[usize]) {
        for member in side {
            for other in (0..self.members).filter(|other| !side.contains(other)) {
                sim.partition(name(*member), name(other));
            }
        }
    }

    fn repair(&self, sim: &turmoil::Sim<'_>) {
        for member in 0..self.members {
            for other in 0..member {
                sim.repair(name(member), name(other));
            }
        }
    }

    fn crash(
        &mut self,
        sim: &mut turmoil::Sim<'_>,
        sites: &[Site],
        oracle: &Arc<Mutex<Oracle>>,
        member: usize,
    ) {
        if self.down.contains(&member) {
            return;
        }
        sim.crash(name(member));
        sites[member].board.lock().closing.remove(&member);
        oracle.lock().gone(member);
        // The power is lost as often as only the process.
        if self.random.fraction() < 0.5 {
            sites[member].disk.lock().crash(&self.random);
        }
        self.down.push(member);
    }

    /// One that was crashed, or has closed.
    fn start_one(&mut self, sim: &mut turmoil::Sim<'_>, sites: &[Site]) {
        let closed = |site: &&Site| !self.down.contains(&site.place);
        let closed = sites.iter().filter(closed).map(|site| site.place).collect::<Vec<_>>();
        let closed = closed.into_iter().find(|place| !sim.is_host_running(name(*place)));
        if let Some(member) = closed.or_else(|| self.down.pop()) {
            sim.bounce(name(member));
        }
    }

    /// A member should not vote any more, or again. A majority of the places stays.
    fn change_members(&self, sites: &[Site], member: usize) {
        let mut board = sites[member].board.lock();
        if !board.wanted.remove(&member) || board.wanted.len() <= self.members / 2 {
            board.wanted.insert(member);
        }
    }

    /// A member that was removed gives its place to a new one.
    fn replace(
        &mut self,
        sim: &mut turmoil::Sim<'_>,
        sites: &[Site],
        oracle: &Arc<Mutex<Oracle>>,
        member: usize,
    ) {
        let site = &sites[member];
        let is_removed = {
            let board = site.board.lock();
            !board.wanted.contains(&member)
                && site
                    .id_in(&board)
                    .is_some_and(|id| board.removed.contains(&id) && !oracle.lock().is_member(id))
        };
        if !is_removed {
            return;
        }
        self.crash(sim, sites, oracle, member);
        site.replace();
        site.board.lock().wanted.insert(member);
        self.down.retain(|down| *down != member);
        sim.bounce(name(member));
    }

    /// Repairs everything.
    pub(super) fn heal(&mut self, sim: &mut turmoil::Sim<'_>, sites: &[Site], oracle: &Arc<Mutex<Oracle>>) {
        self.repair(sim);
        sim.set_fail_rate(0.0);
        sim.set_max_message_latency(Duration::from_millis(LATENCY_MAX_MS[0]));
        for site in sites {
            let disk = site.disk.lock().clone();
            disk.set_failing(false);
            disk.set_full(false);
            disk.set_delay(DISK_DELAY);
            let mut board = site.board.lock();
            board.closing.remove(&site.place);
            board.wanted.insert(site.place);
            board.answers_lost = 0.0;
        }
        for member in std::mem::take(&mut self.down) {
            sim.bounce(name(member));
        }
        restart_closed(sim, sites, oracle);
    }
}

/// Starts those who closed in good order.
pub(super) fn restart_closed(sim: &mut turmoil::Sim<'_>, sites: &[Site], oracle: &Arc<Mutex<Oracle>>) {
    for site in sites {
        if !sim.is_host_running(site.name()) {
            oracle.lock().gone(site.place);
            sim.bounce(site.name());
        }
    }
}
