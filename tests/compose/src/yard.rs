//! A deployment whose members the autoscaler itself makes, on the real engine: NATS, a name server, three detectors and
//! three autoscalers with the engine's socket, without credentials, in a network that nothing else shares.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use understudy_lab::wait_until;

use crate::engine::{Container, docker};

/// The deployment, and what the names of all that is made begin with.
pub const CLUSTER: &str = "understudy-test";
/// Network of the members.
pub const NETWORK: &str = "understudy-test-yard";
/// The name server.
pub const NAME_SERVER: &str = "172.29.78.53";
/// Autoscalers, of which one acts.
pub const SCALERS: usize = 3;
/// For anything that must happen, but whose speed is not the point: engine and processors are shared.
const SOON: Duration = Duration::from_secs(120);
/// Label of everything here that the autoscaler has not made.
const LABEL: &str = "understudy-test-yard";
/// Everybody who may send an update may do so here.
const KNOT: &str = "server:\n  rundir: /tmp\n  listen: 0.0.0.0@53\nlog:\n  - target: stdout\n    any: info\n\
                    database:\n  storage: /tmp\nacl:\n  - id: all\n    address: 0.0.0.0/0\n    action: update\n\
                    zone:\n  - domain: ha.test.\n    storage: /tmp\n    file: /config/ha.test.zone\n    acl: all\n    \
                    zonefile-sync: -1\n    zonefile-load: whole\n    journal-content: changes\n";

/// The deployment. Dropping it takes everything away, the members, too.
pub struct Yard {
    folder: TempDir,
    groups: Vec<String>,
    ended: bool,
}

/// `[group.<name>]` and all below it: one slot for each of `vips`, so many of which serve at first.
pub struct Plan<'a> {
    /// Name.
    pub group: &'a str,
    /// Addresses of the slots, without prefix.
    pub vips: &'a [&'a str],
    /// Keys of `[group.<name>.scaling]`, tables last.
    pub scaling: &'a str,
    /// `[group.<name>.scaling.template]` with all below it.
    pub template: &'a str,
}

impl Plan<'_> {
    /// As it stands in the file.
    pub fn text(&self) -> String {
        let Plan { group, vips, scaling, template } = self;
        let slot = |(index, vip): (usize, &&str)| {
            format!("[[group.{group}.slot]]\nvips = [\"{vip}/24\"]\nnames = [\"{group}-{index}.ha.test.\"]\n")
        };
        let slots: String = vips.iter().enumerate().map(slot).collect();
        format!(
            "[group.{group}]\nactive = 1\nstandby = 1\n{slots}\
             [[group.{group}.check]]\nkind = \"http\"\nurl = \"http://127.0.0.1:8080/healthz\"\ntimeout = \"500ms\"\n\
             interval = \"500ms\"\n\
             [group.{group}.scaling]\n{scaling}\n[group.{group}.scaling.template]\n{template}\n"
        )
    }
}

/// Three containers of a member: the sample workload, or `understudy-burn` where a request costs something.
pub fn three_containers(group: &str, config: &Path, burns: Option<&Path>) -> String {
    let nginx = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/nginx/nginx.conf");
    let workload = match burns {
        Some(program) => format!(
            "image = \"debian:bookworm-slim\"\ncommand = [\"/burn\", \"0.0.0.0:8080\", \"10ms\"]\n\
             volumes = [\"{}:/burn:ro\"]\ncpus = 0.5\n",
            program.display()
        ),
        None => format!(
            "image = \"nginx:stable\"\nentrypoint = [\"nginx\", \"-c\", \"/etc/nginx/nginx.conf\", \"-g\", \"daemon \
             off;\"]\nvolumes = [\"{}:/etc/nginx/nginx.conf:ro\"]\n",
            nginx.display()
        ),
    };
    let given = format!(
        "env = {{ UNDERSTUDY_CONFIG = \"/etc/understudy.toml\" }}\nvolumes = [\"{}:/etc/understudy.toml:ro\"]\n\
         read_only = true\nmemory = 128\npids = 64\n",
        config.display()
    );
    let key = format!("group.{group}.scaling.template");
    format!(
        "driver = \"docker\"\n[{key}.workload]\n{workload}user = \"65532:65532\"\ntmpfs = [\"/tmp:mode=1777,size=16m\"]\n\
         networks = [\"{NETWORK}\"]\nread_only = true\nstop_timeout = \"2s\"\n\
         [{key}.heartbeat]\nimage = \"understudy/heartbeat\"\n{given}\
         [{key}.executor]\nimage = \"understudy/executor\"\n{given}\
         tmpfs = [\"/var/lib/understudy:uid=65532,gid=65532,mode=0750,size=1m\"]\n"
    )
}

impl Yard {
    /// Starts it from nothing; `plans` are told where the configuration will be.
    ///
    /// # Errors
    /// When a step fails.
    pub fn up(plans: impl FnOnce(&Path) -> Vec<String>) -> Result<Self> {
        Self::up_in(plans, || {
            let place = ["--subnet", "172.29.78.0/24", "--ip-range", "172.29.78.128/25"];
            docker(&[&["network", "create"], &place[..], &[NETWORK]].concat()).map(drop)
        })
    }

