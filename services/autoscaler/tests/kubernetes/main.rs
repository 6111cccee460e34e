//! The kubernetes driver against a server that speaks its protocol: exact effects, conflicts, and everything that can go
//! wrong on the way. It was not run against a real cluster.

mod failures;
mod server;
mod tls;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use server::{Server, Twist};
use tokio::sync::Barrier;
use understudy_autoscaler::driver::{Driver as _, Start, State, kubernetes::Kubernetes};
use understudy_service::config::{self, Template, Workload};
use understudy_wire::{GroupId, NodeId};

/// Long enough for everything that is answered.
const TIME: Duration = Duration::from_secs(20);

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn start(name: &str) -> Start {
    Start { key: format!("web/fill/{name}"), node: node(name), domain: None, replaces: None }
}

fn driver_with(kubeconfig: String, timeout: Duration) -> Kubernetes {
    let template = Template {
        timeout,
        namespace: "shop".into(),
        workload: Workload::Object("statefulset/web".into()),
        kubeconfig,
        ..Template::of(config::Driver::Kubernetes)
    };
    Kubernetes::new(&GroupId::new("web").unwrap(), &template)
}

fn driver(server: &Server, timeout: Duration) -> Kubernetes {
    driver_with(server.kubeconfig(&format!("http://{}", server.address), ""), timeout)
}

async fn cluster(replicas: u32) -> (Server, Kubernetes) {
    let server = Server::with(replicas).await;
    let driver = driver(&server, TIME);
    (server, driver)
}

/// Names, states and whether they can be removed.
async fn listed(driver: &Kubernetes) -> Vec<(String, State, bool)> {
    let listed = driver.list().await.unwrap();
    listed.into_iter().map(|(node, one)| (node.to_string(), one.state, one.removable)).collect()
}

fn running(name: &str, removable: bool) -> (String, State, bool) {
    (name.into(), State::Running, removable)
}

#[tokio::test]
async fn members_are_the_pods_and_the_highest_can_go() {
    let (server, driver) = cluster(3).await;
    assert_eq!(
        listed(&driver).await,
        [running("web-1", false), running("web-2", false), running("web-3", true)]
    );
    let one = driver.list().await.unwrap().remove(&node("web-1")).unwrap();
    assert_eq!((one.key, one.labels["rack"].as_str()), (None, "r1"));
    assert_eq!(one.labels["kubernetes.io/hostname"], "n1");
    server.cluster().pods.get_mut("web-2").unwrap()["status"]["containerStatuses"][0]["state"] =
        json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } });
    let cause = "container web: ImagePullBackOff: Back-off pulling image".to_owned();
    assert_eq!(listed(&driver).await[1].1, State::Ended(cause));
}

/// Ordered and not made yet, or deleted and made anew in a moment: nobody has to be missed.
#[tokio::test]
async fn a_pod_that_is_ordered_and_not_there_yet_starts() {
    let (server, driver) = cluster(2).await;
    server.cluster().controller = false;
    server.cluster().resize(3);
    server.cluster().pods.remove("web-1");
    let starts = |name: &str, removable| (name.to_owned(), State::Starting, removable);
    assert_eq!(
        listed(&driver).await,
        [starts("web-1", false), running("web-2", false), starts("web-3", true)]
    );
    server.cluster().pods.clear();
    server.cluster().resize(0);
    assert_eq!(listed(&driver).await, []);
}

/// What is on its way out is the highest still: the one below it must not go as well.
#[tokio::test]
async fn a_pod_above_the_number_of_replicas_is_listed_until_it_is_gone() {
    let (server, driver) = cluster(3).await;
    server.cluster().slow_to_end = true;
    server.cluster().resize(2);
    let leaves = ("web-3".to_owned(), State::Ended("it is being deleted".into()), true);
    assert_eq!(listed(&driver).await, [running("web-1", false), running("web-2", false), leaves]);
}

#[tokio::test]
async fn pods_of_others_are_no_members_and_pages_are_followed() {
    let (server, driver) = cluster(5).await;
    server.cluster().page = 2;
    for (name, owner) in [("web-6", json!([])), ("web-7", json!([{ "uid": "set-0", "controller": true }]))] {
        let mut pod = server::pod(name, "uid-x");
        pod["metadata"]["ownerReferences"] = owner;
        for reference in pod["metadata"]["ownerReferences"].as_array_mut().unwrap() {
            reference["apiVersion"] = json!("apps/v1");
            reference["kind"] = json!("StatefulSet");
            reference["name"] = json!("web");
        }
        server.cluster().pods.insert(name.into(), pod);
    }
    for name in ["web-06", "web-0", "web-a", "web-1-x"] {
        server.cluster().pods.insert(name.into(), server::pod(name, "uid-y"));
    }
    let names: Vec<_> = listed(&driver).await.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["web-1", "web-2", "web-3", "web-4", "web-5"]);
    assert_eq!(server.cluster().count("GET pods"), 6);
}

