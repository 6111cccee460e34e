//! What happens to the gate when its process does not live on: killed, stopped, started anew.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use understudy_vip::boottime_ns;

use crate::segment::{GUARDS, Namespace, Segment, VIP4, VIP6, add_vips, install, own4, own6};
use crate::traffic::{last_sent_until_refused, refused, wait_until};

const MS: u64 = 1_000_000;

/// How long the child holds the gate open, in milliseconds; only the child has it.
const HOLD: &str = "UNDERSTUDY_VIP_TEST_HOLD_MS";

/// Not a test by itself: the process that the others kill or stop. It opens its gate once.
#[test]
fn holder() {
    let Ok(hold) = std::env::var(HOLD) else { return };
    let gate = install("web");
    let until = boottime_ns() + hold.parse::<u64>().unwrap() * MS;
    gate.open(&GUARDS, until).unwrap();
    println!("open until {until}");
    loop {
        std::thread::park();
    }
}

/// A process that holds the gate, killed when dropped.
struct Holder {
    child: Child,
    until: u64,
}

impl Holder {
    fn start(node: &Namespace, hold_ms: u64) -> Holder {
        let mut child = node.run(|| async {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "death::holder", "--nocapture"])
                .env(HOLD, hold_ms.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let until = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once("open until ").map(|(_, until)| until.parse().unwrap()))
            .expect("the holder ended before it opened its gate");
        Holder { child, until }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all_refused() -> bool {
    [(VIP4, own4(0)), (VIP6, own6(0))].into_iter().all(|(vip, own): (IpAddr, IpAddr)| refused(vip, own))
}

#[test]
fn a_killed_process_leaves_the_gate_shut() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    add_vips(node);
    let mut holder = Holder::start(node, 600_000);
    node.run(|| async {
        assert!(!all_refused());
        holder.signal(Signal::SIGKILL);
        let killed = boottime_ns();
        wait_until("shut after kill -9", all_refused);
        let took = (boottime_ns() - killed) / MS;
        assert!(took < 100, "took {took} ms");
    });
    holder.child.wait().unwrap();
    let tables = node.nft("list tables");
    assert_eq!(tables, "table inet understudy_fence_web\ntable arp understudy_fence_web\n");
    // The next run takes over at once.
    node.run(|| async {
        let gate = install("web");
        assert!(all_refused());
        gate.open(&GUARDS, boottime_ns() + 600_000 * MS).unwrap();
        assert!(!all_refused());
    });
}

#[test]
fn a_stopped_process_goes_dark_in_time_and_stays_so() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    add_vips(node);
    let holder = Holder::start(node, 300);
    holder.signal(Signal::SIGSTOP);
    node.run(|| async {
        assert!(last_sent_until_refused(holder.until) < holder.until);
        assert!(all_refused());
        holder.signal(Signal::SIGCONT);
        assert!(all_refused());
    });
}
