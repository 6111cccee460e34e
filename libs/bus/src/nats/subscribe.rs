//! Subscriptions that decode.

use std::{any::type_name, error::Error, marker::PhantomData, sync::Arc};

use async_nats::{HeaderMap, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use opentelemetry::Context;
use prost::Message;
use understudy_wire::{DecodeError, Subject, Subjects, decode};

use super::Nats;
use crate::{Counters, quiet::Quiet, trace};

/// Why a subscription was refused.
#[derive(Debug, thiserror::Error)]
#[error("subscribing to {subject}")]
pub struct SubscribeError {
    subject: String,
    #[source]
    cause: async_nats::SubscribeError,
}

/// One message.
#[derive(Debug)]
pub struct Received<M> {
    /// Where it was published.
    pub subject: Subject,
    /// What it says; the error is counted already.
    pub message: Result<M, DecodeError>,
    /// Headers, empty when it had none.
    pub headers: HeaderMap,
    /// Where an answer is wanted, for [`Nats::respond`].
    pub reply: Option<String>,
}

impl<M> Received<M> {
    /// The span of whoever published it; empty when it named none.
    pub fn context(&self) -> Context {
        trace::extract(&self.headers)
    }
}

/// Messages of type `M` on one pattern, over every reconnect.
pub struct Subscription<M> {
    subscriber: Subscriber,
    /// What it was made for.
    pattern: String,
    subjects: Arc<Subjects>,
    counters: Arc<Counters>,
    quiet: Quiet,
    strangers: Quiet,
    what: PhantomData<fn() -> M>,
}

/// Name of a protobuf type without its path.
pub(super) fn name_of<M>() -> &'static str {
    let name = type_name::<M>();
    name.rsplit("::").next().unwrap_or(name)
}

/// Whether a message has come straight from who may publish on its subject. Servers check the subject of a message, not
/// where its answer goes: whoever may ask JetStream or a service anything could have the answer sent to a subject that is
/// not his. So a question is answered into an inbox only, and what is no question must want no answer, as everything
/// does that JetStream delivers (and it delivers under the subject that a message was stored with, which [`covers`] tells).
fn is_direct(subject: &Subject, reply: Option<&str>) -> bool {
    match subject {
        Subject::Command(..) => reply.is_none_or(|reply| reply.starts_with("_INBOX.")),
        _ => reply.is_none(),
    }
}

/// Whether `pattern` covers `subject`, as NATS matches.
pub(crate) fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == "*" || wanted == found => {}
            _ => return false,
        }
    }
}

/// Counts a refusal under what was wrong.
pub(crate) fn count(counters: &Counters, error: &DecodeError) {
    match error {
        DecodeError::TooLarge(_) => counters.too_large.add(1),
        _ => counters.malformed.add(1),
    }
}

impl<M: Message + Default> Subscription<M> {
    /// A message that has come already, without waiting.
    pub fn try_next(&mut self) -> Option<Received<M>> {
        self.next().now_or_never().flatten()
    }

    /// Waits for the next message on a subject of this cluster. `None` once the client has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Received<M>> {
        loop {
            let raw = self.subscriber.next().await?;
            self.counters.nats_received.add(1);
            let Ok(Some(subject)) = self.subjects.parse(&raw.subject) else {
                self.counters.malformed.add(1);
                if let Some(before) = self.quiet.pass() {
                    tracing::warn!(subject = %raw.subject, before, "message on an unknown subject refused");
                }
                continue;
            };
            if !covers(&self.pattern, &raw.subject) || !is_direct(&subject, raw.reply.as_deref()) {
                self.counters.not_allowed.add(1);
                if let Some(before) = self.strangers.pass() {
                    let reply = raw.reply.as_deref();
                    tracing::warn!(subject = %raw.subject, reply, before, "message by a detour refused");
                }
                continue;
            }
            let message = decode(name_of::<M>(), &raw.payload);
            if let Err(error) = &message {
                count(&self.counters, error);
                if let Some(before) = self.quiet.pass() {
                    tracing::warn!(subject = %raw.subject, error = error as &dyn Error, before, "message refused");
                }
            }
            let headers = raw.headers.unwrap_or_default();
            return Some(Received {
                subject,
                message,
                headers,
                reply: raw.reply.map(|reply| reply.to_string()),
            });
        }
    }
}

impl Nats {
    /// Subscribes to a pattern below the cluster's prefix, such as `heartbeat.*.*`. Works while no server is
    /// reachable, and again after every reconnect.
    pub async fn subscribe<M: Message + Default>(
        &self,
        pattern: &str,
    ) -> Result<Subscription<M>, SubscribeError> {
        let subject = self.subjects.subscription(pattern);
        let result = self.client.subscribe(subject.clone()).await;
        self.subscription(subject, result)
    }

    /// As [`Nats::subscribe`], but of all subscribers that name the same `group` only one gets each message.
    pub async fn subscribe_shared<M: Message + Default>(
        &self,
        pattern: &str,
        group: &str,
    ) -> Result<Subscription<M>, SubscribeError> {
        let subject = self.subjects.subscription(pattern);
        let result = self.client.queue_subscribe(subject.clone(), group.to_owned()).await;
        self.subscription(subject, result)
    }

    fn subscription<M>(
        &self,
        subject: String,
        result: Result<Subscriber, async_nats::SubscribeError>,
    ) -> Result<Subscription<M>, SubscribeError> {
        Ok(Subscription {
            subscriber: result.map_err(|cause| SubscribeError { subject: subject.clone(), cause })?,
            pattern: subject,
            subjects: Arc::clone(&self.subjects),
            counters: Arc::clone(&self.counters),
            quiet: Quiet::default(),
            strangers: Quiet::default(),
            what: PhantomData,
        })
    }
}

#[cfg(test)]
mod tests {
    use understudy_wire::{GroupId, NodeId};

    use super::*;

    #[test]
    fn answers_go_into_inboxes_and_the_lease_asks_nothing() {
        let (group, node) = (GroupId::new("web").unwrap(), NodeId::new("web-a").unwrap());
        let grant = Subject::Grant(group.clone(), node);
        assert!(is_direct(&grant, None));
        // Delivered by JetStream.
        assert!(!is_direct(&grant, Some("$JS.ACK.EVENTS_demo.thief.1.1.1.1.0")));
        let command = Subject::Command(group, "status".into());
        assert!(is_direct(&command, Some("_INBOX.UKEY.x")) && is_direct(&command, None));
        assert!(!is_direct(&command, Some("understudy.demo.grant.web.web-a")));
        assert!(covers("a.*.c", "a.b.c") && covers("a.>", "a.b.c"));
        for other in ["a.b", "a.b.c.d", "x.b.c"] {
            assert!(!covers("a.*.c", other), "{other}");
        }
    }
}
