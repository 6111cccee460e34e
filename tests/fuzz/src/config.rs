//! The configuration: file and environment.

use understudy_heartbeat::checks;
use understudy_service::config::{Config, Problem};
use understudy_wire::Seat;

/// Parts file and environment in an input.
const ENVIRONMENT: &[u8] = b"\n--- environment\n";

/// The file; after a line `--- environment` one `NAME=VALUE` a line.
pub(crate) fn config(data: &[u8]) {
    let parting = data.windows(ENVIRONMENT.len()).position(|window| window == ENVIRONMENT);
    let (file, environment) = match parting {
        Some(at) => (&data[..at], &data[at + ENVIRONMENT.len()..]),
        None => (data, &data[data.len()..]),
    };
    let (Ok(file), Ok(environment)) = (std::str::from_utf8(file), std::str::from_utf8(environment)) else {
        return;
    };
    let variables = environment.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (config, report) = Config::examine_text(Some(("fuzz.toml", file)), variables);
    assert_eq!(
        config.is_some(),
        report.errors.is_empty(),
        "there is a configuration exactly if nothing is wrong"
    );
    report.errors.iter().chain(&report.warnings).for_each(assert_tells);
    if let Some(config) = config {
        assert_can_be_started(&config);
    }
}

/// Says where and what, on one line, and no secret.
fn assert_tells(problem: &Problem) {
    assert!(!problem.message.is_empty(), "a problem without a message at {:?}", problem.origin);
    let told = problem.to_string();
    let places = ["fuzz.toml", "environment variable UNDERSTUDY_"];
    assert!(places.iter().any(|place| told.starts_with(place)), "{told:?} says not where");
    let secret = ["password", "secret"].iter().any(|key| problem.key.ends_with(key));
    assert!(
        !secret || problem.value.as_deref().is_none_or(|value| value == "(hidden)"),
        "{told:?} shows a secret"
    );
}

/// A configuration that is accepted is one that every service starts with.
fn assert_can_be_started(config: &Config) {
    let seat = Seat::new(1);
    let groups = understudy_detector::run::groups(config, seat, 1);
    assert_eq!(groups.expect("a detector starts with it").len(), config.groups.len());
    for group in config.groups.values() {
        let configs: Vec<_> = group.checks.iter().map(understudy_heartbeat::run::check).collect();
        checks::fuzzing::accepts(&configs).expect("a publisher starts with it");
    }
    let Some(dns) = &config.dns else { return };
    let zone = understudy_dns::Zone {
        servers: vec!["127.0.0.1:53".to_owned()],
        origin: dns.zone.as_str().to_owned(),
        key: None,
        ttl: 1,
        timeout: dns.timeout,
    };
    for name in config.groups.values().flat_map(|group| &group.slots).flat_map(|slot| &slot.names) {
        understudy_dns::fuzzing::owners(&zone, name.as_str()).expect("an executor can update the name");
    }
    // Not one in a file, which would be read.
    if let Some(key) = dns.key.as_ref().filter(|key| key.secret_file.is_none()) {
        let bytes = key.bytes().expect("the secret can be read");
        let algorithm = understudy_dns::Algorithm::HmacSha256;
        understudy_dns::TsigKey::from_bytes(key.name.as_str(), algorithm, bytes).expect("the key can sign");
    }
}
