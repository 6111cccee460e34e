//! Made-up histories, each with one thing in it that must be found.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::*;
use crate::nemesis::schedule::Fault;

/// CLOCK_REALTIME at boot.
const WALL: Duration = Duration::from_secs(1_700_000_000);
const CUT: u64 = 3_000;
const TAKEN: u64 = 3_300;
const HEALED: u64 = 4_000;
const RESUMED: u64 = 10_000;

fn ns(ms: u64) -> u64 {
    ms * 1_000_000
}

fn answer(by: &str, node: &str, ms: u64, took_ms: u64) -> Line {
    let (by, node, tick) = (by.to_owned(), node.to_owned(), usize::try_from(ms).unwrap());
    Line::Answer { slot: 0, probe: 1, tick, by, node, sent: ns(ms), received: ns(ms + took_ms) }
}

/// `node` answers client and watcher from `from` to `to`, every ten milliseconds.
fn serves(node: &str, from: u64, to: u64) -> impl Iterator<Item = Line> {
    let times = (from..to).step_by(10);
    times.flat_map(move |ms| [answer(CLIENT, node, ms, 1), answer(node, node, ms, 0)])
}

fn takeover(node: &str, epoch: u64, ms: u64) -> Line {
    let time: SystemTime = UNIX_EPOCH + WALL + Duration::from_millis(ms);
    let time = humantime::format_rfc3339_millis(time).to_string();
    let headers = [("ce-type", "understudy.v1.Takeover"), ("ce-time", &time)];
    Line::Event {
        at: ns(ms + 1),
        via: "nats-1".to_owned(),
        subject: "understudy.lab.event.web.takeover".to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: json!({ "group": "web", "node": node, "epoch": epoch.to_string() }),
    }
}

fn dns(ms: u64, epoch: u64) -> Line {
    let record = format!("\"understudy=1 slot=0 epoch={epoch} addresses=10.77.0.100\"");
    Line::Dns { at: ns(ms), records: Some(vec![record]) }
}

fn struck(ms: u64, action: Action, on: &str) -> Line {
    let (begin, end) = (ms, ms + 500);
    let fault = Fault { number: 0, begin, end, action, on: vec![on.to_owned()], peers: Vec::new() };
    Line::Struck { at: ns(ms), fault }
}

/// web-a is cut off, web-b follows, all is healed.
fn good() -> Vec<Line> {
    let mut lines = vec![
        Line::Begin {
            at: ns(1_000),
            wall_ns: u64::try_from(WALL.as_nanos()).unwrap() + ns(1_000),
            seed: 1,
            faults: 1,
        },
        takeover("web-a", 5, 900),
        dns(1_500, 5),
        struck(CUT, Action::Isolate, "web-a"),
        takeover("web-b", 6, TAKEN + 40),
        Line::Dns { at: ns(TAKEN + 50), records: None },
        dns(TAKEN + 60, 6),
        Line::Mended { at: ns(HEALED), number: 0 },
        Line::Healed { at: ns(HEALED), round: 0 },
        Line::Resumed { at: ns(RESUMED), round: 0 },
        Line::End { at: ns(RESUMED + 100) },
    ];
    lines.extend(serves("web-a", 1_000, CUT));
    lines.extend(serves("web-b", TAKEN, RESUMED + 50));
    lines
}

fn check(lines: impl IntoIterator<Item = Line>) -> Verdict {
    let mut recorded = Recorded::default();
    lines.into_iter().for_each(|line| recorded.add(line));
    recorded.judge()
}

/// As it would be read from a file.
fn violations(lines: Vec<Line>) -> Vec<Violation> {
    let read = |line: Line| serde_json::from_str(&serde_json::to_string(&line).unwrap()).unwrap();
    check(lines.into_iter().map(read)).violations
}

fn with(more: impl IntoIterator<Item = Line>) -> Vec<Violation> {
    violations(good().into_iter().chain(more).collect())
}

