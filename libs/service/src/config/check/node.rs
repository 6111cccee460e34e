//! This node, and whether it fits its group.

use std::net::{IpAddr, Ipv4Addr};

use understudy_wire::StandbyKind;

use super::{Checker, addresses::means_nothing_elsewhere};
use crate::config::{
    group::{Group, RecordAddress},
    schema::Config,
};

/// Longest interface name (IFNAMSIZ of the kernel without its NUL).
const MAX_INTERFACE: usize = 15;

/// Longest path of a Unix socket (unix(7)).
const MAX_SOCKET: usize = 107;

/// Labels are sent with heartbeats.
const MAX_LABELS: usize = 32;

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let node = &config.node;
    if let Some(name) = &node.group
        && !config.groups.contains_key(name)
        && !checker.doubtful(&["group"])
    {
        let known: Vec<_> = config.groups.keys().map(|group| group.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        checker.refuse("node.group", format!("must be a group of this file (known: {known})"));
    }
    if let Some((name, group)) = config.own_group()
        && !checker.doubtful(&["node.group", &format!("group.{name}.hooks")])
    {
        standby(node.standby, name, group, checker);
    }
    if let Some(interface) = &node.interface {
        let bad = |byte: u8| byte == b'/' || byte == b':' || !byte.is_ascii_graphic();
        if interface.is_empty() || interface.len() > MAX_INTERFACE || interface.bytes().any(bad) {
            checker.refuse(
                "node.interface",
                "must be the name of a network interface, such as \"eth0\", at most 15 characters",
            );
        }
    }
    if let Some(address) = node.address {
        own_address(config, address, checker);
    }
    if !(1..=MAX_SOCKET).contains(&node.socket.as_os_str().len()) {
        checker.refuse(
            "node.socket",
            "must be a path of at most 107 bytes, the kernel's limit for Unix sockets",
        );
    }
    if node.state_dir.as_os_str().is_empty() {
        checker.refuse("node.state_dir", "must be a folder that survives a restart");
    }
    if node.labels.len() > MAX_LABELS {
        checker.refuse(
            "node.labels",
            format!("must be at most {MAX_LABELS} labels, since they travel with heartbeats"),
        );
    }
}

fn own_address(config: &Config, address: IpAddr, checker: &mut Checker<'_>) {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || broadcast {
        checker.refuse("node.address", "must be an address of this node that clients can reach");
    }
    let follows = |group: &Group| {
        let mut named = group.slots.iter().filter(|slot| !slot.names.is_empty());
        named.any(|slot| slot.record_address() == RecordAddress::Node)
    };
    if means_nothing_elsewhere(address)
        && let Some((name, group)) = config.own_group()
        && follows(group)
        && !checker.doubtful(&["node.group", &format!("group.{name}.slot")])
    {
        let message = format!(
            "is link-local, which means nothing in records, and names of group {name} follow the node: use another \
             address"
        );
        checker.refuse("node.address", message);
    }
}

fn standby(kind: StandbyKind, name: &str, group: &Group, checker: &mut Checker<'_>) {
    let hook = |hook: &str| format!("[group.{name}.hooks] {hook} = {{ command = [...] }}");
    match kind {
        StandbyKind::Cold if group.hooks.start.is_none() => {
            let message = format!(
                "needs a start hook, since nothing else starts a cold workload; add {}",
                hook("start")
            );
            checker.refuse("node.standby", message);
        }
        StandbyKind::Warm if group.hooks.promote.is_none() => {
            let message = format!(
                "without a promote hook a warm standby takes over exactly as a hot one; add {}",
                hook("promote")
            );
            checker.warn("node.standby", message);
        }
        _ => {}
    }
}
