//! Members by commands: anything that a program can start.
//!
//! Each call runs one command, which reads one JSON object from its standard input:
//!
//! ```json
//! {"action":"start","cluster":"demo","group":"web","node":"web-4","key":"web/fill/web-4",
//!  "label":"rack","domain":"r1","replaces":"web-2"}
//! ```
//!
//! `list` answers with the members on its standard output, the others with nothing, or with an object that may hold an
//! `error`:
//!
//! ```json
//! [{"node":"web-4","state":"running","key":"web/fill/web-4","labels":{"rack":"r1"}},
//!  {"node":"web-2","state":"ended","cause":"exited with 127"}]
//! ```
//!
//! Any other exit code than 0 is a failure too, with the last of what was written to standard error. A command is killed
//! with its whole process group when its time is up.

use std::{
    collections::BTreeMap,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use futures_util::future::BoxFuture;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStderr, ChildStdout, Command},
};
use understudy_service::config::Template;
use understudy_wire::{ClusterId, GroupId, NodeId};

use super::{Driver, DriverError, Instance, MAX_MEMBERS, MAX_REASON, Start, State, short};

/// Bytes of an answer: a list of ten thousand members with their labels.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// What a command has written is in the pipe when it ends; the runtime hears of it within this.
const REST: Duration = Duration::from_millis(50);

/// What a command is given.
#[derive(Debug, Serialize)]
struct Question<'a> {
    action: &'static str,
    cluster: &'a str,
    group: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<&'a str>,
}

/// One member in the answer to `list`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    node: NodeId,
    state: Word,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    cause: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Starting,
    Running,
    Ended,
}

/// The answer to everything else.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    error: String,
}

/// The commands of one group.
#[derive(Debug)]
pub struct Exec {
    cluster: ClusterId,
    group: GroupId,
    list: Vec<String>,
    start: Vec<String>,
    remove: Vec<String>,
    restart: Vec<String>,
}

impl Exec {
    /// The commands of a template, which was checked.
    pub fn new(cluster: &ClusterId, group: &GroupId, template: &Template) -> Self {
        Self {
            cluster: cluster.clone(),
            group: group.clone(),
            list: template.list.clone(),
            start: template.start.clone(),
            remove: template.remove.clone(),
            restart: template.restart.clone(),
        }
    }

    fn question(&self, action: &'static str) -> Question<'_> {
        let (cluster, group) = (self.cluster.as_str(), self.group.as_str());
        Question { action, cluster, group, node: None, key: None, label: None, domain: None, replaces: None }
    }

    async fn order(&self, command: &[String], question: &Question<'_>) -> Result<(), DriverError> {
        let said = run(command, question).await?;
        if said.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let answer: Answer = serde_json::from_slice(&said)
            .map_err(|error| DriverError(format!("{}: its answer cannot be read: {error}", command[0])))?;
        if answer.error.is_empty() { Ok(()) } else { Err(DriverError(short(&answer.error))) }
    }

    async fn members(&self) -> Result<BTreeMap<NodeId, Instance>, DriverError> {
        let said = run(&self.list, &self.question("list")).await?;
        let program = &self.list[0];
        let listed: Vec<Listed> = serde_json::from_slice(&said)
            .map_err(|error| DriverError(format!("{program}: its list cannot be read: {error}")))?;
        if listed.len() > MAX_MEMBERS {
            let count = listed.len();
            return Err(DriverError(format!("{program}: lists {count} members, {MAX_MEMBERS} are taken")));
        }
        let mut members = BTreeMap::new();
        for Listed { node, state, key, cause, labels } in listed {
            let state = match state {
                Word::Starting => State::Starting,
                Word::Running => State::Running,
                Word::Ended if cause.is_empty() => State::Ended("it has ended".into()),
                Word::Ended => State::Ended(short(&cause)),
            };
            if members.insert(node.clone(), Instance { state, key, labels, removable: true }).is_some() {
                return Err(DriverError(format!("{program}: lists {node} twice")));
            }
        }
        Ok(members)
    }
}

impl Driver for Exec {
    fn list(&self) -> BoxFuture<'_, Result<BTreeMap<NodeId, Instance>, DriverError>> {
        Box::pin(self.members())
    }

