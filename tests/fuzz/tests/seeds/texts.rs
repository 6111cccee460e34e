//! What travels as text.

use understudy_wire::{CloudEvent, ClusterId, EventBody, GroupId, v1};

use crate::{Seed, piece};

pub(crate) fn subjects() -> Vec<Seed> {
    let subject = |text: &str| format!("understudy.demo.{text}").into_bytes();
    vec![
        ("heartbeat", subject("heartbeat.web.web-a")),
        ("member", subject("member.web.web-a")),
        ("detector", subject("detector.3")),
        ("seat", subject("seat.3")),
        ("grant", subject("grant.web.web-a")),
        ("event", subject("event.web.takeover")),
        ("command", subject("command.all.status")),
    ]
}

/// An event as it is published, with a fixed time.
fn event<B: EventBody>(body: &B) -> Vec<u8> {
    let (cluster, group) = (ClusterId::new("demo").unwrap(), GroupId::new("web").unwrap());
    let mut event = CloudEvent::new(&cluster, &group, "executor/web-a", "0/17", body).unwrap();
    event.time = "2026-01-02T03:04:05.678Z".into();
    let mut text = format!("understudy.demo.event.web.{}\n", B::KIND);
    for (name, value) in event.headers() {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push_str("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n\n");
    [text.as_bytes(), &event.body].concat()
}

fn step() -> v1::Step {
    v1::Step {
        name: "open gate".into(),
        started_ms: 251.5,
        took_ms: 0.25,
        outcome: v1::StepOutcome::Done.into(),
        detail: "10.77.0.100".into(),
    }
}

fn decided() -> v1::ScalingDecided {
    let action = |key: &str, kind| v1::ScalingAction { key: key.into(), kind: Some(kind) };
    let start = v1::ScalingStart { node: "web-4".into(), domain: "r1".into(), ..Default::default() };
    let reading = v1::ScalingReading {
        signal: "cpu".into(),
        target: 0.5,
        mean: 0.75,
        heard: 2,
        missing: vec!["web-3 says nothing".into()],
        demand: 3.0,
        want: 3,
    };
    v1::ScalingDecided {
        group: "web".into(),
        leader: "scaler-1".into(),
        epoch: 17,
        inputs: Some(v1::ScalingInputs {
            open: 2,
            serving: 2,
            min: 1,
            max: 3,
            broken: vec!["web-3: image exits with 127".into()],
            vacant: vec![1],
            readings: vec![reading],
            forecast: Some(2.5),
            wish: 3,
            ..Default::default()
        }),
        findings: vec![v1::ScalingFinding {
            rule: v1::ScalingRule::ScaleOut.into(),
            outcome: v1::ScalingOutcome::Acted.into(),
            reason: "N from 2 to 3 is wanted".into(),
            actions: vec![
                action("web/open/2/0", v1::scaling_action::Kind::Open(2)),
                action("web/fill/web-4", v1::scaling_action::Kind::Start(start)),
            ],
        }],
    }
}

fn takeover() -> v1::Takeover {
    v1::Takeover {
        group: "web".into(),
        node: "web-a".into(),
        epoch: 17,
        previous: "web-b".into(),
        cause: "failover".into(),
        suspected_ms: Some(210.0),
        grants: vec![v1::SeatGrant { seat: 1, at_ms: 250.0 }],
        quorum_ms: 250.5,
        steps: vec![step()],
        serving_ms: 252.0,
        predicted_ms: Some(2.0),
        trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
        ..Default::default()
    }
}

pub(crate) fn events() -> Vec<Seed> {
    let (group, node, other) = ("web".to_owned(), "web-a".to_owned(), "web-b".to_owned());
    let judged = v1::NodeJudged {
        group: group.clone(),
        node: node.clone(),
        judgement: v1::Judgement::Failed.into(),
        phi: 8.5,
        ..Default::default()
    };
    let bare = v1::NodeJudged { node: node.clone(), phi: 8.5, ..Default::default() };
    // Protobuf JSON writes what is no finite number as text.
    let infinite = String::from_utf8(event(&bare)).unwrap().replace("8.5", "\"Infinity\"").into_bytes();
    let reason = "no ready standby".to_owned();
    let vacant = v1::SlotVacant { group: group.clone(), highest_epoch: 17, ..Default::default() };
    let failed = v1::TakeoverFailed { steps: vec![step()], step: "promote".into(), ..Default::default() };
    let demoted =
        v1::Demoted { steps: vec![step()], reason: "the lease ran out".into(), ..Default::default() };
    let proved =
        v1::TakeoverProved { witnesses: vec![other.clone()], announcements: 3, ..Default::default() };
    let dns = v1::DnsUpdated { answer: "applied".into(), attempts: 1, after_ms: 12.5, ..Default::default() };
    let maintenance = v1::MaintenanceChanged { group, node: node.clone(), on: true, by: "ops".into() };
    let switchover = v1::SwitchoverAsked { from: node, to: other, reason, ..Default::default() };
    let seat = v1::SeatTrouble { seat: 1, incarnation: 5, reason: "a rival".into() };
    vec![
        ("takeover", event(&takeover())),
        ("judged", event(&judged)),
        ("infinite", infinite),
        ("vacant", event(&vacant)),
        ("failed", event(&failed)),
        ("demoted", event(&demoted)),
        ("proved", event(&proved)),
        ("dns", event(&dns)),
        ("maintenance", event(&maintenance)),
        ("switchover", event(&switchover)),
        ("seat", event(&seat)),
        ("scaling", event(&decided())),
    ]
}

const MINIMAL: &str = include_str!("../../../../libs/service/tests/config/minimal.toml");

/// Everything that can be said but for one kind of check.
const FULL: &str = include_str!("../../../../libs/service/tests/config/full.toml");
const GRPC_CHECK: &str = "[[group.web.check]]\nkind = \"grpc\"\naddress = \"127.0.0.1:50051\"\n";

pub(crate) fn configurations() -> Vec<Seed> {
    let environment = "--- environment\nUNDERSTUDY_CLUSTER=other\nUNDERSTUDY_LEASE__DURATION=400ms\n\
                       UNDERSTUDY_GROUP__WEB__SLOT__0__VIPS=10.77.0.111/24\nUNDERSTUDY_NODE__LABELS=rack=r2\n";
    vec![
        ("minimal", MINIMAL.into()),
        ("full", [FULL, GRPC_CHECK].concat().into()),
        ("environment", format!("{MINIMAL}\n{environment}").into()),
        ("broken", MINIMAL.replace("10.77.0.100/24", "10.77.0.100").into()),
    ]
}

pub(crate) fn metrics() -> Vec<Seed> {
    let page = "# TYPE in_flight gauge\nin_flight{path=\"/a}b\"} 3 1700000000\n\
                in_flight{path=\"/c\"} 4.5 # {trace=\"1\"} 1\nin_flight_total 9\nin_flight NaN\n";
    vec![("page", format!("in_flight\0{page}").into())]
}

pub(crate) fn loads() -> Vec<Seed> {
    let stat = |idle: u32| {
        format!(
            "cpu  100 0 50 {idle} 7 0 3 0 0 0\ncpu0 100 0 50 {idle} 7 0 3 0 0 0\nctxt 9\nbtime 1800000000\nprocesses 77\nprocs_running 1\nprocs_blocked 0\n"
        )
    };
    let kibibytes = [
        "MemTotal",
        "MemFree",
        "MemAvailable",
        "Buffers",
        "Cached",
        "SwapCached",
        "Active",
        "Inactive",
        "SwapTotal",
        "SwapFree",
        "Dirty",
        "Writeback",
        "Slab",
        "VmallocTotal",
        "VmallocUsed",
    ];
    let memory: String = kibibytes.iter().map(|name| format!("{name}: 8000 kB\n")).collect();
    let pressure =
        "some avg10=12.50 avg60=1.00 avg300=0.50 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    let texts = [&stat(800), &stat(900), &*memory, pressure, pressure, pressure];
    vec![("host", texts.join("\0").into()), ("no-pressure", texts[..3].join("\0").into())]
}

pub(crate) fn values() -> Vec<Seed> {
    vec![
        ("ceiling", b"\x001000".into()),
        ("highest-ceiling", format!("\0{}", u64::MAX).into()),
        ("maintenance", b"\x01[[\"web\",\"web-a\"],[\"web\",\"web-b\"]]".into()),
        ("nobody", b"\x01[]".into()),
        ("size", b"\x02{\"serving\":2,\"open\":3}".into()),
        ("memory", MEMORY.into()),
    ]
}

const MEMORY: &[u8] = b"\x03{\"groups\":{\"web\":{\"repairs\":[{\"age_ms\":60000,\"root\":\"web-1\",\"node\":\"web-1\",\
                        \"incarnation\":7,\"restart\":true,\"cause\":\"disk gone\"}],\"roots\":{\"web-4\":\"web-1\"},\
                        \"replaced\":{\"web-1\":7}}}}";

pub(crate) fn outputs() -> Vec<Seed> {
    let lines = [&[0, 1][..], &piece(b"lag is 40 s\n"), &piece(b"too much\n")].concat();
    let killed = [&[9, 0][..], &piece(&[0xff; 64])].concat();
    vec![("lines", lines), ("killed", killed), ("silent", vec![3, 0])]
}
