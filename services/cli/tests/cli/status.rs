//! `status`: many answers, one picture.

use std::time::{Duration, Instant};

use understudy_wire::v1::StatusRequest;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seats_that_agree_are_merged_and_the_answer_is_quick() {
    let server = Server::start();
    detectors(&server, calm()).await;
    let file = config(&server);
    let ended = run(&["status", "--config", file.to_str().unwrap()]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
    let headline = "web: slot 0 on web-a since epoch 1017; 1 ready standby; can lose one more: yes, because 3 of 3 seats \
                    grant and 2 are needed\n";
    assert!(ended.out.starts_with(headline), "{}", ended.out);
    assert!(!ended.out.contains('\x1b'), "colours in a pipe: {:?}", ended.out);
    let ended = server.run(&["status", "--json", "--group", "web"]);
    let json: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(ended.code, 0);
    assert_eq!(json["groups"][0]["slots"][0]["holder"], "web-a");
    assert_eq!(json["groups"][0]["slots"][0]["state"], "held");
    assert_eq!(json["groups"][0]["can_lose_one_more"], true);
    assert_eq!((&json["seats"]["assumed"], &json["seats"]["quorum"]), (&true.into(), &2.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seats_that_disagree_are_no_holder_and_exit_with_1() {
    let server = Server::start();
    let replies = vec![answer(1, Some("web-a"), 1017), answer(2, Some("web-b"), 1018), answer(3, None, 1018)];
    detectors(&server, replies).await;
    let ended = server.run(&["status", "--seats", "3"]);
    assert_eq!(ended.code, 1);
    let said = "slot 0 has NO HOLDER (seats disagree: 1 for web-a, 2 for web-b, 3 for nobody)";
    assert!(ended.out.contains(said), "{}", ended.out);
    let ended = server.run(&["status", "--seats", "3", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((ended.code, &json["groups"][0]["slots"][0]["state"]), (1, &"vacant".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_seat_is_named_and_not_waited_for_long() {
    let server = Server::start();
    detectors(&server, calm()[..2].to_vec()).await;
    let began = Instant::now();
    let ended = server.run(&["status", "--seats", "3", "--timeout", "15s"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(ended.code, 0);
    assert!(ended.out.contains("only 2 of 3 seats grant"), "{}", ended.out);
    assert!(ended.out.contains("  3     no answer\n"), "{}", ended.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn less_than_a_quorum_is_waited_for_to_the_time_limit() {
    let server = Server::start();
    // Observers are fast, and as many as the seats: they say nothing about a holder.
    let mut replies: Vec<_> = (0..3).map(|_| answer(0, None, 1017)).collect();
    for (reply, incarnation) in replies.iter_mut().zip(0..) {
        reply.presence.as_mut().unwrap().incarnation = incarnation;
    }
    replies.push(calm().swap_remove(0));
    let answers = detectors(&server, replies).await;
    let began = Instant::now();
    let ended = server.run(&["status", "--seats", "3", "--timeout", "800ms"]);
    assert!(began.elapsed() >= Duration::from_millis(800), "{:?}", began.elapsed());
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("slot 0: holder unknown (seat 1 for web-a)"), "{}", ended.out);
    answers.lock().unwrap().clear();
    let ended = server.run(&["status", "--seats", "3", "--timeout", "500ms"]);
    let said = "error: no detector answered within 500ms, though some are connected to NATS\n";
    assert_eq!((ended.code, ended.err.as_str()), (1, said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_that_comes_late_is_enough() {
    let server = Server::start();
    let nats = server.client().await;
    let mut asked = nats.subscribe::<StatusRequest>("command.*.status").await.unwrap();
    assert!(nats.flush(DEADLINE).await);
    let file = config(&server);
    let began = Instant::now();
    let asking = tokio::task::spawn_blocking(move || {
        run(&["status", "--config", file.to_str().unwrap(), "--timeout", "40s"])
    });
    // One seat answers the first request, another one the second.
    for reply in &calm()[..2] {
        let request = asked.next().await.unwrap();
        nats.respond(&request.reply.unwrap(), reply);
    }
    let ended = asking.await.unwrap();
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("only 2 of 3 seats grant"), "{}", ended.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fast_observers_do_not_crowd_out_a_seat() {
    let server = Server::start();
    let mut replies: Vec<_> = (0..3).map(|_| answer(0, None, 1017)).collect();
    for (index, reply) in replies.iter_mut().enumerate() {
        reply.presence.as_mut().unwrap().incarnation = u64::try_from(index).unwrap();
    }
    replies.extend(calm());
    detectors(&server, replies).await;
    let file = config(&server);
    let ended = run(&["status", "--config", file.to_str().unwrap()]);
    assert!(ended.out.contains("3 of 3 seats grant and 2 are needed"), "{}", ended.out);
    assert_eq!(ended.code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_group_is_refused_with_those_there_are() {
    let server = Server::start();
    detectors(&server, calm()).await;
    let ended = server.run(&["status", "--group", "wbe", "--seats", "3"]);
    assert_eq!((ended.code, ended.err.as_str()), (1, "error: no detector knows group wbe; known: web\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_detector_at_all_is_an_error_at_once() {
    let server = Server::start();
    let ended = server.run(&["status"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.starts_with("error: no detector is connected to NATS"), "{}", ended.err);
}
