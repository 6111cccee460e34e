//! The clock that decides: CLOCK_BOOTTIME, which also runs while the host is suspended.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
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
    timer: AsyncFd<Arc<Timer>>,
    set: Option<BootTime>,
}

/// An alarm's timer, as [`idle`] tells of it.
#[derive(Debug)]
pub(crate) struct Timer {
    descriptor: TimerFd,
    /// Whether its task has nothing else to wait for.
    awaited: AtomicBool,
}

thread_local! {
    /// Of the alarms that were made on this thread.
    static TIMERS: RefCell<Vec<Weak<Timer>>> = const { RefCell::new(Vec::new()) };
}

/// The timers of all alarms that were made on this thread, for a service on one thread; nothing while a task that lives by
/// one of them is at work, waits for something else, that is.
pub(crate) fn idle() -> Option<Vec<Arc<Timer>>> {
    TIMERS.with_borrow(|timers| {
        let living = timers.iter().filter_map(Weak::upgrade);
        living.map(|timer| timer.awaited.load(Ordering::Relaxed).then_some(timer)).collect()
    })
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
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
        let descriptor = TimerFd::new(timerfd::ClockId::CLOCK_BOOTTIME, flags)?;
        let timer = Arc::new(Timer { descriptor, awaited: AtomicBool::new(false) });
        TIMERS.with_borrow_mut(|timers| {
            timers.retain(|timer| timer.strong_count() > 0);
            timers.push(Arc::downgrade(&timer));
        });
        // SAFETY: the timer owns its descriptor, which stays open and the same until the last of its owners is dropped. The
        // `AsyncFd` is one of them.
        #[expect(unsafe_code, reason = "there is no safe way to watch a descriptor")]
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Self { timer, set: None })
    }

    /// Returns at `deadline`, never earlier; at once when it has passed. Cancel safe.
    pub async fn reached(&mut self, deadline: BootTime) {
        loop {
            let left = deadline.since(now());
            self.timer.get_ref().awaited.store(!left.is_zero(), Ordering::Relaxed);
            if left.is_zero() {
                return;
            }
            if self.set != Some(deadline) {
                // Not the time itself: libfaketime (row 26) shifts absolute times of every clock by the wall clock's offset.
                let once = Expiration::OneShot(TimeSpec::from_duration(left));
                let set = self.timer.get_ref().descriptor.set(once, TimerSetTimeFlags::empty());
                set.expect("a span above 0 can be waited for");
                self.set = Some(deadline);
            }
            let mut ready = self.timer.readable().await.expect("the runtime lives as long as its tasks");
            let gone_off = ready.get_inner().descriptor.wait().is_ok();
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

    #[tokio::test]
    async fn a_thread_is_idle_while_every_alarm_is_waited_for() {
        let (mut one, mut other) = (Alarm::new().unwrap(), Alarm::new().unwrap());
        let hour = now().after(Duration::from_secs(3600));
        assert!(idle().is_none(), "nobody waits yet");
        for alarm in [&mut one, &mut other] {
            assert!(idle().is_none());
            let given_up = tokio::time::timeout(Duration::ZERO, alarm.reached(hour)).await;
            assert!(given_up.is_err());
        }
        assert_eq!(idle().map(|timers| timers.len()), Some(2));
        other.reached(BootTime(0)).await;
        assert!(idle().is_none(), "its task goes on");
        drop(other);
        assert_eq!(idle().map(|timers| timers.len()), Some(1));
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
