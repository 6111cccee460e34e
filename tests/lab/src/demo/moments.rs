//! What happened while the group was scaled, as lines: one moment each, in their order. Nothing here asks or prints.

use understudy_wire::v1::{
    ScalingAction, ScalingDecided, ScalingFinding, ScalingOutcome, ScalingRule, scaling_action::Kind,
};

use super::timeline::{line, plain};
use crate::Moment;

/// What happened, and when.
pub(super) type Happened = (Moment, String);

/// The lines, each ended by a newline; times in milliseconds since `zero`.
pub(super) fn lines(zero: Moment, mut happened: Vec<Happened>) -> String {
    // Stable: what happened at one time stays in its causal order.
    happened.sort_by_key(|(at, _)| *at);
    let text = |(at, what): &Happened| line(at.since(zero).as_secs_f64() * 1e3, &plain(what));
    happened.iter().map(text).collect()
}

/// What a decision did, finding by finding; what the load says stands in front where N changes. Nothing for a decision
/// to do nothing.
pub(super) fn told(decided: &ScalingDecided) -> Vec<String> {
    let acted = |finding: &&ScalingFinding| finding.outcome() == ScalingOutcome::Acted;
    let sizes = decided.findings.iter().filter(acted).flat_map(|finding| &finding.actions);
    let sized = sizes.into_iter().any(|action| matches!(action.kind, Some(Kind::Open(_) | Kind::Drain(_))));
    let load = |finding: &&ScalingFinding| sized && finding.rule() == ScalingRule::Load;
    let findings = decided.findings.iter().filter(|finding| load(finding) || acted(finding));
    findings.map(finding).collect()
}

fn finding(finding: &ScalingFinding) -> String {
    let reason = &finding.reason;
    let actions = finding.actions.iter().filter_map(|action| done(action, reason));
    let actions: Vec<String> = actions.collect();
    let actions = if actions.is_empty() { String::new() } else { format!(": {}", actions.join(", ")) };
    format!("{}: {reason}{actions}", rule(finding.rule()))
}

/// What an action does, unless the reason has named its node already.
fn done(action: &ScalingAction, reason: &str) -> Option<String> {
    let named = |node: &str| reason.split([' ', ',', ':']).any(|word| word == node);
    Some(match action.kind.as_ref()? {
        Kind::Open(slot) => format!("slot {slot} is opened"),
        Kind::Undrain(slot) => format!("slot {slot} is taken back"),
        Kind::Drain(slot) => format!("slot {slot} drains"),
        Kind::Close(slot) => format!("slot {slot} is closed"),
        Kind::Start(start) if named(&start.node) => return None,
        Kind::Start(start) => format!("{} is ordered", start.node),
        Kind::Restart(restart) => format!("{} is restarted", restart.node),
        Kind::Remove(node) if named(node) => return None,
        Kind::Remove(node) => format!("{node} is to go"),
    })
}

fn rule(rule: ScalingRule) -> &'static str {
    match rule {
        ScalingRule::Unspecified => "decided",
        ScalingRule::Steering => "steering",
        ScalingRule::Repair => "repair",
        ScalingRule::Budget => "budget",
        ScalingRule::Load => "load",
        ScalingRule::Redundancy => "redundancy",
        ScalingRule::ScaleOut => "scale-out",
        ScalingRule::ScaleIn => "scale-in",
        ScalingRule::Surplus => "surplus",
    }
}

/// The actions of a decision that a rule has given out.
pub(super) fn actions(decided: &ScalingDecided, rule: ScalingRule) -> impl Iterator<Item = &Kind> {
    let findings = decided.findings.iter().filter(move |finding| finding.rule() == rule);
    findings.flat_map(|finding| &finding.actions).filter_map(|action| action.kind.as_ref())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use understudy_wire::v1::ScalingStart;

    use super::*;

    fn found(rule: ScalingRule, outcome: ScalingOutcome, reason: &str, kinds: Vec<Kind>) -> ScalingFinding {
        let action = |kind| ScalingAction { key: String::new(), kind: Some(kind) };
        ScalingFinding {
            rule: rule.into(),
            outcome: outcome.into(),
            reason: reason.to_owned(),
            actions: kinds.into_iter().map(action).collect(),
        }
    }

    fn start(node: &str) -> Kind {
        Kind::Start(ScalingStart { node: node.to_owned(), ..ScalingStart::default() })
    }

    #[test]
    fn the_load_is_told_where_n_changes_and_what_waits_is_not() {
        let load = "connections 6.00 of 4.00 wants 2; 1 serve, 2 of 2 standbys are ready";
        let more = "2 active and 2 standby are wanted, 3 are there or on their way";
        let mut decided = ScalingDecided {
            findings: vec![
                found(ScalingRule::Load, ScalingOutcome::Nothing, load, vec![]),
                found(ScalingRule::Redundancy, ScalingOutcome::Acted, more, vec![start("web-2")]),
                found(ScalingRule::ScaleOut, ScalingOutcome::Acted, "N from 1 to 2", vec![Kind::Open(1)]),
            ],
            ..ScalingDecided::default()
        };
        let redundancy = format!("redundancy: {more}: web-2 is ordered");
        let out = "scale-out: N from 1 to 2: slot 1 is opened".to_owned();
        assert_eq!(told(&decided), [format!("load: {load}"), redundancy.clone(), out]);
        decided.findings[2].outcome = ScalingOutcome::Waits.into();
        decided.findings[2].actions.clear();
        assert_eq!(told(&decided), [redundancy]);
    }

    #[test]
    fn a_node_that_the_reason_names_is_not_named_again() {
        let reason = "web-c is broken (silent for 2 s): replaced by web-1";
        let repair = |node| found(ScalingRule::Repair, ScalingOutcome::Acted, reason, vec![start(node)]);
        assert_eq!(finding(&repair("web-1")), format!("repair: {reason}"));
        assert_eq!(finding(&repair("web-11")), format!("repair: {reason}: web-11 is ordered"));
    }

    #[test]
    fn moments_stand_in_their_order_below_each_other() {
        let zero = Moment::from_nanos(1_000_000_000);
        let at = |millis| zero + Duration::from_millis(millis);
        let happened = vec![(at(1500), "then {this}".to_owned()), (at(2), "first this".to_owned())];
        assert_eq!(lines(zero, happened), "      2.0 ms  first this\n   1500.0 ms  then  this \n");
    }
}
