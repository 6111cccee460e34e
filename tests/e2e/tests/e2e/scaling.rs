//! The autoscaler: members that are started and stopped through the exec driver, a leader that dies, sizes by command.

mod troubles;

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use understudy_e2e::{LEASE, SOON, Stage};
use understudy_lab::{
    Autoscaler, Deployment, Moment, Yard, check_metrics,
    deployment::{Plan, Scaling, vips},
    wait_until,
};

/// Most nodes that serve.
const MAX: usize = 3;

/// web-a serves, web-b waits; N up to 3, M = 1.
fn plan(name: &str) -> Plan {
    let base = Plan::new(name);
    let scaling = Scaling {
        max: MAX,
        autoscalers: (1..=3).map(|number| format!("scaler-{number}")).collect(),
        one_name: true,
        rules: "start_up = \"10s\"\ndrain = \"1s\"\n[group.web.scaling.repair]\nafter = \"1s\"\n".to_owned(),
    };
    let members = base.members.iter().take(2).cloned().collect();
    let joining = (1..=4).map(|number| format!("web-{number}")).collect();
    Plan { members, scaling: Some(scaling), joining, secured: true, ..base }
}

/// The one of them that leads.
fn leader(scalers: &[Autoscaler]) -> Result<&Autoscaler> {
    wait_until("exactly one autoscaler leads", SOON, || {
        let leading: Vec<_> = scalers.iter().filter(|one| one.leads().unwrap_or(false)).collect();
        (leading.len() == 1).then(|| leading[0])
    })
}

