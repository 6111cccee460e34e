//! The record of a takeover as lines: one moment each, in their order.

use understudy_wire::v1::{SeatGrant, Step, StepOutcome, Takeover};

/// Columns that a line may take.
pub(super) const WIDTH: usize = 100;
/// Columns of the times, and what stands between them and the text.
const TIMES: usize = 9;
const INDENT: usize = TIMES + 5;
/// Moments of one kind that are no further apart share a line: what happens to the IPv4 and the IPv6 address at
/// once reads as one.
const TOGETHER_MS: f64 = 2.0;

/// A line to be.
#[derive(Debug, Clone, PartialEq)]
struct Moment {
    at_ms: f64,
    /// What happened, and to what: equal ones that are close share a line, their objects side by side.
    kind: String,
    objects: Vec<String>,
    took_ms: f64,
}

impl Moment {
    fn new(at_ms: f64, kind: impl Into<String>) -> Self {
        Self { at_ms, kind: kind.into(), objects: Vec::new(), took_ms: 0.0 }
    }

    fn text(&self) -> String {
        let text = self.kind.replace("{}", &self.objects.join(" and "));
        // Below the resolution of the column a duration says nothing.
        if self.took_ms >= 0.05 { format!("{text} ({:.1} ms)", self.took_ms) } else { text }
    }
}

/// The lines of a takeover, each ended by a newline; times in milliseconds since the last heartbeat of the old
/// holder. `phi` is how much a detector suspected it, where one said so.
pub(super) fn timeline(takeover: &Takeover, phi: Option<f64>) -> String {
    let mut moments = vec![Moment::new(0.0, zero(takeover))];
    if let Some(suspected) = takeover.suspected_ms {
        let phi = phi.map(|phi| format!(" (phi {phi:.1})")).unwrap_or_default();
        moments.push(Moment::new(suspected, format!("suspected{phi}")));
    }
    moments.extend(grants(takeover));
    moments.push(Moment::new(takeover.quorum_ms, quorum(takeover)));
    moments.extend(takeover.steps.iter().map(|step| moment(step, takeover)));
    moments.push(Moment::new(takeover.serving_ms, serving(takeover)));
    // Stable: what happened at one time stays in its causal order.
    moments.sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
    merge(moments).iter().map(|moment| line(moment.at_ms, &moment.text())).collect()
}

/// A time and what happened then; long text goes on below itself.
pub(super) fn line(at_ms: f64, text: &str) -> String {
    let time = format!("{at_ms:>TIMES$.1} ms  ");
    format!("{time}{}\n", wrap(text, INDENT, WIDTH))
}

/// Breaks text between words, so that with `indent` columns before every line it stays within `width`.
pub(super) fn wrap(text: &str, indent: usize, width: usize) -> String {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a first");
        if line.is_empty() {
            line.push_str(word);
        } else if indent + line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

fn merge(moments: Vec<Moment>) -> Vec<Moment> {
    let mut merged: Vec<Moment> = Vec::new();
    for moment in moments {
        // Not only the last one: address, gate and announcement of two VIPs alternate.
        let same = merged.iter_mut().rev().find(|known| {
            known.kind == moment.kind
                && !known.objects.is_empty()
                && moment.at_ms - known.at_ms <= TOGETHER_MS
        });
        match same {
            Some(known) => {
                known.objects.extend(moment.objects);
                known.took_ms = known.took_ms.max(moment.took_ms);
            }
            None => merged.push(moment),
        }
    }
    merged
}

fn zero(takeover: &Takeover) -> String {
    match &*takeover.previous {
        "" => "first grant".to_owned(),
        previous => format!("last heartbeat of {}", plain(previous)),
    }
}

/// Grants that are close share a line, which tells when all of them were there; never across the quorum.
fn grants(takeover: &Takeover) -> Vec<Moment> {
    let mut grants = takeover.grants.clone();
    grants.sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
    let late = |grant: &SeatGrant| grant.at_ms > takeover.quorum_ms;
    let chunks =
        grants.chunk_by(|one, other| other.at_ms - one.at_ms <= TOGETHER_MS && late(one) == late(other));
    let node = plain(&takeover.node);
    let moment = |chunk: &[SeatGrant]| {
        let mut seats: Vec<u32> = chunk.iter().map(|grant| grant.seat).collect();
        seats.sort_unstable();
        let seats: Vec<String> = seats.iter().map(u32::to_string).collect();
        let (last, too) = match chunk.last() {
            Some(last) => (last.at_ms, if late(last) { " too" } else { "" }),
            None => (0.0, ""),
        };
        let text = match &seats[..] {
            [seat] => format!("seat {seat} grants to {node}{too}"),
            seats => format!("seats {} grant to {node}{too}", seats.join(" ")),
        };
        Moment::new(last, text)
    };
    chunks.map(moment).collect()
}

fn quorum(takeover: &Takeover) -> String {
    let Takeover { node, epoch, cause, .. } = takeover;
    format!("{} has the quorum, epoch {epoch} ({})", plain(node), plain(cause))
}

fn serving(takeover: &Takeover) -> String {
    let predicted = match takeover.predicted_ms {
        Some(predicted) => format!(", {predicted:.1} ms predicted"),
        None => String::new(),
    };
    let took = takeover.serving_ms - takeover.quorum_ms;
    format!("{} serves, {took:.1} ms after the quorum{predicted}", plain(&takeover.node))
}

fn moment(step: &Step, takeover: &Takeover) -> Moment {
    let detail = plain(&step.detail);
    let good = matches!(step.outcome(), StepOutcome::Done | StepOutcome::Unspecified);
    let (kind, object) = match (&*step.name, good) {
        ("add address", true) => ("address {} added".to_owned(), detail),
        ("open gate", true) => ("gate open {}".to_owned(), detail),
        ("announce", true) => ("announced {}".to_owned(), detail),
        ("DNS", true) => (format!("DNS {{}}, epoch {}", takeover.epoch), detail),
        ("verify", true) => seen_by(&detail, &plain(&takeover.node)),
        (name, _) => (format!("{} {{}}{}", plain(name), outcome(step.outcome())), detail),
    };
    let objects = if object.is_empty() { Vec::new() } else { vec![object] };
    let kind = if objects.is_empty() { kind.replace(" {}", "") } else { kind };
    Moment { objects, took_ms: step.took_ms, ..Moment::new(step.started_ms + step.took_ms, kind) }
}

/// `web-b web-c behind 10.77.0.100` becomes `web-b web-c see <node> behind 10.77.0.100`.
fn seen_by(detail: &str, node: &str) -> (String, String) {
    match detail.split_once(" behind ") {
        Some((witnesses, vip)) => {
            let sees = if witnesses.contains(' ') { "see" } else { "sees" };
            (format!("{witnesses} {sees} {node} behind {{}}"), vip.to_owned())
        }
        None => ("verified {}".to_owned(), detail.to_owned()),
    }
}

fn outcome(outcome: StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Done | StepOutcome::Unspecified => "",
        StepOutcome::Already => ", already so",
        StepOutcome::Failed => ", FAILED",
        StepOutcome::TimedOut => ", TIMED OUT",
        StepOutcome::Skipped => ", skipped",
    }
}

/// Text of another process without the characters that would steer a terminal, or be taken for a place to fill.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() || matches!(char, '{' | '}') { ' ' } else { char }).collect()
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
