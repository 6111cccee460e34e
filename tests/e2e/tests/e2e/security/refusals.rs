//! Carries the table out: every attempt is refused, the refusal shows, and nothing moves.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message as _;
use understudy_e2e::{SOON, Stage};
use understudy_lab::{
    CLIENT_PORT, KEY_NAME, MONITOR_PORT,
    deployment::{DETECTOR_PAGES, DIRECT_PORT, NAME, Plan},
    fetch, wait_until,
};
use understudy_wire::v1::{self, node_message};

use super::{
    attempts::{Attempt, HOLDER, Refusal, Told, What, Who, table},
    intruder::{self, Act, Caller, Outcome},
    keys::{Keys, SCALER, plan, said, sample},
    leaks,
};

/// What the witness needs.
const WITNESS: Duration = Duration::from_millis(100);
/// A user of the host that has nothing to do with Understudy.
const NOBODY: &str = "65534";

/// A secured deployment that somebody attacks.
struct Scene {
    stage: Stage,
    keys: Keys,
}

impl Scene {
    fn set() -> Result<Self> {
        let plan = Plan { more: SCALER.to_owned(), ..plan("refuse", None) };
        let stage = Stage::with("refusals", plan)?;
        let keys = Keys::of(&stage)?;
        Ok(Self { stage, keys })
    }

    fn caller(&self, who: Who) -> Result<Caller> {
        let ca = Some(self.keys.file("nats-ca.pem"));
        Ok(match who {
            Who::Nobody => Caller { ca, ..Caller::default() },
            Who::Stranger => {
                Caller { seed: Some(nkeys::KeyPair::new_user().seed()?), ca, ..Caller::default() }
            }
            Who::Guesser => Caller { login: Some(("admin".into(), "admin".into())), ca, ..Caller::default() },
            Who::Doubter => Caller { seed: Some(self.keys.text("viewer.nk")?), ..Caller::default() },
            Who::Owner(owner) => {
                Caller { seed: Some(self.keys.text(&format!("{owner}.nk"))?), ca, ..Caller::default() }
            }
        })
    }

    fn direct(&self) -> SocketAddr {
        self.stage.deployment.detectors[0].host().socket(DIRECT_PORT)
    }

    /// What the first detector counts under `name`.
    fn counted(&self, name: &str) -> Result<u64> {
        let host = self.stage.deployment.detectors[0].host();
        Ok(sample(&self.keys.metrics(&self.stage.deployment, ("detector", host, DETECTOR_PAGES))?, name))
    }

    fn detector_log(&self) -> String {
        self.stage.deployment.detectors[0].log_text()
    }

    /// Waits until the log of a server shows all of `words` in a line written after `from` (bytes of each log).
    fn logged(&self, from: &[usize], words: &[&str]) -> Result<()> {
        wait_until(&format!("a line with {words:?} in the log of a NATS server"), SOON, || {
            let mut logs = self.server_logs().into_iter().zip(from);
            logs.any(|(log, from)| {
                log[*from..].lines().any(|line| words.iter().all(|word| line.contains(word)))
            })
        })
    }

    fn server_logs(&self) -> Vec<String> {
        self.stage.deployment.nats.servers().iter().map(|server| server.process().log_text()).collect()
    }

    /// Connections that the server has closed for `reason`: it writes no line for a client that does not begin with TLS.
    fn closed(&self, reason: &str) -> Result<usize> {
        let host = self.stage.deployment.nats.servers()[0].host();
        let page = fetch(host, host.socket(MONITOR_PORT), "/connz?state=closed", SOON)?;
        Ok(page.body.matches(reason).count())
    }

    fn try_nats(&self, who: Who, act: &Act, refused: bool) -> Result<Outcome> {
        let server = self.stage.deployment.nats.servers()[0].host();
        intruder::nats(&self.stage.deployment.client, server, &self.caller(who)?, act, refused)
    }

