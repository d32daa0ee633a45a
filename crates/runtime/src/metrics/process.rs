//! What Linux tells about this process.

use super::Measured;

/// Memory, CPU, files and start of this process; what the system does not tell is left out.
pub(super) fn measured() -> Vec<Measured> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (stat, system) = (read("/proc/self/stat"), read("/proc/stat"));
    let seconds = |ticks: f64| ticks / rustix::param::clock_ticks_per_second() as f64;
    let started = || Some(boot_time(&system)? + seconds(field(&stat, 22)?));
    let resident = || Some(field(&stat, 24)? * rustix::param::page_size() as f64);
    let files = || Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64);
    let files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let cpu = || Some(seconds(field(&stat, 14)? + field(&stat, 15)?));
    let one = |measured: Measured, value: Option<f64>| Some(measured.with([], value?));
    [
        one(Measured::gauge("process_resident_memory_bytes", "Resident memory"), resident()),
        one(Measured::gauge("process_virtual_memory_bytes", "Virtual memory"), field(&stat, 23)),
        one(Measured::counter("process_cpu_seconds", "CPU time, user and system"), cpu()),
        one(Measured::gauge("process_open_fds", "Open files"), files()),
        one(Measured::gauge("process_max_fds", "Most open files"), files_max.map(|max| max as f64)),
        one(Measured::gauge("process_threads", "Threads"), field(&stat, 20)),
        one(Measured::gauge("process_start_time_seconds", "Start, since the Unix epoch"), started()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A field of `/proc/PID/stat`, counted from 1 as in its manual. The second one is the program's name in parentheses, which
/// may have anything in it.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// When the system started, in seconds since the Unix epoch.
fn boot_time(system: &str) -> Option<f64> {
    system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let stat = "7 (a) b ) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21";
        for (number, want) in
            [(3, None), (4, Some(1.0)), (14, Some(11.0)), (24, Some(21.0)), (25, None), (1, None)]
        {
            assert_eq!(field(stat, number), want, "{number}");
        }
        assert_eq!(field("", 4), None);
        assert_eq!(boot_time("cpu 1\nbtime 17\nprocesses 3\n"), Some(17.0));
        assert_eq!(boot_time("cpu 1\n"), None);
    }
}
