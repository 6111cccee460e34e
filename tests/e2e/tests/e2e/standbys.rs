//! Row 15: warm and cold standbys, hooks; what an earlier run left behind.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use understudy_e2e::{LEASE, SOON, Stage};
use understudy_lab::{
    Deployment, Moment,
    deployment::{Plan, VIP, VIP6, http_check},
    wait_until,
};

/// T + 100 ms at T = 300 ms, and half a second for the hooks.
const WITH_HOOKS: Duration = Duration::from_millis(900);
/// After this a hook is killed that hangs.
const HOOK_TIMEOUT: Duration = Duration::from_millis(300);
/// What a shell prints as the time: seconds since boot.
const UPTIME: &str = "$(cut -d ' ' -f 1 /proc/uptime)";

/// A plan whose hooks take a while, and at their end write what they were told, and when, into files of the network's folder, which is not known yet: so they
/// write beside the executor's state directory, which the environment of a hook inherits.
fn plan_with_hooks(name: &str, promote: &str) -> Plan {
    let hook = |step: &str| {
        format!(
            "{step} = {{ command = [\"/bin/sh\", \"-c\", \
             \"sleep 0.2; echo $UNDERSTUDY_STEP $UNDERSTUDY_SLOT $UNDERSTUDY_EPOCH $UNDERSTUDY_VIPS {UPTIME} >> \
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

/// `node` answers nobody before `ready`, which a shell printed.
fn dark_until(stage: &Stage, node: &str, ready: &str) -> Result<()> {
    let seconds: f64 = ready.parse().with_context(|| format!("{ready:?} is no time"))?;
    let ready = Moment::from_nanos((seconds * 1e9) as u64);
    let history = stage.probe.snapshot();
    let eye = history.eyes.get(node).context("every node is watched")?;
    let first = eye.iter().find(|sample| sample.node() == Some(node)).context("it served")?;
    let early = ready.since(first.sent);
    ensure!(early.is_zero(), "{node} answered {} ms before it was ready", early.as_millis());
    Ok(())
}

#[test]
fn row_15_warm_standby_is_promoted_before_it_serves_and_demoted_after() -> Result<()> {
    let mut plan = plan_with_hooks("warm", "");
    for member in &mut plan.members {
        member.standby = "warm".into();
    }
    let stage = Stage::with("warm standby", plan)?;
    let before = stage.dns_epoch()?;
    stage.fails_over("switchover with hooks", "web-b", WITH_HOOKS, |deployment| {
        Stage::switch_over(deployment, "web-b")
    })?;
    let epoch = stage.dns_epoch_above(before)?;
    let promoted = hooks_run(&stage.deployment, "web-b");
    let [promoted] = &promoted[..] else { anyhow::bail!("web-b ran {promoted:?} instead of one hook") };
    let wanted = format!("promote 0 {epoch} {VIP},{VIP6} ");
    let at = promoted.strip_prefix(&wanted);
    dark_until(
        &stage,
        "web-b",
        at.with_context(|| format!("web-b ran {promoted:?} instead of {wanted:?}"))?,
    )?;
    wait_until("web-a is demoted", SOON, || {
        hooks_run(&stage.deployment, "web-a").iter().any(|line| line.starts_with("demote 0 "))
    })?;
    stage.end()
}

/// A group that runs nowhere but on its holder. The start hook makes the file that the check wants to see, and the
/// check is not content before its third run. A second file has the times of the runs.
fn cold_plan() -> Plan {
    let shell = |script: &str| format!("[\"/bin/sh\", \"-c\", \"{script}\"]");
    let file = "$UNDERSTUDY_NODE__STATE_DIR.started";
    let group = format!(
        "[[group.web.check]]\nkind = \"exec\"\ncommand = {}\ninterval = \"100ms\"\n\
         [group.web.hooks]\nstart = {{ command = {} }}\nstop = {{ command = {} }}\n",
        shell(&format!(
            "test -f {file} && echo {UPTIME} >> {file}.runs && test $(wc -l < {file}.runs) -ge 3"
        )),
        shell(&format!("rm -f {file}.runs; touch {file}")),
        shell(&format!("rm -f {file}")),
    );
    let mut plan = Plan { group, ..Plan::new("cold") };
    for member in &mut plan.members {
        member.standby = "cold".into();
    }
    plan
}

#[test]
fn row_15_cold_standby_is_started_and_healthy_before_it_serves_and_stopped_after() -> Result<()> {
    let stage = Stage::with("cold standby", cold_plan())?;
    let file = |node: &str| stage.deployment.network.folder().join(format!("{node}-state.started"));
    let started = |node: &str| file(node).exists();
    ensure!(started("web-a") && !started("web-b"), "a cold group runs on its holder alone");
    stage.fails_over("switchover to a cold standby", "web-b", WITH_HOOKS, |deployment| {
        Stage::switch_over(deployment, "web-b")
    })?;
    ensure!(started("web-b"), "web-b serves without having been started");
    let runs = std::fs::read_to_string(file("web-b").with_extension("started.runs"))?;
    let healthy = runs.lines().nth(2).context("web-b serves although its check was never content")?;
    dark_until(&stage, "web-b", healthy)?;
    wait_until("web-a is stopped", SOON, || !started("web-a"))?;
    stage.fails_over("holder of a cold group cut off", "web-a", WITH_HOOKS, |deployment| {
        deployment.network.isolate("web-b")
    })?;
    stage.end()
}

/// The active is cut off, the next in line fails in its hook: the one after it serves, that one never.
fn next_after_failed_hook(stage: &Stage, fault: &str, bound: Duration, reason: &str) -> Result<()> {
    stage.fails_over(fault, "web-c", bound, |deployment| deployment.network.isolate("web-a"))?;
    let served = stage.probe.snapshot().last_served("web-b", stage.probe.mark());
    ensure!(served.is_none(), "web-b answered although it was never promoted");
    told_failed(stage, reason)
}

/// The history has the takeover that web-b did not get past its hook with.
fn told_failed(stage: &Stage, reason: &str) -> Result<()> {
    wait_until("the failed takeover is in the history, with its reason", SOON, || {
        let events = stage.events().ok()?;
        let mut failed = events.iter().filter(|event| event["kind"] == "takeover_failed");
        let told = failed.any(|event| {
            let data = &event["data"];
            let because = data["reason"].as_str().is_some_and(|told| told.contains(reason));
            because && data["node"] == "web-b" && data["step"] == "promote"
        });
        told.then_some(())
    })
}

#[test]
fn row_15_a_promote_hook_that_fails_gives_the_slot_to_the_next() -> Result<()> {
    // It fails on web-b only.
    let promote = "{ command = [\"/bin/sh\", \"-c\", \"test $UNDERSTUDY_NODE != web-b || { echo broken >&2; exit 3; }\"] }";
    let stage = Stage::with("hook fails", plan_with_hooks("fails", promote))?;
    next_after_failed_hook(&stage, "failover past a broken standby", WITH_HOOKS, "broken")?;
    stage.end()
}

#[test]
fn row_15_a_promote_hook_that_hangs_is_killed_and_the_next_follows() -> Result<()> {
    let promote = format!(
        "{{ command = [\"/bin/sh\", \"-c\", \"test $UNDERSTUDY_NODE != web-b || sleep 60\"], timeout = \"{}ms\" }}",
        HOOK_TIMEOUT.as_millis()
    );
    let stage = Stage::with("hook hangs", plan_with_hooks("hangs", &promote))?;
    let begin = stage.probe.mark();
    let bound = WITH_HOOKS + HOOK_TIMEOUT;
    next_after_failed_hook(&stage, "failover past a hanging standby", bound, "300")?;
    let next = stage.probe.snapshot().first_answer("web-c", begin).context("web-c serves")?;
    // The lease of the one that was cut off was renewed at most an interval before.
    let least = stage.deployment.plan.lease - stage.deployment.plan.interval + HOOK_TIMEOUT;
    let waited = next.since(begin);
    ensure!(waited > least, "the next one served after {waited:?}: it did not wait for the timeout");
    stage.end()
}

#[test]
fn a_standby_that_loses_the_slot_while_its_hook_runs_tells_that_its_takeover_failed() -> Result<()> {
    let promote = "{ command = [\"/bin/sh\", \"-c\", \"test $UNDERSTUDY_NODE != web-b || \
                   { touch $UNDERSTUDY_NODE__STATE_DIR.promoting; sleep 60; }\"], timeout = \"30s\" }";
    let stage = Stage::with("cut off in its hook", plan_with_hooks("lost", promote))?;
    let promoting = stage.deployment.network.folder().join("web-b-state.promoting");
    let bound = WITH_HOOKS + stage.deployment.plan.lease;
    stage.fails_over("cut off, and the next in its hook", "web-c", bound, |deployment| {
        deployment.network.isolate("web-a")?;
        wait_until("web-b runs its hook", SOON, || promoting.exists())?;
        deployment.network.isolate("web-b")
    })?;
    stage.deployment.network.heal("web-b")?;
    told_failed(&stage, "the lease ran out")?;
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

/// The publisher stands still while its executor hands over, and is late for its heartbeat when it goes on: what it
/// claims then must not outlive the release that lies in its socket.
#[test]
fn a_publisher_that_stood_still_tells_the_release_before_it_claims_again() -> Result<()> {
    let stage = Stage::set("SIGTERM")?;
    // A heartbeat is due by then, and the lease still runs for an interval at least.
    let still = LEASE / 3 + Duration::from_millis(10);
    stage.fails_over("executor SIGTERM, publisher still", "web-b", 2 * LEASE / 3, |deployment| {
        let node = deployment.node("web-a");
        node.heartbeat.stop()?;
        let stopped = Moment::now();
        node.executor.terminate()?;
        node.executor.wait_exit(SOON)?;
        wait_until("a heartbeat is due", SOON, || (Moment::now().since(stopped) > still).then_some(()))?;
        node.heartbeat.cont()
    })?;
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
