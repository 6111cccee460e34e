use std::collections::BTreeMap;

use understudy_wire::v1::{
    Judgement, ScalingFinding, ScalingInputs, ScalingRule, SeatGrant, Step, StepOutcome,
};

use super::*;

fn stored<B: EventBody>(body: &B) -> StoredEvent {
    StoredEvent {
        sequence: 7,
        subject: format!("understudy.demo.event.web.{}", B::KIND),
        attributes: BTreeMap::from([("subject".into(), "web".into()), ("id".into(), "x".into())]),
        body: serde_json::to_vec(body).unwrap().into(),
    }
}

fn shown<B: EventBody>(body: &B) -> String {
    event("18:02:11.250", &stored(body))
}

fn step(name: &str, started_ms: f64, took_ms: f64, outcome: StepOutcome, detail: &str) -> Step {
    Step { name: name.into(), started_ms, took_ms, outcome: outcome.into(), detail: detail.into() }
}

#[test]
fn a_takeover_is_told_step_by_step() {
    let grant = |seat, at_ms| SeatGrant { seat, at_ms };
    let body = Takeover {
        group: "web".into(),
        slot: 0,
        node: "web-b".into(),
        epoch: 1018,
        previous: "web-a".into(),
        cause: "failover".into(),
        suspected_ms: Some(212.0),
        grants: vec![grant(3, 301.42), grant(1, 301.21), grant(2, 301.24)],
        quorum_ms: 301.24,
        steps: vec![
            step("add address", 301.3, 0.2, StepOutcome::Done, "10.77.0.100/24"),
            step("open gate", 301.5, 0.04, StepOutcome::Already, ""),
            step("announce", 301.6, 0.1, StepOutcome::Done, "10.77.0.100"),
            step("DNS", 302.0, 16.0, StepOutcome::Done, "web.ha.test. applied at 10.77.0.31:53"),
            step("verify", 301.7, 1.5, StepOutcome::TimedOut, "web-c behind 10.77.0.100"),
        ],
        serving_ms: 301.7,
        predicted_ms: Some(0.6),
        trace_id: String::new(),
    };
    let golden = "\
18:02:11.250  web  slot 0: web-a -> web-b, failover, epoch 1018, serving after 302 ms
        0.0 ms  last heartbeat of web-a
      212.0 ms  suspected
      301.2 ms  seats 1 2 grant to web-b
      301.2 ms  web-b has the quorum, epoch 1018
      301.4 ms  seat 3 grants to web-b
      301.5 ms  add address 10.77.0.100/24 (0.2 ms)
      301.5 ms  open gate, already so
      301.7 ms  announce 10.77.0.100 (0.1 ms)
      301.7 ms  web-b serves, 0.5 ms after the quorum, 0.6 ms predicted
      303.2 ms  verify web-c behind 10.77.0.100, TIMED OUT (1.5 ms)
      318.0 ms  DNS web.ha.test. applied at 10.77.0.31:53 (16.0 ms)
";
    assert_eq!(shown(&body), golden);
}

