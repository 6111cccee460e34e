//! Whether one more may fail, and the group in one sentence.

use super::{Group, Role, Seats, Slot, Tenancy};

/// Fills in what follows from slots, nodes and seats.
pub(super) fn judge(group: &mut Group, seats: &Seats) {
    let ready = |node: &&super::Node| {
        node.role == Role::Standby
            && node.judgement == "alive"
            && node.health == "healthy"
            && node.ready
            && node.claims.is_empty()
    };
    group.ready_standbys = group.nodes.iter().filter(ready).map(|node| node.node.clone()).collect();
    let obstacles = obstacles(group, seats);
    group.can_lose_one_more = obstacles.is_empty();
    group.because = if obstacles.is_empty() {
        vec![format!("{} of {} seats grant and {} are needed", seats.granting, seats.expected, seats.quorum)]
    } else {
        obstacles
    };
    group.headline = headline(group);
}

/// What would keep a slot from being served after one more loss.
fn obstacles(group: &Group, seats: &Seats) -> Vec<String> {
    let mut found = Vec::new();
    for slot in group.slots.iter().filter(|slot| slot.holder.is_none()) {
        found.push(match slot.state {
            Tenancy::Unknown => format!("nobody knows who holds slot {}", slot.slot),
            _ => format!("slot {} has no holder", slot.slot),
        });
    }
    if group.ready_standbys.is_empty() {
        found.push("no standby is ready".to_owned());
    }
    let (granting, expected, quorum) = (seats.granting, seats.expected, seats.quorum);
    if granting < quorum {
        found.push(format!("only {granting} of {expected} seats grant and {quorum} are needed"));
    } else if granting == quorum {
        found.push(format!("only {granting} of {expected} seats grant and as many are needed"));
    }
    found
}

/// `web: slot 0 on web-a since epoch 1017; 2 ready standbys; can lose one more: yes, because ...`
fn headline(group: &Group) -> String {
    let slots: Vec<_> = group.slots.iter().map(|slot| one_slot(group, slot)).collect();
    let standbys = match group.ready_standbys.len() {
        0 => "no ready standby".to_owned(),
        1 => "1 ready standby".to_owned(),
        many => format!("{many} ready standbys"),
    };
    let (answer, because) = (if group.can_lose_one_more { "yes" } else { "no" }, group.because.join(", "));
    format!(
        "{}: {}; {standbys}; can lose one more: {answer}, because {because}",
        group.group,
        slots.join(", ")
    )
}

fn one_slot(group: &Group, slot: &Slot) -> String {
    let number = slot.slot;
    let Some(holder) = &slot.holder else {
        return match slot.state {
            Tenancy::Unknown => format!("slot {number}: holder unknown ({})", slot.votes_in_words()),
            _ => format!("slot {number} has NO HOLDER ({})", slot.votes_in_words()),
        };
    };
    let phase = group.node(holder).map_or("", |node| node.phase.as_str());
    match (slot.epoch, phase) {
        (Some(epoch), "taking over" | "releasing") => {
            format!("slot {number} on {holder}, {phase}, epoch {epoch}")
        }
        (Some(epoch), _) => format!("slot {number} on {holder} since epoch {epoch}"),
        (None, _) => format!("slot {number} granted to {holder}, which has not claimed it yet"),
    }
}