#[tokio::test]
async fn a_set_whose_pods_could_not_be_members_is_refused() {
    let (server, driver) = cluster(2).await;
    for (spec, why) in [
        (
            json!({ "podManagementPolicy": "Parallel" }),
            "spec.ordinals.start is 0, and must be 1, since members are named web-1, web-2, ...",
        ),
        (
            json!({ "ordinals": { "start": 1 } }),
            "spec.podManagementPolicy is OrderedReady, and must be Parallel, else one broken pod holds up its replacement",
        ),
        (
            json!({ "ordinals": { "start": 1 }, "podManagementPolicy": "Parallel", "replicas": 20000 }),
            "20000 replicas, 16384 are taken",
        ),
    ] {
        server.cluster().spec = spec;
        let told = format!("statefulset shop/web: {why}");
        assert_eq!(driver.list().await.unwrap_err().to_string(), told);
        assert_eq!(driver.start(&start("web-3")).await.unwrap_err().to_string(), told);
    }
    assert_eq!(server.cluster().written, [0; 0]);
}

#[tokio::test]
async fn a_start_raises_the_size_once() {
    let (server, driver) = cluster(3).await;
    driver.start(&start("web-4")).await.unwrap();
    driver.start(&start("web-4")).await.unwrap();
    driver.start(&start("web-2")).await.unwrap();
    assert_eq!(server.cluster().written, [4]);
    assert_eq!(listed(&driver).await.last(), Some(&running("web-4", true)));
    let why = driver.start(&start("web-a")).await.unwrap_err().to_string();
    assert_eq!(why, "web-a is no pod of statefulset shop/web: those are web-1 to web-16384");
}

/// Both have read 3 before either writes; the server lets one of them write, and the other must not undo it.
#[tokio::test]
async fn two_starts_at_the_same_time_make_both() {
    let (server, driver) = cluster(3).await;
    let both = Arc::new(Barrier::new(2));
    for _ in 0..2 {
        server.cluster().twist("GET statefulset", Twist::Meet(Arc::clone(&both)));
    }
    let (four, five) = (start("web-4"), start("web-5"));
    let (first, second) = tokio::join!(driver.start(&four), driver.start(&five));
    first.unwrap();
    second.unwrap();
    let cluster = server.cluster();
    assert!([&[5][..], &[4, 5]].contains(&&cluster.written[..]), "{:?}", cluster.written);
    assert_eq!(
        (cluster.replicas, cluster.count("PUT scale")),
        (5, 2),
        "one of the two was refused, or came later"
    );
}

#[tokio::test]
async fn what_somebody_else_writes_meanwhile_is_not_overwritten() {
    let (server, driver) = cluster(3).await;
    server.cluster().twist("PUT scale", Twist::Meanwhile(7));
    driver.start(&start("web-4")).await.unwrap();
    {
        let cluster = server.cluster();
        assert_eq!((cluster.replicas, cluster.written.len()), (7, 0), "7 are enough for web-4");
    }
    server.cluster().twist("PUT scale", Twist::Meanwhile(2));
    driver.start(&start("web-8")).await.unwrap();
    assert_eq!(server.cluster().written, [8], "read again, it was 2");
    server.cluster().twist("PUT scale", Twist::Meanwhile(9));
    let why = driver.stop("key", &node("web-8")).await.unwrap_err().to_string();
    assert!(why.contains("web-8 cannot go") && why.ends_with("which is web-9"), "{why}");
    assert_eq!(server.cluster().replicas, 9);
}

#[tokio::test]
async fn conflicts_without_end_are_an_error() {
    let (server, driver) = cluster(3).await;
    for _ in 0..20 {
        server.cluster().twist("PUT scale", Twist::Meanwhile(3));
    }
    let why = driver.start(&start("web-4")).await.unwrap_err().to_string();
    assert_eq!(why, "update statefulset shop/web/scale: others have changed it 6 times meanwhile");
    {
        let cluster = server.cluster();
        assert_eq!((cluster.count("PUT scale"), cluster.replicas), (6, 3));
    }
}

