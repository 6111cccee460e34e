//! Row 26: wall clocks jump. Nothing that decides may look at one.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use understudy_e2e::{SOON, Stage};
use understudy_lab::{Deployment, Process, deployment::Plan, faketime, wait_until};

/// How long nothing may move after each jump.
const WATCH: Duration = Duration::from_secs(2);
/// What is left of a jump when its trace in a log is read: lines are younger than this.
const MINUTE: f64 = 60.0;

/// A wall clock for some processes, which can be set while they run. Their other clocks stay what they are.
struct WallClock(TempDir);

impl WallClock {
    fn new() -> Result<Self> {
        let clock = Self(TempDir::new()?);
        clock.set(0)?;
        Ok(clock)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("offset")
    }

    fn set(&self, seconds: i32) -> Result<()> {
        // Renamed into place: it is read at every look at the clock.
        let new = self.0.path().join("new");
        std::fs::write(&new, format!("{seconds:+}"))?;
        Ok(std::fs::rename(&new, self.file())?)
    }

    fn environment(&self, host: &str) -> Result<Vec<(String, String, String)>> {
        let variables = [
            ("LD_PRELOAD", faketime()?.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Something that is written all the time, with the process's own idea of the time.
            ("UNDERSTUDY_TELEMETRY__LOG", "info,h2=debug".to_owned()),
            ("UNDERSTUDY_TELEMETRY__JSON", "true".to_owned()),
        ];
        Ok(variables.map(|(key, value)| (host.to_owned(), key.to_owned(), value)).into())
    }
}

/// Seconds by which the youngest line in a process's log is off the machine's wall clock.
fn off_by(process: &Process) -> Option<f64> {
    let log = process.log_text();
    let timestamp = |line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        humantime::parse_rfc3339(line["timestamp"].as_str()?).ok()
    };
    let written = log.lines().rev().find_map(timestamp)?;
    let now = SystemTime::now();
    Some(match written.duration_since(now) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    })
}

fn jumps(host: &str, of: impl Fn(&Deployment) -> Vec<&Process>) -> Result<()> {
    let clock = WallClock::new()?;
    let stage = Stage::with("row 26", Plan { environment: clock.environment(host)?, ..Plan::new("clock") })?;
    let epoch = stage.dns_epoch()?;
    for (jump, seconds) in [("an hour ahead", 3_600), ("an hour behind", -3_600), ("right again", 0)] {
        let since = stage.probe.mark();
        clock.set(seconds)?;
        for process in of(&stage.deployment) {
            let seen = || off_by(process).is_some_and(|off| (off - f64::from(seconds)).abs() < MINUTE);
            wait_until(&format!("{} sees its clock {jump}", process.name()), SOON, seen)
                .with_context(|| format!("it is off by {:?} s", off_by(process)))?;
        }
        stage.nothing_moves(&format!("wall clock of {host} {jump}"), "web-a", since, WATCH)?;
    }
    ensure!(stage.dns_epoch()? == epoch, "the epoch rose although nothing had to move");
    stage.deployment.wait_granting()?;
    stage.deployment.wait_standbys()?;
    stage.end()
}

#[test]
fn row_26_wall_clock_of_the_active() -> Result<()> {
    jumps("web-a", |deployment| deployment.node("web-a").services().into())
}

#[test]
fn row_26_wall_clock_of_a_detector() -> Result<()> {
    jumps("detector-1", |deployment| vec![&deployment.detectors[0]])
}
