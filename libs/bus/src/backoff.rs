//! Pauses between attempts: they double up to a bound, and every one is drawn, so that many clients of one dead
//! server do not come back in the same millisecond.

use std::time::Duration;

use rand::Rng as _;

/// Between half of `span` and all of it.
pub(crate) fn jitter(span: Duration) -> Duration {
    span.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Pauses of one row of attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next attempt may come quickly again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = jitter(self.next);
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_start_over() {
        let (first, longest) = (Duration::from_millis(20), Duration::from_millis(100));
        let mut backoff = Backoff::new(first, longest);
        let pauses: Vec<_> = (0..10).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= first && pauses[0] >= first / 2);
        assert!(pauses.iter().all(|pause| *pause <= longest));
        assert!(pauses[9] >= longest / 2);
        backoff.reset();
        assert!(backoff.pause() <= first);
    }
}
