//! Nothing stays behind: after a drop, a panic, a signal, a kill.

// Clippy takes only functions marked #[test] for tests, not what they share.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
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

fn folder(prefix: &str) -> PathBuf {
    std::env::temp_dir().join("understudy-lab").join(prefix)
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

/// A copy of this program that waits to be ended.
struct Victim {
    child: Child,
    // Both kept open: it would end by itself without the one, and could not print without the other.
    _input: ChildStdin,
    _output: ChildStdout,
    prefix: String,
    pid: u32,
}

fn start_victim(kind: &str) -> Victim {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("victim ") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the victim ended before it was ready");
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let (prefix, pid) = (words[1].to_owned(), words[2].parse().unwrap());
    Victim { child, _input: input, _output: output.into_inner(), prefix, pid }
}

#[test]
fn an_interrupted_run_cleans_up() {
    let mut victim = start_victim("cleanup");
    let (child, prefix, pid) = (&mut victim.child, &victim.prefix, victim.pid);
    assert_eq!(namespaces(prefix).len(), 2);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(namespaces(prefix), [""; 0]);
    wait_until("the sleeper to end", DEADLINE, || !runs(pid)).unwrap();
    assert!(!folder(prefix).exists());
}

#[test]
fn what_a_killed_run_left_is_swept_and_what_lives_is_not() {
    let live = Network::create("live").unwrap();
    let mut victim = start_victim("plain");
    let (child, prefix, pid) = (&mut victim.child, &victim.prefix, victim.pid);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    // Its processes end with it (the kernel sees to that), its namespaces stay until somebody sweeps.
    wait_until("the sleeper to end", DEADLINE, || !runs(pid)).unwrap();
    sweep();
    // Another test program may be sweeping the same ones at this moment.
    wait_until("its namespaces to be gone", DEADLINE, || namespaces(prefix).is_empty()).unwrap();
    assert_eq!(namespaces(live.prefix()).len(), 1);
    // Its logs are kept for a day, to be read.
    std::fs::remove_dir_all(folder(prefix)).unwrap();
}
