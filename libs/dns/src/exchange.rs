//! One request and its answer, over UDP or TCP, signed or not.
//!
//! The message format and the signatures are the library's; the sockets are ours, because the answer must tell a
//! wrong key, a wrong clock, a refusal and silence apart, and because nothing may be sent twice unasked: a repeated
//! compare-and-swap fails on its own success.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::{TSigVerifier, TSigner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::error::{DnsError, KeyProblem, Place, Step};

/// Largest request sent over UDP, and largest answer asked for there: fits any path unfragmented (RFC 9715).
pub(crate) const MAX_UDP: usize = 1232;
/// Largest datagram looked at; an answer may exceed what was asked for, not this.
const RECEIVE_BUFFER: usize = 4096;

/// Why an exchange gave no answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Nothing came.
    Timeout(Duration),
    /// The kernel refused, or the connection broke.
    Io(io::Error),
    /// Something came, but no answer to this request; the reason for the last one.
    Garbled(String),
    /// The server does not take the key.
    Key(KeyProblem),
    /// Correctly signed BADTIME, with the server's clock in seconds since 1970.
    ClockOff(u64),
}

impl Fault {
    /// Whether the request may have been carried out nevertheless, or may get through when sent again.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Garbled(_))
    }

    pub(crate) fn at(self, place: Place<'_>, step: Step, key: &str) -> DnsError {
        let (server, name) = (place.server, place.name.to_owned());
        match self {
            Self::Timeout(waited) => place.timeout(step, waited),
            Self::Io(source) => DnsError::Unreachable { server, name, step, source },
            Self::Garbled(reason) => DnsError::Garbled { server, name, step, reason },
            Self::Key(problem) => DnsError::KeyRefused { server, name, key: key.to_owned(), problem },
            Self::ClockOff(_) => {
                DnsError::KeyRefused { server, name, key: key.to_owned(), problem: KeyProblem::Clock }
            }
        }
    }
}

/// Sends `request` once and waits at most `limit` for its answer; what is no answer to it is passed over.
///
/// A signed request needs a signed answer, unless that answer is a refusal, which can do no harm. A server whose
/// clock differs tells its time under its signature (RFC 8945 section 5.2.3); then the request is signed once more
/// with that time, so that a wrong clock on either side stops no failover.
pub(crate) async fn ask(
    server: SocketAddr,
    request: &Message,
    signer: Option<&TSigner>,
    limit: Duration,
) -> Result<Message, Fault> {
    let mut ignored = None;
    let work = async {
        let now = unix_seconds();
        match ask_at(server, request, signer, now, &mut ignored).await {
            Err(Fault::ClockOff(theirs)) => {
                tracing::warn!(%server, ours = now, theirs, "clocks differ; signing with the name server's time");
                ask_at(server, request, signer, theirs, &mut ignored).await
            }
            answer => answer,
        }
    };
    match tokio::time::timeout(limit, work).await {
        Ok(answer) => answer,
        Err(_) => Err(ignored.map_or(Fault::Timeout(limit), Fault::Garbled)),
    }
}

/// TSIG signs with the wall clock (RFC 8945 section 4.2); nothing else here looks at it.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn ask_at(
    server: SocketAddr,
    request: &Message,
    signer: Option<&TSigner>,
    now: u64,
    ignored: &mut Option<String>,
) -> Result<Message, Fault> {
    let mut sent = Sent::new(request, signer, now)?;
    if sent.bytes.len() <= MAX_UDP {
        let answer = over_udp(server, &mut sent, ignored).await?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
    }
    over_tcp(server, &mut sent, ignored).await
}

async fn over_udp(
    server: SocketAddr,
    sent: &mut Sent,
    ignored: &mut Option<String>,
) -> Result<Message, Fault> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket of its own, connected: a random port, answers of that server alone, and its ICMP errors.
    let socket = UdpSocket::bind(any).await.map_err(Fault::Io)?;
    socket.connect(server).await.map_err(Fault::Io)?;
    socket.send(&sent.bytes).await.map_err(Fault::Io)?;
    let mut buffer = vec![0; RECEIVE_BUFFER];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(Fault::Io)?;
        if let Some(answer) = sent.accept(&buffer[..length], ignored)? {
            return Ok(answer);
        }
    }
}

