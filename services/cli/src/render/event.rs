//! One event for people: when, where, what; a takeover with its steps.

use understudy_bus::events::StoredEvent;
use understudy_wire::{
    EventBody,
    v1::{
        Demoted, DnsUpdated, MaintenanceChanged, NodeJudged, ScalingDecided, ScalingFinding, ScalingOutcome,
        SeatTrouble, SlotVacant, SwitchoverAsked, Takeover, TakeoverFailed, TakeoverProved,
    },
};

use super::{judgement, plain, span, takeover};

/// One event, ended by a newline; `time` is what stands in front. Bodies that cannot be read are shown as they came.
pub(crate) fn event(time: &str, event: &StoredEvent) -> String {
    let (line, steps) = match describe(event) {
        Ok(described) => described,
        Err(error) => {
            (format!("{} (unreadable: {error}): {}", plain(event.kind()), raw(event)), String::new())
        }
    };
    format!("{}  {}  {line}\n{steps}", plain(time), plain(event.attribute("subject")))
}

fn raw(event: &StoredEvent) -> String {
    plain(&String::from_utf8_lossy(&event.body))
}

type Described = Result<(String, String), serde_json::Error>;

/// The line, and the steps below it.
fn describe(event: &StoredEvent) -> Described {
    fn read<B: EventBody>(event: &StoredEvent, describe: impl Fn(&B) -> (String, String)) -> Described {
        event.body().map(|body| describe(&body))
    }
    fn line<B: EventBody>(event: &StoredEvent, describe: impl Fn(&B) -> String) -> Described {
        event.body().map(|body| (describe(&body), String::new()))
    }
    match event.kind() {
        NodeJudged::KIND => line(event, judged),
        SlotVacant::KIND => line(event, |body: &SlotVacant| {
            let SlotVacant { slot, highest_epoch, seat, reason, .. } = body;
            format!("slot {slot} is VACANT after epoch {highest_epoch}, says seat {seat}{}", because(reason))
        }),
        Takeover::KIND => read(event, |body: &Takeover| (taken_over(body), takeover::timeline(body))),
        TakeoverFailed::KIND => read(event, |body: &TakeoverFailed| {
            let TakeoverFailed { slot, node, epoch, step, reason, steps, .. } = body;
            let (node, step) = (plain(node), plain(step));
            let line =
                format!("slot {slot}: takeover by {node} FAILED at {step}, epoch {epoch}{}", because(reason));
            (line, takeover::steps(steps))
        }),
        Demoted::KIND => read(event, |body: &Demoted| {
            let Demoted { slot, node, epoch, reason, steps, .. } = body;
            let line = format!("slot {slot}: {} gave up epoch {epoch}{}", plain(node), because(reason));
            (line, takeover::steps(steps))
        }),
        TakeoverProved::KIND => line(event, proved),
        DnsUpdated::KIND => line(event, dns),
        MaintenanceChanged::KIND => line(event, |body: &MaintenanceChanged| {
            let by = if body.by.is_empty() { String::new() } else { format!(", by {}", plain(&body.by)) };
            format!("maintenance of {} {}{by}", plain(&body.node), if body.on { "on" } else { "off" })
        }),
        SwitchoverAsked::KIND => line(event, switchover),
        SeatTrouble::KIND => line(event, |body: &SeatTrouble| {
            format!("seat {} in trouble{}", body.seat, because(&body.reason))
        }),
        ScalingDecided::KIND => read(event, scaled),
        kind => Ok((format!("{}: {}", plain(kind), raw(event)), String::new())),
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {}", plain(reason)) }
}

fn judged(body: &NodeJudged) -> String {
    let (node, word) = (plain(&body.node), judgement(body.judgement()));
    format!("{node} is {word} (phi {:.1}), says seat {}{}", body.phi, body.seat, because(&body.reason))
}

fn taken_over(body: &Takeover) -> String {
    let from =
        if body.previous.is_empty() { String::new() } else { format!("{} -> ", plain(&body.previous)) };
    let Takeover { slot, epoch, .. } = body;
    let (node, cause, after) = (plain(&body.node), plain(&body.cause), span(body.serving_ms));
    format!("slot {slot}: {from}{node}, {cause}, epoch {epoch}, serving after {after}")
}

fn proved(body: &TakeoverProved) -> String {
    let TakeoverProved { slot, vip, witnesses, announcements, after_ms, .. } = body;
    let (after, seen_by) = (span(*after_ms), plain(&witnesses.join(" ")));
    let (node, vip) = (plain(&body.node), plain(vip));
    format!(
        "slot {slot}: {node} seen behind {vip} by {seen_by} after {after} and {announcements} announcements"
    )
}

fn dns(body: &DnsUpdated) -> String {
    let DnsUpdated { slot, epoch, answer, attempts, after_ms, reason, .. } = body;
    let (name, server) = (plain(&body.name), plain(&body.server));
    let tries = if *attempts == 1 { "try" } else { "tries" };
    format!(
        "slot {slot}: DNS {name} at {server}: {}, epoch {epoch}, {attempts} {tries}, {}{}",
        plain(answer),
        span(*after_ms),
        because(reason)
    )
}

fn switchover(body: &SwitchoverAsked) -> String {
    let to = if body.to.is_empty() { "the first in line".to_owned() } else { plain(&body.to) };
    let answer = if body.accepted { "accepted" } else { "REFUSED" };
    let (slot, from) = (body.slot, plain(&body.from));
    format!("slot {slot}: switchover from {from} to {to} {answer}{}", because(&body.reason))
}

/// The sizes, and below them every rule that has something to say.
fn scaled(body: &ScalingDecided) -> (String, String) {
    let inputs = body.inputs.clone().unwrap_or_default();
    let (leader, ready, standby) = (plain(&body.leader), inputs.ready, inputs.standby);
    let line = format!(
        "autoscaler {leader}: {} active, {} wanted, {ready} of {standby} standbys ready",
        inputs.serving, inputs.wish
    );
    let told = body.findings.iter().filter(|finding| finding.outcome() != ScalingOutcome::Nothing);
    (line, told.map(finding).collect())
}

fn finding(finding: &ScalingFinding) -> String {
    let rule =
        finding.rule().as_str_name().trim_start_matches("SCALING_RULE_").to_lowercase().replace('_', "-");
    let outcome = finding.outcome().as_str_name().trim_start_matches("SCALING_OUTCOME_").to_lowercase();
    format!("       {rule} {outcome}: {}\n", plain(&finding.reason))
}

/// A decision with every rule's word, also of those that do nothing.
pub(crate) fn decision(body: &ScalingDecided) -> String {
    let (line, _) = scaled(body);
    let findings: String = body.findings.iter().map(finding).collect();
    format!("       {line}\n{findings}")
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
