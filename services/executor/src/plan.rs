//! What a takeover and a demotion do, as data: it can be printed, compared and refused before anything moves.
//!
//! Order of a takeover (design section 5): gate stays shut, start, promote, add address, open gate, announce, DNS,
//! verify from outside. Of a demotion: shut gate, release, remove address, demote. Each step can be done twice.

use std::{collections::BTreeMap, fmt, time::Duration};

use ipnet::IpNet;
use understudy_service::config::{Group, Hook, RecordAddress, SlotConfig};
use understudy_vip::gate::Guard;
use understudy_wire::{Slot, StandbyKind};

/// One step. Hooks and DNS need a confirmed epoch (rule R7), the rest does not wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Runs the start hook of a cold standby.
    Start(Hook),
    /// Waits until the checks of a started workload are up.
    AwaitHealthy,
    /// Runs the promote hook.
    Promote(Hook),
    /// Adds a VIP to the interface.
    AddAddress(IpNet),
    /// Lets traffic through until the lease ends.
    OpenGate(Vec<Guard>),
    /// Tells the neighbours.
    Announce(IpNet),
    /// Hands the record to the DNS updater, which never holds up the address.
    UpdateDns {
        /// Fully qualified name.
        name: String,
        /// What the slot contributes to it.
        address: RecordAddress,
    },
    /// Waits for other members to see this node behind the VIP.
    Verify(IpNet),
    /// Shuts the gate; nothing is served from here on.
    ShutGate(Vec<Guard>),
    /// Tells the seats that the slot is free.
    Release,
    /// Removes a VIP from the interface.
    RemoveAddress(IpNet),
    /// Runs the demote hook.
    Demote(Hook),
    /// Runs the stop hook of a cold standby.
    Stop(Hook),
}

impl Step {
    /// Short name, the key under which its duration is remembered.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::AwaitHealthy => "await healthy",
            Self::Promote(_) => "promote",
            Self::AddAddress(_) => "add address",
            Self::OpenGate(_) => "open gate",
            Self::Announce(_) => "announce",
            Self::UpdateDns { .. } => "DNS",
            Self::Verify(_) => "verify",
            Self::ShutGate(_) => "shut gate",
            Self::Release => "release",
            Self::RemoveAddress(_) => "remove address",
            Self::Demote(_) => "demote",
            Self::Stop(_) => "stop",
        }
    }

    /// Whether clients are served only after this step.
    pub fn delays_service(&self) -> bool {
        !matches!(self, Self::UpdateDns { .. } | Self::Verify(_))
    }

    /// Whether the step may only be done under a confirmed epoch (rule R7).
    pub fn needs_confirmed_epoch(&self) -> bool {
        matches!(self, Self::Start(_) | Self::Promote(_) | Self::UpdateDns { .. })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Start(hook) | Self::Promote(hook) | Self::Demote(hook) | Self::Stop(hook) => {
                write!(f, ": {} (at most {:?})", hook.command.join(" "), hook.timeout)
            }
            Self::AddAddress(vip) | Self::RemoveAddress(vip) => write!(f, " {vip}"),
            Self::Announce(vip) | Self::Verify(vip) => write!(f, " {}", vip.addr()),
            Self::OpenGate(guards) | Self::ShutGate(guards) => {
                guards.iter().try_for_each(|guard| match guard {
                    Guard::Address(address) => write!(f, " {address}"),
                    Guard::Service { address, protocol, port } => write!(f, " {address} {protocol:?} {port}"),
                })
            }
            Self::UpdateDns { name, address: RecordAddress::Vip } => write!(f, " {name} follows the VIP"),
            Self::UpdateDns { name, address: RecordAddress::Node } => write!(f, " {name} follows the node"),
            Self::AwaitHealthy | Self::Release => Ok(()),
        }
    }
}

/// Steps in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

/// Typical duration per step name, from earlier runs.
pub type Durations = BTreeMap<String, Duration>;

impl Plan {
    /// Time until clients are served, if every step that counts was timed before.
    pub fn predicted(&self, durations: &Durations) -> Option<Duration> {
        let counting = self.steps.iter().filter(|step| step.delays_service());
        counting.map(|step| durations.get(step.name()).copied()).sum()
    }

