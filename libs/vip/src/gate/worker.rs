//! The gate's thread: blocking netlink, nothing else, so that nothing else delays a renewal.

use std::io;
use std::sync::mpsc as std_mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::netlink::{Batch, Channel, Rejected};
use super::ruleset::Tables;
use super::{GateConfig, GateError, Guard};
use crate::clock::{boottime_ns, tick_ns};

/// Timeouts are rounded down by this many kernel ticks: the kernel may take the batch up to
/// that much later than the remaining time was computed without overrunning it.
const MARGIN_TICKS: u64 = 2;

/// Attempts at an `open` that was held up between reading the clock and the kernel's answer
/// for longer than the margin. Each computes the time anew; a host that is late three times
/// in a row is in no state to serve.
const OPEN_ATTEMPTS: usize = 3;

/// Attempts at an `install` while another process holds the gate. A process that was killed
/// holds it a moment longer if it had just forked: the child has the socket until it
/// executes its program.
const INSTALL_ATTEMPTS: usize = 20;

/// Pause between them; 100 ms in all, so that a gate that is really held is reported soon.
const INSTALL_PAUSE: Duration = Duration::from_millis(5);

/// A low priority among real-time tasks: ahead of all ordinary ones, behind the kernel's own.
const REALTIME_PRIORITY: libc::c_int = 10;

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

type Reply = oneshot::Sender<Result<(), GateError>>;

/// What the thread is asked to do; it answers every one.
#[derive(Debug)]
pub(super) enum Command {
    Open { guards: Vec<Guard>, until_ns: u64, reply: Reply },
    Shut { guards: Vec<Guard>, reply: Reply },
    Uninstall { reply: Reply },
}

/// A thread whose fence is in place.
pub(super) struct Started {
    pub(super) thread: JoinHandle<()>,
    pub(super) realtime: bool,
}

/// Starts the thread in the caller's network namespace and waits until the fence is in place.
pub(super) fn start(
    config: &GateConfig,
    guards: Vec<Guard>,
    queue: mpsc::Receiver<Command>,
) -> Result<Started, GateError> {
    let (ready, started) = std_mpsc::sync_channel(1);
    let name = config.name.clone();
    let (mark, realtime) = (config.mark, config.realtime);
    let body = move || {
        let realtime = realtime && become_realtime(&name);
        let worker = Worker::install(name, mark, &guards);
        let (worker, outcome) = match worker {
            Ok(worker) => (Some(worker), Ok(realtime)),
            Err(error) => (None, Err(error)),
        };
        // Nobody waits any more only if the caller has panicked; then the queue is closed too.
        let _ = ready.send(outcome);
        if let Some(worker) = worker {
            worker.run(queue);
        }
    };
    let thread = Builder::new()
        .name(format!("gate-{}", config.name))
        .spawn(body)
        .map_err(|source| GateError::Thread { name: config.name.clone(), source })?;
    match started.recv() {
        Ok(Ok(realtime)) => Ok(Started { thread, realtime }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(GateError::Gone { name: config.name.clone() }),
    }
}

/// Whether the calling thread now runs under `SCHED_RR`.
fn become_realtime(name: &str) -> bool {
    let parameters = libc::sched_param { sched_priority: REALTIME_PRIORITY };
    #[allow(unsafe_code)]
    // SAFETY: thread 0 is the calling one, and the kernel only reads the parameters, which
    // outlive the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(gate = name, %error, "the gate's thread has no real-time priority");
    }
    result == 0
}

struct Worker {
    name: String,
    tables: Tables,
    channel: Channel,
    margin_ns: u64,
}

