//! `docs/benchmarks.md`: every figure that was measured, and whether it reaches what it should.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};

use crate::{
    detector,
    failover::{self, Fault, Row},
    figures::{load, repository},
    machine, node, scaling, takeover,
};

/// Part of keepalived's gap that ours may have after a node is cut off, by interval in ms.
const CUT_SHARE: [(u64, f64); 4] = [(100, 0.9), (50, 0.9), (20, 0.9), (10, 1.0)];
/// Longest gap of a switchover, ms.
const SWITCHOVER_MS: f64 = 10.0;
/// Heartbeats a second that one core takes in.
const HEARTBEATS: f64 = 150_000.0;
/// Bytes of a detector's memory for a node.
const NODE_BYTES: f64 = 2_048.0;
/// From heartbeat to grant at 1,000 nodes, p99, ms.
const RENEWAL_MS: f64 = 2.0;
/// From quorum to the first announcement, ms.
const ANNOUNCEMENT_MS: f64 = 2.0;
/// Of one core, for a node's two services.
const IDLE_CPU_PERCENT: f64 = 1.0;
/// Resident memory of a node's two services, MiB.
const IDLE_RSS_MIB: f64 = 30.0;

/// Part of the HPA rule's minutes over target that ours may have, and of its instance-hours.
const SCALING_SHARE: (f64, f64) = (0.5, 1.05);
/// A turn of the autoscaler for 1,000 groups, ms.
const TURN_MS: f64 = 100.0;
/// Most memory of the process meanwhile, MiB.
const TURN_MIB: f64 = 200.0;

/// One figure and what it should be.
struct Target {
    what: String,
    wanted: String,
    measured: String,
    reached: bool,
}

impl Target {
    fn at_most(what: impl Into<String>, most: f64, measured: f64, unit: &str) -> Self {
        Self {
            what: what.into(),
            wanted: format!("at most {} {unit}", number(most)),
            measured: format!("{} {unit}", number(measured)),
            reached: measured <= most,
        }
    }

    fn below(what: impl Into<String>, bound: f64, measured: f64, unit: &str) -> Self {
        let wanted = format!("under {} {unit}", number(bound));
        Self { wanted, reached: measured < bound, ..Self::at_most(what, bound, measured, unit) }
    }
}

/// Writes the document and says of each target on the terminal whether it was reached; whether all were.
pub(crate) fn write() -> Result<bool> {
    let mut targets = Vec::new();
    let mut body = String::new();
    if let Some(rows) = load::<Vec<Row>>(failover::FILE)? {
        failover_section(&rows, &mut targets, &mut body);
    }
    if let Some(figures) = load::<detector::Figures>(detector::FILE)? {
        detector_section(&figures, &mut targets, &mut body);
    }
    if let Some(figures) = load::<takeover::Figures>(takeover::FILE)? {
        takeover_section(&figures, &mut targets, &mut body);
    }
    if let Some(figures) = load::<node::Figures>(node::FILE)? {
        node_section(&figures, &mut targets, &mut body);
    }
    if let Some(figures) = load::<scaling::Figures>(scaling::FILE)? {
        scaling_section(&figures, &mut targets, &mut body);
    }
    for target in &targets {
        let verdict = if target.reached { "reached" } else { "MISSED " };
        println!("{verdict}  {}: {} ({})", target.what, target.measured, target.wanted);
    }
    let file = repository().join("docs/benchmarks.md");
    let text = format!("{}{}{body}", head(), table_of(&targets));
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(targets.iter().all(|target| target.reached))
}

fn head() -> String {
    format!(
        "# Benchmarks\n\n\
         Written by `make bench` (`tests/bench`); every figure was printed by a run on this machine: {}.\n\
         What was found on the way is in [performance.md](performance.md).\n\n",
        machine::description()
    )
}

fn table_of(targets: &[Target]) -> String {
    let mut text =
        "## What is to be reached\n\n| figure | to reach | measured | |\n|---|---|---|---|\n".to_owned();
    for Target { what, wanted, measured, reached } in targets {
        let verdict = if *reached { "reached" } else { "**missed**" };
        let _ = writeln!(text, "| {what} | {wanted} | {measured} | {verdict} |");
    }
    text
}