fn without(unwanted: impl Fn(&Line) -> bool) -> Vec<Line> {
    good().into_iter().filter(|line| !unwanted(line)).collect()
}

fn is_takeover_of(line: &Line, node: &str) -> bool {
    matches!(line, Line::Event { body, .. } if body["node"] == node)
}

fn asked_between(line: &Line, from: u64, to: u64) -> bool {
    matches!(line, Line::Answer { sent, .. } if (ns(from)..ns(to)).contains(sent))
}

#[test]
fn a_good_history_is_good() {
    let verdict = check(good());
    assert_eq!(verdict.violations, []);
    assert_eq!((verdict.faults, verdict.tenures, verdict.excused), (1, 2, 0));
    assert_eq!(verdict.epochs, Some((5, 6)));
    assert_eq!(verdict.filled, [Duration::ZERO]);
    assert!((0.95..0.99).contains(&verdict.served), "{}", verdict.served);
}

#[test]
fn two_answering_in_one_millisecond_is_found() {
    let nodes = ["web-a", "web-b"].map(str::to_owned).into();
    let found = with([answer("web-a", "web-a", 3_300, 1), answer("web-b", "web-b", 3_300, 1)]);
    assert!(found.contains(&Violation::TwoAnswering { slot: 0, at: ns(3_300), nodes }), "{found:?}");
}

#[test]
fn an_answer_that_waited_in_a_stopped_workload_is_not_two_answering() {
    assert_eq!(with([answer("web-a", "web-a", 3_300, 11)]), []);
}

#[test]
fn questions_of_two_probes_are_not_of_one_millisecond() {
    let mut other = answer("web-a", "web-a", 3_300, 1);
    if let Line::Answer { probe, sent, .. } = &mut other {
        *probe = 2;
        *sent = ns(2_995);
    }
    assert_eq!(with([other]), []);
}

#[test]
fn an_epoch_that_goes_back_is_found() {
    let mut lines = without(|line| is_takeover_of(line, "web-b"));
    lines.push(takeover("web-b", 4, TAKEN + 40));
    let claim = |node: &str, epoch| Claim { epoch, node: node.to_owned() };
    let (earlier, later) = (claim("web-a", 5), claim("web-b", 4));
    assert_eq!(violations(lines), [Violation::EpochBack { slot: 0, earlier, later }]);
}

#[test]
fn an_epoch_of_two_nodes_is_found() {
    let mut lines = without(|line| is_takeover_of(line, "web-b"));
    lines.push(takeover("web-b", 5, TAKEN + 40));
    let nodes: BTreeSet<String> = ["web-a", "web-b"].map(str::to_owned).into();
    let found = violations(lines);
    assert!(found.contains(&Violation::EpochTwice { slot: 0, epoch: 5, nodes }), "{found:?}");
}

/// Also when the second one never came to serve, or to take over.
#[test]
fn an_epoch_of_two_nodes_is_found_in_other_events() {
    let mut demoted = takeover("web-c", 6, TAKEN + 80);
    if let Line::Event { headers, .. } = &mut demoted {
        headers.insert("ce-type".to_owned(), "understudy.v1.Demoted".to_owned());
    }
    let nodes = ["web-b", "web-c"].map(str::to_owned).into();
    assert_eq!(with([demoted]), [Violation::EpochTwice { slot: 0, epoch: 6, nodes }]);
}

#[test]
fn a_slot_that_is_filled_too_late_is_found() {
    let late = without(|line| asked_between(line, CUT, HEALED + 5_010));
    let mut late: Vec<Line> = late.into_iter().filter(|line| !is_takeover_of(line, "web-b")).collect();
    late.push(takeover("web-b", 6, HEALED + 5_020));
    let after = Some(Duration::from_millis(5_010));
    assert_eq!(violations(late), [Violation::NotFilled { slot: 0, round: 0, after }]);
}

