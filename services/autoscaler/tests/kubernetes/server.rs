//! A stand-in for a Kubernetes API server with one StatefulSet, `web` in the namespace `shop`, over real HTTP: resource
//! versions, selectors, pages, preconditions and `Status` answers as the real one gives them. Its controller makes and
//! deletes pods at once, unless it is told to do nothing. What goes wrong is scripted.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Barrier, task::JoinHandle};

const SET: &str = "/apis/apps/v1/namespaces/shop/statefulsets/web";
const SCALE: &str = "/apis/apps/v1/namespaces/shop/statefulsets/web/scale";
const PODS: &str = "/api/v1/namespaces/shop/pods";
/// Whoever has it may do everything.
pub(crate) const TOKEN: &str = "let-me-in";

/// What happens to one request in place of what it asks for, or before it.
#[derive(Clone)]
pub(crate) enum Twist {
    /// It is never answered.
    Hang,
    /// This is the answer: status, `Retry-After`, body.
    Answer(u16, Option<u32>, String),
    /// Somebody else sets the size just before it.
    Meanwhile(u32),
    /// It is answered when so many requests are there.
    Meet(Arc<Barrier>),
    /// It is answered as if it was done, and nothing is done.
    Lie,
}

/// One request: `PUT scale`, and when it came.
pub(crate) struct Asked {
    pub(crate) what: String,
    pub(crate) at: Instant,
}

/// Everything that the server has.
pub(crate) struct Cluster {
    pub(crate) replicas: u32,
    /// Of every object; rises with each change.
    pub(crate) version: u64,
    /// The part of the StatefulSet's spec that tests change.
    pub(crate) spec: Value,
    pub(crate) pods: BTreeMap<String, Value>,
    /// Pods in one answer, at most.
    pub(crate) page: usize,
    /// Pods follow the number of replicas.
    pub(crate) controller: bool,
    /// Pods that are deleted stay, terminating.
    pub(crate) slow_to_end: bool,
    pub(crate) asked: Vec<Asked>,
    /// Sizes that were written, in this order.
    pub(crate) written: Vec<u32>,
    /// Pods that were deleted, by uid.
    pub(crate) deleted: Vec<String>,
    script: VecDeque<(&'static str, Twist)>,
    made: u64,
}

impl Cluster {
    /// The next request of this kind, such as "PUT scale", is twisted.
    pub(crate) fn twist(&mut self, what: &'static str, twist: Twist) {
        self.script.push_back((what, twist));
    }

    pub(crate) fn resize(&mut self, replicas: u32) {
        self.replicas = replicas;
        self.version += 1;
        self.follow();
    }

    /// What the controller does.
    pub(crate) fn follow(&mut self) {
        if !self.controller {
            return;
        }
        for ordinal in 1..=self.replicas {
            let name = format!("web-{ordinal}");
            if !self.pods.contains_key(&name) {
                self.made += 1;
                let pod = pod(&name, &format!("uid-{}", self.made));
                self.pods.insert(name, pod);
            }
        }
        let above = |name: &String| ordinal(name).is_some_and(|ordinal| ordinal > self.replicas);
        let gone: Vec<_> = self.pods.keys().filter(|name| above(name)).cloned().collect();
        for name in gone {
            self.end(&name);
        }
    }

    fn end(&mut self, name: &str) {
        if !self.slow_to_end {
            self.pods.remove(name);
        } else if let Some(pod) = self.pods.get_mut(name) {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-05T08:00:00Z");
        }
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.asked.iter().filter(|asked| asked.what == what).count()
    }

