//! The swarm driver on a real swarm of one node, which is this engine for as long as a test takes: alone, and under the
//! autoscaler.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use understudy_autoscaler::driver::{Driver, Start, State, swarm::Swarm};
use understudy_compose::{
    docker,
    yard::{CLUSTER, NETWORK, Plan, Yard},
};
use understudy_lab::wait_until;
use understudy_service::config::{self, Template, Workload};
use understudy_wire::{ClusterId, GroupId, NodeId};

const IMAGE: &str = "debian:bookworm-slim";
/// For anything that must happen, but whose speed is not the point: engine and processors are shared.
const SOON: Duration = Duration::from_secs(120);
/// Heartbeat and executor in one image, as a member of a swarm is one container.
const WHOLE: &str = "understudy-test/whole";

/// This engine as a swarm, until it is dropped.
struct OneNode {
    /// The network that a swarm makes for itself and leaves behind.
    had_gateway: bool,
}

impl OneNode {
    fn init() -> Result<Self> {
        let state = docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"])?;
        ensure!(state.trim() == "inactive", "this engine is in a swarm already ({})", state.trim());
        let had_gateway = networks()?.iter().any(|name| name == "docker_gwbridge");
        docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"])?;
        Ok(Self { had_gateway })
    }
}

impl Drop for OneNode {
    fn drop(&mut self) {
        let away = || -> Result<()> {
            for service in docker(&["service", "ls", "-q"])?.lines() {
                docker(&["service", "rm", service])?;
            }
            let label = "label=com.docker.swarm.service.name";
            wait_until("the tasks are gone", SOON, || {
                docker(&["ps", "-aq", "--filter", label]).is_ok_and(|left| left.trim().is_empty())
            })?;
            for name in networks()?.iter().filter(|name| name.starts_with(CLUSTER)) {
                docker(&["network", "rm", name])?;
            }
            Ok(())
        };
        if let Err(error) = away() {
            eprintln!("clearing the swarm: {error:#}");
        }
        let left = docker(&["swarm", "leave", "--force"]);
        let gateway =
            if self.had_gateway { Ok(String::new()) } else { docker(&["network", "rm", "docker_gwbridge"]) };
        if let Err(error) = left.and(gateway) {
            eprintln!("leaving the swarm: {error:#}");
        }
    }
}

fn networks() -> Result<Vec<String>> {
    Ok(docker(&["network", "ls", "--format", "{{.Name}}"])?.lines().map(str::to_owned).collect())
}

fn template(image: &str) -> Template {
    let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let workload = config::Container {
        image: image.into(),
        command: ["sh", "-c", script].map(str::to_owned).into(),
        env: BTreeMap::from([("WHO".into(), "{cluster}/{group}/{node}".into())]),
        tmpfs: vec!["/run/understudy:mode=1777,size=1m".into()],
        read_only: true,
        memory: 32,
        ..config::Container::default()
    };
    Template {
        service: "understudy-test-web".into(),
        workload: Workload::Container(Box::new(workload)),
        ..Template::of(config::Driver::Swarm)
    }
}

/// The driver, and what runs it.
struct Orders {
    driver: Swarm,
    runtime: tokio::runtime::Runtime,
}

impl Orders {
    fn new(template: &Template) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { driver: Swarm::new(&ClusterId::new(CLUSTER)?, &GroupId::new("web")?, template), runtime })
    }

    fn start(&self, node: &str, domain: Option<&str>) -> Result<()> {
        let domain = domain.map(|value| ("rack".to_owned(), value.to_owned()));
        let start =
            Start { key: format!("web/fill/{node}"), node: NodeId::new(node)?, domain, replaces: None };
        Ok(self.runtime.block_on(self.driver.start(&start))?)
    }

    fn restart(&self, node: &str) -> Result<()> {
        Ok(self.runtime.block_on(self.driver.restart("key", &NodeId::new(node)?))?)
    }

    fn stop(&self, node: &str) -> Result<()> {
        Ok(self.runtime.block_on(self.driver.stop("key", &NodeId::new(node)?))?)
    }

    fn wait(&self, node: &str, wanted: impl Fn(&State) -> bool) -> Result<State> {
        let (node, mut last) = (NodeId::new(node)?, None);
        wait_until("a state of the member", SOON, || {
            last = self.runtime.block_on(self.driver.list()).ok()?.remove(&node);
            last.as_ref().map(|one| one.state.clone()).filter(|state| wanted(state))
        })
        .with_context(|| format!("{node} is {last:?}"))
    }
}

/// The container of a member's task.
fn task(node: &str) -> Result<String> {
    let filter = format!("label=com.docker.swarm.service.name=understudy-test-web-{node}");
    Ok(docker(&["ps", "-q", "--filter", &filter])?.lines().next().context("no container")?.to_owned())
}

fn runs(state: &State) -> bool {
    *state == State::Running
}

