//! `maintenance`: stored or not, and by whom.

use understudy_bus::Store;
use understudy_wire::v1::{MaintenanceReply, MaintenanceRequest};

use crate::support::*;

/// A detector that stores what it is asked to, or says why not.
async fn storing(server: &Server, refusal: Option<&'static str>) {
    let nats = server.client().await;
    let store = Store::start(&nats);
    let mut asked = nats.subscribe::<MaintenanceRequest>("command.*.maintenance").await.unwrap();
    assert!(nats.flush(DEADLINE).await);
    tokio::spawn(async move {
        while let Some(received) = asked.next().await {
            let request = received.message.unwrap();
            assert!(request.by.starts_with("ops@"), "{request:?}");
            let stored = refusal.is_none();
            while stored && store.set_maintenance(&web(), &node(&request.node), request.on).await.is_err() {
                tokio::task::yield_now().await;
            }
            let reply = MaintenanceReply { stored, reason: refusal.unwrap_or_default().into() };
            nats.respond(received.reply.as_ref().unwrap(), &reply);
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_and_off_are_durable_and_listed() {
    let server = Server::start();
    detectors(&server, calm()).await;
    storing(&server, None).await;
    let set = |word: &str, node: &str| {
        server.run(&[
            "maintenance",
            word,
            "--group",
            "web",
            "--node",
            node,
            "--seats",
            "3",
            "--timeout",
            "15s",
        ])
    };
    let ended = set("on", "web-b");
    assert_eq!((ended.code, ended.out.as_str()), (0, "web: maintenance of web-b on\n"), "{ended:?}");
    // The holder keeps its slot, which must be said.
    let ended = set("on", "web-a");
    assert!(ended.err.contains("web-a holds slot 0; it goes to a ready standby"), "{ended:?}");
    let list = |args: &[&str]| server.run(&[&["maintenance", "list", "--timeout", "15s"], args].concat());
    assert_eq!(list(&[]).out, "web  web-a\nweb  web-b\n");
    assert_eq!(
        list(&["--json"]).out,
        "[{\"group\":\"web\",\"node\":\"web-a\"},{\"group\":\"web\",\"node\":\"web-b\"}]\n"
    );
    assert_eq!(list(&["--group", "db"]).out, "");
    assert_eq!(set("off", "web-a").err, "");
    assert_eq!(list(&[]).out, "web  web-b\n");
    // A name that nobody ever heard is stored, with a warning; a group that does not exist is not.
    let ended = set("on", "wbe-b");
    assert_eq!(
        (ended.code, ended.err.as_str()),
        (0, "warning: no detector has heard of node wbe-b in group web\n")
    );
    let ended = server.run(&["maintenance", "on", "--group", "db", "--node", "web-b", "--seats", "3"]);
    assert_eq!((ended.code, ended.err.as_str()), (1, "error: no detector knows group db; known: web\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_stored_fails_with_the_reason() {
    let server = Server::start();
    let ended = server.run(&["maintenance", "on", "--group", "web", "--node", "web-b"]);
    assert_eq!(
        (ended.code, ended.err.as_str()),
        (1, "error: not stored: no detector is connected to NATS\n")
    );
    detectors(&server, calm()).await;
    storing(&server, Some("JetStream: no leader")).await;
    let ended = server.run(&["maintenance", "on", "--group", "web", "--node", "web-b", "--seats", "3"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert_eq!(ended.err, "error: not stored: JetStream: no leader\n");
}
