//! Events as CloudEvents 1.0 in binary content mode: attributes as `ce-*` headers, the body is the protobuf JSON of
//! the event's type (CloudEvents specification 1.0.2, NATS protocol binding section 3.1).

use std::time::SystemTime;

use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{ClusterId, Epoch, GroupId, Slot, v1};

/// A protobuf type that is published as an event.
pub trait EventBody: Serialize + DeserializeOwned {
    /// Last token of the subject: `event.<group>.<kind>`.
    const KIND: &'static str;
    /// CloudEvents `type`.
    const TYPE: &'static str;
}

macro_rules! events {
    ($($body:ident: $kind:literal),* $(,)?) => {
        $(impl EventBody for v1::$body {
            const KIND: &'static str = $kind;
            const TYPE: &'static str = concat!("understudy.v1.", stringify!($body));
        })*
        /// Every event: kind, CloudEvents type.
        pub const ALL: &[(&str, &str)] = &[$(($kind, concat!("understudy.v1.", stringify!($body)))),*];
    };
}

events! {
    NodeJudged: "judged",
    SlotVacant: "vacant",
    Takeover: "takeover",
    TakeoverFailed: "takeover_failed",
    Demoted: "demoted",
    TakeoverProved: "proved",
    DnsUpdated: "dns",
    MaintenanceChanged: "maintenance",
    SwitchoverAsked: "switchover",
    SeatTrouble: "seat",
    ScalingDecided: "scaling",
}

/// An event ready to be published: headers and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent {
    /// CloudEvents `id`; also the `Nats-Msg-Id`, so that JetStream keeps one of several equal ones.
    pub id: String,
    /// CloudEvents `source`: the service that saw it, `/understudy/<cluster>/<service>/<name>`.
    pub source: String,
    /// CloudEvents `type`.
    pub kind: &'static str,
    /// CloudEvents `subject`: the group.
    pub group: GroupId,
    /// Last token of the NATS subject.
    pub token: &'static str,
    /// CloudEvents `time`, RFC 3339. Only to show.
    pub time: String,
    /// Protobuf JSON.
    pub body: Vec<u8>,
}

impl CloudEvent {
    /// Wraps `body`. Two services that see one thing give the same `key`, and so the same id.
    ///
    /// # Errors
    /// A body that nobody could read: its JSON has `null` in the place of a number that is not finite.
    pub fn new<B: EventBody>(
        cluster: &ClusterId,
        group: &GroupId,
        source: &str,
        key: &str,
        body: &B,
    ) -> Result<Self, serde_json::Error> {
        let id = name_uuid(&[cluster.as_str(), group.as_str(), B::KIND, key]).to_string();
        let body = serde_json::to_vec(body)?;
        serde_json::from_slice::<B>(&body)?;
        Ok(Self {
            id,
            source: format!("/understudy/{cluster}/{source}"),
            kind: B::TYPE,
            group: group.clone(),
            token: B::KIND,
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            body,
        })
    }

    /// Headers of the binary content mode.
    pub fn headers(&self) -> [(&'static str, &str); 8] {
        [
            ("Nats-Msg-Id", &self.id),
            ("ce-specversion", "1.0"),
            ("ce-id", &self.id),
            ("ce-source", &self.source),
            ("ce-type", self.kind),
            ("ce-subject", self.group.as_str()),
            ("ce-time", &self.time),
            ("content-type", "application/json"),
        ]
    }
}

/// Trace id of one tenure, the same in every service: seats, executor and publisher need not ask each other which
/// trace a failover belongs to.
pub fn trace_id(cluster: &ClusterId, group: &GroupId, slot: Slot, epoch: Epoch) -> u128 {
    name_uuid(&[cluster.as_str(), group.as_str(), "trace", &slot.to_string(), &epoch.to_string()]).as_u128()
}

/// Name-based UUID (RFC 9562 section 5.5); a NUL joins the parts, since no part can hold one.
fn name_uuid(parts: &[&str]) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, parts.join("\0").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sightings_get_one_id_and_the_body_reads_back() {
        let (cluster, group) = (ClusterId::new("demo").unwrap(), GroupId::new("web").unwrap());
        let body = v1::SlotVacant { group: "web".into(), slot: 0, highest_epoch: 17, ..Default::default() };
        let one = CloudEvent::new(&cluster, &group, "detector/1", "0/17", &body).unwrap();
        let two = CloudEvent::new(&cluster, &group, "detector/2", "0/17", &body).unwrap();
        let other = CloudEvent::new(&cluster, &group, "detector/2", "0/18", &body).unwrap();
        assert_eq!(one.id, two.id);
        assert_ne!(one.id, other.id);
        assert_eq!(serde_json::from_slice::<v1::SlotVacant>(&one.body).unwrap(), body);
    }

    #[test]
    fn what_nobody_could_read_is_refused() {
        let (cluster, group) = (ClusterId::new("demo").unwrap(), GroupId::new("web").unwrap());
        let judged = |phi| v1::NodeJudged { phi, ..Default::default() };
        assert!(CloudEvent::new(&cluster, &group, "detector/1", "1", &judged(f64::MAX)).is_ok());
        for phi in [f64::INFINITY, f64::NAN] {
            assert!(CloudEvent::new(&cluster, &group, "detector/1", "1", &judged(phi)).is_err(), "{phi}");
        }
    }

    #[test]
    fn a_trace_belongs_to_one_tenure() {
        let (cluster, group) = (ClusterId::new("demo").unwrap(), GroupId::new("web").unwrap());
        let first = trace_id(&cluster, &group, Slot(0), Epoch(7));
        assert_eq!(first, trace_id(&cluster, &group, Slot(0), Epoch(7)));
        assert_ne!(first, trace_id(&cluster, &group, Slot(0), Epoch(8)));
        assert_ne!(first, trace_id(&cluster, &group, Slot(1), Epoch(7)));
    }
}
