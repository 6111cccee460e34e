//! The stack of `docker-compose.yml`, up from nothing and away at the end.

use std::{collections::BTreeMap, io::Write as _, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_lab::{Moment, wait_until};

use crate::{
    engine::{Compose, Container, Project, docker, said},
    probe::Probe,
};

/// What the group serves, and where.
pub const VIP: &str = "172.29.77.10:8080";
/// The nodes, the preferred one first.
pub const NODES: [&str; 3] = ["web-a", "web-b", "web-c"];
/// T of deploy/understudy.toml: the default.
pub const T: Duration = Duration::from_millis(300);
/// For anything that must happen, but whose speed is not the point.
const SOON: Duration = Duration::from_secs(60);
/// Project and prefix of all names here; not that of a stack that somebody runs from this folder.
pub const PROJECT: &str = "understudy-test";
/// Container in which `understudy` is run.
const CLI: &str = "understudy-test-cli";
/// Label of containers that only look.
const BYSTANDER: &str = "understudy-test";

/// A running stack, with a client that asks all the time. Dropping it takes everything away.
pub struct Stack {
    project: Project,
    /// Asks for the VIP from the client's container.
    pub client: Probe,
    eyes: BTreeMap<&'static str, Eye>,
    ended: bool,
}

/// A host that asks one node, whoever the others think holds the VIP.
struct Eye {
    host: Container,
    mac: String,
    probe: Probe,
}

impl Stack {
    /// Starts it from nothing and waits until one node answers and the others are ready. The first that is ready gets
    /// the slot, and which one that is, is the engine's affair.
    ///
    /// # Errors
    /// When a step fails or it does not come up.
    pub fn up() -> Result<Self> {
        Self::up_with(Compose::Installed, &[])
    }

    /// The same by a Compose of one's choice, with what the file reads from the environment.
    ///
    /// # Errors
    /// When a step fails or it does not come up.
    pub fn up_with(compose: Compose, environment: &[(&'static str, &'static str)]) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let project = Project { root, compose, environment: environment.to_vec() };
        let away = Away(project.clone());
        away.clear().context("taking an earlier run's stack away")?;
        project.run(&["up", "-d"]).context("bringing the stack up")?;
        let client = Probe::start(&bystander("client")?.namespace()?, VIP.parse()?)?;
        // Stays, so that a question costs no new container.
        project
            .run(&["run", "-d", "--name", CLI, "operator", "watch"])
            .context("starting the client's CLI")?;
        std::mem::forget(away);
        let stack = Self { project, client, eyes: BTreeMap::new(), ended: false };
        stack.client.wait_served(SOON, |_| true)?;
        stack.wait_ready()?;
        Ok(stack)
    }

    /// The good end of a test.
    pub fn end(mut self) {
        self.ended = true;
    }

    /// The container of a service.
    pub fn container(&self, service: &str) -> Container {
        self.replica(service, 1)
    }

    /// One of the containers of a service, counted from 1.
    pub fn replica(&self, service: &str, number: usize) -> Container {
        // Compose v2 joins with `-`, 1.29 with `_`.
        let v2 = Container(format!("{PROJECT}-{service}-{number}"));
        if v2.inspect().is_ok() { v2 } else { Container(format!("{PROJECT}_{service}_{number}")) }
    }

    /// Name of the network that the nodes are in.
    pub fn network(&self) -> String {
        format!("{PROJECT}_understudy")
    }

    /// Every container of the stack's services; the client's CLI is none.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let label = format!("label=com.docker.compose.project={PROJECT}");
        let names = docker(&["ps", "--format", "{{.Names}}", "--filter", &label])?;
        Ok(names.lines().filter(|name| *name != CLI).map(|name| Container(name.to_owned())).collect())
    }

    /// Runs Compose on the stack; what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn compose(&self, arguments: &[&str]) -> Result<String> {
        self.project.run(arguments)
    }

    /// Runs `understudy` in the CLI's container; what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn understudy(&self, arguments: &[&str]) -> Result<String> {
        docker(&[&["exec", CLI, "/usr/bin/understudy"], arguments].concat())
    }

    /// `understudy status --json`.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&self) -> Result<Value> {
        let text = self.understudy(&["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("reading the status: {text}"))
    }

    /// Waits until the status is as wanted.
    ///
    /// # Errors
    /// When it is not within a minute; with the last status.
    pub fn wait_status<T>(&self, what: &str, mut wanted: impl FnMut(&Value) -> Option<T>) -> Result<T> {
        let mut last = Value::Null;
        let seen = wait_until(what, SOON, || {
            last = self.status().ok()?;
            wanted(&last)
        });
        seen.with_context(|| format!("the status is {last:#}"))
    }

    /// Waits until one node serves, the two others can, and all three seats grant.
    ///
    /// # Errors
    /// When that is not so within a minute.
    pub fn wait_ready(&self) -> Result<()> {
        self.wait_status("one serves, two are ready, three seats grant", |status| {
            let group = &status["groups"][0];
            group["slots"][0]["holder"].as_str()?;
            let standbys = group["ready_standbys"].as_array()?.len();
            (standbys == 2 && status["seats"]["granting"] == 3).then_some(())
        })
    }

    /// Who serves: asked until somebody answers.
    ///
    /// # Errors
    /// When nobody does within a minute.
    pub fn active(&self) -> Result<String> {
        self.client.wait_served(SOON, |_| true)
    }

    /// Does `act` to the active; another node must serve, and the client's gap be within `bound`. Which one is for the
    /// detectors to choose: a node that fell often comes last.
    ///
    /// # Errors
    /// When nobody else serves, or the gap is longer.
    pub fn fails_over(
        &self,
        fault: &str,
        bound: Duration,
        act: impl FnOnce(&str) -> Result<()>,
    ) -> Result<()> {
        let active = self.active()?;
        let fault = format!("{fault} {active}");
        let since = Moment::now();
        act(&active).with_context(|| format!("carrying out: {fault}"))?;
        self.client.wait_served(SOON, |node| node != active).with_context(|| format!("after: {fault}"))?;
        let gap = self.client.longest_gap(since);
        println!("{fault}: gap {} ms, at most {}", gap.as_millis(), bound.as_millis());
        ensure!(gap <= bound, "{fault}: the client's gap was {gap:?}, at most {bound:?} are allowed");
        Ok(())
    }

    /// Does `act`, which may take long; meanwhile and for a lease afterwards the active must serve without a gap as of
    /// a lost lease.
    ///
    /// # Errors
    /// When another node answers or the gap is too long.
    pub fn nothing_moves(&self, fault: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let active = self.active()?;
        let since = Moment::now();
        act().with_context(|| format!("carrying out: {fault}"))?;
        let end = Moment::now() + 2 * T;
        wait_until("the watch is over", SOON, || Moment::now() >= end)?;
        let answers = self.client.since(since);
        let gap = self.client.longest_gap(since);
        println!("{fault}: longest gap {} ms", gap.as_millis());
        let other = answers.iter().find(|answer| answer.node != active);
        ensure!(other.is_none(), "{fault}: the slot moved: {other:?}");
        ensure!(gap < T, "{fault}: the client saw a gap of {gap:?} although nothing had to move");
        Ok(())
    }

    /// Watches every node from a host of its own that knows the VIP at that node's MAC address, so that two nodes
    /// that serve at once are seen whatever the client's neighbour table says.
    ///
    /// # Errors
    /// When a watcher cannot be made.
    pub fn watch_nodes(&mut self) -> Result<()> {
        self.eyes.clear();
        for node in NODES {
            let mac = self.container(node).mac()?;
            let host = bystander(&format!("eye-{node}"))?;
            look_at(&host, &mac)?;
            let probe = Probe::start(&host.namespace()?, VIP.parse()?)?;
            self.eyes.insert(node, Eye { host, mac, probe });
        }
        Ok(())
    }

    /// Lets the watchers follow nodes whose container was started anew, which may have given them another MAC address.
    /// Nodes that are down keep the one they had.
    ///
    /// # Errors
    /// When a watcher cannot be told.
    pub fn follow_nodes(&mut self) -> Result<()> {
        for node in NODES {
            let Ok(now) = self.container(node).mac() else { continue };
            if let Some(eye) = self.eyes.get_mut(node).filter(|eye| eye.mac != now) {
                look_at(&eye.host, &now)?;
                eye.mac = now;
            }
        }
        Ok(())
    }

    /// No two nodes answered in turns since: one answered, then another, then the first again within a lease.
    ///
    /// # Errors
    /// When two did.
    pub fn never_two(&self, since: Moment) -> Result<()> {
        ensure!(!self.eyes.is_empty(), "nobody watches the nodes");
        let mut answers: Vec<_> = self.eyes.values().flat_map(|eye| eye.probe.since(since)).collect();
        ensure!(!answers.is_empty(), "the watchers saw nothing at all");
        answers.sort_by_key(|answer| answer.asked);
        let turns: Vec<_> = answers.chunk_by(|one, next| one.node == next.node).collect();
        for three in turns.windows(3) {
            let (first, last) = (three[0].last(), three[2].first());
            if let (Some(first), Some(last)) = (first, last) {
                let again = first.node == last.node && last.asked.since(first.asked) < T;
                ensure!(!again, "{} and {} answered at once", first.node, three[1][0].node);
            }
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if !self.ended {
            let file = self.project.root.join("target/compose.log");
            let logs = self.compose(&["logs", "--no-color", "--timestamps"]);
            let kept = logs.and_then(|logs| append(&file, &logs).context("writing"));
            eprintln!("logs of the stack: {}, {kept:?}", file.display());
        }
        drop(Away(self.project.clone()));
    }
}

/// Takes the stack away when it is dropped, also when bringing it up failed.
struct Away(Project);

impl Away {
    fn clear(&self) -> Result<()> {
        let bystanders = docker(&["ps", "-aq", "--filter", &format!("label={BYSTANDER}")])?;
        for id in bystanders.lines().chain([CLI]) {
            // Mostly it is not there.
            let _ = docker(&["rm", "-f", id]);
        }
        remove_containers()?;
        self.0.run(&["down", "-v", "--remove-orphans"]).map(drop)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("taking the stack away: {error:#}");
        }
    }
}

