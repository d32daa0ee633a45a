//! Binaries for libFuzzer; what they run is in `tests/fuzz-targets`.

/// Runs a target once.
///
/// # Panics
/// There is no such target, or it found something.
pub fn run(name: &str, data: &[u8]) {
    let target = graticule_fuzz_targets::target(name).expect("every binary has a target");
    (target.run)(data);
}