fn failover_section(rows: &[Row], targets: &mut Vec<Target>, text: &mut String) {
    let row = |system: &str, fault: Fault, interval: u64| {
        rows.iter().find(|row| row.system == system && row.fault == fault && row.interval_ms == interval)
    };
    for (interval, share) in CUT_SHARE {
        let pair = (row("understudy", Fault::Cut, interval), row("keepalived", Fault::Cut, interval));
        if let (Some(ours), Some(theirs)) = pair {
            let what = format!(
                "median gap, node cut off, {interval} ms heartbeats ({share} x keepalived's {} ms)",
                number(theirs.gap_ms.median)
            );
            let most = crate::figures::rounded(share * theirs.gap_ms.median);
            targets.push(Target::at_most(what, most, ours.gap_ms.median, "ms"));
        }
    }
    for ours in rows.iter().filter(|row| row.system == "understudy") {
        let interval = ours.interval_ms;
        if ours.fault == Fault::Switchover {
            let what = format!("median gap, switchover, {interval} ms heartbeats");
            targets.push(Target::below(what, SWITCHOVER_MS, ours.gap_ms.median, "ms"));
        }
        let what = format!("two nodes answer, {}, {interval} ms heartbeats", ours.fault.words());
        targets.push(Target::at_most(what, 0.0, ours.two_answering_ms, "ms"));
    }
    let _ = write!(
        text,
        "\n## Gaps that a client sees\n\n\
         One question a millisecond over UDP, the same for both systems; the longest time without an answer. The two\n\
         systems run side by side on one network (hosts of their own, same workload) and are hit in turn, in every\n\
         part of the interval alike. Timeout: Understudy's lease, T = {} I; keepalived's three advertisements and skew at its\n\
         default priority of 100 (version 2.2.7, VRRP 3, multicast, SCHED_RR, locked memory). \"Two answer\": for how\n\
         long at most two nodes answered at once, each asked directly, also behind the cut. Where nothing has to\n\
         move, the {} s after the fault were looked at: a figure of that size means \"for as long as was looked\".\n\
         \"Stalled\": what the machine itself stood still within the worst gap.\n\n\
         | fault | heartbeats | system | timeout | runs | median | worst | stalled | two answer |\n\
         |---|---:|---|---:|---:|---:|---:|---:|---:|\n",
        failover::LEASE_INTERVALS,
        failover::WINDOW.as_secs()
    );
    for row in rows {
        let worst =
            row.gaps_ms.iter().zip(&row.stalled_ms).max_by(|(one, _), (other, _)| one.total_cmp(other));
        let _ = writeln!(
            text,
            "| {} | {} ms | {} | {} ms | {} | {} ms | {} ms | {} ms | {} ms |",
            row.fault.words(),
            row.interval_ms,
            row.system,
            number(row.timeout_ms),
            row.runs,
            number(row.gap_ms.median),
            number(row.gap_ms.worst),
            number(worst.map_or(0.0, |(_, stalled)| *stalled)),
            number(row.two_answering_ms)
        );
    }
}

fn detector_section(figures: &detector::Figures, targets: &mut Vec<Target>, text: &mut String) {
    let rate = figures.heartbeats_per_second_per_core;
    targets.push(Target {
        what: "heartbeats a second that one core of a detector takes in".into(),
        wanted: format!("at least {}", number(HEARTBEATS)),
        measured: number(rate),
        reached: rate >= HEARTBEATS,
    });
    targets.push(Target::at_most(
        "memory of a detector for one node",
        NODE_BYTES,
        figures.bytes_per_node,
        "bytes",
    ));
    let what = "renewal at 1,000 nodes and 10 heartbeats a second, p99";
    targets.push(Target::below(what, RENEWAL_MS, figures.renewal_p99_ms, "ms"));
    text.push_str(
        "\n## Detector\n\n\
         The release build behind a real NATS server, pinned to one processor; server and load on the other. Nodes in\n\
         pairs, holder and standby. Intake: the most heartbeats a second that were all taken in, grants sent. Memory: growth\n\
         of anonymous memory (no code, no files) from no node to all with full windows, over NATS alone; 0\n\
         where all found room in what its start had left free. Renewal: heartbeat sent to grant received, ten heartbeats a\n\
         second and node.\n\n\
         | nodes | intake on one core | processor time each | memory a node | renewal median | p99 | worst | processor at 10 Hz |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for count in &figures.at {
        let _ = writeln!(
            text,
            "| {} | {}/s | {} us | {} bytes | {} ms | {} ms | {} ms | {} % |",
            count.nodes,
            number(count.heartbeats_per_second),
            number(count.cpu_us_per_heartbeat),
            number(count.bytes_per_node),
            number(count.renewal_median_ms),
            number(count.renewal_p99_ms),
            number(count.renewal_worst_ms),
            number(count.cpu_percent)
        );
    }
}

fn takeover_section(figures: &takeover::Figures, targets: &mut Vec<Target>, text: &mut String) {
    let what = "from quorum to first announcement, worst";
    targets.push(Target::below(what, ANNOUNCEMENT_MS, figures.quorum_to_announcement_ms, "ms"));
    let _ = write!(
        text,
        "\n## Takeover\n\n\
         Records of {} takeovers: from quorum to the end of the first announcement {} ms in the median, {} ms at worst.\n\
         The first holder of all, while everything starts: {} ms.\n\
         {} renewals of the gate (one IPv4 and one IPv6 address), asked for to answered by the kernel: {} us in the\n\
         median, {} us p99.\n",
        figures.takeovers,
        number(figures.quorum_to_announcement_median_ms),
        number(figures.quorum_to_announcement_ms),
        number(figures.first_holder_ms),
        figures.renewals,
        number(figures.gate_renewal_median_us),
        number(figures.gate_renewal_p99_us)
    );
}

