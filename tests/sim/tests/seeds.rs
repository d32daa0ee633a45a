//! Seeds that run with every test. That a seed repeats shows `cargo xtask sim … --twice`, which builds tokio for it.

use graticule_sim::federation;
use graticule_sim::store::simulate;

fn run(seeds: std::ops::Range<u64>, members: usize) {
    for seed in seeds {
        let report = simulate(seed, members).unwrap_or_else(|error| {
            panic!("seed {seed}: {error:#}\n  again: cargo xtask sim store --seed {seed} --members {members}")
        });
        assert!(report.acknowledged > 50 && report.reads > 10, "seed {seed} did little: {report:?}");
    }
}

#[test]
fn three_members() {
    run(0..3, 3);
}

/// Seeds that found something, in the simulation whose choices inside tokio are fixed, too.
#[test]
fn seeds_that_failed_once() {
    for (seed, members) in [(13, 5), (24, 5), (224, 3), (9, 5), (44, 5), (668, 5)] {
        run(seed..seed + 1, members);
    }
}

#[test]
fn five_members() {
    run(0..1, 5);
}

/// Whole federations; those that once found something are among them.
#[test]
fn federations() {
    for seed in [0, 24, 63, 190] {
        let report = federation::simulate(seed).unwrap_or_else(|error| {
            panic!("seed {seed}: {error:#}\n  again: cargo xtask sim federation --seed {seed}")
        });
        assert!(report.acknowledged > 100 && report.synced > 300, "seed {seed} did little: {report:?}");
    }
}
