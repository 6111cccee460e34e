//! The autoscaler of docker-compose.yml: it reaches the engine only through a proxy, which passes what its driver asks and
//! nothing else, and it mends what this file has made.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use understudy_compose::{Compose, NODES, PROJECT, Stack, docker};
use understudy_lab::wait_until;

/// For anything that must happen, but whose speed is not the point.
const SOON: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(10);

/// The status of the answer to a request, and its body.
fn ask(address: SocketAddr, request: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = "Host: proxy\r\nContent-Type: application/json\r\nConnection: close";
    write!(stream, "{request} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| answer.clone())?, answer))
}

/// Everything that the engine would do, and some that come close to what passes.
const REFUSED: [&str; 24] = [
    "GET /",
    "GET /info",
    "GET /version",
    "GET /_ping",
    "GET /events",
    "GET /images/json",
    "POST /images/create?fromImage=debian",
    "GET /containers/json/",
    "GET /v1.41/containers/json?all=true",
    "POST /containers/json?all=true",
    "GET /containers/ID/json",
    "GET /containers/ID/logs?stdout=true",
    "GET /containers/ID/archive?path=/",
    "POST /containers/ID/exec",
    "POST /containers/ID/attach?stream=1",
    "POST /containers/ID/kill",
    "POST /containers/ID/update",
    "POST /containers/ID/../ID/exec",
    "POST /containers/ID%2Fexec/start",
    "DELETE /containers/ID",
    "POST /containers/prune",
    "GET /volumes",
    "POST /swarm/init",
    "POST /networks/create",
];

#[test]
fn the_proxy_passes_what_the_driver_asks_and_nothing_else() -> Result<()> {
    let stack = Stack::up()?;
    let proxy = SocketAddr::new(stack.container("docker-proxy").address()?, 2375);
    let victim = stack.container("web-a");
    let id = victim.inspect()?["Id"].as_str().context("no ID")?.to_owned();
    for request in REFUSED {
        let (status, answer) = ask(proxy, &request.replace("ID", &id), "{}")?;
        ensure!(status == 403, "{request} was answered with {answer}");
    }
    ensure!(victim.pid().is_ok(), "it does not run any more");
    let (status, answer) = ask(proxy, "GET /containers/json?all=true", "")?;
    ensure!(status == 200 && answer.contains("understudy.part"), "{answer}");
    // Nobody but the autoscaler is in its network.
    let inside = docker(&[
        "network",
        "inspect",
        "-f",
        "{{range .Containers}}{{.Name}} {{end}}",
        &format!("{}_engine", PROJECT),
    ])?;
    let others: Vec<_> = inside
        .split_whitespace()
        .filter(|name| !name.contains("autoscaler") && !name.contains("proxy"))
        .collect();
    ensure!(others.is_empty() && inside.split_whitespace().count() == 3, "{inside}");
    stack.end();
    Ok(())
}

#[test]
fn what_compose_has_made_is_restarted_and_replaced_and_goes_with_the_project() -> Result<()> {
    let stack = Stack::up_with(Compose::Installed, &[("UNDERSTUDY_REPAIR_AFTER", "2s")])?;
    let active = stack.active()?;
    let mut standbys = NODES.iter().filter(|node| **node != active);
    let (one, other) = (standbys.next().context("a standby")?, standbys.next().context("another")?);
    docker(&["kill", &stack.container(one).0])?;
    wait_until("it is restarted", SOON, || stack.container(one).pid().is_ok())
        .with_context(|| logs(&stack))?;
    stack.wait_ready().with_context(|| format!("{one} was killed; {}", logs(&stack)))?;

    for part in [(*other).to_owned(), format!("{other}-heartbeat"), format!("{other}-executor")] {
        docker(&["rm", "-f", &stack.container(&part).0])?;
    }
    let made = || docker(&["ps", "-q", "--filter", "label=understudy.key"]).unwrap_or_default();
    wait_until("another one takes its place", SOON, || made().lines().count() == 3)
        .with_context(|| logs(&stack))?;
    stack.wait_ready().with_context(|| format!("{other} was removed; {}", logs(&stack)))?;
    // Not of the project.
    docker(&["rm", "-f", &format!("{PROJECT}-client")])?;
    stack.compose(&["down", "-v", "--remove-orphans", "-t", "2"])?;
    ensure!(made().is_empty(), "what the autoscaler has made is left");
    stack.end();
    Ok(())
}

fn logs(stack: &Stack) -> String {
    stack.compose(&["logs", "--no-color", "--tail", "40", "autoscaler"]).unwrap_or_default()
}
