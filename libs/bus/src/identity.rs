//! Who a credential stands for: one per role, and for nodes and seats one each.

use std::fmt;

use understudy_wire::{ClusterId, GroupId, NodeId};

/// Owner of a credential. Its text form, such as `executor.web.web-a`, names its files; names hold no dots, so that no
/// two owners share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// Heartbeat publisher of a node.
    Heartbeat(GroupId, NodeId),
    /// Executor of a node.
    Executor(GroupId, NodeId),
    /// Detector on a seat, from 1.
    Detector(u8),
    /// Detector without a seat.
    Observer,
    /// Keeps the number of members; one of the group that elects the one that acts (rule R12).
    Autoscaler(GroupId, NodeId),
    /// A person or program that may steer.
    Operator,
    /// A person or program that may look.
    Viewer,
}

impl Identity {
    /// The name in its certificate, a URI: `understudy://demo/executor/web/web-a`. A URI and not a DNS name, since DNS
    /// names are compared without regard to case and names here are not.
    pub fn uri(&self, cluster: &ClusterId) -> String {
        format!("understudy://{cluster}/{}", self.to_string().replace('.', "/"))
    }

    /// The role alone: `executor`.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Heartbeat(..) => "heartbeat",
            Self::Executor(..) => "executor",
            Self::Detector(_) => "detector",
            Self::Observer => "observer",
            Self::Autoscaler(..) => "autoscaler",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }

    /// Whether it is a process that listens or opens direct streams, and so needs a certificate.
    pub fn is_service(&self) -> bool {
        !matches!(self, Self::Operator | Self::Viewer)
    }

    /// DNS name in the certificate of a service, for whoever calls it: the same for all of a role, since addresses of
    /// detectors are learned and change, and what matters is that it *is* a detector.
    pub fn server_name(&self) -> String {
        let role = match self {
            Self::Observer => "detector",
            other => other.role(),
        };
        format!("{role}.understudy.internal")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self.role();
        match self {
            Self::Heartbeat(group, node) | Self::Executor(group, node) | Self::Autoscaler(group, node) => {
                write!(f, "{role}.{group}.{node}")
            }
            Self::Detector(seat) => write!(f, "{role}.{seat}"),
            Self::Observer | Self::Operator | Self::Viewer => f.write_str(role),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_roles_nodes_and_case_apart() {
        let cluster = ClusterId::new("demo").unwrap();
        let node = |name: &str| (GroupId::new("web").unwrap(), NodeId::new(name).unwrap());
        let (group, name) = node("web-a");
        let executor = Identity::Executor(group, name);
        assert_eq!(executor.uri(&cluster), "understudy://demo/executor/web/web-a");
        assert_eq!(executor.to_string(), "executor.web.web-a");
        assert_eq!(Identity::Detector(2).uri(&cluster), "understudy://demo/detector/2");
        let (group, name) = node("WEB-A");
        assert_ne!(Identity::Executor(group, name).uri(&cluster), executor.uri(&cluster));
        // An observer's presence is answered by nodes as any detector's is, but it has no vote to cast.
        assert_eq!(Identity::Observer.server_name(), Identity::Detector(1).server_name());
    }
}