#[test]
fn a_slot_that_is_filled_and_falls_dark_again_is_found() {
    let found = violations(without(|line| asked_between(line, HEALED + 4_800, HEALED + 5_200)));
    let after = Some(Duration::from_millis(5_200));
    assert_eq!(found, [Violation::NotFilled { slot: 0, round: 0, after }]);
    let found = violations(without(|line| asked_between(line, RESUMED - 350, RESUMED + 100)));
    assert_eq!(found, [Violation::NotFilled { slot: 0, round: 0, after: None }]);
}

#[test]
fn a_slot_that_is_never_filled_is_found() {
    let dark = without(|line| asked_between(line, CUT, RESUMED + 100) || is_takeover_of(line, "web-b"));
    assert_eq!(violations(dark), [Violation::NotFilled { slot: 0, round: 0, after: None }]);
}

#[test]
fn a_zone_that_goes_back_is_found() {
    let back = [dns(6_000, 5), dns(6_020, 6)];
    assert_eq!(with(back), [Violation::DnsBack { slot: 0, at: ns(6_000), from: 6, to: Some(5) }]);
    let gone = [Line::Dns { at: ns(6_000), records: Some(Vec::new()) }, dns(6_020, 6)];
    assert_eq!(with(gone), [Violation::DnsBack { slot: 0, at: ns(6_000), from: 6, to: None }]);
}

#[test]
fn a_zone_that_does_not_follow_is_found() {
    let lines = without(|line| *line == dns(TAKEN + 60, 6));
    let holder = Claim { epoch: 6, node: "web-b".to_owned() };
    assert_eq!(violations(lines), [Violation::DnsBehind { slot: 0, zone: Some(5), holder }]);
}

#[test]
fn a_change_of_holder_without_its_event_is_found() {
    let untold = || without(|line| is_takeover_of(line, "web-b"));
    let missing = [Violation::NoTakeover { slot: 0, node: "web-b".to_owned(), at: ns(TAKEN) }];
    assert_eq!(violations(untold()), missing);
    // One of an earlier tenure is not it, nor one of another node.
    let others = [takeover("web-b", 6, TAKEN - 200), takeover("web-c", 7, TAKEN + 40), dns(TAKEN + 70, 7)];
    assert_eq!(violations(untold().into_iter().chain(others).collect()), missing);
    // Another process, another node, too late, or only stopped: no excuse.
    for (ms, action, on) in [
        (TAKEN + 100, Action::Kill, "web-b-heartbeat"),
        (TAKEN + 100, Action::Kill, "web-a-executor"),
        (TAKEN + 4_001, Action::Kill, "web-b-executor"),
        (TAKEN + 100, Action::Stop, "web-b-executor"),
    ] {
        let found = violations(untold().into_iter().chain([struck(ms, action, on)]).collect());
        assert_eq!(found, missing, "{on} {action:?} at {ms}");
    }
    // An executor that was killed before it can have told.
    let killed = untold().into_iter().chain([struck(TAKEN + 100, Action::Kill, "web-b-executor")]);
    let verdict = check(killed);
    assert_eq!((verdict.violations, verdict.excused), (Vec::new(), 1));
    // One that told before it was killed needs no excuse, and its epoch counts.
    let told = untold()
        .into_iter()
        .chain([takeover("web-b", 4, TAKEN + 40), struck(TAKEN + 100, Action::Kill, "web-b-executor")]);
    let verdict = check(told);
    assert!(matches!(verdict.violations[..], [Violation::EpochBack { .. }]), "{:?}", verdict.violations);
    assert_eq!(verdict.excused, 0);
}