    /// The same, in a network that is made by `network`.
    ///
    /// # Errors
    /// When a step fails.
    pub fn up_in(
        plans: impl FnOnce(&Path) -> Vec<String>,
        network: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("understudy-test-yard-").tempdir()?;
        let config = folder.path().join("understudy.toml");
        let plans = plans(&config);
        let groups =
            plans.iter().filter_map(|plan| Some(plan.split_once("[group.")?.1.split_once(']')?.0.to_owned()));
        let yard = Self { groups: groups.collect(), folder, ended: false };
        yard.clear().context("taking an earlier run's deployment away")?;
        network().context("making the network")?;
        let head = format!(
            "cluster = \"{CLUSTER}\"\nnats.servers = [\"nats://nats:4222\"]\naccess.insecure = true\n\
             detector.seats = 3\nlease = {{ interval = \"100ms\", duration = \"2s\", max = \"3s\" }}\n\
             dns = {{ servers = [\"{NAME_SERVER}:53\"], zone = \"ha.test.\" }}\nrealtime.enabled = false\n\
             autoscaler = {{ interval = \"1s\", group = \"scaler\" }}\n[group.scaler]\nactive = 1\nstandby = 2\n"
        );
        fs::write(&config, format!("{head}{}", plans.concat()))?;
        // Read by users of containers, which are nobody here.
        yard.open_to_all()?;
        yard.start()?;
        Ok(yard)
    }

