//! Row 20: the machine has no processor and no disk to spare.
//!
//! Elsewhere writes to a disk alone move an address until somebody raises priorities, a slow disk of the store takes
//! addresses away, and sessions flap when processors are starved. Here every service shares both with the load.

use std::{thread::available_parallelism, time::Duration};

use anyhow::{Result, ensure};
use understudy_e2e::Stage;
use understudy_lab::Load;

/// How long the load lasts.
const WATCH: Duration = Duration::from_secs(60);
/// Processes that compute: four for each processor of the smallest machine that this runs on.
const BUSY: usize = 8;
/// What the disk must have taken at least: a mebibyte, synced, for each second.
const WRITTEN: u64 = WATCH.as_secs() << 20;

#[test]
fn row_20_processors_and_disk_busy_for_a_minute() -> Result<()> {
    let stage = Stage::set("row 20")?;
    let epoch = stage.dns_epoch()?;
    let load = Load::start(&stage.deployment.client, BUSY)?;
    let since = stage.probe.mark();
    stage.nothing_moves("processors and disk busy", "web-a", since, WATCH)?;
    let (had, written) = (load.processor_time()?, load.written()?);
    drop(load);
    // The rest is what services, servers and probes took away from the load.
    let least = WATCH * u32::try_from(available_parallelism()?.get().min(BUSY))? / 2;
    ensure!(
        had >= least,
        "no load: {had:?} of processor time were used, at least {least:?} should have been"
    );
    ensure!(written >= WRITTEN, "no load: {written} bytes reached the disk, at least {WRITTEN} should have");
    ensure!(stage.dns_epoch()? == epoch, "the slot was lost, although to nobody else");
    stage.end()
}
