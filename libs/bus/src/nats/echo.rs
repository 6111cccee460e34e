//! Whether a server still passes on what we publish, told by our own messages that come back.
//!
//! Pings tell it too, but each wakes the process twice, out of turn. An echo comes a moment after what was sent, when the
//! process is awake.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{Nats, NatsState, SubscribeError, Subscription};
use crate::jetstream::Task;

/// When the time is over the answer may lie in the socket, since this process itself was stopped: it is read first.
const LAST_LOOK: Duration = Duration::from_millis(1);

/// Listens for what this process publishes on one subject, and leaves a server that does not pass it on.
pub(crate) struct Echo {
    sent: watch::Sender<()>,
    _task: Task,
}

impl Echo {
    /// Watches `subject`, on which only this process publishes. The server is left when a message has not come back
    /// within `limit`. One that has passed nothing on since we connected is not judged: it may not allow us to listen.
    pub(crate) async fn start(nats: &Nats, subject: &str, limit: Duration) -> Result<Self, SubscribeError> {
        // What it says does not matter.
        let echoes: Subscription<()> = nats.subscribe(subject).await?;
        let (sent, following) = watch::channel(());
        let task = Task(tokio::spawn(watch_echoes(nats.clone(), echoes, following, limit)).abort_handle());
        Ok(Self { sent, _task: task })
    }

    /// A message was published.
    pub(crate) fn sent(&self) {
        self.sent.send_replace(());
    }
}

async fn watch_echoes(
    nats: Nats,
    mut echoes: Subscription<()>,
    mut sent: watch::Receiver<()>,
    limit: Duration,
) {
    let mut state = nats.state();
    let (mut heard, mut missing) = (false, None);
    loop {
        let over = missing.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            // First, or the news of a connection would undo what was heard over it: it may come no earlier to this task.
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                (heard, missing) = (false, None);
            }
            echo = echoes.next() => {
                if echo.is_none() {
                    return;
                }
                (heard, missing) = (true, None);
            }
            changed = sent.changed() => {
                if changed.is_err() {
                    return;
                }
                if heard && *state.borrow() == NatsState::Connected {
                    missing.get_or_insert_with(|| Instant::now() + limit);
                }
            }
            () = sleep_until(over), if missing.is_some() => {
                missing = None;
                tokio::select! {
                    biased;
                    Some(_) = echoes.next() => {}
                    () = sleep(LAST_LOOK) => {
                        heard = false;
                        nats.leave_server(&format!("it has not passed our own message on within {limit:?}")).await;
                    }
                }
            }
        }
    }
}
