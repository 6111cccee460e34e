//! What the server refuses, cannot do now, or does not answer.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use understudy_autoscaler::driver::Driver as _;

use crate::{
    TIME, cluster, driver, driver_with, node,
    server::{Server, Twist},
    start,
};

/// Every failure names verb, object and cause, once.
#[tokio::test]
async fn a_refusal_is_told_with_verb_object_and_cause() {
    let (server, driver) = cluster(3).await;
    let status = |message: &str| format!("{{\"kind\":\"Status\",\"message\":{message:?}}}");
    let forbidden =
        "statefulsets.apps \"web\" is forbidden: User \"scaler\" cannot get resource \"statefulsets\"";
    for (code, body, told) in [
        (403, status(forbidden), format!("403 Forbidden: {forbidden}")),
        (
            404,
            status("statefulsets.apps \"web\" not found"),
            "404 Not Found: statefulsets.apps \"web\" not found".into(),
        ),
        (500, "etcd is\nnot well\n".into(), "500 Internal Server Error: etcd is not well".into()),
        (503, String::new(), "503 Service Unavailable".into()),
        (
            200,
            "{\"kind\":".into(),
            "the answer cannot be read: EOF while parsing a value at line 1 column 8".into(),
        ),
    ] {
        server.cluster().twist("GET statefulset", Twist::Answer(code, None, body.clone()));
        let why = driver.list().await.unwrap_err().to_string();
        assert_eq!(why, format!("get statefulset shop/web: {told}"));
    }
    for (what, verb) in [
        ("PUT scale", "update statefulset shop/web/scale"),
        ("GET pods", "list pods of statefulset shop/web"),
    ] {
        server.cluster().twist(what, Twist::Answer(403, None, status("no")));
        let result = if what == "PUT scale" {
            driver.start(&start("web-4")).await
        } else {
            driver.list().await.map(drop)
        };
        assert_eq!(result.unwrap_err().to_string(), format!("{verb}: 403 Forbidden: no"));
    }
    server.cluster().twist("DELETE pod", Twist::Answer(403, None, status("no")));
    let why = driver.restart("key", &node("web-2")).await;
    assert_eq!(why, Ok(()), "not listed yet");
    driver.list().await.unwrap();
    let why = driver.restart("key", &node("web-2")).await.unwrap_err().to_string();
    assert_eq!(why, "delete pod shop/web-2: 403 Forbidden: no");
    server.cluster().twist("GET pod", Twist::Answer(500, None, String::new()));
    let why = driver.stop("key", &node("web-3")).await.unwrap_err().to_string();
    assert_eq!(why, "get pod shop/web-3: 500 Internal Server Error");
    {
        let cluster = server.cluster();
        assert_eq!((cluster.replicas, cluster.deleted.len()), (3, 0));
    }
}

#[tokio::test]
async fn a_server_without_room_is_asked_again_when_it_says() {
    let (server, driver) = cluster(3).await;
    let text = "Too many requests, please try again later.".to_owned();
    server.cluster().twist("PUT scale", Twist::Answer(429, Some(1), text.clone()));
    driver.start(&start("web-4")).await.unwrap();
    let asked: Vec<Instant> = {
        let cluster = server.cluster();
        cluster.asked.iter().filter(|asked| asked.what == "PUT scale").map(|asked| asked.at).collect()
    };
    assert_eq!((asked.len(), server.cluster().written.as_slice()), (2, &[4][..]));
    assert!(asked[1] - asked[0] >= Duration::from_secs(1), "{:?} later", asked[1] - asked[0]);
    // Longer than the call may take: it is not waited for.
    server.cluster().twist("GET statefulset", Twist::Answer(429, Some(60), text));
    let began = Instant::now();
    let why = driver.start(&start("web-5")).await.unwrap_err().to_string();
    let told = "get statefulset shop/web: 429 Too Many Requests: Too many requests, please try again later.; sent 1 times, \
                the server wants a pause of 60 s";
    assert_eq!(why, told);
    assert!(began.elapsed() < TIME / 2);
}

#[tokio::test]
async fn a_server_that_never_has_room_is_given_up_on() {
    let (server, driver) = cluster(3).await;
    for _ in 0..20 {
        server.cluster().twist("GET statefulset", Twist::Answer(429, Some(0), String::new()));
    }
    let why = driver.list().await.unwrap_err().to_string();
    assert!(why.contains("429 Too Many Requests; sent 5 times"), "{why}");
    assert_eq!(server.cluster().count("GET statefulset"), 5);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_with_what_it_was_asked() {
    let server = Server::with(3).await;
    let driver = driver(&server, Duration::from_millis(600));
    server.cluster().twist("PUT scale", Twist::Hang);
    let why = driver.start(&start("web-4")).await.unwrap_err().to_string();
    assert_eq!(why, "update statefulset shop/web/scale: no answer within 300ms");
    driver.start(&start("web-4")).await.unwrap();
    server.cluster().twist("GET pods", Twist::Hang);
    let why = driver.list().await.unwrap_err().to_string();
    assert_eq!(why, "list pods of statefulset shop/web: no answer within 300ms");
    assert_eq!(driver.list().await.unwrap().len(), 4, "the next call is not held up");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_until_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let other = Server::with(0).await;
    let driver = driver_with(other.kubeconfig(&format!("http://{address}"), ""), TIME);
    let why = driver.list().await.unwrap_err().to_string();
    assert_eq!(why, "get statefulset shop/web: Connection refused (os error 111)");
    let server = Server::on(2, address, TcpListener::bind(address).await.unwrap());
    assert_eq!(driver.list().await.unwrap().len(), 2);
    drop(server);
}

#[tokio::test]
async fn an_answer_that_never_ends_is_no_answer() {
    let (server, driver) = cluster(3).await;
    let flood = " ".repeat(33 * 1024 * 1024);
    server.cluster().twist("GET statefulset", Twist::Answer(200, None, flood));
    let why = driver.list().await.unwrap_err().to_string();
    assert_eq!(why, "get statefulset shop/web: length limit exceeded");
    // Pages that lead to pages: at most as many as there can be members.
    let page = "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"continue\":\"1\"},\"items\":[]}";
    for _ in 0..100 {
        server.cluster().twist("GET pods", Twist::Answer(200, None, page.into()));
    }
    let why = driver.list().await.unwrap_err().to_string();
    assert_eq!(why, "list pods of statefulset shop/web: more than 16384");
}

#[tokio::test]
async fn without_a_way_to_the_server_the_cause_is_said() {
    let driver = driver_with("/nowhere/kubeconfig".into(), TIME);
    let why = driver.list().await.unwrap_err().to_string();
    assert!(why.starts_with("get statefulset shop/web: ") && why.contains("No such file"), "{why}");
    // Not in a pod.
    let driver = driver_with(String::new(), TIME);
    let why = driver.list().await.unwrap_err().to_string();
    assert!(why.starts_with("get statefulset shop/web: ") && why.len() > 40, "{why}");
}

#[tokio::test]
async fn who_is_not_known_is_told_so() {
    let (server, driver) = cluster(1).await;
    std::fs::write(server.folder.path().join("token"), "another").unwrap();
    let why = driver.list().await.unwrap_err().to_string();
    assert_eq!(why, "get statefulset shop/web: 401 Unauthorized: Unauthorized");
}
