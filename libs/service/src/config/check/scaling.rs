//! Sizes, targets and templates of groups that are scaled. The rules check themselves (`understudy_scaling`); here each
//! finding gets its place.

use std::time::Duration;

use understudy_wire::GroupId;

use super::Checker;
use crate::config::{
    group::Group,
    scaling::{Driver, Scaling, Template},
    schema::Config,
};

/// Longest that one call of a driver may take: it holds its place among the calls under way.
const MAX_CALL: Duration = Duration::from_secs(600);

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
            template(name, scaling, checker);
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

fn template(name: &GroupId, scaling: &Scaling, checker: &mut Checker<'_>) {
    let base = format!("group.{name}.scaling");
    let key = format!("{base}.template");
    let Some(template) = &scaling.template else {
        if !checker.doubtful(&[&key]) {
            let message = format!(
                "missing; nothing can be started without it; add such as [{key}] driver = \"docker\", image = \"web:1\""
            );
            checker.refuse(&key, message);
        }
        return;
    };
    if template.timeout.is_zero() || template.timeout > MAX_CALL {
        checker.refuse(&format!("{key}.timeout"), "must be above 0 and at most 10min; 30s is usual");
    }
    for (part, driver, needed, given) in parts(template) {
        let key = format!("{key}.{part}");
        if driver != template.driver && given {
            let message =
                format!("belongs to the driver \"{}\", not to \"{}\"", driver.name(), template.driver.name());
            checker.refuse(&key, message);
        } else if driver == template.driver
            && !given
            && let Some(example) = needed
        {
            let message =
                format!("missing; the driver \"{}\" needs it, such as {part} = {example}", driver.name());
            checker.refuse(&key, message);
        }
    }
    if template.driver == Driver::Kubernetes {
        stateful_set(name, template, &key, checker);
    }
}

/// The names of members are those of pods, so the workload must be one whose pods have lasting names, and the group's.
fn stateful_set(group: &GroupId, template: &Template, key: &str, checker: &mut Checker<'_>) {
    let wanted = format!("statefulset/{group}");
    if !template.workload.is_empty() && template.workload != wanted {
        let kind = template.workload.split('/').next().unwrap_or_default();
        let why = if kind == "statefulset" {
            format!(
                "members are named {group}-1, {group}-2, ..., and a StatefulSet names its pods after itself"
            )
        } else {
            "only the pods of a StatefulSet have lasting names, and members must".to_owned()
        };
        checker.refuse(&format!("{key}.workload"), format!("must be {wanted:?}: {why}"));
    }
    let label = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    if !template.namespace.chars().all(label) {
        checker.refuse(&format!("{key}.namespace"), "must be lower-case letters, digits and hyphens");
    }
}

/// Every key of a template: whose it is, an example where that driver needs it, and whether it says something.
fn parts(template: &Template) -> [(&'static str, Driver, Option<&'static str>, bool); 12] {
    let text = |text: &str| !text.is_empty();
    let program = |command: &[String]| command.first().is_some_and(|program| !program.is_empty());
    [
        ("image", Driver::Docker, Some("\"web:1\""), text(&template.image)),
        ("command", Driver::Docker, None, !template.command.is_empty()),
        ("env", Driver::Docker, None, !template.env.is_empty()),
        ("networks", Driver::Docker, None, !template.networks.is_empty()),
        ("service", Driver::Swarm, Some("\"web\""), text(&template.service)),
        ("namespace", Driver::Kubernetes, Some("\"default\""), text(&template.namespace)),
        ("workload", Driver::Kubernetes, Some("\"statefulset/web\""), text(&template.workload)),
        ("kubeconfig", Driver::Kubernetes, None, text(&template.kubeconfig)),
        ("start", Driver::Exec, Some("[\"/usr/local/bin/start-member\"]"), program(&template.start)),
        ("remove", Driver::Exec, Some("[\"/usr/local/bin/remove-member\"]"), program(&template.remove)),
        ("restart", Driver::Exec, None, program(&template.restart)),
        ("list", Driver::Exec, Some("[\"/usr/local/bin/list-members\"]"), program(&template.list)),
    ]
}
