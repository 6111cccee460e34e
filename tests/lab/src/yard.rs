//! Where an autoscaler's members come from: its exec driver keeps files, and whoever tends the yard starts and kills the
//! nodes that they stand for, each on a host of its own.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    Deployment, Host, Probe, Process,
    deployment::{Member, Node},
    wait_until,
};

/// The driver's commands.
const DRIVER: &str = include_str!("yard/member.sh");
/// Number of the first host that is not in the plan.
const FIRST: u8 = 60;
/// Below every node of the plan.
const PRIORITY: i32 = 50;
/// A member is ready within seconds; one that is replaced goes only when the group has what it needs without it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Folder of the driver beside the configuration.
pub(crate) fn folder(config: &Path) -> PathBuf {
    config.with_file_name("yard")
}

/// `[group.web.scaling.template]` of a driver in this folder.
pub(crate) fn template(folder: &Path) -> String {
    let command = format!("[\"/bin/sh\", {:?}, {folder:?}]", folder.join("member.sh"));
    format!(
        "[group.web.scaling.template]\ndriver = \"exec\"\ntimeout = \"20s\"\n\
         list = {command}\nstart = {command}\nremove = {command}\n"
    )
}

/// The members of a deployment that is scaled. Nothing happens by itself: [`Yard::tend`] has to be called, and whatever
/// waits here does.
#[derive(Debug)]
pub struct Yard<'a> {
    deployment: &'a Deployment,
    folder: PathBuf,
    /// Hosts for members that are not in the plan.
    spare: RefCell<BTreeMap<String, Host>>,
    started: RefCell<BTreeMap<String, Node>>,
    /// Members that were removed, and so were killed here.
    gone: RefCell<BTreeSet<String>>,
}

impl<'a> Yard<'a> {
    /// Writes the driver with the plan's members as they run, and makes hosts for those that may join.
    ///
    /// # Errors
    /// When files or hosts cannot be made.
    pub fn open(deployment: &'a Deployment) -> Result<Self> {
        let folder = folder(&deployment.config());
        let context = || format!("making {}", folder.display());
        fs::create_dir_all(folder.join("members")).with_context(context)?;
        fs::write(folder.join("member.sh"), DRIVER).with_context(context)?;
        for member in &deployment.plan.members {
            fs::write(folder.join("members").join(&member.name), "").with_context(context)?;
        }
        let (spare, started, gone) = (RefCell::default(), RefCell::default(), RefCell::default());
        let yard = Self { deployment, folder, spare, started, gone };
        deployment.plan.joining.iter().try_for_each(|name| yard.host(name).map(drop))?;
        Ok(yard)
    }

    /// The driver's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every member that the driver lists.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn members(&self) -> Result<BTreeSet<String>> {
        let files = fs::read_dir(self.folder.join("members")).context("reading the driver's members")?;
        files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Whether a start has left this member half made.
    fn is_half(&self, name: &str) -> bool {
        fs::read_to_string(self.folder.join("members").join(name)).is_ok_and(|key| key.starts_with("half:"))
    }

    /// Lines of the driver's record of starts that end with this word: `began` or `made`; all of them for "".
    pub fn calls(&self, word: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("calls")).unwrap_or_default();
        text.lines().filter(|line| line.ends_with(word)).map(str::to_owned).collect()
    }

    /// Starts members that are new, kills those that were removed. One that ended by itself stays as it is: that is
    /// what a repair is for.
    ///
    /// # Errors
    /// When one cannot be started or killed.
    pub fn tend(&self) -> Result<()> {
        let members = self.members()?;
        let (mut started, mut gone) = (self.started.borrow_mut(), self.gone.borrow_mut());
        for name in &members {
            let back = gone.remove(name);
            let known = self.deployment.nodes.iter().find(|node| node.host.name() == name);
            match known.or_else(|| started.get(name)) {
                Some(node) if back => node.restart()?,
                Some(_) => {}
                None if self.is_half(name) => {}
                None => {
                    let node = self.deployment.join(&Member::hot(name, PRIORITY), &self.host(name)?)?;
                    started.insert(name.clone(), node);
                }
            }
        }
        for node in self.deployment.nodes.iter().chain(started.values()) {
            let name = node.host.name();
            if !members.contains(name) && gone.insert(name.to_owned()) {
                node.processes().into_iter().try_for_each(Process::kill9)?;
            }
        }
        Ok(())
    }

    /// Tends the yard until there is what is waited for.
    ///
    /// # Errors
    /// When it cannot be tended, or the time is over.
    pub fn wait<T>(&self, what: &str, mut wanted: impl FnMut() -> Option<T>) -> Result<T> {
        wait_until(what, PATIENCE, || match self.tend() {
            Ok(()) => wanted().map(Ok),
            Err(error) => Some(Err(error)),
        })?
    }

    /// As [`Deployment::wait_status`], while members come and go.
    ///
    /// # Errors
    /// As [`Yard::wait`].
    pub fn wait_status<T>(
        &self,
        what: &str,
        mut wanted: impl FnMut(&serde_json::Value) -> Option<T>,
    ) -> Result<T> {
        let mut untended = None;
        let seen = self.deployment.wait_status(what, |status| match self.tend() {
            Ok(()) => wanted(status),
            Err(error) => {
                untended = Some(error);
                None
            }
        });
        match untended {
            Some(error) if seen.is_err() => Err(error.context(format!("waiting: {what}"))),
            _ => seen,
        }
    }

    /// Hosts of all members, also of those that have not joined yet.
    pub fn hosts(&self) -> Vec<Host> {
        let planned = self.deployment.nodes.iter().map(|node| node.host.clone());
        planned.chain(self.spare.borrow().values().cloned()).collect()
    }

    /// Probes an address from the client, and by watchers of all hosts that members are on or may come to.
    ///
    /// # Errors
    /// When the probe cannot be started.
    pub fn probe_vip(&self, vip: &str) -> Result<Probe> {
        let hosts = self.hosts();
        self.deployment.probe_hosts(vip, &hosts.iter().collect::<Vec<_>>())
    }

    /// Does something with each process of the members that were not removed.
    ///
    /// # Errors
    /// The first one of `each`.
    pub fn try_for_each_process(&self, each: impl FnMut(&Process) -> Result<()>) -> Result<()> {
        let (started, gone) = (self.started.borrow(), self.gone.borrow());
        let nodes = self.deployment.nodes.iter().chain(started.values());
        let nodes = nodes.filter(|node| !gone.contains(node.host.name()));
        nodes.flat_map(Node::processes).try_for_each(each)
    }

    /// The host of this member, made if there is none.
    fn host(&self, name: &str) -> Result<Host> {
        let mut spare = self.spare.borrow_mut();
        if let Some(host) = spare.get(name) {
            return Ok(host.clone());
        }
        let number = FIRST + u8::try_from(spare.len())?;
        let host = self.deployment.network.host_numbered(name, number)?;
        spare.insert(name.to_owned(), host.clone());
        Ok(host)
    }
}
