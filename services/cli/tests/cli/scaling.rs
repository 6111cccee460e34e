//! `scale` and `scaling`: what the leading autoscaler is asked, and how its word is told.

use std::sync::{Arc, Mutex};

use understudy_bus::EventLog;
use understudy_lab::wait_until_async;
use understudy_wire::{
    CloudEvent, ClusterId,
    v1::{
        ScalingDecided, ScalingFinding, ScalingInputs, ScalingOutcome, ScalingReply, ScalingRequest,
        ScalingRule, ScalingSize, ScalingSteering, scaling_request::Steer,
    },
};

use crate::support::*;

type Asked = Arc<Mutex<Vec<ScalingRequest>>>;

/// A leader of group web with N from 1 to 3: stores what it is asked, or says why not.
struct Leader {
    steering: ScalingSteering,
    decision: Option<ScalingDecided>,
    asked: Asked,
}

impl Leader {
    fn reply(&mut self, request: &ScalingRequest) -> ScalingReply {
        self.asked.lock().unwrap().push(request.clone());
        let refused = |reason: &str| ScalingReply { reason: reason.into(), ..Default::default() };
        if request.group != "web" {
            return refused(&format!(
                "group {0} is not scaled: it has no [group.{0}.scaling]",
                request.group
            ));
        }
        match request.steer {
            Some(Steer::Size(ScalingSize { active: Some(active), .. })) if !(1..=3).contains(&active) => {
                let must = "must be from 1 to 3, the min and max of the group";
                return refused(&format!("active = {active}: {must}"));
            }
            Some(Steer::Size(size)) => {
                self.steering.pinned = size.active.unwrap_or_default();
                self.steering.standby = size.standby;
            }
            Some(Steer::Pause(on)) => {
                self.steering.paused_by = if on { request.by.clone() } else { String::new() };
            }
            Some(Steer::GrantBudget(_)) => self.steering.budgets_granted += 1,
            None => {}
        }
        let (steering, decision) = (Some(self.steering.clone()), self.decision.clone());
        ScalingReply { accepted: true, reason: String::new(), steering, decision }
    }
}

/// Answers on both subjects of every group.
async fn leader(server: &Server, decision: Option<ScalingDecided>) -> Asked {
    let nats = server.client().await;
    let mut steered = nats.subscribe::<ScalingRequest>("command.*.scaling").await.unwrap();
    let mut explained = nats.subscribe::<ScalingRequest>("command.*.explain").await.unwrap();
    assert!(nats.flush(DEADLINE).await);
    let asked = Asked::default();
    let mut leader = Leader { steering: ScalingSteering::default(), decision, asked: Arc::clone(&asked) };
    tokio::spawn(async move {
        loop {
            let received = tokio::select! {
                Some(received) = steered.next() => received,
                Some(received) = explained.next() => received,
                else => return,
            };
            let reply = leader.reply(&received.message.unwrap());
            nats.respond(received.reply.as_ref().unwrap(), &reply);
        }
    });
    asked
}

/// What a run of the program with these words printed; it must have ended well and without a warning.
fn said(server: &Server, args: &[&str]) -> String {
    let ended = server.run(args);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{args:?}: {ended:?}");
    ended.out
}

fn finding(rule: ScalingRule, outcome: ScalingOutcome, reason: &str) -> ScalingFinding {
    ScalingFinding { rule: rule.into(), outcome: outcome.into(), reason: reason.into(), ..Default::default() }
}

