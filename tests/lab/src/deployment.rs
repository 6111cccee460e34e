//! A whole deployment: NATS, detectors, a name server and the nodes of one group, each on its own host.

mod plan;

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::{
    Host, Launch, NameServer, NatsCluster, Network, Probe, Process, Softirqs, binary, credentials,
    wait_until, workload,
};

pub use plan::{Member, Plan, Scaling, http_check, vips};

/// Address that the group serves.
pub const VIP: &str = "10.77.0.100";
/// The same for IPv6.
pub const VIP6: &str = "fd77::100";
/// Name that follows it.
pub const NAME: &str = "web.ha.test.";
/// The group whose slot elects the autoscaler that acts, where the plan has autoscalers.
pub const SCALERS: &str = "web-scaler";
/// Port of the workload.
pub const PORT: u16 = 8080;
/// Port of the direct path.
pub const DIRECT_PORT: u16 = 7410;
/// Pages of a detector.
pub const DETECTOR_PAGES: u16 = 9100;
/// Pages of a heartbeat publisher.
pub const HEARTBEAT_PAGES: u16 = 9101;
/// Pages of an executor.
pub const EXECUTOR_PAGES: u16 = 9102;
/// A whole deployment is up within seconds; JetStream's first election alone may take nine.
const UP: Duration = Duration::from_secs(40);
/// A detector that has read its ceilings grants after the silence of rule R6a.
const GRANTING: Duration = Duration::from_secs(30);

/// The processes of one node.
#[derive(Debug)]
pub struct Node {
    /// Where it runs.
    pub host: Host,
    /// What it serves.
    pub workload: Process,
    /// Its heartbeat publisher.
    pub heartbeat: Process,
    /// Its executor.
    pub executor: Process,
}

impl Node {
    /// The two processes of Understudy.
    pub fn services(&self) -> [&Process; 2] {
        [&self.heartbeat, &self.executor]
    }

    /// All three processes.
    pub fn processes(&self) -> [&Process; 3] {
        [&self.workload, &self.heartbeat, &self.executor]
    }

    /// Kills all three with -9, the executor first: a publisher that died before it would leave it a moment to release.
    ///
    /// # Errors
    /// When a signal is refused.
    pub fn kill(&self) -> Result<()> {
        [&self.executor, &self.heartbeat, &self.workload]
            .iter()
            .try_for_each(|process| process.signal(Signal::SIGKILL))
    }

    /// Starts all three again, as a node does that comes back; those that still run are killed first.
    ///
    /// # Errors
    /// As [`Process::restart`].
    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        self.processes().iter().try_for_each(|process| process.restart())
    }
}

/// A running deployment. Dropping it ends and removes everything.
#[derive(Debug)]
pub struct Deployment {
    /// What was deployed.
    pub plan: Plan,
    /// Nodes, in the order of the plan.
    pub nodes: Vec<Node>,
    /// Detectors, seat 1 first.
    pub detectors: Vec<Process>,
    /// NATS.
    pub nats: NatsCluster,
    /// Name servers, in the order of the plan.
    pub name_servers: Vec<NameServer>,
    /// Where clients are.
    pub client: Host,
    /// Packets go before programs while it runs.
    _softirqs: Softirqs,
    /// The network; last, since dropping it removes the hosts of all others.
    pub network: Network,
}

impl Deployment {
    /// Deploys and waits until every server answers; who serves first is up to the caller to see.
    ///
    /// # Errors
    /// When a part does not come up.
    pub fn start(plan: Plan) -> Result<Self> {
        let network = Network::create(&plan.name)?;
        network.keep_folder(true);
        let client = network.host_numbered("client", 5)?;
        let nats_hosts = hosts(&network, "nats", 11, plan.nats)?;
        let detector_hosts = hosts(&network, "detector", 21, plan.detectors)?;
        let name_hosts = hosts(&network, "dns", 31, plan.name_servers.len())?;
        let node_hosts = plan
            .members
            .iter()
            .zip(41..)
            .map(|(member, number)| network.host_numbered(&member.name, number))
            .collect::<Result<Vec<_>>>()?;
        let name_servers = plan.name_servers.iter().zip(&name_hosts);
        let name_servers = name_servers
            .map(|(software, host)| NameServer::start(*software, host))
            .collect::<Result<Vec<_>>>()?;
        let config = network.folder().join("understudy.toml");
        let text = plan.configuration(&config, &nats_hosts, &detector_hosts, &name_servers)?;
        std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let credentials = plan.secured.then(|| credentials::make(&config)).transpose()?;
        let nats = NatsCluster::launch_with(&nats_hosts, credentials.as_deref())?;
        nats.wait_ready(UP)?;
        let detectors =
            detector_hosts.iter().map(|host| detector(host, &plan, &config)).collect::<Result<Vec<_>>>()?;
        let members = node_hosts.iter().zip(&plan.members);
        let nodes =
            members.map(|(host, member)| node(host, member, &plan, &config)).collect::<Result<Vec<_>>>()?;
        network.keep_folder(false);
        Ok(Self { plan, nodes, detectors, nats, name_servers, client, _softirqs: Softirqs::raise(), network })
    }

