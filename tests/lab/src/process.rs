//! Programs that keep running inside a host, and what can be done to them.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::net::Host;
use crate::wait::wait_until;

/// Lines of its log shown when a process ended that should run.
const LOG_TAIL: usize = 20;

/// A program to be run in a host: what [`Process`] starts, and starts again.
#[derive(Clone, Debug)]
pub struct Launch {
    host: Host,
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    log: PathBuf,
    filter: Option<BpfProgram>,
}

impl Launch {
    /// `name` is for messages and for the log, `<name>.log` in the network's folder.
    pub fn new(host: &Host, name: &str, program: impl AsRef<Path>) -> Self {
        Self {
            host: host.clone(),
            name: name.to_owned(),
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            log: host.folder().join(format!("{name}.log")),
            filter: None,
        }
    }

    /// Starts it by another program, which gets the words here and then those of the program, and which must execute
    /// it in its own place, as `unshare` and `setpriv` do: process id and signals stay the same.
    #[must_use]
    pub fn through<W: AsRef<OsStr>>(mut self, starter: &str, words: impl IntoIterator<Item = W>) -> Self {
        let mut arguments: Vec<OsString> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        arguments.push(std::mem::replace(&mut self.program, PathBuf::from(starter)).into());
        arguments.append(&mut self.arguments);
        self.arguments = arguments;
        self
    }

    /// Starts it on a kernel that has no nftables, as far as it can tell: the socket to them is refused with the error
    /// that such a kernel answers. Address changes and all else work.
    ///
    /// # Errors
    /// When the machine is none that the filter knows.
    pub fn without_nftables(mut self) -> Result<Self> {
        let equals = |index: u8, value: libc::c_int| {
            SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value as u64)
        };
        let rule = SeccompRule::new(vec![equals(0, libc::AF_NETLINK)?, equals(2, libc::NETLINK_NETFILTER)?])?;
        let filter = SeccompFilter::new(
            [(libc::SYS_socket, vec![rule])].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::EPROTONOSUPPORT as u32),
            std::env::consts::ARCH.try_into()?,
        )?;
        self.filter = Some(filter.try_into()?);
        Ok(self)
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<I: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = I>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable on top of the environment of this process.
    #[must_use]
    pub fn environment(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets several variables, as [`Launch::environment`].
    #[must_use]
    pub fn environments<'a>(mut self, variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.environment.extend(variables.into_iter().map(|(key, value)| (key.into(), value.into())));
        self
    }

    /// Another file for its output, which is appended.
    #[must_use]
    pub fn log(mut self, file: impl AsRef<Path>) -> Self {
        self.log = file.as_ref().to_owned();
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When host, log or program are not there.
    pub fn spawn(self) -> Result<Process> {
        let child = self.start()?;
        Ok(Process { child: Mutex::new(child), launch: self })
    }

    fn start(&self) -> Result<Child> {
        let output = open_log(&self.log).with_context(|| format!("opening {}", self.log.display()))?;
        let errors = output.try_clone().with_context(|| format!("opening {}", self.log.display()))?;
        let mut command = self.host.command(&self.program)?;
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        // SAFETY: between fork and exec the closure makes one system call; it neither allocates nor takes a lock.
        #[allow(unsafe_code)]
        unsafe {
            // Also when this process is killed with -9 nothing of it goes on running.
            command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
        }
        if let Some(filter) = self.filter.clone() {
            let apply = move || seccompiler::apply_filter(&filter).map_err(|_| io::Error::last_os_error());
            // SAFETY: as above; two system calls on a program that was made before the fork.
            #[allow(unsafe_code)]
            unsafe {
                command.pre_exec(apply);
            }
        }
        spawn_from_lasting_thread(command).with_context(|| {
            format!("starting {} ({}) in host {}", self.name, self.program.display(), self.host)
        })
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// The parent-death signal comes when the *thread* that started the child ends, not the process. So one thread
/// that never ends starts them all.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, SyncSender<io::Result<Child>>);
    static SPAWNER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, queue) = sync_channel::<Order>(1);
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in queue {
                    // Whoever asked waits for the answer.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be had: without it the lab can start nothing");
        orders
    });
    let (answer, child) = sync_channel(1);
    spawner.send((command, answer)).map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}

/// A running program. Dropping it kills it with its whole process group.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: Mutex<Child>,
}

impl Process {
    /// Its name, as given to [`Launch::new`].
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// The host it runs in.
    pub fn host(&self) -> &Host {
        &self.launch.host
    }

    /// Its process id (that of the last start).
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// File with its output, all starts one after the other.
    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    /// What it has written so far.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.launch.log).unwrap_or_default()
    }

    /// False once it has ended (a stopped one still runs).
    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// SIGKILL, and waits until the kernel has ended it.
    ///
    /// # Errors
    /// When the signal is refused or the process does not end (it hangs in the kernel).
    pub fn kill9(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_exit(Duration::from_secs(5)).map(drop)
    }

    /// SIGSTOP: it stands still but keeps everything.
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT, after [`Process::stop`].
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn cont(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// SIGTERM: asks it to end.
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Any other signal. One that has ended gets none.
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = self.child();
        // A child that has been waited for has no pid any more: it may be somebody else's.
        if matches!(child.try_wait(), Ok(None)) {
            kill(Pid::from_raw(child.id() as i32), signal)
                .with_context(|| format!("sending {signal} to {}", self.name()))?;
        }
        Ok(())
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it still runs at the deadline.
    pub fn wait_exit(&self, deadline: Duration) -> Result<ExitStatus> {
        wait_until(&format!("{} to end", self.name()), deadline, || self.child().try_wait().ok().flatten())
    }

    /// Waits until `ready` says yes; fails at once, with the end of its log, when the process ends meanwhile.
    ///
    /// # Errors
    /// When it ended, or is not ready at the deadline.
    pub fn wait_ready(&self, deadline: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let what = format!("{} to be ready", self.name());
        let alive = wait_until(&what, deadline, || {
            if ready() {
                Some(true)
            } else if self.is_running() {
                None
            } else {
                Some(false)
            }
        });
        match alive {
            Ok(true) => Ok(()),
            Ok(false) => Err(anyhow::anyhow!("{} ended", self.name())),
            Err(error) => Err(error),
        }
        .with_context(|| format!("last lines of {}:\n{}", self.log().display(), self.log_tail()))
    }

    fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }

    /// Starts the same program again; one that still runs is killed first.
    ///
    /// # Errors
    /// As [`Launch::spawn`] and [`Process::kill9`].
    pub fn restart(&self) -> Result<()> {
        self.restart_as(Ok)
    }

    /// As [`Process::restart`], with a launch that is changed for this time: in an environment that lacks something.
    ///
    /// # Errors
    /// As [`Process::restart`], and what the change says.
    pub fn restart_as(&self, change: impl FnOnce(Launch) -> Result<Launch>) -> Result<()> {
        self.kill9()?;
        let child = change(self.launch.clone())?.start()?;
        *self.child() = child;
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if matches!(child.try_wait(), Ok(None)) {
            // The group is its own (process_group(0)) and lives as long as its unwaited leader.
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}
