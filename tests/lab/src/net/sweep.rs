//! Removing networks: one's own, all of this process, and those of runs that died.
//!
//! Every namespace of the lab is named `us<pid>x<counter>-<network>-<host>`, so whose it is can be told from its name.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::namespace;

/// Logs of failed runs are kept for a day.
const LOGS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Prefixes of the networks that this process has now.
static LIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Read-locked while a namespace is being made; true once this process is on its way out.
static CLOSED: RwLock<bool> = RwLock::new(false);

/// Permission to make a namespace, for as long as the guard is held: a namespace made while all are being removed
/// would stay behind.
///
/// # Errors
/// When the process is on its way out.
pub(super) fn making() -> Result<RwLockReadGuard<'static, bool>> {
    let closed = CLOSED.read().unwrap_or_else(PoisonError::into_inner);
    if *closed {
        bail!("the process is on its way out");
    }
    Ok(closed)
}

fn live() -> MutexGuard<'static, BTreeSet<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn register(prefix: &str) {
    live().insert(prefix.to_owned());
}

pub(super) fn unregister(prefix: &str) {
    live().remove(prefix);
}

/// Prefixes of the networks that this process has now.
pub fn prefixes() -> Vec<String> {
    live().iter().cloned().collect()
}

pub(super) fn prefix(counter: u32, name: &str) -> String {
    format!("us{}x{counter}-{name}", process::id())
}

/// Folder of a network's logs and data.
pub(super) fn folder(prefix: &str) -> PathBuf {
    folders().join(prefix)
}

fn folders() -> PathBuf {
    std::env::temp_dir().join("understudy-lab")
}

/// Process that made what bears this name, if it is one of the lab's names.
fn owner(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix("us")?.split_once('x')?;
    rest.split_once('-')?.0.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn is_dead(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

/// Names in a folder; none when the folder is not there.
fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Removes what runs that died left behind: processes, namespaces, and folders older than a day. Returns the
/// number of namespaces removed. Runs that still live are left alone.
pub fn sweep() -> usize {
    let dead: Vec<String> =
        names(namespace::NAMESPACES).into_iter().filter(|name| owner(name).is_some_and(is_dead)).collect();
    remove_namespaces(&dead);
    for name in names(folders()) {
        let folder = folders().join(&name);
        let age =
            fs::metadata(&folder).and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        if owner(&name).is_some_and(is_dead) && age.is_some_and(|age| age > LOGS_KEPT) {
            remove_folder(&folder);
        }
    }
    dead.len()
}

/// Kills what runs in the namespaces of a network and removes them. Nothing there: nothing done.
pub(super) fn remove(prefix: &str) {
    let start = format!("{prefix}-");
    let all: Vec<String> =
        names(namespace::NAMESPACES).into_iter().filter(|name| name.starts_with(&start)).collect();
    remove_namespaces(&all);
}

/// Removes every network of this process, and lets it make no more; for the way out. Returns how many there were.
pub(crate) fn remove_all() -> usize {
    *CLOSED.write().unwrap_or_else(PoisonError::into_inner) = true;
    let prefixes = prefixes();
    for prefix in &prefixes {
        remove(prefix);
        unregister(prefix);
        remove_folder(&folder(prefix));
    }
    prefixes.len()
}

pub(super) fn remove_folder(folder: &Path) {
    // A process that is being killed may still write there; what stays goes with a later sweep.
    let _ = fs::remove_dir_all(folder);
}

fn remove_namespaces(namespaces: &[String]) {
    if namespaces.is_empty() {
        return;
    }
    kill_inside(namespaces);
    // One process each way: `ip -force` goes on when another sweep was faster with one of them.
    let lines: String = namespaces.iter().map(|name| format!("netns del {name}\n")).collect();
    let mut command = process::Command::new("ip");
    command.args(["-force", "-batch", "-"]);
    let _ = namespace::run(command, &lines);
}

/// One pass over `/proc` for all namespaces (`ip netns pids` makes one for each).
fn kill_inside(namespaces: &[String]) {
    let inodes: BTreeSet<u64> =
        namespaces.iter().filter_map(|name| Some(fs::metadata(namespace::path(name)).ok()?.ino())).collect();
    for pid in names("/proc").iter().filter_map(|name| name.parse::<u32>().ok()) {
        let inside =
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|data| inodes.contains(&data.ino()));
        if inside && pid != process::id() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}
