//! What is done to the deployment, and how it is undone.

use anyhow::{Result, ensure};

use crate::Deployment;

/// One act of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The active is cut off the network.
    CutOff,
    /// The executor of the active is stopped with SIGSTOP.
    StopExecutor,
    /// The workload of the active is killed.
    KillWorkload,
    /// The slot moves on command.
    Switchover,
    /// The first node gets the slot back.
    BringBack,
}

impl Act {
    /// All acts, in their order.
    pub(super) const ALL: [Self; 5] =
        [Self::CutOff, Self::StopExecutor, Self::KillWorkload, Self::Switchover, Self::BringBack];

    /// One line that says what is done.
    pub(super) fn title(self, from: &str, to: &str) -> String {
        match self {
            Self::CutOff => format!("{from} is cut off the network"),
            Self::StopExecutor => format!("the executor of {from} is stopped (SIGSTOP)"),
            Self::KillWorkload => format!("the workload of {from} is killed (SIGKILL)"),
            Self::Switchover => format!("switchover from {from} to {to} on command"),
            Self::BringBack => format!("the first node is brought back: switchover from {from} to {to}"),
        }
    }

    /// The same for a column of a table.
    pub(super) fn short(self) -> &'static str {
        match self {
            Self::CutOff => "active cut off the network",
            Self::StopExecutor => "executor stopped",
            Self::KillWorkload => "workload killed",
            Self::Switchover => "switchover on command",
            Self::BringBack => "first node brought back",
        }
    }

    /// Who is to serve afterwards: the next in line, or whom the command names. `line` is every node, the most
    /// preferred first.
    pub(super) fn heir<'a>(self, from: &str, line: &[&'a str]) -> Option<&'a str> {
        let mut others = line.iter().filter(|node| **node != from).copied();
        match self {
            Self::CutOff | Self::StopExecutor | Self::KillWorkload => others.next(),
            Self::Switchover => others.next_back(),
            Self::BringBack => line.first().copied().filter(|first| *first != from),
        }
    }

    /// Does it.
    pub(super) fn carry_out(self, deployment: &Deployment, from: &str, to: &str) -> Result<()> {
        match self {
            Self::CutOff => deployment.network.isolate(from),
            Self::StopExecutor => deployment.node(from).executor.stop(),
            Self::KillWorkload => deployment.node(from).workload.kill9(),
            Self::Switchover | Self::BringBack => {
                let output = deployment.understudy(&["switchover", "--group", "web", "--to", to])?;
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                ensure!(output.status.success(), "understudy switchover: {said}");
                Ok(())
            }
        }
    }

    /// Undoes it, and says what was done; nothing where there is nothing to undo.
    pub(super) fn undo(self, deployment: &Deployment, from: &str) -> Result<Option<String>> {
        let done = match self {
            Self::CutOff => {
                deployment.network.heal(from)?;
                format!("{from} is back on the network")
            }
            Self::StopExecutor => {
                deployment.node(from).executor.cont()?;
                format!("the executor of {from} goes on (SIGCONT)")
            }
            Self::KillWorkload => {
                deployment.node(from).workload.restart()?;
                format!("the workload of {from} is started again")
            }
            Self::Switchover | Self::BringBack => return Ok(None),
        };
        Ok(Some(done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acts_lead_from_the_first_node_back_to_it() {
        let line = ["web-a", "web-b", "web-c"];
        let mut holders = vec!["web-a"];
        for act in Act::ALL {
            let heir = act.heir(holders[holders.len() - 1], &line);
            holders.push(heir.expect("every act has an heir"));
        }
        assert_eq!(holders, ["web-a", "web-b", "web-a", "web-b", "web-c", "web-a"]);
    }

    #[test]
    fn nothing_is_brought_back_that_is_there() {
        assert_eq!(Act::BringBack.heir("web-a", &["web-a", "web-b"]), None);
    }
}