    fn start<'a>(&'a self, start: &'a Start) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async move {
            let question = Question {
                node: Some(start.node.as_str()),
                key: Some(&start.key),
                label: start.domain.as_ref().map(|(label, _)| label.as_str()),
                domain: start.domain.as_ref().map(|(_, value)| value.as_str()),
                replaces: start.replaces.as_ref().map(NodeId::as_str),
                ..self.question("start")
            };
            self.order(&self.start, &question).await
        })
    }

    fn stop<'a>(&'a self, key: &'a str, node: &'a NodeId) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async move {
            let question = Question { node: Some(node.as_str()), key: Some(key), ..self.question("remove") };
            self.order(&self.remove, &question).await
        })
    }

    fn restart<'a>(&'a self, key: &'a str, node: &'a NodeId) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async move {
            let question = Question { node: Some(node.as_str()), key: Some(key), ..self.question("restart") };
            self.order(&self.restart, &question).await
        })
    }

    fn can_restart(&self) -> bool {
        !self.restart.is_empty()
    }
}

/// Kills a command's whole process group when it is dropped before the command has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already is what is wanted.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs a command to its end; what it wrote to its standard output.
async fn run(command: &[String], question: &Question<'_>) -> Result<Vec<u8>, DriverError> {
    let program = command.first().cloned().unwrap_or_default();
    let failed = |step: &str, error: &io::Error| DriverError(format!("{step} {program}: {error}"));
    let mut child = Command::new(&program)
        .args(command.iter().skip(1))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("starting", &error))?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.map(Pid::from_raw));
    let question = serde_json::to_vec(question).map_err(|error| DriverError(error.to_string()))?;
    let mut talk = Talk::with(&mut child);
    let status = talk.until_end(&mut child, &question).await.map_err(|error| failed("talking to", &error))?;
    // What it has started on purpose outlives it.
    group.0 = None;
    if talk.answer.len() > MAX_ANSWER {
        return Err(DriverError(format!("{program}: answers more than {MAX_ANSWER} bytes")));
    }
    if !status.success() {
        let reason = short(&String::from_utf8_lossy(&talk.reason));
        return Err(DriverError(format!("{program} ended with {status}: {reason}")));
    }
    Ok(talk.answer)
}

/// What is said to and by a command. It is over when the process ends, even if a daemon that it has started still holds
/// a pipe.
struct Talk {
    output: Option<ChildStdout>,
    errors: Option<ChildStderr>,
    answer: Vec<u8>,
    reason: Vec<u8>,
}

impl Talk {
    fn with(child: &mut Child) -> Self {
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        Self { output, errors, answer: Vec::new(), reason: Vec::new() }
    }

    async fn until_end(&mut self, child: &mut Child, question: &[u8]) -> io::Result<ExitStatus> {
        let input = child.stdin.take();
        let write = async {
            if let Some(mut input) = input {
                // It need not read what it does not want to know.
                let _ = input.write_all(question).await;
            }
        };
        tokio::pin!(write);
        let mut writing = true;
        let status = loop {
            tokio::select! {
                biased;
                () = &mut write, if writing => writing = false,
                done = self.read() => {
                    done?;
                    if self.answer.len() > MAX_ANSWER {
                        return Err(io::Error::other(format!("it answers more than {MAX_ANSWER} bytes")));
                    }
                }
                status = child.wait() => break status?,
            }
        };
        while self.output.is_some() || self.errors.is_some() {
            let Ok(done) = tokio::time::timeout(REST, self.read()).await else { break };
            done?;
            if self.answer.len() > MAX_ANSWER {
                break;
            }
        }
        Ok(status)
    }

    /// Reads a piece of either; never done where both are closed.
    async fn read(&mut self) -> io::Result<()> {
        let (mut one, mut other) = ([0; 4096], [0; 512]);
        tokio::select! {
            length = read(&mut self.output, &mut one) => self.answer.extend_from_slice(&one[..length?]),
            length = read(&mut self.errors, &mut other) => {
                self.reason.extend_from_slice(&other[..length?]);
                let excess = self.reason.len().saturating_sub(MAX_REASON);
                self.reason.drain(..excess);
            }
        }
        Ok(())
    }
}

/// Reads a piece; a stream that has ended is closed, and gives nothing any more.
async fn read(stream: &mut Option<impl AsyncRead + Unpin>, piece: &mut [u8]) -> io::Result<usize> {
    let Some(open) = stream else { return std::future::pending().await };
    let length = open.read(piece).await?;
    if length == 0 {
        *stream = None;
    }
    Ok(length)
}