    /// The plan as text, one line a step, with what each took before.
    pub fn describe(&self, durations: &Durations) -> String {
        let line = |step: &Step| match durations.get(step.name()) {
            Some(took) => format!("  {step}  ~{:.2} ms\n", took.as_secs_f64() * 1e3),
            None => format!("  {step}\n"),
        };
        let steps: String = self.steps.iter().map(line).collect();
        match self.predicted(durations) {
            Some(total) => format!("{steps}  = {:.2} ms\n", total.as_secs_f64() * 1e3),
            None => format!("{steps}  = no earlier run to predict from\n"),
        }
    }
}

/// What a slot's gate guards: its VIPs, else the node's own service ports (a group without VIP, design section 5).
pub fn guards(group: &Group, slot: &SlotConfig, node_address: Option<std::net::IpAddr>) -> Vec<Guard> {
    if !slot.vips.is_empty() {
        return slot.vips.iter().map(|vip| Guard::Address(vip.addr())).collect();
    }
    let Some(address) = node_address else { return Vec::new() };
    let service = |port: &understudy_service::config::Port| Guard::Service {
        address,
        protocol: match port.protocol {
            understudy_service::config::Protocol::Tcp => understudy_vip::gate::Protocol::Tcp,
            understudy_service::config::Protocol::Udp => understudy_vip::gate::Protocol::Udp,
        },
        port: port.number,
    };
    group.ports.iter().map(service).collect()
}

/// What makes this node the holder of `slot`.
pub fn takeover(group: &Group, slot: &SlotConfig, kind: StandbyKind, guards: &[Guard]) -> Plan {
    let mut steps = Vec::new();
    if kind == StandbyKind::Cold
        && let Some(hook) = &group.hooks.start
    {
        steps.push(Step::Start(hook.clone()));
        if !group.checks.is_empty() {
            steps.push(Step::AwaitHealthy);
        }
    }
    steps.extend(group.hooks.promote.clone().map(Step::Promote));
    steps.extend(slot.vips.iter().copied().map(Step::AddAddress));
    if !guards.is_empty() {
        steps.push(Step::OpenGate(guards.to_vec()));
    }
    steps.extend(slot.vips.iter().copied().map(Step::Announce));
    let address = slot.record_address();
    steps.extend(slot.names.iter().map(|name| Step::UpdateDns { name: name.as_str().to_owned(), address }));
    steps.extend(slot.vips.iter().copied().map(Step::Verify));
    Plan { steps }
}

/// What ends this node's tenure of `slot`.
pub fn demotion(group: &Group, slot: &SlotConfig, kind: StandbyKind, guards: &[Guard]) -> Plan {
    let mut steps = Vec::new();
    if !guards.is_empty() {
        steps.push(Step::ShutGate(guards.to_vec()));
    }
    steps.push(Step::Release);
    steps.extend(slot.vips.iter().copied().map(Step::RemoveAddress));
    steps.extend(group.hooks.demote.clone().map(Step::Demote));
    if kind == StandbyKind::Cold {
        steps.extend(group.hooks.stop.clone().map(Step::Stop));
    }
    Plan { steps }
}

/// Both plans of every slot, as `--dry-run` prints them.
pub fn describe_all(
    group: &Group,
    kind: StandbyKind,
    node_address: Option<std::net::IpAddr>,
    durations: &Durations,
) -> String {
    let describe = |(index, slot): (usize, &SlotConfig)| {
        let (number, guards) =
            (Slot(u16::try_from(index).unwrap_or(u16::MAX)), guards(group, slot, node_address));
        let up = takeover(group, slot, kind, &guards).describe(durations);
        let down = demotion(group, slot, kind, &guards).describe(durations);
        format!("slot {number}: takeover\n{up}slot {number}: demotion\n{down}")
    };
    group.slots.iter().enumerate().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use understudy_service::config;

    /// Else a configuration would validate with which no executor starts, or whose names are never updated.
    #[test]
    fn the_configuration_knows_the_limits_of_gate_and_updater() {
        assert_eq!(config::MAX_GUARDS, understudy_vip::gate::GUARDS_MAX);
        assert_eq!(config::MAX_RECORD_ADDRESSES, understudy_dns::MAX_ADDRESSES);
        assert_eq!(config::MAX_SLOT_NAME, understudy_dns::MAX_NAME);
    }
}
