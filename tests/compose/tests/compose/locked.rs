//! Whoever has no credential, a wrong one or another's is kept out of the stack as it is deployed. The whole list of what
//! may be tried is in `tests/e2e`; here is that the doors of this deployment are shut.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use understudy_bus::tls;
use understudy_compose::{Container, NODES, PROJECT, Stack};

/// One answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// An update of the managed name that points it elsewhere.
const UPDATE: &str = "server 172.29.77.53 53\nzone ha.test.\nupdate delete web.ha.test. A\n\
                      update add web.ha.test. 1 A 172.29.77.99\nsend\n";
/// A client's first words in HTTP/2, and the server's settings that it waits for (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// A file of `secrets/authority`, where everybody's credentials are.
fn authority(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../secrets/authority").join(name)
}

fn text(name: &str) -> Result<String> {
    let file = authority(name);
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// Runs `work` on the network of the client's container.
fn outside<R: Send>(work: impl AsyncFnOnce() -> Result<R> + Send) -> Result<R> {
    let namespace = Container(format!("{PROJECT}-client")).namespace()?;
    let run = || {
        namespace.join()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(result) => result,
        Err(_panic) => bail!("the client panicked"),
    })
}

async fn dial(address: SocketAddr) -> Result<TcpStream> {
    Ok(timeout(PATIENCE, TcpStream::connect(address)).await.context("nobody answers")??)
}

/// Says `words` and takes what comes until the other side has had enough.
async fn say<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, words: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    // A reset, in whatever direction, is an end as good as any.
    let _ = stream.write_all(words).await;
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    answer
}

/// One line of NATS, which may be split over reads.
async fn line<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(timeout(PATIENCE, stream.read_u8()).await.context("no answer")??);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// How somebody comes to NATS.
enum Who {
    Nobody,
    Guesser,
    Seed(String),
}

/// Connects, and publishes if a subject is named; the last word of the server: `+OK`, or why not.
async fn nats(server: SocketAddr, who: &Who, subject: Option<&str>) -> Result<String> {
    let mut plain = dial(server).await?;
    let info = line(&mut plain).await?;
    let info: Value = serde_json::from_str(info.strip_prefix("INFO ").with_context(|| info.clone())?)?;
    let mut stream = tls::call(&authority("nats-ca.pem"), "nats-1", plain).await?;
    let mut connect =
        json!({"verbose": true, "pedantic": false, "lang": "test", "version": "1", "protocol": 1});
    match who {
        Who::Nobody => {}
        Who::Guesser => (connect["user"], connect["pass"]) = (json!("admin"), json!("admin")),
        Who::Seed(seed) => {
            let (key, nonce) = (KeyPair::from_seed(seed)?, info["nonce"].as_str().context("no nonce")?);
            connect["nkey"] = json!(key.public_key());
            connect["sig"] = json!(BASE64URL_NOPAD.encode(&key.sign(nonce.as_bytes())?));
        }
    }
    stream.write_all(format!("CONNECT {connect}\r\n").as_bytes()).await?;
    let mut answer = line(&mut stream).await?;
    if let (Some(subject), "+OK") = (subject, answer.as_str()) {
        stream.write_all(format!("PUB {subject} 1\r\nx\r\n").as_bytes()).await?;
        // The list of servers may come between.
        loop {
            answer = line(&mut stream).await?;
            if !answer.starts_with("INFO") && answer != "PING" {
                break;
            }
        }
    }
    Ok(answer)
}