    /// Bytes that are no TLS; until the other side has had enough.
    fn try_plain(&self, to: SocketAddr) -> Result<()> {
        self.stage.deployment.client.enter(move || {
            let mut stream = TcpStream::connect(to).context("connecting")?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").context("sending")?;
            let mut answer = Vec::new();
            // A reset is an end as good as any.
            let _ = stream.read_to_end(&mut answer);
            ensure!(!String::from_utf8_lossy(&answer).contains("PONG"), "the server talks without TLS");
            Ok(())
        })?
    }

    fn try_direct(
        &self,
        who: Who,
        messages: Vec<node_message::Message>,
    ) -> Result<Result<(), tonic::Status>> {
        let client = &self.stage.deployment.client;
        match who {
            Who::Owner("nats") => {
                // Trusts the right authority, but shows what the other one has signed.
                let file = |name: &str| self.keys.file(name);
                let tls = understudy_bus::Tls::load(&file("ca.pem"), &file("nats.pem"), &file("nats.key"))?;
                intruder::direct(client, self.direct(), Some(&tls), messages)
            }
            Who::Owner(owner) => {
                intruder::direct(client, self.direct(), Some(&self.keys.tls(owner)?), messages)
            }
            _ => intruder::direct_unknown(client, self.direct(), &self.keys.text("ca.pem")?, messages),
        }
    }

    fn carry_out(&self, attempt: &Attempt) -> Result<()> {
        let log: Vec<_> = self.server_logs().iter().map(String::len).collect();
        match (&attempt.what, &attempt.refusal) {
            (What::Nats(act), Refusal::Out(words)) => {
                let outcome = self.try_nats(attempt.who, act, true)?;
                ensure!(matches!(outcome, Outcome::Out(_)), "{outcome:?}");
                self.logged(&log, &[words])
            }
            (What::Nats(act), Refusal::Denied) => {
                let outcome = self.try_nats(attempt.who, act, true)?;
                let Outcome::Refused(error) = outcome else { bail!("{outcome:?}") };
                let subject = subject(act);
                ensure!(error.contains("Permissions Violation") && error.contains(subject), "{error}");
                let Who::Owner(owner) = attempt.who else { bail!("an owner is denied") };
                let key = self.keys.text(&format!("{owner}.pub"))?;
                self.logged(&log, &["Violation", &key, subject])
            }
            (What::Nats(act), Refusal::Counted(reason, words, _)) => self.counts(reason, words, || {
                let outcome = self.try_nats(attempt.who, act, false)?;
                ensure!(matches!(outcome, Outcome::Taken), "{outcome:?}");
                Ok(())
            }),
            (What::Direct(messages), Refusal::Counted(reason, words, told)) => {
                self.counts(reason, words, || {
                    let result = self.try_direct(attempt.who, messages.clone())?;
                    ensure!(result.is_err() == (*told == Told::Yes), "{result:?}");
                    Ok(())
                })
            }
            (What::Plain(true), Refusal::Out(words)) => {
                let before = self.closed(words)?;
                self.try_plain(self.stage.deployment.nats.servers()[0].host().socket(CLIENT_PORT))?;
                wait_until("the server lists the connection it closed", SOON, || {
                    self.closed(words).is_ok_and(|now| now > before)
                })
            }
            (What::Plain(false), Refusal::Counted(reason, words, _)) => {
                self.counts(reason, words, || self.try_plain(self.direct()))
            }
            (What::Page(token), Refusal::Status(status)) => {
                let name = "understudy_http_refused_total";
                let (before, host) = (self.counted(name)?, self.stage.deployment.detectors[0].host());
                let page = ("detector", host, DETECTOR_PAGES);
                let page = self.keys.page(&self.stage.deployment, page, "/metrics", *token)?;
                ensure!(
                    page.status == *status && !page.body.contains("understudy_"),
                    "{}: {}",
                    page.status,
                    page.body
                );
                ensure!(self.counted(name)? == before + 1, "not counted");
                ensure!(self.detector_log().contains("pages: caller refused"), "not logged");
                Ok(())
            }
            (What::Command(arguments), Refusal::Says(words)) => {
                let Who::Owner(owner) = attempt.who else { bail!("a command needs an owner") };
                let output = self.stage.deployment.understudy_as(owner, arguments)?;
                ensure!(!output.status.success() && said(&output).contains(words), "{}", said(&output));
                let key = self.keys.text(&format!("{owner}.pub"))?;
                self.logged(&log, &["Publish Violation", &key])
            }
            _ => bail!("the table has no such refusal"),
        }
    }

