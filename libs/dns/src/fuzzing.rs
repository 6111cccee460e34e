//! The way of an answer from its bytes to what is done about it, without sockets.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{Name, RecordType};

use crate::decision::{Decision, decide};
use crate::error::{DnsError, Place, Step};
use crate::exchange::Sent;
use crate::lookup::{Picture, Rrset, marks, question};
use crate::{Contribution, Desired, Zone};

/// Id of every request here; that of a real one is random.
pub const ID: u16 = 0x5155;
/// Who is said to have answered.
const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53));

/// What is done about a zone.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing: the zone is as desired.
    AlreadyThere,
    /// Nothing: the zone holds this later epoch.
    NewerKnown(u64),
    /// This UPDATE is sent.
    Update(Vec<u8>),
}

/// A TXT record of one character-string after another; `None`: not ours.
pub fn mark(strings: Vec<&[u8]>) -> Option<Result<Contribution, &'static str>> {
    Contribution::from_txt(&TXT::from_bytes(strings))
}

/// The character-strings of the TXT record of `contribution`.
pub fn strings(contribution: &Contribution) -> Vec<Vec<u8>> {
    contribution.to_txt().txt_data.iter().map(|string| string.to_vec()).collect()
}

/// The request for the RRset of `owner`, as it goes out.
pub fn request(owner: &Name, record_type: RecordType) -> Message {
    let mut request = question(owner, record_type);
    request.metadata.id = ID;
    request
}

/// Owners of the records that belong to `name`: the addresses, and the marks.
pub fn owners(zone: &Zone, name: &str) -> Result<(Name, Name), DnsError> {
    zone.owners(name).map(|(_, name, mark)| (name, mark))
}

/// Whether `datagram` is the answer to `request`, signed with the zone's key at `now`; `None` with the reason if not.
pub fn answer(
    zone: &Zone,
    request: &Message,
    now: Option<u64>,
    datagram: &[u8],
) -> Result<Result<Message, Option<String>>, DnsError> {
    let place = Place { server: SERVER, name: "web.ha.test." };
    let signer = now.and(zone.key.as_ref()).map(|key| key.signer());
    let mut ignored = None;
    let accepted = Sent::new(request, signer, now.unwrap_or_default())
        .and_then(|mut sent| sent.accept(datagram, &mut ignored))
        .map_err(|fault| fault.at(place, Step::Update, "key"))?;
    Ok(accepted.ok_or(ignored))
}

/// What `desired` leads to where the server answers so to the questions for TXT, A and AAAA, and the marks that were
/// read.
pub fn outcome(
    zone: &Zone,
    desired: &Desired,
    [txt, v4, v6]: [Message; 3],
) -> Result<(Outcome, Vec<Contribution>), DnsError> {
    let target = zone.target(desired)?;
    let place = Place { server: SERVER, name: &desired.name };
    let txt = Rrset::new(place, &target.mark, RecordType::TXT, txt)?;
    let v4 = Rrset::new(place, &target.name, RecordType::A, v4)?;
    let v6 = Rrset::new(place, &target.name, RecordType::AAAA, v6)?;
    let picture = Picture::new(place, marks(zone, place, &target.mark, txt)?, &v4, &v6)?;
    let outcome = match decide(&target, zone.ttl, &picture) {
        Decision::AlreadyThere => Outcome::AlreadyThere,
        Decision::NewerKnown { epoch } => Outcome::NewerKnown(epoch),
        Decision::Update(message) => {
            let sent = Sent::new(&message, zone.key.as_ref().map(|key| key.signer()), 0);
            Outcome::Update(sent.map_err(|fault| fault.at(place, Step::Update, "key"))?.bytes)
        }
    };
    Ok((outcome, picture.marks.into_iter().filter_map(|mark| mark.contribution).collect()))
}
