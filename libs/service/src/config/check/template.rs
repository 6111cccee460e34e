//! Templates of members: every key belongs to a driver, and what an engine is told must mean the same on every host.

use std::time::Duration;

use understudy_wire::GroupId;

use super::Checker;
use crate::config::{
    schema::Config,
    template::{Container, Driver, PLACEHOLDERS, Template},
};

/// Longest that one call of a driver may take: it holds its place among the calls under way.
const MAX_CALL: Duration = Duration::from_secs(600);
/// What both drivers of an engine take.
const ENGINE: &[Driver] = &[Driver::Docker, Driver::Swarm];

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    for (name, group) in &config.groups {
        let Some(scaling) = &group.scaling else { continue };
        let key = format!("group.{name}.scaling.template");
        let Some(template) = &scaling.template else {
            if !checker.doubtful(&[&key]) {
                let message = format!(
                    "missing; nothing can be started without it; add such as [{key}] driver = \"docker\" and \
                     [{key}.workload] image = \"web:1\""
                );
                checker.refuse(&key, message);
            }
            continue;
        };
        if template.timeout.is_zero() || template.timeout > MAX_CALL {
            checker.refuse(&format!("{key}.timeout"), "must be above 0 and at most 10min; 30s is usual");
        }
        keys(&key, template, checker);
        if ENGINE.contains(&template.driver) {
            engine(&key, template, checker);
        }
        if template.driver == Driver::Kubernetes {
            stateful_set(name, template, &key, checker);
        }
    }
}

/// One key of a template.
struct Part {
    name: &'static str,
    drivers: &'static [Driver],
    /// An example where these drivers cannot do without it.
    needed: Option<&'static str>,
    /// Whether it says something.
    given: bool,
}

fn keys(key: &str, template: &Template, checker: &mut Checker<'_>) {
    let driver = template.driver;
    for Part { name, drivers, needed, given } in parts(template) {
        let key = format!("{key}.{name}");
        if given && !drivers.contains(&driver) {
            let names: Vec<_> = drivers.iter().map(|driver| format!("\"{}\"", driver.name())).collect();
            let (whose, s) = (names.join(" and "), if names.len() == 1 { "" } else { "s" });
            checker.refuse(&key, format!("belongs to the driver{s} {whose}, not to \"{}\"", driver.name()));
        } else if !given
            && drivers.contains(&driver)
            && let Some(example) = needed
        {
            let last = name.rsplit('.').next().unwrap_or(name);
            let message =
                format!("missing; the driver \"{}\" needs it, such as {last} = {example}", driver.name());
            checker.refuse(&key, message);
        }
    }
}

/// Every key of a template.
fn parts(template: &Template) -> Vec<Part> {
    use Driver::{Docker, Exec, Kubernetes, Swarm};
    let text = |text: &str| !text.is_empty();
    let program = |command: &[String]| command.first().is_some_and(|program| !program.is_empty());
    let part = |name, drivers, needed, given| Part { name, drivers, needed, given };
    let workload = template.workload.container();
    vec![
        part("endpoint", ENGINE, None, template.endpoint != Template::default_endpoint()),
        part("labels", ENGINE, None, !template.labels.is_empty()),
        part(
            "workload.image",
            ENGINE,
            Some("\"web:1\""),
            workload.is_some_and(|container| text(&container.image)),
        ),
        part("heartbeat", &[Docker], None, template.heartbeat.is_given()),
        part("heartbeat.image", &[Docker], Some("\"understudy/heartbeat\""), text(&template.heartbeat.image)),
        part("executor", &[Docker], None, template.executor.is_given()),
        part("executor.image", &[Docker], Some("\"understudy/executor\""), text(&template.executor.image)),
        part("service", &[Swarm], Some("\"web\""), text(&template.service)),
        part("namespace", &[Kubernetes], Some("\"default\""), text(&template.namespace)),
        part("workload", &[Kubernetes], Some("\"statefulset/web\""), text(template.workload.object())),
        part("kubeconfig", &[Kubernetes], None, text(&template.kubeconfig)),
        part("start", &[Exec], Some("[\"/usr/local/bin/start-member\"]"), program(&template.start)),
        part("remove", &[Exec], Some("[\"/usr/local/bin/remove-member\"]"), program(&template.remove)),
        part("restart", &[Exec], None, program(&template.restart)),
        part("list", &[Exec], Some("[\"/usr/local/bin/list-members\"]"), program(&template.list)),
    ]
}

