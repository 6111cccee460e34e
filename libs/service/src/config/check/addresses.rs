//! VIPs and names of all slots.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{Checker, Seen};
use crate::config::{
    group::{Group, RecordAddress, SlotConfig},
    schema::Config,
};

/// Most VIPs and service ports of one group: the executor of each node fences them all. As
/// `understudy_vip::gate::GUARDS_MAX`; a test of the executor, which sees both crates, ties this and the next two.
pub const MAX_GUARDS: usize = 256;

/// Most addresses that one slot may have in the records of a name, as `understudy_dns::MAX_ADDRESSES`.
pub const MAX_RECORD_ADDRESSES: usize = 32;

/// Most characters of a slot's name without its final dot, as `understudy_dns::MAX_NAME`: `_understudy.` goes before it.
pub const MAX_SLOT_NAME: usize = 241;

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let mut vips = Seen::new();
    let mut names = Seen::new();
    for (group_name, group) in &config.groups {
        let mut own = Seen::new();
        guards(group, &format!("group.{group_name}"), checker);
        for (index, slot) in group.slots.iter().enumerate() {
            let key = format!("group.{group_name}.slot[{index}]");
            slot_vips(config, slot, &key, &mut vips, checker);
            slot_names(config, slot, &key, checker);
            records(slot, &key, checker);
            for (index, name) in slot.names.iter().enumerate() {
                let key = format!("{key}.names[{index}]");
                // Several slots of one group may share a name; the record then follows them all.
                if own.earlier(name.clone(), &key).is_none()
                    && let Some(first) = names.earlier(name.clone(), &key)
                {
                    let first = checker.written(&first);
                    checker.refuse(
                        &key,
                        format!("is the name of {first} in another group; a name belongs to one group"),
                    );
                }
            }
            modes(group, slot, &key, checker);
        }
    }
}

/// Whether one gate can guard all that the group's slots have.
fn guards(group: &Group, key: &str, checker: &mut Checker<'_>) {
    let vips: BTreeSet<_> = group.slots.iter().flat_map(|slot| &slot.vips).map(IpNet::addr).collect();
    // Slots that are left out have no VIP, nor have those whose VIPs could not be read.
    let bare = !checker.doubtful(&[&format!("{key}.slot")])
        && (group.slots.iter().any(|slot| slot.vips.is_empty())
            || group.slots.len() < usize::from(group.most_active()));
    let ports = if bare { group.ports.iter().collect::<BTreeSet<_>>().len() } else { 0 };
    let count = vips.len() + ports;
    if count > MAX_GUARDS {
        let part = if vips.len() > MAX_GUARDS { "slot" } else { "ports" };
        let message = format!(
            "must be at most {MAX_GUARDS} VIPs and service ports of the group together, which is what one gate guards, but \
             are {count}: have fewer, or part the group"
        );
        checker.refuse(&format!("{key}.{part}"), message);
    }
}

fn slot_vips(
    config: &Config,
    slot: &SlotConfig,
    key: &str,
    seen: &mut Seen<IpAddr>,
    checker: &mut Checker<'_>,
) {
    for (index, vip) in slot.vips.iter().enumerate() {
        let key = format!("{key}.vips[{index}]");
        if let Err(message) = usable(vip) {
            checker.refuse(&key, message);
        } else if let Some(first) = seen.earlier(vip.addr(), &key) {
            let first = checker.written(&first);
            checker.refuse(&key, format!("is the VIP of {first} as well; an address belongs to one slot"));
        } else if config.node.address == Some(vip.addr()) {
            checker.refuse(
                &key,
                "is this node's own address (node.address); a VIP must be an address of its own",
            );
        }
    }
}

/// Whether hosts can have the address.
fn usable(vip: &IpNet) -> Result<(), String> {
    let address = vip.addr();
    let kind = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_loopback() {
        "a loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) {
        "the broadcast address"
    } else if vip.prefix_len() == 0 {
        return Err("has the prefix length 0; write the segment's own, such as /24".into());
    } else {
        return in_network(vip);
    };
    Err(format!("is {kind}, which no host can have; use a free address of the segment"))
}

