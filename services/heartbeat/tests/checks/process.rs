//! `process`, with real processes.

use std::process::{Child, Command};

use understudy_heartbeat::checks::{CheckConfig, CheckKind, ProcessSelector};

use crate::{Single, check, verdict};

/// A process that sleeps until it is killed.
struct Sleeper(Child);

impl Sleeper {
    /// Under a name of its own: a link to `sleep` called `name` in `folder`.
    fn start(folder: &tempfile::TempDir, name: &str) -> Self {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink("/bin/sleep", &path).unwrap();
        Self(Command::new(path).arg("1000").spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn process(selector: ProcessSelector) -> CheckConfig {
    check("process", CheckKind::Process { selector })
}

/// A name that no other test and no other run of the tests uses.
fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", std::process::id())
}

/// The killed process stays a zombie until the test reaps it: a zombie is not running.
#[tokio::test]
async fn a_process_of_a_name_that_dies_is_down_even_as_a_zombie() {
    let folder = tempfile::tempdir().unwrap();
    let name = unique("us");
    let mut sleeper = Sleeper::start(&folder, &name);
    let mut single = Single::start(process(ProcessSelector::Name(name.clone())));
    single.up().await;
    sleeper.kill();
    assert_eq!(single.down().await, format!("no process {name:?} runs"));
    drop(sleeper);
    std::fs::remove_file(folder.path().join(&name)).unwrap();
    let _again = Sleeper::start(&folder, &name);
    single.up().await;
}

/// The kernel keeps 15 bytes of a name; the rest is in the command line.
#[tokio::test]
async fn a_long_name_is_found_by_its_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let name = unique("understudy-test-of-long-names");
    let _sleeper = Sleeper::start(&folder, &name);
    assert_eq!(verdict(process(ProcessSelector::Name(name))).await, "up");
}

#[tokio::test]
async fn a_part_of_the_command_line_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let name = unique("us-line");
    let part = format!("{name} 1000");
    let sleeper = Sleeper::start(&folder, &name);
    let mut single = Single::start(process(ProcessSelector::CommandLine(part)));
    single.up().await;
    drop(sleeper);
    single.down().await;
}

#[tokio::test]
async fn a_pid_file_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let mut sleeper = Sleeper::start(&folder, "s");
    let pid = sleeper.0.id();
    std::fs::write(&file, format!("{pid}\n")).unwrap();
    let mut single = Single::start(process(ProcessSelector::PidFile(file.clone())));
    single.up().await;
    sleeper.kill();
    assert_eq!(single.down().await, format!("process {pid} does not run"));
}

#[tokio::test]
async fn a_pid_file_that_is_missing_or_holds_no_pid_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let shown = file.display().to_string();
    let config = process(ProcessSelector::PidFile(file.clone()));
    assert_eq!(
        verdict(config.clone()).await,
        format!("reading {shown}: No such file or directory (os error 2)")
    );
    for content in ["", "-1", "0", "web", &"1".repeat(100_000)] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(verdict(config.clone()).await, format!("{shown} holds no process id"));
    }
}
