//! A whole deployment: NATS, detectors, a name server and the nodes of one group, each on its own host.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    Host, Knot, Launch, NatsCluster, Network, Probe, Process, Softirqs, binary,
    knot::{KEY_ALGORITHM, KEY_NAME, KEY_SECRET},
    wait_until, workload,
};

/// Address that the group serves.
pub const VIP: &str = "10.77.0.100";
/// The same for IPv6.
pub const VIP6: &str = "fd77::100";
/// Name that follows it.
pub const NAME: &str = "web.ha.test.";
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

/// One node of the group.
#[derive(Debug, Clone)]
pub struct Member {
    /// Name of node and host.
    pub name: String,
    /// Higher is preferred.
    pub priority: i32,
    /// `hot`, `warm` or `cold`.
    pub standby: String,
}

impl Member {
    /// A hot standby.
    pub fn hot(name: &str, priority: i32) -> Self {
        Self { name: name.to_owned(), priority, standby: "hot".to_owned() }
    }
}

/// What to deploy.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Short name, shows in namespaces and folder.
    pub name: String,
    /// Nodes.
    pub members: Vec<Member>,
    /// Detectors, which is also S.
    pub detectors: usize,
    /// NATS servers.
    pub nats: usize,
    /// Interval, I.
    pub interval: Duration,
    /// Lease, T.
    pub lease: Duration,
    /// Whether a name server is there.
    pub dns: bool,
    /// TOML behind `[group.web]`: checks, hooks.
    pub group: String,
    /// More TOML, at the top level.
    pub more: String,
}

impl Plan {
    /// Three NATS servers, three detectors, Knot, web-a and two hot standbys; I = 100 ms, T = 300 ms; an HTTP check.
    pub fn new(name: &str) -> Self {
        let members = [("web-a", 100), ("web-b", 90), ("web-c", 80)];
        Self {
            name: name.to_owned(),
            members: members.map(|(name, priority)| Member::hot(name, priority)).into(),
            detectors: 3,
            nats: 3,
            interval: Duration::from_millis(100),
            lease: Duration::from_millis(300),
            dns: true,
            group: http_check(),
            more: String::new(),
        }
    }
}

