//! Nothing stays behind: after a drop, a panic, a signal, a kill.

// Clippy takes only functions marked #[test] for tests, not what they share.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use understudy_lab::{Cleanup, Launch, Network, Process, sweep, wait_until};

const DEADLINE: Duration = Duration::from_secs(10);
/// Set in a copy of this test program that is to be killed: the value says how it runs.
const VICTIM: &str = "UNDERSTUDY_LAB_VICTIM";

fn namespaces(prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(prefix)).collect()
}

fn runs(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; whoever started it has only not asked yet.
    !state.is_empty() && !state.contains(") Z ")
}

fn sleeper(network: &Network) -> Process {
    let host = network.host_numbered("host", 1).unwrap();
    Launch::new(&host, "sleeper", "sleep").arguments(["1000"]).spawn().unwrap()
}

#[test]
fn a_dropped_network_is_gone() {
    let network = Network::create("drop").unwrap();
    let prefix = network.prefix().to_owned();
    let folder = network.folder().to_owned();
    let host = network.host_numbered("host", 1).unwrap();
    assert_eq!(namespaces(&prefix).len(), 2);
    // A daemon that left its group and its parent: it is found by its namespace.
    host.run(
        "sh",
        ["-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $! > \"$0\"", folder.join("pid").to_str().unwrap()],
    )
    .unwrap();
    let pid = std::fs::read_to_string(folder.join("pid")).unwrap().trim().parse().unwrap();
    assert!(runs(pid));

    drop(network);
    assert_eq!(namespaces(&prefix), [""; 0]);
    assert!(!folder.exists());
    wait_until("the daemon to end", DEADLINE, || !runs(pid)).unwrap();
    assert!(host.enter(|| ()).is_err(), "a host of a network that is gone cannot be entered");
}

#[test]
fn a_panic_leaves_nothing_but_the_logs() {
    let mut seen = None;
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let network = Network::create("panic").unwrap();
        let process = sleeper(&network);
        seen = Some((network.prefix().to_owned(), network.folder().to_owned(), process.pid()));
        panic!("as a failed test does");
    }));
    assert!(panic.is_err());
    let (prefix, folder, pid) = seen.unwrap();
    assert_eq!(namespaces(&prefix), [""; 0]);
    assert!(!runs(pid));
    assert!(folder.join("sleeper.log").exists());
    std::fs::remove_dir_all(folder).unwrap();
}

/// Not a test of its own: the program that the two tests below end from outside.
#[test]
fn victim() {
    let Ok(kind) = std::env::var(VICTIM) else { return };
    let _cleanup = (kind == "cleanup").then(|| Cleanup::install().unwrap());
    let network = Network::create("victim").unwrap();
    let process = sleeper(&network);
    println!("\nvictim {} {}", network.prefix(), process.pid());
    // Until the end, or until the test that waits for it is gone.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn start_victim(kind: &str) -> (Child, String, u32) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line =
        lines.map_while(Result::ok).find(|line| line.starts_with("victim ")).expect("the victim is ready");
    let words: Vec<&str> = line.split(' ').collect();
    (child, words[1].to_owned(), words[2].parse().unwrap())
}

#[test]
fn an_interrupted_run_cleans_up() {
    let (mut child, prefix, pid) = start_victim("cleanup");
    assert_eq!(namespaces(&prefix).len(), 2);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(namespaces(&prefix), [""; 0]);
    wait_until("the sleeper to end", DEADLINE, || !runs(pid)).unwrap();
    assert!(!Path::new("/tmp/understudy-lab").join(prefix).exists());
}

#[test]
fn what_a_killed_run_left_is_swept_and_what_lives_is_not() {
    let live = Network::create("live").unwrap();
    let (mut child, prefix, pid) = start_victim("plain");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    // Its processes end with it (the kernel sees to that), its namespaces stay until somebody sweeps.
    wait_until("the sleeper to end", DEADLINE, || !runs(pid)).unwrap();
    sweep();
    assert_eq!(namespaces(&prefix), [""; 0]);
    assert_eq!(namespaces(live.prefix()).len(), 1);
}
