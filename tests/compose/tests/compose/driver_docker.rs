//! The docker driver alone, on the real engine: each order twice, members that are half there, an engine that refuses,
//! hangs or is not there.

use std::{
    collections::BTreeMap,
    os::unix::net::UnixListener,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use understudy_autoscaler::driver::{Driver, DriverError, Instance, Start, State, docker::Docker};
use understudy_compose::{Container, docker};
use understudy_lab::wait_until;
use understudy_service::config::{self, Template, Workload};
use understudy_wire::{ClusterId, GroupId, NodeId};

/// What the engine calls everything here begins with it.
const CLUSTER: &str = "understudy-test";
const IMAGE: &str = "debian:bookworm-slim";
const KEY: &str = "web/replace/web-3/7";
/// For anything that must happen, but whose speed is not the point.
const SOON: Duration = Duration::from_secs(30);

/// A container that does nothing and ends when it is told to.
fn idle() -> config::Container {
    let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    config::Container {
        image: IMAGE.into(),
        command: ["sh", "-c", script].map(str::to_owned).into(),
        read_only: true,
        memory: 32,
        pids: 16,
        cpus: 0.5,
        ..config::Container::default()
    }
}

fn template() -> Template {
    let workload = config::Container {
        env: BTreeMap::from([("WHO".into(), "{cluster}/{group}/{node}".into())]),
        tmpfs: vec!["/tmp:mode=1777,size=1m".into()],
        ..idle()
    };
    let labels = BTreeMap::from([("org.example.member".into(), "{node}".into())]);
    Template {
        labels,
        workload: Workload::Container(Box::new(workload)),
        heartbeat: config::Container { user: "65532:65532".into(), ..idle() },
        executor: config::Container { user: "65532:65532".into(), ..idle() },
        ..Template::of(config::Driver::Docker)
    }
}

/// A driver of a group of its own, whose members are gone at the end.
struct Yard {
    driver: Docker,
    group: &'static str,
    runtime: tokio::runtime::Runtime,
}

impl Yard {
    fn new(group: &'static str, template: &Template) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let driver = Docker::new(&ClusterId::new(CLUSTER)?, &GroupId::new(group)?, template);
        let yard = Self { driver, group, runtime };
        yard.clear()?;
        Ok(yard)
    }

    fn start(&self, node: &str) -> Result<(), DriverError> {
        let start = Start {
            key: KEY.into(),
            node: NodeId::new(node).expect("a name"),
            domain: Some(("rack".into(), "r1".into())),
            replaces: None,
        };
        self.runtime.block_on(self.driver.start(&start))
    }

    fn restart(&self, node: &str) -> Result<(), DriverError> {
        let node = NodeId::new(node).expect("a name");
        self.runtime.block_on(self.driver.restart("key", &node))
    }

    fn stop(&self, node: &str) -> Result<(), DriverError> {
        let node = NodeId::new(node).expect("a name");
        self.runtime.block_on(self.driver.stop("key", &node))
    }

    fn list(&self) -> Result<BTreeMap<NodeId, Instance>, DriverError> {
        self.runtime.block_on(self.driver.list())
    }

    fn state(&self, node: &str) -> Result<State> {
        Ok(self.list()?.remove(&NodeId::new(node)?).context("is not listed")?.state)
    }

    fn part(&self, node: &str, part: &str) -> Container {
        Container(format!("{CLUSTER}.{}.{node}.{part}", self.group))
    }

    /// All three, in the order in which they are started.
    fn parts(&self, node: &str) -> [Container; 3] {
        ["workload", "heartbeat", "executor"].map(|part| self.part(node, part))
    }

    /// All three run, and share one network.
    fn whole(&self, node: &str) -> Result<()> {
        ensure!(self.state(node)? == State::Running, "{:?}", self.list());
        let namespaces = self.parts(node).map(|part| {
            let link = format!("/proc/{}/ns/net", part.pid()?);
            std::fs::read_link(link).context("the network namespace")
        });
        let [workload, heartbeat, executor] = namespaces;
        let workload = workload?;
        ensure!(workload == heartbeat? && workload == executor?, "they do not share one network");
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        let label = format!("label=understudy.group={}", self.group);
        let cluster = format!("label=understudy.cluster={CLUSTER}");
        for id in docker(&["ps", "-aq", "--filter", &label, "--filter", &cluster])?.lines() {
            docker(&["rm", "-fv", id])?;
        }
        for name in docker(&["volume", "ls", "-q", "--filter", &label])?.lines() {
            docker(&["volume", "rm", name])?;
        }
        Ok(())
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("taking the members of {} away: {error:#}", self.group);
        }
    }
}

fn strings(value: &serde_json::Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect()
}