    fn set(&self) -> Value {
        let mut spec = json!({
            "replicas": self.replicas, "serviceName": "web",
            "selector": { "matchLabels": { "app": "web" }, "matchExpressions": [
                { "key": "tier", "operator": "NotIn", "values": ["test"] }
            ] },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [] } }
        });
        for (key, value) in self.spec.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "spec": spec,
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "set-1", "resourceVersion": self.version.to_string()
            }
        })
    }

    fn scale(&self) -> Value {
        json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "set-1", "resourceVersion": self.version.to_string()
            },
            "spec": { "replicas": self.replicas },
            "status": { "replicas": self.pods.len(), "selector": "app=web" }
        })
    }

    /// As the real one: a write without a version is one without conditions.
    fn put_scale(&mut self, body: &Bytes) -> Response {
        let Ok(scale) = serde_json::from_slice::<Value>(body) else { return status(400, "not JSON") };
        let version = scale["metadata"]["resourceVersion"].as_str();
        if version.is_some_and(|version| version != self.version.to_string()) {
            let message = "Operation cannot be fulfilled on statefulsets.apps \"web\": the object has been modified; \
                           please apply your changes to the latest version and try again";
            return status(409, message);
        }
        let Some(replicas) = scale["spec"]["replicas"].as_u64().filter(|_| scale["kind"] == "Scale") else {
            return status(422, "no replicas");
        };
        self.written.push(replicas as u32);
        self.resize(replicas as u32);
        answer(200, &self.scale())
    }

    fn list_pods(&self, query: &BTreeMap<String, String>) -> Response {
        if query.get("labelSelector").map(String::as_str) != Some("app=web,tier notin (test)") {
            return status(400, &format!("another selector was expected: {query:?}"));
        }
        let from: usize =
            query.get("continue").map_or(0, |token| token.parse().expect("a token of this server"));
        let limit = query.get("limit").map_or(usize::MAX, |limit| limit.parse().expect("a number"));
        let items: Vec<_> = self.pods.values().skip(from).take(limit.min(self.page)).collect();
        let next = from + items.len();
        let more = if next < self.pods.len() { next.to_string() } else { String::new() };
        let metadata = json!({ "resourceVersion": self.version.to_string(), "continue": more });
        answer(200, &json!({ "apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items }))
    }

    fn delete_pod(&mut self, name: &str, body: &Bytes) -> Response {
        let Some(pod) = self.pods.get(name) else { return missing("pods", name) };
        let options: Value = serde_json::from_slice(body).unwrap_or_default();
        let (wanted, uid) = (options["preconditions"]["uid"].as_str(), pod["metadata"]["uid"].as_str());
        if wanted.is_some() && wanted != uid {
            let message =
                format!("Precondition failed: UID in precondition: {wanted:?}, UID in object meta: {uid:?}");
            return status(409, &message);
        }
        self.deleted.push(uid.expect("every pod has one").to_owned());
        let pod = pod.clone();
        self.end(name);
        self.version += 1;
        self.follow();
        answer(200, &pod)
    }

    fn handle(&mut self, method: &Method, uri: &Uri, body: &Bytes) -> Response {
        let path = uri.path();
        let pod = path.strip_prefix(PODS).and_then(|rest| rest.strip_prefix('/'));
        match (method.as_str(), path, pod) {
            ("GET", SET, _) => answer(200, &self.set()),
            ("GET", SCALE, _) => answer(200, &self.scale()),
            ("PUT", SCALE, _) => self.put_scale(body),
            ("GET", PODS, _) => self.list_pods(&query(uri)),
            ("GET", _, Some(name)) => {
                self.pods.get(name).map_or_else(|| missing("pods", name), |pod| answer(200, pod))
            }
            ("DELETE", _, Some(name)) => self.delete_pod(name, body),
            _ => missing("statefulsets.apps", path.rsplit('/').next().unwrap_or_default()),
        }
    }
}

/// Its number, of the StatefulSet's own pods.
fn ordinal(name: &str) -> Option<u32> {
    name.strip_prefix("web-")?.parse().ok()
}

/// A pod of the StatefulSet that runs.
pub(crate) fn pod(name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid, "resourceVersion": "1",
            "labels": { "app": "web", "rack": "r1" },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "set-1", "controller": true
            }]
        },
        "spec": { "nodeName": "n1", "containers": [{ "name": "web", "image": "web:1" }] },
        "status": {
            "phase": "Running",
            "containerStatuses": [{
                "name": "web", "ready": true, "restartCount": 0, "image": "web:1", "imageID": "",
                "state": { "running": { "startedAt": "2026-01-05T08:00:00Z" } }, "lastState": {}
            }]
        }
    })
}