#[test]
fn every_kind_is_one_line() {
    let (group, node) = (String::from("web"), String::from("web-a"));
    let lines = [
        shown(&NodeJudged {
            group: group.clone(),
            node: node.clone(),
            judgement: Judgement::Unhealthy.into(),
            phi: 0.31,
            reason: "check http: 503".into(),
            seat: 2,
        }),
        shown(&SlotVacant {
            group: group.clone(),
            slot: 1,
            highest_epoch: 17,
            reason: "no candidate".into(),
            seat: 1,
        }),
        shown(&TakeoverFailed {
            node: node.clone(),
            epoch: 9,
            step: "promote".into(),
            reason: "exit status 1".into(),
            steps: vec![step("promote", 1.0, 20.0, StepOutcome::Failed, "exit status 1")],
            ..Default::default()
        }),
        shown(&Demoted {
            node: node.clone(),
            epoch: 9,
            reason: "lease ran out".into(),
            ..Default::default()
        }),
        shown(&TakeoverProved {
            node: node.clone(),
            vip: "10.77.0.100".into(),
            witnesses: vec!["web-b".into(), "web-c".into()],
            announcements: 2,
            after_ms: 3.21,
            ..Default::default()
        }),
        shown(&DnsUpdated {
            epoch: 9,
            name: "web.ha.test.".into(),
            server: "10.77.0.31:53".into(),
            answer: "failed".into(),
            reason: "timed out".into(),
            attempts: 2,
            after_ms: 2_000.0,
            ..Default::default()
        }),
        shown(&MaintenanceChanged { group, node, on: true, by: "ops@desk".into() }),
        shown(&SwitchoverAsked {
            from: "web-a".into(),
            reason: "no ready standby".into(),
            ..Default::default()
        }),
        shown(&SeatTrouble { seat: 3, incarnation: 1, reason: "two processes".into() }),
    ];
    let golden = "\
18:02:11.250  web  web-a is unhealthy (phi 0.3), says seat 2: check http: 503
18:02:11.250  web  slot 1 is VACANT after epoch 17, says seat 1: no candidate
18:02:11.250  web  slot 0: takeover by web-a FAILED at promote, epoch 9: exit status 1
       21.0 ms  promote exit status 1, FAILED (20.0 ms)
18:02:11.250  web  slot 0: web-a gave up epoch 9: lease ran out
18:02:11.250  web  slot 0: web-a seen behind 10.77.0.100 by web-b web-c after 3.2 ms and 2 announcements
18:02:11.250  web  slot 0: DNS web.ha.test. at 10.77.0.31:53: failed, epoch 9, 2 tries, 2.0 s: timed out
18:02:11.250  web  maintenance of web-a on, by ops@desk
18:02:11.250  web  slot 0: switchover from web-a to the first in line REFUSED: no ready standby
18:02:11.250  web  seat 3 in trouble: two processes
";
    assert_eq!(lines.concat(), golden);
}

fn finding(rule: ScalingRule, outcome: ScalingOutcome, reason: &str) -> ScalingFinding {
    ScalingFinding { rule: rule.into(), outcome: outcome.into(), reason: reason.into(), actions: Vec::new() }
}

#[test]
fn a_decision_is_told_with_every_rule_that_wants_something() {
    let decided = ScalingDecided {
        leader: "scaler-1".into(),
        inputs: Some(ScalingInputs { serving: 2, wish: 3, standby: 1, ..Default::default() }),
        findings: vec![
            finding(ScalingRule::Load, ScalingOutcome::Nothing, "cpu 0.90 of 0.70 wants 3"),
            finding(ScalingRule::ScaleOut, ScalingOutcome::Waits, "no standby is ready"),
        ],
        ..Default::default()
    };
    let golden = "\
18:02:11.250  web  autoscaler scaler-1: 2 active, 3 wanted, 0 of 1 standbys ready
       scale-out waits: no standby is ready
";
    assert_eq!(shown(&decided), golden);
}

#[test]
fn no_kind_of_event_is_forgotten() {
    for (kind, _) in understudy_wire::event::ALL {
        let event = StoredEvent {
            sequence: 1,
            subject: format!("understudy.demo.event.web.{kind}"),
            attributes: BTreeMap::new(),
            body: "{}".into(),
        };
        let (line, _) = describe(&event).unwrap();
        assert!(!line.ends_with("{}"), "{kind} is shown raw: {line}");
    }
}

#[test]
fn what_cannot_be_read_is_shown_as_it_came() {
    let mut broken = stored(&SeatTrouble::default());
    broken.body = "{\"seat\": \"\x1b[2J\"".into();
    let text = event("t", &broken);
    assert!(
        text.starts_with("t  web  seat (unreadable: ") && text.ends_with("): {\"seat\": \" [2J\"\n"),
        "{text}"
    );
    broken.subject = "understudy.demo.event.web.novel".into();
    assert_eq!(event("t", &broken), "t  web  novel: {\"seat\": \" [2J\"\n");
    let json = super::super::event_json(&broken);
    assert_eq!(json["raw"], "{\"seat\": \"\x1b[2J\"");
    assert_eq!((&json["group"], &json["kind"]), (&"web".into(), &"novel".into()));
}
