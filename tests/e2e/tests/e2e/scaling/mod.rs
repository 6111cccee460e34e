//! The autoscaler: members that are started and stopped through the exec driver, a leader that dies, sizes by command.

mod troubles;

use std::{cell::RefCell, collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use understudy_e2e::{SOON, Stage};
use understudy_lab::{
    Deployment, Launch, Process, binary, check_metrics,
    deployment::{Member, Node, Plan, vips},
    wait_until,
};

/// Pages of an autoscaler.
const PAGES: u16 = 9103;
/// Most nodes that serve.
const MAX: usize = 3;

/// What the exec driver's files stand for.
struct Yard<'a> {
    deployment: &'a Deployment,
    folder: TempDir,
    started: RefCell<BTreeMap<String, Node>>,
}

impl Yard<'_> {
    /// Every member that the driver should list.
    fn wanted(&self) -> Result<Vec<String>> {
        let files = fs::read_dir(self.folder.path().join("members"))?;
        files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Starts members that are new, kills those that are gone.
    fn tend(&self) -> Result<()> {
        let (wanted, mut started) = (self.wanted()?, self.started.borrow_mut());
        for name in &wanted {
            let there = started.contains_key(name)
                || self.deployment.nodes.iter().any(|node| node.host.name() == name);
            if !there {
                let number = u8::try_from(60 + started.len())?;
                started.insert(name.clone(), self.deployment.join(&Member::hot(name, 50), number)?);
            }
        }
        let all = self.deployment.nodes.iter().chain(started.values());
        for node in all.filter(|node| !wanted.iter().any(|name| name == node.host.name())) {
            for process in node.processes().into_iter().filter(|process| process.is_running()) {
                process.kill9()?;
            }
        }
        Ok(())
    }

    /// Waits for a status while members come and go.
    fn wait_status<T>(
        &self,
        what: &str,
        mut wanted: impl FnMut(&serde_json::Value) -> Option<T>,
    ) -> Result<T> {
        self.deployment.wait_status(what, |status| {
            self.tend().ok()?;
            wanted(status)
        })
    }

    /// Lines of the driver's record of starts.
    fn calls(&self, word: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        let ends = |line: &&str| line.ends_with(word);
        text.lines().filter(ends).map(str::to_owned).collect()
    }
}

/// web-a serves, web-b waits; N up to 3, M = 1, an exec driver that can start and remove.
fn plan(name: &str) -> Result<(Plan, TempDir)> {
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("members"))?;
    for node in ["web-a", "web-b"] {
        fs::write(folder.path().join("members").join(node), "")?;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/scaling/member.sh");
    let command = format!("[\"/bin/sh\", {script:?}, {:?}]", folder.path().display().to_string());
    let more = format!(
        "[autoscaler]\ninterval = \"1s\"\ngroup = \"web-scaler\"\n\
         [group.web-scaler]\nactive = 1\nstandby = 1\nmembers = [\"scaler-1\", \"scaler-2\", \"scaler-3\"]\n\
         [group.web.scaling]\nmin = 1\nmax = {MAX}\nstart_up = \"10s\"\ndrain = \"1s\"\n\
         [group.web.scaling.repair]\nafter = \"1s\"\n\
         [group.web.scaling.template]\ndriver = \"exec\"\ntimeout = \"20s\"\n\
         list = {command}\nstart = {command}\nremove = {command}\n"
    );
    let base = Plan::new(name);
    let members = base.members.iter().take(2).cloned().collect();
    let joining = (1..=4).map(|number| format!("web-{number}")).collect();
    Ok((Plan { members, slots: Some(MAX), joining, more, secured: true, ..base }, folder))
}

/// The one of them that leads.
fn leader(scalers: &[Process]) -> Result<&Process> {
    wait_until("exactly one autoscaler leads", SOON, || {
        let leading: Vec<_> = scalers.iter().filter(|one| leads(one).unwrap_or(false)).collect();
        (leading.len() == 1).then(|| leading[0])
    })
}

