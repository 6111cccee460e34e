//! What concerns groups that are scaled.

use std::time::Duration;

use crate::{MINIMAL, errors, good, warnings};

/// A group with a load, line by line; the tests below spoil one line each.
pub(crate) const SCALED: &str = r#"cluster = "demo"
nats.servers = ["nats://a:4222", "nats://b:4222", "nats://c:4222"]
[autoscaler]
interval = "5s"
group = "scaler"
[group.scaler]
active = 1
standby = 1
[group.web]
active = 2
standby = 1
[[group.web.slot]]
vips = ["10.77.0.100/24"]
[[group.web.slot]]
vips = ["10.77.0.101/24"]
[[group.web.slot]]
vips = ["10.77.0.102/24"]
[group.web.scaling]
min = 1
max = 3
spread = "rack"
start_up = "30s"
window_in = "2m"
[group.web.scaling.repair]
budget = 5
[[group.web.scaling.target]]
signal = "cpu"
value = 0.7
[[group.web.scaling.shared]]
signal = "db_connections"
full = 0.9
[[group.web.scaling.schedule]]
cron = "0 8 * * 1-5"
lasts = "10h"
active = 2
[group.web.scaling.forecast]
season = "1day"
[group.web.scaling.template]
driver = "docker"
labels = { "org.example.of" = "{cluster}" }
[group.web.scaling.template.workload]
image = "web:1"
env = { MODE = "member", NAME = "{node}", LIST = "{\"a\": {}}" }
volumes = ["/srv/{group}/{node}:/in:ro", "data-{node}:/data"]
tmpfs = ["/tmp:size=16m"]
networks = ["front"]
cpus = 1.5
[group.web.scaling.template.heartbeat]
image = "understudy/heartbeat"
[group.web.scaling.template.executor]
image = "understudy/executor"
stop_timeout = "20s"
"#;

/// The one error that SCALED gives with one piece replaced.
#[track_caller]
pub(crate) fn one(old: &str, new: &str, expected: &str) {
    assert!(SCALED.contains(old), "{old:?} is not in the file");
    assert_eq!(errors(&SCALED.replacen(old, new, 1), &[]), [expected]);
}

#[test]
fn everything_is_read() {
    let config = good(SCALED, &[("UNDERSTUDY_GROUP__WEB__SCALING__STEP_OUT", "7")]);
    let rules = config.scaling_rules();
    assert_eq!(rules.groups.len(), 1);
    let web = rules.groups.values().next().unwrap();
    assert_eq!((web.min, web.max, web.standby), (1, 3, 1));
    assert_eq!((web.start_up, web.load.window_in), (Duration::from_secs(30), Duration::from_secs(120)));
    assert_eq!((web.repair.budget, web.repair.restart_for), (5, Duration::from_secs(30)));
    assert_eq!((web.load.targets[0].signal.as_str(), web.load.targets[0].value), ("cpu", 0.7));
    assert_eq!((web.load.shared[0].full, web.load.step_out), (0.9, 7));
    assert_eq!((web.schedules[0].cron(), web.schedules[0].active), ("0 8 * * 1-5", 2));
    assert_eq!(web.forecast.unwrap().season, Duration::from_secs(86_400));
    let group = config.groups.values().nth(1).unwrap();
    assert_eq!((group.slots.len(), group.most_active()), (3, 3));
    assert_eq!(warnings(SCALED), [""; 0]);
    assert!(good(MINIMAL, &[]).scaling_rules().groups.is_empty());
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    one(
        "min = 1",
        "min = 4",
        "understudy.toml:19: group.web.scaling.min = 4: must be at most max (3), else no size would be right; lower min \
         or raise max",
    );
    let small =
        SCALED.replacen("min = 1", "min = 2", 1).replacen("active = 2\nstandby", "active = 1\nstandby", 1);
    assert_eq!(
        errors(&small, &[]),
        [
            "understudy.toml:10: group.web.active = 1: must be from group.web.scaling.min (2) to group.web.scaling.max (3)"
        ]
    );
    one(
        "max = 3",
        "max = 1001",
        "understudy.toml:20: group.web.scaling.max = 1001: must be at most 1000, the most slots that a group can have",
    );
    one(
        "[[group.web.slot]]\nvips = [\"10.77.0.102/24\"]\n",
        "",
        "understudy.toml:12: group.web.slot = [{...}, {...}]: must have one [[group.web.slot]] for each of the 3 active nodes (scaling.max), \
         but has 2; slots may be left out only where no slot of the group has a VIP",
    );
}

