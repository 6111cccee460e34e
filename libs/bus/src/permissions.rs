//! What each credential may publish and hear on NATS. The servers refuse everything else.
//!
//! This is the one list; `understudy nats-auth` prints it for the servers' configuration. It lies beside the code that
//! uses the subjects, so that whoever changes one sees the other.

use understudy_wire::{ClusterId, Subject, Subjects};

use crate::{Identity, events, store};

/// Subjects of one credential, wildcards included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects it may publish on. Never empty: the servers take an empty list for "everything".
    pub publish: Vec<String>,
    /// Subjects it may subscribe to. Never empty either.
    pub subscribe: Vec<String>,
    /// Whether it may answer requests it receives, once each; needs no subject.
    pub answers: bool,
}

/// Prefix of the replies to a credential: nobody else may listen there.
pub fn inbox(public_key: &str) -> String {
    format!("_INBOX.{public_key}")
}

impl Permissions {
    /// What `identity`, whose nkey is `public_key`, needs and no more.
    pub fn of(identity: &Identity, cluster: &ClusterId, public_key: &str) -> Self {
        let names = Names { subjects: Subjects::new(cluster), cluster };
        let (publish, subscribe) = (names.published_by(identity), names.heard_by(identity));
        let subscribe = subscribe.into_iter().chain([format!("{}.>", inbox(public_key))]).collect();
        let answers = matches!(
            identity,
            Identity::Executor(..) | Identity::Detector(_) | Identity::Observer | Identity::Autoscaler(..)
        );
        Self { publish, subscribe, answers }
    }
}

/// Makes the subjects of one cluster.
struct Names<'a> {
    subjects: Subjects,
    cluster: &'a ClusterId,
}

