//! Which number a replica has, by its own name; and so which seat a detector has.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RData, RecordType},
};
use tokio::{net::UdpSocket, time::timeout};
use understudy_wire::Seat;

use crate::config::Detector;

/// What detectors are called.
const DETECTOR: &str = "detector";

/// How long one name server may take; its answer decides only where the configuration says nothing.
const LOOKUP_LIMIT: Duration = Duration::from_secs(1);

/// Largest datagram that is read (RFC 6891 section 6.2.5 advises this size).
const MAX_ANSWER: usize = 4096;

/// More servers than a resolver would ask (resolv.conf(5), MAXNS).
const MAX_SERVERS: usize = 3;

/// Addresses of this host that are looked up; a container has one or two.
const MAX_ADDRESSES: usize = 8;

/// A seat, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSeat {
    /// `None`: an observer.
    pub seat: Option<Seat>,
    /// The instance's number; `None` when nothing told it.
    pub number: Option<u32>,
    /// For the log, such as `detector.seat` or `name demo_detector_2.demo_default`.
    pub source: String,
}

/// The number of an instance of `role` that is called `detector-2`, `stack_detector_2`, `stack-detector-2.net` or, by
/// swarm, `stack_detector.2.<task>`. The role must be part of the name: `rack-1` says nothing about seats.
pub fn number_in(name: &str, role: &str) -> Option<u32> {
    let mut labels = name.split('.');
    let first = labels.next()?;
    if is_role(first, role) {
        return labels.next()?.parse().ok();
    }
    let (stem, number) = first.rsplit_once(['-', '_'])?;
    is_role(stem, role).then(|| number.parse().ok()).flatten()
}

/// The role, or something that ends in it as a word of its own.
fn is_role(stem: &str, role: &str) -> bool {
    stem.strip_suffix(role).is_some_and(|before| before.is_empty() || before.ends_with(['-', '_']))
}

/// The seat: the configured number, else that of the host's name, else that of the reverse name. `None` is an
/// observer: no number, 0, or one above `seats`.
pub fn seat_from(configured: Option<u8>, hostname: &str, reverse: Option<&str>, seats: u8) -> Option<Seat> {
    let number = configured
        .map(u32::from)
        .or_else(|| number_in(hostname, DETECTOR))
        .or_else(|| number_in(reverse?, DETECTOR))?;
    let number = u8::try_from(number).ok().filter(|number| *number <= seats)?;
    Seat::new(number)
}

/// The seat of this process: the configured one, else that of its number.
pub async fn own_seat(config: &Detector) -> OwnSeat {
    let told = |number: u32, source: String| OwnSeat {
        seat: seat_from(Some(u8::try_from(number).unwrap_or(0)), "", None, config.seats),
        number: Some(number),
        source,
    };
    if let Some(number) = config.seat {
        return told(number.into(), "detector.seat".into());
    }
    match own_number(DETECTOR).await {
        Some((number, source)) => told(number, source),
        None => {
            let host = hostname();
            let source = format!("neither detector.seat nor the name {host} nor DNS");
            OwnSeat { seat: None, number: None, source }
        }
    }
}

/// The number of this process among the replicas of `role`, and where it comes from. Asks the name servers of
/// `/etc/resolv.conf` for the names of this host's addresses only when the host's name does not tell; that takes seconds
/// at most.
pub(crate) async fn own_number(role: &str) -> Option<(u32, String)> {
    let host = hostname();
    if let Some(number) = number_in(&host, role) {
        return Some((number, format!("host name {host}")));
    }
    for server in name_servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()) {
        for address in own_addresses() {
            let names = reverse_names(server, address).await;
            if let Some((number, name)) = names.iter().find_map(|name| Some((number_in(name, role)?, name))) {
                return Some((number, format!("name {name} of {address}")));
            }
        }
    }
    None
}

/// The host's name; `localhost` when the kernel does not tell.
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".into())
}

/// `nameserver` lines of resolv.conf(5).
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses.take(MAX_SERVERS).map(|address| SocketAddr::new(address, 53)).collect()
}

fn own_addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    addresses.filter(|address| !address.is_loopback()).take(MAX_ADDRESSES).collect()
}

