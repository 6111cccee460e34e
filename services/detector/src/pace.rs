//! How fast judgements are told.

use std::time::Duration;

use understudy_wire::BootTime;

/// Told at once: more than a rack holds.
const AT_ONCE: i64 = 64;
/// Time for one more. An event costs as much as ten heartbeats: told all at once, the judgements of ten thousand nodes,
/// silent because a switch or this host was, would hold up the heartbeats that say otherwise, and so make more of them.
const EACH: Duration = Duration::from_micros(500);

/// Counts what is told. Time that passes makes room for more.
#[derive(Debug)]
pub struct Pace {
    /// May be below zero: a group is told of as a whole.
    room: i64,
    /// Time before this has made its room.
    counted: BootTime,
}

impl Pace {
    /// With room for [`AT_ONCE`].
    pub fn new(now: BootTime) -> Self {
        Self { room: AT_ONCE, counted: now }
    }

    /// Whether there is room now.
    pub fn has_room(&mut self, now: BootTime) -> bool {
        let made = now.since(self.counted).as_nanos() / EACH.as_nanos();
        let made = u32::try_from(made).unwrap_or(u32::MAX);
        self.counted = self.counted.after(EACH.saturating_mul(made));
        self.room = (self.room + i64::from(made)).min(AT_ONCE);
        self.room > 0
    }

    /// Takes the room of what was told.
    pub fn told(&mut self, judgements: usize) {
        self.room -= i64::try_from(judgements).unwrap_or(AT_ONCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_told_at_once_and_many_one_after_the_other() {
        let start = BootTime(1_000_000_000);
        let mut pace = Pace::new(start);
        pace.told(63);
        assert!(pace.has_room(start));
        pace.told(3);
        assert!(!pace.has_room(start.after(EACH)));
        assert!(!pace.has_room(start.after(EACH * 2)));
        assert!(pace.has_room(start.after(EACH * 3)));
        let later = start.after(Duration::from_secs(60));
        assert!(pace.has_room(later));
        pace.told(64);
        assert!(!pace.has_room(later), "no more than {AT_ONCE} are saved up");
    }
}
