//! `events` and `watch`: what was, and what is happening.

use std::{
    io::{BufRead as _, BufReader},
    process::{ChildStdout, Stdio},
    sync::mpsc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use understudy_bus::{EventLog, Nats};
use understudy_lab::wait_until_async;
use understudy_wire::{
    CloudEvent, ClusterId, GroupId, Subject,
    v1::{Judgement, SeatTrouble, Verdict},
};

use crate::support::*;

fn trouble(group: &str, number: u64) -> CloudEvent {
    let body = SeatTrouble { seat: 2, incarnation: number, reason: format!("number {number}") };
    let group = GroupId::new(group).unwrap();
    CloudEvent::new(&ClusterId::new("demo").unwrap(), &group, "detector/2", &number.to_string(), &body)
        .unwrap()
}

async fn stored(nats: &Nats, count: u64) {
    let stored = &nats.counters().events_stored;
    wait_until_async("events to be stored", DEADLINE, async || stored.value() >= count).await.unwrap();
}

/// Lines of a program that runs, read beside the test so that waiting has a deadline.
fn lines(process: &mut Process) -> mpsc::Receiver<String> {
    let out: ChildStdout = process.0.stdout.take().unwrap();
    let (sender, receiver) = mpsc::sync_channel(1_024);
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn wait_for(lines: &mpsc::Receiver<String>, part: &str) -> String {
    loop {
        let line = lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no line with {part:?}"));
        if line.contains(part) {
            return line;
        }
    }
}

fn interrupt(mut process: Process) -> Option<i32> {
    kill(Pid::from_raw(process.0.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    process.0.wait().unwrap().code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_is_shown_and_followed() {
    let server = Server::start();
    let nats = server.client().await;
    let log = EventLog::start(&nats, "detector/2");
    for number in 1..=4 {
        log.publish(&trouble(if number == 2 { "db" } else { "web" }, number));
    }
    stored(&nats, 4).await;
    let ended = server.run(&["events", "--last", "2", "--group", "web", "--timeout", "15s"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let texts: Vec<_> = ended.out.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(texts, ["web  seat 2 in trouble: number 3", "web  seat 2 in trouble: number 4"]);
    let ended = server.run(&["events", "--json", "--timeout", "15s"]);
    let json: Vec<serde_json::Value> =
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json.len(), 4);
    let of = |index: usize| {
        (json[index]["kind"].as_str(), json[index]["group"].as_str(), json[index]["data"]["seat"].as_u64())
    };
    assert_eq!(of(1), (Some("seat"), Some("db"), Some(2)));

    for group in [&[][..], &["--group", "web"]] {
        let mut process =
            server.spawn(&[&["events", "--follow", "--last", "1", "--timeout", "15s"], group].concat());
        let shown = lines(&mut process);
        let count = nats.counters().events_stored.value();
        wait_for(&shown, &format!("number {count}"));
        log.publish(&trouble("web", count + 1));
        // The next line is the new one: nothing is shown twice.
        assert!(shown.recv_timeout(DEADLINE).unwrap().ends_with(&format!("number {}", count + 1)));
        stored(&nats, count + 1).await;
        assert_eq!(interrupt(process), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watching_shows_events_verdicts_and_changes_of_the_state() {
    let server = Server::start();
    let answers = detectors(&server, calm()).await;
    let nats = server.client().await;
    let log = EventLog::start(&nats, "detector/2");
    let mut process = server.spawn(&["watch", "--seats", "3"]);
    let shown = lines(&mut process);
    wait_for(&shown, "= web: slot 0 on web-a since epoch 1017");
    log.publish(&trouble("web", 1));
    wait_for(&shown, "web  seat 2 in trouble: number 1");
    let verdict = Verdict {
        cluster: "demo".into(),
        group: "web".into(),
        node: "web-a".into(),
        seat: 2,
        judgement: Judgement::Failed.into(),
        ..Default::default()
    };
    nats.publish(&Subject::Verdict(web(), node("web-a")), &verdict);
    wait_for(&shown, "web  seat 2 judges web-a failed");
    *answers.lock().unwrap() = (1..=3).map(|seat| answer(seat, Some("web-b"), 1018)).collect();
    wait_for(&shown, "= web: slot 0 on web-b since epoch 1018");
    assert_eq!(interrupt(process), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watching_for_programs_is_one_object_a_line() {
    let server = Server::start();
    detectors(&server, calm()).await;
    let mut process = server.spawn(&["watch", "--json", "--group", "web", "--seats", "3"]);
    let shown = lines(&mut process);
    let state: serde_json::Value = serde_json::from_str(&shown.recv_timeout(DEADLINE).unwrap()).unwrap();
    assert_eq!(state["data"]["groups"][0]["slots"][0]["holder"], "web-a");
    assert_eq!(interrupt(process), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let server = Server::start();
    detectors(&server, calm()).await;
    let mut process = server.spawn(&["status", "--seats", "3"]);
    drop(process.0.stdout.take());
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
}

/// As after a restart of the servers: the stream cannot be asked for longer than one answer takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_still_electing_is_asked_again() {
    let server = Server::start();
    let nats = server.client().await;
    let args = ["events", "--follow", "--nats", &server.url, "--cluster", "demo"];
    let mut process = Process(program(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(process.0.stderr.take().unwrap());
    // It says so when its time limit is over, and goes on.
    let mut note = String::new();
    said.read_line(&mut note).unwrap();
    assert!(note.starts_with("note: JetStream: "), "{note:?}");
    assert!(note.ends_with("asking again for 10s: an election may be going on\n"), "{note:?}");
    let shown = lines(&mut process);
    let log = EventLog::start(&nats, "detector/2");
    log.publish(&trouble("web", 7));
    wait_for(&shown, "number 7");
    // Followed by now, and so it minds the interrupt.
    log.publish(&trouble("web", 8));
    wait_for(&shown, "number 8");
    assert_eq!(interrupt(process), Some(0));
}