    /// The node of this name.
    ///
    /// # Panics
    /// When there is none: a test names what it deployed.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.host.name() == name).expect("a test names its own nodes")
    }

    /// Starts a node that the plan does not have, on a host of its own; the caller ends it.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn join(&self, member: &Member, host: &Host) -> Result<Node> {
        node(host, member, &self.plan, &self.config())
    }

    /// Gives a process the credentials of `owner`, if the deployment is secured.
    pub fn give(&self, launch: Launch, owner: &str) -> Launch {
        credentials::give(launch, &self.config(), owner)
    }

    /// The first name server.
    ///
    /// # Errors
    /// When the plan has none.
    pub fn name_server(&self) -> Result<&NameServer> {
        self.name_servers.first().context("the deployment has no name server")
    }

    /// Every process of it, the servers of others too.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.servers().chain(self.nodes.iter().flat_map(Node::processes))
    }

    /// Every process that is not on a node.
    pub fn servers(&self) -> impl Iterator<Item = &Process> {
        let nats = self.nats.servers().iter().map(|server| server.process());
        let name_servers = self.name_servers.iter().map(NameServer::process);
        nats.chain(name_servers).chain(&self.detectors)
    }

    /// Probes what the group serves from the client, and every node by its watcher.
    ///
    /// # Errors
    /// When the probe cannot be started.
    pub fn probe(&self) -> Result<Probe> {
        if self.plan.vip {
            return self.probe_vip(VIP);
        }
        let hosts: Vec<&Host> = self.nodes.iter().map(|node| &node.host).collect();
        let server =
            self.name_server().context("without a VIP clients go by the name: plan a name server")?;
        Probe::start_by_name(&self.network, &self.client, &hosts, PORT, server.address(), NAME)
    }

    /// As [`Deployment::probe`] for another address.
    ///
    /// # Errors
    /// When the probe cannot be started.
    pub fn probe_vip(&self, vip: &str) -> Result<Probe> {
        let hosts: Vec<&Host> = self.nodes.iter().map(|node| &node.host).collect();
        self.probe_hosts(vip, &hosts)
    }

    /// As [`Deployment::probe_vip`] with watchers for these hosts.
    ///
    /// # Errors
    /// When the probe cannot be started.
    pub fn probe_hosts(&self, vip: &str, hosts: &[&Host]) -> Result<Probe> {
        let vip: IpAddr = vip.parse().context("parsing the VIP")?;
        Probe::start(&self.network, &self.client, hosts, SocketAddr::new(vip, PORT))
    }

    /// Waits until the preferred node serves the client. If another one was ready before it and has the slot, that is
    /// handed over, since no node takes one back by itself.
    ///
    /// # Errors
    /// When a process ended or nobody serves.
    pub fn wait_first(&self, probe: &Probe) -> Result<()> {
        let first = &self.plan.members.first().context("a deployment has nodes")?.name;
        let elected = wait_until("a node to serve the client", GRANTING, || probe.serving_now());
        let elected = elected.with_context(|| self.complaint())?;
        self.wait_granting()?;
        self.wait_standbys()?;
        if elected != *first {
            let switchover = ["switchover", "--group", "web", "--to", first];
            let output = self.understudy_as("operator", &switchover)?;
            let said = String::from_utf8_lossy(&output.stderr);
            anyhow::ensure!(output.status.success(), "handing over from {elected} to {first}: {said}");
            // So long who gave a slot up comes last for it.
            let end = crate::Moment::now() + 2 * self.plan.lease;
            wait_until("no node to be passed over", GRANTING, || crate::Moment::now() >= end)?;
            self.wait_standbys()?;
        }
        probe.wait_served_by(first, GRANTING).with_context(|| self.complaint()).map(drop)
    }

    /// Waits until every detector grants: a quorum is enough to serve, but tests take one away.
    ///
    /// # Errors
    /// When one does not.
    pub fn wait_granting(&self) -> Result<()> {
        self.wait_status("every detector grants", |status| {
            (status["seats"]["granting"].as_u64()? == self.detectors.len() as u64).then_some(())
        })
    }

    /// Waits until every other node is a ready standby.
    ///
    /// # Errors
    /// When one is not.
    pub fn wait_standbys(&self) -> Result<()> {
        self.wait_status("every other node is a ready standby", |status| {
            let ready = status["groups"][0]["ready_standbys"].as_array()?;
            (ready.len() + self.plan.active == self.nodes.len()).then_some(())
        })
    }

    /// Waits until `understudy status --json` says what is wanted.
    ///
    /// # Errors
    /// When it does not within the deadline.
    pub fn wait_status<T>(
        &self,
        what: &str,
        mut wanted: impl FnMut(&serde_json::Value) -> Option<T>,
    ) -> Result<T> {
        let seen = wait_until(what, GRANTING, || {
            let output = self.understudy(&["status", "--json"]).ok()?;
            wanted(&serde_json::from_slice(&output.stdout).ok()?)
        });
        seen.with_context(|| self.complaint())
    }

    /// Runs the CLI on the client's host.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn understudy(&self, arguments: &[&str]) -> Result<Output> {
        self.understudy_as("viewer", arguments)
    }

    /// As [`Deployment::understudy`] with the credential of `owner`, where the deployment is secured.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn understudy_as(&self, owner: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = self.client.command(binary("understudy")?)?;
        if let Some(folder) = self.credentials() {
            command.env("UNDERSTUDY_NATS__NKEY_FILE", folder.join(format!("{owner}.nk")));
        }
        command.arg("--config").arg(self.config()).args(arguments);
        command.output().context("running understudy")
    }

    /// The configuration of all services.
    pub fn config(&self) -> PathBuf {
        self.network.folder().join("understudy.toml")
    }

    /// Folder with everybody's keys, if the deployment is secured.
    pub fn credentials(&self) -> Option<PathBuf> {
        credentials::beside(&self.config())
    }

    /// Logs of what ended although it should run, to explain a failure.
    fn complaint(&self) -> String {
        let mut text = format!("logs are in {}", self.network.folder().display());
        let processes = self.detectors.iter().chain(self.nodes.iter().flat_map(Node::processes));
        for process in processes.filter(|process| !process.is_running()) {
            let log = process.log_text();
            let tail: Vec<_> = log.lines().rev().take(10).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            let _ = write!(text, "\n{} has ended:\n{}", process.name(), tail.join("\n"));
        }
        text
    }
}