    /// Does `act`, then waits until the detector has counted one more refusal for `reason` and logged `words`.
    fn counts(&self, reason: &str, words: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let name = format!("understudy_bus_refused_total{{reason=\"{reason}\"}}");
        let before = self.counted(&name)?;
        act()?;
        wait_until(&format!("the detector counts {reason}"), SOON, || {
            self.counted(&name).is_ok_and(|now| now > before)
        })?;
        // One line in ten seconds: it may be of an attempt before.
        ensure!(self.detector_log().contains(words), "{words:?} is not in the detector's log");
        Ok(())
    }

    /// A release that its holder really sent is heard by a thief, and said again when it is long over.
    fn replay(&self) -> Result<()> {
        let deployment = &self.stage.deployment;
        let (client, server) = (&deployment.client, deployment.nats.servers()[0].host());
        let spy = self.caller(Who::Owner("detector.2"))?;
        let overheard = intruder::overhear(client, server, &spy, "understudy.lab.release.web.web-a", || {
            self.stage.fails_over("executor kill -9, secured", HOLDER, WITNESS, |deployment| {
                deployment.node("web-a").executor.kill9()
            })
        })?;
        deployment.node("web-a").executor.restart()?;
        deployment.wait_standbys()?;
        let subject = "understudy.lab.release.web.web-a".to_owned();
        let release = v1::Release::decode(&*overheard)?;
        let (ignored, since) = ("understudy_releases_ignored_total", self.stage.probe.mark());
        for owner in ["executor.web.web-a", "heartbeat.web.web-a"] {
            let before = self.counted(ignored)?;
            let act = Act::Publish(subject.clone(), overheard.clone());
            let outcome = self.try_nats(Who::Owner(owner), &act, false)?;
            ensure!(matches!(outcome, Outcome::Taken), "{outcome:?}");
            let hello =
                v1::Hello { cluster: "lab".into(), group: "web".into(), node: "web-a".into(), grants: false };
            let says =
                vec![node_message::Message::Hello(hello), node_message::Message::Release(release.clone())];
            self.try_direct(Who::Owner(owner), says)??;
            wait_until("both replayed releases are ignored", SOON, || {
                self.counted(ignored).is_ok_and(|now| now >= before + 2)
            })?;
            self.unmoved()?;
        }
        ensure!(self.detector_log().contains("a release frees nothing"), "not logged");
        self.stage.nothing_moves("replayed releases", HOLDER, since, Duration::from_secs(1))
    }

    /// The socket between the two processes of a node, called by another user of the host.
    fn another_user(&self) -> Result<()> {
        let node = self.stage.deployment.node(HOLDER);
        let socket = node.host.folder().join(format!("{HOLDER}.sock"));
        let call = || -> Result<String> {
            // Of perl-base, which every Debian has where every user may read it.
            let script = r#"alarm 10; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "connect: $!\n";
                my $n = sysread($s, my $bytes, 64); print defined $n ? "got $n\n" : "read: $!\n";"#;
            let mut command = node.host.command("setpriv")?;
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
            command.args(["/usr/bin/perl", "-MIO::Socket::UNIX", "-e", script]).arg(&socket);
            Ok(said(&command.output().context("running setpriv")?))
        };
        let told = call()?;
        ensure!(told.contains("connect: Permission denied"), "the file's mode lets another user in: {told}");
        // Somebody has opened the file, and the folders on the way: the kernel still says who calls.
        let open = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        open(node.host.folder(), 0o755)?;
        open(&socket, 0o666)?;
        let told = call()?;
        ensure!(
            told.contains("got 0") || told.contains("read: Connection reset"),
            "another user was let in: {told}"
        );
        ensure!(node.heartbeat.log_text().contains("node.sock: caller refused"), "not logged");
        open(&socket, 0o660)?;
        Ok(())
    }

