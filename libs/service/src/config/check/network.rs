//! NATS, name servers, telemetry, scheduling.

use std::time::Duration;

use data_encoding::BASE64;
use tracing_subscriber::EnvFilter;

use super::Checker;
use crate::{
    config::{
        schema::{Config, Dns, Nats, TsigKey},
        types::Endpoint,
    },
    owner::PLACEHOLDER,
};

/// Above this a client keeps a dead address longer than a failover lasts.
const LONG_TTL: Duration = Duration::from_secs(60);

/// Largest TTL (RFC 2181 section 8).
const MAX_TTL: Duration = Duration::from_secs((1 << 31) - 1);

/// Longest that a name server may be waited for, and longest time between two comparisons.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    nats(&config.nats, checker);
    if let Some(dns) = &config.dns {
        name_servers(dns, checker);
    }
    access(config, checker);
    telemetry(config, checker);
    if config.realtime.enabled && !(1..=99).contains(&config.realtime.priority) {
        checker.refuse("realtime.priority", "must be from 1 to 99, the range of SCHED_RR");
    }
    if config.gate.mark.count_ones() != 1 {
        checker.refuse(
            "gate.mark",
            "must have exactly one bit set, such as \"0x00400000\"; other bits belong to others",
        );
    }
}

fn nats(nats: &Nats, checker: &mut Checker<'_>) {
    if nats.servers.is_empty() {
        checker.refuse(
            "nats.servers",
            "must name at least one server, such as servers = [\"nats://10.77.0.11:4222\"] (or the variable \
             UNDERSTUDY_NATS__SERVERS=nats://10.77.0.11:4222,...)",
        );
    } else if nats.servers.len() == 1 {
        checker
            .warn("nats.servers", "one server is a single point of failure for events and commands; use 3");
    }
    for (index, server) in nats.servers.iter().enumerate() {
        if let Err(message) = server_url(server) {
            checker.refuse(&format!("nats.servers[{index}]"), message);
        }
    }
    credentials(nats, checker);
}

fn access(config: &Config, checker: &mut Checker<'_>) {
    let (tls, access) = (&config.tls, &config.access);
    if checker.doubtful(&["tls", "access"]) {
        return;
    }
    let pair = [("tls.cert_file", &tls.cert_file), ("tls.key_file", &tls.key_file)];
    for ((key, file), (other_key, other)) in [(pair[0], pair[1]), (pair[1], pair[0])] {
        if file.is_some() && other.is_none() {
            checker.refuse(key, format!("needs {other_key}"));
        }
    }
    for (key, file) in [("nats.nkey_file", &config.nats.nkey_file), pair[0], pair[1]] {
        let rest = file.as_ref().map(|file| file.to_string_lossy().replace(PLACEHOLDER, ""));
        if rest.is_some_and(|rest| rest.contains(['{', '}'])) {
            checker.refuse(key, format!("must have nothing in braces but {PLACEHOLDER}"));
        }
    }
    if tls.cert_file.is_some() && tls.ca_file.is_none() {
        checker.refuse("tls.cert_file", "needs tls.ca_file, the authority that signed it and all others");
    }
    let guarded = tls.cert_file.is_some()
        && (access.viewer_token_file.is_some() || access.operator_token_file.is_some());
    if let Some(address) = config.http.listen
        && !address.ip().is_loopback()
        && !guarded
        && !access.insecure
    {
        checker.refuse(
            "http.listen",
            "would be open to everybody who reaches it; use a loopback address, or [tls] and \
             access.viewer_token_file, or (in development) access.insecure = true",
        );
    }
}

fn server_url(url: &str) -> Result<(), &'static str> {
    const RIGHT: &str = "must be nats://host:port or tls://host:port, such as \"nats://10.77.0.11:4222\"";
    if url.contains('@') {
        return Err("must not hold credentials, since it is logged; use nats.user with nats.password_file");
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    if !["nats", "tls"].contains(&scheme) {
        return Err(RIGHT);
    }
    let with_port = rest.parse::<Endpoint>().is_ok();
    let bare = !rest.ends_with(':') && format!("{rest}:4222").parse::<Endpoint>().is_ok();
    if with_port || bare { Ok(()) } else { Err(RIGHT) }
}

fn credentials(nats: &Nats, checker: &mut Checker<'_>) {
    if checker.doubtful(&["nats.user", "nats.password", "nats.password_file"]) {
        return;
    }
    let password = nats.password.is_some() || nats.password_file.is_some();
    if nats.password.is_some() && nats.password_file.is_some() {
        checker.refuse("nats.password_file", "must not stand beside nats.password; keep one of them");
    }
    if nats.user.is_some() && !password {
        checker.refuse("nats.user", "needs nats.password or nats.password_file");
    }
    if password && nats.user.is_none() {
        let key = if nats.password.is_some() { "nats.password" } else { "nats.password_file" };
        checker.refuse(key, "needs nats.user");
    }
    if nats.nkey_file.is_some() && (nats.user.is_some() || password) {
        checker.refuse("nats.nkey_file", "must not stand beside nats.user; a server takes one of them");
    }
}

fn name_servers(dns: &Dns, checker: &mut Checker<'_>) {
    if dns.servers.is_empty() {
        checker.refuse("dns.servers", "must name at least one server, such as [\"10.77.0.31:53\"]");
    }
    if dns.ttl.subsec_nanos() != 0 || dns.ttl > MAX_TTL {
        checker.refuse(
            "dns.ttl",
            "must be whole seconds, as records hold them, and below 2^31; 1s is usual here",
        );
    } else if dns.ttl > LONG_TTL {
        checker
            .warn("dns.ttl", "clients keep the old address for so long after a failover; 1s to 60s is usual");
    }
    for (key, span) in [("dns.timeout", dns.timeout), ("dns.recheck", dns.recheck)] {
        if span.is_zero() || span > MAX_WAIT {
            checker.refuse(key, "must be above 0 and at most 1 day");
        }
    }
    match &dns.key {
        Some(key) => tsig(key, checker),
        None => checker
            .warn("dns.key", "updates are not signed: whoever can send to the server can change the zone"),
    }
}

fn tsig(key: &TsigKey, checker: &mut Checker<'_>) {
    match (&key.secret, &key.secret_file) {
        (None, None) => {
            if !checker.doubtful(&["dns.key.secret", "dns.key.secret_file"]) {
                checker.refuse("dns.key", "needs secret or secret_file");
            }
        }
        (Some(_), Some(_)) => {
            checker.refuse("dns.key.secret_file", "must not stand beside dns.key.secret; keep one of them");
        }
        (Some(secret), None) => match BASE64.decode(secret.expose().trim().as_bytes()) {
            Ok(bytes) if !bytes.is_empty() => {}
            _ => {
                checker.refuse("dns.key.secret", "must be base64 with its padding, as tsig-keygen prints it");
            }
        },
        (None, Some(_)) => {}
    }
}

fn telemetry(config: &Config, checker: &mut Checker<'_>) {
    if let Err(error) = EnvFilter::try_new(&config.telemetry.log) {
        let message =
            format!("must be a level such as \"info\", or such as \"info,understudy_lease=debug\" ({error})");
        checker.refuse("telemetry.log", message);
    }
    if let Some(endpoint) = &config.telemetry.otlp {
        let rest = endpoint.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        if rest.is_none_or(|rest| rest.parse::<Endpoint>().is_err()) {
            checker.refuse(
                "telemetry.otlp",
                "must be the collector's gRPC address, such as \"http://127.0.0.1:4317\"",
            );
        }
    }
}
