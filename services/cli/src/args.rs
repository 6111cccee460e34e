//! What may be said on the command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args as Group, Parser, Subcommand};
use clap_complete::Shell;
use understudy_wire::{GroupId, NodeId};

/// Shows and steers an Understudy deployment.
#[derive(Debug, Parser)]
#[command(
    name = "understudy",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 78 configuration refused."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the deployment is. A configuration file says it all; --nats and --cluster do for looking.
#[derive(Debug, Group)]
pub(crate) struct Global {
    /// Configuration file of the deployment; the environment overrides it
    #[arg(
        long,
        global = true,
        help_heading = "Deployment",
        value_name = "FILE",
        env = "UNDERSTUDY_CONFIG",
        hide_env_values = true
    )]
    pub(crate) config: Option<OsString>,
    /// NATS servers, with commas between them
    // Not shown: an address may hold a password.
    #[arg(
        long,
        global = true,
        help_heading = "Deployment",
        value_name = "URL",
        env = "UNDERSTUDY_NATS__SERVERS",
        hide_env_values = true
    )]
    pub(crate) nats: Option<String>,
    /// Name of the deployment
    #[arg(
        long,
        global = true,
        help_heading = "Deployment",
        value_name = "NAME",
        env = "UNDERSTUDY_CLUSTER",
        hide_env_values = true
    )]
    pub(crate) cluster: Option<String>,
    /// Number of seats, where no configuration says it
    #[arg(
        long,
        global = true,
        help_heading = "Deployment",
        value_name = "S",
        env = "UNDERSTUDY_DETECTOR__SEATS",
        hide_env_values = true
    )]
    pub(crate) seats: Option<String>,
    /// How long to wait for an answer
    #[arg(long, global = true, help_heading = "Deployment", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show who serves, who waits, and whether one more may fail
    ///
    /// Asks every detector and merges what they say. Exits with 1 when a slot has no holder.
    Status(Status),
    /// Show what happens, as it happens, until Ctrl-C
    Watch(Watch),
    /// Show the history: takeovers step by step, judgements, commands
    Events(Events),
    /// Move a slot to another node, on purpose
    ///
    /// The holder answers: it refuses, with the reason, while no standby could follow.
    Switchover(Switchover),
    /// Keep a node from being chosen, or let it be chosen again
    Maintenance {
        #[command(subcommand)]
        action: Maintenance,
    },
    /// Ask for a size: so many that serve, and so many that wait
    ///
    /// The leading autoscaler stores it. What is left out is as the load says, and as configured.
    Scale(Scale),
    /// Pause the autoscaler for a group, let it go on, or ask why it does what it does
    Scaling {
        #[command(subcommand)]
        action: Scaling,
    },
    /// Check a configuration file without starting anything
    Validate(Validate),
    /// Make a development authority, and certificate, nkey and tokens for everybody in a configuration
    ///
    /// What is there already is kept, so that it can be run again after a node was added.
    Certs(Certs),
    /// Print the NATS servers' accounts, users and permissions for a configuration
    ///
    /// For the servers: understudy nats-auth understudy.toml --keys certs > nats-auth.conf
    NatsAuth(NatsAuth),
    /// Print the completions of a shell
    ///
    /// For bash: understudy completions bash > /etc/bash_completion.d/understudy
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Debug, Group)]
pub(crate) struct Status {
    /// This group only
    #[arg(long, short, value_name = "GROUP")]
    pub(crate) group: Option<GroupId>,
    /// One JSON object, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Watch {
    /// This group only
    #[arg(long, short, value_name = "GROUP")]
    pub(crate) group: Option<GroupId>,
    /// One JSON object a line, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Events {
    /// This group only
    #[arg(long, short, value_name = "GROUP")]
    pub(crate) group: Option<GroupId>,
    /// How many, the newest
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) last: u32,
    /// Go on with what comes, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// One JSON object a line, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Switchover {
    /// Group of the slot
    #[arg(long, short, value_name = "GROUP")]
    pub(crate) group: GroupId,
    /// Slot to move
    #[arg(long, value_name = "SLOT", default_value_t = 0)]
    pub(crate) slot: u16,
    /// Node that should follow; without it the first in line
    #[arg(long, value_name = "NODE")]
    pub(crate) to: Option<NodeId>,
    /// Return when the new holder serves (the default)
    #[arg(long, overrides_with = "no_wait")]
    pub(crate) wait: bool,
    /// Return when the holder has accepted
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long the new holder may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) wait_for: Duration,
    /// Idempotency key: the same one again is the same switchover
    #[arg(long, value_name = "KEY")]
    pub(crate) request: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Maintenance {
    /// The node is not chosen any more; what it holds goes to a standby that is ready
    On(Member),
    /// The node may be chosen again
    Off(Member),
    /// Which nodes are in maintenance
    List {
        /// This group only
        #[arg(long, short, value_name = "GROUP")]
        group: Option<GroupId>,
        /// One JSON object, for programs
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Group)]
pub(crate) struct Scale {
    /// The group
    #[arg(long, short, value_name = "GROUP")]
    pub(crate) group: GroupId,
    /// Nodes that serve, whatever the load says; within min and max of the group
    #[arg(long, value_name = "N", required_unless_present_any = ["standby", "auto"])]
    pub(crate) active: Option<u16>,
    /// Nodes that wait
    #[arg(long, value_name = "M")]
    pub(crate) standby: Option<u16>,
    /// As the load says, and as configured
    #[arg(long, conflicts_with_all = ["active", "standby"])]
    pub(crate) auto: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scaling {
    /// Do nothing at all for the group until `resume`
    Pause {
        /// The group
        #[arg(long, short, value_name = "GROUP")]
        group: GroupId,
    },
    /// Go on
    Resume {
        /// The group
        #[arg(long, short, value_name = "GROUP")]
        group: GroupId,
    },
    /// Give the repair budget of the hour anew
    GrantBudget {
        /// The group
        #[arg(long, short, value_name = "GROUP")]
        group: GroupId,
    },
    /// Show the last decisions and the one of now, each rule's word, also for doing nothing
    Explain(Explain),
}

#[derive(Debug, Group)]
pub(crate) struct Explain {
    /// The group
    #[arg(long, short, value_name = "GROUP")]
    pub(crate) group: GroupId,
    /// How many of the last decisions
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) last: u32,
}