fn hosts(network: &Network, kind: &str, first: u8, count: usize) -> Result<Vec<Host>> {
    (1..=count)
        .zip(first..)
        .map(|(index, number)| network.host_numbered(&format!("{kind}-{index}"), number))
        .collect()
}

/// Starts a detector; its seat is the number in its host's name.
fn detector(host: &Host, plan: &Plan, config: &Path) -> Result<Process> {
    let seat = host.name().rsplit('-').next().unwrap_or_default();
    launch_detector(host, config, seat)?.environments(plan.environment_of(host)).spawn()
}

/// Starts a detector that claims a seat, whoever else does.
///
/// # Errors
/// When it cannot be started.
pub fn detector_on_seat(host: &Host, config: &Path, seat: &str) -> Result<Process> {
    launch_detector(host, config, seat)?.spawn()
}

fn launch_detector(host: &Host, config: &Path, seat: &str) -> Result<Launch> {
    let launch = Launch::new(host, host.name(), binary("understudy-detector")?);
    let launch = credentials::give(launch, config, &format!("detector.{seat}"))
        .environment("UNDERSTUDY_CONFIG", config)
        .environment("UNDERSTUDY_DETECTOR__SEAT", seat)
        .environment("UNDERSTUDY_DETECTOR__LISTEN", host.socket(DIRECT_PORT).to_string())
        .environment("UNDERSTUDY_HTTP__LISTEN", host.socket(DETECTOR_PAGES).to_string());
    Ok(launch)
}

fn node(host: &Host, member: &Member, plan: &Plan, config: &Path) -> Result<Node> {
    let workload = workload::start(host, PORT)?;
    let service = |kind: &str, pages: u16| -> Result<Process> {
        let launch =
            Launch::new(host, &format!("{}-{kind}", host.name()), binary(&format!("understudy-{kind}"))?);
        credentials::give(launch, config, &format!("{kind}.web.{}", host.name()))
            .environment("UNDERSTUDY_CONFIG", config)
            .environment("UNDERSTUDY_HTTP__LISTEN", host.socket(pages).to_string())
            .environment("UNDERSTUDY_NODE__NAME", host.name())
            .environment("UNDERSTUDY_NODE__GROUP", "web")
            .environment("UNDERSTUDY_NODE__INTERFACE", "eth0")
            .environment("UNDERSTUDY_NODE__ADDRESS", host.ipv4().to_string())
            .environment("UNDERSTUDY_NODE__PRIORITY", member.priority.to_string())
            .environment("UNDERSTUDY_NODE__STANDBY", &member.standby)
            .environment("UNDERSTUDY_NODE__SOCKET", host.folder().join(format!("{}.sock", host.name())))
            .environment("UNDERSTUDY_NODE__STATE_DIR", host.folder().join(format!("{}-state", host.name())))
            .environments(plan.environment_of(host))
            .spawn()
    };
    let heartbeat = service("heartbeat", HEARTBEAT_PAGES)?;
    let executor = service("executor", EXECUTOR_PAGES)?;
    Ok(Node { host: host.clone(), workload, heartbeat, executor })
}
