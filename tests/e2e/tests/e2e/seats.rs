//! Seats: two processes on one, and observers beyond S.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::{SOON, Stage};
use understudy_lab::{deployment::detector_on_seat, wait_until};

#[test]
fn two_detectors_on_one_seat_refuse_and_say_so() -> Result<()> {
    let stage = Stage::set("seats")?;
    let since = stage.probe.mark();
    let host = stage.deployment.network.host_numbered("twin", 28)?;
    let twin = detector_on_seat(&host, &stage.deployment.config(), "1")?;
    stage.deployment.wait_status("both processes are in conflict", |status| {
        let detectors = status["seats"]["detectors"].as_array()?;
        let conflicts =
            detectors.iter().filter(|detector| detector["seat"] == 1 && detector["state"] == "conflict");
        (conflicts.count() == 2).then_some(())
    })?;
    wait_until("the conflict is in the history", SOON, || {
        let output = stage.deployment.understudy(&["events", "--json"]).ok()?;
        String::from_utf8_lossy(&output.stdout).contains("neither grants").then_some(())
    })?;
    stage.nothing_moves("two detectors on seat 1", "web-a", since, Duration::from_secs(2))?;
    twin.kill9()?;
    stage.deployment.wait_granting()?;
    stage.end()
}

#[test]
fn a_detector_beyond_the_seats_observes() -> Result<()> {
    let stage = Stage::set("seats")?;
    let since = stage.probe.mark();
    let host = stage.deployment.network.host_numbered("detector-4", 24)?;
    let _observer = detector_on_seat(&host, &stage.deployment.config(), "4")?;
    stage.deployment.wait_status("the fourth detector observes", |status| {
        let detectors = status["seats"]["detectors"].as_array()?;
        detectors
            .iter()
            .any(|detector| detector["seat"] == 0 && detector["state"] == "observing")
            .then_some(())
    })?;
    stage.nothing_moves("an observer joins", "web-a", since, Duration::from_secs(1))?;
    ensure!(stage.deployment.wait_granting().is_ok(), "the three seats go on granting");
    stage.end()
}