fn node_section(figures: &node::Figures, targets: &mut Vec<Target>, text: &mut String) {
    let what = format!("idle node, heartbeat and executor at {} ms", figures.interval_ms);
    targets.push(Target::below(
        format!("{what}, processor"),
        IDLE_CPU_PERCENT,
        figures.cpu_percent,
        "% of a core",
    ));
    targets.push(Target::below(format!("{what}, resident memory"), IDLE_RSS_MIB, figures.rss_mib, "MiB"));
    let _ = write!(
        text,
        "\n## Idle node\n\n\
         Heartbeat and executor with an HTTP check every 100 ms. The node that is looked at and its workload have one\n\
         processor, everything that would be on other hosts has the other. The dearer of holder and standby: {} % of a core,\n\
         {} MiB resident ({} MiB with shared pages divided).\n\n\
         | service | processor | resident |\n|---|---:|---:|\n",
        number(figures.cpu_percent),
        number(figures.rss_mib),
        number(figures.pss_mib)
    );
    for service in &figures.services {
        let (cpu, rss) = (number(service.cpu_percent), number(service.rss_mib));
        let _ = writeln!(text, "| {} | {cpu} % | {rss} MiB |", service.name);
    }
}

fn scaling_section(figures: &scaling::Figures, targets: &mut Vec<Target>, text: &mut String) {
    let (minutes, hours) = SCALING_SHARE;
    let _ = write!(
        text,
        "\n## Autoscaling\n\n\
         The policy in simulation beside the rule of the Kubernetes HPA (ratio with 10 % tolerance, 15 s period, 300 s\n\
         down window) and target tracking with 60 s cooldown: same traces, same noise, same {} seeds; start-up time {} s;\n\
         everybody keeps M = {} standbys. Median (least to most). What to know before quoting this is in\n\
         [scaling.md](scaling.md#how-good-is-it).\n\n\
         | trace | rule | minutes over target | by more than a tenth | instance-hours |\n|---|---|---:|---:|---:|\n",
        figures.seeds, figures.start_up_seconds, figures.standby
    );
    for trace in &figures.traces {
        let (name, ratios) = (&trace.trace, &trace.ratios);
        let what = format!("median, {name} trace, ours over the HPA rule's");
        let measured = ratios.minutes_over_target.median;
        targets.push(Target::at_most(format!("minutes over target, {what}"), minutes, measured, "times"));
        let measured = ratios.instance_hours.median;
        targets.push(Target::at_most(format!("instance-hours, {what}"), hours, measured, "times"));
        let rules = [
            ("Understudy", &trace.understudy),
            ("HPA", &trace.hpa),
            ("target tracking", &trace.target_tracking),
        ];
        for (rule, cost) in rules {
            let _ = writeln!(
                text,
                "| {name} | {rule} | {} | {} | {} |",
                spread(&cost.minutes_over_target),
                spread(&cost.minutes_over_target_by_a_tenth),
                spread(&cost.instance_hours)
            );
        }
    }
    let large = &figures.large_cluster;
    let (groups, members) = (number(large.groups as f64), number(large.members as f64));
    let what = format!("turn of the autoscaler, {groups} groups, {members} members");
    targets.push(Target::below(format!("{what}, worst"), TURN_MS, large.turn_ms.most, "ms"));
    targets.push(Target::below(format!("{what}, memory"), TURN_MIB, large.peak_memory_mib, "MiB"));
    let _ = write!(
        text,
        "\nA turn for {groups} groups and {members} members: {} ms in the median of {}, {} ms at worst; {} MiB for the whole\n\
         process.\n",
        number(large.turn_ms.median),
        large.turns,
        number(large.turn_ms.most),
        number(large.peak_memory_mib)
    );
}

fn spread(of: &scaling::Spread) -> String {
    format!("{} ({} to {})", number(of.median), number(of.least), number(of.most))
}

/// As people read it: thousands apart, decimals only where they say something.
fn number(value: f64) -> String {
    if value.fract() != 0.0 && value.abs() < 1_000.0 {
        return if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") };
    }
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    format!("{sign}{}", groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let shown = [0.0, 9.0, 9.257, 12.34, 999.0, 150_000.0, 1_234_567.8].map(number);
        assert_eq!(shown, ["0", "9", "9.26", "12.3", "999", "150,000", "1,234,568"]);
    }
}
