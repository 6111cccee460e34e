//! What a person gets wrong at night.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use understudy_lab::wait_until;

use crate::support::*;

#[test]
fn a_server_that_is_down_or_silent_is_an_error_within_the_time_limit() {
    let ip = own_address();
    // Takes connections, never says a word.
    let silent = TcpListener::bind((ip, 4222)).unwrap();
    for (url, shown) in [
        (format!("nats://{ip}:4223"), format!("nats://{ip}:4223")),
        (format!("nats://{}", silent.local_addr().unwrap()), format!("nats://{ip}:4222")),
    ] {
        let began = Instant::now();
        let ended = run(&["status", "--nats", &url, "--cluster", "demo", "--timeout", "600ms"]);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(ended.code, 1);
        assert_eq!(ended.err, format!("error: no NATS server lets us in within 600ms: tried {shown}\n"));
    }
}

/// To get in takes four round trips with TLS: over a line from afar that is more than services give a server.
#[test]
fn a_server_has_its_share_of_the_time_limit_to_let_us_in() {
    let slow = TcpListener::bind((own_address(), 4222)).unwrap();
    let url = format!("nats://{}", slow.local_addr().unwrap());
    let asking =
        std::thread::spawn(move || run(&["status", "--nats", &url, "--cluster", "demo", "--timeout", "3s"]));
    slow.set_nonblocking(true).unwrap();
    let mut accepted = None;
    wait_until("the CLI to connect", DEADLINE, || {
        accepted = slow.accept().ok();
        accepted.is_some()
    })
    .unwrap();
    let (mut first, began) = (accepted.unwrap().0, Instant::now());
    first.set_nonblocking(false).unwrap();
    first.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "it hangs up in the end");
    // Of one server tried twice; half a second less, since it was not seen to connect at once.
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(asking.join().unwrap().code, 1);
}

#[test]
fn credentials_in_an_address_are_refused_and_not_repeated() {
    let ended = run(&["status", "--nats", "nats://ops:secret@127.0.0.1:1", "--cluster", "demo"]);
    assert_eq!(ended.code, 78);
    assert!(ended.err.contains("must not hold credentials"), "{}", ended.err);
    assert!(!ended.err.contains("secret@"), "{}", ended.err);
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["status"][..],
        &["status", "--nats", "nats://127.0.0.1:1"],
        &["status", "--cluster", "a.b", "--nats", "nats://127.0.0.1:1"],
        &["status", "--group", "web.*"],
        &["switchover"],
        &["switchover", "--group", "web", "--to", ">"],
        &["switchover", "--group", "web", "--slot", "-1"],
        &["maintenance", "on", "--group", "web"],
        &["maintenance", "on", "--group", "web", "--node", "a b"],
        &["events", "--last", "0"],
        &["status", "--timeout", "0s"],
        &["status", "--timeout", "10000000000000000000s"],
        &["events", "--timeout", "10000000000000000000s"],
        &["completions", "tcsh"],
        &["nonsense"],
    ] {
        let ended = run(args);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{args:?}: {ended:?}");
        assert!(ended.err.starts_with("error: "), "{args:?}: {ended:?}");
    }
}

#[test]
fn a_configuration_with_mistakes_is_refused_with_all_of_them() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("ha.toml");
    fs::write(&file, "cluster = \"demo\"\n[lease]\ninterval = 7\n[detector]\nsaets = 3\n").unwrap();
    let file = file.to_str().unwrap();
    let ended = run(&["validate", file]);
    assert_eq!(ended.code, 78);
    for line in [
        format!("error: {file}:3: lease.interval = 7: must be"),
        format!("error: {file}:5: detector.saets = 3: unknown key"),
    ] {
        assert!(ended.out.contains(&line), "{line}: {}", ended.out);
    }
    assert!(ended.out.ends_with("no service starts with it\n"), "{}", ended.out);
    let ended = run(&["status", "--config", file]);
    assert_eq!(ended.code, 78);
    assert!(ended.err.contains("detector.saets"), "{}", ended.err);
    let ended = run(&["validate", "/nowhere/ha.toml"]);
    assert_eq!(ended.code, 78);
    assert!(ended.out.contains("/nowhere/ha.toml: cannot be read"), "{}", ended.out);
}

#[test]
fn the_environment_is_validated_when_asked_for() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("ha.toml");
    let good = "cluster = \"demo\"\n[nats]\nservers = [\"nats://127.0.0.1:4222\"]\n[[group.web.slot]]\nvips = [\"10.77.0.100/24\"]\n";
    fs::write(&file, good).unwrap();
    let validate = |args: &[&str]| -> Ended {
        let mut command = program(&[&["validate", file.to_str().unwrap()], args].concat());
        command.env("UNDERSTUDY_LEASE__DURATION", "soon").output().unwrap().into()
    };
    assert_eq!(validate(&[]).code, 0, "{:?}", validate(&[]));
    let ended = validate(&["--env"]);
    assert_eq!(ended.code, 78);
    assert!(ended.out.contains("environment variable UNDERSTUDY_LEASE__DURATION"), "{}", ended.out);
}

#[test]
fn every_shell_gets_its_completions() {
    for (shell, sign) in
        [("bash", "complete "), ("zsh", "#compdef understudy"), ("fish", "complete -c understudy")]
    {
        let ended = run(&["completions", shell]);
        assert_eq!(ended.code, 0);
        assert!(ended.out.contains(sign) && ended.out.contains("switchover"), "{shell}");
    }
}