#[derive(Debug, Group)]
pub(crate) struct Member {
    /// Its group
    #[arg(long, short, value_name = "GROUP")]
    pub(crate) group: GroupId,
    /// The node
    #[arg(long, short, value_name = "NODE")]
    pub(crate) node: NodeId,
}

#[derive(Debug, Group)]
pub(crate) struct Validate {
    /// The file
    pub(crate) file: PathBuf,
    /// Lay this process's environment over it, as a service would
    #[arg(long)]
    pub(crate) env: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Certs {
    /// The configuration; group.<name>.members are the nodes
    pub(crate) file: PathBuf,
    /// Folder for keys and certificates
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Group)]
pub(crate) struct NatsAuth {
    /// The configuration; group.<name>.members are the nodes
    pub(crate) file: PathBuf,
    /// Folder with the public keys that `certs` has made
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: PathBuf,
}

/// Longest time that is waited: a longer one is a mistake, and one of ages would end beyond what a clock can show.
const LONGEST: Duration = Duration::from_secs(3600);

/// A duration such as `500ms`; a zero one would answer nothing.
fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if span.is_zero() => Err("must be longer than 0".to_owned()),
        Ok(span) if span > LONGEST => Err("must be at most 1h".to_owned()),
        Ok(span) => Ok(span),
        Err(error) => Err(format!("{error}; write it like 500ms or 2s")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn names_that_would_change_a_subject_are_refused() {
        for bad in ["web.*", "", ">", "a b"] {
            let parsed = Args::try_parse_from(["understudy", "status", "--group", bad]);
            assert_eq!(parsed.unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn the_last_of_wait_and_no_wait_counts() {
        let parse = |flags: &[&str]| {
            let all = ["understudy", "switchover", "--group", "web"].iter().chain(flags);
            match Args::try_parse_from(all).unwrap().command {
                Command::Switchover(args) => args.no_wait,
                other => panic!("{other:?}"),
            }
        };
        assert!(!parse(&[]) && parse(&["--no-wait"]) && !parse(&["--no-wait", "--wait"]));
    }

    #[test]
    fn a_zero_timeout_is_refused() {
        assert!(duration("0s").is_err() && duration("soon").is_err());
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
    }

    #[test]
    fn a_timeout_that_no_clock_can_show_is_refused() {
        assert_eq!(duration("1h"), Ok(LONGEST));
        for long in ["3601s", "10000000000000000000s", "584000000000years"] {
            assert!(duration(long).is_err(), "{long}");
        }
    }
}
