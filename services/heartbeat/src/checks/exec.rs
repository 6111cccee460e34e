//! A command exits with 0.

use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{self, Pid};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use crate::blocking::Blocking;

use super::failure::{Failure, MAX_REASON};

/// Bytes of output kept as the reason of a failure: no character of it has more than four.
const KEPT_OUTPUT: usize = 4 * MAX_REASON;

/// Output after which a command is stopped: one that floods us would take a processor until its timeout.
const MAX_OUTPUT: usize = 1024 * 1024;

/// What a pipe holds at most, unless somebody enlarges it.
const PIPE_SIZE: usize = 64 * 1024;

/// Read in one go.
const CHUNK: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct ExecProbe {
    command: Vec<String>,
    spawning: Blocking<io::Result<(Running, PipeReader)>>,
    /// Kept across runs: one that was given up on is killed at once and reaped before the next begins.
    running: Option<Running>,
}

/// A child process with its group. Dropping it kills the group and reaps the child.
///
/// The child is reaped last: while it is a zombie its number cannot be given to another process or group, so that
/// killing the group hits nobody else.
#[derive(Debug)]
struct Running {
    /// `None` once reaped.
    child: Option<Child>,
    /// Number of the child and of its group.
    pid: Pid,
}

impl ExecProbe {
    /// `None` if the command is empty.
    pub(super) fn new(command: &[String]) -> Option<Self> {
        command.first().filter(|program| !program.is_empty())?;
        Some(Self { command: command.to_vec(), spawning: Blocking::new(), running: None })
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        if let Some(given_up) = &mut self.running {
            let ended = given_up.end().await;
            ended.map_err(|cause| self.broken("waiting for the end of the last", cause))?;
            self.running = None;
        }

        let command = self.command.clone();
        let spawned = self.spawning.run(move || spawn(&command)).await;
        let spawned = spawned.map_err(io::Error::other).flatten();
        let (running, pipe) = spawned.map_err(|cause| self.broken("starting", cause))?;
        let result = self.running.insert(running).watch(pipe).await;
        let (status, output) = match result {
            Ok(Ended { status, output }) => (status, output),
            Err(Broken::Flood) => {
                self.abandon();
                return Err(Failure::TooMuchOutput(MAX_OUTPUT));
            }
            Err(Broken::Io(cause)) => {
                self.abandon();
                return Err(self.broken("watching", cause));
            }
        };
        self.running = None;
        if status.success() { Ok(()) } else { Err(Failure::Exit { status, output }) }
    }

    fn broken(&self, step: &'static str, cause: io::Error) -> Failure {
        Failure::step(step, &self.command[0], cause)
    }

    /// The run was given up on: kills the whole group now. The next run reaps it.
    pub(super) fn abandon(&mut self) {
        if let Some(running) = &self.running {
            running.kill();
        }
    }
}

struct Ended {
    status: ExitStatus,
    output: String,
}

enum Broken {
    Flood,
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

/// Starts the command in a group of its own, both outputs into one pipe. Blocks until the program is loaded, which
/// a hung file system can draw out.
fn spawn(command: &[String]) -> io::Result<(Running, PipeReader)> {
    let (reader, writer) = io::pipe()?;
    let child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    Ok((Running { child: Some(child), pid }, reader))
}

impl Running {
    /// Collects output until the child ends, then kills what it left in its group and reaps it.
    async fn watch(&mut self, pipe: PipeReader) -> Result<Ended, Broken> {
        let pipe = Receiver::from_owned_fd(pipe.into())?;
        let mut output = Output::default();
        let ended = ended(self.pid);
        tokio::pin!(ended);
        loop {
            tokio::select! {
                ended = &mut ended => {
                    ended?;
                    break;
                }
                ready = pipe.readable(), if !output.closed => {
                    ready?;
                    output.read(&pipe)?;
                    if output.seen > MAX_OUTPUT {
                        return Err(Broken::Flood);
                    }
                }
            }
        }
        output.drain(&pipe)?;
        let status = self.reap()?;
        Ok(Ended { status, output: output.text() })
    }

    /// Kills the group and waits for the child's end.
    async fn end(&mut self) -> io::Result<()> {
        self.kill();
        ended(self.pid).await?;
        self.reap().map(drop)
    }

    fn kill(&self) {
        if self.child.is_some() {
            let killed = killpg(self.pid, Signal::SIGKILL);
            // A child that runs as another user (set-uid) may not be killed; then it has to end by itself.
            debug_assert!(matches!(killed, Ok(()) | Err(Errno::EPERM)), "the unreaped child is in its group");
        }
    }

    /// Reaps a child that has ended.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        let mut child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        child.wait()
    }
}

/// Waits until the child is a zombie, without reaping it.
async fn ended(pid: Pid) -> io::Result<()> {
    // Listened for before the first look, so that no end is missed.
    let mut signals = signal(SignalKind::child())?;
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(pid), look)? == WaitStatus::StillAlive {
        signals.recv().await.ok_or(io::ErrorKind::UnexpectedEof)?;
    }
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut child) = self.child.take() {
            // Dies at once, or when the kernel lets go of it; a thread can wait for that, a task cannot.
            std::thread::spawn(move || child.wait());
        }
    }
}

/// Why a command failed that ended with `status` and wrote `chunks`.
pub(super) fn failure<'a>(status: ExitStatus, chunks: impl Iterator<Item = &'a [u8]>) -> Failure {
    let mut output = Output::default();
    chunks.for_each(|chunk| output.take(chunk));
    Failure::Exit { status, output: output.text() }
}

#[derive(Default)]
struct Output {
    kept: Vec<u8>,
    seen: usize,
    closed: bool,
}

impl Output {
    /// Reads one chunk, if the runtime knows of one.
    fn read(&mut self, pipe: &Receiver) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        match pipe.try_read(&mut chunk) {
            Ok(0) => self.closed = true,
            Ok(read) => self.take(&chunk[..read]),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
            Err(cause) => return Err(cause),
        }
        Ok(())
    }

    /// Reads what is in the pipe after the child's end: all that it wrote is there by now. Asks the kernel, because
    /// the runtime may not have heard of it yet. The pipe's end is not waited for: a grandchild that left the group
    /// may hold it open for ever, or go on writing.
    fn drain(&mut self, pipe: &Receiver) -> io::Result<()> {
        let limit = self.seen + PIPE_SIZE;
        let mut chunk = [0; CHUNK];
        while self.seen < limit {
            match unistd::read(pipe, &mut chunk) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(read) => self.take(&chunk[..read]),
                Err(Errno::EINTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, read: &[u8]) {
        let room = KEPT_OUTPUT - self.kept.len();
        self.kept.extend_from_slice(&read[..read.len().min(room)]);
        self.seen += read.len();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim().to_owned()
    }
}
