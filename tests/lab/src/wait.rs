//! The one place that naps: everything that waits for a state asks for it again and again, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// First pause between two questions.
const SHORTEST_NAP: Duration = Duration::from_millis(1);
/// Longest pause: what is waited for is seen at most this much late, at next to no CPU.
const LONGEST_NAP: Duration = Duration::from_millis(5);

/// What a question may answer: `bool` (true ends the wait) or `Option` (its value ends the wait).
pub trait Progress {
    /// What the wait returns.
    type Value;

    /// The value, or none to go on waiting.
    fn reached(self) -> Option<Self::Value>;
}

impl Progress for bool {
    type Value = ();

    fn reached(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Progress for Option<T> {
    type Value = T;

    fn reached(self) -> Self {
        self
    }
}

/// Asks until the answer is true or some value; `what` completes the sentence "waited for ...".
///
/// # Errors
/// When `deadline` has passed and the last answer was still no.
pub fn wait_until<P: Progress>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> P,
) -> Result<P::Value> {
    let begin = Instant::now();
    let mut nap = SHORTEST_NAP;
    loop {
        // The time is read before the question, so that the last question is asked at or after the deadline.
        let waited = begin.elapsed();
        if let Some(value) = ask().reached() {
            return Ok(value);
        }
        if waited >= deadline {
            bail!("waited {} ms in vain for {what}", waited.as_millis());
        }
        std::thread::sleep(nap);
        nap = (nap * 2).min(LONGEST_NAP);
    }
}

/// As [`wait_until`], for async questions.
///
/// # Errors
/// When `deadline` has passed and the last answer was still no.
pub async fn wait_until_async<P: Progress>(
    what: &str,
    deadline: Duration,
    mut ask: impl AsyncFnMut() -> P,
) -> Result<P::Value> {
    let begin = Instant::now();
    let mut nap = SHORTEST_NAP;
    loop {
        let waited = begin.elapsed();
        if let Some(value) = ask().await.reached() {
            return Ok(value);
        }
        if waited >= deadline {
            bail!("waited {} ms in vain for {what}", waited.as_millis());
        }
        tokio::time::sleep(nap).await;
        nap = (nap * 2).min(LONGEST_NAP);
    }
}