impl Names<'_> {
    fn one(&self, subject: &Subject) -> String {
        self.subjects.of(subject)
    }

    fn all(&self, patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| self.subjects.subscription(pattern)).collect()
    }

    fn published_by(&self, identity: &Identity) -> Vec<String> {
        match identity {
            // The witness releases for its dead executor (rule R8): never for another node.
            Identity::Heartbeat(group, node) => vec![
                self.one(&Subject::Heartbeat(group.clone(), node.clone())),
                self.one(&Subject::Member(group.clone(), node.clone())),
                self.one(&Subject::Release(group.clone(), node.clone())),
            ],
            Identity::Executor(group, node) => [
                vec![self.one(&Subject::Release(group.clone(), node.clone()))],
                self.all(&[&format!("event.{group}.*")]),
                self.read_store(),
                self.delete_readers(),
            ]
            .concat(),
            Identity::Detector(seat) => [
                vec![self.one(&Subject::Detector(*seat)), self.one(&Subject::Seat(*seat))],
                self.all(&["grant.*.*", "verdict.*.*", "event.*.*"]),
                self.write_store(),
            ]
            .concat(),
            Identity::Observer => [
                vec![self.one(&Subject::Detector(0))],
                self.all(&["verdict.*.*", "event.*.*"]),
                self.read_store(),
                self.delete_readers(),
            ]
            .concat(),
            // It bids in its own group (rule R12), takes members out before it removes them, and keeps the sizes.
            Identity::Autoscaler(group, node) => [
                vec![
                    self.one(&Subject::Heartbeat(group.clone(), node.clone())),
                    self.one(&Subject::Release(group.clone(), node.clone())),
                ],
                self.all(&["event.*.*", "command.*.maintenance"]),
                self.look(),
                self.write_sizes(),
                self.delete_readers(),
            ]
            .concat(),
            Identity::Operator => [
                self.all(&["command.*.switchover", "command.*.maintenance", "command.*.scaling"]),
                self.look(),
            ]
            .concat(),
            Identity::Viewer => self.look(),
        }
    }

    fn heard_by(&self, identity: &Identity) -> Vec<String> {
        match identity {
            // Its own heartbeats come back: a server that does not pass them on is left.
            Identity::Heartbeat(group, node) => {
                self.all(&["detector.*", &format!("heartbeat.{group}.{node}")])
            }
            Identity::Executor(group, node) => [
                vec![self.one(&Subject::Grant(group.clone(), node.clone()))],
                self.all(&[
                    "detector.*",
                    &format!("heartbeat.{group}.{node}"),
                    &format!("member.{group}.*"),
                    &format!("verdict.{group}.*"),
                    &format!("command.{group}.switchover"),
                ]),
            ]
            .concat(),
            Identity::Detector(seat) => {
                [self.heard_by_detectors(*seat), self.all(&["command.*.maintenance"])].concat()
            }
            Identity::Observer => self.heard_by_detectors(0),
            Identity::Autoscaler(group, node) => [
                vec![self.one(&Subject::Grant(group.clone(), node.clone()))],
                self.seen(),
                self.all(&["command.*.scaling", "command.*.explain"]),
            ]
            .concat(),
            Identity::Operator | Identity::Viewer => self.seen(),
        }
    }

    fn heard_by_detectors(&self, seat: u8) -> Vec<String> {
        self.all(&["heartbeat.*.*", "release.*.*", &format!("seat.{seat}"), "command.*.status"])
    }

    /// What may be seen by everybody who may look. No grants and releases, so that there is nothing to replay, and no
    /// commands: a member of their queue group would take them away from the detectors.
    fn seen(&self) -> Vec<String> {
        self.all(&["heartbeat.*.*", "detector.*", "verdict.*.*", "event.>"])
    }

    /// Questions of those who look: status, history, maintenance.
    fn look(&self) -> Vec<String> {
        let events = events::stream_name(self.cluster);
        let history = [
            format!("$JS.API.STREAM.INFO.{events}"),
            // A reader begins without a name; when it begins anew it has one.
            format!("$JS.API.CONSUMER.CREATE.{events}"),
            format!("$JS.API.CONSUMER.CREATE.{events}.*.{}", self.subjects.subscription("event.>")),
            format!("$JS.API.CONSUMER.MSG.NEXT.{events}.*"),
        ];
        [self.all(&["command.*.status", "command.*.explain"]), history.into(), self.read_store()].concat()
    }

    /// The set of nodes in maintenance, the sizes of groups, and their changes.
    fn read_store(&self) -> Vec<String> {
        let (bucket, stream) = (store::bucket(self.cluster), store::stream_name(self.cluster));
        vec![
            format!("$JS.API.STREAM.INFO.{stream}"),
            format!("$JS.API.STREAM.MSG.GET.{stream}"),
            // The same for a watcher.
            format!("$JS.API.CONSUMER.CREATE.{stream}"),
            format!("$JS.API.CONSUMER.CREATE.{stream}.*.$KV.{bucket}.{}", store::MAINTENANCE),
            format!("$JS.API.CONSUMER.CREATE.{stream}.*.$KV.{bucket}.{}", store::sizes("*")),
            // A watcher confirms what it has read, so that the servers do not send more than it takes.
            format!("$JS.FC.{stream}.>"),
        ]
    }

    /// A service that begins to read anew removes its last reader first. Those who only look are not allowed to, since
    /// it might be another's: theirs goes when it is not used.
    fn delete_readers(&self) -> Vec<String> {
        vec![format!("$JS.API.CONSUMER.DELETE.{}.*", store::stream_name(self.cluster))]
    }

    /// Sizes of groups, and what one leader leaves to the next.
    fn write_sizes(&self) -> Vec<String> {
        let bucket = store::bucket(self.cluster);
        [store::sizes("*"), store::memory("*")].map(|key| format!("$KV.{bucket}.{key}")).into()
    }

    /// Ceilings, and maintenance on behalf of operators; makes stream and bucket when they are missing. Nobody may
    /// delete or purge either.
    fn write_store(&self) -> Vec<String> {
        let bucket = store::bucket(self.cluster);
        let streams = [events::stream_name(self.cluster), store::stream_name(self.cluster)];
        let make = streams.iter().flat_map(|stream| {
            ["INFO", "CREATE", "UPDATE"].map(|verb| format!("$JS.API.STREAM.{verb}.{stream}"))
        });
        let keys = [format!("$KV.{bucket}.ceiling.*.*"), format!("$KV.{bucket}.{}", store::MAINTENANCE)];
        let info = format!("$JS.API.STREAM.INFO.{}", store::stream_name(self.cluster));
        let read = self.read_store().into_iter().filter(|subject| *subject != info);
        make.chain(keys).chain(read).chain(self.delete_readers()).collect()
    }
}

#[cfg(test)]
mod tests {
    use understudy_wire::{GroupId, NodeId};

    use super::*;
    use crate::nats::covers;

    fn of(identity: &Identity) -> Permissions {
        Permissions::of(identity, &ClusterId::new("demo").unwrap(), "UKEY")
    }