/// Its 4 s to tell count from the end of what hindered it: cut off from all NATS servers, or stopped. One that had the
/// time is found, and what hindered another, or not enough, is no excuse.
#[test]
fn an_executor_that_was_hindered_until_shortly_before_its_end_is_excused() {
    let untold = || without(|line| is_takeover_of(line, "web-b"));
    let missing = [Violation::NoTakeover { slot: 0, node: "web-b".to_owned(), at: ns(TAKEN) }];
    let hindered = |action: Action, on: &str, peers: &[&str], mended: u64| {
        let (mut first, mut last) =
            (struck(TAKEN + 50, action, on), struck(TAKEN + 6_000, Action::Kill, "web-b-executor"));
        if let (Line::Struck { fault: first, .. }, Line::Struck { fault: last, .. }) = (&mut first, &mut last)
        {
            (first.number, last.number) = (1, 2);
            first.peers = peers.iter().map(|peer| (*peer).to_owned()).collect();
        }
        check(untold().into_iter().chain([first, Line::Mended { at: ns(mended), number: 1 }, last]))
    };
    let all = ["detector-1", "nats-1", "nats-2", "nats-3"];
    for (action, on, peers) in [
        (Action::Isolate, "web-b", &[][..]),
        (Action::Cut, "web-b", &all[..]),
        (Action::Stop, "web-b-executor", &[]),
    ] {
        let late = hindered(action, on, peers, TAKEN + 2_000);
        assert_eq!((late.violations, late.excused), (Vec::new(), 1), "{action:?}");
        assert_eq!(
            hindered(action, on, peers, TAKEN + 1_999).violations,
            missing,
            "{action:?} with time left"
        );
    }
    for (action, on, peers) in [
        (Action::Isolate, "web-a", &[][..]),
        (Action::Cut, "web-b", &all[..2]),
        (Action::Stop, "web-b-heartbeat", &[]),
    ] {
        assert_eq!(hindered(action, on, peers, TAKEN + 2_000).violations, missing, "{action:?} {on}");
    }
}

#[test]
fn each_of_two_tenures_of_a_node_needs_its_event() {
    // web-a takes the slot back at 6 s, and only its second takeover was told.
    let mut lines = without(|line| asked_between(line, 6_000, RESUMED + 100));
    lines.extend(serves("web-a", 6_010, 7_000));
    lines.extend(serves("web-b", 7_010, 8_000));
    lines.extend(serves("web-a", 8_010, RESUMED + 50));
    lines.extend([takeover("web-b", 8, 7_050), takeover("web-a", 9, 8_050), dns(8_060, 9)]);
    let missing = Violation::NoTakeover { slot: 0, node: "web-a".to_owned(), at: ns(6_010) };
    assert_eq!(violations(lines.clone()), [missing]);
    lines.push(takeover("web-a", 7, 6_050));
    assert_eq!(violations(lines), []);
}

#[test]
fn a_process_that_ended_by_itself_is_found() {
    let ended = Line::Ended { at: ns(HEALED), process: "detector-2".to_owned() };
    assert_eq!(with([ended]), [Violation::Ended { process: "detector-2".to_owned(), at: ns(HEALED) }]);
}

#[test]
fn a_panic_is_found() {
    let (process, text) = ("web-b-executor".to_owned(), "thread 'main' panicked at seat.rs:1".to_owned());
    let panicked = Line::Panicked { process: process.clone(), text: text.clone() };
    assert_eq!(with([panicked]), [Violation::Panicked { process, text }]);
}

#[test]
fn a_history_that_shows_nothing_is_not_good() {
    let cut_off = violations(without(|line| matches!(line, Line::End { .. })));
    assert_eq!(cut_off, [Violation::Incomplete("the history is cut off before its end")]);
    let unwatched = violations(without(|line| matches!(line, Line::Resumed { .. })));
    assert_eq!(unwatched, [Violation::Incomplete("a healing was not watched to its end")]);
    let deaf = violations(without(|line| matches!(line, Line::Event { .. })));
    assert!(deaf.contains(&Violation::Incomplete("no event tells of a takeover")), "{deaf:?}");
    assert_eq!(violations(Vec::new()).len(), 8);
}