/// One after the other, see [`FEW`](crate::FEW): of fifty rounds with twelve containers that left at once, four left
/// a network behind; of fifty in which they left one by one, none.
fn remove_containers() -> Result<()> {
    let label = format!("label=com.docker.compose.project={PROJECT}");
    let service = "{{.ID}} {{.Label \"com.docker.compose.service\"}}";
    let all = docker(&["ps", "-a", "--format", service, "--filter", &label])?;
    let mut all: Vec<_> = all.lines().filter_map(|line| line.split_once(' ')).collect();
    // It would start the others again.
    all.sort_by_key(|(_, service)| *service != "autoscaler");
    all.iter().try_for_each(|(id, _)| docker(&["rm", "-f", "-v", id]).map(drop))
}

/// Behind the logs of other tests that failed.
fn append(file: &Path, text: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(text.as_bytes())
}

/// Tells a watcher at which MAC address the VIP is, whatever anybody announces.
fn look_at(eye: &Container, mac: &str) -> Result<()> {
    let (vip, _) = VIP.split_once(':').context("an address with a port")?;
    let pid = eye.pid()?.to_string();
    let inside = ["-t", &pid, "-n", "ip", "neigh", "replace", vip];
    let neighbour = ["lladdr", mac, "dev", "eth0", "nud", "permanent"];
    said(Command::new("nsenter").args(inside).args(neighbour)).map(drop)
}

/// A container of no service, in the network of the stack, that does nothing; the others know it by this name.
///
/// # Errors
/// When it cannot be started.
pub fn bystander(name: &str) -> Result<Container> {
    let (alias, network) = (name, format!("{PROJECT}_understudy"));
    let name = format!("{PROJECT}-{name}");
    let _ = docker(&["rm", "-f", &name]);
    let place = ["--name", &name, "--network", &network, "--network-alias", alias, "--label", BYSTANDER];
    let what = ["debian:bookworm-slim", "sleep", "infinity"];
    docker(&[&["run", "-d", "--init"], &place[..], &what].concat())
        .with_context(|| format!("starting {name}"))?;
    Ok(Container(name))
}
