use understudy_wire::v1::SeatGrant;

use super::*;

fn step(name: &str, started_ms: f64, took_ms: f64, detail: &str) -> Step {
    Step {
        name: name.to_owned(),
        started_ms,
        took_ms,
        outcome: StepOutcome::Done.into(),
        detail: detail.to_owned(),
    }
}

/// What a failover of two VIPs leaves.
fn failover() -> Takeover {
    Takeover {
        group: "web".to_owned(),
        node: "web-b".to_owned(),
        epoch: 1017,
        previous: "web-a".to_owned(),
        cause: "failover".to_owned(),
        suspected_ms: Some(212.04),
        grants: [(3, 301.2), (1, 301.0), (2, 302.9)].map(|(seat, at_ms)| SeatGrant { seat, at_ms }).into(),
        quorum_ms: 301.2,
        steps: vec![
            step("add address", 301.3, 0.5, "10.77.0.100/24"),
            step("add address", 301.8, 0.3, "fd77::100/64"),
            step("open gate", 302.1, 0.2, ""),
            step("announce", 302.3, 0.2, "10.77.0.100"),
            step("announce", 302.5, 0.01, "fd77::100"),
            step("verify", 302.5, 9.0, "web-a web-c behind fd77::100"),
            step("DNS", 302.6, 15.2, "web.ha.test. applied at 10.77.0.31:53"),
            step("verify", 302.4, 4.0, "web-c behind 10.77.0.100"),
        ],
        serving_ms: 302.6,
        predicted_ms: Some(1.25),
        ..Takeover::default()
    }
}

#[test]
fn a_failover_is_told_moment_by_moment() {
    let expected = "      0.0 ms  last heartbeat of web-a
    212.0 ms  suspected (phi 3.1)
    301.2 ms  seats 1 3 grant to web-b
    301.2 ms  web-b has the quorum, epoch 1017 (failover)
    301.8 ms  address 10.77.0.100/24 and fd77::100/64 added (0.5 ms)
    302.3 ms  gate open (0.2 ms)
    302.5 ms  announced 10.77.0.100 and fd77::100 (0.2 ms)
    302.6 ms  web-b serves, 1.4 ms after the quorum, 1.2 ms predicted
    302.9 ms  seat 2 grants to web-b too
    306.4 ms  web-c sees web-b behind 10.77.0.100 (4.0 ms)
    311.5 ms  web-a web-c see web-b behind fd77::100 (9.0 ms)
    317.8 ms  DNS web.ha.test. applied at 10.77.0.31:53, epoch 1017 (15.2 ms)
";
    assert_eq!(timeline(&failover(), Some(3.06)), expected);
}

#[test]
fn a_first_takeover_has_no_old_holder_and_no_suspicion() {
    let first = Takeover {
        node: "web-a".to_owned(),
        epoch: 1,
        cause: "first".to_owned(),
        grants: vec![SeatGrant { seat: 2, at_ms: 0.0 }],
        quorum_ms: 0.4,
        serving_ms: 1.4,
        ..Takeover::default()
    };
    let expected = "      0.0 ms  first grant
      0.0 ms  seat 2 grants to web-a
      0.4 ms  web-a has the quorum, epoch 1 (first)
      1.4 ms  web-a serves, 1.0 ms after the quorum
";
    assert_eq!(timeline(&first, None), expected);
}

#[test]
fn a_step_that_failed_says_so_and_is_not_called_done() {
    let mut takeover = failover();
    takeover.steps = vec![Step {
        outcome: StepOutcome::TimedOut.into(),
        ..step("promote", 301.3, 5000.0, "hook /usr/bin/promote web-b")
    }];
    let text = timeline(&takeover, None);
    assert!(
        text.contains("   5301.3 ms  promote hook /usr/bin/promote web-b, TIMED OUT (5000.0 ms)\n"),
        "{text}"
    );
}

#[test]
fn foreign_text_neither_steers_the_terminal_nor_leaves_the_page() {
    let mut takeover = failover();
    takeover.steps = vec![step("DNS", 302.0, 1.0, &format!("a\x1b[2J{{}} {}", "word ".repeat(40)))];
    let text = timeline(&takeover, None);
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
}
