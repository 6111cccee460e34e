//! Whether a server still passes messages on, told by the node's own heartbeats that come back.
//!
//! Pings tell it too, but each wakes the process twice, out of turn. What comes back comes a moment after what was sent,
//! when the process is awake, and whether it came is looked at when the next heartbeat leaves: no timer is needed.

use std::{
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use super::{Nats, NatsState};
use crate::jetstream::Task;

/// When the time is over the answer may lie in the socket, since this process itself was stopped: it is read first.
const LAST_LOOK: Duration = Duration::from_millis(1);

/// What was seen of one connection.
struct Seen {
    /// Connections made until then, which number this one.
    connection: u64,
    /// Messages that had come over it.
    received: u64,
    /// Heartbeats have left since then, and nothing has come.
    since: Instant,
    /// Whether an own heartbeat has come back over it.
    heard: bool,
}

/// Leaves a server over which nothing comes while heartbeats leave.
pub(crate) struct Echo {
    nats: Nats,
    limit: Duration,
    seen: Mutex<Seen>,
    /// How many messages had been read when a heartbeat found the server silent for too long.
    silent: watch::Sender<u64>,
    _task: Task,
}

impl Echo {
    /// Whoever sees the own heartbeats leave and come back tells it. The server is left when one leaves and nothing at
    /// all has come since another left, `limit` earlier or more: with the interval I of heartbeats that is at most
    /// `limit` + 2 I after the server hung. One that has passed none on since we connected is not judged: it may not
    /// allow us to listen, and a publisher may have lost its own server.
    pub(crate) fn start(nats: &Nats, limit: Duration) -> Self {
        let (silent, told) = watch::channel(0);
        let task = Task(tokio::spawn(leave_when_silent(nats.clone(), told, limit)).abort_handle());
        let seen = Seen { connection: 0, received: 0, since: Instant::now(), heard: false };
        Self { nats: nats.clone(), limit, seen: Mutex::new(seen), silent, _task: task }
    }

    /// A heartbeat leaves. The first over a connection must be told before it does: an echo that came earlier would count
    /// for the connection before.
    pub(crate) fn sent(&self) {
        let (connection, received) = (self.nats.counters().nats_connects.value(), received(&self.nats));
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if connection != seen.connection || *self.nats.state.borrow() != NatsState::Connected {
            *seen = Seen { connection, received, since: now, heard: false };
        } else if received != seen.received {
            (seen.received, seen.since) = (received, now);
        } else if seen.heard && now.duration_since(seen.since) >= self.limit {
            seen.heard = false;
            self.silent.send_replace(received);
        }
    }

    /// A heartbeat has come back.
    pub(crate) fn came(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).heard = true;
    }
}

/// Messages that have come over NATS, counted as they are read and not only when their subscriber has its turn.
fn received(nats: &Nats) -> u64 {
    nats.client.statistics().in_messages.load(Ordering::Relaxed)
}

async fn leave_when_silent(nats: Nats, mut silent: watch::Receiver<u64>, limit: Duration) {
    while silent.changed().await.is_ok() {
        let by_then = *silent.borrow_and_update();
        sleep(LAST_LOOK).await;
        if received(&nats) == by_then {
            nats.leave_server(&format!("nothing has come over it for {limit:?} while heartbeats left")).await;
        }
    }
}