async fn over_tcp(
    server: SocketAddr,
    sent: &mut Sent,
    ignored: &mut Option<String>,
) -> Result<Message, Fault> {
    let length = u16::try_from(sent.bytes.len()).map_err(|_| {
        Fault::Garbled(format!("request of {} bytes exceeds a DNS message", sent.bytes.len()))
    })?;
    let mut stream = TcpStream::connect(server).await.map_err(Fault::Io)?;
    let frame = [&length.to_be_bytes()[..], &sent.bytes].concat();
    stream.write_all(&frame).await.map_err(Fault::Io)?;
    loop {
        let length = stream.read_u16().await.map_err(Fault::Io)?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await.map_err(Fault::Io)?;
        if let Some(answer) = sent.accept(&buffer, ignored)? {
            return Ok(answer);
        }
    }
}

/// A request as it went out, and what is needed to know its answer.
pub(crate) struct Sent {
    message: Message,
    pub(crate) bytes: Vec<u8>,
    verifier: Option<TSigVerifier>,
}

impl Sent {
    pub(crate) fn new(request: &Message, signer: Option<&TSigner>, now: u64) -> Result<Self, Fault> {
        let mut message = request.clone();
        let unencodable = |error| Fault::Garbled(format!("request cannot be encoded: {error}"));
        let verifier = match signer {
            Some(signer) => message.finalize(signer, now).map_err(unencodable)?,
            None => None,
        };
        let bytes = message.to_vec().map_err(unencodable)?;
        Ok(Self { message, bytes, verifier })
    }

    /// The answer in `bytes`; `None` when it is none, with the reason in `ignored`.
    pub(crate) fn accept(
        &mut self,
        bytes: &[u8],
        ignored: &mut Option<String>,
    ) -> Result<Option<Message>, Fault> {
        match self.examine(bytes) {
            Examined::Answer(message) => Ok(Some(*message)),
            Examined::Fault(fault) => Err(fault),
            Examined::Ignore(reason) => {
                tracing::debug!(%reason, "datagram ignored");
                *ignored = Some(reason);
                Ok(None)
            }
        }
    }

    fn examine(&mut self, bytes: &[u8]) -> Examined {
        // The whole message is parsed before its signature is looked at: the verifier trusts its layout.
        let answer = match Message::from_vec(bytes) {
            Ok(answer) => answer,
            Err(error) => {
                return Examined::Ignore(format!("{} bytes, not a DNS message: {error}", bytes.len()));
            }
        };
        if let Some(reason) = self.mismatch(&answer) {
            return Examined::Ignore(reason.to_owned());
        }
        let Some(verifier) = &mut self.verifier else { return Examined::Answer(Box::new(answer)) };
        let Some(signature) = answer.signature() else {
            return if answer.metadata.response_code == ResponseCode::NoError {
                Examined::Ignore("unsigned answer to a signed request".to_owned())
            } else {
                Examined::Answer(Box::new(answer))
            };
        };
        match signature.data.error {
            // RFC 8945 section 5.3.2: these two come unsigned; believing them costs no more than this attempt.
            Some(TsigError::BadKey) => return Examined::Fault(Fault::Key(KeyProblem::Unknown)),
            Some(TsigError::BadSig) => return Examined::Fault(Fault::Key(KeyProblem::WrongSecret)),
            _ => {}
        }
        if let Err(error) = verifier.verify(bytes) {
            return Examined::Ignore(format!("signature does not verify: {error}"));
        }
        match signature.data.error {
            None => Examined::Answer(Box::new(answer)),
            Some(TsigError::BadTime) => Examined::Fault(clock_off(&signature.data.other)),
            Some(other) => Examined::Fault(Fault::Key(KeyProblem::Other(other.into()))),
        }
    }

    fn mismatch(&self, answer: &Message) -> Option<&'static str> {
        let (ours, theirs) = (&self.message.metadata, &answer.metadata);
        let complete = ours.op_code == OpCode::Query && theirs.response_code == ResponseCode::NoError;
        if theirs.id != ours.id {
            Some("id of another request")
        } else if theirs.message_type != MessageType::Response || theirs.op_code != ours.op_code {
            Some("not a response to this kind of request")
        } else if answer.queries != self.message.queries && (complete || !answer.queries.is_empty()) {
            // A server may leave out the zone of an UPDATE (RFC 2136 section 3.8) and the question of a refusal.
            Some("question of another request")
        } else {
            None
        }
    }
}

enum Examined {
    Answer(Box<Message>),
    Ignore(String),
    Fault(Fault),
}

/// The server's clock out of the other data of a BADTIME (RFC 8945 section 5.2.3: 48 bits, seconds since 1970).
fn clock_off(other: &[u8]) -> Fault {
    match <[u8; 6]>::try_from(other) {
        Ok([a, b, c, d, e, f]) => Fault::ClockOff(u64::from_be_bytes([0, 0, a, b, c, d, e, f])),
        Err(_) => Fault::Key(KeyProblem::Clock),
    }
}
