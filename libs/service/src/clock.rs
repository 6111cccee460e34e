//! The clock that decides: CLOCK_BOOTTIME, which also runs while the host is suspended.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::{Duration, SystemTime},
};

use nix::{
    sys::{
        time::TimeSpec,
        timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId, clock_gettime},
};
use tokio::io::{Interest, unix::AsyncFd};
use understudy_wire::{BootId, BootTime};

/// Now, on this host.
///
/// # Panics
/// Where the kernel has no CLOCK_BOOTTIME (Linux before 2.6.39); without it nothing here is safe.
pub fn now() -> BootTime {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    let span = Duration::from(time);
    BootTime(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// The id of this boot: the same for every container of a host, another after a reboot.
///
/// # Errors
/// When `/proc/sys/kernel/random/boot_id` cannot be read or is no UUID.
pub fn boot_id() -> io::Result<BootId> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(PATH)?;
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(id) if digits.len() == 32 => Ok(BootId(id)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{PATH} holds {text:?}, no UUID"))),
    }
}

/// A timer on the clock that decides. It wakes its task once, when the deadline has come: the runtime's own timers count
/// in whole milliseconds, wake for whatever lies more than 64 ms ahead once more on the way, and stand still while the host
/// is suspended.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<Timer>,
    set: Option<BootTime>,
}

/// The runtime asks for the number of what it watches.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Alarm {
    /// A timer that is not set. Must be called in a runtime.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(timerfd::ClockId::CLOCK_BOOTTIME, flags)?;
        // SAFETY: the timer owns its descriptor, which stays open and the same until it is dropped, and the `AsyncFd`
        // drops it.
        #[expect(unsafe_code, reason = "there is no safe way to watch a descriptor")]
        let timer = unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE) }?;
        Ok(Self { timer, set: None })
    }

    /// Returns at `deadline`, never earlier; at once when it has passed. Cancel safe.
    pub async fn reached(&mut self, deadline: BootTime) {
        loop {
            let left = deadline.since(now());
            if left.is_zero() {
                return;
            }
            if self.set != Some(deadline) {
                // Not the time itself: libfaketime (row 26) shifts absolute times of every clock by the wall clock's offset.
                let once = Expiration::OneShot(TimeSpec::from_duration(left));
                let set = self.timer.get_ref().0.set(once, TimerSetTimeFlags::empty());
                set.expect("a span above 0 can be waited for");
                self.set = Some(deadline);
            }
            let mut ready = self.timer.readable().await.expect("the runtime lives as long as its tasks");
            let gone_off = ready.get_inner().0.wait().is_ok();
            ready.clear_ready();
            // Nothing to read: it had gone off before it was set anew.
            if gone_off {
                self.set = None;
            }
        }
    }
}

/// The wall clock at `time` of this host: to show and to trace, never to decide.
pub fn wall(time: BootTime) -> SystemTime {
    let (boot, wall) = (now(), SystemTime::now());
    let shifted =
        if time > boot { wall.checked_add(time.since(boot)) } else { wall.checked_sub(boot.since(time)) };
    shifted.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_id_is_the_kernels() {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let written = format!("{:032x}", boot_id().unwrap().0);
        assert_eq!(written, text.trim().replace('-', ""));
    }

    #[tokio::test]
    async fn an_alarm_is_never_early_and_a_past_deadline_costs_nothing() {
        let mut alarm = Alarm::new().unwrap();
        for _ in 0..3 {
            let deadline = now().after(Duration::from_millis(20));
            alarm.reached(deadline).await;
            assert!(now() >= deadline);
        }
        alarm.reached(BootTime(0)).await;
    }

    #[tokio::test]
    async fn an_alarm_that_is_set_anew_forgets_what_it_was_set_to() {
        let mut alarm = Alarm::new().unwrap();
        let (soon, later) = (now().after(Duration::from_millis(10)), now().after(Duration::from_secs(3600)));
        let given_up = tokio::time::timeout(Duration::ZERO, alarm.reached(later)).await;
        assert!(given_up.is_err());
        alarm.reached(soon).await;
        assert!(now() >= soon && now() < later, "an earlier deadline takes the place of a later one");
        let missed = now().after(Duration::from_millis(5));
        let given_up = tokio::time::timeout(Duration::ZERO, alarm.reached(missed)).await;
        assert!(given_up.is_err());
        // It goes off, and nobody looks.
        while now() < missed {}
        let later = now().after(Duration::from_millis(20));
        alarm.reached(later).await;
        assert!(now() >= later, "what has gone off before counts for nothing");
    }

    #[test]
    fn the_wall_clock_of_now_is_now() {
        let off = wall(now()).duration_since(SystemTime::now()).unwrap_or_else(|error| error.duration());
        assert!(off < Duration::from_secs(1), "{off:?}");
        let hour = Duration::from_secs(3600);
        let ahead = wall(now().after(hour)).duration_since(SystemTime::now()).unwrap();
        assert!(ahead > hour - Duration::from_secs(1) && ahead < hour + Duration::from_secs(1));
    }
}
