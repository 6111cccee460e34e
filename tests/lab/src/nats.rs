use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::credentials::NATS_AUTH;
use crate::http::fetch;
use crate::net::Host;
use crate::process::{Launch, Process};
use crate::tools::tool;
use crate::wait::wait_until;

/// Port for clients, on every server.
pub const CLIENT_PORT: u16 = 4222;
/// Port for the other servers of the cluster.
pub const ROUTE_PORT: u16 = 6222;
/// Port of the monitoring pages (`/healthz`, `/jsz`).
pub const MONITOR_PORT: u16 = 8222;

/// JetStream's election of a meta leader takes up to 9 s (a constant in the server), its start some more.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// One monitoring page; a server that is busy starting answers slowly.
const PAGE_PATIENCE: Duration = Duration::from_millis(500);

/// A nats-server with JetStream in a host of its own.
#[derive(Debug)]
pub struct NatsServer {
    process: Process,
}

impl NatsServer {
    /// The running server: kill it, stop it, restart it (its data stays).
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The host it runs in.
    pub fn host(&self) -> &Host {
        self.process.host()
    }

    /// For clients: `nats://10.77.0.1:4222`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.host().socket(CLIENT_PORT))
    }

    /// True when the server calls itself healthy (`/healthz`: JetStream is up and current).
    pub fn is_healthy(&self) -> bool {
        fetch(self.host(), self.host().socket(MONITOR_PORT), "/healthz", PAGE_PATIENCE)
            .is_ok_and(|response| response.status == 200)
    }

    /// The leader of JetStream's meta group as this server sees it, when it sees `size` members.
    pub fn meta_leader(&self, size: usize) -> Option<String> {
        let page = fetch(self.host(), self.host().socket(MONITOR_PORT), "/jsz", PAGE_PATIENCE).ok()?;
        let page: serde_json::Value = serde_json::from_str(&page.body).ok()?;
        let group = page.get("meta_cluster")?;
        let leader = group.get("leader")?.as_str().filter(|name| !name.is_empty())?;
        (group.get("cluster_size")?.as_u64()? == size as u64).then(|| leader.to_owned())
    }
}

/// A cluster of nats-servers, or a single one.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts one server in each host and waits until JetStream can be used on all of them.
    ///
    /// # Errors
    /// No host, no nats-server, or not ready within 30 s.
    pub fn start(hosts: &[Host]) -> Result<Self> {
        let cluster = Self::launch(hosts)?;
        cluster.wait_ready(READY_DEADLINE)?;
        Ok(cluster)
    }

    /// As [`NatsCluster::start`], without the wait.
    ///
    /// # Errors
    /// No host or no nats-server.
    pub fn launch(hosts: &[Host]) -> Result<Self> {
        Self::launch_with(hosts, None)
    }

    /// As [`NatsCluster::launch`]; with the credentials of a secured deployment, TLS and permissions are on.
    pub(crate) fn launch_with(hosts: &[Host], credentials: Option<&Path>) -> Result<Self> {
        if hosts.is_empty() {
            bail!("a NATS cluster needs a host at least");
        }
        let program = tool("nats-server")?;
        let mut servers = Vec::new();
        for host in hosts {
            let file = host.folder().join(format!("{}.conf", host.name()));
            fs::write(&file, configuration(host, hosts, credentials))
                .with_context(|| format!("writing {}", file.display()))?;
            let process =
                Launch::new(host, host.name(), &program).arguments(["-c".as_ref(), file.as_os_str()]);
            servers.push(NatsServer { process: process.spawn()? });
        }
        Ok(Self { servers })
    }

    /// Waits until each server is healthy and, in a cluster, all see the same meta leader.
    ///
    /// # Errors
    /// When a server has ended or the deadline passes.
    pub fn wait_ready(&self, deadline: Duration) -> Result<()> {
        for server in &self.servers {
            server.process.wait_ready(deadline, || server.is_healthy())?;
        }
        if self.servers.len() > 1 {
            self.wait_leader(deadline)?;
        }
        Ok(())
    }

    /// Waits until all servers that run name the same leader of JetStream's meta group, itself one of them.
    ///
    /// # Errors
    /// When the deadline passes.
    pub fn wait_leader(&self, deadline: Duration) -> Result<String> {
        wait_until("one JetStream meta leader on all NATS servers", deadline, || {
            let running: Vec<_> = self.servers.iter().filter(|server| server.process.is_running()).collect();
            let leader = running.first()?.meta_leader(self.servers.len())?;
            let agreed =
                running.iter().all(|server| server.meta_leader(self.servers.len()).as_ref() == Some(&leader));
            (agreed && running.iter().any(|server| server.host().name() == leader)).then_some(leader)
        })
    }

    /// Its servers, in the order of the hosts; a server is named after its host.
    pub fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    /// URLs of all servers, for clients.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// As [`NatsCluster::urls`], of servers that will run in `hosts`.
    pub fn urls_in(hosts: &[Host]) -> Vec<String> {
        hosts.iter().map(|host| format!("nats://{}", host.socket(CLIENT_PORT))).collect()
    }
}

/// Certificate, key and authority of the servers, as a block of their configuration.
fn tls(credentials: &Path, more: &str) -> String {
    let file = |name: &str| credentials.join(name).display().to_string();
    format!(
        "tls {{\n  cert_file: \"{}\"\n  key_file: \"{}\"\n  ca_file: \"{}\"\n{more}}}\n",
        file("nats.pem"),
        file("nats.key"),
        file("nats-ca.pem"),
    )
}

fn configuration(host: &Host, hosts: &[Host], credentials: Option<&Path>) -> String {
    let name = host.name();
    let store = host.folder().join(format!("{name}-jetstream"));
    let mut text = format!(
        "server_name: {name}\n\
         listen: \"{client}\"\n\
         http: \"{monitor}\"\n\
         # A hung peer is given up after two missed pings; the default is two minutes.\n\
         ping_interval: \"1s\"\n\
         ping_max: 2\n\
         jetstream {{\n  store_dir: \"{store}\"\n  max_memory_store: 64MB\n  max_file_store: 512MB\n}}\n",
        client = host.socket(CLIENT_PORT),
        monitor = host.socket(MONITOR_PORT),
        store = store.display(),
    );
    if hosts.len() > 1 {
        let routes: Vec<String> =
            hosts.iter().map(|peer| format!("    \"nats://{}\"\n", peer.socket(ROUTE_PORT))).collect();
        text += &format!(
            "cluster {{\n  name: lab\n  listen: \"{}\"\n  ping_interval: \"1s\"\n  ping_max: 2\n  routes: [\n{}  ]\n{}}}\n",
            host.socket(ROUTE_PORT),
            routes.concat(),
            credentials.map(|credentials| tls(credentials, "  verify: true\n")).unwrap_or_default(),
        );
    }
    if let Some(credentials) = credentials {
        // The servers look for it from where this configuration lies.
        let folder = credentials.file_name().unwrap_or_default().to_string_lossy().into_owned();
        text += &tls(credentials, "");
        text += &format!("include \"{folder}/{NATS_AUTH}\"\n");
    }
    text
}
