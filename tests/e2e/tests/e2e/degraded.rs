//! Row 27: the environment lacks something. The services say so, go on with what is left, and refuse what is no
//! longer safe.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::{
    Launch, Process,
    deployment::{DETECTOR_PAGES, EXECUTOR_PAGES, HEARTBEAT_PAGES, Plan, VIP},
    fetch, wait_until,
};

/// Room on the small disks, for a program that has nothing else.
const SMALL: &str = "64k";

/// Starts a service in a mount namespace of its own, after a shell has prepared it; the service is `"$0" "$@"`.
fn prepared(launch: Launch, script: &str) -> Launch {
    launch.through("unshare", ["--mount", "sh", "-ec", script])
}

/// Its disk (`folder`) is full: of a file as large as there is room.
fn on_full_disk(launch: Launch, folder: &str, then: &str) -> Launch {
    let fill = format!("cat /dev/zero > '{folder}/fill' 2>&- || true");
    prepared(launch, &format!("mount -t tmpfs -o size={SMALL} full '{folder}'; {fill}; {then}"))
}

/// The state folder of a node, made if it is not there yet.
fn state_folder(stage: &Stage, node: &str) -> Result<String> {
    let host = &stage.deployment.node(node).host;
    let folder = host.folder().join(format!("{node}-state"));
    std::fs::create_dir_all(&folder)?;
    Ok(folder.display().to_string())
}

/// Waits until a node of which a service was started anew is a ready standby again.
fn is_back(stage: &Stage, node: &str) -> Result<()> {
    let host = &stage.deployment.node(node).host;
    // In this order: a publisher that speaks shows that its executor has noticed the end of the one before.
    for pages in [HEARTBEAT_PAGES, EXECUTOR_PAGES] {
        wait_until(&format!("{node} is ready on port {pages}"), SOON, || {
            let page = fetch(&stage.deployment.client, host.socket(pages), "/readyz", SOON);
            page.is_ok_and(|page| page.status == 200)
        })?;
    }
    stage.deployment.wait_standbys()
}

fn switchover(stage: &Stage, to: &str) -> Result<()> {
    let output = stage.deployment.understudy(&["switchover", "--group", "web", "--to", to])?;
    ensure!(output.status.success(), "switchover to {to}: {}", String::from_utf8_lossy(&output.stderr));
    stage.probe.wait_served_by(to, SOON).map(drop)
}

fn says(process: &Process, words: &[&str]) -> Result<()> {
    let said = || process.log_text().lines().any(|line| words.iter().all(|word| line.contains(word)));
    wait_until(&format!("{} to say {words:?}", process.name()), SOON, said)
}

