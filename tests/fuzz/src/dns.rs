//! Answers of name servers.

use std::{sync::LazyLock, time::Duration};

use hickory_proto::{
    op::{Message, OpCode, Query, ResponseCode, UpdateMessage as _},
    rr::{Name, RData, RecordType},
};
use understudy_dns::{
    Algorithm, Contribution, Desired, TsigKey, Zone,
    fuzzing::{self, ID, Outcome},
};
use understudy_service::seat;

use crate::{bytes::Bytes, text::assert_says};

const NAME: &str = "web.ha.test.";

/// When signed requests are made, seconds since 1970.
const NOW: u64 = 1_800_000_000;

static ZONE: LazyLock<Zone> = LazyLock::new(|| Zone {
    servers: vec!["127.0.0.1:53".to_owned()],
    origin: "ha.test.".to_owned(),
    key: Some(TsigKey::from_bytes("key.", Algorithm::HmacSha256, vec![7; 32]).expect("is a key")),
    ttl: 1,
    timeout: Duration::from_secs(1),
});

fn desired() -> Desired {
    let addresses = ["10.77.0.100", "fd77::100"].map(|address| address.parse().expect("is an address"));
    Desired { name: NAME.to_owned(), slot: 0, epoch: 17, addresses: addresses.into() }
}

/// The datagram as an answer to [`ID`]: its id could only be guessed.
fn answer(datagram: &[u8]) -> Vec<u8> {
    let mut bytes = datagram.to_vec();
    if let Some(id) = bytes.first_chunk_mut() {
        *id = ID.to_be_bytes();
    }
    bytes
}

/// The answers to the questions for TXT, A and AAAA, one piece each, and what is done about them.
pub(crate) fn dns_read(data: &[u8]) {
    let mut input = Bytes(data);
    let (name, mark) = fuzzing::owners(&ZONE, NAME).expect("is in the zone");
    let mut read = |owner: &Name, record_type| {
        let request = fuzzing::request(owner, record_type);
        accepted(&request, None, &answer(input.piece()))
    };
    let (Some(txt), Some(v4), Some(v6)) =
        (read(&mark, RecordType::TXT), read(&name, RecordType::A), read(&name, RecordType::AAAA))
    else {
        return;
    };
    let desired = desired();
    let (outcome, marks) = match fuzzing::outcome(&ZONE, &desired, [txt, v4, v6]) {
        Ok(outcome) => outcome,
        Err(error) => return assert_says(&error, &[NAME]),
    };
    let ours = |found: &&Contribution| found.slot == desired.slot;
    let newest = marks.iter().filter(ours).map(|found| found.epoch).max();
    match outcome {
        Outcome::NewerKnown(epoch) => {
            assert_eq!(Some(epoch), newest.filter(|newest| *newest > desired.epoch));
        }
        Outcome::AlreadyThere => {
            assert_eq!(newest, Some(desired.epoch));
            assert!(
                marks
                    .iter()
                    .filter(ours)
                    .any(|found| found.addresses == desired.addresses.iter().copied().collect())
            );
        }
        Outcome::Update(bytes) => {
            assert!(
                newest.is_none_or(|newest| newest <= desired.epoch),
                "an older tenure writes over {newest:?}"
            );
            assert_update(&bytes, &mark);
        }
    }
}

/// The UPDATE has a prerequisite and writes the new mark.
fn assert_update(bytes: &[u8], mark: &Name) {
    let update = Message::from_vec(bytes).expect("an update can be read");
    // RFC 2136 section 2: prerequisites stand in the answer section, updates in the authority section.
    assert!(!update.answers.is_empty(), "an update without prerequisite");
    let written = update.authorities.iter().filter(|record| record.name == *mark && record.ttl == ZONE.ttl);
    let written: Vec<_> = written
        .filter_map(|record| match &record.data {
            RData::TXT(txt) => fuzzing::mark(txt.txt_data.iter().map(|string| &**string).collect()),
            _ => None,
        })
        .collect();
    let desired = desired();
    let addresses = desired.addresses.iter().copied().collect();
    assert_eq!(written, [Ok(Contribution { slot: desired.slot, epoch: desired.epoch, addresses })]);
}

fn accepted(request: &Message, now: Option<u64>, datagram: &[u8]) -> Option<Message> {
    match fuzzing::answer(&ZONE, request, now, datagram) {
        Ok(Ok(message)) => {
            assert_eq!(message.metadata.id, ID);
            Some(message)
        }
        Ok(Err(reason)) => {
            assert!(!reason.expect("who ignores an answer says why").is_empty());
            None
        }
        Err(error) => {
            assert_says(&error, &[NAME]);
            None
        }
    }
}

/// The answer to a signed request, which needs a signature unless it refuses.
pub(crate) fn dns_update(data: &[u8]) {
    let Some(answer) = updated(data) else { return };
    let refusal = answer.metadata.response_code != ResponseCode::NoError;
    assert!(refusal || answer.signature().is_some(), "success without a signature was believed");
}

/// What the signed request is told, if it is told anything.
pub(crate) fn updated(datagram: &[u8]) -> Option<Message> {
    let mut request = Message::query();
    request.metadata.id = ID;
    request.metadata.op_code = OpCode::Update;
    let zone = Name::from_ascii("ha.test.").expect("is a name");
    request.add_zone(Query::query(zone, RecordType::SOA));
    accepted(&request, Some(NOW), &answer(datagram))
}

/// Character-strings of a TXT record, one piece each.
pub(crate) fn dns_mark(data: &[u8]) {
    let mut input = Bytes(data);
    let mut strings = Vec::new();
    while !input.is_empty() {
        let piece = input.piece();
        strings.push(&piece[..piece.len().min(255)]);
    }
    match fuzzing::mark(strings) {
        None => {}
        Some(Err(reason)) => assert!(!reason.is_empty()),
        Some(Ok(contribution)) => {
            let written = fuzzing::strings(&contribution);
            assert!(written.iter().all(|string| string.len() <= 255));
            let again = fuzzing::mark(written.iter().map(Vec::as_slice).collect());
            assert_eq!(again, Some(Ok(contribution)), "what is written is what was read");
        }
    }
}

/// The answer to the question what this host is called.
pub(crate) fn dns_pointer(data: &[u8]) {
    let Some(names) = seat::pointers(ID, &answer(data)) else { return };
    for name in names {
        assert!(name.is_ascii() && !name.ends_with('.'), "{name:?}");
        let seat = seat::seat_from(None, "host", Some(&name), 3);
        assert!(seat.is_none_or(|seat| seat.raw() <= 3), "{name:?} gives seat {seat:?}");
    }
}