#[test]
fn a_member_is_a_service_of_its_own_and_every_order_twice_is_once() -> Result<()> {
    let _swarm = OneNode::init()?;
    let orders = Orders::new(&template(IMAGE))?;
    orders.start("web-1", None)?;
    orders.start("web-1", None)?;
    orders.wait("web-1", runs)?;
    let first = task("web-1")?;
    orders.start("web-1", None)?;
    ensure!(task("web-1")? == first, "it was started twice");
    let listed = orders.runtime.block_on(orders.driver.list())?;
    let key = listed.values().next().and_then(|one| one.key.clone());
    ensure!(listed.len() == 1 && key.as_deref() == Some("web/fill/web-1"), "{listed:?}");
    let told =
        docker(&["inspect", "-f", "{{.Config.Env}} {{.Config.Hostname}} {{.HostConfig.CapDrop}}", &first])?;
    for wanted in ["WHO=understudy-test/web/web-1", "UNDERSTUDY_NODE__NAME=web-1", " web-1 [ALL]"] {
        ensure!(told.contains(wanted), "no {wanted} in {told}");
    }

    docker(&["kill", &first])?;
    let ended = orders.wait("web-1", |state| matches!(state, State::Ended(_)))?;
    ensure!(ended == State::Ended("it exited with 137".into()), "{ended:?}");
    orders.restart("web-1")?;
    orders.wait("web-1", runs)?;
    let second = task("web-1")?;
    ensure!(second != first, "it was not restarted");
    orders.restart("web-1")?;
    wait_until("another task", SOON, || task("web-1").is_ok_and(|third| third != second))?;
    orders.wait("web-1", runs)?;
    orders.stop("web-1")?;
    orders.stop("web-1")?;
    ensure!(orders.runtime.block_on(orders.driver.list())?.is_empty(), "it is still listed");

    // What cannot run says why.
    orders.start("web-2", Some("nowhere"))?;
    let why = orders.wait("web-2", |state| matches!(state, State::Ended(_)))?;
    ensure!(matches!(&why, State::Ended(why) if why.contains("no suitable node")), "{why:?}");
    orders.stop("web-2")?;
    let missing = Orders::new(&template("understudy-test/missing:1"))?;
    missing.start("web-3", None)?;
    let why = missing.wait("web-3", |state| matches!(state, State::Ended(_)))?;
    ensure!(matches!(&why, State::Ended(why) if why.contains("understudy-test/missing:1")), "{why:?}");
    missing.stop("web-3")
}

/// Builds the image of a whole member from those of its two services.
fn image() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = "FROM understudy/heartbeat AS heartbeat\nFROM understudy/executor\n\
                COPY --from=heartbeat /usr/bin/understudy-heartbeat /usr/bin/\n";
    std::fs::write(folder.path().join("Dockerfile"), file)?;
    docker(&["build", "-q", "-t", WHOLE, &folder.path().display().to_string()]).map(drop)
}

fn plan(config: &Path) -> Vec<String> {
    let key = "group.web.scaling.template";
    let script = "/burn 0.0.0.0:8080 1ms & understudy-heartbeat & exec understudy-executor";
    let template = format!(
        "driver = \"swarm\"\nservice = \"understudy-test-web\"\n[{key}.workload]\nimage = \"{WHOLE}\"\n\
         entrypoint = [\"sh\", \"-c\", \"{script}\"]\nuser = \"65532:65532\"\nread_only = true\n\
         networks = [\"{NETWORK}\"]\nenv = {{ UNDERSTUDY_CONFIG = \"/etc/understudy.toml\" }}\n\
         volumes = [\"{}:/etc/understudy.toml:ro\", \"{}:/burn:ro\"]\n\
         tmpfs = [\"/run/understudy:uid=65532,gid=65532,mode=0770,size=1m\", \
         \"/var/lib/understudy:uid=65532,gid=65532,mode=0750,size=1m\"]\n",
        config.display(),
        env!("CARGO_BIN_EXE_understudy-burn"),
    );
    let scaling = "start_up = \"30s\"\nrepair = { after = \"1s\", backoff = \"1s\" }";
    vec![Plan { group: "web", vips: &["172.29.78.10"], scaling, template: &template }.text()]
}

/// A network of this host that services of a swarm can be in: one of its own engine would not do, and an overlay carries no
/// addresses but its own.
fn network() -> Result<()> {
    let place = ["--subnet", "172.29.78.0/24", "--ip-range", "172.29.78.128/25"];
    let settings = format!("{NETWORK}-settings");
    docker(&[&["network", "create", "--config-only"], &place[..], &[&settings]].concat())?;
    let scope = ["--driver", "bridge", "--scope", "swarm", "--attachable", "--config-from", &settings];
    docker(&[&["network", "create"], &scope[..], &[NETWORK]].concat()).map(drop)
}

#[test]
fn members_of_a_swarm_are_made_restarted_and_replaced() -> Result<()> {
    let _swarm = OneNode::init()?;
    image()?;
    let _image = RemoveImage;
    let yard = Yard::up_in(plan, network)?;
    let (_, mut standbys) = yard.wait_whole("web", 1, 1)?;
    let standby = standbys.pop().context("a standby")?;
    let before = task(&standby)?;
    docker(&["kill", &before])?;
    wait_until("it is restarted", SOON, || task(&standby).is_ok_and(|now| now != before))?;
    yard.wait_whole("web", 1, 1).with_context(|| format!("{standby} was killed"))?;

    // Taken away by hand: another one comes.
    let service = format!("understudy-test-web-{standby}");
    let id = docker(&["service", "inspect", "-f", "{{.ID}}", &service])?;
    docker(&["service", "rm", &service])?;
    let ids = || docker(&["service", "ls", "-q"]).unwrap_or_default();
    wait_until("another service is made", SOON, || ids().lines().count() == 2 && !ids().contains(id.trim()))?;
    yard.wait_whole("web", 1, 1).with_context(|| format!("{service} was removed"))?;
    yard.end();
    Ok(())
}

/// Takes the image away that a test has built.
struct RemoveImage;

impl Drop for RemoveImage {
    fn drop(&mut self) {
        // Beside it nothing is lost: the next build makes it anew.
        let _ = Command::new("docker").args(["rmi", "-f", WHOLE]).output();
    }
}
