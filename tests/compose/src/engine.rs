//! The engine, by the commands that people use.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use understudy_lab::tool;

/// For a page of a server beside the stack.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many containers Compose may take away at once. The fewest that 1.29 takes: Engine 20.10 miscounts the endpoints of
/// a network that several leave at once while somebody lists networks, and then never removes it (moby/moby#43286).
pub const FEW: &str = "2";

/// Runs `docker` with these arguments; what it printed.
///
/// # Errors
/// When it fails; with what it said.
pub fn docker(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(arguments);
    said(&mut command)
}

/// Which Compose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compose {
    /// As it is installed here: the plugin (v2), else docker-compose (1.29).
    Installed,
    /// v2, of `target/tools`.
    V2,
}

/// The deployment of this repository under a name of its own.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    pub(crate) root: PathBuf,
    pub(crate) compose: Compose,
    /// What the file reads from the environment.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

impl Project {
    /// Runs Compose with its name; what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = compose_command(&self.root, self.compose)?;
        // For what is filled in: 1.29 fills in what `.env` says, whatever -p says.
        command.env("COMPOSE_PROJECT_NAME", crate::PROJECT);
        if arguments.first() == Some(&"down") {
            command.env("COMPOSE_PARALLEL_LIMIT", FEW);
        }
        command.envs(self.environment.iter().copied()).args(["-p", crate::PROJECT]).args(arguments);
        said(&mut command)
    }
}

/// A command of Compose in this folder.
///
/// # Errors
/// When it is not installed.
pub fn compose_command(root: &Path, compose: Compose) -> Result<Command> {
    static PLUGIN: OnceLock<bool> = OnceLock::new();
    let mut command = match compose {
        Compose::V2 => Command::new(tool("docker-compose-v2")?),
        Compose::Installed => {
            let plugin = *PLUGIN.get_or_init(|| {
                let asked = Command::new("docker").args(["compose", "version"]).output();
                asked.is_ok_and(|output| output.status.success())
            });
            let mut command = Command::new(if plugin { "docker" } else { "docker-compose" });
            if plugin {
                command.arg("compose");
            }
            command
        }
    };
    // As a shell in this folder has it: paths of the host are filled in from it.
    command.current_dir(root).env("PWD", root);
    Ok(command)
}

/// Runs a command to its end; what it printed.
///
/// # Errors
/// When it cannot be started or fails; with what it said.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}, {}", String::from_utf8_lossy(&stderr).trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// A container, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container(pub String);

impl Container {
    /// What the engine says of it.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn inspect(&self) -> Result<Value> {
        let text = docker(&["inspect", "--type", "container", &self.0])?;
        let mut all: Vec<Value> = serde_json::from_str(&text).context("reading docker inspect")?;
        all.pop().with_context(|| format!("the engine knows nothing of {}", self.0))
    }

    /// Its first process, as the host sees it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<i64> {
        let pid = self.inspect()?["State"]["Pid"].as_i64().unwrap_or(0);
        ensure!(pid > 0, "{} does not run", self.0);
        Ok(pid)
    }

    /// IP address of its first interface.
    ///
    /// # Errors
    /// When it is in no network.
    pub fn address(&self) -> Result<IpAddr> {
        let address = self.of_its_network("IPAddress")?;
        address.parse().with_context(|| format!("{}: address {address:?}", self.0))
    }

    /// MAC address of its first interface.
    ///
    /// # Errors
    /// When it is in no network.
    pub fn mac(&self) -> Result<String> {
        self.of_its_network("MacAddress")
    }

    fn of_its_network(&self, what: &str) -> Result<String> {
        let inspected = self.inspect()?;
        let networks = inspected["NetworkSettings"]["Networks"].as_object();
        let found = networks.and_then(|networks| networks.values().next()?[what].as_str());
        let found = found.filter(|found| !found.is_empty());
        Ok(found.with_context(|| format!("{} is in no network", self.0))?.to_owned())
    }

    /// The network namespace that it runs in.
    ///
    /// # Errors
    /// When it does not run.
    pub fn namespace(&self) -> Result<Namespace> {
        let path = PathBuf::from(format!("/proc/{}/ns/net", self.pid()?));
        Ok(Namespace(File::open(&path).with_context(|| format!("opening {}", path.display()))?))
    }
}

/// A network namespace, kept as long as this is.
#[derive(Debug)]
pub struct Namespace(pub(crate) File);

impl Namespace {
    /// The same, for another thread.
    ///
    /// # Errors
    /// When no more files can be open.
    pub fn again(&self) -> Result<Self> {
        Ok(Self(self.0.try_clone().context("another handle of the network namespace")?))
    }

    /// `GET` of a page as seen from there; its body.
    ///
    /// # Errors
    /// When nobody answers within some seconds, or not with 200.
    pub fn fetch(&self, address: SocketAddr, path: &str) -> Result<String> {
        let (inside, path) = (self.again()?, path.to_owned());
        let asking = std::thread::spawn(move || {
            inside.join()?;
            get(address, &path).with_context(|| format!("asking {address} for {path}"))
        });
        asking.join().map_err(|_| anyhow!("the thread that asks {address} panicked"))?
    }

    /// Puts the calling thread into it, for good.
    ///
    /// # Errors
    /// When the kernel refuses (CAP_SYS_ADMIN).
    pub fn join(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).context("entering the container's network namespace")
    }
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer comes whole and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    ensure!(head.contains(" 200 "), "{answer}");
    Ok(body.to_owned())
}
