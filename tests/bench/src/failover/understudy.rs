//! Understudy under comparison: three NATS servers, three detectors, a holder and a hot standby.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use understudy_lab::{
    Deployment, Probe,
    deployment::{Member, Node, Plan, VIP},
};

use super::{Fault, LEASE_INTERVALS, System};

/// Names of the nodes.
const MEMBERS: [&str; 2] = ["web-a", "web-b"];

pub(super) struct Understudy(Deployment);

impl Understudy {
    /// Returns when one node serves and the other is ready.
    pub(super) fn start(interval: Duration) -> Result<Self> {
        let plan = Plan {
            members: MEMBERS.map(|name| Member::hot(name, 100)).into(),
            interval,
            lease: LEASE_INTERVALS * interval,
            name_servers: Vec::new(),
            ..Plan::new("compare")
        };
        let deployment = Deployment::start(plan)?;
        deployment.wait_granting()?;
        deployment.wait_standbys()?;
        Ok(Self(deployment))
    }

    pub(super) fn deployment(&self) -> &Deployment {
        &self.0
    }

    fn signal(node: &Node, signal: Signal) -> Result<()> {
        // The executor first: a publisher that dies before it would leave it a moment to release.
        [&node.executor, &node.heartbeat].iter().try_for_each(|process| process.signal(signal))
    }
}

impl System for Understudy {
    fn name(&self) -> &'static str {
        "understudy"
    }

    fn probe(&self) -> Result<Probe> {
        let [one, other] = MEMBERS.map(|name| &self.0.node(name).host);
        super::probe(&self.0.network, &self.0.client, [one, other], VIP)
    }

    fn members(&self) -> [&str; 2] {
        MEMBERS
    }

    fn timeout_ms(&self) -> f64 {
        self.0.plan.lease.as_secs_f64() * 1e3
    }

    fn inflict(&self, fault: Fault, holder: &str, heir: &str) -> Result<()> {
        let node = self.0.node(holder);
        match fault {
            Fault::Switchover => {
                let output = self.0.understudy(&["switchover", "--group", "web", "--to", heir])?;
                ensure!(output.status.success(), "refused: {}", String::from_utf8_lossy(&output.stderr));
                Ok(())
            }
            Fault::DaemonKilled => Self::signal(node, Signal::SIGKILL),
            Fault::DaemonStopped => Self::signal(node, Signal::SIGSTOP),
            Fault::Cut | Fault::LinkBetween => bail!("a fault of the network"),
        }
    }

    fn mend(&self, fault: Fault, holder: &str) -> Result<()> {
        let node = self.0.node(holder);
        match fault {
            Fault::DaemonKilled => node.services().iter().try_for_each(|process| process.restart())?,
            Fault::DaemonStopped => Self::signal(node, Signal::SIGCONT)?,
            Fault::Cut | Fault::Switchover | Fault::LinkBetween => {}
        }
        self.0.wait_granting()?;
        self.0.wait_standbys()
    }
}