#[test]
fn a_member_is_three_containers_with_what_each_may_do() -> Result<()> {
    let yard = Yard::new("shapes", &template())?;
    ensure!(yard.list()?.is_empty(), "{:?}", yard.list());
    yard.start("web-4")?;
    yard.whole("web-4")?;
    let listed = yard.list()?;
    let member = listed.values().next().context("a member")?;
    ensure!(member.key.as_deref() == Some(KEY) && member.labels["rack"] == "r1", "{member:?}");

    let [workload, heartbeat, executor] = yard.parts("web-4");
    let told = workload.inspect()?;
    ensure!(told["Config"]["Hostname"] == "web-4", "{told:#}");
    ensure!(strings(&told["Config"]["Env"]).contains(&"WHO=understudy-test/shapes/web-4"), "{told:#}");
    ensure!(told["Config"]["Labels"]["org.example.member"] == "web-4", "{told:#}");
    let again = &told["HostConfig"]["RestartPolicy"]["Name"];
    ensure!(["", "no"].contains(&again.as_str().unwrap_or_default()), "the engine starts it again: {again}");
    for part in [&heartbeat, &executor] {
        let told = part.inspect()?;
        let env = strings(&told["Config"]["Env"]);
        for wanted in [
            "UNDERSTUDY_NODE__NAME=web-4",
            "UNDERSTUDY_NODE__GROUP=shapes",
            "UNDERSTUDY_NODE__LABELS=rack=r1",
        ] {
            ensure!(env.contains(&wanted), "no {wanted} in {env:?}");
        }
        ensure!(told["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped", "{told:#}");
    }
    for (part, added) in [(&workload, 0), (&heartbeat, 0), (&executor, 2)] {
        let told = part.inspect()?;
        let host = &told["HostConfig"];
        ensure!(strings(&host["CapDrop"]) == ["ALL"], "{}: {host:#}", part.0);
        ensure!(strings(&host["CapAdd"]).len() == added, "{}: {host:#}", part.0);
        ensure!(host["ReadonlyRootfs"] == true && host["NanoCpus"] == 500_000_000, "{}: {host:#}", part.0);
        ensure!(host["Memory"] == 32 << 20 && host["PidsLimit"] == 16, "{}: {host:#}", part.0);
    }
    ensure!(executor.inspect()?["Config"]["StopTimeout"] == 15, "it is not given the time to hand over");
    // What one writes the other reads, as the user that both are, and the workload has no part in it.
    docker(&["exec", &heartbeat.0, "sh", "-c", "echo here > /run/understudy/said"])?;
    let read = docker(&["exec", &executor.0, "cat", "/run/understudy/said"])?;
    ensure!(read.trim() == "here", "{read:?}");
    ensure!(docker(&["exec", &workload.0, "ls", "/run/understudy"]).is_err(), "the workload is given it");
    Ok(())
}

#[test]
fn every_order_twice_is_once() -> Result<()> {
    let yard = Yard::new("twice", &template())?;
    yard.start("web-1")?;
    let pids = |yard: &Yard| -> Result<Vec<i64>> { yard.parts("web-1").iter().map(Container::pid).collect() };
    let first = pids(&yard)?;
    yard.start("web-1")?;
    ensure!(pids(&yard)? == first, "it was started twice");
    yard.start("web-2")?;
    ensure!(yard.list()?.len() == 2, "{:?}", yard.list());

    for _ in 0..2 {
        let before = pids(&yard)?;
        yard.restart("web-1")?;
        yard.whole("web-1")?;
        let after = pids(&yard)?;
        ensure!(after.iter().all(|pid| !before.contains(pid)), "{before:?} were restarted to {after:?}");
    }
    for _ in 0..2 {
        yard.stop("web-1")?;
        let listed = yard.list()?;
        ensure!(listed.keys().map(NodeId::as_str).eq(["web-2"]), "{listed:?}");
    }
    let volumes = docker(&["volume", "ls", "-q", "--filter", "label=understudy.group=twice"])?;
    ensure!(volumes.trim() == "understudy-test.twice.web-2", "{volumes}");
    let missing = yard.restart("web-9").unwrap_err().to_string();
    ensure!(missing == "restarting web-9: it has no container", "{missing}");
    Ok(())
}

#[test]
fn what_has_ended_or_is_gone_by_half_says_so_and_is_made_whole() -> Result<()> {
    let yard = Yard::new("halves", &template())?;
    yard.start("web-1")?;
    let [workload, heartbeat, executor] = yard.parts("web-1").map(|part| part.0);
    let ended = |cause: &str| -> Result<()> {
        let state = yard.state("web-1")?;
        ensure!(state == State::Ended(cause.into()), "{state:?}, expected {cause}");
        Ok(())
    };
    docker(&["kill", &workload])?;
    ended("the workload exited with 137")?;
    yard.restart("web-1")?;
    yard.whole("web-1")?;
    docker(&["rm", "-f", &executor])?;
    ended("it has no executor")?;
    yard.restart("web-1")?;
    yard.whole("web-1")?;
    docker(&["rm", "-f", &heartbeat])?;
    ended("it has no heartbeat")?;
    yard.start("web-1")?;
    yard.whole("web-1")?;
    // The other two are bound to a container that is gone.
    docker(&["rm", "-f", &workload])?;
    ended("it has no workload")?;
    yard.restart("web-1")?;
    yard.whole("web-1")?;
    docker(&["rm", "-f", &workload, &heartbeat, &executor])?;
    ensure!(yard.list()?.is_empty(), "{:?}", yard.list());
    yard.start("web-1")?;
    yard.whole("web-1")?;
    // Another order for the same name: what is left of the earlier one does not count as done.
    docker(&["kill", &executor])?;
    let other =
        Start { key: "web/fill/web-1".into(), node: NodeId::new("web-1")?, domain: None, replaces: None };
    yard.runtime.block_on(yard.driver.start(&other))?;
    yard.whole("web-1")?;
    let listed = yard.list()?;
    ensure!(
        listed.values().next().and_then(|one| one.key.as_deref()) == Some("web/fill/web-1"),
        "{listed:?}"
    );
    Ok(())
}

#[test]
fn a_workload_that_cannot_run_tells_its_exit_code() -> Result<()> {
    let mut template = template();
    let workload =
        config::Container { command: ["sh", "-c", "exit 127"].map(str::to_owned).into(), ..idle() };
    template.workload = Workload::Container(Box::new(workload));
    let yard = Yard::new("broken", &template)?;
    // The others find no network to join when the workload is quick to end; or they do, and are alone in it.
    let _ = yard.start("web-1");
    let cause = wait_until("the member to have ended", SOON, || match yard.state("web-1").ok()? {
        State::Ended(cause) => Some(cause),
        _ => None,
    })?;
    ensure!(cause == "the workload exited with 127", "{cause}");
    yard.stop("web-1")?;
    ensure!(yard.list()?.is_empty(), "{:?}", yard.list());
    Ok(())
}

/// What compose has made carries no key.
#[test]
fn members_that_somebody_else_made_are_listed_restarted_and_removed() -> Result<()> {
    let yard = Yard::new("foreign", &template())?;
    let made = |name: &str, part: &str, network: &str| {
        let labels = [("cluster", CLUSTER), ("group", "foreign"), ("node", "web-a"), ("part", part)];
        let labels = labels.map(|(name, value)| format!("--label=understudy.{name}={value}"));
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        let name = format!("understudy-test-{name}");
        let run = ["run", "-d", "--init", "--name", &name, "--network", network];
        docker(&[&run[..], &labels, &[IMAGE, "sleep", "infinity"]].concat())
    };
    made("a", "workload", "bridge")?;
    made("a-heartbeat", "heartbeat", "container:understudy-test-a")?;
    ensure!(yard.state("web-a")? == State::Ended("it has no executor".into()), "{:?}", yard.list());
    let why = yard.restart("web-a").unwrap_err().to_string();
    ensure!(why == "restarting web-a: it has no executor, and was not made by this driver", "{why}");
    made("a-executor", "executor", "container:understudy-test-a")?;
    ensure!(yard.state("web-a")? == State::Running, "{:?}", yard.list());
    docker(&["kill", "understudy-test-a"])?;
    yard.restart("web-a")?;
    ensure!(yard.state("web-a")? == State::Running, "{:?}", yard.list());
    yard.stop("web-a")?;
    ensure!(yard.list()?.is_empty(), "{:?}", yard.list());
    Ok(())
}

#[test]
fn an_engine_that_refuses_hangs_or_is_not_there_is_told_as_such() -> Result<()> {
    let mut asked = template();
    let unknown = config::Container { image: "understudy-test/missing:1".into(), ..idle() };
    asked.workload = Workload::Container(Box::new(unknown));
    let yard = Yard::new("refused", &asked)?;
    let why = yard.start("web-1").unwrap_err().to_string();
    ensure!(why == "making the workload of web-1: No such image: understudy-test/missing:1", "{why}");
    let nowhere = config::Container { networks: vec!["understudy-test-nowhere".into()], ..idle() };
    asked.workload = Workload::Container(Box::new(nowhere));
    let yard = Yard::new("refused", &asked)?;
    let why = yard.start("web-1").unwrap_err().to_string();
    ensure!(why.ends_with("workload of web-1: network understudy-test-nowhere not found"), "{why}");
    yard.stop("web-1")?;

    let folder = tempfile::tempdir()?;
    let silent = folder.path().join("silent.sock");
    let _listener = UnixListener::bind(&silent)?;
    let at = |endpoint: String, expected: &str| -> Result<()> {
        let template = Template { endpoint, timeout: Duration::from_secs(1), ..template() };
        let driver = Docker::new(&ClusterId::new(CLUSTER)?, &GroupId::new("refused")?, &template);
        let began = Instant::now();
        let why = yard.runtime.block_on(driver.list()).unwrap_err().to_string();
        ensure!(why.contains(expected), "{why}, expected {expected}");
        ensure!(began.elapsed() < SOON, "{:?}", began.elapsed());
        Ok(())
    };
    at(format!("unix://{}", silent.display()), "does not answer within 1s")?;
    at(format!("unix://{}/none.sock", folder.path().display()), "connecting: no engine at unix:///")?;
    at(
        "http://127.0.0.1:1".into(),
        "listing containers: the engine at http://127.0.0.1:1: Connection refused",
    )
}
