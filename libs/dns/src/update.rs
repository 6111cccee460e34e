//! One contribution at one server: read, decide, compare and swap.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use tokio::time::Instant;

use crate::decision::{Decision, decide};
use crate::desired::{Desired, Target};
use crate::error::{DnsError, Place, Step};
use crate::exchange::{Fault, ask};
use crate::lookup::{ReadError, rcode_name, read_picture};
use crate::zone::Zone;

/// How often to read and decide again in one [`apply`]: each failed round means that another slot's update came in
/// between, or that a datagram was lost.
const MAX_ROUNDS: u32 = 16;
/// One exchange may use this part of the whole time, so that a lost datagram leaves time to read back and try again.
const EXCHANGES_PER_TIMEOUT: u32 = 4;

/// How a server stands after an update (the receiver fences: it is the zone itself that compares the epochs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The zone was changed by this call.
    Applied,
    /// The zone held this contribution with this epoch before.
    AlreadyThere,
    /// The zone holds a later tenure of the slot; nothing was changed.
    NewerKnown {
        /// The epoch found.
        epoch: u64,
    },
}

/// Brings `desired` about at one server, within the zone's timeout.
///
/// An answer that gets lost is found out by reading back, so `Applied` and `AlreadyThere` are never guesses.
///
/// Errors: before anything is sent, what is wrong with `desired`; then what the server said, or that it said nothing.
/// After [`DnsError::Timeout`] the update may or may not have been made.
pub async fn apply(zone: &Zone, server: SocketAddr, desired: &Desired) -> Result<Answer, DnsError> {
    let target = zone.target(desired)?;
    Attempt { zone, place: Place { server, name: &desired.name }, target }.run().await
}

struct Attempt<'a> {
    zone: &'a Zone,
    place: Place<'a>,
    target: Target,
}

impl Attempt<'_> {
    async fn run(self) -> Result<Answer, DnsError> {
        let deadline = Instant::now() + self.zone.timeout;
        let part = self.zone.timeout / EXCHANGES_PER_TIMEOUT;
        let mut sent = false;
        let mut silence = None;
        for _ in 0..MAX_ROUNDS {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            silence = match self.round(left.min(part), deadline, &mut sent).await? {
                Round::Done(answer) => return Ok(answer),
                Round::Changed => None,
                Round::Silence(error) => Some(error),
            };
        }
        let (server, name) = (self.place.server, self.place.name.to_owned());
        Err(silence.unwrap_or(DnsError::Contended { server, name, rounds: MAX_ROUNDS }))
    }

    /// Reads, decides, and sends the update if there is one to send.
    async fn round(&self, part: Duration, deadline: Instant, sent: &mut bool) -> Result<Round, DnsError> {
        let picture =
            match read_picture(self.zone, self.place, &self.target.name, &self.target.mark, part).await {
                Ok(picture) => picture,
                Err(ReadError::Dns(error)) => return Err(error),
                Err(ReadError::Fault(fault)) => return self.silence(fault, Step::Read),
            };
        let message = match decide(&self.target, self.zone.ttl, &picture) {
            Decision::AlreadyThere if *sent => return Ok(Round::Done(Answer::Applied)),
            Decision::AlreadyThere => return Ok(Round::Done(Answer::AlreadyThere)),
            Decision::NewerKnown { epoch } => return Ok(Round::Done(Answer::NewerKnown { epoch })),
            Decision::Update(message) => message,
        };
        *sent = true;
        let left = deadline.saturating_duration_since(Instant::now());
        self.swap(&message, part.min(left)).await
    }

    async fn swap(&self, message: &Message, limit: Duration) -> Result<Round, DnsError> {
        let signer = self.zone.key.as_ref().map(|key| key.signer());
        let answer = match ask(self.place.server, message, signer, limit).await {
            Ok(answer) => answer,
            Err(fault) => return self.silence(fault, Step::Update),
        };
        match answer.metadata.response_code {
            ResponseCode::NoError => Ok(Round::Done(Answer::Applied)),
            // The prerequisite did not hold (RFC 2136 section 3.2): somebody was faster, or an earlier copy of ours was.
            ResponseCode::YXRRSet | ResponseCode::NXRRSet => Ok(Round::Changed),
            code => Err(self.place.refused(Step::Update, &rcode_name(code))),
        }
    }

    /// A fault that reading again may resolve, or the error that it is.
    fn silence(&self, fault: Fault, step: Step) -> Result<Round, DnsError> {
        let key = self.zone.key.as_ref().map_or("", |key| key.name());
        let repeat = fault.is_silence();
        let error = fault.at(self.place, step, key);
        if repeat { Ok(Round::Silence(error)) } else { Err(error) }
    }
}

enum Round {
    Done(Answer),
    /// The TXT RRset is no longer what was read.
    Changed,
    /// No usable answer; the error if it stays so.
    Silence(DnsError),
}
