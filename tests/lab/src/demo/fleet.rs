//! What keeps the group's size, once the failovers are over: autoscalers, and the yard that their driver stands for.

use anyhow::{Context as _, Result};

use crate::{
    Autoscaler, Deployment, Process, Yard,
    deployment::{Plan, SCALERS, Scaling, http_check},
    workload::IN_FLIGHT,
};

/// Clients that one node is to have at a time.
pub(super) const TARGET: usize = 4;
/// Most nodes that serve.
const MOST: usize = 2;
/// Hosts for nodes that join.
const SPARE: usize = 3;

/// The deployment of the demo. Windows are short, so that an act takes seconds; the load signal counts connections, so
/// that a slot which drains is closed when its last client has gone.
pub(super) fn plan() -> Plan {
    let port = crate::deployment::PORT;
    let rules = "start_up = \"5s\"\ndrain = \"10s\"\nwindow_out = \"1s\"\nwindow_in = \"3s\"\ncooldown_in = \"2s\"\n\
                 [group.web.scaling.repair]\nafter = \"2s\"\n\
                 [[group.web.scaling.target]]\nsignal = \"connections\"\n";
    let signal = format!(
        "[[group.web.signal]]\nname = \"connections\"\nurl = \"http://127.0.0.1:{port}/metrics\"\n\
         metric = \"{IN_FLIGHT}\"\ninterval = \"250ms\"\ntimeout = \"250ms\"\n"
    );
    Plan {
        scaling: Some(Scaling {
            max: MOST,
            autoscalers: (1..=2).map(|number| format!("scaler-{number}")).collect(),
            one_name: true,
            rules: format!("{rules}value = {TARGET}.0\n"),
        }),
        joining: (1..=SPARE).map(|number| format!("web-{number}")).collect(),
        group: http_check() + &signal,
        ..Plan::new("demo")
    }
}

/// The autoscalers and what they work on. Dropping it ends them, and the nodes that they have ordered.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) yard: Yard<'a>,
    autoscalers: Vec<Autoscaler>,
    /// Who acts, and the epoch of its slot.
    pub(super) leader: (String, u64),
}

impl<'a> Fleet<'a> {
    /// Starts the autoscalers and waits until one of them acts.
    ///
    /// # Errors
    /// When one does not start, or none is elected.
    pub(super) fn muster(deployment: &'a Deployment) -> Result<Self> {
        let yard = Yard::open(deployment)?;
        let autoscalers = Autoscaler::start(deployment, usize::MAX)?;
        let elected = deployment.wait_status("an autoscaler is elected", |status| {
            let groups = status["groups"].as_array()?;
            let slot = &groups.iter().find(|group| group["group"] == SCALERS)?["slots"][0];
            Some((slot["holder"].as_str()?.to_owned(), slot["epoch"].as_u64()?))
        });
        let leader = elected?;
        let acting = autoscalers.iter().find(|one| one.name() == leader.0).context("an elected stranger")?;
        // It listens for a while before it decides anything, and then shows what it has seen.
        let standbys = (deployment.plan.members.len() - deployment.plan.active) as f64;
        yard.wait("the elected autoscaler to know every standby", || {
            let ready = acting.metric("understudy_standbys_ready{group=\"web\"}").ok()?;
            (acting.leads().ok()? && ready >= standbys).then_some(())
        })?;
        Ok(Self { deployment, yard, autoscalers, leader })
    }

    /// How many autoscalers there are.
    pub(super) fn autoscalers(&self) -> usize {
        self.autoscalers.len()
    }

    /// Does something with each process of the deployment that is to run.
    ///
    /// # Errors
    /// The first one of `each`.
    pub(super) fn try_for_each_process(&self, mut each: impl FnMut(&Process) -> Result<()>) -> Result<()> {
        self.deployment.servers().try_for_each(&mut each)?;
        self.autoscalers.iter().map(|one| &one.process).try_for_each(&mut each)?;
        self.yard.try_for_each_process(each)
    }
}
