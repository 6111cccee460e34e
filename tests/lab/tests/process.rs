//! Programs in hosts: signals, logs, restarts, waiting.

// Clippy takes only functions marked #[test] for tests, not what they share.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use understudy_lab::{Launch, Network, Process, wait_until, wait_until_async};

const DEADLINE: Duration = Duration::from_secs(5);

fn state(process: &Process) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn wait_state(process: &Process, states: &str) {
    wait_until(&format!("state {states}"), DEADLINE, || {
        state(process).is_some_and(|state| states.contains(state))
    })
    .unwrap();
}

#[test]
fn a_process_is_stopped_continued_terminated_and_started_again() {
    let network = Network::create("proc").unwrap();
    let host = network.host_numbered("host", 1).unwrap();
    let script = "echo \"$WHO sees $(grep -c eth0 /proc/net/dev)\"; exec sleep 1000";
    let process = Launch::new(&host, "script", "sh")
        .arguments(["-c", script])
        .environment("WHO", "it")
        .spawn()
        .unwrap();
    wait_until("its first line", DEADLINE, || process.log_text() == "it sees 1\n").unwrap();

    process.stop().unwrap();
    wait_state(&process, "T");
    assert!(process.is_running());
    process.cont().unwrap();
    wait_state(&process, "SR");
    process.terminate().unwrap();
    process.wait_exit(DEADLINE).unwrap();
    assert!(!process.is_running());
    // To one that has ended nothing is sent: its number may be another's by now.
    process.kill9().unwrap();

    let first = process.pid();
    process.restart().unwrap();
    assert!(process.is_running() && process.pid() != first);
    wait_until("its second line", DEADLINE, || process.log_text().lines().count() == 2).unwrap();
    process.kill9().unwrap();
    assert!(!process.is_running());
}

#[test]
fn a_process_started_anew_lacks_for_once_what_it_is_told_to() {
    let network = Network::create("lack").unwrap();
    let host = network.host_numbered("host", 1).unwrap();
    // Addresses can be changed all the same.
    let script = "nft list tables && echo has || echo lacks; ip address add 10.9.9.9/32 dev lo && \
                  ip address delete 10.9.9.9/32 dev lo && echo moves; exec sleep 1000";
    let process = Launch::new(&host, "script", "sh").arguments(["-c", script]).spawn().unwrap();
    let mut seen = 0;
    let mut says = |process: &Process, expected: [&str; 2]| {
        let text = wait_until("both answers", DEADLINE, || {
            let text = process.log_text();
            (text[seen..].lines().filter(|line| ["has", "lacks", "moves"].contains(line)).count() == 2)
                .then_some(text)
        });
        let text = text.unwrap();
        let said: Vec<&str> =
            text[seen..].lines().filter(|line| ["has", "lacks", "moves"].contains(line)).collect();
        assert_eq!(said, expected, "{text}");
        seen = text.len();
    };
    says(&process, ["has", "moves"]);
    process.restart_as(Launch::without_nftables).unwrap();
    says(&process, ["lacks", "moves"]);
    process.restart().unwrap();
    says(&process, ["has", "moves"]);
    // Through a starter its words come whole and in order, and the process is the program itself.
    let through = |launch: Launch| Ok(launch.through("env", ["-u", "HOME"]));
    process.restart_as(through).unwrap();
    says(&process, ["has", "moves"]);
    let program = || std::fs::read_to_string(format!("/proc/{}/comm", process.pid())).unwrap();
    wait_until("the program in the starter's place", DEADLINE, || program() == "sleep\n").unwrap();
}

#[test]
fn what_a_thread_started_outlives_the_thread() {
    let network = Network::create("thread").unwrap();
    let host = network.host_numbered("host", 1).unwrap();
    let process =
        std::thread::spawn(move || Launch::new(&host, "cat", "sleep").arguments(["1000"]).spawn().unwrap())
            .join()
            .unwrap();
    // A parent-death signal of that thread would have come before its end was known.
    assert!(process.is_running());
    wait_state(&process, "S");
}

#[test]
fn a_wait_ends_with_the_value_or_says_what_it_waited_for() {
    let mut count = 0;
    let value = wait_until("three", DEADLINE, || {
        count += 1;
        (count == 3).then_some(count)
    });
    assert_eq!(value.unwrap(), 3);
    let error = wait_until("nothing", Duration::from_millis(20), || false).unwrap_err();
    assert!(error.to_string().contains("in vain for nothing"), "{error}");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let error = runtime.block_on(wait_until_async("nobody", Duration::from_millis(20), async || None::<()>));
    assert!(error.unwrap_err().to_string().contains("nobody"));
}

#[test]
fn a_process_that_ends_instead_of_getting_ready_shows_its_log() {
    let network = Network::create("ready").unwrap();
    let host = network.host_numbered("host", 1).unwrap();
    let process =
        Launch::new(&host, "bad", "sh").arguments(["-c", "echo the reason >&2; exit 3"]).spawn().unwrap();
    let error = format!("{:#}", process.wait_ready(DEADLINE, || false).unwrap_err());
    assert!(error.contains("bad ended") && error.contains("the reason"), "{error}");
}
