//! Answers from a network: HTTP, gRPC, DNS.

use std::collections::BTreeSet;

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType, TSigResponseContext, TSigner,
        rdata::{
            CNAME, PTR, TXT,
            tsig::{TsigAlgorithm, TsigError},
        },
    },
};
use understudy_dns::{Contribution, fuzzing};

use crate::{Seed, piece};

pub(crate) fn http() -> Vec<Seed> {
    vec![
        ("ok", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into()),
        ("chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into()),
        ("continue", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Service Unavailable\r\n\r\n".into()),
        ("old", b"HTTP/1.0 404 Not Found\r\nX: \x1b[31m\r\n\r\n".into()),
        ("other", b"SSH-2.0-OpenSSH_9.2\r\n".into()),
    ]
}

/// One HTTP/2 frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that is not indexed (RFC 7541 section 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

pub(crate) fn grpc() -> Vec<Seed> {
    let opening = piece(&[frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[])].concat());
    // Index 8 of the static table is `:status 200` (RFC 7541 appendix A).
    let head = [vec![0x88], header("content-type", "application/grpc")].concat();
    let answer = |status: u8| {
        // A length-prefixed message: HealthCheckResponse, field 1.
        let body = [0, 0, 0, 0, 2, 8, status];
        let trailers = header("grpc-status", "0");
        let frames = [
            frame(HEADERS, END_HEADERS, 1, &head),
            frame(DATA, 0, 1, &body),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
        ];
        [&opening[..], &frames.concat()].concat()
    };
    let refused =
        [head.clone(), header("grpc-status", "5"), header("grpc-message", "unknown service")].concat();
    let refused = frame(HEADERS, END_HEADERS | END_STREAM, 1, &refused);
    let away = frame(GO_AWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2]);
    vec![
        ("serving", answer(1)),
        ("not-serving", answer(2)),
        ("unknown-service", [&opening[..], &refused].concat()),
        ("go-away", [&opening[..], &away].concat()),
        ("http1", piece(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    ]
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// An answer with authority.
fn answer(owner: &str, record_type: RecordType, records: Vec<RData>) -> Message {
    let mut message = fuzzing::request(&name(owner), record_type);
    message.metadata.message_type = MessageType::Response;
    message.metadata.authoritative = true;
    for record in records {
        message.add_answer(Record::from_rdata(name(owner), 1, record));
    }
    message
}

fn contribution(slot: u32, epoch: u64) -> RData {
    let addresses = ["10.77.0.100", "fd77::100"].map(|address| address.parse().unwrap());
    let contribution = Contribution { slot, epoch, addresses: BTreeSet::from(addresses) };
    let strings = fuzzing::strings(&contribution);
    RData::TXT(TXT::from_bytes(strings.iter().map(Vec::as_slice).collect()))
}

pub(crate) fn reads() -> Vec<Seed> {
    const MARK: &str = "_understudy.web.ha.test.";
    const NAME: &str = "web.ha.test.";
    let bytes = |message: &Message| piece(&message.to_vec().unwrap());
    let v4 = bytes(&answer(NAME, RecordType::A, vec![RData::A("10.77.0.100".parse().unwrap())]));
    let v6 = bytes(&answer(NAME, RecordType::AAAA, vec![RData::AAAA("fd77::100".parse().unwrap())]));
    let with = |records| [bytes(&answer(MARK, RecordType::TXT, records)), v4.clone(), v6.clone()].concat();
    let mut missing = answer(NAME, RecordType::A, vec![]);
    missing.metadata.response_code = ResponseCode::NXDomain;
    let nobody = bytes(&answer(MARK, RecordType::TXT, vec![]));
    let alias = bytes(&answer(NAME, RecordType::A, vec![RData::CNAME(CNAME(name("other.test.")))]));
    let foreign = RData::TXT(TXT::from_bytes(vec![b"v=spf1 -all"]));
    let broken = RData::TXT(TXT::from_bytes(vec![b"understudy=1 slot=0 epoch=x"]));
    vec![
        ("there", with(vec![contribution(0, 17), contribution(1, 3)])),
        ("older", with(vec![contribution(0, 16), foreign])),
        ("newer", with(vec![contribution(0, 18)])),
        ("broken", with(vec![broken])),
        ("new-name", [nobody.clone(), bytes(&missing), v6.clone()].concat()),
        ("alias", [nobody, alias, v6.clone()].concat()),
    ]
}

/// An answer to the UPDATE of the target `dns_update`.
fn updated(code: ResponseCode) -> Message {
    let mut message = Message::query();
    message.metadata.id = fuzzing::ID;
    message.metadata.message_type = MessageType::Response;
    message.metadata.op_code = OpCode::Update;
    message.metadata.response_code = code;
    message.add_query(Query::query(name("ha.test."), RecordType::SOA));
    message
}

/// Of the zone of the target `dns_update`.
fn key() -> TSigner {
    TSigner::new(vec![7; 32], TsigAlgorithm::HmacSha256, name("key."), 300).unwrap()
}

/// The code of the signature of the request, which that of its answer covers (RFC 8945 section 5.3.1).
fn request_mac(now: u64) -> Vec<u8> {
    let mut request = Message::query();
    request.metadata.id = fuzzing::ID;
    request.metadata.op_code = OpCode::Update;
    request.add_query(Query::query(name("ha.test."), RecordType::SOA));
    request.finalize(&key(), now).unwrap();
    request.signature().unwrap().data.mac.clone()
}

pub(crate) fn updates() -> Vec<Seed> {
    const NOW: u64 = 1_800_000_000;
    let with = |code, context: TSigResponseContext| {
        let mut message = updated(code);
        let signature = context.sign(&message.to_vec().unwrap()).unwrap();
        message.set_signature(signature);
        message.to_vec().unwrap()
    };
    let signed = |error| TSigResponseContext::new(fuzzing::ID, NOW, key(), request_mac(NOW), error);
    let foreign = TSigResponseContext::new(fuzzing::ID, NOW, key(), vec![0; 32], None);
    vec![
        ("unsigned", updated(ResponseCode::NoError).to_vec().unwrap()),
        ("refused", updated(ResponseCode::Refused).to_vec().unwrap()),
        ("contended", with(ResponseCode::NXRRSet, signed(None))),
        ("done", with(ResponseCode::NoError, signed(None))),
        ("of-another-request", with(ResponseCode::NoError, foreign)),
        ("bad-time", with(ResponseCode::NotAuth, signed(Some(TsigError::BadTime)))),
        (
            "bad-key",
            with(ResponseCode::NotAuth, TSigResponseContext::unknown_key(fuzzing::ID, NOW, name("key."))),
        ),
        (
            "bad-signature",
            with(ResponseCode::NotAuth, TSigResponseContext::bad_signature(fuzzing::ID, NOW, key())),
        ),
    ]
}

pub(crate) fn marks() -> Vec<Seed> {
    let whole = piece(b"understudy=1 slot=0 epoch=1017 addresses=10.77.0.100,fd77::100");
    let cut = [piece(b"understudy=1 slot=0 epo"), piece(b"ch=9 addresses=")].concat();
    vec![("whole", whole), ("cut", cut), ("foreign", piece(b"v=spf1 -all"))]
}

pub(crate) fn pointers() -> Vec<Seed> {
    let owner = "21.0.77.10.in-addr.arpa.";
    let pointer = |target: &str| RData::PTR(PTR(name(target)));
    let found = answer(owner, RecordType::PTR, vec![pointer("demo_detector_2.demo_default.")]);
    let swarm = answer(owner, RecordType::PTR, vec![pointer("stack_detector.3.k3v9.net."), pointer(".")]);
    vec![("compose", found.to_vec().unwrap()), ("swarm", swarm.to_vec().unwrap())]
}

/// Else the target would never see an answer that is believed.
#[test]
fn only_answers_signed_for_this_request_are_believed() {
    let believed: Vec<_> = updates()
        .into_iter()
        .filter(|(_, bytes)| understudy_fuzz::is_signed_answer(bytes))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(believed, ["contended", "done"]);
}
