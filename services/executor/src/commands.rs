//! What operators ask of the holder.

use std::net::IpAddr;

use understudy_bus::store::Maintenance;
use understudy_lease::Why;
use understudy_service::clock;
use understudy_wire::{BootTime, NodeId, Slot, v1};

use crate::{executor::Executor, peers::FailingBack};

/// Requests remembered, so that one that is sent again is answered the same and done once.
const REMEMBERED: usize = 64;

impl Executor {
    /// A switchover: `None` when another node holds the slot, whose business it then is.
    ///
    /// What is another's business stays so: a request that is sent again finds this node in possession because of it,
    /// and must not be taken for a new one.
    ///
    /// `out`: nodes in maintenance as read for this very request, should that have been possible. An operator who takes
    /// a node out and then asks for a switchover may be faster than the notice of the first.
    pub fn switchover(
        &mut self,
        request: &v1::SwitchoverRequest,
        out: &Maintenance,
    ) -> Option<v1::SwitchoverReply> {
        if let Some((_, reply)) = self.asked.iter().find(|(known, _)| *known == request.request) {
            return reply.clone();
        }
        let reply = self.answer_switchover(request, out);
        self.asked.truncate(REMEMBERED - 1);
        self.asked.push_front((request.request.clone(), reply.clone()));
        reply
    }

    fn answer_switchover(
        &mut self,
        request: &v1::SwitchoverRequest,
        out: &Maintenance,
    ) -> Option<v1::SwitchoverReply> {
        let slot = Slot(u16::try_from(request.slot).ok()?);
        if !request.from.is_empty() && request.from != self.settings.node.as_str() {
            // Whoever follows must not answer a request that it hears only after it has taken over.
            return None;
        }
        let now = clock::now();
        let tenure = self.tenures.get(&slot)?;
        let epoch = tenure.epoch.0;
        let serving = tenure.serving_at.is_some();
        let chosen = if serving {
            self.successor(now, &request.to, out)
        } else {
            Err("the takeover is still under way".into())
        };
        let (accepted, reason) = match &chosen {
            Ok(_) => (true, String::new()),
            Err(reason) => (false, reason.clone()),
        };
        let from = self.settings.node.to_string();
        let to = request.to.clone();
        let reply = v1::SwitchoverReply {
            accepted,
            reason: reason.clone(),
            from: from.clone(),
            to: to.clone(),
            epoch,
        };
        let asked = v1::SwitchoverAsked {
            group: self.settings.group_id.to_string(),
            slot: request.slot,
            from,
            to,
            accepted,
            reason,
            request: request.request.clone(),
        };
        if let Ok(successor) = chosen {
            self.holder.give_up(now, slot, Why::Switchover, successor);
        }
        self.tell(&request.request, &asked);
        Some(reply)
    }

    /// Who could follow: the node named, else anyone. The reason if nobody could.
    fn successor(&self, now: BootTime, named: &str, out: &Maintenance) -> Result<Option<NodeId>, String> {
        let obstacle = |node: &NodeId| {
            let taken_out = out.contains(&(self.settings.group_id.clone(), node.clone()));
            let known = || self.peers.obstacle(now, node);
            taken_out.then(|| format!("{node} is in maintenance")).or_else(known)
        };
        if !named.is_empty() {
            let node = NodeId::new(named).map_err(|error| error.to_string())?;
            if node == self.settings.node {
                return Err(format!("{node} holds the slot already"));
            }
            return match obstacle(&node) {
                None => Ok(Some(node)),
                Some(reason) => Err(reason),
            };
        }
        let mut reasons = Vec::new();
        for peer in self.peers.all() {
            let node = &peer.heartbeat.node;
            match obstacle(node) {
                // Named, so that a switchover is told from other releases.
                None => return Ok(Some(node.clone())),
                Some(reason) => reasons.push(reason),
            }
        }
        let why =
            if reasons.is_empty() { "no other member was heard".to_owned() } else { reasons.join(", ") };
        Err(format!("no ready standby: {why}"))
    }

    /// Gives the slot back to a preferred node, as soon as the policy allows. Off unless configured: a move that nobody
    /// needs is a risk that nobody asked for.
    pub(crate) fn fail_back(&mut self) {
        let Some(stable) = self.settings.group.failback else { return };
        let Some(tenure) = self.tenures.values().find(|tenure| tenure.serving_at.is_some()) else { return };
        let slot = tenure.slot;
        let vips: Vec<IpAddr> = tenure.vips.iter().map(|vip| vip.addr()).collect();
        let holder = FailingBack {
            node: &self.settings.node,
            priority: self.settings.priority,
            link_address: self.network.link.mac,
            vips: &vips,
        };
        let now = clock::now();
        if let Some(node) = self.peers.to_fail_back(now, stable, &holder) {
            tracing::info!(%slot, %node, "the preferred node has been stable: failing back");
            self.holder.give_up(now, slot, Why::Switchover, Some(node));
        }
    }
}
