//! Row 16: several actives share one standby.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::{
    deployment::{Plan, vips},
    wait_until,
};

/// How long nothing may move.
const WATCH: Duration = Duration::from_secs(2);

#[test]
fn row_16_both_actives_die_one_after_the_other() -> Result<()> {
    let stage = Stage::with("row 16", Plan { active: 2, ..Plan::new("row16") })?;
    let deployment = &stage.deployment;
    let second_vip = deployment.probe_vip(&vips(1)[0])?;
    let second = deployment.wait_status("slot 1 is held", |status| {
        Some(status["groups"][0]["slots"][1]["holder"].as_str()?.to_owned())
    })?;
    let standby = if second == "web-b" { "web-c" } else { "web-b" };
    second_vip.wait_served_by(&second, SOON)?;

    let begin = stage.probe.mark();
    stage.fails_over("first of two actives killed", standby, LEASE_AND_A_BIT, |deployment| {
        deployment.node("web-a").kill()
    })?;
    let gap = second_vip.snapshot().longest_gap(begin, second_vip.mark());
    ensure!(gap < 300.0, "the other slot had a gap of {gap:.1} ms");

    let since = stage.probe.mark();
    deployment.node(&second).kill()?;
    second_vip.wait_dark(SOON)?;
    let headline = deployment.wait_status("slot 1 is reported vacant", |status| {
        let group = &status["groups"][0];
        (group["slots"][1]["state"] == "vacant").then(|| group["headline"].as_str().map(str::to_owned))?
    })?;
    ensure!(headline.contains("slot 1 has NO HOLDER"), "the headline hides the vacancy: {headline}");
    let output = deployment.understudy(&["status"])?;
    ensure!(output.status.code() == Some(1), "status ends with {} although a slot is vacant", output.status);
    let vacancy = wait_until("the vacancy is in the history", SOON, || {
        let events = stage.events().ok()?;
        events.into_iter().find(|event| event["kind"] == "vacant" && event["data"]["slot"] == 1)
    })?;
    let reason = vacancy["data"]["reason"].as_str().context("a vacancy has a reason")?;
    ensure!(reason.contains(&format!("{standby} holds another slot")), "{reason}");
    stage.nothing_moves("second of two actives killed", standby, since, WATCH)?;
    ensure!(second_vip.serving_now().is_none(), "somebody serves the vacant slot");

    let since = stage.probe.mark();
    deployment.node("web-a").restart()?;
    let filled = second_vip.wait_served_by("web-a", SOON)?;
    deployment.wait_status("both slots are held", |status| {
        let slots = status["groups"][0]["slots"].as_array()?;
        let holders: Vec<_> = slots.iter().filter_map(|slot| slot["holder"].as_str()).collect();
        (holders == [standby, "web-a"]).then_some(())
    })?;
    deployment.node(&second).restart()?;
    deployment.wait_standbys()?;
    stage.nothing_moves("both nodes returned", standby, since, WATCH)?;
    second_vip.wait_served_by("web-a", SOON)?;
    let history = second_vip.finish();
    let others: Vec<_> =
        history.tenures().into_iter().filter(|(node, _, last)| node != "web-a" && *last > filled).collect();
    ensure!(others.is_empty(), "the filled slot moved again: {others:?}");
    let two = history.two_answering_at();
    ensure!(two.is_empty(), "two nodes answered for the second VIP: {:?}", two.first());
    stage.end()
}