    /// Updates of the zone without the key, and with a wrong one.
    fn name_server(&self) -> Result<()> {
        let server = self.stage.deployment.name_server()?;
        let before = server.records(NAME, "A")?;
        let wrong = format!("hmac-sha256:{KEY_NAME}:{}", "d3JvbmcgYnV0IGxvbmcgZW5vdWdoIHRvIGJlIG9uZQ==");
        for key in [None, Some(wrong)] {
            let mut command = self.stage.deployment.client.command("knsupdate")?;
            if let Some(key) = &key {
                command.args(["-y", key]);
            }
            let file = self.stage.deployment.network.folder().join("update.txt");
            let address = server.address();
            let update = format!(
                "server {} {}\nzone ha.test.\nupdate delete {NAME} A\nupdate add {NAME} 1 A 10.77.0.5\nsend\n",
                address.ip(),
                address.port()
            );
            fs::write(&file, update)?;
            let output = command.arg(&file).output().context("running knsupdate")?;
            ensure!(!output.status.success(), "the update was taken (key {key:?}): {}", said(&output));
        }
        ensure!(server.records(NAME, "A")? == before, "the zone has changed");
        let log = server.process().log_text();
        ensure!(log.contains("ACL, denied, action update"), "the server has not logged it: {log}");
        Ok(())
    }

    /// Nobody else serves. Whether the holder did all the time is judged by [`Stage::nothing_moves`] at the end: one look
    /// may fall into a moment in which this machine stands still.
    fn unmoved(&self) -> Result<()> {
        let other = self.stage.probe.serving_now().filter(|node| node != HOLDER);
        ensure!(other.is_none(), "{other:?} serves instead of {HOLDER}");
        Ok(())
    }
}

fn subject(act: &Act) -> &str {
    match act {
        Act::Connect => "",
        Act::Publish(subject, _)
        | Act::Subscribe(subject)
        | Act::Join(subject, _)
        | Act::Redirect(subject, _)
        | Act::Deliver(subject) => subject,
    }
}

#[test]
fn every_attempt_is_refused_logged_and_moves_nothing() -> Result<()> {
    let scene = Scene::set()?;
    scene.replay().context("a replayed release")?;
    let (epoch, since) = (scene.stage.dns_epoch()?, scene.stage.probe.mark());
    let table = table();
    ensure!(table.len() >= 30, "{} attempts are too few", table.len());
    let mut failed = Vec::new();
    for attempt in &table {
        if let Err(error) = scene.carry_out(attempt).and_then(|()| scene.unmoved()) {
            failed.push(format!("{}: {error:#}", attempt.name));
        }
    }
    ensure!(
        failed.is_empty(),
        "{} of {} were not refused:\n{}",
        failed.len(),
        table.len(),
        failed.join("\n")
    );
    scene.another_user().context("another user at node.sock")?;
    scene.name_server().context("the name server")?;
    scene.stage.nothing_moves("attempts with stolen credentials", HOLDER, since, Duration::from_secs(1))?;
    ensure!(scene.stage.dns_epoch()? == epoch, "the epoch has moved");
    scene.stage.deployment.wait_granting()?;
    scene.stage.deployment.wait_standbys()?;
    leaks::none(&scene.stage, &scene.keys, &[], Some("detector.2"))?;
    scene.stage.end()
}
