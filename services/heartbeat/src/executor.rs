//! The executor as its publisher knows it: what it said last, and whether it still answers.

use std::time::Duration;

use understudy_wire::{BootTime, v1};

/// What is known of the executor. It answers every heartbeat; one that does not must not be taken for one that can
/// serve.
#[derive(Debug)]
pub struct Executor {
    /// What it said last; `None`: no executor is attached.
    state: Option<v1::ExecutorState>,
    /// The first heartbeat that it has not answered yet.
    asked: Option<BootTime>,
    /// The last heartbeat went out without its bid, since it did not answer.
    lapsed: bool,
    /// How long an answer may take.
    patience: Duration,
}

impl Executor {
    /// Nobody yet; heartbeats go out every `interval`. One that is unanswered when the next is due ends the bid. What
    /// counts is the time since it was asked, not since it spoke: a publisher that stood still itself has asked nothing.
    pub fn new(interval: Duration) -> Self {
        Self { state: None, asked: None, lapsed: false, patience: interval / 2 }
    }

    /// It spoke. Whether others must know at once: a mere answer changes nothing, unless it takes up a bid that the last
    /// heartbeat did not carry. Until the next one is due the lease could run out.
    pub fn heard(&mut self, state: v1::ExecutorState) -> bool {
        let news = self.lapsed || self.state.as_ref() != Some(&state);
        (self.state, self.asked) = (Some(state), None);
        news
    }

    /// It ended: what it said last.
    pub fn lost(&mut self) -> Option<v1::ExecutorState> {
        self.asked = None;
        self.state.take()
    }

    /// A heartbeat that was made at `now` goes out, which it has to answer.
    pub fn ask(&mut self, now: BootTime) {
        self.lapsed = self.state.is_some() && self.live(now).is_none();
        self.asked.get_or_insert(now);
    }

    /// What it said last, whether it still answers or not.
    pub fn last(&self) -> Option<&v1::ExecutorState> {
        self.state.as_ref()
    }

    /// What a heartbeat of `now` may say of it: nothing once an answer is overdue.
    pub fn live(&self, now: BootTime) -> Option<&v1::ExecutorState> {
        let overdue = self.asked.is_some_and(|asked| now.since(asked) > self.patience);
        self.state.as_ref().filter(|_| !overdue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    fn holding() -> v1::ExecutorState {
        let claims = vec![v1::SlotEpoch { slot: 0, epoch: 7 }];
        v1::ExecutorState { incarnation: 5, claims, ..v1::ExecutorState::default() }
    }

    /// Attached, and has answered the heartbeat of 0 ms.
    fn attached() -> Executor {
        let mut executor = Executor::new(INTERVAL);
        assert!(executor.heard(holding()));
        executor.ask(at(0));
        assert!(!executor.heard(holding()), "an answer is no news");
        executor
    }

    fn bids(executor: &Executor, ms: u64) -> bool {
        executor.live(at(ms)).is_some()
    }

    #[test]
    fn a_publisher_that_stood_still_bids_when_it_wakes() {
        for late in [150, 175, 180, 240, 290, 10_000] {
            let mut executor = attached();
            assert!(bids(&executor, late), "{late} ms");
            executor.ask(at(late));
            assert!(!executor.heard(holding()), "{late} ms");
        }
    }

    #[test]
    fn an_executor_that_stood_still_bids_at_once_when_it_answers() {
        let mut executor = attached();
        executor.ask(at(100));
        for due in [200, 210] {
            assert!(!bids(&executor, due), "the heartbeat of 100 ms is unanswered");
            executor.ask(at(due));
        }
        assert!(executor.heard(holding()), "what it said before the stop, but nobody has heard of it since");
        assert!(bids(&executor, 220));
        executor.ask(at(220));
        assert!(!executor.heard(holding()), "only the first answer is news");
    }

    /// Both stood still, between a heartbeat and its answer.
    #[test]
    fn a_host_that_stood_still_bids_with_the_first_answer() {
        let mut executor = attached();
        executor.ask(at(100));
        assert!(!bids(&executor, 280));
        executor.ask(at(280));
        assert!(executor.heard(holding()));
        assert!(bids(&executor, 281));
    }

    #[test]
    fn an_executor_that_hangs_ends_its_bid_at_the_next_heartbeat() {
        let mut executor = attached();
        assert!(bids(&executor, 100));
        executor.ask(at(100));
        assert!(bids(&executor, 150), "something changed half an interval later");
        assert!(!bids(&executor, 200));
        assert!(executor.last().is_some());
    }

    #[test]
    fn without_an_executor_there_is_no_bid() {
        let mut executor = attached();
        assert!(executor.lost().is_some());
        executor.ask(at(200));
        assert!(executor.last().is_none() && !bids(&executor, 200));
        assert!(executor.heard(holding()), "a new one attached");
        assert!(bids(&executor, 201));
    }
}