/// The names of members are those of pods, so the workload must be one whose pods have lasting names, and the group's.
fn stateful_set(group: &GroupId, template: &Template, key: &str, checker: &mut Checker<'_>) {
    let (wanted, workload) = (format!("statefulset/{group}"), template.workload.object());
    if !workload.is_empty() && workload != wanted {
        let kind = workload.split('/').next().unwrap_or_default();
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

/// What the engine is told.
fn engine(key: &str, template: &Template, checker: &mut Checker<'_>) {
    let endpoint = &template.endpoint;
    let path = endpoint.strip_prefix("unix://").is_some_and(|path| path.starts_with('/'));
    let host = endpoint.strip_prefix("http://").is_some_and(|host| !host.is_empty() && !host.contains('/'));
    if !path && !host {
        let key = format!("{key}.endpoint");
        checker.refuse(&key, "must be unix:///path or http://host:port, such as unix:///var/run/docker.sock");
    }
    for (name, value) in &template.labels {
        braces(&format!("{key}.labels.{name}"), value, checker);
    }
    if let Some(workload) = template.workload.container() {
        container(&format!("{key}.workload"), workload, checker);
    }
    for (name, one) in [("heartbeat", &template.heartbeat), ("executor", &template.executor)] {
        let key = format!("{key}.{name}");
        container(&key, one, checker);
        if !one.networks.is_empty() {
            let key = format!("{key}.networks");
            checker
                .refuse(&key, "must be left out: heartbeat and executor share the network of the workload");
        }
    }
}

fn container(key: &str, container: &Container, checker: &mut Checker<'_>) {
    for (name, value) in &container.env {
        braces(&format!("{key}.env.{name}"), value, checker);
    }
    for (index, volume) in container.volumes.iter().enumerate() {
        let key = format!("{key}.volumes[{index}]");
        braces(&key, volume, checker);
        if let Err(why) = mount(volume) {
            checker.refuse(&key, why);
        }
    }
    for (index, folder) in container.tmpfs.iter().enumerate() {
        if !folder.starts_with('/') {
            let key = format!("{key}.tmpfs[{index}]");
            checker.refuse(
                &key,
                "must be an absolute path, with options behind a colon: /tmp:mode=1777,size=16m",
            );
        }
    }
    if !container.cpus.is_finite() || container.cpus < 0.0 {
        checker.refuse(&format!("{key}.cpus"), "must be a number of processors, such as 1.5; 0 is no limit");
    }
}

/// Why a volume cannot be mounted.
fn mount(volume: &str) -> Result<(), &'static str> {
    const SHAPE: &str = "must be source:target or source:target:ro, the target an absolute path";
    let mut parts = volume.split(':');
    let (Some(source), Some(target), mode, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SHAPE);
    };
    if !target.starts_with('/') || !matches!(mode, None | Some("ro" | "rw")) {
        return Err(SHAPE);
    }
    let name = without(source);
    let plain = |char: char| char.is_ascii_alphanumeric() || "_.-".contains(char);
    let named = !source.is_empty() && !source.starts_with(['.', '-']) && name.chars().all(plain);
    if !source.starts_with('/') && !named {
        return Err(
            "must begin with an absolute path of the host or the name of a volume: the engine knows no other \
                    folder that a path could be relative to",
        );
    }
    Ok(())
}

/// A text without its placeholders.
fn without(text: &str) -> String {
    PLACEHOLDERS.iter().fold(text.to_owned(), |text, placeholder| text.replace(placeholder, ""))
}

/// Refuses what looks like a placeholder and is none. Braces around anything but a word, such as JSON's, are text.
fn braces(key: &str, text: &str, checker: &mut Checker<'_>) {
    let rest = without(text);
    let word = |inside: &str| {
        !inside.is_empty() && inside.chars().all(|char| char.is_ascii_alphabetic() || char == '_')
    };
    let unknown =
        rest.split('{').skip(1).filter_map(|piece| piece.split_once('}')).find(|(name, _)| word(name));
    if let Some((name, _)) = unknown {
        let known = PLACEHOLDERS.join(", ");
        // No part of the value of a variable is shown: it may be a password.
        let word = if key.contains(".env.") { "a word in braces".to_owned() } else { format!("{{{name}}}") };
        checker.refuse(key, format!("{word} stands for nothing; known here: {known}"));
    }
}
