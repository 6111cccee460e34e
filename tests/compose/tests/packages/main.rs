//! The Debian packages of `target/debian` on a machine with systemd, which is a container: installed, run, upgraded,
//! removed. `scripts/package-tests` makes the packages and the machine's image.

mod machine;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use machine::Machine;
use understudy_lab::wait_until;

const SOON: Duration = Duration::from_secs(30);
/// WatchdogSec of the units, and time to end and start again.
const WATCHDOG: Duration = Duration::from_secs(25);
const PACKAGES: [&str; 5] = [
    "understudy",
    "understudy-autoscaler",
    "understudy-detector",
    "understudy-executor",
    "understudy-heartbeat",
];
/// What is started; a detector's seat is its instance.
const UNITS: [&str; 4] =
    ["understudy-autoscaler", "understudy-detector@1", "understudy-executor", "understudy-heartbeat"];

/// For all services of one host, whose name and interface are in its environment.
const CONFIG: &str = r#"
cluster = "packages"
nats.servers = ["nats://127.0.0.1:4222"]
[access]
insecure = true
[autoscaler]
group = "web-scaler"
[group.web-scaler]
members = ["host"]
[group.web]
[[group.web.slot]]
vips = ["192.0.2.100/24"]
[group.web.scaling]
min = 1
max = 1
[group.web.scaling.template]
driver = "exec"
list = ["/bin/echo", "[]"]
start = ["/bin/false"]
remove = ["/bin/false"]
"#;

/// What systemd-sysusers leaves beside a user, which stays when the packages go.
const OF_THE_USER: [&str; 5] =
    ["/etc/.pwd.lock", "/etc/group-", "/etc/gshadow-", "/etc/passwd-", "/etc/shadow-"];

/// Every file of the machine that is not in memory, not dpkg's own and no log.
fn files(machine: &Machine) -> Result<BTreeSet<String>> {
    let list = machine.shell(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /packages \
         -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \\) -prune -o -print",
    )?;
    Ok(list.lines().filter(|file| !OF_THE_USER.contains(file)).map(str::to_owned).collect())
}

fn installs(machine: &Machine) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debian");
    let mut packed = BTreeSet::new();
    for file in fs::read_dir(&folder).context("no packages: scripts/packages makes them")? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        packed.insert(name.split('_').next().unwrap_or_default().to_owned());
        machine.take(&path, "/packages")?;
    }
    ensure!(packed.iter().eq(PACKAGES.iter()), "target/debian has {packed:?}");
    machine.shell("dpkg -i /packages/*.deb")?;
    Ok(())
}

/// Nothing runs before somebody wants it, and all of it is there.
fn is_installed(machine: &Machine) -> Result<()> {
    let enabled = machine.shell("systemctl list-unit-files --no-legend 'understudy*'")?;
    ensure!(enabled.lines().count() == UNITS.len(), "units: {enabled}");
    ensure!(enabled.lines().all(|line| line.contains(" disabled ")), "enabled by itself: {enabled}");
    let running = machine.shell("systemctl list-units --no-legend 'understudy*'")?;
    ensure!(running.is_empty(), "started by itself: {running}");
    let user = machine.shell("getent passwd understudy")?;
    ensure!(user.contains("nologin") && user.contains(":/var/lib/understudy:"), "the user is {user}");
    let said = machine.shell("systemd-analyze verify /usr/lib/systemd/system/understudy-*.service 2>&1")?;
    ensure!(said.is_empty(), "systemd complains: {said}");
    let said = machine.shell("understudy validate /etc/understudy/understudy.toml")?;
    ensure!(said.trim().ends_with("good"), "the sample is {said}");
    let mode = machine.shell("stat -c '%U %G %a' /etc/default/understudy")?;
    ensure!(mode.trim() == "root root 640", "others may read the environment: {mode}");
    machine
        .shell("bash -c '. /usr/share/bash-completion/completions/understudy && complete -p understudy'")
        .map(drop)
}

