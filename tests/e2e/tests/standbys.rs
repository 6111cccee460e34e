//! Warm and cold standbys, hooks, what an earlier run left behind, IPv6.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use understudy_e2e::{SOON, Stage};
use understudy_lab::{
    Deployment,
    deployment::{Plan, VIP, VIP6, http_check},
    wait_until,
};

/// T + 100 ms at T = 300 ms, and half a second for the hooks.
const WITH_HOOKS: Duration = Duration::from_millis(900);

/// A plan whose hooks write what they were told into files of the network's folder, which is not known yet: so they
/// write beside the executor's state directory, which the environment of a hook inherits.
fn plan_with_hooks(name: &str, promote: &str) -> Plan {
    let hook = |step: &str| {
        format!(
            "{step} = {{ command = [\"/bin/sh\", \"-c\", \
             \"echo $UNDERSTUDY_STEP $UNDERSTUDY_SLOT $UNDERSTUDY_EPOCH $UNDERSTUDY_VIPS >> \
             $UNDERSTUDY_NODE__STATE_DIR.hooks\"], timeout = \"2s\" }}\n"
        )
    };
    let promote = if promote.is_empty() { hook("promote") } else { format!("promote = {promote}\n") };
    let hooks = format!("[group.web.hooks]\n{promote}{}", hook("demote"));
    Plan { group: format!("{}{hooks}", http_check()), ..Plan::new(name) }
}

