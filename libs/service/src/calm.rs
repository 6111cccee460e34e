//! Few wake-ups. To be woken costs a small process more than what it then does, and most of what a node waits for comes
//! in bursts: three detectors answer one heartbeat within a millisecond. So a thread with nothing urgent to wait for naps
//! once before it waits, and what came meanwhile wakes it once.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// What naps are to the heartbeat interval.
const PART: u32 = 100;
/// Longest nap, however long the interval: it delays whatever comes meanwhile.
const LONGEST: Duration = Duration::from_millis(1);
/// A nap is followed by none for so many of its lengths: the rest of a burst is seldom worth another.
const PAUSE: u32 = 10;

thread_local! {
    static ALLOWED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whether this thread, which has just done something and waits for its next input, may take a millisecond more to see it
/// (less at intervals below 100 ms). Good for one nap: what is under way must not be slowed down, and a thread that was
/// woken by a timer with nothing to do sent nothing that would be answered.
pub fn allow(calm: bool, interval: Duration) {
    ALLOWED.set(if calm { (interval / PART).min(LONGEST) } else { Duration::ZERO });
}

/// Called whenever the thread has nothing left to do.
pub(crate) fn nap() {
    let nap = ALLOWED.take();
    if nap.is_zero() || NEXT.get().is_some_and(|next| Instant::now() < next) {
        return;
    }
    std::thread::sleep(nap);
    NEXT.set(Some(Instant::now() + nap * PAUSE));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_where_it_may_and_not_again_at_once() {
        let took = || {
            let begun = Instant::now();
            nap();
            begun.elapsed()
        };
        let interval = Duration::from_secs(100);
        assert!(took() < LONGEST, "nothing was allowed");
        allow(true, interval);
        assert!(took() >= LONGEST);
        assert!(took() < LONGEST, "one nap each time");
        NEXT.set(None);
        allow(true, interval);
        allow(false, interval);
        assert!(took() < LONGEST, "no longer allowed");
    }
}
