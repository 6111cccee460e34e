//! Sizes and targets of groups that are scaled. The rules check themselves (`understudy_scaling`); here each finding gets
//! its place.

use understudy_wire::GroupId;

use super::Checker;
use crate::config::{group::Group, scaling::Scaling, schema::Config};

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    for (group, problem) in config.scaling_rules().problems() {
        match group {
            None => checker.refuse(&format!("autoscaler.{}", problem.key), problem.why),
            Some(group) => {
                let key = format!("group.{group}.scaling");
                let dotted = if problem.key.is_empty() { key } else { format!("{key}.{}", problem.key) };
                checker.refuse(&dotted, problem.why);
            }
        }
    }
    leader(config, checker);
    for (name, group) in &config.groups {
        if let Some(scaling) = &group.scaling {
            sizes(name, group, scaling, checker);
        }
    }
}

fn leader(config: &Config, checker: &mut Checker<'_>) {
    let Some(name) = &config.autoscaler.group else { return };
    let key = "autoscaler.group";
    let Some(group) = config.groups.get(name) else {
        let known: Vec<_> = config.groups.keys().map(GroupId::as_str).collect();
        return checker.refuse(key, format!("must be a group of this file (known: {})", known.join(", ")));
    };
    if group.slots.iter().any(|slot| !slot.vips.is_empty() || !slot.names.is_empty()) {
        checker.refuse(
            key,
            "must be a group without VIPs and names: its slot elects a leader and serves nobody",
        );
    } else if group.scaling.is_some() {
        checker.refuse(key, "must not be scaled itself, since the autoscaler cannot replace its own leader");
    }
}

fn sizes(name: &GroupId, group: &Group, scaling: &Scaling, checker: &mut Checker<'_>) {
    let key = format!("group.{name}.scaling");
    let (min, max) = (scaling.min.unwrap_or(group.active), scaling.max.unwrap_or(group.active));
    let (active, own) = (format!("group.{name}.active"), [format!("{key}.min"), format!("{key}.max")]);
    if min <= max && !(min..=max).contains(&group.active) && !checker.doubtful(&[&own[0], &own[1]]) {
        checker.refuse(&active, format!("must be from {key}.min ({min}) to {key}.max ({max})"));
    }
    let warnings = group.scaling_rules().map(|rules| rules.warnings()).unwrap_or_default();
    for warning in warnings {
        match warning.key.as_str() {
            // M belongs to the group, which says the same of groups that are not scaled.
            "standby" => checker.warn(&format!("group.{name}.standby"), warning.why),
            below => checker.warn(&format!("{key}.{below}"), warning.why),
        }
    }
}
