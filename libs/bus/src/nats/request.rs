//! Requests with one answer, and with one from everybody.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message as Raw, Request, RequestErrorKind, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message;
use tokio::time::{Instant, timeout, timeout_at};
use understudy_wire::{DecodeError, Subject};

use super::{Nats, publish::MAX_REPLY, subscribe};
use crate::trace;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody is subscribed to the subject.
    #[error("request on {0}: nobody listens")]
    NoResponders(String),
    /// The servers do not allow us to publish on the subject.
    #[error("request on {0}: not allowed with this credential")]
    NotAllowed(String),
    /// No answer in time; also when no server was reachable.
    #[error("request on {subject}: no answer within {limit:?}")]
    Timeout {
        /// Asked on.
        subject: String,
        /// For how long.
        limit: Duration,
    },
    /// An answer that cannot be read.
    #[error("request on {subject}: answer refused")]
    Answer {
        /// Asked on.
        subject: String,
        /// What is wrong with it.
        #[source]
        cause: DecodeError,
    },
    /// The client could not send it.
    #[error("request on {subject}: not sent")]
    Client {
        /// Asked on.
        subject: String,
        /// What the client said.
        #[source]
        cause: async_nats::Error,
    },
}

fn answer<Rep: Message + Default>(raw: &Raw) -> Result<Rep, DecodeError> {
    if raw.payload.len() > MAX_REPLY {
        return Err(DecodeError::TooLarge(raw.payload.len()));
    }
    let what = subscribe::name_of::<Rep>();
    Rep::decode(&*raw.payload).map_err(|cause| DecodeError::Malformed { what, cause })
}

impl Nats {
    /// Asks on `subject` and waits for the first answer, `limit` at most.
    pub async fn request<Req: Message, Rep: Message + Default>(
        &self,
        subject: &Subject,
        request: &Req,
        limit: Duration,
    ) -> Result<Rep, RequestError> {
        let subject = self.subjects.of(subject);
        let mut headers = HeaderMap::new();
        trace::inject(&mut headers);
        let request = Request::new()
            .payload(Bytes::from(request.encode_to_vec()))
            .headers(headers)
            // The limit below also covers a client that cannot take the request at all.
            .timeout(None);
        let sent = timeout(limit, self.client.send_request(subject.clone(), request));
        let result = tokio::select! {
            biased;
            () = self.denied(&subject) => return Err(RequestError::NotAllowed(subject)),
            result = sent => result,
        };
        let Ok(result) = result else { return Err(RequestError::Timeout { subject, limit }) };
        let raw = result.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => RequestError::NoResponders(subject.clone()),
            RequestErrorKind::TimedOut => RequestError::Timeout { subject: subject.clone(), limit },
            _ => RequestError::Client { subject: subject.clone(), cause: error.into() },
        })?;
        answer(&raw).map_err(|cause| {
            subscribe::count(&self.counters, &cause);
            RequestError::Answer { subject, cause }
        })
    }

    /// Waits until a server says that we may not publish on `subject`.
    async fn denied(&self, subject: &str) {
        let (mut denied, subject) = (self.denied.clone(), format!("\"{subject}\""));
        denied.mark_unchanged();
        while denied.changed().await.is_ok() {
            if denied.borrow().contains(&subject) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Asks everybody on `subject`; returns when what has been answered is `enough`, or with what came within `limit`.
    /// Answers that cannot be read are counted and left out.
    pub async fn request_many<Req: Message, Rep: Message + Default>(
        &self,
        subject: &Subject,
        request: &Req,
        limit: Duration,
        mut enough: impl FnMut(&[Rep]) -> bool,
    ) -> Result<Vec<Rep>, RequestError> {
        let subject = self.subjects.of(subject);
        let payload = Bytes::from(request.encode_to_vec());
        let until = Instant::now() + limit;
        let mut replies = Vec::new();
        let collect = async {
            let mut inbox = ask(&self.client, subject.clone(), payload)
                .await
                .map_err(|cause| RequestError::Client { subject: subject.clone(), cause })?;
            while !enough(&replies) {
                let Some(raw) = inbox.next().await else { break };
                if raw.status == Some(StatusCode::NO_RESPONDERS) {
                    return Err(RequestError::NoResponders(subject.clone()));
                }
                match answer(&raw) {
                    Ok(reply) => replies.push(reply),
                    Err(error) => subscribe::count(&self.counters, &error),
                }
            }
            Ok(())
        };
        if let Ok(result) = timeout_at(until, collect).await {
            result?;
        }
        if replies.is_empty() {
            return Err(RequestError::Timeout { subject, limit });
        }
        Ok(replies)
    }
}

/// Sends the request with an inbox of its own for any number of answers.
async fn ask(
    client: &Client,
    subject: String,
    payload: Bytes,
) -> Result<async_nats::Subscriber, async_nats::Error> {
    let inbox = client.new_inbox();
    let subscriber = client.subscribe(inbox.clone()).await?;
    let mut headers = HeaderMap::new();
    trace::inject(&mut headers);
    client.publish_with_reply_and_headers(subject, inbox, headers, payload).await?;
    Ok(subscriber)
}