    fn scaler() -> Identity {
        Identity::Autoscaler(GroupId::new("scaler").unwrap(), NodeId::new("scaler-1").unwrap())
    }

    fn everybody() -> [Identity; 7] {
        let (group, node) = (GroupId::new("web").unwrap(), NodeId::new("web-a").unwrap());
        [
            Identity::Heartbeat(group.clone(), node.clone()),
            Identity::Executor(group, node),
            Identity::Detector(2),
            Identity::Observer,
            scaler(),
            Identity::Operator,
            Identity::Viewer,
        ]
    }

    fn publishers_of(subject: &str) -> Vec<String> {
        let may = |identity: &Identity| of(identity).publish.iter().any(|pattern| covers(pattern, subject));
        everybody().iter().filter(|identity| may(identity)).map(ToString::to_string).collect()
    }

    #[test]
    fn what_moves_a_slot_is_said_by_its_own_role_only() {
        let heard = |subject: &str| publishers_of(&format!("understudy.demo.{subject}"));
        assert_eq!(heard("heartbeat.web.web-a"), ["heartbeat.web.web-a"]);
        assert_eq!(heard("heartbeat.web.web-b"), [""; 0]);
        assert_eq!(heard("member.web.web-a"), ["heartbeat.web.web-a"]);
        assert_eq!(heard("member.web.web-b"), [""; 0]);
        assert_eq!(heard("release.web.web-a"), ["heartbeat.web.web-a", "executor.web.web-a"]);
        assert_eq!(heard("release.web.web-b"), [""; 0]);
        assert_eq!(heard("grant.web.web-a"), ["detector.2"]);
        assert_eq!(heard("detector.2"), ["detector.2"]);
        assert_eq!(heard("detector.1"), [""; 0]);
        assert_eq!(heard("seat.2"), ["detector.2"]);
        assert_eq!(heard("seat.1"), [""; 0]);
        assert_eq!(heard("detector.0"), ["observer"]);
        assert_eq!(heard("command.web.switchover"), ["operator"]);
        assert_eq!(heard("command.web.maintenance"), ["autoscaler.scaler.scaler-1", "operator"]);
        assert_eq!(heard("heartbeat.scaler.scaler-1"), ["autoscaler.scaler.scaler-1"]);
        assert_eq!(heard("command.web.scaling"), ["operator"]);
        for key in ["scaling.web.state", "scaling.web.memory"] {
            assert_eq!(publishers_of(&format!("$KV.understudy_demo.{key}")), ["autoscaler.scaler.scaler-1"]);
        }
        assert_eq!(publishers_of("$KV.understudy_demo.ceiling.web.0"), ["detector.2"]);
        assert_eq!(publishers_of("$KV.understudy_demo.maintenance"), ["detector.2"]);
    }

    #[test]
    fn nobody_may_delete_listen_to_all_or_publish_nothing_in_particular() {
        for subject in [
            "$JS.API.STREAM.DELETE.EVENTS_demo",
            "$JS.API.STREAM.PURGE.KV_understudy_demo",
            "$JS.API.STREAM.MSG.DELETE.KV_understudy_demo",
            "$JS.API.STREAM.CREATE.other",
            "$SYS.REQ.SERVER.PING",
        ] {
            assert_eq!(publishers_of(subject), [""; 0], "{subject}");
        }
        for identity in everybody() {
            let Permissions { publish, subscribe, .. } = of(&identity);
            assert!(!publish.is_empty() && !subscribe.is_empty(), "{identity}: empty means everything");
            assert!(publish.iter().chain(&subscribe).all(|subject| subject != ">"), "{identity}");
            assert!(!subscribe.iter().any(|pattern| covers(pattern, "_INBOX.UOTHER.x")), "{identity}");
            let duplicates = publish.iter().collect::<std::collections::BTreeSet<_>>().len();
            assert_eq!(duplicates, publish.len(), "{identity}");
        }
    }

    #[test]
    fn who_looks_hears_no_grants_releases_or_commands() {
        for identity in [Identity::Viewer, Identity::Operator, scaler()] {
            for subject in ["grant.web.web-a", "release.web.web-a", "command.web.maintenance"] {
                let subject = format!("understudy.demo.{subject}");
                assert!(!of(&identity).subscribe.iter().any(|pattern| covers(pattern, &subject)));
            }
        }
    }
}