fn decided(wish: u32, findings: Vec<ScalingFinding>) -> ScalingDecided {
    let inputs = ScalingInputs { serving: 2, wish, standby: 1, ready: 1, ..Default::default() };
    let (group, leader) = ("web".into(), "scaler-1".into());
    ScalingDecided { group, leader, epoch: 7, inputs: Some(inputs), findings }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_is_asked_for_and_what_is_stored_is_told() {
    let server = Server::start();
    let asked = leader(&server, None).await;
    let scale = |args: &[&str]| said(&server, &[&["scale", "--group", "web"], args].concat());
    assert_eq!(scale(&["--active", "3", "--standby", "2"]), "web: 3 active, 2 standby\n");
    assert_eq!(scale(&["--active", "1"]), "web: 1 active, standbys as configured\n");
    assert_eq!(scale(&["--standby", "2"]), "web: active as the load says, 2 standby\n");
    assert_eq!(scale(&["--auto"]), "web: active as the load says, standbys as configured\n");

    let asked = asked.lock().unwrap();
    let size = |active, standby| Some(Steer::Size(ScalingSize { active, standby }));
    let sizes = [size(Some(3), Some(2)), size(Some(1), None), size(None, Some(2)), size(None, None)];
    assert!(asked.iter().map(|request| request.steer).eq(sizes), "{asked:?}");
    assert!(asked.iter().all(|request| request.by.starts_with("ops@")), "{asked:?}");
    let mut names: Vec<_> = asked.iter().map(|request| &request.request).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 4, "each run is a request of its own: {asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_standbys_is_warned_of_and_yet_stored() {
    let server = Server::start();
    leader(&server, None).await;
    let ended = server.run(&["scale", "--group", "web", "--active", "2", "--standby", "0"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "web: 2 active, 0 standby\n"), "{ended:?}");
    assert_eq!(
        ended.err,
        "warning: without a standby a failed member is missed until its replacement has started\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_leader_is_told_with_its_reason() {
    let server = Server::start();
    leader(&server, None).await;
    let refusal = |args: &[&str]| {
        let ended = server.run(args);
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{args:?}: {ended:?}");
        ended.err
    };
    for active in ["0", "4", "65535"] {
        assert_eq!(
            refusal(&["scale", "--group", "web", "--active", active]),
            format!("error: refused: active = {active}: must be from 1 to 3, the min and max of the group\n")
        );
    }
    let unknown = "error: refused: group db is not scaled: it has no [group.db.scaling]\n";
    assert_eq!(refusal(&["scale", "--group", "db", "--active", "2"]), unknown);
    for word in ["pause", "resume", "grant-budget"] {
        assert_eq!(refusal(&["scaling", word, "--group", "db"]), unknown);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_says_who_asked_for_it_until_it_is_over() {
    let server = Server::start();
    let asked = leader(&server, None).await;
    let size = "active as the load says, standbys as configured";
    let paused = said(&server, &["scaling", "pause", "--group", "web"]);
    assert!(paused.starts_with(&format!("web: {size}; paused by ops@")), "{paused}");
    assert_eq!(said(&server, &["scaling", "grant-budget", "--group", "web"]), paused);
    assert_eq!(said(&server, &["scaling", "resume", "--group", "web"]), format!("web: {size}\n"));
    let asked: Vec<_> = asked.lock().unwrap().iter().map(|request| request.steer).collect();
    let words = [Steer::Pause(true), Steer::GrantBudget(true), Steer::Pause(false)];
    assert_eq!(asked, words.map(Some));
}

/// It may have been heard: the answer alone says that it was stored.
const SILENT: &str = "error: no autoscaler answered within 4.1s: none leads, or it is stored and its answer is late; \
                      see `understudy scaling explain --group web`\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_leader_nothing_is_changed_and_that_is_an_error() {
    let server = Server::start();
    let scale = || server.run(&["scale", "--group", "web", "--active", "2", "--timeout", "100ms"]);
    let ended = scale();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{ended:?}");
    assert_eq!(ended.err, "error: no autoscaler is connected to NATS\n");
    // One that only stands by hears the question and leaves it to the leader.
    let nats = server.client().await;
    let _standing_by = nats.subscribe::<ScalingRequest>("command.*.scaling").await.unwrap();
    assert!(nats.flush(DEADLINE).await);
    let ended = scale();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{ended:?}");
    assert_eq!(ended.err, SILENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_decisions_are_shown_and_every_rules_word_of_now() {
    let server = Server::start();
    let nats = server.client().await;
    let log = EventLog::start(&nats, "autoscaler/scaler-1");
    let spent = "web: 2 replacements in 1 min, stopped; cause: image exits with 127";
    let told = [
        finding(ScalingRule::ScaleOut, ScalingOutcome::Acted, "N from 1 to 2 is wanted; ready standbys: 1"),
        finding(ScalingRule::Budget, ScalingOutcome::Refused, spent),
    ];
    for (number, finding) in told.into_iter().enumerate() {
        let (cluster, key) = (ClusterId::new("demo").unwrap(), format!("7/{number}"));
        let event =
            CloudEvent::new(&cluster, &web(), log.source(), &key, &decided(2, vec![finding])).unwrap();
        log.publish(&event);
    }
    let stored = &nats.counters().events_stored;
    wait_until_async("events to be stored", DEADLINE, async || stored.value() >= 2).await.unwrap();
    let calm = finding(ScalingRule::Load, ScalingOutcome::Nothing, "cpu 0.40 of 0.70 wants 2");
    leader(&server, Some(decided(2, vec![calm]))).await;

    let explain = |last: &str| {
        let args = ["scaling", "explain", "--group", "web", "-n", last, "--timeout", "15s"];
        // Times are the only thing that is not the same in every run.
        let line = |line: &str| match line.split_once("  ") {
            Some((time, rest)) if time.contains(':') => format!("TIME  {rest}\n"),
            _ => format!("{line}\n"),
        };
        said(&server, &args).lines().map(line).collect::<String>()
    };
    let now = "\
now    active as the load says, standbys as configured
       autoscaler scaler-1: 2 active, 2 wanted, 1 of 1 standbys ready
       load nothing: cpu 0.40 of 0.70 wants 2
";
    let last = format!(
        "\
TIME  web  autoscaler scaler-1: 2 active, 2 wanted, 1 of 1 standbys ready
       budget refused: {spent}
"
    );
    let first = "\
TIME  web  autoscaler scaler-1: 2 active, 2 wanted, 1 of 1 standbys ready
       scale-out acted: N from 1 to 2 is wanted; ready standbys: 1
";
    assert_eq!(explain("0"), now);
    assert_eq!(explain("1"), format!("{last}{now}"));
    assert_eq!(explain("5"), format!("{first}{last}{now}"));
    let ended = server.run(&["scaling", "explain", "--group", "db", "--timeout", "15s"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{ended:?}");
    assert_eq!(ended.err, "error: refused: group db is not scaled: it has no [group.db.scaling]\n");
}

#[test]
fn what_cannot_be_meant_is_wrong_usage() {
    for args in [
        &["scale", "--group", "web"][..],
        &["scale", "--active", "2"],
        &["scale", "--group", "web", "--auto", "--active", "2"],
        &["scale", "--group", "web", "--active", "-1"],
        &["scale", "--group", "web", "--active", "65536"],
        &["scale", "--group", "we b", "--active", "2"],
        &["scaling", "pause"],
        &["scaling", "explain", "--group", "web", "-n", "1001"],
    ] {
        let ended = run(args);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{args:?}: {ended:?}");
        assert!(ended.err.starts_with("error: "), "{args:?}: {ended:?}");
    }
}
