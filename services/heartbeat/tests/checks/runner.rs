//! What holds for checks of every kind together.

use std::time::Duration;

use tokio::net::TcpListener;
use understudy_heartbeat::checks::{
    CheckConfig, CheckConfigError, CheckKind, CheckRunner, CheckState, HealthReport, ProcessSelector,
};
use understudy_service::clock;

use crate::{DEADLINE, Single, check, eventually};

fn shell(script: &str) -> CheckKind {
    CheckKind::Exec { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec() }
}

/// A script that counts its runs in a file and then does as told.
fn counting(file: &std::path::Path, then: &str) -> CheckKind {
    shell(&format!("echo >> {0}; n=$(wc -l < {0}); {then}", file.display()))
}

fn runs(file: &std::path::Path) -> usize {
    std::fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

async fn reach(runner: &CheckRunner, wanted: impl FnMut(&HealthReport) -> bool) -> HealthReport {
    let mut report = runner.subscribe();
    tokio::time::timeout(DEADLINE, report.wait_for(wanted)).await.expect("not reached").unwrap().clone()
}

#[tokio::test]
async fn without_checks_all_is_well() {
    let runner = CheckRunner::start(Vec::new(), clock::now()).unwrap();
    let report = runner.subscribe().borrow().clone();
    assert!(report.healthy && report.settled());
}

#[tokio::test]
async fn pending_is_not_healthy_and_not_failing() {
    let config = check("slow", shell("sleep 1000"));
    let runner = CheckRunner::start(vec![config], clock::now()).unwrap();
    let report = runner.subscribe().borrow().clone();
    assert_eq!(report.checks[0].state, CheckState::Pending);
    assert!(!report.healthy && !report.settled());
    assert_eq!(report.failing().count(), 0);
}

/// Down after exactly `fall` failures, up again after exactly `rise` successes.
#[tokio::test]
async fn rise_and_fall_counts_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runs");
    // Up in run 1; fails in 2, 3 (not enough), succeeds in 4, fails from 5 to 7, succeeds from 8.
    let kind = counting(&file, "case $n in 2|3|5|6|7) exit 1;; esac");
    let mut single = Single::start(CheckConfig { rise: 4, fall: 3, ..check("counted", kind) });
    single.up().await;
    single.down().await;
    assert!(runs(&file) >= 7 && runs(&file) <= 8, "{}", runs(&file));
    single.up().await;
    assert!(runs(&file) >= 11, "{}", runs(&file));
}

#[tokio::test]
async fn one_check_down_is_named_while_the_others_go_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hanging = CheckConfig { timeout: Duration::from_millis(300), ..check("stuck", shell("sleep 1000")) };
    let configs = vec![hanging, check("web", CheckKind::Tcp { address }), check("fine", shell("exit 0"))];
    let runner = CheckRunner::start(configs, clock::now()).unwrap();

    // The others have their results before the stuck one has its timeout.
    let early = reach(&runner, |report| report.checks[1].up() && report.checks[2].up()).await;
    assert_eq!(early.checks[0].state, CheckState::Pending);

    let report = reach(&runner, HealthReport::settled).await;
    assert!(!report.healthy);
    let failing: Vec<_> =
        report.failing().map(|check| (check.name.as_str(), check.reason.as_deref())).collect();
    assert_eq!(failing, [("stuck", Some("no answer within 300ms"))]);

    // And they still notice changes.
    drop(listener);
    reach(&runner, |report| report.checks[1].state == CheckState::Down).await;
}

#[tokio::test]
async fn a_check_never_overlaps_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (lock, file) = (folder.path().join("lock"), folder.path().join("runs"));
    // mkdir fails if the last run has not removed its lock yet.
    let script =
        format!("mkdir {0} || exit 1; sleep 0.03; rmdir {0}; echo >> {1}", lock.display(), file.display());
    let config = CheckConfig { interval: Duration::from_millis(1), ..check("slow", shell(&script)) };
    let mut single = Single::start(config);
    single.up().await;
    eventually("ten runs", || (runs(&file) >= 10).then_some(())).await;
    assert!(!single.report.has_changed().unwrap(), "it failed at times");
}

/// A new reason or latency wakes nobody, but is there to be read.
#[tokio::test]
async fn only_up_and_down_wake_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runs");
    let mut single = Single::start(check("failing", counting(&file, "echo run $n; exit 1")));
    assert_eq!(single.down().await, "exit status: 1: run 1");
    let fifth = "exit status: 1: run 5";
    let refreshed =
        || single.report.borrow().checks[0].reason.as_deref().is_some_and(|reason| reason >= fifth);
    eventually("a later reason", || refreshed().then_some(())).await;
    assert!(!single.report.has_changed().unwrap());
}

#[tokio::test]
async fn since_tells_when_the_state_began() {
    let mut single = Single::start(check("fine", shell("exit 0")));
    let pending = single.report.borrow().checks[0].since_ns;
    let up = single.up().await.since_ns;
    assert!(pending > 0 && up > pending);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let tcp = |address: &str| CheckKind::Tcp { address: address.to_owned() };
    let http = |url: &str| CheckKind::Http { url: url.to_owned(), expect_status: 200..=200, host: None };
    let fine = check("a", tcp("127.0.0.1:1"));
    let refused =
        |configs: Vec<CheckConfig>| CheckRunner::start(configs, clock::now()).unwrap_err().to_string();

    assert_eq!(refused(vec![fine.clone(), fine.clone()]), "check \"a\": the name is used twice");
    let idle = CheckConfig { interval: Duration::ZERO, ..fine.clone() };
    assert_eq!(refused(vec![idle]), "check \"a\": interval must be above zero");
    for address in ["", "host", "host:", "host:99999", ":80", "::1:80", "http://host:80"] {
        let error = CheckRunner::start(vec![check("a", tcp(address))], clock::now()).unwrap_err();
        assert!(matches!(error, CheckConfigError::Address { .. }), "{address}: {error}");
    }
    for url in ["", "host", "/path", "https://host/", "http://", "http://user@host/", "http://host:99999/"] {
        let error = CheckRunner::start(vec![check("a", http(url))], clock::now()).unwrap_err();
        assert!(matches!(error, CheckConfigError::Url { .. }), "{url}: {error}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "the mistake under test")]
    let nothing = CheckKind::Http { url: "http://host/".to_owned(), expect_status: 300..=200, host: None };
    assert_eq!(refused(vec![check("a", nothing)]), "check \"a\": the range of expected statuses is empty");
    let host = Some("a\nb".to_owned());
    let split = CheckKind::Http { url: "http://host/".to_owned(), expect_status: 200..=200, host };
    assert_eq!(refused(vec![check("a", split)]), "check \"a\": \"a\\nb\" cannot be a Host header");
    assert_eq!(
        refused(vec![check("a", CheckKind::Exec { command: Vec::new() })]),
        "check \"a\": command must not be empty"
    );
    let nobody = CheckKind::Process { selector: ProcessSelector::Name(String::new()) };
    assert_eq!(refused(vec![check("a", nobody)]), "check \"a\": selector must not be empty");
}
