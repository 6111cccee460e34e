use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use ipnet::{Ipv4Net, Ipv6Net};

use super::{BRIDGE, namespace, sweep};

/// What hangs on a port of the switch; shows in the port's name, by which fault rules tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// An ordinary host: `h<number>`.
    Host,
    /// A watcher of [`super::Network::watcher`]: `e<number>`; faults do not touch it.
    Eye,
}

/// One host of a [`super::Network`]: a namespace with one interface `eth0`. Cheap to clone; it does not keep the
/// network alive.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    namespace: String,
    folder: PathBuf,
    port: String,
    mac: String,
    ipv4: Ipv4Net,
    ipv6: Ipv6Net,
}

impl Host {
    pub(super) fn new(
        prefix: &str,
        folder: &Path,
        name: &str,
        number: u16,
        ipv4: Ipv4Net,
        ipv6: Ipv6Net,
        port: Port,
    ) -> Self {
        let letter = if port == Port::Eye { 'e' } else { 'h' };
        let [high, low] = number.to_be_bytes();
        Self(Arc::new(Inner {
            name: name.to_owned(),
            namespace: format!("{prefix}-{name}"),
            folder: folder.to_owned(),
            port: format!("{letter}{number}"),
            // Locally administered, the same in every run, so that traces of two runs can be compared.
            mac: format!("02:75:73:00:{high:02x}:{low:02x}"),
            ipv4,
            ipv6,
        }))
    }

    pub(super) fn create(&self, switch: &str) -> Result<()> {
        let Inner { namespace, port, mac, ipv4, ipv6, .. } = &*self.0;
        let making = sweep::making()?;
        namespace::ip_batch(
            None,
            &format!(
                "netns add {namespace}\n\
                 link add {port} netns {switch} type veth peer name eth0 netns {namespace} address {mac}\n"
            ),
        )?;
        drop(making);
        // No duplicate address detection and no router to wait for: addresses are usable at once. Addresses
        // stay when the interface goes down, as an administrator's do on a host that is to come back.
        namespace::sysctl(
            namespace,
            &[
                // A new namespace copies the machine's IPv4 settings. Where those forward (Docker sets it), a node
                // would pass on what it is asked for another one's address.
                ("ipv4/ip_forward", "0"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/eth0/rp_filter", "0"),
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/eth0/accept_dad", "0"),
                ("ipv6/conf/eth0/dad_transmits", "0"),
                ("ipv6/conf/eth0/router_solicitations", "0"),
                ("ipv6/conf/eth0/accept_ra", "0"),
                ("ipv6/conf/eth0/keep_addr_on_down", "1"),
            ],
        )?;
        namespace::ip_batch(Some(switch), &format!("link set {port} master {BRIDGE} up\n"))?;
        namespace::ip_batch(
            Some(namespace),
            &format!(
                "link set lo up\nlink set eth0 up\naddr add {ipv4} dev eth0\naddr add {ipv6} dev eth0 nodad\n"
            ),
        )?;
        namespace::wait_carrying(namespace, "eth0", true)?;
        namespace::wait_carrying(switch, port, true)
    }

    /// Name within its network.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Name of its namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Folder of its network, for logs and data.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// MAC address of `eth0`.
    pub fn mac(&self) -> &str {
        &self.0.mac
    }

    /// Its own IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.0.ipv4.addr()
    }

    /// Its own IPv6 address.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.0.ipv6.addr()
    }

    /// Its own IPv4 address and the length of the prefix.
    pub fn ipv4_net(&self) -> Ipv4Net {
        self.0.ipv4
    }

    /// Its own IPv6 address and the length of the prefix.
    pub fn ipv6_net(&self) -> Ipv6Net {
        self.0.ipv6
    }

    /// Its IPv4 address with a port.
    pub fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ipv4()), port)
    }

    /// Port of the switch that it hangs on.
    pub(super) fn port(&self) -> &str {
        &self.0.port
    }

    /// Runs `work` on a thread of its own inside the namespace and returns its result. Sockets made there stay
    /// there for good; a tokio runtime that is made and driven there lives there with its threads.
    ///
    /// # Errors
    /// When the network is gone.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R> {
        namespace::enter(self.namespace(), work)
    }

    /// Starts a named thread inside the namespace.
    ///
    /// # Errors
    /// When the network is gone or no thread can be had.
    pub fn thread<R: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<JoinHandle<R>> {
        // A thread inherits the namespace of the one that starts it.
        self.enter(|| std::thread::Builder::new().name(name.to_owned()).spawn(work))?
            .with_context(|| format!("starting thread {name} in host {}", self.name()))
    }

    /// A command that will run inside the namespace, to its end, as a tool does; for what is to keep running
    /// see [`crate::Launch`].
    ///
    /// # Errors
    /// When the network is gone.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        namespace::command(self.namespace(), program)
    }

    /// Runs a tool inside the namespace and returns what it printed.
    ///
    /// # Errors
    /// When it cannot start or exits with another status than 0; with what it wrote to standard error.
    pub fn run<I: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = I>,
    ) -> Result<String> {
        self.run_with_input(program, arguments, "")
    }

    /// As [`Host::run`], with `input` on its standard input.
    ///
    /// # Errors
    /// As [`Host::run`].
    pub fn run_with_input<I: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = I>,
        input: &str,
    ) -> Result<String> {
        let mut command = self.command(program)?;
        command.args(arguments);
        namespace::run(command, input).with_context(|| format!("in host {}", self.name()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
