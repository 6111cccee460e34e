//! What gate and name servers have room for.

use crate::{errors, good, one, spoilt};

const VIPS: &str = "[\"10.77.0.100/24\", \"fd77::100/64\"]";

/// A group of so many slots with two VIPs each, and one without that has a port.
fn wide(slots: u32, bare: u32) -> String {
    let active = slots + bare;
    let head = "cluster = \"demo\"\nnats.servers = [\"a\", \"b\", \"c\"]\n[group.web]\n";
    let slot = |slot| format!("[[group.web.slot]]\nvips = [\"10.1.{slot}.1/16\", \"10.2.{slot}.1/16\"]\n");
    let slots: String = (0..slots).map(slot).collect();
    let bare = "[[group.web.slot]]\n".repeat(bare.try_into().unwrap());
    format!("{head}active = {active}\nports = [\"tcp/80\"]\n{slots}{bare}")
}

#[test]
fn a_group_has_no_more_than_its_gate_can_guard() {
    assert_eq!(good(&wide(128, 0), &[]).groups.len(), 1);
    for (text, key, count) in [(wide(129, 0), "slot", 258), (wide(128, 1), "ports", 257)] {
        let told = errors(&text, &[]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(&format!(": group.web.{key} = [")), "{told:?}");
        let why = format!(
            "must be at most 256 VIPs and service ports of the group together, which is what one gate guards, but are \
             {count}: have fewer, or part the group"
        );
        assert!(told[0].ends_with(&why), "{told:?}");
    }
}

#[test]
fn a_slot_has_no_more_addresses_than_its_records_hold() {
    let many = |count: u32| {
        let vips: Vec<_> = (1..=count).map(|host| format!("\"fd77::{host:x}/64\"")).collect();
        spoilt(VIPS, &format!("[{}]", vips.join(", ")))
    };
    good(&many(32), &[]);
    let told = errors(&many(33), &[]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("understudy.toml:32: group.web.slot[0].vips = ["), "{told:?}");
    assert!(
        told[0].ends_with("must be at most 32 in a slot with names, whose records hold them all, but are 33"),
        "{told:?}"
    );
    good(&many(33).replace("names = [\"web.ha.test.\"]\n", ""), &[]);
}

#[test]
fn a_name_leaves_room_for_the_mark_before_it() {
    let longest = format!("{}ha.test", "abcdefgh.".repeat(26));
    good(&spoilt("web.ha.test.", &longest), &[]);
    let longer = format!("a{longest}");
    one(
        "web.ha.test.",
        &longer,
        &format!(
            "understudy.toml:33: group.web.slot[0].names[0] = \"{}...: must have at most 241 characters, not 242: what \
             each slot contributes is kept in the zone under _understudy. and this name, and that has at most 253",
            &longer[..99]
        ),
    );
}

#[test]
fn records_hold_no_address_that_means_nothing_elsewhere() {
    let text = spoilt("\"fd77::100/64\"", "\"fe80::100/64\"");
    assert_eq!(
        errors(&text, &[]),
        [
            "understudy.toml:32: group.web.slot[0].vips[1] = \"fe80::100/64\": is link-local, which means nothing in the \
             records of the slot's names: use another address, or leave the names out"
        ]
    );
    good(&text.replace("names = [\"web.ha.test.\"]\n", ""), &[]);
    // The name of slot 1 follows the node.
    one(
        "address = \"10.77.0.41\"",
        "address = \"fe80::41\"",
        "understudy.toml:59: node.address = \"fe80::41\": is link-local, which means nothing in records, and names of group \
         web follow the node: use another address",
    );
    one(
        "address = \"10.77.0.41\"",
        "address = \"255.255.255.255\"",
        "understudy.toml:59: node.address = \"255.255.255.255\": must be an address of this node that clients can reach",
    );
}