    fn open_to_all(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755))?;
        fs::write(
            self.folder.path().join("ha.test.zone"),
            "$ORIGIN ha.test.\n$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 172.29.78.53\n",
        )?;
        Ok(fs::write(self.folder.path().join("knot.conf"), KNOT)?)
    }

    fn start(&self) -> Result<()> {
        run("nats", &["nats:2.15"], &[], &["-js", "-sd", "/tmp/jetstream"])?;
        let config = format!("{}:/config:ro", self.folder.path().display());
        let knot = ["--ip", NAME_SERVER, "-v", &config, "--user", "0:0"];
        run("dns", &["cznic/knot:3.4"], &knot, &["knotd", "-c", "/config/knot.conf"])?;
        for seat in 1..=3 {
            let seat = format!("UNDERSTUDY_DETECTOR__SEAT={seat}");
            let name = seat.replace("UNDERSTUDY_DETECTOR__SEAT=", "detector-");
            self.service(&name, "understudy/detector", &["-e", &seat])?;
        }
        for number in 1..=SCALERS {
            let name = format!("UNDERSTUDY_NODE__NAME=scaler-{number}");
            let engine = ["-e", &name, "--user", "0:0", "-v", "/var/run/docker.sock:/var/run/docker.sock"];
            self.service(&format!("scaler-{number}"), "understudy/autoscaler", &engine)?;
        }
        self.service("cli", "understudy/cli", &[]).map(drop)
    }

    fn service(&self, name: &str, image: &str, more: &[&str]) -> Result<()> {
        let config = format!("{}:/etc/understudy.toml:ro", self.config().display());
        let usual =
            ["-e", "UNDERSTUDY_CONFIG=/etc/understudy.toml", "-v", &config, "--restart", "unless-stopped"];
        let command: &[&str] = if image.ends_with("/cli") { &["watch"] } else { &[] };
        run(name, &[image], &[&usual, more].concat(), command)
    }

    /// The configuration of everybody.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("understudy.toml")
    }

    /// A container that the autoscaler has not made.
    pub fn container(&self, name: &str) -> Container {
        Container(format!("{CLUSTER}-{name}"))
    }

    /// `understudy <arguments>`; what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn understudy(&self, arguments: &[&str]) -> Result<String> {
        docker(&[&["exec", &self.container("cli").0, "/usr/bin/understudy"], arguments].concat())
    }

    /// Waits until the status of a group is as wanted.
    ///
    /// # Errors
    /// When it is not in time; with the last status and what the autoscaler says.
    pub fn wait_group<T>(
        &self,
        group: &str,
        what: &str,
        mut wanted: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        let mut last = Value::Null;
        let seen = wait_until(&format!("{group}: {what}"), SOON, || {
            let status: Value = serde_json::from_str(&self.understudy(&["status", "--json"]).ok()?).ok()?;
            last = status["groups"].as_array()?.iter().find(|one| one["group"] == group)?.clone();
            wanted(&last)
        });
        seen.with_context(|| {
            let explained = self.understudy(&["scaling", "explain", "--group", group]);
            format!("the status is {last:#}; {}", explained.unwrap_or_else(|error| format!("{error:#}")))
        })
    }

    /// Waits until `active` nodes serve and `standby` more are ready; who serves and who waits.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn wait_whole(
        &self,
        group: &str,
        active: usize,
        standby: usize,
    ) -> Result<(Vec<String>, Vec<String>)> {
        self.wait_group(group, &format!("{active} serve, {standby} wait"), |status| {
            let (holders, ready) = (holders(status)?, names(&status["ready_standbys"])?);
            (holders.len() == active && ready.len() == standby).then_some((holders, ready))
        })
    }

    /// The autoscaler that leads.
    ///
    /// # Errors
    /// When none does in time.
    pub fn leader(&self) -> Result<Container> {
        let leader = self.wait_group("scaler", "one leads", |status| holders(status)?.pop())?;
        Ok(self.container(&leader))
    }

    /// Parts of each member of a group that the engine knows, those that have ended, too.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn members(&self, group: &str) -> Result<BTreeMap<String, Vec<String>>> {
        let filter = format!("label=understudy.group={group}");
        let cluster = format!("label=understudy.cluster={CLUSTER}");
        let form = "{{.Label \"understudy.node\"}} {{.Label \"understudy.part\"}}";
        let text = docker(&["ps", "-a", "--filter", &filter, "--filter", &cluster, "--format", form])?;
        let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (node, part) in text.lines().filter_map(|line| line.split_once(' ')) {
            members.entry(node.to_owned()).or_default().push(part.to_owned());
        }
        Ok(members)
    }

    /// A container of a member.
    pub fn part(&self, group: &str, node: &str, part: &str) -> String {
        format!("{CLUSTER}.{group}.{node}.{part}")
    }

    /// The good end of a test.
    pub fn end(mut self) {
        self.ended = true;
    }

    fn clear(&self) -> Result<()> {
        let ids = |filter: &str| docker(&["ps", "-aq", "--filter", &format!("label={filter}")]);
        // First those that would make others again.
        let mut all: Vec<String> = ids(LABEL)?.lines().map(str::to_owned).collect();
        remove(&all)?;
        all = ids(&format!("understudy.cluster={CLUSTER}"))?.lines().map(str::to_owned).collect();
        remove(&all)?;
        // Where the engine is in no swarm there are none.
        for service in docker(&["service", "ls", "-q"]).unwrap_or_default().lines() {
            docker(&["service", "rm", service])?;
        }
        let volumes =
            docker(&["volume", "ls", "-q", "--filter", &format!("label=understudy.cluster={CLUSTER}")])?;
        for volume in volumes.lines() {
            docker(&["volume", "rm", volume])?;
        }
        let there = || docker(&["network", "ls", "--format", "{{.Name}}"]);
        wait_until("the network is removed", SOON, || {
            // The last task of a service leaves it when it likes.
            let _ = docker(&["network", "rm", NETWORK]);
            there().is_ok_and(|names| !names.lines().any(|name| name == NETWORK))
        })
    }

    fn tell(&self) {
        for number in 1..=SCALERS {
            let mut logs = Command::new("docker");
            logs.args(["logs", "--tail", "60", &self.container(&format!("scaler-{number}")).0]);
            let said = logs.output().map(|Output { stdout, stderr, .. }| [stdout, stderr].concat());
            let said = said.map(|said| String::from_utf8_lossy(&said).into_owned());
            eprintln!("scaler-{number}: {}", said.unwrap_or_default());
        }
        let all = docker(&[
            "ps",
            "-a",
            "--filter",
            &format!("name={CLUSTER}"),
            "--format",
            "{{.Names}} {{.Status}}",
        ]);
        eprintln!(
            "groups {:?} of {}: {}",
            self.groups,
            self.folder.path().display(),
            all.unwrap_or_default()
        );
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if !self.ended {
            self.tell();
        }
        if let Err(error) = self.clear() {
            eprintln!("taking the deployment away: {error:#}");
        }
    }
}

fn remove(ids: &[String]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    docker(&[&["rm", "-fv"], &ids[..]].concat()).map(drop)
}

fn run(name: &str, image: &[&str], options: &[&str], command: &[&str]) -> Result<()> {
    let full = format!("{CLUSTER}-{name}");
    let place =
        ["run", "-d", "--name", &full, "--network", NETWORK, "--network-alias", name, "--label", LABEL];
    docker(&[&place[..], options, image, command].concat()).with_context(|| format!("starting {full}"))?;
    Ok(())
}

/// Who serves, by slot; `None` while the status is not to be read.
pub fn holders(status: &Value) -> Option<Vec<String>> {
    let slots = status["slots"].as_array()?;
    Some(slots.iter().filter_map(|slot| slot["holder"].as_str().map(str::to_owned)).collect())
}

fn names(list: &Value) -> Option<Vec<String>> {
    Some(list.as_array()?.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// A member and each of its three containers are there once.
///
/// # Errors
/// When one is there twice or is missing.
pub fn each_once(members: &BTreeMap<String, Vec<String>>) -> Result<()> {
    for (node, parts) in members {
        let mut parts = parts.clone();
        parts.sort_unstable();
        ensure!(parts == ["executor", "heartbeat", "workload"], "{node} has {parts:?}");
    }
    Ok(())
}