/// What the leader says of the group now.
fn explained(deployment: &Deployment) -> Option<String> {
    let output = deployment.understudy(&["scaling", "explain", "--group", "web", "-n", "0"]).ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts an autoscaler on a host of its own.
fn autoscaler(deployment: &Deployment, name: &str, number: u8) -> Result<Process> {
    autoscaler_with(deployment, name, number, &[])
}

fn autoscaler_with(deployment: &Deployment, name: &str, number: u8, arguments: &[&str]) -> Result<Process> {
    let host = deployment.network.host_numbered(name, number)?;
    let launch = Launch::new(&host, name, binary("understudy-autoscaler")?).arguments(arguments);
    deployment
        .give(launch, &format!("autoscaler.web-scaler.{name}"))
        .environment("UNDERSTUDY_CONFIG", deployment.config())
        .environment("UNDERSTUDY_NODE__NAME", name)
        .environment("UNDERSTUDY_NODE__GROUP", "web-scaler")
        .environment("UNDERSTUDY_HTTP__LISTEN", format!("127.0.0.1:{PAGES}"))
        .spawn()
}

fn leads(autoscaler: &Process) -> Result<bool> {
    Ok(metric_on_loopback(autoscaler, "understudy_leading")? > 0.5)
}

fn metric_on_loopback(service: &Process, name: &str) -> Result<f64> {
    let page = metrics(service)?;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.with_context(|| format!("{} shows no {name}", service.name()))?.parse().context("a number")
}

fn metrics(service: &Process) -> Result<String> {
    Ok(understudy_lab::fetch(service.host(), ([127, 0, 0, 1], PAGES).into(), "/metrics", SOON)?.body)
}

#[test]
fn a_standby_that_is_lost_is_replaced_once_though_the_leader_dies_meanwhile() -> Result<()> {
    let (plan, folder) = plan("heal")?;
    let stage = Stage::with("a standby lost, the leader killed", plan)?;
    let deployment = &stage.deployment;
    let yard = Yard { deployment, folder, started: RefCell::default() };
    let scalers = [autoscaler(deployment, "scaler-1", 51)?, autoscaler(deployment, "scaler-2", 52)?];
    let leader = leader(&scalers)?;

    let since = stage.probe.mark();
    fs::write(yard.folder.path().join("hold"), "")?;
    deployment.node("web-b").kill()?;
    wait_until("a replacement has begun", SOON, || !yard.calls("began").is_empty())?;
    leader.kill9()?;
    let heir = scalers.iter().find(|one| one.name() != leader.name()).context("two were started")?;
    wait_until("the other leads", SOON, || leads(heir).unwrap_or(false))?;
    fs::remove_file(yard.folder.path().join("hold"))?;
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

/// The standby takes over by itself; the dead one is replaced, then removed, and nothing goes on after that.
#[test]
fn an_active_that_is_lost_is_replaced_and_removed_for_good() -> Result<()> {
    let (plan, folder) = plan("active")?;
    let stage = Stage::with("an active lost, with all its processes", plan)?;
    let deployment = &stage.deployment;
    let yard = Yard { deployment, folder, started: RefCell::default() };
    let scaler = autoscaler(deployment, "scaler-1", 51)?;
    wait_until("it leads", SOON, || leads(&scaler).unwrap_or(false))?;

    deployment.node("web-a").kill()?;
    let standby = yard.wait_status("web-b holds the slot and a new standby is ready", |status| {
        let group = &status["groups"][0];
        let held = group["slots"][0]["holder"] == "web-b";
        held.then(|| Some(group["ready_standbys"][0].as_str()?.to_owned())).flatten()
    })?;
    wait_until("web-a is removed", SOON * 2, || {
        yard.tend().ok()?;
        (!yard.wanted().ok()?.iter().any(|name| name == "web-a")).then_some(())
    })?;
    ensure!(yard.calls("made") == [format!("{standby} made")], "started: {:?}", yard.calls(""));
    let stops = |outcome: &str| {
        let name = format!(
            "understudy_scaling_actions_total{{group=\"web\",action=\"stop\",outcome=\"{outcome}\"}}"
        );
        metric_on_loopback(&scaler, &name)
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

#[test]
fn n_goes_up_and_down_by_command_and_slot_0_does_not_notice() -> Result<()> {
    let (plan, folder) = plan("sizes")?;
    let stage = Stage::with("N from 1 to 3 and back by command", plan)?;
    let deployment = &stage.deployment;
    let yard = Yard { deployment, folder, started: RefCell::default() };
    let scaler = autoscaler(deployment, "scaler-1", 51)?;
    wait_until("it leads", SOON, || leads(&scaler).unwrap_or(false))?;
    check_metrics(&metrics(&scaler)?)?;
    let second = deployment.probe_vip(&vips(1)[0])?;

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

    let output = deployment.understudy_as("operator", &["scale", "--group", "web", "--active", "1"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    yard.wait_status("one slot is left, and web-a holds it", |status| {
        let slots = status["groups"][0]["slots"].as_array()?;
        (slots.len() == 1 && slots[0]["holder"] == "web-a").then_some(())
    })?;
    second.wait_dark(SOON)?;
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
