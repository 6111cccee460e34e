//! What concerns groups, their slots, checks and nodes.

use understudy_service::config::{CheckKind, ProcessRef};

use crate::{FULL, errors, good, one, spoilt, warnings};

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
        "understudy.toml:25: group.web.eu: group name \"web.eu\": may hold letters, digits, '-' and '_' only",
    );
}

#[test]
fn a_url_is_one_that_the_check_can_read() {
    for bad in ["http://x/`", "http://x/#top", "http://x y/", "http://x:0/", "http:///"] {
        let url = format!("kind = \"http\"\nurl = \"{bad}\"");
        let told = errors(&spoilt("kind = \"tcp\"\naddress = \"127.0.0.1:5432\"", &url), &[]);
        assert!(told[0].contains("must be http://host[:port]/path"), "{bad}: {told:?}");
    }
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
