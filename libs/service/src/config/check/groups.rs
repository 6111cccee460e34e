//! Sizes, checks, hooks and damping of groups.

use std::time::Duration;

use understudy_detection::{FlapConfig, FlapConfigError};
use understudy_wire::GroupId;

use super::{Checker, Seen};
use crate::config::{
    group::{Check, CheckKind, Group, Hook, ProcessRef, SignalSource},
    schema::Config,
    types::Endpoint,
};

/// Most slots of one group: every heartbeat carries the epoch of each, in a message of at most 64 KiB.
const MAX_ACTIVE: u16 = 1000;

/// Longest that a hook may take, and longest half-life.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Longest name of a process that the kernel keeps (proc(5), TASK_COMM_LEN).
const MAX_COMM: usize = 15;

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    if config.groups.is_empty() {
        checker.warn("group", "no group is configured, so nothing is kept up; add such as [group.web]");
    }
    for (name, group) in &config.groups {
        let key = format!("group.{name}");
        sizes(name, group, &key, checker);
        checks(group, &key, checker);
        signals(group, &key, checker);
        hooks(group, &key, checker);
        flap(group, &key, checker);
    }
}

fn sizes(name: &GroupId, group: &Group, key: &str, checker: &mut Checker<'_>) {
    if !(1..=MAX_ACTIVE).contains(&group.active) {
        checker.refuse(&format!("{key}.active"), format!("must be from 1 to {MAX_ACTIVE}"));
        return;
    }
    if group.most_active() > MAX_ACTIVE {
        let message = format!("must be at most {MAX_ACTIVE}, the most slots that a group can have");
        checker.refuse(&format!("{key}.scaling.max"), message);
        return;
    }
    if group.standby == 0 && group.scaling.is_none() {
        let message =
            format!("group {name} has no standby: when its active fails, nobody takes over; use at least 1");
        checker.warn(&format!("{key}.standby"), message);
    }
    if !checker.doubtful(&[&format!("{key}.slot"), &format!("{key}.active")]) {
        slot_count(group, key, checker);
    }
    let others = u32::from(group.active) + u32::from(group.standby) - 1;
    let sure = !checker.doubtful(&[&format!("{key}.active"), &format!("{key}.standby")]);
    if sure && group.witnesses.is_some_and(|witnesses| u32::from(witnesses) > others) {
        let message =
            format!("must be at most {others}, the other nodes of the group (active + standby - 1)");
        checker.refuse(&format!("{key}.witnesses"), message);
    }
}

fn slot_count(group: &Group, key: &str, checker: &mut Checker<'_>) {
    let (written, active) = (group.slots.len(), usize::from(group.most_active()));
    let scaled = group.most_active() > group.active;
    let (size, most) = if scaled { ("scaling.max", " (scaling.max)") } else { ("active", "") };
    if written > active {
        let message = format!(
            "is one of {written} slots, but {key}.{size} is {active}: raise {size} to {written} or remove slots"
        );
        checker.refuse(&format!("{key}.slot[{active}]"), message);
    } else if written < active && group.slots.iter().any(|slot| !slot.vips.is_empty()) {
        let message = format!(
            "must have one [[{key}.slot]] for each of the {active} active nodes{most}, but has {written}; slots may be left \
             out only where no slot of the group has a VIP"
        );
        checker.refuse(&format!("{key}.slot"), message);
    }
}

fn checks(group: &Group, key: &str, checker: &mut Checker<'_>) {
    let mut names = Seen::new();
    for (index, check) in group.checks.iter().enumerate() {
        let key = format!("{key}.check[{index}]");
        if let Some(first) = names.earlier(check.name.clone(), &key) {
            let message = format!(
                "has the name {:?} of {}; give each check a name of its own",
                check.name,
                checker.written(&first)
            );
            checker.refuse(&format!("{key}.name"), message);
        }
        counts(check, &key, checker);
        target(&check.kind, &key, checker);
    }
}

fn counts(check: &Check, key: &str, checker: &mut Checker<'_>) {
    if check.name.is_empty() {
        checker.refuse(&format!("{key}.name"), "must not be empty");
    }
    if check.interval < Duration::from_millis(1) || check.interval > MAX_WAIT {
        checker.refuse(&format!("{key}.interval"), "must be from 1ms to 1 day");
    } else if check.timeout.is_zero() {
        checker.refuse(&format!("{key}.timeout"), "must be above 0, else every run fails");
    } else if check.timeout > check.interval && !checker.doubtful(&[&format!("{key}.interval")]) {
        let interval = humantime_serde::re::humantime::format_duration(check.interval);
        let message = format!("must be at most the check's interval ({interval}), else runs would pile up");
        checker.refuse(&format!("{key}.timeout"), message);
    }
    for (name, count) in [("rise", check.rise), ("fall", check.fall)] {
        if count == 0 {
            checker.refuse(&format!("{key}.{name}"), "must be at least 1");
        }
    }
}

fn target(kind: &CheckKind, key: &str, checker: &mut Checker<'_>) {
    match kind {
        CheckKind::Tcp { .. } | CheckKind::Grpc { .. } => {}
        CheckKind::Http { url } => {
            if !http_url(url) {
                let message = "must be http://host[:port]/path, such as \"http://127.0.0.1:8080/healthz\"";
                checker.refuse(&format!("{key}.url"), message);
            }
        }
        CheckKind::Exec { command } => program(command, &format!("{key}.command"), checker),
        CheckKind::Process { process: ProcessRef::Name(name) } => {
            if name.is_empty() || name.len() > MAX_COMM {
                let message =
                    "must have 1 to 15 characters, as in /proc/<pid>/comm, which the kernel cuts there";
                checker.refuse(&format!("{key}.process_name"), message);
            }
        }
        CheckKind::Process { process: ProcessRef::PidFile(file) } => {
            if file.as_os_str().is_empty() {
                checker.refuse(&format!("{key}.pid_file"), "must not be empty");
            }
        }
    }
}

