//! A bounded queue that never makes its sender wait: when it is full the oldest item goes, and is counted.
//!
//! What travels on the bus is only worth its newest state (a heartbeat supersedes the one before), so a slow reader
//! must get the newest, not hold up the writer.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{Stream, stream};
use tokio::sync::Notify;

use crate::{counters::Counter, quiet::Quiet};

struct Shared<T> {
    name: &'static str,
    capacity: usize,
    items: Mutex<VecDeque<T>>,
    filled: Notify,
    sender_gone: AtomicBool,
    receiver_gone: AtomicBool,
    dropped: Counter,
    quiet: Quiet,
}

impl<T> Shared<T> {
    fn items(&self) -> MutexGuard<'_, VecDeque<T>> {
        // Every critical section leaves the deque whole, so a panic elsewhere does not spoil it.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the queue when the last sender goes.
struct SendSide<T>(Arc<Shared<T>>);

impl<T> Drop for SendSide<T> {
    fn drop(&mut self) {
        self.0.sender_gone.store(true, Ordering::Release);
        self.0.filled.notify_one();
    }
}

/// Writing end; clones write to the same queue.
pub struct Sender<T>(Arc<SendSide<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Reading end.
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.receiver_gone.store(true, Ordering::Release);
        self.0.items().clear();
    }
}

/// A queue of at most `capacity` items. `name` is for the log, `dropped` counts what did not fit.
pub fn bounded<T>(name: &'static str, capacity: usize, dropped: Counter) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        name,
        capacity,
        items: Mutex::new(VecDeque::new()),
        filled: Notify::new(),
        sender_gone: AtomicBool::new(false),
        receiver_gone: AtomicBool::new(false),
        dropped,
        quiet: Quiet::default(),
    });
    (Sender(Arc::new(SendSide(Arc::clone(&shared)))), Receiver(shared))
}

impl<T> Sender<T> {
    /// Puts `item` at the end; returns at once. `false` when the reader is gone.
    pub fn push(&self, item: T) -> bool {
        let shared = &self.0.0;
        if shared.receiver_gone.load(Ordering::Acquire) {
            return false;
        }
        let mut items = shared.items();
        let full = items.len() >= shared.capacity;
        if full {
            items.pop_front();
        }
        items.push_back(item);
        drop(items);
        shared.filled.notify_one();
        if full {
            shared.dropped.add(1);
            if let Some(before) = shared.quiet.pass() {
                tracing::warn!(
                    queue = shared.name,
                    capacity = shared.capacity,
                    before,
                    "full, oldest dropped"
                );
            }
        }
        true
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        self.0.0.receiver_gone.load(Ordering::Acquire)
    }
}

impl<T> Receiver<T> {
    /// Waits for the next item; `None` once every sender is gone and the queue is empty. Cancel safe.
    pub async fn recv(&mut self) -> Option<T> {
        loop {
            // Read before the items: what was pushed before the last sender went is still delivered.
            let gone = self.0.sender_gone.load(Ordering::Acquire);
            if let Some(item) = self.try_recv() {
                return Some(item);
            }
            if gone {
                return None;
            }
            self.0.filled.notified().await;
        }
    }

    /// The next item if there is one. Rule R13 empties the queue with this before it judges anybody.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.items().pop_front()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.items().is_empty()
    }

    /// The items as a stream that ends with the last sender.
    pub fn into_stream(self) -> impl Stream<Item = T> + Send
    where
        T: Send,
    {
        stream::unfold(self, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_keeps_the_newest_and_counts() {
        let dropped = Counter::default();
        let (sender, mut receiver) = bounded("test", 2, dropped.clone());
        for item in 1..=5 {
            assert!(sender.push(item));
        }
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(4), Some(5)));
        assert_eq!(dropped.value(), 3);
        let other = sender.clone();
        drop(sender);
        other.push(6);
        drop(other);
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(6), None));
    }

    #[tokio::test]
    async fn a_waiting_reader_wakes_for_an_item_and_for_the_end() {
        let (sender, mut receiver) = bounded("test", 2, Counter::default());
        let reader = tokio::spawn(async move { (receiver.recv().await, receiver.recv().await) });
        tokio::task::yield_now().await;
        sender.push(1);
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(reader.await.unwrap(), (Some(1), None));
    }

    #[test]
    fn pushing_to_nobody_says_so() {
        let (sender, receiver) = bounded("test", 2, Counter::default());
        drop(receiver);
        assert!(!sender.push(1));
        assert!(sender.is_closed());
    }
}