/// The first and the last address of an IPv4 network are not for hosts, nor is the first of an IPv6 network (RFC 4291
/// section 2.6.1), but for point-to-point prefixes (RFC 3021, RFC 6164) and single addresses.
fn in_network(vip: &IpNet) -> Result<(), String> {
    let single = vip.max_prefix_len() - vip.prefix_len() <= 1;
    let net = vip.trunc();
    if !single && vip.addr() == vip.network() {
        return Err(format!("is the network {net} itself; write an address within it"));
    }
    if !single && vip.addr().is_ipv4() && vip.addr() == vip.broadcast() {
        return Err(format!("is the broadcast address of {net}; write another address of it"));
    }
    Ok(())
}

fn slot_names(config: &Config, slot: &SlotConfig, key: &str, checker: &mut Checker<'_>) {
    if slot.names.is_empty() {
        return;
    }
    let Some(dns) = &config.dns else {
        if !checker.doubtful(&["dns"]) {
            checker.refuse(
                &format!("{key}.names"),
                "needs a [dns] section with servers, zone and key, since somebody must take the updates",
            );
        }
        return;
    };
    for (index, name) in slot.names.iter().enumerate() {
        let key = format!("{key}.names[{index}]");
        let length = name.as_str().trim_end_matches('.').len();
        if length > MAX_SLOT_NAME {
            let message = format!(
                "must have at most {MAX_SLOT_NAME} characters, not {length}: what each slot contributes is kept in the \
                 zone under _understudy. and this name, and that has at most 253"
            );
            checker.refuse(&key, message);
        } else if !name.is_in(&dns.zone) && !checker.doubtful(&["dns.zone"]) {
            let message = format!("must lie in dns.zone ({}), the only zone that is updated", dns.zone);
            checker.refuse(&key, message);
        }
    }
}

/// Whether the updater would publish the slot's VIPs.
fn records(slot: &SlotConfig, key: &str, checker: &mut Checker<'_>) {
    if slot.names.is_empty() || slot.record_address() != RecordAddress::Vip {
        return;
    }
    for (index, vip) in slot.vips.iter().enumerate() {
        if means_nothing_elsewhere(vip.addr()) {
            let message = "is link-local, which means nothing in the records of the slot's names: use another address, \
                           or leave the names out";
            checker.refuse(&format!("{key}.vips[{index}]"), message);
        }
    }
    let count = slot.vips.len();
    if count > MAX_RECORD_ADDRESSES {
        let message = format!(
            "must be at most {MAX_RECORD_ADDRESSES} in a slot with names, whose records hold them all, but are {count}"
        );
        checker.refuse(&format!("{key}.vips"), message);
    }
}

/// Whether the updater refuses to publish an address because nobody can tell on which link it is.
pub(super) fn means_nothing_elsewhere(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn modes(group: &Group, slot: &SlotConfig, key: &str, checker: &mut Checker<'_>) {
    if checker.doubtful(&[&format!("{key}.vips")]) {
        return;
    }
    let bare = slot.vips.is_empty();
    if bare && slot.address == Some(RecordAddress::Vip) {
        let message =
            "needs vips in this slot; use address = \"node\" for records that carry the holder's own address";
        checker.refuse(&format!("{key}.address"), message);
    }
    let group_key = key.split(".slot[").next().unwrap_or(key);
    if bare
        && !slot.names.is_empty()
        && group.ports.is_empty()
        && !checker.doubtful(&[&format!("{group_key}.ports")])
    {
        let message = format!(
            "has names but no VIP, so the gate must guard service ports; add such as ports = [\"tcp/80\"] to [{group_key}]"
        );
        checker.refuse(&format!("{key}.names"), message);
    }
}
