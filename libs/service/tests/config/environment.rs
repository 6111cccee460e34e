//! The environment over the file.

use std::time::Duration;

use understudy_service::config::{Config, Origin};

use crate::{FULL, MINIMAL, errors, good};

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
