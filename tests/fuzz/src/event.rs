//! Events: CloudEvents headers and protobuf JSON bodies.

use std::{str::FromStr as _, sync::Once};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use opentelemetry::{global, trace::TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use understudy_bus::{events::StoredEvent, trace};
use understudy_wire::{
    CloudEvent, ClusterId, EventBody, GroupId, event,
    v1::{
        Demoted, DnsUpdated, MaintenanceChanged, NodeJudged, ScalingDecided, SeatTrouble, SlotVacant,
        SwitchoverAsked, Takeover, TakeoverFailed, TakeoverProved,
    },
};

static PROPAGATOR: Once = Once::new();

/// A message as text: the subject in the first line, then headers (`Name: value`), an empty line, the body.
pub(crate) fn event(data: &[u8]) {
    PROPAGATOR.call_once(|| global::set_text_map_propagator(TraceContextPropagator::new()));
    let (head, body) = match data.windows(2).position(|window| window == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, &data[data.len()..]),
    };
    let Ok(head) = std::str::from_utf8(head) else { return };
    let mut lines = head.split('\n');
    let subject = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        // What the client itself refuses never gets here.
        if let (Ok(name), Ok(value)) = (HeaderName::from_str(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    let span = trace::extract(&headers).span().span_context().clone();
    assert!(
        !span.is_valid()
            || headers.iter().any(|(name, _)| name.to_string().eq_ignore_ascii_case("traceparent"))
    );

    let event = StoredEvent::new(1, subject, Some(&headers), Bytes::copy_from_slice(body));
    assert!(event.attributes.len() <= headers.len());
    for name in event.attributes.keys() {
        assert_eq!(*name, name.to_ascii_lowercase());
    }
    match event.kind() {
        NodeJudged::KIND => body_of::<NodeJudged>(&event),
        SlotVacant::KIND => body_of::<SlotVacant>(&event),
        Takeover::KIND => body_of::<Takeover>(&event),
        TakeoverFailed::KIND => body_of::<TakeoverFailed>(&event),
        Demoted::KIND => body_of::<Demoted>(&event),
        TakeoverProved::KIND => body_of::<TakeoverProved>(&event),
        DnsUpdated::KIND => body_of::<DnsUpdated>(&event),
        MaintenanceChanged::KIND => body_of::<MaintenanceChanged>(&event),
        SwitchoverAsked::KIND => body_of::<SwitchoverAsked>(&event),
        SeatTrouble::KIND => body_of::<SeatTrouble>(&event),
        ScalingDecided::KIND => body_of::<ScalingDecided>(&event),
        other => assert!(event::ALL.iter().all(|(kind, _)| *kind != other), "{other} is not fuzzed"),
    }
}

/// A body that can be read can be published, and read again by whoever gets it.
fn body_of<B: EventBody>(event: &StoredEvent) {
    let Ok(body) = event.body::<B>() else { return };
    let (cluster, group) =
        (ClusterId::new("demo").expect("is a name"), GroupId::new("web").expect("is a name"));
    let Ok(published) = CloudEvent::new(&cluster, &group, "fuzz/1", "key", &body) else {
        // The one thing that JSON has no form for: a number that is not finite.
        let written = serde_json::to_string(&body).unwrap_or_default();
        return assert!(written.contains(":null"), "not published: {written}");
    };
    let mut headers = HeaderMap::new();
    for (name, value) in published.headers() {
        headers.insert(name, value);
    }
    let subject = format!("understudy.demo.event.web.{}", B::KIND);
    let read = StoredEvent::new(1, &subject, Some(&headers), published.body.clone().into());
    assert_eq!(read.kind(), event.kind());
    assert_eq!(read.attribute("id"), published.id);
    assert_eq!(read.attribute("type"), B::TYPE);
    let again = read.body::<B>().expect("what is published can be read");
    // As text, since not a number equals nothing.
    let text = serde_json::to_string(&again).expect("a body has a JSON form");
    assert_eq!(text.as_bytes(), published.body, "what is read is what was published");
}
