//! The clock that decides: CLOCK_BOOTTIME, which also runs while the host is suspended.

use std::{
    io,
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};
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

/// Sleeps until `deadline`, never less; at once when it has passed. Cancel safe.
pub async fn sleep_until(deadline: BootTime) {
    // Tokio's clock stands still while the host is suspended, so the remaining span is taken anew until nothing is left.
    loop {
        let left = deadline.since(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
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
    async fn a_sleep_is_never_short_and_a_past_deadline_costs_nothing() {
        let deadline = now().after(Duration::from_millis(20));
        sleep_until(deadline).await;
        assert!(now() >= deadline);
        sleep_until(BootTime(0)).await;
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