fn query(uri: &Uri) -> BTreeMap<String, String> {
    let plain = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap()).map(|(key, value)| (plain(key), plain(value))).collect()
}

fn answer(code: u16, body: &Value) -> Response {
    let code = StatusCode::from_u16(code).unwrap();
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn status(code: u16, message: &str) -> Response {
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": message, "code": code
    });
    answer(code, &body)
}

fn missing(kind: &str, name: &str) -> Response {
    status(404, &format!("{kind} \"{name}\" not found"))
}

async fn serve(
    State(cluster): State<Arc<Mutex<Cluster>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let lock = || cluster.lock().unwrap();
    let part = match uri.path() {
        SET => "statefulset",
        SCALE => "scale",
        PODS => "pods",
        path => path.strip_prefix(PODS).map_or("elsewhere", |_| "pod"),
    };
    let what = format!("{method} {part}");
    let bearer = format!("Bearer {TOKEN}");
    if headers.get(header::AUTHORIZATION).and_then(|token| token.to_str().ok()) != Some(&bearer) {
        return status(401, "Unauthorized");
    }
    let twist = {
        let mut cluster = lock();
        cluster.asked.push(Asked { what: what.clone(), at: Instant::now() });
        let index = cluster.script.iter().position(|(twisted, _)| *twisted == what);
        index.and_then(|index| cluster.script.remove(index)).map(|(_, twist)| twist)
    };
    match twist {
        Some(Twist::Hang) => std::future::pending().await,
        Some(Twist::Answer(code, after, body)) => {
            let mut response = (StatusCode::from_u16(code).unwrap(), body).into_response();
            if let Some(after) = after {
                response.headers_mut().insert(header::RETRY_AFTER, after.into());
            }
            response
        }
        Some(Twist::Meanwhile(replicas)) => {
            lock().resize(replicas);
            lock().handle(&method, &uri, &body)
        }
        Some(Twist::Meet(barrier)) => {
            let response = lock().handle(&method, &uri, &body);
            barrier.wait().await;
            response
        }
        Some(Twist::Lie) => answer(200, &lock().scale()),
        None => lock().handle(&method, &uri, &body),
    }
}

/// A running server; it ends when this is dropped.
pub(crate) struct Server {
    cluster: Arc<Mutex<Cluster>>,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// A cluster with so many pods, over plain HTTP.
    pub(crate) async fn with(replicas: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::on(replicas, address, listener)
    }

    /// A cluster behind any listener.
    pub(crate) fn on(
        replicas: u32,
        address: SocketAddr,
        listener: impl axum::serve::Listener<Addr = SocketAddr>,
    ) -> Self {
        let mut cluster = Cluster {
            replicas: 0,
            version: 10,
            spec: json!({ "ordinals": { "start": 1 }, "podManagementPolicy": "Parallel" }),
            pods: BTreeMap::new(),
            page: usize::MAX,
            controller: true,
            slow_to_end: false,
            asked: Vec::new(),
            written: Vec::new(),
            deleted: Vec::new(),
            script: VecDeque::new(),
            made: 0,
        };
        cluster.resize(replicas);
        let cluster = Arc::new(Mutex::new(cluster));
        let router = Router::new().fallback(serve).with_state(Arc::clone(&cluster));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { cluster, address, folder: TempDir::new().unwrap(), task }
    }

    pub(crate) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap()
    }

    /// A kubeconfig that leads here; `cluster` are more lines of the cluster's entry.
    pub(crate) fn kubeconfig(&self, server: &str, cluster: &str) -> String {
        let token = self.folder.path().join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters:\n- name: test\n  cluster:\n    server: {server}\n{cluster}\
             users:\n- name: test\n  user:\n    tokenFile: {}\n\
             contexts:\n- name: test\n  context:\n    cluster: test\n    user: test\n",
            token.display()
        );
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}
