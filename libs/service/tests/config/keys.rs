//! Single keys: kinds, ranges, timing, secrets.

use crate::{FULL, MINIMAL, errors, good, one, spoilt};

/// A piece of FULL, what takes its place, what is said.
const WRONG_KINDS: &[(&str, &str, &str)] = &[
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
    // Three times this is no span any more.
    one(
        "ping_interval = \"50ms\"",
        "ping_interval = \"10000000000000000000s\"",
        "understudy.toml:4: nats.ping_interval = \"10000000000000000000s\": must be at most 10m; failover is a matter of \
         seconds",
    );
}

#[test]
fn what_no_detector_starts_with_is_refused() {
    good(&spoilt("window = 200", "window = 1024"), &[]);
    for window in [1, 1025] {
        one(
            "window = 200",
            &format!("window = {window}"),
            &format!(
                "understudy.toml:18: detector.window = {window}: must be from 2 to 1024 heartbeats; 200 is usual"
            ),
        );
    }
    good(&spoilt("deviation_floor = \"20ms\"", "deviation_floor = \"1us\""), &[]);
    for floor in ["0s", "999ns"] {
        one(
            "deviation_floor = \"20ms\"",
            &format!("deviation_floor = \"{floor}\""),
            &format!(
                "understudy.toml:19: detector.deviation_floor = \"{floor}\": must be at least 1us, else the first late \
                 heartbeat is infinitely suspicious; a fifth of lease.interval is usual"
            ),
        );
    }
    good(&spoilt("reuse = 750", "reuse = 126"), &[]);
    let why = "must be above 125 (a sixteenth of group.web.flap.suppress), since no penalty grows beyond what falls to \
               reuse within four half-lives, so nothing would ever be damped";
    one("reuse = 750", "reuse = 125", &format!("understudy.toml:54: group.web.flap.reuse = 125: {why}"));
    let text = format!("{MINIMAL}[group.web.flap]\nsuppress = 12000\n");
    let why = why.replace("125", "750");
    assert_eq!(
        errors(&text, &[]),
        [format!("understudy.toml:11: group.web.flap.reuse = 750 (default): {why}")]
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
fn values_of_the_wrong_kind_say_what_is_wanted() {
    for (old, new, expected) in WRONG_KINDS {
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
    // Under a name that is misspelt it is still the secret.
    let told = errors(&spoilt("password =", "pasword ="), &[]);
    assert!(
        told[0].starts_with("understudy.toml:6: nats.pasword = (hidden): unknown key; known"),
        "{told:?}"
    );
    let told = errors(&spoilt("priority = 10", "nats_password = \"hunter2\""), &[]);
    assert!(
        told[0].starts_with("understudy.toml:70: realtime.nats_password = (hidden): unknown"),
        "{told:?}"
    );
    let told = errors(&spoilt("priority = 10", "NATS_PASSWORD = \"hunter2\""), &[]);
    assert!(
        told[0].starts_with("understudy.toml:70: realtime.NATS_PASSWORD = (hidden): unknown"),
        "{told:?}"
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
fn a_page_in_the_open_is_refused_unless_it_is_guarded_or_meant() {
    let listen = "[http]\nlisten = \"10.77.0.21:9100\"\n";
    let with = |more: &str| format!("{MINIMAL}{listen}{more}");
    let told = "understudy.toml:12: http.listen = \"10.77.0.21:9100\": would be open to everybody who reaches it; use a \
                loopback address, or [tls] and access.viewer_token_file, or (in development) access.insecure = true";
    let tls = "[tls]\nca_file = \"/ca\"\ncert_file = \"/cert\"\nkey_file = \"/key\"\n";
    let token = "[access]\nviewer_token_file = \"/token\"\n";
    for open in ["", tls, token, "[access]\ninsecure = false\n"] {
        assert_eq!(errors(&with(open), &[]), [told], "{open}");
    }
    good(&with(&format!("{tls}{token}")), &[]);
    good(&with("[access]\ninsecure = true\n"), &[]);
    good(&with("").replace("10.77.0.21", "127.0.0.1"), &[]);
}

#[test]
fn a_certificate_needs_its_key_and_the_authority() {
    let with = |keys: &str| errors(&format!("{MINIMAL}[tls]\n{keys}\n"), &[]);
    assert_eq!(
        with("ca_file = \"/ca\"\ncert_file = \"/cert\""),
        ["understudy.toml:13: tls.cert_file = \"/cert\": needs tls.key_file"]
    );
    assert_eq!(
        with("ca_file = \"/ca\"\nkey_file = \"/key\""),
        ["understudy.toml:13: tls.key_file = \"/key\": needs tls.cert_file"]
    );
    assert_eq!(
        with("cert_file = \"/cert\"\nkey_file = \"/key\""),
        [
            "understudy.toml:12: tls.cert_file = \"/cert\": needs tls.ca_file, the authority that signed it and all others"
        ]
    );
    assert_eq!(
        with("ca_file = \"/ca\"\ncert_file = \"/{owner}.pem\"\nkey_file = \"/{role}.key\""),
        ["understudy.toml:14: tls.key_file = \"/{role}.key\": must have nothing in braces but {owner}"]
    );
    // Who only looks has no certificate, but the file is everybody's.
    good(&format!("{MINIMAL}[tls]\nca_file = \"/ca\"\n"), &[]);
}

#[test]
fn members_are_a_set_of_names() {
    let members = |list: &str| MINIMAL.replace("[group.web]\n", &format!("[group.web]\nmembers = {list}\n"));
    let config = good(&members("[\"web-b\", \"web-a\", \"web-b\"]"), &[]);
    let names: Vec<_> =
        config.groups.values().next().unwrap().members.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["web-a", "web-b"]);
    assert!(errors(&members("[\"web.a\"]"), &[])[0].contains("group.web.members[0] = \"web.a\": may hold"));
}
