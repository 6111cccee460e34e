//! For whom a caller of the direct path may speak: what its certificate says, and nothing that it says itself.

use std::fmt;

use tokio_rustls::rustls::pki_types::CertificateDer;
use understudy_wire::{
    ClusterId, GroupId, NodeId,
    v1::{self, node_message},
};
use webpki::EndEntityCert;

use super::Member;
use crate::Identity;

/// Names in the certificate that a caller has shown, checked against the authority by the handshake.
pub(super) struct Speaker(Vec<String>);

impl Speaker {
    /// `chain` as the handshake left it, the caller's own certificate first. One that cannot be read names nobody.
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Self {
        let own = chain.first().and_then(|own| EndEntityCert::try_from(own).ok());
        Self(own.iter().flat_map(|own| own.valid_uri_names()).map(str::to_owned).collect())
    }

    fn is(&self, cluster: &ClusterId, identity: &Identity) -> bool {
        self.0.contains(&identity.uri(cluster))
    }

    fn is_executor(&self, cluster: &ClusterId, (group, node): &Member) -> bool {
        self.is(cluster, &Identity::Executor(group.clone(), node.clone()))
            || self.is_autoscaler(cluster, group, node)
    }

    fn is_publisher(&self, cluster: &ClusterId, (group, node): &Member) -> bool {
        self.is(cluster, &Identity::Heartbeat(group.clone(), node.clone()))
            || self.is_autoscaler(cluster, group, node)
    }

    /// An autoscaler is a member of the group that elects the one that acts (rule R12): it bids and holds by itself.
    fn is_autoscaler(&self, cluster: &ClusterId, group: &GroupId, node: &NodeId) -> bool {
        self.is(cluster, &Identity::Autoscaler(group.clone(), node.clone()))
    }

    /// Only a process of `member` may open its streams, and only its executor is given grants.
    pub(super) fn may_join(&self, cluster: &ClusterId, member: &Member, grants: bool) -> bool {
        self.is_executor(cluster, member) || (!grants && self.is_publisher(cluster, member))
    }

    /// A node's heartbeats, which are its bids, come from its publisher; releases from either of its processes (the
    /// publisher is the executor's witness, rule R8).
    pub(super) fn may_say(&self, cluster: &ClusterId, member: &Member, message: &v1::NodeMessage) -> bool {
        !matches!(message.message, Some(node_message::Message::Heartbeat(_)))
            || self.is_publisher(cluster, member)
    }
}

impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("nobody") } else { f.write_str(&self.0.join(" ")) }
    }
}
