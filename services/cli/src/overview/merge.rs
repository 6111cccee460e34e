//! Many answers to one picture. Only a quorum of seats says who holds a slot (rules R2, R4).

use std::collections::{BTreeMap, BTreeSet};

use understudy_wire::v1;

use super::{Detector, Group, Overview, Seats, Slot, Tenancy, Vote, node, redundancy};
use crate::{render::plain, session::Expected};

/// Whom a grant is for (rule R2): two processes of one node are two holders.
type HolderKey = (String, Vec<u8>, u64);

/// One detector's answer, by the seat that counts: 0 for observers and for seats that should not be.
pub(super) struct Answer<'a> {
    pub(super) seat: u8,
    presence: &'a v1::Presence,
    reply: &'a v1::StatusReply,
}

/// One detector's view of one group.
pub(super) type View<'a> = (u8, &'a v1::GroupStatus);

/// Merges the detectors' answers; those of another deployment and those without a sender are left out.
pub(crate) fn merge(cluster: &str, expected: &Expected, replies: &[v1::StatusReply]) -> Overview {
    let highest = replies.iter().filter_map(|reply| Some(reply.presence.as_ref()?.seat)).max().unwrap_or(0);
    let seats = seat_count(expected, highest);
    let answers = answers(cluster, seats, replies);
    let quorum = seats / 2 + 1;
    let answered: BTreeSet<u8> = answers.iter().map(|answer| answer.seat).filter(|seat| *seat > 0).collect();
    let detectors: Vec<_> = answers.iter().map(|answer| detector(expected, answer.presence)).collect();
    let grants = |seat: &&u8| granting(&detectors, **seat);
    let seats = Seats {
        expected: seats,
        assumed: expected.assumed,
        quorum,
        granting: u8::try_from(answered.iter().filter(grants).count()).unwrap_or(u8::MAX),
        missing: (1..=seats).filter(|seat| !answered.contains(seat)).collect(),
        detectors,
    };
    let names: BTreeSet<&str> = answers
        .iter()
        .flat_map(|answer| answer.reply.groups.iter().map(|group| group.group.as_str()))
        .collect();
    let groups = names.into_iter().map(|name| group(name, &answers, &seats)).collect();
    Overview { cluster: cluster.to_owned(), seats, groups }
}

/// S is odd (section 1): where nobody said it, an even highest seat means that one more is missing.
fn seat_count(expected: &Expected, highest: u32) -> u8 {
    if !expected.assumed {
        return expected.seats;
    }
    let highest = u8::try_from(highest).unwrap_or(u8::MAX);
    expected.seats.max(highest | u8::from(highest > 0))
}

/// One answer a process, seats by number, observers last.
fn answers<'a>(cluster: &str, seats: u8, replies: &'a [v1::StatusReply]) -> Vec<Answer<'a>> {
    let mut known = BTreeMap::new();
    for reply in replies {
        let Some(presence) = reply.presence.as_ref().filter(|presence| presence.cluster == cluster) else {
            continue;
        };
        let seat = u8::try_from(presence.seat).ok().filter(|seat| *seat <= seats).unwrap_or(0);
        let order = (seat == 0, presence.seat, presence.incarnation);
        known.insert(order, Answer { seat, presence, reply });
    }
    known.into_values().collect()
}

