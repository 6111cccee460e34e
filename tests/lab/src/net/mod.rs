//! A switch with hosts on it, each in a network namespace of its own, and faults in the switch.

mod faults;
mod host;
mod namespace;
mod sweep;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::{Context, Result, bail};
use ipnet::{Ipv4Net, Ipv6Net};

use faults::Faults;
pub use faults::Traffic;
pub use host::Host;
use host::Port;
pub(crate) use sweep::remove_all;
pub use sweep::{prefixes, sweep};

/// Hosts a network can have; their numbers go into two bytes of the MAC address, and the bridge takes 1,024.
const MOST_HOSTS: u16 = 500;
/// Name of the bridge in the switch's namespace.
const BRIDGE: &str = "br0";
/// Number of networks this process has made, for their prefixes.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A switch and its hosts. Dropping it kills what runs in the hosts and removes all namespaces, also while
/// panicking (then the folder with the logs stays, and its path is printed).
#[derive(Debug)]
pub struct Network {
    prefix: String,
    folder: PathBuf,
    switch: String,
    hosts: Mutex<BTreeMap<String, Host>>,
    faults: Mutex<Faults>,
    keep: AtomicBool,
}

impl Network {
    /// Makes an empty network; `name` shows in the name of its namespaces and of its folder (keep it short).
    ///
    /// # Errors
    /// When not root, or `ip` is missing or fails.
    pub fn create(name: &str) -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| {
            sweep();
        });
        check_name(name)?;
        let prefix = sweep::prefix(COUNTER.fetch_add(1, Ordering::Relaxed), name);
        // A leftover under this very prefix is of a dead process that had our pid.
        sweep::remove(&prefix);
        sweep::register(&prefix);
        let folder = sweep::folder(&prefix);
        let network = Self {
            switch: format!("{prefix}-switch"),
            prefix,
            folder,
            hosts: Mutex::default(),
            faults: Mutex::default(),
            keep: AtomicBool::new(false),
        };
        // From here on a failure drops the network, which removes what is there already.
        std::fs::create_dir_all(&network.folder)
            .with_context(|| format!("making {}", network.folder.display()))?;
        network.create_switch().with_context(|| format!("making the switch of network {name}"))?;
        Ok(network)
    }

    fn create_switch(&self) -> Result<()> {
        let switch = &self.switch;
        let making = sweep::making()?;
        namespace::ip_batch(None, &format!("netns add {switch}\n"))?;
        drop(making);
        // The switch itself has no address: no neighbour discovery, no listener reports of its own.
        namespace::sysctl(
            switch,
            &[("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")],
        )?;
        // Where br_netfilter is there (Docker loads it), every frame that a bridge forwards goes through the firewall of
        // IP as well, in the sender's time. A switch has none.
        if Path::new("/proc/sys/net/bridge").exists() {
            let firewalls =
                ["iptables", "ip6tables", "arptables"].map(|of| format!("bridge/bridge-nf-call-{of}"));
            let settings: Vec<_> = firewalls.iter().map(|key| (key.as_str(), "0")).collect();
            namespace::sysctl(switch, &settings)?;
        }
        namespace::ip_batch(
            Some(switch),
            &format!(
                "link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0 mcast_querier 0\n\
                 link set {BRIDGE} up\n"
            ),
        )
    }

    /// Adds a host with one interface `eth0` on the switch and these addresses (`10.77.0.11/24`, `fd77::11/64`).
    ///
    /// # Errors
    /// A name that is taken or unfit, an address that does not parse, or a failing `ip`.
    pub fn host(&self, name: &str, ipv4: &str, ipv6: &str) -> Result<Host> {
        let ipv4: Ipv4Net = ipv4.parse().with_context(|| format!("IPv4 address {ipv4} of host {name}"))?;
        let ipv6: Ipv6Net = ipv6.parse().with_context(|| format!("IPv6 address {ipv6} of host {name}"))?;
        self.add(name, ipv4, ipv6, Port::Host)
    }

    /// As [`Network::host`], with the addresses `10.77.0.<number>/24` and `fd77::<number>/64` (same digits).
    ///
    /// # Errors
    /// As [`Network::host`].
    pub fn host_numbered(&self, name: &str, number: u8) -> Result<Host> {
        self.host(name, &format!("10.77.0.{number}/24"), &format!("fd77::{number}/64"))
    }

    /// A host that asks one node for `vip` at its MAC address, whatever ARP or neighbour discovery say: what
    /// answers there is served by that node. The faults below leave it alone, so it sees also behind a cut.
    /// The node knows it by a permanent entry too, so that its questions never make the node send ARP.
    /// One per node; asked again it learns further addresses.
    ///
    /// # Errors
    /// As [`Network::host`].
    pub fn watcher(&self, node: &Host, vip: IpAddr) -> Result<Host> {
        let name = format!("eye-{}", node.name());
        let known = self.hosts().get(&name).cloned();
        let eye = match known {
            Some(eye) => eye,
            None => self.create_watcher(&name, node)?,
        };
        namespace::ip_batch(
            Some(eye.namespace()),
            &format!("neigh replace {vip} lladdr {} dev eth0 nud permanent\n", node.mac()),
        )?;
        Ok(eye)
    }

    fn create_watcher(&self, name: &str, node: &Host) -> Result<Host> {
        let back = self.hosts().len() as u32 + 1;
        // From the top of the node's subnets downwards, where tests number from the bottom upwards.
        let ipv4 = Ipv4Addr::from(u32::from(node.ipv4_net().broadcast()) - back);
        let ipv6 = Ipv6Addr::from(u128::from(node.ipv6_net().broadcast()) - u128::from(back));
        let eye = self.add(
            name,
            Ipv4Net::new(ipv4, node.ipv4_net().prefix_len())?,
            Ipv6Net::new(ipv6, node.ipv6_net().prefix_len())?,
            Port::Eye,
        )?;
        let mac = eye.mac();
        namespace::ip_batch(
            Some(node.namespace()),
            &format!(
                "neigh replace {ipv4} lladdr {mac} dev eth0 nud permanent\n\
                 neigh replace {ipv6} lladdr {mac} dev eth0 nud permanent\n"
            ),
        )?;
        Ok(eye)
    }

    fn add(&self, name: &str, ipv4: Ipv4Net, ipv6: Ipv6Net, port: Port) -> Result<Host> {
        check_name(name)?;
        let mut hosts = self.hosts();
        if hosts.contains_key(name) {
            bail!("network {} has a host {name} already", self.prefix);
        }
        if hosts.values().any(|host| host.ipv4() == ipv4.addr() || host.ipv6() == ipv6.addr()) {
            bail!("an address of host {name} ({ipv4}, {ipv6}) is taken");
        }
        let number = hosts.len() as u16 + 1;
        if number > MOST_HOSTS {
            bail!("network {} has {MOST_HOSTS} hosts already", self.prefix);
        }
        let host = Host::new(&self.prefix, &self.folder, name, number, ipv4, ipv6, port);
        host.create(&self.switch).with_context(|| format!("making host {name}"))?;
        hosts.insert(name.to_owned(), host.clone());
        Ok(host)
    }

    /// What `host` sends is received, by the switch and by whom it is for, on another processor (RPS): as between hosts,
    /// and not in the time of the process that sends it.
    ///
    /// # Errors
    /// An unknown host, or a kernel that refuses.
    pub fn receive_on(&self, host: &str, processor: usize) -> Result<()> {
        let queue = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", self.find(host)?.port());
        // /sys shows the network of whoever mounted it, which this does.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.switch, "tee", &queue]);
        namespace::run(command, &format!("{:x}", 1_u64 << processor)).map(drop)
    }

    /// Whether the folder with the logs stays when the network goes: for a test that ends with an error.
    pub fn keep_folder(&self, keep: bool) {
        self.keep.store(keep, Ordering::Relaxed);
    }

    /// Prefix of all its namespaces, unique on the machine.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Folder of its logs and of the data of its servers.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Result<Host> {
        self.hosts().get(name).cloned().with_context(|| format!("network {} has no host {name}", self.prefix))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        sweep::remove(&self.prefix);
        sweep::unregister(&self.prefix);
        if std::thread::panicking() || self.keep.load(Ordering::Relaxed) {
            eprintln!("logs of the failed run are kept in {}", self.folder.display());
        } else {
            sweep::remove_folder(&self.folder);
        }
    }
}

/// Names become parts of namespace names and file names.
fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 40
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !fits {
        bail!("name {name:?}: 1 to 40 of a-z, 0-9 and - are right");
    }
    Ok(())
}
