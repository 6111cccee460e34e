//! One node out of what every detector says of it.

use std::collections::BTreeSet;

use understudy_wire::v1::{self, Health, Judgement, StandbyKind};

use super::{Claim, Node, Role, SeatJudgement, Slot, merge::View};
use crate::render::{judgement, plain};

/// What one detector says of the node.
type Said<'a> = (u8, &'a v1::NodeStatus);

/// All nodes by name; fills in the epochs that holders claim.
pub(super) fn merge(views: &[View<'_>], slots: &mut [Slot]) -> Vec<Node> {
    let names: BTreeSet<&str> =
        views.iter().flat_map(|(_, view)| view.nodes.iter().map(|node| node.node.as_str())).collect();
    let of = |name: &str| -> Vec<Said<'_>> {
        let said = views.iter().flat_map(|(seat, view)| view.nodes.iter().map(|node| (*seat, node)));
        said.filter(|(_, node)| node.node == name).collect()
    };
    names.into_iter().filter_map(|name| node(name, &of(name), slots)).collect()
}

fn node(name: &str, said: &[Said<'_>], slots: &mut [Slot]) -> Option<Node> {
    // What the node says of itself is newest where it was heard last.
    let (_, newest) = said.iter().min_by(|one, other| one.1.silent_ms.total_cmp(&other.1.silent_ms))?;
    let name = plain(name);
    let claims: Vec<_> =
        newest.claims.iter().map(|claim| Claim { slot: claim.slot, epoch: claim.epoch }).collect();
    let mut held = Vec::new();
    for slot in slots.iter_mut().filter(|slot| slot.holder.as_deref() == Some(&*name)) {
        held.push(slot.slot);
        slot.epoch = claims.iter().find(|claim| claim.slot == slot.slot).map(|claim| claim.epoch);
    }
    // Observers judge too, but where seats do, theirs is what counts.
    let seats: Vec<Said<'_>> = said.iter().copied().filter(|(seat, _)| *seat > 0).collect();
    let judges = if seats.is_empty() { said } else { &seats };
    let verdict = most(judges);
    let health = newest.health();
    let maintenance = said.iter().any(|(_, node)| node.maintenance);
    let role = if !held.is_empty() {
        Role::Active
    } else if maintenance
        || matches!(verdict, Judgement::Failed | Judgement::Unhealthy)
        || health == Health::Unhealthy
    {
        Role::Out
    } else {
        Role::Standby
    };
    let details = newest.details.clone().unwrap_or_default();
    Some(Node {
        node: name,
        role,
        slots: held,
        claims,
        judgement: judgement(verdict),
        judgements: dissent(judges),
        phi: median(judges.iter().map(|(_, node)| node.phi).collect()),
        silent_ms: newest.silent_ms,
        health: match health {
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
            Health::Starting => "starting",
            Health::Unspecified => "unknown",
        },
        ready: newest.ready,
        reason: plain(&details.reason),
        standby: match newest.standby() {
            StandbyKind::Hot => "hot",
            StandbyKind::Warm => "warm",
            StandbyKind::Cold => "cold",
            StandbyKind::Unspecified => "unknown",
        },
        priority: newest.priority,
        maintenance,
        damped: 2 * judges.iter().filter(|(_, node)| node.damped).count() > judges.len(),
        address: plain(&details.address),
        phase: plain(&details.phase),
    })
}

/// From well to badly.
fn badness(judgement: Judgement) -> u8 {
    match judgement {
        Judgement::Unspecified => 0,
        Judgement::Alive => 1,
        Judgement::Suspect => 2,
        Judgement::Unhealthy => 3,
        Judgement::Failed => 4,
    }
}

/// What most say; the worst of equally many.
fn most(judges: &[Said<'_>]) -> Judgement {
    let count = |wanted: Judgement| judges.iter().filter(|(_, node)| node.judgement() == wanted).count();
    let all = judges.iter().map(|(_, node)| node.judgement());
    all.max_by_key(|judgement| (count(*judgement), badness(*judgement))).unwrap_or(Judgement::Unspecified)
}

fn dissent(judges: &[Said<'_>]) -> Vec<SeatJudgement> {
    if judges.windows(2).all(|pair| pair[0].1.judgement() == pair[1].1.judgement()) {
        return Vec::new();
    }
    let one = |(seat, node): &Said<'_>| SeatJudgement {
        seat: (*seat).into(),
        judgement: judgement(node.judgement()),
    };
    judges.iter().map(one).collect()
}

/// The middle one, the higher of two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