/// Signals that every heartbeat carries already; a second value of one name would be a guess.
const USUAL: [&str; 5] = ["cpu", "memory", "pressure_cpu", "pressure_memory", "pressure_io"];

fn signals(group: &Group, key: &str, checker: &mut Checker<'_>) {
    let mut names = Seen::new();
    for (index, signal) in group.signals.iter().enumerate() {
        let key = format!("{key}.signal[{index}]");
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if signal.name.is_empty() || signal.name.len() > 63 || !signal.name.bytes().all(fits) {
            checker.refuse(
                &format!("{key}.name"),
                "must be letters, digits, '-' and '_', such as \"queue_depth\"",
            );
        } else if USUAL.contains(&signal.name.as_str()) {
            checker.refuse(&format!("{key}.name"), "is measured on every host already; give it another name");
        } else if let Some(first) = names.earlier(signal.name.clone(), &key) {
            let message = format!("is the name of {} already", checker.written(&first));
            checker.refuse(&format!("{key}.name"), message);
        }
        if signal.interval < Duration::from_millis(100) || signal.interval > Duration::from_secs(3600) {
            checker.refuse(&format!("{key}.interval"), "must be from 100ms to 1h; 1s is usual");
        }
        if signal.timeout.is_zero() || signal.timeout > signal.interval.max(Duration::from_secs(60)) {
            checker.refuse(&format!("{key}.timeout"), "must be above 0 and at most 1min or the interval");
        }
        match &signal.source {
            SignalSource::Command(command) => program(command, &format!("{key}.command"), checker),
            SignalSource::Metric { url, .. } if !http_url(url) => {
                let message = "must be http://host[:port]/path, such as \"http://127.0.0.1:9090/metrics\"";
                checker.refuse(&format!("{key}.url"), message);
            }
            SignalSource::Metric { metric, .. } if metric.is_empty() => {
                checker.refuse(&format!("{key}.metric"), "must be the name of a metric");
            }
            SignalSource::Metric { .. } => {}
        }
    }
}

fn http_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('#');
    // The check itself reads it so.
    let readable = url.parse::<axum::http::Uri>().is_ok();
    plain
        && readable
        && (authority.parse::<Endpoint>().is_ok() || format!("{authority}:80").parse::<Endpoint>().is_ok())
}

fn hooks(group: &Group, key: &str, checker: &mut Checker<'_>) {
    let hooks = &group.hooks;
    for (name, hook) in [
        ("start", &hooks.start),
        ("stop", &hooks.stop),
        ("promote", &hooks.promote),
        ("demote", &hooks.demote),
    ] {
        let Some(Hook { command, timeout }) = hook else { continue };
        let key = format!("{key}.hooks.{name}");
        program(command, &format!("{key}.command"), checker);
        if timeout.is_zero() || *timeout > MAX_WAIT {
            checker.refuse(&format!("{key}.timeout"), "must be above 0 and at most 1 day; 10s is usual");
        }
    }
}

fn program(command: &[String], key: &str, checker: &mut Checker<'_>) {
    if command.first().is_none_or(String::is_empty) {
        let message =
            "must hold a program and its arguments, such as [\"/usr/local/bin/promote\", \"--now\"]";
        checker.refuse(key, message);
    } else if command.iter().any(|part| part.contains('\0')) {
        checker.refuse(key, "must not hold NUL characters, which no program can be given");
    }
}

fn flap(group: &Group, key: &str, checker: &mut Checker<'_>) {
    let flap = &group.flap;
    if flap.half_life.is_zero() || flap.half_life > MAX_WAIT {
        checker.refuse(&format!("{key}.flap.half_life"), "must be above 0 and at most 1 day; 1m is usual");
    }
    for (name, value) in [("suppress", flap.suppress), ("reuse", flap.reuse)] {
        if !(value > 0.0 && value.is_finite()) {
            checker.refuse(&format!("{key}.flap.{name}"), "must be above 0; a failure adds 1000");
            return;
        }
    }
    if checker.doubtful(&[&format!("{key}.flap.suppress")]) {
        return;
    }
    // What detector and executor build of it; they refuse to start with what this refuses. The rule is the same with any
    // half-life, and one of 0 was told above.
    let half_life = flap.half_life.max(Duration::from_nanos(1));
    let message = match FlapConfig::new(half_life, flap.suppress, flap.reuse) {
        Err(FlapConfigError::Order { .. }) => {
            format!("must be below {key}.flap.suppress ({}), else nothing is ever damped", flap.suppress)
        }
        Err(FlapConfigError::Unreachable(_)) => format!(
            "must be above {} (a sixteenth of {key}.flap.suppress), since no penalty grows beyond what falls to reuse \
             within four half-lives, so nothing would ever be damped",
            flap.suppress / 16.0
        ),
        // Refused above, each at its own key.
        Err(FlapConfigError::NotPositive { .. } | FlapConfigError::Zero(_)) | Ok(_) => return,
    };
    checker.refuse(&format!("{key}.flap.reuse"), message);
}