#[test]
fn targets_and_schedules_that_cannot_be_are_refused() {
    let zero = "must be above 0: the load is divided by it, and no number of members brings it to 0";
    one(
        "value = 0.7",
        "value = 0",
        &format!("understudy.toml:28: group.web.scaling.target[0].value = 0: {zero}"),
    );
    one(
        "value = 0.7",
        "value = nan",
        &format!("understudy.toml:28: group.web.scaling.target[0].value = NaN: {zero}"),
    );
    one(
        "value = 0.7",
        "value = -0.5",
        &format!("understudy.toml:28: group.web.scaling.target[0].value = -0.5: {zero}"),
    );
    one(
        "full = 0.9",
        "full = nan",
        "understudy.toml:31: group.web.scaling.shared[0].full = NaN: must be above 0, else nothing is ever scaled out",
    );
    one(
        "value = 0.7",
        "value = 0.7\nvalues = 1",
        "understudy.toml:29: group.web.scaling.target[0].values = 1: unknown key; known here: signal, value",
    );
    let text = SCALED.replacen("0 8 * * 1-5", "8 o'clock", 1);
    let found = errors(&text, &[]);
    assert_eq!(found.len(), 1);
    let start = "understudy.toml:33: group.web.scaling.schedule[0].cron = \"8 o'clock\": must be five cron fields (minute \
                 hour day month weekday, UTC), such as \"0 8 * * 1-5\": ";
    assert!(found[0].starts_with(start), "{}", found[0]);
    one(
        "lasts = \"10h\"\nactive = 2",
        "lasts = \"10h\"\nactive = 9",
        "understudy.toml:35: group.web.scaling.schedule[0].active = 9: must be from min (1) to max (3)",
    );
}

#[test]
fn one_vip_belongs_to_one_group() {
    let text = format!("{SCALED}[group.db]\n[[group.db.slot]]\nvips = [\"10.77.0.102/24\"]\n");
    let found = errors(&text, &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("understudy.toml:17: group.web.slot[2].vips[0] = \"10.77.0.102/24\": "),
        "{found:?}"
    );
    assert!(found[0].contains("group.db.slot[0].vips[0]"), "{found:?}");
}

#[test]
fn the_leader_needs_a_group_of_its_own() {
    one(
        "group = \"scaler\"",
        "group = \"web\"",
        "understudy.toml:5: autoscaler.group = \"web\": must be a group without VIPs and names: its slot elects a leader and \
         serves nobody",
    );
    one(
        "group = \"scaler\"",
        "group = \"scalers\"",
        "understudy.toml:5: autoscaler.group = \"scalers\": must be a group of this file (known: scaler, web)",
    );
    one(
        "interval = \"5s\"",
        "interval = \"10ms\"",
        "understudy.toml:4: autoscaler.interval = \"10ms\": must be from 1s to 1h; 5s is usual",
    );
}

#[test]
fn what_costs_something_is_warned_of() {
    assert_eq!(
        warnings(&SCALED.replacen("standby = 1\n[[", "standby = 0\n[[", 1)),
        [
            "understudy.toml:11: group.web.standby = 0: without a standby a failed member is missed until its replacement \
             has started (30 s), and a scale-out helps only after that time; use at least 1"
        ]
    );
}

#[test]
fn signals_are_read_and_those_that_cannot_be_are_refused() {
    let text = format!(
        "{SCALED}[[group.web.signal]]\nname = \"in_flight\"\nurl = \"http://127.0.0.1:8080/metrics\"\nmetric = \"busy\"\n\
         [[group.web.signal]]\nname = \"queue\"\ncommand = [\"/usr/local/bin/queue\"]\n"
    );
    let config = good(&text, &[]);
    let signals = &config.groups.values().nth(1).unwrap().signals;
    assert_eq!(signals.len(), 2);
    assert_eq!((signals[0].interval, signals[1].timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    let refused = |old: &str, new: &str| {
        assert!(text.contains(old), "{old:?} is not in the file");
        errors(&text.replacen(old, new, 1), &[]).join("\n")
    };
    assert!(refused("\"in_flight\"", "\"cpu\"").contains("is measured on every host already"));
    assert!(refused("\"queue\"", "\"in_flight\"").contains("is the name of group.web.signal[0] already"));
    assert!(refused("\"queue\"", "\"a b\"").contains("must be letters, digits"));
    assert!(refused("http://127", "ftp://127").contains("must be http://host[:port]/path"));
    assert!(refused("metric = \"busy\"\n", "").contains("needs url and metric, or command, and not both"));
    assert!(refused("[\"/usr/local/bin/queue\"]", "[]").contains("must hold a program"));
    let zero = refused("command = [\"/usr", "timeout = \"0s\"\ncommand = [\"/usr");
    assert!(zero.contains("must be above 0"), "{zero}");
}
