//! The measurement of many zones, small, against a real global.

use anyhow::Result;
use graticule_load::zones::{Global, Options, run};
use graticule_testkit::Binaries;

#[tokio::test]
async fn every_change_reaches_every_zone_beside_slow_and_churning_ones() -> Result<()> {
    let Some(binaries) = Binaries::from_env() else {
        eprintln!("skipped: GRATICULE_BIN_DIR is not set");
        return Ok(());
    };
    let program = binaries.program("global-cp")?;
    let dir = tempfile::tempdir()?;
    let options = Options {
        global: Global::Program(program),
        dir: dir.path().to_owned(),
        zones: 4,
        slow: 2,
        churning: 2,
        resources: 60,
        changes: 12,
        rate: 0,
    };
    for rate in [0, 200] {
        let report =
            run(&Options { rate, dir: dir.path().join(rate.to_string()), ..options.clone() }).await?;
        assert_eq!((report.put.calls, report.last_zone.calls, report.each_zone.calls), (12, 12, 48));
        assert!(report.last_zone.max_ms >= report.each_zone.p50_ms, "{report:?}");
        assert!(report.join_bytes > 0 && report.bytes_per_change > 0.0, "{report:?}");
        assert!(report.memory_kib.iter().all(Option::is_some) && report.cores.is_some(), "{report:?}");
    }
    Ok(())
}