/// Names of `address` by a PTR query to `server`; none when it does not answer. Not getnameinfo: that reads
/// `/etc/hosts` first, where a container has only its own random name.
async fn reverse_names(server: SocketAddr, address: IpAddr) -> Vec<String> {
    match timeout(LOOKUP_LIMIT, query_pointer(server, address)).await {
        Ok(Ok(names)) => names,
        Ok(Err(error)) => {
            tracing::debug!(%server, %address, %error, "reverse lookup failed");
            Vec::new()
        }
        Err(_) => {
            tracing::debug!(%server, %address, "reverse lookup was not answered");
            Vec::new()
        }
    }
}

async fn query_pointer(server: SocketAddr, address: IpAddr) -> std::io::Result<Vec<String>> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from(address), RecordType::PTR));
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&message.to_vec().map_err(std::io::Error::other)?).await?;
    let mut buffer = vec![0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(names) = pointers(message.metadata.id, &buffer[..length]) {
            return Ok(names);
        }
    }
}

/// The names in the answer to the PTR query `id`; `None` when the datagram is no answer to it.
pub fn pointers(id: u16, datagram: &[u8]) -> Option<Vec<String>> {
    let answer = Message::from_vec(datagram).ok().filter(|answer| answer.metadata.id == id)?;
    let names = answer.answers.iter().filter_map(|record| match &record.data {
        RData::PTR(name) => Some(name.to_ascii().trim_end_matches('.').to_owned()),
        _ => None,
    });
    Some(names.collect())
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Record, rdata::PTR};

    use super::*;

    #[test]
    fn the_number_is_read_from_names_of_detectors_only() {
        for name in [
            "detector-2",
            "detector_2",
            "stack_detector_2",
            "stack-detector-2.net",
            "demo_detector_2.demo_default",
            "stack_detector.2.k3v9x0.stack_default",
        ] {
            assert_eq!(number_in(name, DETECTOR), Some(2), "{name}");
        }
        for name in
            ["", "detector", "rack-2", "2", "3f2a9c1b7d04", "detector-x", "mydetector-2", "detector-2-x"]
        {
            assert_eq!(number_in(name, DETECTOR), None, "{name}");
        }
        assert_eq!(number_in("demo_autoscaler_2.demo_default", "autoscaler"), Some(2));
        assert_eq!(number_in("detector-2", "autoscaler"), None);
    }

    #[test]
    fn the_configuration_goes_before_the_name_and_numbers_beyond_the_seats_observe() {
        let seat = |configured, host, reverse| seat_from(configured, host, reverse, 3).map(Seat::raw);
        assert_eq!(seat(Some(1), "detector-2", None), Some(1));
        assert_eq!(seat(None, "detector-2", Some("detector-3")), Some(2));
        assert_eq!(seat(None, "3f2a9c1b7d04", Some("demo_detector_3.demo_default")), Some(3));
        assert_eq!(seat(None, "detector-4", None), None);
        assert_eq!(seat(None, "detector-99999999999", None), None);
        assert_eq!(seat(Some(0), "detector-2", None), None);
        assert_eq!(seat(None, "host", None), None);
    }

    #[test]
    fn name_servers_are_read_as_the_resolver_does() {
        let text = "# by hand\nsearch net\nnameserver 127.0.0.11\n nameserver fd77::1\nnameserver x\noptions ndots:0\n";
        let expected: Vec<SocketAddr> =
            vec!["127.0.0.11:53".parse().unwrap(), "[fd77::1]:53".parse().unwrap()];
        assert_eq!(name_servers(text), expected);
    }

    #[tokio::test]
    async fn a_pointer_query_takes_the_answer_to_its_own_question() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serve = async move {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let mut answer = Message::from_vec(&buffer[..length]).unwrap().into_response();
            assert_eq!(answer.queries[0].name().to_ascii(), "5.2.0.192.in-addr.arpa.");
            let name = Name::from_ascii("demo_detector_2.demo_default.").unwrap();
            answer.add_answer(Record::from_rdata(answer.queries[0].name().clone(), 0, RData::PTR(PTR(name))));
            let mut foreign = answer.clone();
            foreign.metadata.id = answer.metadata.id.wrapping_add(1);
            foreign.answers.clear();
            server.send_to(b"no message", from).await.unwrap();
            server.send_to(&foreign.to_vec().unwrap(), from).await.unwrap();
            server.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        };
        let both = async { tokio::join!(query_pointer(address, "192.0.2.5".parse().unwrap()), serve) };
        let (names, ()) = timeout(Duration::from_secs(10), both).await.expect("answered");
        assert_eq!(names.unwrap(), ["demo_detector_2.demo_default"]);
    }
}
