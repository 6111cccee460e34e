//! A takeover step by step.

use understudy_wire::v1::{Step, StepOutcome, Takeover};

use super::plain;

/// One line a moment, in their order, offsets from the last heartbeat of the old holder; indented.
pub(crate) fn timeline(takeover: &Takeover) -> String {
    let mut moments: Vec<(f64, String)> = vec![(0.0, zero(takeover))];
    if let Some(suspected) = takeover.suspected_ms {
        moments.push((suspected, "suspected".to_owned()));
    }
    moments.extend(grants(takeover));
    let quorum = format!("{} has the quorum, epoch {}", plain(&takeover.node), takeover.epoch);
    moments.push((takeover.quorum_ms, quorum));
    moments.extend(takeover.steps.iter().map(|step| (end(step), in_words(step))));
    moments.push((takeover.serving_ms, serving(takeover)));
    // Stable, and blind to what adding offsets does to the last bits: what happened within a microsecond stays in its
    // causal order.
    let micros = |at: f64| (at * 1e3).round();
    moments.sort_by(|one, other| micros(one.0).total_cmp(&micros(other.0)));
    moments.into_iter().map(|(at, text)| format!("  {at:>9.1} ms  {text}\n")).collect()
}

/// Steps of a demotion or of a failed takeover, in their order.
pub(super) fn steps(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("  {:>9.1} ms  {}\n", end(step), in_words(step))).collect()
}

fn zero(takeover: &Takeover) -> String {
    match &*takeover.previous {
        "" => "first grant".to_owned(),
        previous => format!("last heartbeat of {}", plain(previous)),
    }
}

/// Seats that granted within the same tenth of a millisecond share a line.
fn grants(takeover: &Takeover) -> Vec<(f64, String)> {
    let mut sorted: Vec<_> = takeover.grants.iter().map(|grant| (grant.at_ms, grant.seat)).collect();
    sorted.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    let mut lines: Vec<(f64, Vec<String>)> = Vec::new();
    for (at, seat) in sorted {
        match lines.last_mut() {
            Some((known, seats)) if format!("{known:.1}") == format!("{at:.1}") => {
                seats.push(seat.to_string());
            }
            _ => lines.push((at, vec![seat.to_string()])),
        }
    }
    let node = plain(&takeover.node);
    let line = |(at, seats): (f64, Vec<String>)| match &seats[..] {
        [seat] => (at, format!("seat {seat} grants to {node}")),
        seats => (at, format!("seats {} grant to {node}", seats.join(" "))),
    };
    lines.into_iter().map(line).collect()
}

fn end(step: &Step) -> f64 {
    step.started_ms + step.took_ms
}

fn in_words(step: &Step) -> String {
    let outcome = match step.outcome() {
        StepOutcome::Done | StepOutcome::Unspecified => "",
        StepOutcome::Already => ", already so",
        StepOutcome::Failed => ", FAILED",
        StepOutcome::TimedOut => ", TIMED OUT",
        StepOutcome::Skipped => ", skipped",
    };
    let detail = if step.detail.is_empty() { String::new() } else { format!(" {}", plain(&step.detail)) };
    // Below the resolution of the column a duration says nothing.
    let took = if step.took_ms >= 0.05 { format!(" ({:.1} ms)", step.took_ms) } else { String::new() };
    format!("{}{detail}{outcome}{took}", plain(&step.name))
}

fn serving(takeover: &Takeover) -> String {
    let predicted = match takeover.predicted_ms {
        Some(predicted) => format!(", {predicted:.1} ms predicted"),
        None => String::new(),
    };
    let took = takeover.serving_ms - takeover.quorum_ms;
    format!("{} serves, {took:.1} ms after the quorum{predicted}", plain(&takeover.node))
}
