//! `understudy status`: headlines first, then the tables behind them.

use super::{
    Style, span,
    table::{Field, Tone, field, table},
};
use crate::overview::{Detector, Group, Node, Overview, Role, Seats, Slot};

/// The whole picture as text.
pub(crate) fn status(overview: &Overview, style: Style) -> String {
    let headlines = overview.groups.iter().map(|group| group.headline.clone() + "\n");
    let mut text: String = headlines.collect();
    if overview.groups.is_empty() {
        text += "no groups are configured\n";
    }
    for group in &overview.groups {
        text += &format!("\n{}: {} active, {} standby wanted\n", group.group, group.active, group.standby);
        text += &slots(group, style);
        if group.nodes.is_empty() {
            text += "  no node was heard\n";
        } else {
            text += "\n";
            text += &nodes(group, style);
        }
    }
    text + "\n" + &seats(&overview.cluster, &overview.seats, style)
}

fn slots(group: &Group, style: Style) -> String {
    let row = |slot: &Slot| -> Vec<Field> {
        let tone = if slot.holder.is_some() { Tone::Good } else { Tone::Bad };
        let holder = slot.holder.clone().unwrap_or_else(|| "-".to_owned());
        let epoch = slot.epoch.map_or_else(|| format!("({})", slot.highest_epoch), |epoch| epoch.to_string());
        let votes = (slot.votes_in_words(), if slot.disagree { Tone::Warn } else { Tone::Plain });
        vec![
            field(slot.slot.to_string()),
            (holder, tone),
            field(epoch),
            votes,
            field(slot.vips.join(" ")),
            field(slot.names.join(" ")),
        ]
    };
    let rows: Vec<_> = group.slots.iter().map(row).collect();
    table(style, &["slot", "holder", "epoch", "grants", "VIPs", "names"], &rows)
}

fn nodes(group: &Group, style: Style) -> String {
    let row = |node: &Node| -> Vec<Field> {
        vec![
            field(&*node.node),
            role(node),
            judged(node),
            field(format!("{:.1}", node.phi)),
            field(span(node.silent_ms)),
            (node.health.to_owned(), if node.health == "healthy" { Tone::Plain } else { Tone::Warn }),
            (
                if node.ready { "yes" } else { "no" }.to_owned(),
                if node.ready { Tone::Plain } else { Tone::Warn },
            ),
            field(node.standby),
            field(node.priority.to_string()),
            notes(node),
        ]
    };
    let header = ["node", "role", "judged", "phi", "heard", "health", "ready", "kind", "priority", "notes"];
    table(style, &header, &group.nodes.iter().map(row).collect::<Vec<_>>())
}

fn role(node: &Node) -> Field {
    let numbers = || node.slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match node.role {
        Role::Active => (format!("active, slot {}", numbers()), Tone::Good),
        Role::Standby => field("standby"),
        Role::Out => ("out".to_owned(), Tone::Bad),
    }
}

fn judged(node: &Node) -> Field {
    let tone = match node.judgement {
        "alive" => Tone::Plain,
        "suspect" | "unknown" => Tone::Warn,
        _ => Tone::Bad,
    };
    (node.judgement.to_owned(), tone)
}

/// What does not fit a column: why, and what an operator must know.
fn notes(node: &Node) -> Field {
    let mut notes = Vec::new();
    // A claim that no quorum backs: the node is cut off, or is about to be given the slot.
    for claim in node.claims.iter().filter(|claim| !node.slots.contains(&claim.slot)) {
        notes.push(format!("claims slot {} (epoch {}) without a quorum", claim.slot, claim.epoch));
    }
    if node.maintenance {
        notes.push("maintenance".to_owned());
    }
    if node.damped {
        notes.push("damped: fell often, is chosen last".to_owned());
    }
    if ["taking over", "releasing"].contains(&node.phase.as_str()) {
        notes.push(node.phase.clone());
    } else if node.phase.is_empty() {
        notes.push("no executor".to_owned());
    }
    if !node.reason.is_empty() {
        notes.push(node.reason.clone());
    }
    if !node.judgements.is_empty() {
        let each = node.judgements.iter().map(|said| match said.seat {
            0 => format!("observer {}", said.judgement),
            seat => format!("{seat} {}", said.judgement),
        });
        notes.push(format!("seats differ: {}", each.collect::<Vec<_>>().join(", ")));
    }
    let tone = if notes.is_empty() { Tone::Plain } else { Tone::Warn };
    (notes.join("; "), tone)
}

fn seats(cluster: &str, seats: &Seats, style: Style) -> String {
    let assumed = if seats.assumed { " (assumed: no configuration says how many; see --seats)" } else { "" };
    let head = format!(
        "{cluster}: {} of {} seats grant, {} needed{assumed}\n",
        seats.granting, seats.expected, seats.quorum
    );
    let mut rows: Vec<(u32, Vec<Field>)> =
        seats.detectors.iter().map(|detector| (detector.seat, answered(detector, seats))).collect();
    let missing = |seat: &u8| -> (u32, Vec<Field>) {
        let state = ("no answer".to_owned(), Tone::Bad);
        (u32::from(*seat), vec![field(seat.to_string()), state, field(""), field("")])
    };
    rows.extend(seats.missing.iter().map(missing));
    // Observers last.
    rows.sort_by_key(|(seat, _)| (*seat == 0, *seat));
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    head + &table(style, &["seat", "state", "late", "direct path"], &rows)
}

fn answered(detector: &Detector, seats: &Seats) -> Vec<Field> {
    let tone = match detector.state.as_str() {
        "granting" => Tone::Good,
        "observing" => Tone::Plain,
        "conflict" => Tone::Bad,
        _ => Tone::Warn,
    };
    let beyond = detector.seat > u32::from(seats.expected);
    let note = if beyond { " (not counted: more seats than configured)" } else { "" };
    let seat = if detector.seat == 0 { "-".to_owned() } else { detector.seat.to_string() };
    vec![
        field(seat),
        (format!("{}{note}", detector.state), tone),
        field(span(detector.late_ms)),
        field(&*detector.address),
    ]
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
