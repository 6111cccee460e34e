//! What a gate has the kernel do. The socket that it speaks over owns the pass tables: they end with it.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::netlink::{Batch, Channel, Rejected};
use super::ruleset::Tables;
use super::{GateError, Guard};
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

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// The pass tables of one gate.
#[derive(Debug)]
pub(super) struct Pass {
    name: String,
    tables: Tables,
    channel: Channel,
    margin_ns: u64,
    /// Opened, and not shut since other than by the time.
    opened: BTreeSet<Guard>,
    /// Whether the tables are ours to remove.
    installed: bool,
}

impl Pass {
    /// Puts the fence in place, and the pass, which lets nobody through yet.
    pub(super) fn install(name: String, mark: u32, guards: &[Guard]) -> Result<Pass, GateError> {
        let channel = Channel::open().map_err(GateError::Unavailable)?;
        let tables = Tables::new(&name, mark);
        let margin_ns = MARGIN_TICKS * tick_ns();
        let mut pass = Pass { name, tables, channel, margin_ns, opened: BTreeSet::new(), installed: false };
        let mut attempt = 1;
        loop {
            let batch = pass.tables.install(guards);
            match pass.channel.execute(batch).map_err(|rejected| pass.install_error(rejected)) {
                Ok(()) => {
                    pass.installed = true;
                    return Ok(pass);
                }
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
            rejected => self.refused("install", rejected),
        }
    }

    /// Opens guards until then, or shuts them when it is too late for that.
    pub(super) fn open(&mut self, guards: &[Guard], until_ns: u64) -> Result<(), GateError> {
        for _ in 0..OPEN_ATTEMPTS {
            // As close to send() as can be: from here on every delay eats the margin.
            let Some(timeout_ms) = timeout_ms(boottime_ns(), until_ns, self.margin_ns) else { break };
            if !self.renew(guards, timeout_ms)? {
                let batch = self.tables.open(guards, timeout_ms);
                self.execute("open", batch)?;
                self.opened.extend(guards);
            }
            // The kernel took the batch before now, so this is the latest it can expire.
            if boottime_ns() + timeout_ms * NANOSECONDS_PER_MILLISECOND <= until_ns {
                return Ok(());
            }
        }
        self.shut(guards)?;
        Err(GateError::TooLate { until_ns, now_ns: boottime_ns() })
    }

    /// Renews guards, a third cheaper than opening them; `false` when one of them is not open any more.
    fn renew(&mut self, guards: &[Guard], timeout_ms: u64) -> Result<bool, GateError> {
        if !guards.iter().all(|guard| self.opened.contains(guard)) {
            return Ok(false);
        }
        match self.channel.execute(self.tables.renew(guards, timeout_ms)) {
            Err(Rejected::Message(error)) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            executed => executed.map(|()| true).map_err(|rejected| self.refused("renew", rejected)),
        }
    }

    /// Shuts guards.
    pub(super) fn shut(&mut self, guards: &[Guard]) -> Result<(), GateError> {
        let batch = self.tables.shut(guards);
        self.execute("shut", batch)?;
        self.opened.retain(|guard| !guards.contains(guard));
        Ok(())
    }

    /// Removes pass and fence.
    pub(super) fn uninstall(mut self) -> Result<(), GateError> {
        let batch = self.tables.uninstall();
        self.execute("uninstall", batch)?;
        self.installed = false;
        Ok(())
    }

    fn execute(&mut self, step: &'static str, batch: Batch) -> Result<(), GateError> {
        self.channel.execute(batch).map_err(|rejected| self.refused(step, rejected))
    }

    fn refused(&self, step: &'static str, rejected: Rejected) -> GateError {
        let name = self.name.clone();
        match rejected {
            Rejected::Socket(source) | Rejected::Batch(source) | Rejected::Message(source) => {
                GateError::Refused { name, step, source }
            }
        }
    }
}

impl Drop for Pass {
    /// Shuts everything. Closing the socket does this, too, but not while a child that another thread has just forked holds
    /// a copy of it.
    fn drop(&mut self) {
        if !self.installed {
            return;
        }
        let batch = self.tables.retire();
        if let Err(error) = self.execute("retire", batch) {
            tracing::error!(%error, "the gate shuts at its time only");
        }
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
