//! Network segments to test on: namespaces around a bridge, gone when the test ends.

use std::fs::File;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};
use understudy_vip::gate::{Gate, GateConfig, Guard};

/// The addresses that move.
pub(crate) const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
pub(crate) const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100));
pub(crate) const VIPS: [IpAddr; 2] = [VIP4, VIP6];
pub(crate) const GUARDS: [Guard; 2] = [Guard::Address(VIP4), Guard::Address(VIP6)];

pub(crate) const MARK: u32 = 0x4000_0000;

/// Name of every member's interface.
pub(crate) const INTERFACE: &str = "eth0";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, removed when dropped.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new() -> Namespace {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("understudy-vip-{}-{number}", std::process::id());
        command("ip", &["netns", "add", &name]);
        let namespace = Namespace { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` with these words in the namespace.
    pub(crate) fn ip(&self, words: &str) -> String {
        let mut arguments = vec!["-n", &self.name];
        arguments.extend(words.split_whitespace());
        command("ip", &arguments)
    }

    /// Runs `nft` with this input in the namespace.
    pub(crate) fn nft(&self, input: &str) -> String {
        command("ip", &["netns", "exec", &self.name, "nft", input])
    }

    /// Moves the calling thread into the namespace.
    pub(crate) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// Runs a future in the namespace, on a thread and runtime of its own.
    pub(crate) fn run<T: Send, F: Future<Output = T>>(&self, future: impl FnOnce() -> F + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(future())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Members at one bridge. Member `i` has 10.77.0.(i+1)/24 and fd77::(i+1)/64 on `eth0`.
pub(crate) struct Segment {
    pub(crate) members: Vec<Namespace>,
    _bridge: Namespace,
}

pub(crate) fn own4(member: usize) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(member + 1).unwrap()).into()
}

pub(crate) fn own6(member: usize) -> IpAddr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::try_from(member + 1).unwrap()).into()
}

impl Segment {
    pub(crate) fn new(members: usize) -> Segment {
        let bridge = Namespace::new();
        bridge.ip("link add br0 type bridge mcast_snooping 0");
        bridge.ip("link set br0 up");
        let members = (0..members).map(|number| member(&bridge, number)).collect();
        Segment { members, _bridge: bridge }
    }
}

fn member(bridge: &Namespace, number: usize) -> Namespace {
    let namespace = Namespace::new();
    let ends = format!("link add {INTERFACE} type veth peer name port{number} netns {}", bridge.name);
    namespace.ip(&ends);
    bridge.ip(&format!("link set port{number} master br0 up"));
    namespace.ip(&format!("link set {INTERFACE} up"));
    namespace.ip(&format!("address add {}/24 dev {INTERFACE}", own4(number)));
    namespace.ip(&format!("address add {}/64 dev {INTERFACE} nodad", own6(number)));
    namespace
}

/// Puts both VIPs on a member, without the help of the crate.
pub(crate) fn add_vips(namespace: &Namespace) {
    namespace.ip(&format!("address add {VIP4}/24 dev {INTERFACE}"));
    namespace.ip(&format!("address add {VIP6}/64 dev {INTERFACE} nodad"));
}

/// Installs a gate for both VIPs in the calling thread's namespace.
pub(crate) fn install(name: &str) -> Gate {
    Gate::install(config(name), &GUARDS).unwrap()
}

pub(crate) fn config(name: &str) -> GateConfig {
    GateConfig { name: name.to_owned(), mark: MARK }
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
