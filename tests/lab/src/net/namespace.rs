//! Entering namespaces and running the `ip` tool in them.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::wait::wait_until;

/// Folder of the named namespaces (iproute2).
pub(super) const NAMESPACES: &str = "/run/netns";

/// The kernel takes a link into service a moment after it is set up, longer while many namespaces come and go.
const LINK_DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn path(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

fn open(namespace: &str) -> Result<File> {
    let path = path(namespace);
    File::open(&path).with_context(|| format!("opening namespace {}", path.display()))
}

/// Runs `work` on a thread of its own inside the namespace; sockets it makes stay there.
pub(super) fn enter<R: Send>(namespace: &str, work: impl FnOnce() -> R + Send) -> Result<R> {
    let file = open(namespace)?;
    let inside = || -> Result<R> {
        setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering namespace {namespace}"))?;
        Ok(work())
    };
    std::thread::scope(|scope| match scope.spawn(inside).join() {
        Ok(result) => result,
        // A failed assertion inside is a failed assertion of the caller.
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// A command that will run inside the namespace. Only the network is changed: `/sys` stays the machine's.
pub(super) fn command(namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
    let file = open(namespace)?;
    let mut command = Command::new(program);
    let join = move || setns(&file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call on an open descriptor; it neither
    // allocates nor takes a lock.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(join);
    }
    Ok(command)
}

/// Runs a command to its end and returns what it printed; `input` is its standard input.
pub(super) fn run(mut command: Command, input: &str) -> Result<String> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early closes its input; its exit status says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}, {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs lines of `ip` commands in one process, in the namespace or (none) in the machine's.
pub(super) fn ip_batch(namespace: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-batch", "-"]);
    run(command, lines).map(drop)
}

/// Writes settings below `/proc/sys/net` of the namespace.
pub(super) fn sysctl(namespace: &str, settings: &[(&str, &str)]) -> Result<()> {
    enter(namespace, || {
        for (key, value) in settings {
            let path = Path::new("/proc/sys/net").join(key);
            std::fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))?;
        }
        Ok(())
    })?
}

/// Waits until a link of the namespace carries frames, or none. Between being set up and then the kernel drops
/// them without a word, and who asked for a neighbour asks again only a second later.
pub(super) fn wait_carrying(namespace: &str, link: &str, carries: bool) -> Result<()> {
    let state = if carries { "carry frames" } else { "stand still" };
    wait_until(&format!("link {link} of {namespace} to {state}"), LINK_DEADLINE, || {
        carries_frames(namespace, link).is_ok_and(|now| now == carries)
    })
}

/// All that the kernel does one after the other when a carrier comes: the state, the queue, the port of the bridge.
fn carries_frames(namespace: &str, link: &str) -> Result<bool> {
    let mut command = Command::new("ip");
    command.args(["-n", namespace, "-details", "-oneline", "link", "show", link]);
    let shown = run(command, "")?;
    let is_queueing = !shown.contains("qdisc noop ");
    let is_forwarding = !shown.contains("bridge_slave") || shown.contains("bridge_slave state forwarding");
    Ok(shown.contains(" state UP ") && is_queueing && is_forwarding)
}
