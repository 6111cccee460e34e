//! NATS subjects, all below `understudy.<cluster>.`

use crate::{ClusterId, GroupId, InvalidName, NodeId};

/// Makes and reads the subjects of one cluster.
#[derive(Debug, Clone)]
pub struct Subjects {
    prefix: String,
}

/// A subject of this cluster, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// `heartbeat.<group>.<node>`
    Heartbeat(GroupId, NodeId),
    /// `member.<group>.<node>`
    Member(GroupId, NodeId),
    /// `detector.<seat>`; 0: an observer.
    Detector(u8),
    /// `seat.<seat>`; never 0.
    Seat(u8),
    /// `grant.<group>.<node>`
    Grant(GroupId, NodeId),
    /// `release.<group>.<node>`
    Release(GroupId, NodeId),
    /// `verdict.<group>.<node>`
    Verdict(GroupId, NodeId),
    /// `event.<group>.<kind>`
    Event(GroupId, String),
    /// `command.<group>.<verb>`
    Command(GroupId, String),
}

impl Subjects {
    /// Subjects of `cluster`.
    pub fn new(cluster: &ClusterId) -> Self {
        Self { prefix: format!("understudy.{cluster}.") }
    }

    /// Subject with the prefix, for one message.
    pub fn of(&self, subject: &Subject) -> String {
        let prefix = &self.prefix;
        match subject {
            Subject::Heartbeat(group, node) => format!("{prefix}heartbeat.{group}.{node}"),
            Subject::Member(group, node) => format!("{prefix}member.{group}.{node}"),
            Subject::Detector(seat) => format!("{prefix}detector.{seat}"),
            Subject::Seat(seat) => format!("{prefix}seat.{seat}"),
            Subject::Grant(group, node) => format!("{prefix}grant.{group}.{node}"),
            Subject::Release(group, node) => format!("{prefix}release.{group}.{node}"),
            Subject::Verdict(group, node) => format!("{prefix}verdict.{group}.{node}"),
            Subject::Event(group, kind) => format!("{prefix}event.{group}.{kind}"),
            Subject::Command(group, verb) => format!("{prefix}command.{group}.{verb}"),
        }
    }

    /// A wildcard below the prefix, for subscribing: `subscription("heartbeat.*.*")`.
    pub fn subscription(&self, pattern: &str) -> String {
        format!("{}{pattern}", self.prefix)
    }

    /// Takes a received subject apart. `Ok(None)`: not one of this cluster's known subjects.
    pub fn parse(&self, subject: &str) -> Result<Option<Subject>, InvalidName> {
        let Some(rest) = subject.strip_prefix(&self.prefix) else { return Ok(None) };
        let mut parts = rest.split('.');
        let (Some(kind), Some(first)) = (parts.next(), parts.next()) else { return Ok(None) };
        let (second, end) = (parts.next(), parts.next());
        if end.is_some() {
            return Ok(None);
        }
        let Some(second) = second else {
            // Numbers have one way to be written: `+3` and `03` are other subjects.
            let seat = first.parse().ok().filter(|seat: &u8| seat.to_string() == first);
            return Ok(match kind {
                "detector" => seat.map(Subject::Detector),
                "seat" => seat.filter(|seat| *seat > 0).map(Subject::Seat),
                _ => None,
            });
        };
        let group = GroupId::new(first)?;
        Ok(Some(match kind {
            "heartbeat" => Subject::Heartbeat(group, NodeId::new(second)?),
            "member" => Subject::Member(group, NodeId::new(second)?),
            "grant" => Subject::Grant(group, NodeId::new(second)?),
            "release" => Subject::Release(group, NodeId::new(second)?),
            "verdict" => Subject::Verdict(group, NodeId::new(second)?),
            "event" => Subject::Event(group, second.to_owned()),
            "command" => Subject::Command(group, second.to_owned()),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_reads_back_as_it_was_made() {
        let subjects = Subjects::new(&ClusterId::new("demo").unwrap());
        let (group, node) = (GroupId::new("web").unwrap(), NodeId::new("web-a").unwrap());
        for subject in [
            Subject::Heartbeat(group.clone(), node.clone()),
            Subject::Member(group.clone(), node.clone()),
            Subject::Detector(3),
            Subject::Seat(3),
            Subject::Grant(group.clone(), node.clone()),
            Subject::Release(group.clone(), node.clone()),
            Subject::Verdict(group.clone(), node),
            Subject::Event(group.clone(), "takeover".into()),
            Subject::Command(group, "status".into()),
        ] {
            assert_eq!(subjects.parse(&subjects.of(&subject)), Ok(Some(subject)));
        }
    }

    #[test]
    fn foreign_subjects_are_told_apart_and_bad_names_refused() {
        let subjects = Subjects::new(&ClusterId::new("demo").unwrap());
        for foreign in [
            "",
            "understudy.other.heartbeat.web.a",
            "understudy.demo.",
            "understudy.demo.heartbeat.web",
            "understudy.demo.heartbeat.web.a.b",
            "understudy.demo.detector.x",
            "understudy.demo.detector.03",
            "understudy.demo.detector.+3",
            "understudy.demo.seat.0",
            "understudy.demo.nonsense.web.a",
        ] {
            assert_eq!(subjects.parse(foreign), Ok(None), "{foreign}");
        }
        assert!(subjects.parse("understudy.demo.heartbeat.web.*").is_err());
    }
}
