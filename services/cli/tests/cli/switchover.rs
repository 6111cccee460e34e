//! `switchover`: the holder's word, and what comes of it.

use std::sync::{Arc, Mutex};

use understudy_bus::EventLog;
use understudy_wire::{
    CloudEvent, ClusterId, EventBody,
    v1::{SwitchoverReply, SwitchoverRequest, Takeover, TakeoverFailed},
};

use crate::support::*;

type Asked = Arc<Mutex<Vec<SwitchoverRequest>>>;

/// The executor that holds the slot: `answer` says what it does with the n-th request.
async fn executor(
    server: &Server,
    answer: impl Fn(usize, &SwitchoverRequest) -> Option<SwitchoverReply> + Send + 'static,
) -> Asked {
    let nats = server.client().await;
    let mut requests = nats.subscribe::<SwitchoverRequest>("command.web.switchover").await.unwrap();
    assert!(nats.flush(DEADLINE).await);
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some(received) = requests.next().await {
            let request = received.message.unwrap();
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push(request.clone());
                seen.len()
            };
            if let Some(reply) = answer(number, &request) {
                nats.respond(received.reply.as_ref().unwrap(), &reply);
            }
        }
    });
    asked
}

fn accepted() -> SwitchoverReply {
    SwitchoverReply {
        accepted: true,
        from: "web-a".into(),
        to: "web-b".into(),
        epoch: 1017,
        ..Default::default()
    }
}

fn event<B: EventBody>(body: &B) -> CloudEvent {
    CloudEvent::new(&ClusterId::new("demo").unwrap(), &web(), "executor/web-b", "0/1018", body).unwrap()
}

fn takeover(node: &str) -> CloudEvent {
    event(&Takeover {
        group: "web".into(),
        node: node.into(),
        epoch: 1018,
        previous: "web-a".into(),
        cause: "switchover".into(),
        quorum_ms: 1.0,
        serving_ms: 2.5,
        ..Default::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_with_its_reason() {
    let server = Server::start();
    detectors(&server, calm()).await;
    let reason = "no ready standby: web-b is in maintenance";
    executor(&server, move |_, _| {
        Some(SwitchoverReply { reason: reason.into(), from: "web-a".into(), ..Default::default() })
    })
    .await;
    let ended = server.run(&["switchover", "--group", "web"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert_eq!(ended.err, format!("error: web-a refuses: {reason}\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_holder_is_waited_for_and_its_record_shown() {
    let server = Server::start();
    let answers = detectors(&server, calm()).await;
    let log = EventLog::start(&server.client().await, "executor/web-b");
    let moved = Arc::clone(&answers);
    let asked = executor(&server, move |_, _| {
        *moved.lock().unwrap() = (1..=3).map(|seat| answer(seat, Some("web-b"), 1018)).collect();
        log.publish(&event(&TakeoverFailed {
            node: "web-c".into(),
            epoch: 1018,
            step: "promote".into(),
            ..Default::default()
        }));
        log.publish(&takeover("web-b"));
        Some(accepted())
    })
    .await;
    let ended =
        server.run(&["switchover", "--group", "web", "--to", "web-b", "--seats", "3", "--timeout", "15s"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended.out.starts_with(
            "web: web-a gives slot 0 (epoch 1017) to web-b\nweb: web-b serves slot 0 since epoch 1018, seen "
        ),
        "{}",
        ended.out
    );
    assert!(ended.out.contains("2.5 ms  web-b serves, 1.5 ms after the quorum\n"), "{}", ended.out);
    assert!(ended.err.contains("takeover by web-c FAILED at promote"), "{}", ended.err);
    let asked = asked.lock().unwrap();
    assert_eq!((asked[0].to.as_str(), asked[0].slot, asked[0].group.as_str()), ("web-b", 0, "web"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_comes_back_to_the_same_node_is_a_failure() {
    let server = Server::start();
    detectors(&server, calm()).await;
    let log = EventLog::start(&server.client().await, "executor/web-a");
    executor(&server, move |_, _| {
        log.publish(&takeover("web-a"));
        Some(accepted())
    })
    .await;
    let ended = server.run(&["switchover", "--group", "web", "--timeout", "15s"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("web-a serves it again: nobody else took over"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_request_is_sent_again_under_the_same_key() {
    let server = Server::start();
    detectors(&server, calm()).await;
    let asked = executor(&server, |number, _| (number > 1).then(accepted)).await;
    let ended = server.run(&["switchover", "--group", "web", "--no-wait", "--timeout", "3s"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let keys: Vec<_> = asked.lock().unwrap().iter().map(|request| request.request.clone()).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1] && !keys[0].is_empty(), "{keys:?}");
    server.run(&["switchover", "--group", "web", "--no-wait", "--request", "mine"]);
    assert_eq!(asked.lock().unwrap()[2].request, "mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_answers_is_told_with_who_holds() {
    let server = Server::start();
    let answers = detectors(&server, calm()).await;
    let switchover = || server.run(&["switchover", "--group", "web", "--seats", "3", "--timeout", "900ms"]);
    let ended = switchover();
    assert_eq!(ended.code, 1);
    let said =
        "no executor of group web is connected to NATS; web-a holds slot 0, but its executor is not heard";
    assert!(ended.err.contains(said), "{}", ended.err);
    // Members listen, but none of them holds the slot.
    executor(&server, |_, _| None).await;
    *answers.lock().unwrap() = (1..=3).map(|seat| answer(seat, None, 1017)).collect();
    let ended = switchover();
    assert_eq!(ended.code, 1);
    let said = "no holder answers within 900ms; slot 0 is held by nobody (seats 1 2 3 for nobody)";
    assert!(ended.err.contains(said), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_or_slot_that_is_not_there_is_not_asked_for() {
    let server = Server::start();
    detectors(&server, calm()).await;
    let asked = executor(&server, |_, _| Some(accepted())).await;
    let ended = server.run(&["switchover", "--group", "db"]);
    assert_eq!((ended.code, ended.err.as_str()), (1, "error: no detector knows group db; known: web\n"));
    let ended = server.run(&["switchover", "--group", "web", "--slot", "4"]);
    let said = "error: group web has no slot 4: it has 1, counted from 0\n";
    assert_eq!((ended.code, ended.err.as_str()), (1, said));
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_never_serves_is_given_up_on() {
    let server = Server::start();
    detectors(&server, calm()).await;
    executor(&server, |_, _| Some(accepted())).await;
    let ended = server.run(&["switchover", "--group", "web", "--wait-for", "400ms", "--seats", "3"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("nobody new serves it within 400ms; web-a holds slot 0"), "{}", ended.err);
}
