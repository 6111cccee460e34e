//! Every kind of mistake in a configuration is told with its file, line, key, value and what would be right.

mod environment;
mod groups;
mod indices;
mod keys;
mod limits;
mod mutations;
mod scaling;
mod template;

use std::{path::Path, time::Duration};

use understudy_service::config::{CheckKind, Config, RecordAddress, Report, check_round_trip, validate};

/// The ten lines of the README.
const MINIMAL: &str = include_str!("minimal.toml");

/// Everything that can be said, line by line; the tests below spoil one line each.
const FULL: &str = include_str!("full.toml");

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

/// Spoils one piece of FULL and expects exactly one error, word for word.
#[track_caller]
fn one(old: &str, new: &str, expected: &str) {
    assert_eq!(errors(&spoilt(old, new), &[]), [expected], "{old:?} -> {new:?}");
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