/// Every service says that it has started, and has what its unit grants, and no more.
fn runs(machine: &Machine) -> Result<()> {
    machine.write("/etc/understudy/understudy.toml", CONFIG)?;
    let node = "UNDERSTUDY_NODE__NAME=host\nUNDERSTUDY_NODE__GROUP=web\nUNDERSTUDY_NODE__INTERFACE=lo\n";
    machine.write("/etc/default/understudy", node)?;
    machine.write("/etc/default/understudy-autoscaler", "UNDERSTUDY_NODE__GROUP=web-scaler\n")?;
    machine.shell(&format!("systemctl enable --now {} 2>&1", UNITS.join(" ")))?;
    for unit in UNITS {
        ensure!(machine.property(unit, "SubState")? == "running", "{unit}: {}", machine.journal(unit)?);
        let pid = machine.property(unit, "MainPID")?;
        let status = machine.shell(&format!("cat /proc/{pid}/status"))?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        // NET_ADMIN, NET_RAW, IPC_LOCK and SYS_NICE; the first two are the executor's alone (capabilities(7)).
        let granted: u64 = match unit {
            "understudy-autoscaler" => 0,
            "understudy-executor" => 1 << 12 | 1 << 13 | 1 << 14 | 1 << 23,
            _ => 1 << 14 | 1 << 23,
        };
        let granted = format!("{granted:016x}");
        ensure!(field("CapEff:") == Some(&granted), "{unit}: {status}");
        ensure!(field("CapBnd:") == Some(&granted), "{unit}: {status}");
        ensure!(field("NoNewPrivs:") == Some("1") && field("Seccomp:") == Some("2"), "{unit}: {status}");
    }
    wait_until("the executor is attached to the heartbeat publisher", SOON, || {
        machine
            .journal("understudy-executor")
            .ok()?
            .contains("attached to the heartbeat publisher")
            .then_some(())
    })
}

/// Killed: at once. Hanging: by the watchdog. A configuration that is refused: not at all.
fn is_started_again(machine: &Machine) -> Result<()> {
    let restarts = |unit: &str, deadline: Duration| {
        wait_until(&format!("{unit} is started again"), deadline, || {
            let again = machine.property(unit, "NRestarts").ok()? == "1";
            (again && machine.property(unit, "SubState").ok()? == "running").then_some(())
        })
        .with_context(|| machine.journal(unit).unwrap_or_default())
    };
    machine.shell("systemctl kill --signal=KILL understudy-heartbeat")?;
    restarts("understudy-heartbeat", SOON)?;
    machine.shell("systemctl kill --kill-whom=main --signal=STOP understudy-detector@1")?;
    restarts("understudy-detector@1", WATCHDOG)?;
    ensure!(machine.journal("understudy-detector@1")?.contains("Watchdog timeout"), "not by the watchdog");

    machine.write("/etc/understudy/understudy.toml", &CONFIG.replace("cluster", "culster"))?;
    machine.shell("systemctl restart understudy-autoscaler || true")?;
    wait_until("systemd gives up", SOON, || {
        (machine.property("understudy-autoscaler", "ActiveState").ok()? == "failed").then_some(())
    })?;
    ensure!(machine.property("understudy-autoscaler", "ExecMainStatus")? == "78", "another exit code");
    machine.write("/etc/understudy/understudy.toml", CONFIG)?;
    machine.shell("systemctl start understudy-autoscaler")?;
    Ok(())
}

/// What runs is started anew, what was edited stays.
fn is_upgraded(machine: &Machine) -> Result<()> {
    let pids = || UNITS.iter().map(|unit| machine.property(unit, "MainPID")).collect::<Result<Vec<_>>>();
    let before = pids()?;
    machine.shell("dpkg -i /packages/*.deb")?;
    for (unit, (before, after)) in UNITS.iter().zip(before.iter().zip(pids()?)) {
        ensure!(machine.property(unit, "SubState")? == "running", "{unit}: {}", machine.journal(unit)?);
        ensure!(*before != after, "{unit} still runs the former version");
    }
    ensure!(
        machine.shell("cat /etc/understudy/understudy.toml")? == CONFIG,
        "the configuration was replaced"
    );
    Ok(())
}

fn is_removed(machine: &Machine, before: &BTreeSet<String>) -> Result<()> {
    machine.shell(&format!("dpkg -r {}", PACKAGES.join(" ")))?;
    let running = machine.shell("grep -l understudy /proc/[0-9]*/comm || true")?;
    ensure!(running.is_empty(), "still running: {running}");
    let left = files(machine)?;
    let programs: Vec<_> =
        left.iter().filter(|file| file.starts_with("/usr/") && file.contains("understudy")).collect();
    ensure!(programs.is_empty(), "left: {programs:?}");
    ensure!(left.contains("/etc/understudy/understudy.toml"), "the configuration went before a purge");

    // Nobody's package has it.
    machine.shell("rm /etc/default/understudy-autoscaler")?;
    machine.shell(&format!("dpkg -P {}", PACKAGES.join(" ")))?;
    let after = files(machine)?;
    let left: Vec<_> = after.difference(before).collect();
    let gone: Vec<_> = before.difference(&after).collect();
    ensure!(left.is_empty() && gone.is_empty(), "left by the packages: {left:?}; taken along: {gone:?}");
    Ok(())
}

#[test]
fn packages_are_installed_run_upgraded_and_removed_without_a_trace() -> Result<()> {
    let machine = Machine::boot()?;
    let before = files(&machine)?;
    installs(&machine)?;
    is_installed(&machine)?;
    runs(&machine)?;
    is_started_again(&machine)?;
    is_upgraded(&machine)?;
    is_removed(&machine, &before)
}
