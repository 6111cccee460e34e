//! `exec`, with real commands.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use understudy_heartbeat::checks::{CheckConfig, CheckKind};

use crate::{DEADLINE, Single, check, eventually, hasty, verdict};

fn shell(script: &str) -> CheckConfig {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    check("exec", CheckKind::Exec { command })
}

/// Waits until the file holds a process id, which the script writes in one go.
async fn pid_in(file: &Path) -> Pid {
    let written = || std::fs::read_to_string(file).ok()?.trim().parse().ok().map(Pid::from_raw);
    eventually("a process id", written).await
}

/// Waits until the process is gone, zombies included.
async fn gone(pid: Pid) {
    eventually("the end of a process", || (kill(pid, None) == Err(Errno::ESRCH)).then_some(())).await;
}

#[tokio::test]
async fn the_exit_status_decides() {
    assert_eq!(verdict(shell("exit 0")).await, "up");
    assert_eq!(verdict(shell("exit 3")).await, "exit status: 3");
    assert_eq!(verdict(shell("kill -9 $$")).await, "signal: 9 (SIGKILL)");
}

#[tokio::test]
async fn both_outputs_are_the_reason() {
    let reason = verdict(shell("echo lag is 40 s; echo too much >&2; exit 1")).await;
    assert_eq!(reason, "exit status: 1: lag is 40 s too much");
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let command = vec!["/nonexistent/program".to_owned()];
    let reason = verdict(check("exec", CheckKind::Exec { command })).await;
    assert_eq!(reason, "starting /nonexistent/program: No such file or directory (os error 2)");
}

/// More than a pipe holds, so that a reader that stops at its cap would block the command.
#[tokio::test]
async fn long_output_is_read_to_the_end_and_capped() {
    let reason = verdict(shell("head -c 300000 /dev/zero | tr '\\0' x; exit 1")).await;
    assert_eq!(reason, format!("{:x<256}", "exit status: 1: "));
}

#[tokio::test]
async fn endless_output_is_stopped_before_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let config = shell(&format!("echo $$ > {}; exec yes", file.display()));
    let mut single = Single::start(CheckConfig { timeout: DEADLINE * 10, interval: DEADLINE * 10, ..config });
    assert_eq!(single.down().await, "wrote more than 1048576 bytes");
    let pid = pid_in(&file).await;
    drop(single);
    gone(pid).await;
}

/// Neither a zombie nor the grandchild may be left: the whole group is killed and the child reaped.
#[tokio::test]
async fn a_hanging_command_is_killed_with_its_grandchild() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    // Two runs hang (on a busy machine the first may be excused as our own lateness); the next one shows that they
    // were given up on and that checking goes on.
    let script =
        format!("[ $(wc -l < {0}) -ge 2 ] && exit 0; sleep 1000 & echo $$ $! >> {0}; wait", file.display());
    std::fs::write(&file, "").unwrap();
    let mut single = Single::start(hasty(shell(&script).kind));
    assert_eq!(single.down().await, "no answer within 300ms");
    single.up().await;
    let pids = std::fs::read_to_string(&file).unwrap();
    assert_eq!(pids.split_whitespace().count(), 4);
    for pid in pids.split_whitespace() {
        gone(Pid::from_raw(pid.parse().unwrap())).await;
    }
}

/// The grandchild holds the output open: the result must not wait for it, and it is not left running.
#[tokio::test]
async fn a_grandchild_that_stays_behind_neither_delays_the_result_nor_lives_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; echo done; exit 1", file.display());
    let config = CheckConfig { interval: DEADLINE * 10, ..shell(&script) };
    let mut single = Single::start(config);
    assert_eq!(single.down().await, "exit status: 1: done");
    gone(pid_in(&file).await).await;
}

/// A grandchild in a session of its own cannot be reached, but it must not hold up the result either.
#[tokio::test]
async fn a_daemon_that_left_the_group_does_not_delay_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 1000' & while ! [ -s {0} ]; do :; done; exit 0",
        file.display()
    );
    let config = CheckConfig { interval: DEADLINE * 10, ..shell(&script) };
    let mut single = Single::start(config);
    let latency = single.up().await.latency.unwrap();
    assert!(latency < Duration::from_secs(2), "{latency:?}");
    kill(pid_in(&file).await, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn dropping_the_runner_kills_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let config = shell(&format!("echo $$ > {}; exec sleep 1000", file.display()));
    let single = Single::start(CheckConfig { timeout: DEADLINE * 10, ..config });
    let pid = pid_in(&file).await;
    drop(single);
    gone(pid).await;
}
