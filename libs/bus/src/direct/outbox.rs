//! What waits to be sent to one detector: the newest heartbeat, and every release.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{Stream, stream};
use tokio::sync::Notify;
use understudy_wire::v1::{Heartbeat, NodeMessage, Release, node_message::Message};

use crate::Counters;

/// Releases that wait for one detector; heartbeats repeat them, so the oldest may go.
const RELEASES: usize = 64;
/// A release handed to a connection that died within this after may never have arrived: it takes up to 1.2 s to notice a
/// hung detector, the rest is margin. Twice does no harm (rule R8).
const DOUBTFUL: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    heartbeat: Option<Heartbeat>,
    releases: VecDeque<Release>,
    sent: VecDeque<(Instant, Release)>,
    closed: bool,
}

/// Filled by the service, emptied by the link to one detector.
pub(super) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    counters: Arc<Counters>,
}

impl Outbox {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), counters }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A newer heartbeat says everything the older one did, so it takes its place.
    pub(super) fn heartbeat(&self, heartbeat: Heartbeat) {
        if self.state().heartbeat.replace(heartbeat).is_some() {
            self.counters.superseded.add(1);
        }
        self.filled.notify_one();
    }

    pub(super) fn release(&self, release: Release) {
        let mut state = self.state();
        if state.releases.len() >= RELEASES {
            state.releases.pop_front();
            self.counters.direct_full.add(1);
        }
        state.releases.push_back(release);
        drop(state);
        self.filled.notify_one();
    }

    /// Ends the stream once it is empty.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn take(&self) -> Option<Message> {
        let mut state = self.state();
        let Some(release) = state.releases.pop_front() else {
            return state.heartbeat.take().map(Message::Heartbeat);
        };
        if state.sent.len() >= RELEASES {
            state.sent.pop_front();
        }
        state.sent.push_back((Instant::now(), release.clone()));
        Some(Message::Release(release))
    }

    /// The connection died: what it may have swallowed waits again, ahead of the rest.
    pub(super) fn connection_lost(&self) {
        let mut state = self.state();
        while let Some((at, release)) = state.sent.pop_back() {
            if at.elapsed() < DOUBTFUL && state.releases.len() < RELEASES {
                state.releases.push_front(release);
            }
        }
        drop(state);
        self.filled.notify_one();
    }

    async fn next(&self) -> Option<NodeMessage> {
        loop {
            if let Some(message) = self.take() {
                self.counters.direct_sent.add(1);
                return Some(NodeMessage { message: Some(message) });
            }
            if self.is_closed() {
                return None;
            }
            self.filled.notified().await;
        }
    }

    /// Everything from now on, as the body of one request.
    pub(super) fn stream(self: Arc<Self>) -> impl Stream<Item = NodeMessage> + Send {
        stream::unfold(self, |outbox| async move { outbox.next().await.map(|message| (message, outbox)) })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn heartbeats_are_superseded_and_releases_are_not() {
        let counters = Arc::new(Counters::default());
        let outbox = Arc::new(Outbox::new(Arc::clone(&counters)));
        for seq in 1..=3 {
            outbox.heartbeat(Heartbeat { seq, ..Default::default() });
            outbox.release(Release { at: seq, ..Default::default() });
        }
        outbox.close();
        let sent: Vec<_> = outbox.stream().map(|message| message.message.unwrap()).collect().await;
        let releases = (1..=3).map(|at| Message::Release(Release { at, ..Default::default() }));
        let newest = Message::Heartbeat(Heartbeat { seq: 3, ..Default::default() });
        assert_eq!(sent, releases.chain([newest]).collect::<Vec<_>>());
        assert_eq!(counters.superseded.value(), 2);
    }

    #[tokio::test]
    async fn releases_that_a_dying_connection_took_are_sent_again_in_order() {
        let outbox = Arc::new(Outbox::new(Arc::default()));
        let release = |at| Release { at, ..Default::default() };
        for at in 1..=3 {
            outbox.release(release(at));
        }
        assert_eq!(outbox.next().await.unwrap().message, Some(Message::Release(release(1))));
        assert_eq!(outbox.next().await.unwrap().message, Some(Message::Release(release(2))));
        outbox.connection_lost();
        outbox.close();
        let sent: Vec<_> = outbox.stream().map(|message| message.message.unwrap()).collect().await;
        assert_eq!(sent, (1..=3).map(|at| Message::Release(release(at))).collect::<Vec<_>>());
    }
}