#[tokio::test]
async fn only_the_highest_is_stopped() {
    let (server, driver) = cluster(4).await;
    let why = driver.stop("key", &node("web-2")).await.unwrap_err().to_string();
    assert_eq!(why, "web-2 cannot go: statefulset shop/web removes its highest pod first, which is web-4");
    driver.stop("key", &node("web-4")).await.unwrap();
    driver.stop("key", &node("web-4")).await.unwrap();
    driver.stop("key", &node("web-9")).await.unwrap();
    assert_eq!(server.cluster().written, [3]);
    assert_eq!(listed(&driver).await.len(), 3);
}

/// It may be elected again as soon as the driver says that it is stopped.
#[tokio::test]
async fn a_stop_lasts_until_the_pod_is_gone() {
    let (server, driver) = cluster(3).await;
    server.cluster().slow_to_end = true;
    let three = node("web-3");
    let stop = driver.stop("key", &three);
    tokio::pin!(stop);
    let watched = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        // Before the write, after it, and again.
        while server.cluster().count("GET pod") < 3 {
            ticks.tick().await;
        }
    };
    tokio::select! {
        done = &mut stop => panic!("it still terminates: {done:?}"),
        () = watched => {}
    }
    server.cluster().pods.remove("web-3");
    tokio::time::timeout(TIME, stop).await.expect("in time").unwrap();
    assert_eq!(server.cluster().written, [2]);
    // One that somebody wants again has come anew under its name.
    let (server, driver) = cluster(3).await;
    for _ in 0..2 {
        server.cluster().twist("GET pod", Twist::Meanwhile(3));
    }
    driver.stop("key", &three).await.unwrap();
    {
        let cluster = server.cluster();
        assert_eq!((cluster.written.as_slice(), cluster.replicas), (&[2][..], 3));
    }
}

#[tokio::test]
async fn a_pod_that_does_not_go_in_time_is_an_error() {
    let server = Server::with(3).await;
    let driver = driver(&server, Duration::from_secs(1));
    server.cluster().slow_to_end = true;
    let why = driver.stop("key", &node("web-3")).await.unwrap_err().to_string();
    assert_eq!(why, "pod shop/web-3 is not gone yet; template.timeout should be above its grace period");
    assert_eq!(server.cluster().replicas, 2);
}

#[tokio::test]
async fn a_restart_deletes_the_pod_that_it_was_about() {
    let (server, driver) = cluster(2).await;
    listed(&driver).await;
    driver.restart("web/restart/web-2/7", &node("web-2")).await.unwrap();
    assert_eq!(server.cluster().deleted, ["uid-2"]);
    assert_eq!(server.cluster().pods["web-2"]["metadata"]["uid"], "uid-3", "made anew");
    // Given out again, before and after the new one is listed: it is the old one that is meant.
    driver.restart("web/restart/web-2/7", &node("web-2")).await.unwrap();
    listed(&driver).await;
    driver.restart("web/restart/web-2/7", &node("web-2")).await.unwrap();
    assert_eq!(server.cluster().deleted, ["uid-2"]);
    driver.restart("web/restart/web-2/8", &node("web-2")).await.unwrap();
    assert_eq!(server.cluster().deleted, ["uid-2", "uid-3"]);
    assert_eq!(server.cluster().written, [0; 0], "the size stays");
}

#[tokio::test]
async fn a_restart_of_a_pod_that_is_gone_or_not_listed_is_done() {
    let (server, driver) = cluster(2).await;
    driver.restart("key", &node("web-2")).await.unwrap();
    listed(&driver).await;
    server.cluster().controller = false;
    server.cluster().pods.remove("web-2");
    driver.restart("key", &node("web-2")).await.unwrap();
    // The order is remembered while there is no pod.
    listed(&driver).await;
    server.cluster().controller = true;
    server.cluster().follow();
    listed(&driver).await;
    driver.restart("key", &node("web-2")).await.unwrap();
    assert_eq!(server.cluster().deleted, [""; 0]);
    assert!(driver.can_restart());
}

/// It says that the size is written: nothing new is listed, which the autoscaler counts (`desk.rs`).
#[tokio::test]
async fn a_server_that_lies_is_seen_through_by_its_list() {
    let (server, driver) = cluster(3).await;
    server.cluster().twist("PUT scale", Twist::Lie);
    driver.start(&start("web-4")).await.unwrap();
    assert_eq!(listed(&driver).await.len(), 3);
    driver.start(&start("web-4")).await.unwrap();
    assert_eq!(listed(&driver).await.len(), 4);
}