/// What the leader says of the group now.
fn explained(deployment: &Deployment) -> Option<String> {
    let output = deployment.understudy(&["scaling", "explain", "--group", "web", "-n", "0"]).ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the name resolves to while so many slots serve.
fn addresses(serving: usize) -> Result<Vec<IpAddr>> {
    (0..serving).map(|slot| vips(slot)[0].parse().context("an address")).collect()
}

#[test]
fn a_standby_that_is_lost_is_replaced_once_though_the_leader_dies_meanwhile() -> Result<()> {
    let stage = Stage::with("a standby lost, the leader killed", plan("heal"))?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let scalers = Autoscaler::start(deployment, 2)?;
    let leader = leader(&scalers)?;

    let since = stage.probe.mark();
    fs::write(yard.folder().join("hold"), "")?;
    deployment.node("web-b").kill()?;
    wait_until("a replacement has begun", SOON, || !yard.calls("began").is_empty())?;
    leader.process.kill9()?;
    let heir = scalers.iter().find(|one| one.name() != leader.name()).context("two were started")?;
    wait_until("the other leads", SOON, || heir.leads().unwrap_or(false))?;
    fs::remove_file(yard.folder().join("hold"))?;
    let standby = yard.wait_status("a new standby is ready", |status| {
        Some(status["groups"][0]["ready_standbys"][0].as_str()?.to_owned())
    })?;
    ensure!(standby != "web-b", "web-b was dead");
    ensure!(yard.calls("made") == [format!("{standby} made")], "started: {:?}", yard.calls(""));
    let acting = wait_until("the heir has nothing left to do", SOON, || {
        let output = deployment.understudy(&["scaling", "explain", "--group", "web"]).ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("1 of 1 standbys are ready").then_some(text)
    })?;
    ensure!(acting.contains("web-b is broken"), "the history does not say why: {acting}");
    ensure!(yard.calls("made").len() == 1, "a member twice: {:?}", yard.calls(""));
    let (gap, _) = stage.gap_since(since);
    ensure!(gap < 300.0, "the slot that was not concerned had a gap of {gap:.1} ms");
    // Before the network that they are on.
    drop((scalers, yard));
    stage.end()
}

/// The first start dies with its leader and leaves half a member. Nothing is restarted in place, and yet the heir goes on
/// with this member and makes no other.
#[test]
fn a_member_that_a_dead_leader_left_half_made_is_finished_under_its_name() -> Result<()> {
    let mut plan = plan("half");
    plan.scaling.as_mut().context("the plan is scaled")?.rules += "restart = false\nbudget = 5\n";
    let stage = Stage::with("a standby lost, the leader killed, half a member left", plan)?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let scalers = Autoscaler::start(deployment, 2)?;
    let leader = leader(&scalers)?;

    let halves = yard.folder().join("halves");
    fs::write(&halves, "")?;
    deployment.node("web-b").kill()?;
    let known = yard.members()?;
    let half = wait_until("half a member is there", SOON, || {
        yard.members().ok()?.difference(&known).next().cloned()
    })?;
    wait_until("the loss is told", SOON, || {
        let output = deployment.understudy(&["scaling", "explain", "--group", "web"]).ok()?;
        String::from_utf8_lossy(&output.stdout).contains("web-b is broken").then_some(())
    })?;
    leader.process.kill9()?;
    fs::remove_file(&halves)?;
    let heir = scalers.iter().find(|one| one.name() != leader.name()).context("two were started")?;
    wait_until("the other leads", SOON, || heir.leads().unwrap_or(false))?;
    let mut seen = known;
    let standby = yard.wait_status("a new standby is ready", |status| {
        seen.extend(yard.members().ok()?);
        Some(status["groups"][0]["ready_standbys"][0].as_str()?.to_owned())
    })?;
    ensure!(standby == half, "{half} was left half made, and {standby} is ready");
    ensure!(seen.len() == 3, "for one that was lost there came two: {seen:?}");
    ensure!(yard.calls("made") == [format!("{half} made")], "started: {:?}", yard.calls(""));
    let left = heir.metric("understudy_repairs_left{group=\"web\"}")?;
    // The replacement, and that it was ordered once more.
    ensure!(left == 3.0, "{left} repairs are left of 5");
    drop((scalers, yard));
    stage.end()
}

/// The standby takes over by itself; the dead one is replaced, then removed, and nothing goes on after that.
#[test]
fn an_active_that_is_lost_is_replaced_and_removed_for_good() -> Result<()> {
    let stage = Stage::with("an active lost, with all its processes", plan("active"))?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let scaler = Autoscaler::start(deployment, 1)?.pop().context("one was started")?;
    wait_until("it leads", SOON, || scaler.leads().unwrap_or(false))?;

    deployment.node("web-a").kill()?;
    let standby = yard.wait_status("web-b holds the slot and a new standby is ready", |status| {
        let group = &status["groups"][0];
        let held = group["slots"][0]["holder"] == "web-b";
        held.then(|| Some(group["ready_standbys"][0].as_str()?.to_owned())).flatten()
    })?;
    yard.wait("web-a is removed", || (!yard.members().ok()?.contains("web-a")).then_some(()))?;
    ensure!(yard.calls("made") == [format!("{standby} made")], "started: {:?}", yard.calls(""));
    let stops = |outcome: &str| {
        let name = format!(
            "understudy_scaling_actions_total{{group=\"web\",action=\"stop\",outcome=\"{outcome}\"}}"
        );
        scaler.metric(&name)
    };
    wait_until("the removal is over", SOON, || stops("done").is_ok_and(|done| done == 1.0))?;
    ensure!(stops("failed").is_err(), "{} removals have failed", stops("failed")?);
    wait_until("nobody is left in maintenance", SOON, || {
        let output = deployment.understudy(&["maintenance", "list"]).ok()?;
        (!String::from_utf8_lossy(&output.stdout).contains("web-a")).then_some(())
    })?;
    drop((yard, scaler));
    stage.end()
}

/// Its holder withdraws the addresses while the slot drains, and has lost it when the name server hears of that.
#[test]
fn a_slot_that_is_closed_while_the_name_server_is_down_leaves_no_address_behind() -> Result<()> {
    let stage = Stage::with("N from 2 to 1, the name server down", plan("nodns"))?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let scaler = Autoscaler::start(deployment, 1)?.pop().context("one was started")?;
    wait_until("it leads", SOON, || scaler.leads().unwrap_or(false))?;
    let scale = |active: &str| {
        let output =
            deployment.understudy_as("operator", &["scale", "--group", "web", "--active", active])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };

    scale("2")?;
    yard.wait_status("two slots are held and a standby is ready", |status| {
        let group = &status["groups"][0];
        let held = group["slots"].as_array()?.iter().filter(|slot| slot["holder"].is_string()).count();
        (held == 2 && group["ready_standbys"].get(0).is_some()).then_some(())
    })?;
    let names = stage.names.as_ref().context("the plan has a name server")?;
    names.wait_for(&addresses(2)?, SOON)?;
    let server = deployment.name_server()?;
    server.process().kill9()?;
    scale("1")?;
    yard.wait_status("one slot is left, and web-a holds it", |status| {
        let slots = status["groups"][0]["slots"].as_array()?;
        (slots.len() == 1 && slots[0]["holder"] == "web-a").then_some(())
    })?;
    let end = Moment::now() + LEASE * 2;
    wait_until("the lease of the closed slot to be over", SOON, || Moment::now() >= end)?;
    server.restart()?;
    names.wait_for(&addresses(1)?, SOON)?;
    drop((scaler, yard));
    stage.end()
}

#[test]
fn n_goes_up_and_down_by_command_and_slot_0_does_not_notice() -> Result<()> {
    let stage = Stage::with("N from 1 to 3 and back by command", plan("sizes"))?;
    let deployment = &stage.deployment;
    let yard = Yard::open(deployment)?;
    let scaler = Autoscaler::start(deployment, 1)?.pop().context("one was started")?;
    wait_until("it leads", SOON, || scaler.leads().unwrap_or(false))?;
    check_metrics(&scaler.metrics()?)?;
    let second = yard.probe_vip(&vips(1)[0])?;

    let since = stage.probe.mark();
    let output = deployment.understudy_as("operator", &["scale", "--group", "web", "--active", "3"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let holders = yard.wait_status("three slots are held and a standby is ready", |status| {
        let group = &status["groups"][0];
        let held = group["slots"].as_array()?.iter();
        let held: Vec<_> = held.filter_map(|slot| slot["holder"].as_str().map(str::to_owned)).collect();
        let ready = group["ready_standbys"].as_array()?.len();
        (held.len() == MAX && ready >= 1).then_some(held)
    })?;
    ensure!(holders[0] == "web-a", "slot 0 has moved to {}", holders[0]);
    second.wait_served_by(&holders[1], SOON)?;
    let names = stage.names.as_ref().context("the plan has a name server")?;
    names.wait_for(&addresses(MAX)?, SOON)?;

    let output = deployment.understudy_as("operator", &["scale", "--group", "web", "--active", "1"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    yard.wait_status("one slot is left, and web-a holds it", |status| {
        let slots = status["groups"][0]["slots"].as_array()?;
        (slots.len() == 1 && slots[0]["holder"] == "web-a").then_some(())
    })?;
    second.wait_dark(SOON)?;
    // What is withdrawn stays so: no holder follows that would put it right.
    let end = Moment::now() + LEASE * 2;
    wait_until("the leases of the closed slots to be over", SOON, || Moment::now() >= end)?;
    names.wait_for(&addresses(1)?, SOON)?;
    ensure!(names.addresses_now() == Some(addresses(1)?), "the name has {:?}", names.addresses_now());
    let (gap, _) = stage.gap_since(since);
    stage.note("N from 1 to 3 and back", gap, 0.0, Some(Duration::from_millis(300)));
    ensure!(gap < 300.0, "slot 0 had a gap of {gap:.1} ms");
    let two = second.finish().two_answering_at();
    ensure!(two.is_empty(), "two nodes answered for the second VIP: {:?}", two.first());

    let output = deployment.understudy_as("operator", &["scale", "--group", "web", "--active", "4"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("from 1 to 3"), "4 of 3 was not refused: {said}");
    drop((scaler, yard));
    stage.end()
}
