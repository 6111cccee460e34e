//! Every kind of mistake in a configuration is told with its file, line, key, value and what would be right.

use std::{path::Path, time::Duration};

use understudy_service::config::{
    CheckKind, Config, Origin, ProcessRef, RecordAddress, Report, check_round_trip, validate,
};

/// The ten lines of the README.
const MINIMAL: &str = r#"cluster = "demo"
nats.servers = ["nats://10.77.0.11:4222", "nats://10.77.0.12:4222", "nats://10.77.0.13:4222"]

[group.web]
[[group.web.slot]]
vips = ["10.77.0.100/24"]

[[group.web.check]]
kind = "http"
url = "http://127.0.0.1:8080/healthz"
"#;

/// Everything that can be said, line by line; the tests below spoil one line each.
const FULL: &str = r#"cluster = "demo"
[nats]
servers = ["nats://10.77.0.11:4222", "tls://nats-2:4222", "10.77.0.13"]
ping_interval = "50ms"
user = "agent"
password = "hunter2"
[lease]
interval = "100ms"
duration = "300ms"
max = "1s"
drift = 0.01
[detector]
seats = 3
listen = "0.0.0.0:7410"
advertise = "10.77.0.21:7410"
direct = ["10.77.0.21:7410", "[fd77::22]:7410", "detector-3:7410"]
suspect_phi = 8
window = 200
deviation_floor = "20ms"
[dns]
servers = ["10.77.0.31:53"]
zone = "ha.test."
ttl = "1s"
key = { name = "understudy.", algorithm = "hmac-sha256", secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQ=" }
[group.web]
active = 2
standby = 1
witnesses = 2
failback = "5s"
ports = ["tcp/80", "udp/53"]
[[group.web.slot]]
vips = ["10.77.0.100/24", "fd77::100/64"]
names = ["web.ha.test."]
[[group.web.slot]]
vips = ["10.77.0.101/24"]
names = ["web.ha.test"]
address = "node"
[[group.web.check]]
kind = "tcp"
address = "127.0.0.1:5432"
timeout = "50ms"
rise = 3
fall = 1
[[group.web.check]]
name = "database"
kind = "exec"
command = ["/usr/bin/pg_isready"]
interval = "1s"
[group.web.hooks]
promote = { command = ["/usr/local/bin/promote"], timeout = "3s" }
[group.web.flap]
half_life = "1m"
suppress = 2000
reuse = 750
[node]
name = "web-a"
group = "web"
interface = "eth0"
address = "10.77.0.41"
standby = "warm"
labels = { rack = "r1" }
[gate]
mark = "0x00400000"
[http]
listen = "127.0.0.1:9100"
[telemetry]
log = "info,understudy_lease=debug"
otlp = "http://127.0.0.1:4317"
[realtime]
priority = 10
"#;

fn examine(text: &str, env: &[(&str, &str)]) -> (Option<Config>, Report) {
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::examine_text(Some(("understudy.toml", text)), env.into_iter())
}

fn good(text: &str, env: &[(&str, &str)]) -> Config {
    let (config, report) = examine(text, env);
    config.unwrap_or_else(|| panic!("refused: {report:#?}"))
}

fn errors(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let (config, report) = examine(text, env);
    assert!(config.is_none(), "accepted:\n{text}");
    report.errors.iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let (config, report) = examine(text, &[]);
    assert!(config.is_some(), "refused: {report:#?}");
    report.warnings.iter().map(ToString::to_string).collect()
}

/// FULL with one piece replaced.
fn spoilt(old: &str, new: &str) -> String {
    assert_eq!(FULL.matches(old).count(), 1, "{old:?} must stand in the file once");
    FULL.replace(old, new)
}

#[test]
fn the_minimal_file_is_valid_and_says_nothing_doubtful() {
    let config = good(MINIMAL, &[]);
    assert_eq!(warnings(MINIMAL), Vec::<String>::new());
    assert_eq!(config.lease.duration, Duration::from_millis(300));
    assert_eq!(config.detector.deviation_floor(config.lease.interval), Duration::from_millis(20));
    let group = config.groups.values().next().unwrap();
    assert_eq!((group.active, group.standby, group.slots.len(), group.failback), (1, 1, 1, None));
    assert_eq!(group.slots[0].address, Some(RecordAddress::Vip));
    assert_eq!(
        (group.checks[0].name.as_str(), group.checks[0].timeout),
        ("http", Duration::from_millis(100))
    );
}

#[test]
fn the_full_file_is_valid_and_every_value_arrives() {
    let config = good(FULL, &[]);
    assert_eq!(warnings(FULL), Vec::<String>::new());
    assert_eq!(config.nats.servers.len(), 3);
    assert_eq!(config.nats.login().unwrap().unwrap().1.expose(), "hunter2");
    assert_eq!(config.detector.direct[1].to_string(), "[fd77::22]:7410");
    let dns = config.dns.as_ref().unwrap();
    assert_eq!(dns.key.as_ref().unwrap().bytes().unwrap(), b"secret secret secret");
    let member = config.member().unwrap();
    assert_eq!((member.name.as_str(), member.group_id.as_str()), ("web-a", "web"));
    let group = member.group;
    assert_eq!(group.failback, Some(Duration::from_secs(5)));
    assert_eq!(group.slots[0].vips[1].addr().to_string(), "fd77::100");
    assert_eq!(
        (group.slots[1].names[0].as_str(), group.slots[1].address),
        ("web.ha.test.", Some(RecordAddress::Node))
    );
    assert_eq!((group.checks[0].rise, group.checks[0].fall), (3, 1));
    assert!(
        matches!(&group.checks[1].kind, CheckKind::Exec { command } if command == &["/usr/bin/pg_isready"])
    );
    assert_eq!(group.hooks.promote.as_ref().unwrap().timeout, Duration::from_secs(3));
    assert_eq!(config.gate.mark, 0x0040_0000);
    assert_eq!(config.node.labels["rack"], "r1");
}

/// Spoils one piece of FULL and expects exactly one error, word for word.
#[track_caller]
fn one(old: &str, new: &str, expected: &str) {
    assert_eq!(errors(&spoilt(old, new), &[]), [expected], "{old:?} -> {new:?}");
}

#[test]
fn timing_that_cannot_work_is_refused() {
    one(
        "duration = \"300ms\"",
        "duration = \"150ms\"",
        "understudy.toml:9: lease.duration = \"150ms\": must be at least 2 x lease.interval (200ms), since a lease that \
         is renewed once an interval must outlive one lost heartbeat",
    );
    one(
        "duration = \"300ms\"",
        "duration = \"2s\"",
        "understudy.toml:9: lease.duration = \"2s\": must be at most lease.max (1s), since a seat that starts stays \
         silent only that long for the leases it has forgotten; shorten it or raise lease.max",
    );
    one(
        "interval = \"100ms\"\ndur",
        "interval = \"0ms\"\ndur",
        "understudy.toml:8: lease.interval = \"0ms\": must be at least 1ms, the resolution of the timers",
    );
    one(
        "max = \"1s\"",
        "max = \"3days\"",
        "understudy.toml:10: lease.max = \"3days\": must be at most 10m; failover is a matter of seconds",
    );
    for drift in ["0.1", "-0.01", "nan", "inf"] {
        one(
            "drift = 0.01",
            &format!("drift = {drift}"),
            &format!(
                "understudy.toml:11: lease.drift = {}: must be at least 0 and below 0.1 (10 %), as a bound on how wrong \
                 a clock's rate may be; 0.01 suits any clock that works",
                drift.replace("nan", "NaN")
            ),
        );
    }
    for seats in [0, 2, 4] {
        one(
            "seats = 3",
            &format!("seats = {seats}"),
            &format!(
                "understudy.toml:13: detector.seats = {seats}: must be odd (1, 3, 5, ...), since an even number \
                 survives no more failures than the odd one below it, and 0 can grant nothing"
            ),
        );
    }
    one(
        "ping_interval = \"50ms\"",
        "ping_interval = \"0s\"",
        "understudy.toml:4: nats.ping_interval = \"0s\": must be at least 1ms, the resolution of the timers",
    );
}

#[test]
fn a_default_that_does_not_fit_is_named_as_such() {
    let text = format!("{MINIMAL}[lease]\ninterval = \"200ms\"\n");
    assert_eq!(
        errors(&text, &[]),
        [
            "understudy.toml:11: lease.duration = \"300ms\" (default): must be at least 2 x lease.interval (400ms), since a \
         lease that is renewed once an interval must outlive one lost heartbeat"
        ]
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn values_of_the_wrong_kind_say_what_is_wanted() {
    let cases = [
        (
            "cluster = \"demo\"",
            "cluster = \"a.b\"",
            "1: cluster = \"a.b\": may hold letters, digits, '-' and '_' only",
        ),
        ("cluster = \"demo\"", "cluster = 123", "1: cluster = 123: must be a string in quotes"),
        ("seats = 3", "seats = 300", "13: detector.seats = 300: must be a whole number from 0 to 255"),
        ("seats = 3", "seats = \"3\"", "13: detector.seats = \"3\": must be a whole number from 0 to 255"),
        ("seats = 3", "seats = true", "13: detector.seats = true: must be a whole number from 0 to 255"),
        (
            "duration = \"300ms\"",
            "duration = \"300\"",
            "9: lease.duration = \"300\": must be a duration such as \"100ms\", \"5s\" or \"1m\"",
        ),
        (
            "duration = \"300ms\"",
            "duration = 300",
            "9: lease.duration = 300: must be a duration such as \"100ms\", \"5s\" or \"1m\"",
        ),
        (
            "listen = \"0.0.0.0:7410\"",
            "listen = \"detector:7410\"",
            "14: detector.listen = \"detector:7410\": must be an IP address and a port, such as \"127.0.0.1:9100\" or \
             \"[::1]:9100\"",
        ),
        (
            "\"[fd77::22]:7410\"",
            "\"fd77::22:7410\"",
            "16: detector.direct[1] = \"fd77::22:7410\": must be host:port, such as \"10.77.0.21:7410\", \
             \"[fd77::21]:7410\" or \"detector-1:7410\"",
        ),
        (
            "servers = [\"10.77.0.31:53\"]",
            "servers = \"10.77.0.31:53\"",
            "21: dns.servers = \"10.77.0.31:53\": must be a list in brackets",
        ),
        ("active = 2", "active = -1", "26: group.web.active = -1: must be a whole number from 0 to 65535"),
        (
            "failback = \"5s\"",
            "failback = \"soon\"",
            "29: group.web.failback = \"soon\": must be \"never\" or a duration such as \"30s\"",
        ),
        (
            "\"udp/53\"",
            "\"53\"",
            "30: group.web.ports[1] = \"53\": must be a protocol and a port, such as \"tcp/80\" or \"udp/53\"",
        ),
        (
            "address = \"node\"",
            "address = \"host\"",
            "37: group.web.slot[1].address = \"host\": must be one of \"vip\", \"node\"",
        ),
        (
            "promote = { command = [\"/usr/local/bin/promote\"], timeout = \"3s\" }",
            "promote = \"/usr/local/bin/promote\"",
            "50: group.web.hooks.promote = \"/usr/local/bin/promote\": must be a table",
        ),
        (
            "address = \"10.77.0.41\"",
            "address = \"web-a\"",
            "59: node.address = \"web-a\": must be an IP address, such as \"10.77.0.11\" or \"fd77::11\"",
        ),
        (
            "standby = \"warm\"",
            "standby = \"tepid\"",
            "60: node.standby = \"tepid\": must be one of \"hot\", \"warm\", \"cold\"",
        ),
        (
            "labels = { rack = \"r1\" }",
            "labels = { rack = 1 }",
            "61: node.labels.rack = 1: must be a string in quotes",
        ),
        (
            "mark = \"0x00400000\"",
            "mark = \"bit 22\"",
            "63: gate.mark = \"bit 22\": must be a number with exactly one bit set, such as \"0x00400000\"",
        ),
        (
            "mark = \"0x00400000\"",
            "mark = 3",
            "63: gate.mark = 3: must have exactly one bit set, such as \"0x00400000\"; other bits belong to others",
        ),
        (
            "priority = 10",
            "priority = 100",
            "70: realtime.priority = 100: must be from 1 to 99, the range of SCHED_RR",
        ),
        (
            "otlp = \"http://127.0.0.1:4317\"",
            "otlp = \"127.0.0.1\"",
            "68: telemetry.otlp = \"127.0.0.1\": must be the collector's gRPC address, such as \"http://127.0.0.1:4317\"",
        ),
    ];
    for (old, new, expected) in cases {
        one(old, new, &format!("understudy.toml:{expected}"));
    }
    let log = errors(&spoilt("info,understudy_lease=debug", "info,=,"), &[]);
    assert!(
        log[0]
            .starts_with("understudy.toml:67: telemetry.log = \"info,=,\": must be a level such as \"info\""),
        "{log:?}"
    );
}

#[test]
fn unknown_keys_are_refused_with_the_known_ones() {
    one(
        "drift = 0.01",
        "drfit = 0.01",
        "understudy.toml:11: lease.drfit = 0.01: unknown key; known here: interval, duration, max, drift",
    );
    one(
        "half_life = \"1m\"",
        "halflife = \"1m\"",
        "understudy.toml:52: group.web.flap.halflife = \"1m\": unknown key; known here: half_life, suppress, reuse",
    );
    let text = errors(&format!("{FULL}[exektor]\n"), &[]);
    assert!(
        text[0].starts_with("understudy.toml:71: exektor: unknown key; known here: cluster, nats, "),
        "{text:?}"
    );
    assert_eq!(text.len(), 1);
}

#[test]
fn addresses_that_no_host_can_have_are_refused() {
    let cases = [
        ("10.77.0.100", "has no prefix length; write \"10.77.0.100/24\" (with the segment's own prefix)"),
        ("fd77::9", "has no prefix length; write \"fd77::9/64\" (with the segment's own prefix)"),
        ("web", "must be an address with prefix, such as \"10.77.0.100/24\" or \"fd77::100/64\""),
        ("10.77.0.0/24", "is the network 10.77.0.0/24 itself; write an address within it"),
        ("10.77.0.255/24", "is the broadcast address of 10.77.0.0/24; write another address of it"),
        ("fd77::/64", "is the network fd77::/64 itself; write an address within it"),
        ("10.77.0.9/0", "has the prefix length 0; write the segment's own, such as /24"),
        (
            "224.0.0.18/24",
            "is a multicast address, which no host can have; use a free address of the segment",
        ),
        ("127.0.0.9/8", "is a loopback address, which no host can have; use a free address of the segment"),
        (
            "0.0.0.0/24",
            "is the unspecified address, which no host can have; use a free address of the segment",
        ),
        (
            "255.255.255.255/32",
            "is the broadcast address, which no host can have; use a free address of the segment",
        ),
        ("10.77.0.41/24", "is this node's own address (node.address); a VIP must be an address of its own"),
        ("10.77.0.101/32", ""),
        ("10.77.0.102/32", ""),
        ("fd77::102/127", ""),
    ];
    for (vip, message) in cases {
        let text = spoilt("\"10.77.0.100/24\"", &format!("\"{vip}\""));
        match (vip, message) {
            ("10.77.0.101/32", _) => assert_eq!(
                errors(&text, &[]),
                ["understudy.toml:35: group.web.slot[1].vips[0] = \"10.77.0.101/24\": is the VIP of \
                 group.web.slot[0].vips[0] as well; an address belongs to one slot"]
            ),
            (_, "") => drop(good(&text, &[])),
            _ => assert_eq!(
                errors(&text, &[]),
                [format!("understudy.toml:32: group.web.slot[0].vips[0] = \"{vip}\": {message}")]
            ),
        }
    }
    let twice = format!("{FULL}[group.db]\n[[group.db.slot]]\nvips = [\"fd77::100/64\"]\n");
    assert_eq!(
        errors(&twice, &[]),
        [
            "understudy.toml:32: group.web.slot[0].vips[1] = \"fd77::100/64\": is the VIP of group.db.slot[0].vips[0] as well; \
         an address belongs to one slot"
        ]
    );
}

#[test]
fn names_need_a_zone_and_slots_need_something_to_guard() {
    one(
        "names = [\"web.ha.test.\"]",
        "names = [\"web.example.\"]",
        "understudy.toml:33: group.web.slot[0].names[0] = \"web.example.\": must lie in dns.zone (ha.test.), the only zone \
         that is updated",
    );
    let section = "[dns]\nservers = [\"10.77.0.31:53\"]\nzone = \"ha.test.\"\nttl = \"1s\"\nkey = { name = \"understudy.\", \
                   algorithm = \"hmac-sha256\", secret = \"c2VjcmV0IHNlY3JldCBzZWNyZXQ=\" }\n";
    let told = errors(&spoilt(section, ""), &[]);
    let remedy = "needs a [dns] section with servers, zone and key, since somebody must take the updates";
    assert_eq!(
        told,
        [
            format!("understudy.toml:28: group.web.slot[0].names = [\"web.ha.test.\"]: {remedy}"),
            format!("understudy.toml:31: group.web.slot[1].names = [\"web.ha.test\"]: {remedy}"),
        ]
    );
    let bare = spoilt("vips = [\"10.77.0.101/24\"]\n", "").replace("ports = [\"tcp/80\", \"udp/53\"]\n", "");
    assert_eq!(
        errors(&bare, &[]),
        [
            "understudy.toml:34: group.web.slot[1].names = [\"web.ha.test\"]: has names but no VIP, so the gate must guard \
         service ports; add such as ports = [\"tcp/80\"] to [group.web]"
        ]
    );
    one(
        "vips = [\"10.77.0.101/24\"]\nnames = [\"web.ha.test\"]\naddress = \"node\"",
        "address = \"vip\"",
        "understudy.toml:35: group.web.slot[1].address = \"vip\": needs vips in this slot; use address = \"node\" for \
         records that carry the holder's own address",
    );
    let other =
        format!("{FULL}[group.db]\nports = [\"tcp/5432\"]\n[[group.db.slot]]\nnames = [\"WEB.ha.test\"]\n");
    assert_eq!(
        errors(&other, &[]),
        [
            "understudy.toml:33: group.web.slot[0].names[0] = \"web.ha.test.\": is the name of group.db.slot[0].names[0] in \
         another group; a name belongs to one group"
        ]
    );
    one(
        "ttl = \"1s\"",
        "ttl = \"1500ms\"",
        "understudy.toml:23: dns.ttl = \"1500ms\": must be whole seconds, as records hold them, and below 2^31; 1s is usual here",
    );
}

#[test]
fn groups_need_as_many_slots_as_actives() {
    one(
        "active = 2\nstandby = 1",
        "active = 1\nstandby = 2",
        "understudy.toml:34: group.web.slot[1]: is one of 2 slots, but group.web.active is 1: raise active to 2 or remove \
         slots",
    );
    let more = errors(&spoilt("active = 2", "active = 3"), &[]);
    assert_eq!(more.len(), 1);
    assert!(more[0].ends_with(
        "must have one [[group.web.slot]] for each of the 3 active nodes, but has 2; slots may be left out only where no \
         slot of the group has a VIP"
    ), "{more:?}");
    one("active = 2", "active = 0", "understudy.toml:26: group.web.active = 0: must be from 1 to 1000");
    let config = good("cluster = \"demo\"\nnats.servers = [\"n\", \"m\"]\n[group.scaler]\nactive = 2\n", &[]);
    assert_eq!(config.groups.values().next().unwrap().slots.len(), 2);
    one(
        "witnesses = 2",
        "witnesses = 3",
        "understudy.toml:28: group.web.witnesses = 3: must be at most 2, the other nodes of the group (active + standby - 1)",
    );
    one(
        "[group.web]",
        "[group.\"web.eu\"]\n[group.web]",
        "understudy.toml:25: group.web.eu: may hold letters, digits, '-' and '_' only",
    );
}

#[test]
fn checks_take_the_keys_of_their_kind() {
    one(
        "address = \"127.0.0.1:5432\"",
        "address = \"127.0.0.1:5432\"\nurl = \"http://127.0.0.1/\"",
        "understudy.toml:41: group.web.check[0].url = \"http://127.0.0.1/\": does not belong to a check of kind \"tcp\", \
         which takes: address, name, kind, interval, timeout, rise, fall",
    );
    one(
        "address = \"127.0.0.1:5432\"",
        "",
        "understudy.toml:38: group.web.check[0]: a check of kind \"tcp\" needs address, such as address = \
         \"127.0.0.1:5432\"",
    );
    one(
        "kind = \"exec\"",
        "kind = \"ping\"",
        "understudy.toml:46: group.web.check[1].kind = \"ping\": must be one of \"tcp\", \"http\", \"grpc\", \"exec\", \
         \"process\"",
    );
    one(
        "kind = \"exec\"\n",
        "",
        "understudy.toml:44: group.web.check[1].kind: missing; must be one of \"tcp\", \"http\", \"grpc\", \"exec\", \
         \"process\"",
    );
    one(
        "command = [\"/usr/bin/pg_isready\"]",
        "command = []",
        "understudy.toml:47: group.web.check[1].command = []: must hold a program and its arguments, such as \
         [\"/usr/local/bin/promote\", \"--now\"]",
    );
    one(
        "timeout = \"50ms\"",
        "timeout = \"150ms\"",
        "understudy.toml:41: group.web.check[0].timeout = \"150ms\": must be at most the check's interval (100ms), else runs \
         would pile up",
    );
    one("rise = 3", "rise = 0", "understudy.toml:42: group.web.check[0].rise = 0: must be at least 1");
    one(
        "name = \"database\"",
        "name = \"tcp\"",
        "understudy.toml:45: group.web.check[1].name = \"tcp\": has the name \"tcp\" of group.web.check[0]; give each check \
         a name of its own",
    );
    let process = "kind = \"process\"\nprocess_name = \"nginx\"\npid_file = \"/run/nginx.pid\"";
    one(
        "kind = \"exec\"\ncommand = [\"/usr/bin/pg_isready\"]",
        process,
        "understudy.toml:44: group.web.check[1]: a check of kind \"process\" needs either pid_file or process_name",
    );
    let config = good(
        &spoilt(
            "kind = \"exec\"\ncommand = [\"/usr/bin/pg_isready\"]",
            "kind = \"process\"\nprocess_name = \"nginx\"",
        ),
        &[],
    );
    let kind = &config.groups.values().next().unwrap().checks[1].kind;
    assert_eq!(kind, &CheckKind::Process { process: ProcessRef::Name("nginx".into()) });
    let url = spoilt("kind = \"tcp\"\naddress = \"127.0.0.1:5432\"", "kind = \"http\"\nurl = \"https://x/\"");
    assert_eq!(
        errors(&url, &[]),
        [
            "understudy.toml:40: group.web.check[0].url = \"https://x/\": must be http://host[:port]/path, such as \
         \"http://127.0.0.1:8080/healthz\""
        ]
    );
}

#[test]
fn the_node_must_fit_its_group() {
    one(
        "group = \"web\"",
        "group = \"db\"",
        "understudy.toml:57: node.group = \"db\": must be a group of this file (known: web)",
    );
    one(
        "standby = \"warm\"",
        "standby = \"cold\"",
        "understudy.toml:60: node.standby = \"cold\": needs a start hook, since nothing else starts a cold workload; add \
         [group.web.hooks] start = { command = [...] }",
    );
    one(
        "name = \"web-a\"",
        "name = \"web.a\"",
        "understudy.toml:56: node.name = \"web.a\": may hold letters, digits, '-' and '_' only",
    );
    one(
        "name = \"web-a\"",
        "name = \"*\"",
        "understudy.toml:56: node.name = \"*\": may hold letters, digits, '-' and '_' only",
    );
    one(
        "interface = \"eth0\"",
        "interface = \"eth0/1\"",
        "understudy.toml:58: node.interface = \"eth0/1\": must be the name of a network interface, such as \"eth0\", at most \
         15 characters",
    );
    let promote = "promote = { command = [\"/usr/local/bin/promote\"], timeout = \"3s\" }";
    one(
        promote,
        "promote = { command = [], timeout = \"3s\" }",
        "understudy.toml:50: group.web.hooks.promote.command = []: must hold a program and its arguments, such as \
         [\"/usr/local/bin/promote\", \"--now\"]",
    );
    assert_eq!(
        warnings(&spoilt(promote, "")),
        [
            "understudy.toml:60: node.standby = \"warm\": without a promote hook a warm standby takes over exactly as a hot one; \
         add [group.web.hooks] promote = { command = [...] }"
        ]
    );
}

#[test]
fn secrets_are_checked_but_never_shown() {
    one(
        "secret = \"c2VjcmV0IHNlY3JldCBzZWNyZXQ=\"",
        "secret = \"not base64!\"",
        "understudy.toml:24: dns.key.secret = (hidden): must be base64 with its padding, as tsig-keygen prints it",
    );
    one(
        "key = { name = \"understudy.\", algorithm = \"hmac-sha256\", secret = \"c2VjcmV0IHNlY3JldCBzZWNyZXQ=\" }",
        "key = \"c2VjcmV0\"",
        "understudy.toml:24: dns.key = (hidden): must be a table",
    );
    one(
        "password = \"hunter2\"",
        "password = 4711",
        "understudy.toml:6: nats.password = (hidden): must be a string in quotes",
    );
    one(
        "nats://10.77.0.11:4222",
        "nats://agent:hunter2@10.77.0.11:4222",
        "understudy.toml:3: nats.servers[0] = \"nats://(hidden)@10.77.0.11:4222\": must not hold credentials, since it is \
         logged; use nats.user with nats.password_file",
    );
    one("user = \"agent\"\n", "", "understudy.toml:5: nats.password = (hidden): needs nats.user");
    // A syntax error on the very line does not quote it.
    let broken = errors(&spoilt("password = \"hunter2\"", "password = \"hunter2"), &[]);
    assert!(broken[0].starts_with("understudy.toml:6: not TOML: "), "{broken:?}");
    assert!(!broken.concat().contains("hunter2"), "{broken:?}");
    let shown = format!("{:?}", good(FULL, &[]));
    assert!(!shown.contains("hunter2") && !shown.contains("c2VjcmV0"), "{shown}");
}

#[test]
fn doubtful_settings_are_warned_of_with_what_they_cost() {
    let cases = [
        (
            "duration = \"300ms\"",
            "duration = \"250ms\"",
            "understudy.toml:9: lease.duration = \"250ms\": should be at least 3 x lease.interval (300ms): below it one lost \
             heartbeat and a little delay end a lease",
        ),
        (
            "standby = 1",
            "standby = 0\n#",
            "understudy.toml:27: group.web.standby = 0: group web has no standby: when its active fails, nobody takes over; \
             use at least 1",
        ),
        (
            "seats = 3",
            "seats = 1",
            "understudy.toml:13: detector.seats = 1: one seat is a single point of failure: without it every VIP goes dark; \
             use 3",
        ),
        (
            "ping_interval = \"50ms\"",
            "ping_interval = \"1s\"",
            "understudy.toml:4: nats.ping_interval = \"1s\": should be at most a third of lease.duration (300ms): a hung NATS \
             server is noticed after up to three pings, and until then the direct path alone carries the lease",
        ),
        (
            "ttl = \"1s\"",
            "ttl = \"1h\"",
            "understudy.toml:23: dns.ttl = \"1h\": clients keep the old address for so long after a failover; 1s to 60s is \
             usual",
        ),
    ];
    for (old, new, expected) in cases {
        let text = spoilt(old, new).replace("witnesses = 2", "witnesses = 1");
        assert_eq!(warnings(&text), [expected]);
    }
}

#[test]
fn all_mistakes_are_told_at_once_and_none_is_told_twice() {
    let text = r#"clutser = "demo"
[nats]
servers = []
[lease]
interval = "0.1"
duration = "150ms"
max = "100ms"
[group.web]
[[group.web.slot]]
vips = ["10.77.0.100", "10.77.0.0/24"]
[[group.web.check]]
kind = "tcp"
port = 80
[node]
group = "db"
"#;
    let told = errors(text, &[]);
    let places: Vec<_> =
        told.iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    for place in [
        "understudy.toml:1: clutser = \"demo\"",
        "understudy.toml: cluster",
        "understudy.toml:3: nats.servers = []",
        "understudy.toml:5: lease.interval = \"0.1\"",
        "understudy.toml:10: group.web.slot[0].vips[0] = \"10.77.0.100\"",
        "understudy.toml:11: group.web.check[0]",
        "understudy.toml:13: group.web.check[0].port = 80",
    ] {
        assert_eq!(places.iter().filter(|told| *told == place).count(), 1, "{place} in {told:#?}");
    }
    assert!(
        told.iter().any(|line| line.contains("missing; add a line such as cluster = \"demo\"")),
        "{told:#?}"
    );
}

#[test]
fn the_environment_goes_over_the_file() {
    let config = good(
        FULL,
        &[
            ("UNDERSTUDY_CLUSTER", "other"),
            ("UNDERSTUDY_NODE__NAME", "123"),
            ("UNDERSTUDY_NODE__LABELS", "rack=r2, zone=z1"),
            ("UNDERSTUDY_NATS__SERVERS", "nats://a:1, nats://b:2"),
            ("UNDERSTUDY_LEASE__DURATION", "400ms"),
            ("UNDERSTUDY_LEASE__DRIFT", "0.02"),
            ("UNDERSTUDY_DETECTOR__SEATS", "5"),
            ("UNDERSTUDY_DETECTOR__DIRECT", "a:1"),
            ("UNDERSTUDY_GROUP__WEB__SLOT__1__VIPS", "10.77.0.111/24,10.77.0.112/24"),
            ("UNDERSTUDY_TELEMETRY__JSON", "1"),
            ("UNDERSTUDY_TELEMETRY__OTLP", ""),
            ("UNDERSTUDY_DNS__KEY__SECRET", "b3RoZXI="),
            // Not settings: a hook's variables, and those of others.
            ("UNDERSTUDY_EPOCH", "17"),
            ("UNDERSTUDY_CONFIG", "/etc/understudy.toml"),
            ("HOME", "/root"),
        ],
    );
    assert_eq!(config.cluster.as_str(), "other");
    assert_eq!(config.node.name.as_ref().unwrap().as_str(), "123");
    assert_eq!(
        config.node.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        ["rack=r2", "zone=z1"]
    );
    assert_eq!(config.nats.servers, ["nats://a:1", "nats://b:2"]);
    assert_eq!(config.lease.duration, Duration::from_millis(400));
    assert!((config.lease.drift - 0.02).abs() < 1e-9);
    assert_eq!((config.detector.seats, config.detector.direct.len()), (5, 1));
    assert_eq!(config.groups.values().next().unwrap().slots[1].vips.len(), 2);
    assert!(config.telemetry.json);
    assert_eq!(config.telemetry.otlp.as_deref(), Some("http://127.0.0.1:4317"));
    assert_eq!(config.dns.unwrap().key.unwrap().bytes().unwrap(), b"other");
}

#[test]
fn names_from_the_environment_stay_as_they_are_written() {
    for name in ["007", "1e5", "0x10", "true", "1_000"] {
        let config = good(MINIMAL, &[("UNDERSTUDY_NODE__NAME", name)]);
        assert_eq!(config.node.name.unwrap().as_str(), name);
    }
}

#[test]
fn a_group_with_a_dash_is_reached_by_its_variable() {
    let text = MINIMAL.replace("group.web", "group.Web-EU");
    let config = good(&text, &[("UNDERSTUDY_GROUP__WEB_EU__STANDBY", "4")]);
    assert_eq!(config.groups.len(), 1);
    assert_eq!(config.groups.values().next().unwrap().standby, 4);
}

#[test]
fn bad_values_of_the_environment_name_their_variable() {
    let cases = [
        ("UNDERSTUDY_NODE__NAME", "a.b", "node.name = \"a.b\": may hold letters, digits, '-' and '_' only"),
        (
            "UNDERSTUDY_DETECTOR__SEATS",
            "three",
            "detector.seats = \"three\": must be a whole number from 0 to 255",
        ),
        (
            "UNDERSTUDY_LEASE__DURATION",
            "150ms",
            "lease.duration = \"150ms\": must be at least 2 x lease.interval (200ms), since a lease that is renewed once an \
             interval must outlive one lost heartbeat",
        ),
        ("UNDERSTUDY_TELEMETRY__JSON", "maybe", "telemetry.json = \"maybe\": must be true or false"),
        (
            "UNDERSTUDY_NODE__LABELS",
            "rack",
            "node.labels = \"rack\": must be key=value pairs with commas between them",
        ),
        ("UNDERSTUDY_NATS__PASSWORD__X", "hunter2", "nats.password: must be a string in quotes"),
    ];
    for (variable, value, expected) in cases {
        let told = errors(FULL, &[(variable, value)]);
        assert_eq!(told, [format!("environment variable {variable}: {expected}")]);
    }
    let told = errors(FULL, &[("UNDERSTUDY_NODE__NMAE", "x")]);
    assert!(told[0].starts_with(
        "environment variable UNDERSTUDY_NODE__NMAE: node.nmae = \"x\": unknown key; known here: "
    ));
}

#[test]
fn the_environment_alone_is_enough() {
    let env = [
        ("UNDERSTUDY_CLUSTER", "demo"),
        ("UNDERSTUDY_NATS__SERVERS", "nats://a:1,nats://b:1"),
        ("UNDERSTUDY_GROUP__WEB__STANDBY", "2"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load(None, env.into_iter()).unwrap();
    assert_eq!(config.groups.values().next().unwrap().standby, 2);
    let nothing = Config::load(None, std::iter::empty()).unwrap_err();
    assert_eq!(nothing.0[0].origin, Origin::Absent { file: None });
    assert!(nothing.to_string().starts_with("configuration: cluster: missing; "), "{nothing}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let told = validate(&path).errors[0].to_string();
    assert_eq!(told, format!("{}: cannot be read: No such file or directory (os error 2)", path.display()));
    std::fs::write(&path, b"cluster = \"\xff\"").unwrap();
    assert!(validate(&path).errors[0].to_string().contains("cannot be read"));
    std::fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
    assert!(
        validate(&path).errors[0].to_string().contains("2097152 bytes; a configuration has at most 1048576")
    );
    std::fs::write(&path, MINIMAL).unwrap();
    assert_eq!(validate(&path), Report::default());
    assert!(!validate(Path::new("/")).errors.is_empty());
}

#[test]
fn the_round_trip_bounds_the_lease() {
    let millis = Duration::from_millis;
    assert_eq!(check_round_trip(millis(300), millis(74)), Ok(()));
    let refused = check_round_trip(millis(300), millis(75)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "lease.duration = 300ms must be above 4 x the measured p99.9 round trip to the detectors (75ms), else delay alone \
         would end leases; use at least 301ms or a faster network"
    );
    assert!(check_round_trip(millis(300), Duration::MAX).is_err());
}

mod mutations {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is done to a file, the loader answers, and a refusal has a reason.
        #[test]
        fn no_text_panics_the_loader(at in 0..FULL.len(), cut in 0usize..12, put in "\\PC{0,12}|[\\[\\]{}\"'=.,#0-9\n-]{0,12}") {
            let end = (at + cut).min(FULL.len());
            let text = format!("{}{put}{}", &FULL[..at], &FULL[end..]);
            let (config, report) = examine(&text, &[]);
            prop_assert_eq!(config.is_some(), report.errors.is_empty());
        }

        /// Nor does any value of any variable.
        #[test]
        fn no_variable_panics_the_loader(name in "(NODE|LEASE|GROUP|DNS|NATS|X)(__(NAME|WEB|SLOT|CHECK|KEY|0|9|DURATION|){1}){0,4}", value in "\\PC{0,20}") {
            let (config, report) = examine(FULL, &[(&format!("UNDERSTUDY_{name}"), &value)]);
            prop_assert_eq!(config.is_some(), report.errors.is_empty());
        }

        #[test]
        fn nor_does_any_text_at_all(text in any::<String>()) {
            let (config, report) = examine(&text, &[]);
            prop_assert_eq!(config.is_some(), report.errors.is_empty());
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let deep = format!("cluster = {}1{}", "[".repeat(50_000), "]".repeat(50_000));
        assert!(!examine(&deep, &[]).1.errors.is_empty());
        let dotted = format!("{} = 1", vec!["a"; 50_000].join("."));
        assert!(!examine(&dotted, &[]).1.errors.is_empty());
        let variable = format!("UNDERSTUDY_NODE{}", "__A".repeat(50_000));
        assert!(!examine(FULL, &[(&variable, "x")]).1.errors.is_empty());
    }
}
