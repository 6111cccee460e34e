//! Containers as the engine lists them, and what they say of their member.

use std::{collections::HashMap, fmt};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as Phase};
use understudy_wire::NodeId;

use super::super::{State, engine::Identity};

/// Label that says which of the three a container is.
pub const PART: &str = "understudy.part";

/// The three containers of a member, in the order in which they are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Workload,
    Heartbeat,
    Executor,
}

impl Part {
    pub(super) const ALL: [Self; 3] = [Self::Workload, Self::Heartbeat, Self::Executor];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Heartbeat => "heartbeat",
            Self::Executor => "executor",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A container of a member, as the engine lists it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) part: Part,
    pub(super) id: String,
    pub(super) phase: Option<Phase>,
    /// Such as "Exited (127) 3 seconds ago".
    pub(super) status: String,
    /// The container whose network it joins.
    pub(super) joined: Option<String>,
    pub(super) identity: Identity,
}

impl Found {
    /// `None`: not one of ours.
    pub(super) fn from(listed: ContainerSummary) -> Option<Self> {
        let labels = listed.labels.unwrap_or_default();
        let part =
            Part::ALL.into_iter().find(|part| labels.get(PART).is_some_and(|name| name == part.name()))?;
        let mode = listed.host_config.and_then(|host| host.network_mode);
        Some(Self {
            part,
            id: listed.id?,
            phase: listed.state,
            status: listed.status.unwrap_or_default(),
            joined: mode.and_then(|mode| mode.strip_prefix("container:").map(str::to_owned)),
            identity: Identity::carrying(&labels)?,
        })
    }

    /// Why the member has ended, as far as this container is concerned; `None`: it runs.
    fn ended(&self) -> Option<String> {
        let (part, code) = (self.part, exit_code(&self.status));
        let with = |verb: &str| match code {
            Some(code) => format!("the {part} {verb} with {code}"),
            None => format!("the {part} {verb}"),
        };
        match self.phase {
            // Paused it is silent, which the detectors judge.
            Some(Phase::RUNNING | Phase::PAUSED) => None,
            Some(Phase::RESTARTING) => Some(format!("{} and is started again", with("exited"))),
            Some(Phase::CREATED) => Some(format!("the {part} was never started")),
            Some(Phase::REMOVING) => Some(format!("the {part} is being removed")),
            _ => Some(with("exited")),
        }
    }
}

/// The number in "Exited (127) 3 seconds ago" and "Restarting (1) 5 seconds ago".
fn exit_code(status: &str) -> Option<i64> {
    status.split_once('(')?.1.split_once(')')?.0.parse().ok()
}

/// How far a member is, by the first of its containers that does not run.
pub(super) fn state(found: &[Found]) -> State {
    let cause = Part::ALL.into_iter().find_map(|part| {
        // The engine lists the youngest first.
        match found.iter().find(|one| one.part == part) {
            Some(one) => one.ended(),
            None => Some(format!("it has no {part}")),
        }
    });
    cause.map_or(State::Running, State::Ended)
}

/// Who a member is, by all that is left of it.
pub(super) fn whole(node: &NodeId, found: &[Found]) -> Identity {
    let key = found.iter().find_map(|one| one.identity.key.clone());
    let domains = found.iter().flat_map(|one| one.identity.domains.clone()).collect();
    Identity { node: node.clone(), key, domains }
}

/// Labels of one container.
pub(super) fn labelled(mut labels: HashMap<String, String>, part: Part) -> HashMap<String, String> {
    labels.insert(PART.to_owned(), part.name().to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn found(part: Part, phase: Phase, status: &str) -> Found {
        let node = NodeId::new("web-4").unwrap();
        let identity = Identity { node, key: None, domains: BTreeMap::new() };
        Found {
            part,
            id: part.to_string(),
            phase: Some(phase),
            status: status.into(),
            joined: None,
            identity,
        }
    }

    fn ended(cause: &str) -> State {
        State::Ended(cause.into())
    }

    #[test]
    fn a_member_runs_when_all_three_do_and_else_says_which_does_not() {
        let all = |workload: Phase, status: &str, executor: Phase| {
            [
                found(Part::Workload, workload, status),
                found(Part::Heartbeat, Phase::RUNNING, "Up 3 seconds"),
                found(Part::Executor, executor, "Restarting (78) 1 second ago"),
            ]
        };
        let up = "Up 3 seconds (healthy)";
        assert_eq!(state(&all(Phase::RUNNING, up, Phase::RUNNING)), State::Running);
        assert_eq!(state(&all(Phase::PAUSED, up, Phase::RUNNING)), State::Running);
        let exited = "Exited (127) 3 seconds ago";
        assert_eq!(state(&all(Phase::EXITED, exited, Phase::RUNNING)), ended("the workload exited with 127"));
        assert_eq!(
            state(&all(Phase::RUNNING, up, Phase::RESTARTING)),
            ended("the executor exited with 78 and is started again")
        );
        assert_eq!(
            state(&all(Phase::CREATED, "Created", Phase::RUNNING)),
            ended("the workload was never started")
        );
        assert_eq!(state(&all(Phase::DEAD, "Dead", Phase::RUNNING)), ended("the workload exited"));
        assert_eq!(state(&all(Phase::RUNNING, up, Phase::RUNNING)[..2]), ended("it has no executor"));
        assert_eq!(state(&[]), ended("it has no workload"));
    }
}