#[test]
fn row_27_disk_of_the_executor_full() -> Result<()> {
    let stage = Stage::set("row 27")?;
    let folder = state_folder(&stage, "web-b")?;
    let executor = &stage.deployment.node("web-b").executor;
    executor.restart_as(|launch| Ok(on_full_disk(launch, &folder, "exec \"$0\" \"$@\"")))?;
    is_back(&stage, "web-b")?;
    stage.fails_over("active cut off, disk of the standby full", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    switchover(&stage, "web-c")?;
    says(executor, &["durations of steps are not kept", "steps.json", "No space left on device"])?;
    // And goes on.
    switchover(&stage, "web-b")?;
    stage.end()
}

#[test]
fn row_27_disk_of_the_logs_full() -> Result<()> {
    let stage = Stage::set("row 27")?;
    let folder = state_folder(&stage, "web-b")?;
    let node = stage.deployment.node("web-b");
    for service in node.services() {
        let log = format!("exec \"$0\" \"$@\" 2> '{folder}/log'");
        service.restart_as(|launch| Ok(on_full_disk(launch, &folder, &log)))?;
        let disk = format!("/proc/{}/root{folder}", service.pid());
        wait_until("the service has its log on a full disk", SOON, || {
            let target = std::fs::read_link(format!("/proc/{}/fd/2", service.pid()));
            let fill = std::fs::metadata(format!("{disk}/fill"));
            target.is_ok_and(|target| target.ends_with("log")) && fill.is_ok_and(|fill| fill.len() > 0)
        })?;
    }
    is_back(&stage, "web-b")?;
    let pids = node.services().map(Process::pid);
    stage.fails_over(
        "active cut off, log of the standby on a full disk",
        "web-b",
        LEASE_AND_A_BIT,
        |deployment| deployment.network.isolate("web-a"),
    )?;
    switchover(&stage, "web-c")?;
    switchover(&stage, "web-b")?;
    // What both had to say in all this was lost, and they were not.
    for (service, pid) in node.services().into_iter().zip(pids) {
        let log = std::fs::metadata(format!("/proc/{pid}/root{folder}/log"))?;
        ensure!(log.len() == 0, "there was room for {} bytes of a log", log.len());
        ensure!(service.is_running(), "{} ended", service.name());
    }
    stage.end()
}

/// Gray failure: the workload runs and answers, but its disk is full. A check that writes finds out.
#[test]
fn row_27_disk_of_the_workload_full() -> Result<()> {
    // Outlives the deployment, whose checks write to it.
    let folder = tempfile::tempdir()?;
    let disk = folder.path().display().to_string();
    // Nothing is removed again: what fills the disk fills it for good.
    let write = format!("head -c 4096 /dev/zero > \"$(mktemp -p '{disk}')\"");
    let check = format!(
        "[[group.web.check]]\nname = \"disk\"\nkind = \"exec\"\ncommand = [\"sh\", \"-ec\", {write:?}]\n\
         interval = \"200ms\"\nfall = 2\nrise = 2\n"
    );
    let stage = Stage::with("row 27", Plan { group: check, ..Plan::new("e2e") })?;
    let heartbeat = &stage.deployment.node("web-b").heartbeat;
    let script = format!("mount -t tmpfs -o size=8m data '{disk}'; exec \"$0\" \"$@\"");
    heartbeat.restart_as(|launch| Ok(prepared(launch, &script)))?;
    is_back(&stage, "web-b")?;
    switchover(&stage, "web-b")?;
    // Longer than who gave the slot up comes last for it (2 T).
    let begin = stage.probe.mark();
    stage.nothing_moves("disk of the workload fills", "web-b", begin, Duration::from_secs(1))?;
    // Two failures, each an interval and at most its timeout apart, and 100 ms.
    let bound = Duration::from_millis(2 * (200 + 200) + 100);
    stage.fails_over("disk of the workload full", "web-a", bound, |deployment| {
        let pid = heartbeat.pid().to_string();
        let fill = format!("cat /dev/zero > '{disk}/fill' 2>&- || true");
        deployment.client.run("nsenter", ["-t", &pid, "-m", "sh", "-c", &fill]).map(drop)
    })?;
    stage.deployment.wait_status("web-b is unhealthy for its disk", |status| {
        let nodes = status["groups"][0]["nodes"].as_array()?;
        let node = nodes.iter().find(|node| node["node"] == "web-b")?;
        (node["health"] == "unhealthy" && node["reason"].as_str()?.contains("disk")).then_some(())
    })?;
    stage.end()
}

#[test]
fn row_27_pressure_figures_missing() -> Result<()> {
    let stage = Stage::set("row 27")?;
    let heartbeat = &stage.deployment.node("web-b").heartbeat;
    let script = "test -d /proc/pressure && mount -t tmpfs none /proc/pressure; exec \"$0\" \"$@\"";
    heartbeat.restart_as(|launch| Ok(prepared(launch, script)))?;
    for resource in ["cpu", "memory", "io"] {
        says(heartbeat, &["no load figures from here", &format!("/proc/pressure/{resource}")])?;
    }
    let other = stage.deployment.node("web-c").heartbeat.log_text();
    ensure!(!other.contains("/proc/pressure"), "a host with pressure figures misses them: {other}");
    is_back(&stage, "web-b")?;
    stage.fails_over(
        "active cut off, standby without pressure figures",
        "web-b",
        LEASE_AND_A_BIT,
        |deployment| deployment.network.isolate("web-a"),
    )?;
    stage.end()
}

#[test]
fn row_27_no_real_time_scheduling() -> Result<()> {
    let stage = Stage::set("row 27")?;
    let deployment = &stage.deployment;
    let node = deployment.node("web-b");
    let limited = [
        (&deployment.detectors[0], DETECTOR_PAGES),
        (&node.heartbeat, HEARTBEAT_PAGES),
        (&node.executor, EXECUTOR_PAGES),
    ];
    for (service, _) in limited {
        let without = ["--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"];
        service.restart_as(|launch| Ok(launch.through("setpriv", without)))?;
    }
    deployment.wait_granting()?;
    is_back(&stage, "web-b")?;
    for (service, pages) in limited {
        says(service, &["no realtime scheduling", "grant CAP_SYS_NICE"])?;
        let page = fetch(&deployment.client, service.host().socket(pages), "/readyz", SOON)?;
        let told = page.body.contains("limited: no realtime scheduling");
        ensure!(page.status == 200 && told, "{}: {page:?}", service.name());
    }
    let other =
        fetch(&deployment.client, deployment.node("web-c").host.socket(EXECUTOR_PAGES), "/readyz", SOON)?;
    ensure!(!other.body.contains("no realtime scheduling"), "one that may has no limit: {other:?}");
    stage.fails_over("active cut off, no real-time scheduling", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    stage.end()
}

/// Elsewhere who may not announce takes over all the same, and nobody is told where the address is.
#[test]
fn row_27_a_node_that_may_not_announce_is_not_chosen() -> Result<()> {
    let stage = Stage::set("row 27")?;
    let executor = &stage.deployment.node("web-b").executor;
    let without = ["--bounding-set", "-net_raw", "--inh-caps", "-net_raw"];
    executor.restart_as(|launch| Ok(launch.through("setpriv", without)))?;
    says(executor, &["opening an announcer on eth0", "Operation not permitted"])?;
    let status = executor.wait_exit(SOON)?;
    ensure!(status.code() == Some(69), "it ended with {status}");
    stage.wait_only_standby("web-c")?;
    stage.fails_over(
        "active cut off, first in line may not announce",
        "web-c",
        LEASE_AND_A_BIT,
        |deployment| deployment.network.isolate("web-a"),
    )?;
    stage.end()
}

/// Starts the executor of a node anew on a kernel without nftables, where no earlier run can have left a fence.
fn without_nftables(stage: &Stage, node: &str) -> Result<()> {
    let node = stage.deployment.node(node);
    node.executor.kill9()?;
    node.host.run("nft", ["flush", "ruleset"])?;
    node.executor.restart_as(Launch::without_nftables)
}

fn has_vip(stage: &Stage, node: &str) -> Result<bool> {
    let shown = stage.deployment.node(node).host.run("ip", ["-4", "address", "show", "to", VIP])?;
    Ok(shown.contains(VIP))
}

/// T at which address lifetimes can enforce a lease.
const LONG: Duration = Duration::from_secs(3);

/// web-b serves without a gate, held by nothing but the lifetime of its addresses.
fn ungated() -> Result<Stage> {
    let stage = Stage::with("row 27", Plan { lease: LONG, ..Plan::new("e2e") })?;
    without_nftables(&stage, "web-b")?;
    is_back(&stage, "web-b")?;
    let executor = &stage.deployment.node("web-b").executor;
    says(executor, &["no gate: only the lifetime of addresses ends a lost lease", "nftables is missing"])?;
    let pages = executor.host().socket(EXECUTOR_PAGES);
    let page = fetch(&stage.deployment.client, pages, "/readyz", SOON)?;
    ensure!(page.status == 200 && page.body.contains("limited: no nftables"), "{page:?}");
    switchover(&stage, "web-b")?;
    let begin = stage.probe.mark();
    // Longer than any lifetime that it has: the renewals reach the kernel.
    stage.nothing_moves("without nftables", "web-b", begin, 2 * LONG)?;
    Ok(stage)
}

#[test]
fn row_27_without_nftables_a_stopped_executor_loses_the_address_in_time() -> Result<()> {
    let stage = ungated()?;
    let executor = &stage.deployment.node("web-b").executor;
    let bound = LONG + Duration::from_millis(100);
    stage.fails_over("executor SIGSTOP without nftables", "web-a", bound, |_| executor.stop())?;
    // The kernel took it: the executor still stands.
    ensure!(!has_vip(&stage, "web-b")?, "the address outlived the lease");
    let resumed = stage.probe.mark();
    executor.cont()?;
    stage.nothing_moves("executor SIGCONT without nftables", "web-a", resumed, LONG)?;
    let history = stage.probe.snapshot();
    let served = history.last_served("web-b", stage.probe.mark()).context("web-b served before")?;
    ensure!(served < resumed, "the old holder answered again after SIGCONT");
    stage.end()
}

#[test]
fn row_27_without_nftables_a_killed_executor_leaves_no_address_behind() -> Result<()> {
    let stage = ungated()?;
    let bound = LONG + Duration::from_millis(100);
    stage.fails_over("executor kill -9 without nftables", "web-a", bound, |deployment| {
        deployment.node("web-b").executor.kill9()
    })?;
    ensure!(!has_vip(&stage, "web-b")?, "the address outlived the lease");
    stage.end()
}

/// The executor ends with EX_UNAVAILABLE and the reason, and the group goes on without it.
fn is_refused(stage: &Stage, reason: &str) -> Result<()> {
    let since = stage.probe.mark();
    without_nftables(stage, "web-c")?;
    let executor = &stage.deployment.node("web-c").executor;
    let status = executor.wait_exit(SOON)?;
    ensure!(status.code() == Some(69), "it ended with {status}");
    says(executor, &["without nftables", reason])?;
    stage.nothing_moves("executor of a standby refused", "web-a", since, Duration::from_secs(1))
}

#[test]
fn row_27_without_nftables_a_short_lease_is_refused() -> Result<()> {
    let stage = Stage::set("row 27")?;
    is_refused(&stage, "lease.duration = 300ms must be at least 2.245s")?;
    stage.end()
}

#[test]
fn row_27_without_nftables_a_group_without_vip_is_refused() -> Result<()> {
    let stage = Stage::with("row 27", Plan { lease: LONG, vip: false, ..Plan::new("e2e") })?;
    // What nothing guards must not run, which is the very reason for the refusal.
    stage.deployment.node("web-c").workload.kill9()?;
    is_refused(&stage, "a slot without VIP is refused here")?;
    stage.end()
}
