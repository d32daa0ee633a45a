#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| graticule_fuzz::run("backup", data));
