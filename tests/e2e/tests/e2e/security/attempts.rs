//! The table: who tries what, and how the refusal shows.

use prost::Message as _;
use understudy_wire::v1::{self, node_message, seat_message};

use super::intruder::Act;

/// Who holds the slot while the table is tried.
pub(crate) const HOLDER: &str = "web-b";
/// Whose credentials have been stolen.
const THIEF: &str = "web-c";

/// Who tries.
#[derive(Clone, Copy)]
pub(crate) enum Who {
    /// Somebody without a credential.
    Nobody,
    /// An nkey that the servers do not know.
    Stranger,
    /// A user name and a password.
    Guesser,
    /// Somebody who does not trust the servers' authority: what a service does with a server that is not ours.
    Doubter,
    /// Owner of a credential.
    Owner(&'static str),
}

/// What is tried.
pub(crate) enum What {
    /// Something on NATS.
    Nats(Act),
    /// A stream on the direct path, with this owner's certificate, or none.
    Direct(Vec<node_message::Message>),
    /// A page of a detector with this token, or none.
    Page(Option<&'static str>),
    /// Bytes that are no TLS, to the NATS server (true) or to the direct path.
    Plain(bool),
    /// A command of the CLI.
    Command(&'static [&'static str]),
}

/// How the refusal shows.
pub(crate) enum Refusal {
    /// The NATS server lets nobody in, and logs these words (or, without TLS, lists them as the reason).
    Out(&'static str),
    /// The NATS server tells the client and logs who tried what.
    Denied,
    /// The detector counts it under this reason and logs these words; whether the caller is told.
    Counted(&'static str, &'static str, Told),
    /// The page answers with this status and counts it.
    Status(u16),
    /// The command fails with these words.
    Says(&'static str),
}

/// Whether whoever spoke on the direct path is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// The stream is refused.
    Yes,
    /// A bad message is dropped, the stream lives on.
    No,
}

/// One line of the table.
pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    pub(crate) who: Who,
    pub(crate) what: What,
    pub(crate) refusal: Refusal,
}

fn attempt(name: &'static str, who: Who, what: What, refusal: Refusal) -> Attempt {
    Attempt { name, who, what, refusal }
}

fn heartbeat(node: &str) -> v1::Heartbeat {
    v1::Heartbeat {
        cluster: "lab".into(),
        group: "web".into(),
        node: node.into(),
        boot: vec![7; 16],
        incarnation: 1,
        seq: u64::MAX,
        sent_at: u64::MAX,
        health: v1::Health::Healthy.into(),
        standby: v1::StandbyKind::Hot.into(),
        ready: true,
        priority: i32::MAX,
        claims: vec![v1::SlotEpoch { slot: 0, epoch: 1 << 40 }],
        ..Default::default()
    }
}

fn release(node: &str) -> v1::Release {
    let holder = v1::Holder { node: node.into(), boot: vec![7; 16], incarnation: 1 };
    v1::Release {
        cluster: "lab".into(),
        group: "web".into(),
        holder: Some(holder),
        at: u64::MAX,
        ..Default::default()
    }
}

fn grant(node: &str) -> Vec<u8> {
    let holder = v1::Holder { node: node.into(), boot: vec![7; 16], incarnation: 1 };
    let grant = v1::Grant {
        cluster: "lab".into(),
        group: "web".into(),
        seat: 1,
        holder: Some(holder),
        echo: u64::MAX,
        lease_nanos: 300_000_000,
        ..Default::default()
    };
    v1::SeatMessage { message: Some(seat_message::Message::Grant(grant)) }.encode_to_vec()
}

fn hello(node: &str, grants: bool) -> node_message::Message {
    node_message::Message::Hello(v1::Hello {
        cluster: "lab".into(),
        group: "web".into(),
        node: node.into(),
        grants,
    })
}

fn own(rest: &str) -> String {
    format!("understudy.lab.{rest}")
}

fn publish(rest: &str, payload: Vec<u8>) -> What {
    What::Nats(Act::Publish(own(rest), payload))
}

/// Published on a subject outside the cluster's own, such as those of JetStream.
fn raw(subject: &str, payload: &[u8]) -> What {
    What::Nats(Act::Publish(subject.to_owned(), payload.to_vec()))
}

fn subscribe(subject: &str) -> What {
    What::Nats(Act::Subscribe(subject.to_owned()))
}

fn switchover() -> Vec<u8> {
    v1::SwitchoverRequest { group: "web".into(), request: "stolen".into(), ..Default::default() }
        .encode_to_vec()
}

fn maintenance() -> Vec<u8> {
    v1::MaintenanceRequest { group: "web".into(), node: HOLDER.into(), on: true, by: "thief".into() }
        .encode_to_vec()
}

fn presence() -> Vec<u8> {
    // Where the thief listens, to be called by nodes.
    let address = "10.77.0.5:7410".into();
    v1::Presence { cluster: "lab".into(), seat: 1, incarnation: u64::MAX, address, ..Default::default() }
        .encode_to_vec()
}

/// Without the right credential nobody is let in at all.
fn outside() -> Vec<Attempt> {
    use {Refusal::Out, What::Nats, Who::*};
    let connect = || Nats(Act::Connect);
    vec![
        attempt("no credential", Nobody, connect(), Out("authentication error")),
        attempt("an nkey of its own", Stranger, connect(), Out("authentication error")),
        attempt("a user and a password", Guesser, connect(), Out("authentication error")),
        attempt("servers of another authority", Doubter, connect(), Out("TLS handshake error")),
        attempt("no TLS to NATS", Nobody, What::Plain(true), Out("TLS Handshake Failure")),
    ]
}

/// A stolen credential of a heartbeat publisher.
fn heartbeats() -> Vec<Attempt> {
    use Refusal::{Counted, Denied};
    let thief = Who::Owner("heartbeat.web.web-c");
    let elsewhere = v1::Heartbeat { cluster: "other".into(), ..heartbeat(THIEF) };
    let wrong_name = "in another's name or of another cluster";
    vec![
        attempt(
            "heartbeat: another node's heartbeat",
            thief,
            publish("heartbeat.web.web-b", heartbeat(HOLDER).encode_to_vec()),
            Denied,
        ),
        attempt(
            "heartbeat: a node of another group",
            thief,
            publish("heartbeat.db.web-c", heartbeat(THIEF).encode_to_vec()),
            Denied,
        ),
        attempt("heartbeat: a grant to itself", thief, publish("grant.web.web-c", grant(THIEF)), Denied),
        attempt("heartbeat: a grant to another", thief, publish("grant.web.web-b", grant(HOLDER)), Denied),
        attempt(
            "heartbeat: another's release",
            thief,
            publish("release.web.web-b", release(HOLDER).encode_to_vec()),
            Denied,
        ),
        attempt("heartbeat: a detector's presence", thief, publish("detector.1", presence()), Denied),
        attempt("heartbeat: a verdict", thief, publish("verdict.web.web-b", Vec::new()), Denied),
        attempt("heartbeat: an event", thief, publish("event.web.takeover", b"{}".to_vec()), Denied),
        attempt("heartbeat: a switchover", thief, publish("command.web.switchover", switchover()), Denied),
        attempt("heartbeat: maintenance", thief, publish("command.web.maintenance", maintenance()), Denied),
        attempt("heartbeat: a ceiling", thief, raw("$KV.understudy_lab.ceiling.web.0", b"1"), Denied),
        attempt("heartbeat: hears grants", thief, subscribe(&own("grant.web.web-b")), Denied),
        attempt("heartbeat: hears everything", thief, subscribe(">"), Denied),
        attempt(
            "heartbeat: claims another's name on its own subject",
            thief,
            publish("heartbeat.web.web-c", heartbeat(HOLDER).encode_to_vec()),
            Counted("wrong name", wrong_name, Told::No),
        ),
        attempt(
            "heartbeat: of another cluster",
            thief,
            publish("heartbeat.web.web-c", elsewhere.encode_to_vec()),
            Counted("other cluster", wrong_name, Told::No),
        ),
        attempt(
            "heartbeat: releases another holder on its own subject",
            thief,
            publish("release.web.web-c", release(HOLDER).encode_to_vec()),
            Counted("wrong name", wrong_name, Told::No),
        ),
    ]
}

/// A stolen credential of an executor.
fn executors() -> Vec<Attempt> {
    use Refusal::{Counted, Denied};
    let thief = Who::Owner("executor.web.web-c");
    let wrong_name = "in another's name or of another cluster";
    vec![
        attempt(
            "executor: another's release",
            thief,
            publish("release.web.web-b", release(HOLDER).encode_to_vec()),
            Denied,
        ),
        attempt(
            "executor: bids by itself",
            thief,
            publish("heartbeat.web.web-c", heartbeat(THIEF).encode_to_vec()),
            Denied,
        ),
        attempt("executor: a grant to itself", thief, publish("grant.web.web-c", grant(THIEF)), Denied),
        attempt("executor: hears another's grants", thief, subscribe(&own("grant.web.web-b")), Denied),
        attempt(
            "executor: an event of another group",
            thief,
            publish("event.db.takeover", b"{}".to_vec()),
            Denied,
        ),
        attempt("executor: writes maintenance", thief, raw("$KV.understudy_lab.maintenance", b"[]"), Denied),
        attempt("executor: deletes the history", thief, raw("$JS.API.STREAM.DELETE.EVENTS_lab", b""), Denied),
        attempt(
            "executor: releases another holder on its own subject",
            thief,
            publish("release.web.web-c", release(HOLDER).encode_to_vec()),
            Counted("wrong name", wrong_name, Told::No),
        ),
    ]
}

/// A stolen credential of a detector, an operator or a viewer.
fn others() -> Vec<Attempt> {
    use Refusal::{Denied, Says};
    let (detector, operator, viewer) =
        (Who::Owner("detector.2"), Who::Owner("operator"), Who::Owner("viewer"));
    vec![
        attempt("detector: speaks for another seat", detector, publish("detector.1", presence()), Denied),
        attempt("detector: plays a rival for another seat", detector, publish("seat.1", presence()), Denied),
        attempt(
            "detector: a node's heartbeat",
            detector,
            publish("heartbeat.web.web-b", heartbeat(HOLDER).encode_to_vec()),
            Denied,
        ),
        attempt(
            "detector: a node's release",
            detector,
            publish("release.web.web-b", release(HOLDER).encode_to_vec()),
            Denied,
        ),
        attempt("detector: a switchover", detector, publish("command.web.switchover", switchover()), Denied),
        attempt(
            "detector: empties the ceilings",
            detector,
            raw("$JS.API.STREAM.PURGE.KV_understudy_lab", b""),
            Denied,
        ),
        attempt(
            "observer: a grant",
            Who::Owner("observer"),
            publish("grant.web.web-c", grant(THIEF)),
            Denied,
        ),
        attempt(
            "autoscaler: a grant",
            Who::Owner("autoscaler.web-scaler.scaler-1"),
            publish("grant.web.web-c", grant(THIEF)),
            Denied,
        ),
        attempt("operator: a grant", operator, publish("grant.web.web-c", grant(THIEF)), Denied),
        attempt("operator: a ceiling", operator, raw("$KV.understudy_lab.ceiling.web.0", b"1"), Denied),
        attempt("viewer: a switchover", viewer, publish("command.web.switchover", switchover()), Denied),
        attempt("viewer: maintenance", viewer, publish("command.web.maintenance", maintenance()), Denied),
        attempt("viewer: an event", viewer, publish("event.web.takeover", b"{}".to_vec()), Denied),
        attempt("viewer: writes maintenance", viewer, raw("$KV.understudy_lab.maintenance", b"[]"), Denied),
        attempt("viewer: hears grants", viewer, subscribe(&own("grant.*.*")), Denied),
        attempt("viewer: hears releases", viewer, subscribe(&own("release.*.*")), Denied),
        attempt("viewer: hears everybody's replies", viewer, subscribe("_INBOX.>"), Denied),
        attempt(
            "viewer: takes commands away from the detectors",
            viewer,
            What::Nats(Act::Join(own("command.*.maintenance"), "detectors")),
            Denied,
        ),
        attempt(
            "viewer: understudy switchover",
            viewer,
            What::Command(&["switchover", "--group", "web"]),
            Says("not allowed"),
        ),
        attempt(
            "viewer: understudy maintenance",
            viewer,
            What::Command(&["maintenance", "on", "--group", "web", "--node", HOLDER]),
            Says("not allowed"),
        ),
    ]
}

/// By a detour: servers check where a message goes, not where its answer does.
fn detours() -> Vec<Attempt> {
    let viewer = Who::Owner("viewer");
    vec![
        attempt(
            "viewer: has history delivered as a heartbeat",
            viewer,
            What::Nats(Act::Deliver(own("heartbeat.web.web-b"))),
            Refusal::Counted("not allowed", "message by a detour refused", Told::No),
        ),
        attempt(
            "viewer: has its question answered as a heartbeat",
            viewer,
            What::Nats(Act::Redirect(own("command.all.status"), own("heartbeat.web.web-b"))),
            Refusal::Counted("not allowed", "message by a detour refused", Told::No),
        ),
    ]
}

/// On the direct path and the pages.
fn paths() -> Vec<Attempt> {
    use Refusal::{Counted, Status};
    let (publisher, executor) = (Who::Owner("heartbeat.web.web-c"), Who::Owner("executor.web.web-c"));
    let not_allowed = |log| Counted("not allowed", log, Told::Yes);
    let (caller, stream) = ("direct path: caller refused", "direct path: stream in another's name refused");
    let bid = || node_message::Message::Heartbeat(heartbeat(THIEF));
    vec![
        attempt(
            "direct: no certificate",
            Who::Nobody,
            What::Direct(vec![hello(HOLDER, true)]),
            not_allowed(caller),
        ),
        attempt(
            "direct: another authority's certificate",
            Who::Owner("nats"),
            What::Direct(vec![hello(HOLDER, true)]),
            not_allowed(caller),
        ),
        attempt("direct: no TLS", Who::Nobody, What::Plain(false), Counted("not allowed", caller, Told::No)),
        attempt(
            "direct: a publisher as another node",
            publisher,
            What::Direct(vec![hello(HOLDER, false)]),
            not_allowed(stream),
        ),
        attempt(
            "direct: a publisher wants grants",
            publisher,
            What::Direct(vec![hello(THIEF, true)]),
            not_allowed(stream),
        ),
        attempt(
            "direct: an executor as another node",
            executor,
            What::Direct(vec![hello(HOLDER, true)]),
            not_allowed(stream),
        ),
        attempt(
            "direct: a detector as a node",
            Who::Owner("detector.2"),
            What::Direct(vec![hello(HOLDER, true)]),
            not_allowed(stream),
        ),
        attempt(
            "direct: an executor bids by itself",
            executor,
            What::Direct(vec![hello(THIEF, true), bid()]),
            Counted("not allowed", "heartbeat of a process that is no publisher", Told::No),
        ),
        attempt(
            "direct: a publisher claims another's name",
            publisher,
            What::Direct(vec![hello(THIEF, false), node_message::Message::Heartbeat(heartbeat(HOLDER))]),
            Counted("wrong name", "direct path: message in another's name refused", Told::No),
        ),
        attempt(
            "direct: an executor releases another holder",
            executor,
            What::Direct(vec![hello(THIEF, true), node_message::Message::Release(release(HOLDER))]),
            Counted("wrong name", "direct path: message in another's name refused", Told::No),
        ),
        attempt("pages: no token", Who::Nobody, What::Page(None), Status(401)),
        attempt(
            "pages: a wrong token",
            Who::Nobody,
            What::Page(Some("0123456789abcdef0123456789abcdef")),
            Status(401),
        ),
    ]
}

/// The whole table.
pub(crate) fn table() -> Vec<Attempt> {
    [outside(), heartbeats(), executors(), others(), detours(), paths()].into_iter().flatten().collect()
}