fn detector(expected: &Expected, presence: &v1::Presence) -> Detector {
    let late = u128::from(presence.late_nanos) > expected.interval.as_nanos();
    let state = if late && presence.state == "granting" { "late" } else { &presence.state };
    Detector {
        seat: presence.seat,
        incarnation: presence.incarnation,
        address: plain(&presence.address),
        state: plain(state),
        late_ms: nanos_to_ms(presence.late_nanos),
    }
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds to show")]
fn nanos_to_ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Every process on the seat may grant, and there is only one: two live ones refuse to (section 3).
fn granting(detectors: &[Detector], seat: u8) -> bool {
    let mut here = detectors.iter().filter(|detector| detector.seat == u32::from(seat));
    let one = here.next().is_some_and(|detector| ["granting", "late"].contains(&detector.state.as_str()));
    one && here.next().is_none()
}

fn group(name: &str, answers: &[Answer<'_>], seats: &Seats) -> Group {
    let of = |answer: &Answer<'_>| answer.reply.groups.iter().position(|group| group.group == name);
    let views: Vec<View<'_>> =
        answers.iter().filter_map(|answer| Some((answer.seat, &answer.reply.groups[of(answer)?]))).collect();
    let active = views.iter().map(|(_, view)| view.active).max().unwrap_or(0);
    let standby = views.iter().map(|(_, view)| view.standby).max().unwrap_or(0);
    let numbers: BTreeSet<u32> =
        views.iter().flat_map(|(_, view)| view.slots.iter().map(|slot| slot.slot)).collect();
    let mut slots: Vec<Slot> = numbers.into_iter().map(|number| slot(number, &views, seats)).collect();
    let nodes = node::merge(&views, &mut slots);
    let mut group = Group {
        group: plain(name),
        active,
        standby,
        headline: String::new(),
        ready_standbys: Vec::new(),
        can_lose_one_more: false,
        because: Vec::new(),
        slots,
        nodes,
    };
    redundancy::judge(&mut group, seats);
    group
}

fn slot(number: u32, views: &[View<'_>], seats: &Seats) -> Slot {
    let of = |view: &v1::GroupStatus| view.slots.iter().position(|slot| slot.slot == number);
    let all: Vec<(u8, &v1::SlotStatus)> =
        views.iter().filter_map(|(seat, view)| Some((*seat, &view.slots[of(view)?]))).collect();
    let mut by_seat: BTreeMap<u8, Vec<&v1::SlotStatus>> = BTreeMap::new();
    for (seat, status) in all.iter().filter(|(seat, _)| *seat > 0) {
        by_seat.entry(*seat).or_default().push(status);
    }
    let ballots: Vec<(Vote, Option<HolderKey>)> =
        by_seat.iter().map(|(seat, statuses)| ballot(*seat, statuses)).collect();
    let mut counts: BTreeMap<&HolderKey, u8> = BTreeMap::new();
    for key in ballots.iter().filter_map(|(_, key)| key.as_ref()) {
        *counts.entry(key).or_default() += 1;
    }
    let holder = counts.iter().find(|(_, count)| **count >= seats.quorum).map(|(key, _)| plain(&key.0));
    let answered = u8::try_from(ballots.len()).unwrap_or(u8::MAX);
    let state = match &holder {
        Some(_) => Tenancy::Held,
        None if answered >= seats.quorum => Tenancy::Vacant,
        None => Tenancy::Unknown,
    };
    // Addresses and names are configuration: any answer will do.
    let any = all.first().map(|(_, status)| *status);
    let texts = |list: &[String]| list.iter().map(|text| plain(text)).collect();
    Slot {
        slot: number,
        state,
        holder,
        epoch: None,
        highest_epoch: all.iter().map(|(_, status)| status.highest_epoch).max().unwrap_or(0),
        disagree: ballots.windows(2).any(|pair| pair[0].1 != pair[1].1),
        vips: any.map(|status| texts(&status.vips)).unwrap_or_default(),
        names: any.map(|status| texts(&status.names)).unwrap_or_default(),
        votes: ballots.into_iter().map(|(vote, _)| vote).collect(),
    }
}

/// What one seat says; nothing when two processes sit on it and differ.
fn ballot(seat: u8, statuses: &[&v1::SlotStatus]) -> (Vote, Option<HolderKey>) {
    let key = |status: &v1::SlotStatus| {
        let holder = status.granted.as_ref()?;
        Some((holder.node.clone(), holder.boot.clone(), holder.incarnation))
    };
    let first = statuses.first().and_then(|status| key(status));
    let agreed = first.filter(|first| statuses.iter().all(|status| key(status).as_ref() == Some(first)));
    let remaining = statuses.iter().map(|status| status.remaining_ms).fold(f64::INFINITY, f64::min);
    let vote = Vote {
        seat,
        node: agreed.as_ref().map(|key| plain(&key.0)),
        remaining_ms: if agreed.is_some() && remaining.is_finite() { remaining } else { 0.0 },
        highest_epoch: statuses.iter().map(|status| status.highest_epoch).max().unwrap_or(0),
    };
    (vote, agreed)
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