/// The check of the sample group. A workload that refuses connections is down after two intervals of 100 ms, one that
/// hangs after twice its timeout of 100 ms as well; a machine that stalls for a tenth of a second is not taken for either.
pub fn http_check() -> String {
    format!(
        "[[group.web.check]]\nkind = \"http\"\nurl = \"http://127.0.0.1:{PORT}/healthz\"\n\
         interval = \"100ms\"\ntimeout = \"100ms\"\nfall = 2\nrise = 2\n"
    )
}

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
    /// The name server.
    pub knot: Option<Knot>,
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
        let knot_host = if plan.dns { Some(network.host_numbered("dns", 31)?) } else { None };
        let node_hosts = plan
            .members
            .iter()
            .zip(41..)
            .map(|(member, number)| network.host_numbered(&member.name, number))
            .collect::<Result<Vec<_>>>()?;
        let nats = NatsCluster::launch(&nats_hosts)?;
        let knot = knot_host.as_ref().map(Knot::start).transpose()?;
        nats.wait_ready(UP)?;
        let config = network.folder().join("understudy.toml");
        std::fs::write(&config, configuration(&plan, &nats, &detector_hosts, knot.as_ref())?)
            .with_context(|| format!("writing {}", config.display()))?;
        let detectors =
            detector_hosts.iter().map(|host| detector(host, &config)).collect::<Result<Vec<_>>>()?;
        let members = node_hosts.iter().zip(&plan.members);
        let nodes = members.map(|(host, member)| node(host, member, &config)).collect::<Result<Vec<_>>>()?;
        network.keep_folder(false);
        Ok(Self { plan, nodes, detectors, nats, knot, client, _softirqs: Softirqs::raise(), network })
    }

    /// The node of this name.
    ///
    /// # Panics
    /// When there is none: a test names what it deployed.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.host.name() == name).expect("a test names its own nodes")
    }

    /// Probes the VIP from the client, and every node by its watcher.
    ///
    /// # Errors
    /// When the probe cannot be started.
    pub fn probe(&self) -> Result<Probe> {
        self.probe_vip(VIP)
    }

    /// As [`Deployment::probe`] for another address.
    ///
    /// # Errors
    /// When the probe cannot be started.
    pub fn probe_vip(&self, vip: &str) -> Result<Probe> {
        let hosts: Vec<&Host> = self.nodes.iter().map(|node| &node.host).collect();
        let vip: IpAddr = vip.parse().context("parsing the VIP")?;
        Probe::start(&self.network, &self.client, &hosts, SocketAddr::new(vip, PORT))
    }

    /// Waits until the preferred node serves the client.
    ///
    /// # Errors
    /// When a process ended or nobody serves.
    pub fn wait_first(&self, probe: &Probe) -> Result<()> {
        let first = &self.plan.members.first().context("a deployment has nodes")?.name;
        probe.wait_served_by(first, GRANTING).with_context(|| self.complaint())?;
        self.wait_granting()?;
        self.wait_standbys()
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
            (ready.len() + 1 == self.nodes.len()).then_some(())
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
        let mut command = self.client.command(binary("understudy")?)?;
        command.arg("--config").arg(self.config()).args(arguments);
        command.output().context("running understudy")
    }

    /// The configuration of all services.
    pub fn config(&self) -> PathBuf {
        self.network.folder().join("understudy.toml")
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
fn detector(host: &Host, config: &Path) -> Result<Process> {
    let seat = host.name().rsplit('-').next().unwrap_or_default();
    detector_on_seat(host, config, seat)
}

/// Starts a detector that claims a seat, whoever else does.
///
/// # Errors
/// When it cannot be started.
pub fn detector_on_seat(host: &Host, config: &Path, seat: &str) -> Result<Process> {
    Launch::new(host, host.name(), binary("understudy-detector")?)
        .environment("UNDERSTUDY_CONFIG", config)
        .environment("UNDERSTUDY_DETECTOR__SEAT", seat)
        .environment("UNDERSTUDY_DETECTOR__LISTEN", host.socket(DIRECT_PORT).to_string())
        .environment("UNDERSTUDY_HTTP__LISTEN", host.socket(DETECTOR_PAGES).to_string())
        .spawn()
}

fn node(host: &Host, member: &Member, config: &Path) -> Result<Node> {
    let workload = workload::start(host, PORT)?;
    let service = |kind: &str, pages: u16| -> Result<Process> {
        Launch::new(host, &format!("{}-{kind}", host.name()), binary(&format!("understudy-{kind}"))?)
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
            .spawn()
    };
    let heartbeat = service("heartbeat", HEARTBEAT_PAGES)?;
    let executor = service("executor", EXECUTOR_PAGES)?;
    Ok(Node { host: host.clone(), workload, heartbeat, executor })
}

fn configuration(plan: &Plan, nats: &NatsCluster, detectors: &[Host], knot: Option<&Knot>) -> Result<String> {
    if plan.members.is_empty() {
        bail!("a deployment needs nodes");
    }
    let quoted =
        |items: Vec<String>| items.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
    let direct = detectors.iter().map(|host| host.socket(DIRECT_PORT).to_string()).collect();
    let (interval, lease) = (plan.interval.as_millis(), plan.lease.as_millis());
    let mut text = format!(
        "cluster = \"lab\"\n\n[nats]\nservers = [{}]\n\n[lease]\ninterval = \"{interval}ms\"\nduration = \"{lease}ms\"\n\n\
         [detector]\nseats = {}\ndirect = [{}]\n\n",
        quoted(nats.urls()),
        detectors.len(),
        quoted(direct),
    );
    let mut names = String::new();
    if let Some(knot) = knot {
        write!(
            text,
            "[dns]\nservers = [\"{}\"]\nzone = \"ha.test.\"\n\
             key = {{ name = \"{KEY_NAME}\", algorithm = \"{KEY_ALGORITHM}\", secret = \"{KEY_SECRET}\" }}\n\n",
            knot.address()
        )?;
        names = format!("names = [\"{NAME}\"]\n");
    }
    let standby = plan.members.len() - 1;
    write!(
        text,
        "[group.web]\nactive = 1\nstandby = {standby}\n\n\
         [[group.web.slot]]\nvips = [\"{VIP}/24\", \"{VIP6}/64\"]\n{names}\n{}\n{}",
        plan.group, plan.more
    )?;
    Ok(text)
}
