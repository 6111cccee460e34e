//! The exec driver against real commands: good ones, and such that fail, hang, flood and lie.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use understudy_autoscaler::driver::{Driver, Start, State, exec::Exec};
use understudy_service::config::{self, Template};
use understudy_wire::{ClusterId, GroupId, NodeId};

/// A driver whose every command is this shell script.
fn driver(folder: &Path, script: &str) -> Exec {
    let file = folder.join("member.sh");
    fs::write(&file, script).unwrap();
    let command: Vec<String> = vec!["/bin/sh".into(), file.display().to_string()];
    let template = Template {
        start: command.clone(),
        remove: command.clone(),
        restart: command.clone(),
        list: command,
        ..template()
    };
    Exec::new(&ClusterId::new("test").unwrap(), &GroupId::new("web").unwrap(), &template)
}

fn start() -> Start {
    Start {
        key: "web/replace/web-3/7".into(),
        node: node("web-4"),
        domain: Some(("rack".into(), "r1".into())),
        replaces: Some(node("web-3")),
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

#[tokio::test]
async fn a_command_is_told_everything_in_one_object() {
    let folder = TempDir::new().unwrap();
    let exec = driver(folder.path(), &format!("cat > {}/asked", folder.path().display()));
    exec.start(&start()).await.unwrap();
    let asked: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("asked")).unwrap()).unwrap();
    let wanted = serde_json::json!({
        "action": "start", "cluster": "test", "group": "web", "node": "web-4", "key": "web/replace/web-3/7",
        "label": "rack", "domain": "r1", "replaces": "web-3"
    });
    assert_eq!(asked, wanted);
    exec.stop("web/surplus/web-4/1", &node("web-4")).await.unwrap();
    let asked: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("asked")).unwrap()).unwrap();
    assert_eq!((asked["action"].as_str(), asked.get("domain")), (Some("remove"), None));
}

#[tokio::test]
async fn a_list_is_read_with_states_keys_and_labels() {
    let folder = TempDir::new().unwrap();
    let list = r#"[{"node":"web-4","state":"running","key":"web/fill/web-4","labels":{"rack":"r1"}},
                   {"node":"web-2","state":"ended","cause":"exited with 127"},{"node":"web-5","state":"starting"}]"#;
    let listed = driver(folder.path(), &format!("echo '{list}'")).list().await.unwrap();
    assert_eq!(listed.len(), 3);
    let member = &listed[&node("web-4")];
    assert_eq!((member.key.as_deref(), member.labels["rack"].as_str()), (Some("web/fill/web-4"), "r1"));
    assert_eq!(listed[&node("web-2")].state, State::Ended("exited with 127".into()));
    assert_eq!(listed[&node("web-5")].state, State::Starting);
}

#[tokio::test]
async fn a_failure_says_why() {
    let folder = TempDir::new().unwrap();
    let why = |script: &str| {
        let exec = driver(folder.path(), script);
        async move { exec.start(&start()).await.unwrap_err().to_string() }
    };
    let exit = why("echo 'no such image: web:2' >&2; exit 3").await;
    assert_eq!(exit, "/bin/sh ended with exit status: 3: no such image: web:2");
    assert_eq!(why(r#"echo '{"error":"the quota is spent"}'"#).await, "the quota is spent");
    assert!(why("echo started").await.contains("its answer cannot be read"));
    let missing = Exec::new(
        &ClusterId::new("test").unwrap(),
        &GroupId::new("web").unwrap(),
        &Template { start: vec!["/nowhere/start".into()], ..template() },
    );
    let why = missing.start(&start()).await.unwrap_err().to_string();
    assert!(why.starts_with("starting /nowhere/start: No such file"), "{why}");
}

fn template() -> Template {
    Template {
        driver: config::Driver::Exec,
        timeout: Duration::from_secs(5),
        image: String::new(),
        command: Vec::new(),
        env: BTreeMap::new(),
        networks: Vec::new(),
        service: String::new(),
        namespace: String::new(),
        workload: String::new(),
        kubeconfig: String::new(),
        start: Vec::new(),
        remove: Vec::new(),
        restart: Vec::new(),
        list: Vec::new(),
    }
}

#[tokio::test]
async fn a_list_that_lies_is_no_list() {
    let folder = TempDir::new().unwrap();
    for (said, why) in [
        (r#"[{"node":"web-1","state":"running"},{"node":"web-1","state":"ended"}]"#, "lists web-1 twice"),
        (r#"[{"node":"web.1","state":"running"}]"#, "cannot be read"),
        (r#"[{"node":"web-1","state":"fine"}]"#, "cannot be read"),
        (r#"{"members":[]}"#, "cannot be read"),
        ("", "cannot be read"),
    ] {
        let error = driver(folder.path(), &format!("echo '{said}'")).list().await.unwrap_err().to_string();
        assert!(error.contains(why), "{said}: {error}");
    }
}

/// What is given up on is killed with all that it has started.
#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_group() {
    let folder = TempDir::new().unwrap();
    let script =
        format!("sleep 600 & echo $! > {0}/child; mv {0}/child {0}/pid; wait", folder.path().display());
    let exec = driver(folder.path(), &script);
    let pid = folder.path().join("pid");
    let began = Instant::now();
    tokio::select! {
        _ = exec.list() => panic!("it cannot end by itself"),
        () = until(|| pid.exists()) => {}
    }
    let child = fs::read_to_string(&pid).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    // A zombie until init reaps it, but not alive.
    let dead = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    until(dead).await;
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_command_that_floods_is_stopped() {
    let folder = TempDir::new().unwrap();
    let error = driver(folder.path(), "yes").list().await.unwrap_err().to_string();
    assert!(error.contains("answers more than"), "{error}");
}

/// What a command leaves running on purpose holds nobody up.
#[tokio::test]
async fn a_daemon_that_keeps_the_pipes_holds_nobody_up() {
    let folder = TempDir::new().unwrap();
    let exec = driver(folder.path(), &format!("sleep 600 & echo $! > {}/pid", folder.path().display()));
    let began = Instant::now();
    exec.start(&start()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    let pid = pid.trim();
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "what it started on purpose lives on");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.parse().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

async fn until(mut done: impl FnMut() -> bool) {
    let waited = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !done() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), waited).await.expect("in time");
}
