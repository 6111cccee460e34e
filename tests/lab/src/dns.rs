use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use crate::net::Host;

/// Largest answer over UDP without EDNS (RFC 1035, section 4.2.1).
const LARGEST_ANSWER: usize = 512;

/// Asks a name server once, over UDP, as seen from `host`: the records of `name` with this type (`A`, `AAAA`,
/// `TXT`), as text, sorted. A name that is not there has none.
///
/// # Errors
/// No answer within `patience`, an answer that is an error, or a name or type that does not parse.
pub fn query(
    host: &Host,
    server: SocketAddr,
    name: &str,
    kind: &str,
    patience: Duration,
) -> Result<Vec<String>> {
    host.enter(|| {
        let socket = connect(server)?;
        ask(&socket, &question(name, kind)?, patience)
    })?
    .with_context(|| format!("asking {server} for {name} {kind} from {host}"))
}

/// A socket that talks to `server` only, made in the namespace of the thread.
pub(crate) fn connect(server: SocketAddr) -> Result<UdpSocket> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("opening a socket")?;
    socket.connect(server).context("choosing the server")?;
    Ok(socket)
}

pub(crate) fn question(name: &str, kind: &str) -> Result<Query> {
    Ok(Query::query(Name::from_ascii(name)?, kind.to_uppercase().parse::<RecordType>()?))
}

/// One question, one answer. Answers to earlier questions, which came too late, are passed over.
pub(crate) fn ask(socket: &UdpSocket, question: &Query, patience: Duration) -> Result<Vec<String>> {
    let mut message = Message::query();
    message.add_query(question.clone());
    socket.send(&message.to_vec()?).context("sending")?;
    let deadline = Instant::now() + patience;
    let mut buffer = [0; LARGEST_ANSWER];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer within {} ms", patience.as_millis());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer).context("receiving")?;
        let answer = Message::from_vec(&buffer[..length]).context("decoding the answer")?;
        if answer.metadata.id == message.metadata.id {
            return records(&answer, question);
        }
    }
}

fn records(answer: &Message, question: &Query) -> Result<Vec<String>> {
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        refused => bail!("the server says {refused}"),
    }
    let mut records: Vec<String> = answer
        .answers
        .iter()
        .filter(|record| record.record_type() == question.query_type)
        .map(|record| record.data.to_string())
        .collect();
    records.sort();
    Ok(records)
}
