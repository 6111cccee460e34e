//! Reading records straight from a server.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::contribution::Contribution;
use crate::desired::parse_name;
use crate::error::{DnsError, Place, Step};
use crate::exchange::{Fault, MAX_UDP, ask};
use crate::zone::Zone;

/// Which address records to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A records.
    Ipv4,
    /// AAAA records.
    Ipv6,
}

impl Family {
    pub(crate) fn record_type(self) -> RecordType {
        match self {
            Self::Ipv4 => RecordType::A,
            Self::Ipv6 => RecordType::AAAA,
        }
    }
}

/// The addresses of `name` at `server`, asked directly (no resolver, no cache in between), without recursion.
///
/// A name that does not exist has no addresses. Errors: the name is bad, the server silent or refusing, within `limit`.
pub async fn resolve(
    server: SocketAddr,
    name: &str,
    family: Family,
    limit: Duration,
) -> Result<BTreeSet<IpAddr>, DnsError> {
    let owner = parse_name(name)?;
    let place = Place { server, name };
    let records = match read_rrset(place, &owner, family.record_type(), limit).await {
        Ok(read) => read.records,
        Err(ReadError::Fault(fault)) => return Err(fault.at(place, Step::Read, "")),
        Err(ReadError::Dns(error)) => return Err(error),
    };
    Ok(records.iter().filter_map(address).collect())
}

/// What each slot has contributed to `name` according to the TXT RRset at `server`, in order of slots, within the zone's timeout.
///
/// Errors: as [`apply`](crate::apply) while it reads.
pub async fn contributions(
    zone: &Zone,
    server: SocketAddr,
    name: &str,
) -> Result<Vec<Contribution>, DnsError> {
    let (_, _, mark) = zone.owners(name)?;
    let place = Place { server, name };
    let marks = match read_marks(zone, place, &mark, zone.timeout).await {
        Ok(marks) => marks,
        Err(ReadError::Fault(fault)) => return Err(fault.at(place, Step::Read, "")),
        Err(ReadError::Dns(error)) => return Err(error),
    };
    let mut found: Vec<_> = marks.into_iter().filter_map(|mark| mark.contribution).collect();
    found.sort_by_key(|contribution| (contribution.slot, contribution.epoch));
    Ok(found)
}

/// One TXT record of the RRset, and what it says if it is ours.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) record: Record,
    pub(crate) contribution: Option<Contribution>,
}

/// Everything a decision needs, as one server has it.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) marks: Vec<Mark>,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// A failed read: the exchange itself (which may be worth repeating), or what the answer says.
#[derive(Debug)]
pub(crate) enum ReadError {
    Fault(Fault),
    Dns(DnsError),
}

/// Reads the TXT RRset and both address RRsets, side by side.
pub(crate) async fn read_picture(
    zone: &Zone,
    place: Place<'_>,
    name: &Name,
    mark: &Name,
    limit: Duration,
) -> Result<Picture, ReadError> {
    let (marks, v4, v6) = tokio::try_join!(
        read_marks(zone, place, mark, limit),
        read_rrset(place, name, RecordType::A, limit),
        read_rrset(place, name, RecordType::AAAA, limit),
    )?;
    Picture::new(place, marks, &v4, &v6).map_err(ReadError::Dns)
}

impl Picture {
    pub(crate) fn new(place: Place<'_>, marks: Vec<Mark>, v4: &Rrset, v6: &Rrset) -> Result<Self, DnsError> {
        if v4.alias || v6.alias {
            return Err(DnsError::Alias { server: place.server, name: place.name.to_owned() });
        }
        let addresses = v4.records.iter().chain(&v6.records).filter_map(address).collect();
        Ok(Self { marks, addresses })
    }
}

async fn read_marks(
    zone: &Zone,
    place: Place<'_>,
    mark: &Name,
    limit: Duration,
) -> Result<Vec<Mark>, ReadError> {
    let read = read_rrset(place, mark, RecordType::TXT, limit).await?;
    marks(zone, place, mark, read).map_err(ReadError::Dns)
}

/// The marks of a name as the answer to the TXT question has them.
pub(crate) fn marks(zone: &Zone, place: Place<'_>, mark: &Name, read: Rrset) -> Result<Vec<Mark>, DnsError> {
    let (server, name) = (place.server, place.name.to_owned());
    if read.alias {
        return Err(DnsError::Alias { server, name: mark.to_ascii() });
    }
    if !read.authoritative {
        let origin = zone.origin.clone();
        return Err(DnsError::NotAuthoritative { server, name, origin });
    }
    let mark_of = |record: Record| {
        let RData::TXT(txt) = &record.data else { return Ok(Mark { record, contribution: None }) };
        match Contribution::from_txt(txt).transpose() {
            Ok(contribution) => Ok(Mark { record, contribution }),
            Err(reason) => {
                let text = String::from_utf8_lossy(&txt.txt_data.concat()).into_owned();
                let name = place.name.to_owned();
                Err(DnsError::UnreadableMark { server, name, text, reason })
            }
        }
    };
    read.records.into_iter().map(mark_of).collect()
}

/// What an answer says of one RRset.
pub(crate) struct Rrset {
    records: Vec<Record>,
    authoritative: bool,
    /// The answer goes through a CNAME or DNAME.
    alias: bool,
}

async fn read_rrset(
    place: Place<'_>,
    owner: &Name,
    record_type: RecordType,
    limit: Duration,
) -> Result<Rrset, ReadError> {
    let request = question(owner, record_type);
    let answer = ask(place.server, &request, None, limit).await.map_err(ReadError::Fault)?;
    Rrset::new(place, owner, record_type, answer).map_err(ReadError::Dns)
}

/// The request for one RRset.
pub(crate) fn question(owner: &Name, record_type: RecordType) -> Message {
    let mut request = Message::query();
    request.metadata.recursion_desired = false;
    request.add_query(Query::query(owner.clone(), record_type));
    let mut edns = Edns::new();
    // MAX_UDP fits u16 by its value.
    edns.set_max_payload(MAX_UDP as u16).set_version(0);
    request.set_edns(edns);
    request
}

impl Rrset {
    pub(crate) fn new(
        place: Place<'_>,
        owner: &Name,
        record_type: RecordType,
        answer: Message,
    ) -> Result<Self, DnsError> {
        match answer.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            code => return Err(place.refused(Step::Read, &rcode_name(code))),
        }
        // A DNAME above comes with such a CNAME made for it (RFC 6672 section 3.1).
        let alias = answer
            .answers
            .iter()
            .any(|record| record.record_type() == RecordType::CNAME && record.name == *owner);
        let authoritative = answer.metadata.authoritative;
        let wanted = |record: &Record| record.name == *owner && record.record_type() == record_type;
        let records = answer.answers.into_iter().filter(wanted).collect();
        Ok(Self { records, authoritative, alias })
    }
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(v4) => Some(IpAddr::V4(v4.0)),
        RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
        _ => None,
    }
}

/// The code as zone administrators know it ("NOTAUTH"), not as a sentence.
pub(crate) fn rcode_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::NotAuth => "NOTAUTH".to_owned(),
        ResponseCode::NotZone => "NOTZONE".to_owned(),
        other => format!("code {} ({other})", u16::from(other)),
    }
}