/// The first line of a page's answer.
async fn page(address: SocketAddr, name: &'static str, token: Option<&str>) -> Result<String> {
    let stream = tls::call(&authority("ca.pem"), name, dial(address).await?).await?;
    let shown = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {name}\r\n{shown}\r\n");
    let answer = say(stream, request.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

fn message_bus(stack: &Stack, active: &str) -> Result<()> {
    let at = stack.container("nats-1").address()?;
    let server = SocketAddr::new(at, 4222);
    let owner = |name: &str| text(&format!("{name}.nk")).map(Who::Seed);
    // It is the door that is shut and not the house that is empty.
    let viewer = owner("viewer")?;
    let let_in = outside(async || nats(server, &viewer, None).await)?;
    ensure!(let_in == "+OK", "a viewer is not let in: {let_in}");

    let stranger = Who::Seed(KeyPair::new_user().seed()?);
    for (name, who) in [("nobody", Who::Nobody), ("a guesser", Who::Guesser), ("an unknown nkey", stranger)] {
        let answer = outside(async || nats(server, &who, None).await)?;
        ensure!(answer.contains("Authorization Violation"), "{name}: {answer}");
    }
    let other = NODES.iter().find(|node| **node != active).context("a standby")?;
    let own = format!("grant.web.{other}");
    for (thief, subject) in [
        (format!("heartbeat.web.{other}"), own.clone()),
        (format!("heartbeat.web.{other}"), format!("grant.web.{active}")),
        (format!("heartbeat.web.{other}"), format!("release.web.{active}")),
        (format!("heartbeat.web.{other}"), format!("member.web.{active}")),
        (format!("executor.web.{other}"), own),
        ("viewer".to_owned(), "command.web.switchover".to_owned()),
    ] {
        let (who, subject) = (owner(&thief)?, format!("understudy.compose.{subject}"));
        let answer = outside(async || nats(server, &who, Some(&subject)).await)?;
        ensure!(answer.contains("Permissions Violation"), "{thief} publishes {subject}: {answer}");
    }
    let plain = outside(async || Ok(say(dial(server).await?, b"CONNECT {}\r\nPING\r\n").await))?;
    ensure!(!String::from_utf8_lossy(&plain).contains("PONG"), "NATS talks without TLS");
    // As one of the cluster, without its certificate.
    let route = outside(async || {
        let stream = dial(SocketAddr::new(at, 6222)).await?;
        let called = tls::call(&authority("nats-ca.pem"), "nats-1", stream).await;
        Ok(match called {
            Ok(stream) => say(stream, b"CONNECT {}\r\nPING\r\n").await,
            Err(_) => Vec::new(),
        })
    })?;
    ensure!(!String::from_utf8_lossy(&route).contains("PONG"), "a route without a certificate");
    let monitor = outside(async || Ok(dial(SocketAddr::new(at, 8222)).await.is_ok()))?;
    ensure!(!monitor, "the monitoring page is open to the network");
    let logs = stack.compose(&["logs", "--no-color", "nats-1"])?;
    for words in ["authentication error", "Publish Violation"] {
        ensure!(logs.contains(words), "{words:?} is not in the server's log");
    }
    Ok(())
}

fn pages(stack: &Stack, active: &str) -> Result<()> {
    let (detector, node) = (stack.container("detector").address()?, stack.container(active).address()?);
    let token = text("viewer.token")?;
    for (address, name) in [
        (SocketAddr::new(detector, 9100), "detector.understudy.internal"),
        (SocketAddr::new(node, 9101), "heartbeat.understudy.internal"),
        (SocketAddr::new(node, 9102), "executor.understudy.internal"),
    ] {
        for (shown, status) in [(None, "401"), (Some("0123456789abcdef0123456789abcdef"), "401")] {
            let answer = outside(async || page(address, name, shown).await)?;
            ensure!(answer.contains(status), "{name} with {shown:?}: {answer}");
        }
        let answer = outside(async || page(address, name, Some(&token)).await)?;
        ensure!(answer.contains("200"), "{name} with a viewer's token: {answer}");
        let plain = outside(async || Ok(say(dial(address).await?, b"GET /metrics HTTP/1.0\r\n\r\n").await))?;
        let plain = String::from_utf8_lossy(&plain);
        ensure!(!plain.contains("HTTP") && !plain.contains("understudy"), "{name} without TLS: {plain}");
    }
    Ok(())
}

fn direct_path(stack: &Stack) -> Result<()> {
    let address = SocketAddr::new(stack.container("detector").address()?, 7410);
    let stranger = outside(async || {
        let stream = dial(address).await?;
        let called = tls::call(&authority("ca.pem"), "detector.understudy.internal", stream).await;
        Ok(match called {
            Ok(stream) => say(stream, PREFACE).await,
            Err(_) => Vec::new(),
        })
    })?;
    ensure!(stranger.is_empty(), "gRPC without a certificate is answered: {stranger:?}");
    let plain = outside(async || Ok(say(dial(address).await?, PREFACE).await))?;
    // Frames begin with their length, alerts of TLS with 21 (RFC 8446, section 5.1).
    ensure!(plain.is_empty() || plain[0] == 21, "gRPC without TLS is answered: {plain:?}");
    let logs = stack.compose(&["logs", "--no-color", "detector"])?;
    ensure!(logs.contains("direct path: caller refused"), "not in the detector's log");
    Ok(())
}

/// Updates of the zone without the key, and with a wrong one.
fn name_server() -> Result<()> {
    let pid = Container(format!("{PROJECT}-client")).pid()?.to_string();
    for key in [None, Some("hmac-sha256:understudy:d3JvbmcgYnV0IGxvbmcgZW5vdWdoIHRvIGJlIG9uZQ==")] {
        let mut command = std::process::Command::new("nsenter");
        command.args(["-t", &pid, "-n", "knsupdate"]).stdin(Stdio::piped());
        if let Some(key) = key {
            command.args(["-y", key]);
        }
        let mut update =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting knsupdate")?;
        update.stdin.take().context("it has an input")?.write_all(UPDATE.as_bytes())?;
        ensure!(!update.wait()?.success(), "the update was taken (key {key:?})");
    }
    Ok(())
}

/// A viewer's container tries to steer, with the only credential that it has.
fn command_line(stack: &Stack) -> Result<()> {
    let key = "UNDERSTUDY_NATS__NKEY_FILE=/etc/understudy/credentials/viewer.nk";
    let run = ["run", "--rm", "-T", "-e", key, "cli", "switchover", "--group", "web"];
    let Err(refused) = stack.compose(&run) else { bail!("a viewer has switched over") };
    ensure!(format!("{refused:#}").contains("not allowed"), "{refused:#}");
    Ok(())
}

#[test]
fn nobody_gets_in_who_does_not_belong_and_nothing_moves() -> Result<()> {
    let stack = Stack::up()?;
    let active = stack.active()?;
    let epoch = || stack.wait_status("an epoch", |status| status["groups"][0]["slots"][0]["epoch"].as_u64());
    let before = epoch()?;
    stack.nothing_moves("attempts to get in", || {
        message_bus(&stack, &active).context("NATS")?;
        pages(&stack, &active).context("the pages")?;
        direct_path(&stack).context("the direct path")?;
        name_server().context("the name server")?;
        command_line(&stack).context("the command line")
    })?;
    ensure!(epoch()? == before, "the epoch has moved");
    stack.wait_ready()?;
    // And everybody who belongs was given all that is needed; only the viewer's command above was denied something.
    let logs = stack.compose(&["logs", "--no-color", "nats-2", "nats-3"])?;
    let refused = |line: &&str| line.contains("Violation") && !line.contains("rust:cli/");
    let denied: Vec<_> = logs.lines().filter(refused).collect();
    ensure!(denied.is_empty(), "{denied:#?}");
    stack.end();
    Ok(())
}
