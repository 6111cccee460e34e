//! What the demo says before its first act.

use std::{fs, thread::available_parallelism, time::Duration};

use super::timeline::{WIDTH, wrap};
use crate::{
    ZONE,
    deployment::{NAME, PORT, Plan, VIP},
};

/// Columns before the text.
const INDENT: usize = 14;

/// The machine that all of it shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Cores that this process may use; 0: not known.
    pub(super) cores: usize,
    /// Release of the kernel; empty: not known.
    pub(super) kernel: String,
    /// Load average of the last minute; empty: not known.
    pub(super) load: String,
}

impl Machine {
    /// Asks the kernel.
    pub(super) fn read() -> Self {
        let word = |file: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.split_whitespace().next().unwrap_or_default().to_owned()
        };
        Self {
            cores: available_parallelism().map_or(0, usize::from),
            kernel: word("/proc/sys/kernel/osrelease"),
            load: word("/proc/loadavg"),
        }
    }
}

/// What is started, how many of it, and on what.
pub(super) fn text(plan: &Plan, machine: &Machine) -> String {
    let Plan { nats, detectors, interval, lease, .. } = plan;
    let quorum = detectors / 2 + 1;
    let mut members = plan.members.iter();
    let active = members.next().map_or("nobody", |member| member.name.as_str());
    let standbys: Vec<String> =
        members.map(|member| format!("{} ({} standby)", member.name, member.standby)).collect();
    let scaling = plan.scaling.as_ref();
    let (autoscalers, most) =
        scaling.map_or((0, plan.active), |scaling| (scaling.autoscalers.len(), scaling.max));
    let Machine { cores, kernel, load } = machine;
    let lines = [
        ("machine", format!("{cores} cores, Linux {kernel}, load {load}; all that follows shares them")),
        (
            "starting",
            format!(
                "{nats} NATS servers, {detectors} detectors ({quorum} are a quorum), Knot DNS with the zone {ZONE}, \
                 the nodes {active} (active), {}, each with an HTTP workload, a heartbeat and an executor; every \
                 host is a network namespace of its own",
                standbys.join(", ")
            ),
        ),
        (
            "timing",
            format!("a heartbeat every {} ms, a lease lasts {} ms", interval.as_millis(), lease.as_millis()),
        ),
        (
            "later",
            format!(
                "{autoscalers} autoscalers, of which one acts: it replaces a node that is lost, and keeps {} to {most} \
                 active with the load, {} standby beside them",
                plan.active,
                plan.members.len() - plan.active
            ),
        ),
        (
            "client",
            format!(
                "asks {VIP}:{PORT} once a millisecond, and the name server for {NAME} every 20 ms; watchers ask \
                 each node for {VIP} as often, to see whether two of them answer"
            ),
        ),
    ];
    let lines = lines.map(|(word, text)| format!("{word:>12}  {}\n", wrap(&text, INDENT, WIDTH)));
    format!(
        "Understudy: one active, its standbys, five failovers, and a load that rises and falls\n\n{}\n",
        lines.concat()
    )
}

/// A step of the start, and when it was done.
pub(super) fn progress(after: Duration, what: &str) -> String {
    format!("{:>10.1} s  {}\n", after.as_secs_f64(), wrap(what, INDENT, WIDTH))
}

#[cfg(test)]
mod tests {
    use super::{super::fleet, *};

    #[test]
    fn the_opening_says_what_is_started_on_what() {
        let machine = Machine { cores: 2, kernel: "6.1.0".to_owned(), load: "0.31".to_owned() };
        let expected = "\
Understudy: one active, its standbys, five failovers, and a load that rises and falls

     machine  2 cores, Linux 6.1.0, load 0.31; all that follows shares them
    starting  3 NATS servers, 3 detectors (2 are a quorum), Knot DNS with the zone ha.test., the
              nodes web-a (active), web-b (hot standby), web-c (hot standby), each with an HTTP
              workload, a heartbeat and an executor; every host is a network namespace of its own
      timing  a heartbeat every 100 ms, a lease lasts 300 ms
       later  2 autoscalers, of which one acts: it replaces a node that is lost, and keeps 1 to 2
              active with the load, 2 standby beside them
      client  asks 10.77.0.100:8080 once a millisecond, and the name server for web.ha.test. every
              20 ms; watchers ask each node for 10.77.0.100 as often, to see whether two of them
              answer

";
        assert_eq!(text(&fleet::plan(), &machine), expected);
    }

    #[test]
    fn progress_stands_under_its_times() {
        assert_eq!(progress(Duration::from_millis(1240), "it runs"), "       1.2 s  it runs\n");
    }
}