impl Worker {
    fn install(name: String, mark: u32, guards: &[Guard]) -> Result<Worker, GateError> {
        let channel = Channel::open().map_err(GateError::Unavailable)?;
        let tables = Tables::new(&name, mark);
        let mut worker = Worker { name, tables, channel, margin_ns: MARGIN_TICKS * tick_ns() };
        let mut attempt = 1;
        loop {
            let batch = worker.tables.install(guards);
            match worker.channel.execute(batch).map_err(|rejected| worker.install_error(rejected)) {
                Ok(()) => return Ok(worker),
                Err(GateError::Held { .. }) if attempt < INSTALL_ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(INSTALL_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn install_error(&self, rejected: Rejected) -> GateError {
        let name = self.name.clone();
        match rejected {
            Rejected::Batch(source) if source.raw_os_error() == Some(libc::EPERM) => {
                GateError::NotPermitted(source)
            }
            // Refused at a message and not as a whole: a table has another owner.
            Rejected::Message(source) if source.raw_os_error() == Some(libc::EPERM) => {
                GateError::Held { name, source }
            }
            Rejected::Batch(source) | Rejected::Message(source) if is_unsupported(&source) => {
                GateError::Unavailable(source)
            }
            Rejected::Socket(source) | Rejected::Batch(source) | Rejected::Message(source) => {
                GateError::Refused { name, step: "install", source }
            }
        }
    }

    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.blocking_recv() {
            // An answer that nobody waits for any more is no fault of the gate's.
            match command {
                Command::Open { guards, until_ns, reply } => {
                    let _ = reply.send(self.open(&guards, until_ns));
                }
                Command::Shut { guards, reply } => {
                    let _ = reply.send(self.shut(&guards));
                }
                Command::Uninstall { reply } => {
                    let batch = self.tables.uninstall();
                    let done = self.execute("uninstall", batch);
                    let end = done.is_ok();
                    let _ = reply.send(done);
                    if end {
                        return;
                    }
                }
            }
        }
        // Closing the socket does this, too, but not while a child that another thread has
        // just forked holds a copy of it.
        let batch = self.tables.retire();
        if let Err(error) = self.execute("retire", batch) {
            tracing::error!(%error, "the gate shuts at its time only");
        }
    }

    fn open(&mut self, guards: &[Guard], until_ns: u64) -> Result<(), GateError> {
        for _ in 0..OPEN_ATTEMPTS {
            // As close to send() as can be: from here on every delay eats the margin.
            let Some(timeout_ms) = timeout_ms(boottime_ns(), until_ns, self.margin_ns) else { break };
            let batch = self.tables.open(guards, timeout_ms);
            self.execute("open", batch)?;
            // The kernel took the batch before now, so this is the latest it can expire.
            if boottime_ns() + timeout_ms * NANOSECONDS_PER_MILLISECOND <= until_ns {
                return Ok(());
            }
        }
        self.shut(guards)?;
        Err(GateError::TooLate { until_ns, now_ns: boottime_ns() })
    }

    fn shut(&mut self, guards: &[Guard]) -> Result<(), GateError> {
        let batch = self.tables.shut(guards);
        self.execute("shut", batch)
    }

    fn execute(&mut self, step: &'static str, batch: Batch) -> Result<(), GateError> {
        self.channel.execute(batch).map_err(|rejected| match rejected {
            Rejected::Socket(source) | Rejected::Batch(source) | Rejected::Message(source) => {
                GateError::Refused { name: self.name.clone(), step, source }
            }
        })
    }
}

/// The timeout to ask for, or `None` if the time left is too short for the kernel's grain.
fn timeout_ms(now_ns: u64, until_ns: u64, margin_ns: u64) -> Option<u64> {
    let left_ns = until_ns.checked_sub(now_ns)?.checked_sub(margin_ns)?;
    let timeout_ms = left_ns / NANOSECONDS_PER_MILLISECOND;
    // Below a tick the kernel would round to zero, which means "never expires".
    (timeout_ms * NANOSECONDS_PER_MILLISECOND >= margin_ns).then_some(timeout_ms)
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = NANOSECONDS_PER_MILLISECOND;

    #[test]
    fn timeout_is_rounded_down_and_never_zero() {
        assert_eq!(timeout_ms(0, 300 * MS, 8 * MS), Some(292));
        assert_eq!(timeout_ms(1, 300 * MS, 8 * MS), Some(291));
        assert_eq!(timeout_ms(0, 16 * MS, 8 * MS), Some(8));
        assert_eq!(timeout_ms(1, 16 * MS, 8 * MS), None);
        assert_eq!(timeout_ms(0, 8 * MS, 8 * MS), None);
        assert_eq!(timeout_ms(2, 1, 8 * MS), None);
    }
}
