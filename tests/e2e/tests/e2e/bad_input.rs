//! What anybody could send: refused or counted, nothing crashes, nothing moves.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use understudy_e2e::{SOON, Stage};
use understudy_lab::{
    Host,
    deployment::{DETECTOR_PAGES, DIRECT_PORT, EXECUTOR_PAGES},
    fetch, wait_until,
};
use understudy_wire::v1;

/// Publishes raw bytes with the NATS client protocol and waits for the server to have taken them (PONG), or to have
/// closed the connection.
fn publish(host: &Host, server: SocketAddr, messages: Vec<(String, Vec<u8>)>) -> Result<()> {
    host.enter(move || {
        let mut stream = TcpStream::connect(server).context("connecting to NATS")?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"CONNECT {\"verbose\":false}\r\n")?;
        for (subject, payload) in messages {
            let line = format!("PUB {subject} {}\r\n", payload.len());
            // A payload beyond the server's limit ends the connection, which is a refusal as good as any.
            let sent = stream.write_all(line.as_bytes()).and_then(|()| stream.write_all(&payload));
            if sent.and_then(|()| stream.write_all(b"\r\n")).is_err() {
                return Ok(());
            }
        }
        let _ = stream.write_all(b"PING\r\n");
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&answer).contains("PONG") {
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(length) => answer.extend_from_slice(&chunk[..length]),
            }
        }
        Ok(())
    })?
}

fn heartbeat() -> v1::Heartbeat {
    v1::Heartbeat {
        cluster: "lab".into(),
        group: "web".into(),
        node: "web-a".into(),
        boot: vec![7; 16],
        incarnation: 1,
        seq: u64::MAX,
        sent_at: u64::MAX,
        health: v1::Health::Unhealthy.into(),
        standby: v1::StandbyKind::Hot.into(),
        ..Default::default()
    }
}

fn grant(seat: u32) -> v1::SeatMessage {
    let holder = v1::Holder { node: "web-b".into(), boot: vec![7; 16], incarnation: 1 };
    let grant = v1::Grant {
        cluster: "lab".into(),
        group: "web".into(),
        seat,
        holder: Some(holder),
        echo: u64::MAX,
        lease_nanos: u64::MAX,
        ..Default::default()
    };
    v1::SeatMessage { message: Some(v1::seat_message::Message::Grant(grant)) }
}

/// Every kind of message that somebody could send over NATS, and must not.
fn nonsense() -> Vec<(String, Vec<u8>)> {
    let whole = heartbeat().encode_to_vec();
    let foreign = v1::Heartbeat { cluster: "other".into(), ..heartbeat() }.encode_to_vec();
    let impostor = v1::Heartbeat { node: "web-b".into(), ..heartbeat() }.encode_to_vec();
    let dotted = v1::Heartbeat { node: "web.a".into(), ..heartbeat() }.encode_to_vec();
    let wild = v1::Heartbeat { node: "*".into(), ..heartbeat() }.encode_to_vec();
    let release = v1::Release { cluster: "lab".into(), group: "web".into(), ..Default::default() };
    let subject = |rest: &str| format!("understudy.lab.{rest}");
    let mut messages = vec![
        (subject("member.web.web-b"), vec![0xff; 64]),
        (subject("member.web.web-b"), whole.clone()),
        (subject("heartbeat.web.web-a"), vec![0xff; 64]),
        (subject("heartbeat.web.web-a"), whole[..whole.len() / 2].to_vec()),
        (subject("heartbeat.web.web-a"), Vec::new()),
        (subject("heartbeat.web.web-a"), foreign),
        (subject("heartbeat.web.web-a"), impostor),
        (subject("heartbeat.web.web-a"), dotted),
        (subject("heartbeat.web.web-a"), wild),
        (subject("heartbeat.nowhere.web-a"), whole),
        (subject("heartbeat.web.web-a"), vec![0; 900_000]),
        (subject("release.web.web-a"), release.encode_to_vec()),
        (subject("release.web.web-a"), vec![0x0a, 0xff]),
        (subject("command.web.switchover"), vec![0xff; 8]),
        (subject("command.all.status"), vec![0xff; 8]),
        (subject("command.web.maintenance"), vec![0xff; 8]),
        (subject("verdict.web.web-a"), vec![0xff; 8]),
        (subject("detector.1"), vec![0xff; 8]),
    ];
    for seat in [0, 1, 4, 99, 4_000_000_000] {
        messages.push((subject("grant.web.web-b"), grant(seat).encode_to_vec()));
    }
    messages.push((subject("grant.web.web-b"), vec![0xff; 64]));
    messages
}

#[test]
fn nonsense_is_counted_and_moves_nothing() -> Result<()> {
    let stage = Stage::set("bad input")?;
    let deployment = &stage.deployment;
    let since = stage.probe.mark();
    let server = deployment.nats.servers()[0].host().socket(understudy_lab::CLIENT_PORT);
    publish(&deployment.client, server, nonsense())?;
    publish(
        &deployment.client,
        server,
        vec![("understudy.lab.heartbeat.web.web-a".into(), vec![0; 10 << 20])],
    )?;
    // The direct path: not even HTTP/2.
    let detector = deployment.detectors[0].host().socket(DIRECT_PORT);
    deployment.client.enter(|| {
        let mut stream = TcpStream::connect(detector)?;
        let _ = stream.write_all(&vec![0xff; 10 << 20]);
        anyhow::Ok(())
    })??;
    let counted = |host: &Host, port: u16| {
        let page = fetch(&deployment.client, host.socket(port), "/metrics", SOON).ok()?;
        let refused = page.body.lines().filter(|line| line.starts_with("understudy_bus_refused_total"));
        Some(refused.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>())
    };
    wait_until("the detector has counted what it refused", SOON, || {
        (counted(deployment.detectors[0].host(), DETECTOR_PAGES)? >= 8).then_some(())
    })?;
    wait_until("the executor has counted what it refused", SOON, || {
        (counted(&deployment.node("web-b").host, EXECUTOR_PAGES)? >= 3).then_some(())
    })?;
    stage.nothing_moves("nonsense over NATS and the direct path", "web-a", since, Duration::from_secs(1))?;
    let services = deployment.nodes.iter().flat_map(|node| node.processes());
    for process in services.chain(&deployment.detectors) {
        ensure!(process.is_running(), "{} has ended:\n{}", process.name(), process.log_text());
    }
    deployment.wait_granting()?;
    deployment.wait_standbys()?;
    stage.end()
}