fn hooks_run(deployment: &Deployment, node: &str) -> Vec<String> {
    let file = deployment.network.folder().join(format!("{node}-state.hooks"));
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn warm_standby_is_promoted_before_it_serves_and_demoted_after() -> Result<()> {
    let mut plan = plan_with_hooks("warm", "");
    for member in &mut plan.members {
        member.standby = "warm".into();
    }
    let stage = Stage::with("warm standby", plan)?;
    let before = stage.dns_epoch()?;
    stage.fails_over("switchover with hooks", "web-b", WITH_HOOKS, |deployment| {
        let output = deployment.understudy(&["switchover", "--group", "web", "--to", "web-b"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })?;
    let epoch = stage.dns_epoch_above(before)?;
    let promoted = hooks_run(&stage.deployment, "web-b");
    let wanted = format!("promote 0 {epoch} {VIP},{VIP6}");
    ensure!(promoted == [wanted.clone()], "web-b ran {promoted:?} instead of {wanted:?}");
    wait_until("web-a is demoted", SOON, || {
        hooks_run(&stage.deployment, "web-a").iter().any(|line| line.starts_with("demote 0 "))
    })?;
    stage.end()
}

/// A group that runs nowhere but on its holder: the start hook makes the file that the check wants to see.
fn cold_plan() -> Plan {
    let shell = |script: &str| format!("[\"/bin/sh\", \"-c\", \"{script}\"]");
    let file = "$UNDERSTUDY_NODE__STATE_DIR.started";
    let group = format!(
        "[[group.web.check]]\nkind = \"exec\"\ncommand = {}\ninterval = \"100ms\"\n\
         [group.web.hooks]\nstart = {{ command = {} }}\nstop = {{ command = {} }}\n",
        shell(&format!("test -f {file}")),
        shell(&format!("touch {file}")),
        shell(&format!("rm -f {file}")),
    );
    let mut plan = Plan { group, ..Plan::new("cold") };
    for member in &mut plan.members {
        member.standby = "cold".into();
    }
    plan
}

#[test]
fn cold_standby_is_started_and_healthy_before_it_serves_and_stopped_after() -> Result<()> {
    let stage = Stage::with("cold standby", cold_plan())?;
    let started =
        |node: &str| stage.deployment.network.folder().join(format!("{node}-state.started")).exists();
    ensure!(started("web-a") && !started("web-b"), "a cold group runs on its holder alone");
    stage.fails_over("switchover to a cold standby", "web-b", WITH_HOOKS, |deployment| {
        let output = deployment.understudy(&["switchover", "--group", "web", "--to", "web-b"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })?;
    ensure!(started("web-b"), "web-b serves without having been started");
    wait_until("web-a is stopped", SOON, || !started("web-a"))?;
    stage.fails_over("holder of a cold group cut off", "web-a", WITH_HOOKS, |deployment| {
        deployment.network.isolate("web-b")
    })?;
    stage.end()
}

#[test]
fn a_promote_hook_that_fails_gives_the_slot_to_the_next() -> Result<()> {
    // It fails on web-b only.
    let promote = "{ command = [\"/bin/sh\", \"-c\", \"test $UNDERSTUDY_NODE != web-b || { echo broken >&2; exit 3; }\"] }";
    let stage = Stage::with("hook fails", plan_with_hooks("fails", promote))?;
    stage.fails_over("failover past a broken standby", "web-c", WITH_HOOKS, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    wait_until("the failed takeover is in the history, with its reason", SOON, || {
        let output = stage.deployment.understudy(&["events", "--json"]).ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text.contains("takeover_failed") && text.contains("broken")).then_some(())
    })?;
    stage.end()
}

#[test]
fn a_promote_hook_that_hangs_is_killed_and_the_next_follows() -> Result<()> {
    let promote = "{ command = [\"/bin/sh\", \"-c\", \"test $UNDERSTUDY_NODE != web-b || sleep 60\"], timeout = \"300ms\" }";
    let stage = Stage::with("hook hangs", plan_with_hooks("hangs", promote))?;
    stage.fails_over(
        "failover past a hanging standby",
        "web-c",
        Duration::from_millis(1_500),
        |deployment| deployment.network.isolate("web-a"),
    )?;
    stage.end()
}

#[test]
fn what_a_killed_executor_left_behind_is_cleaned_up() -> Result<()> {
    let stage = Stage::with("leftovers", plan_with_hooks("left", ""))?;
    stage.fails_over("executor kill -9", "web-b", WITH_HOOKS, |deployment| {
        deployment.node("web-a").executor.kill9()
    })?;
    let node = stage.deployment.node("web-a");
    let addresses = || node.host.run("ip", ["-br", "address", "show", "dev", "eth0"]);
    ensure!(addresses()?.contains(VIP), "a killed executor cannot remove the address: {}", addresses()?);
    let tables = node.host.run("nft", ["list", "tables"])?;
    ensure!(tables.contains("fence"), "the fence is gone with the executor: {tables}");
    node.executor.restart()?;
    stage.deployment.wait_standbys()?;
    ensure!(!addresses()?.contains(VIP), "the address was left: {}", addresses()?);
    wait_until("what was promoted is demoted", SOON, || {
        hooks_run(&stage.deployment, "web-a").iter().any(|line| line.starts_with("demote 0 "))
    })?;
    stage.end()
}

#[test]
fn terminated_executor_hands_over() -> Result<()> {
    let stage = Stage::set("SIGTERM")?;
    stage.fails_over("executor SIGTERM", "web-b", Duration::from_millis(100), |deployment| {
        deployment.node("web-a").executor.terminate()
    })?;
    let status = stage.deployment.node("web-a").executor.wait_exit(SOON)?;
    ensure!(status.success(), "the executor ended with {status}");
    stage.end()
}

#[test]
fn ipv6_vip_moves_as_well() -> Result<()> {
    let stage = Stage::set("IPv6")?;
    let probe = stage.deployment.probe_vip(VIP6)?;
    probe.wait_served_by("web-a", SOON)?;
    let before = probe.mark();
    stage.deployment.network.isolate("web-a")?;
    probe.wait_served_by("web-b", SOON)?;
    let history = probe.snapshot();
    let gap = history.longest_gap(before, probe.mark());
    stage.note("active cut off the network, IPv6", gap, 0.0, Some(Duration::from_millis(400)));
    ensure!(gap <= 400.0, "the client's gap was {gap:.1} ms");
    ensure!(history.two_answering_at().is_empty(), "two nodes answered for the IPv6 VIP");
    stage.end()
}

#[test]
fn dry_run_prints_both_plans_and_touches_nothing() -> Result<()> {
    let stage = Stage::with("dry run", plan_with_hooks("dry", ""))?;
    let host = &stage.deployment.node("web-b").host;
    let mut command = host.command(understudy_lab::binary("understudy-executor")?)?;
    let output = command
        .arg("--dry-run")
        .arg("--config")
        .arg(stage.deployment.config())
        .envs([
            ("UNDERSTUDY_NODE__NAME", "web-b"),
            ("UNDERSTUDY_NODE__GROUP", "web"),
            ("UNDERSTUDY_NODE__INTERFACE", "eth0"),
        ])
        .env("UNDERSTUDY_NODE__STATE_DIR", Path::new("/nonexistent"))
        .output()
        .context("running the executor")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let steps: Vec<_> =
        text.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    let wanted = [
        "slot 0:",
        "promote: /bin/sh",
        "add address",
        "add address",
        "open gate",
        "announce 10.77.0.100",
        "announce fd77::100",
        "DNS web.ha.test.",
        "verify 10.77.0.100",
        "verify fd77::100",
        "= no",
        "slot 0:",
        "shut gate",
        "release",
        "remove address",
        "remove address",
        "demote: /bin/sh",
        "= no",
    ];
    ensure!(steps == wanted, "unexpected plan:\n{text}");
    stage.end()
}
