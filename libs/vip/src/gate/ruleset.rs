//! The two pairs of tables of a gate, as batches.
//!
//! `fence` (lasting) drops the traffic of every managed guard that does not carry the pass
//! mark. `pass` (flagged `owner`, so it ends with the netlink socket) marks the traffic of
//! the guards in its timeout sets. Three chains on each hook, in this order:
//!
//! 1. fence, `clear`: takes the bit off every packet, so that only step 2 can have set it;
//! 2. pass: sets it on the traffic of live guards;
//! 3. fence: takes the bit off the guards' packets again and lets them go on, drops those
//!    that lack it (and refuses, where they ask for a service of this host).
//!
//! The bit never leaves a hook. So it cannot leak into routing rules, nor over the loopback
//! interface from a live guard to a closed one. Step 3 touches the packets of its own guards
//! only, so gates with one mark do not disturb each other; where they guard the same address
//! with the same mark, they fail closed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook, HookNumber, ListAttribute, NfTablesMessage,
    RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementList, SetElementMessage,
    SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
};

use super::expression::{Expression, accept, clear_mark, drop_packet, marked, set_mark};
use super::matcher::{self, Direction, SETS, Set};
use super::netlink::Batch;
use super::{Guard, matcher::elements};

/// A lifetime for elements that the same batch deletes again; never in force.
const NEVER_IN_FORCE_MS: u64 = 1000;

/// `NF_ACCEPT`, the policy of all chains: what is not guarded is none of our business.
const POLICY_ACCEPT: u32 = 1;

/// A place where the kernel calls our chains.
struct Place {
    name: &'static str,
    family: NetfilterProtoFamily,
    number: u32,
    /// Priority of the fence; `pass` and `clear` come just before it.
    priority: i32,
    direction: Direction,
}

const PASS_BEFORE_FENCE: i32 = 4;
const CLEAR_BEFORE_FENCE: i32 = 8;

const PLACES: [Place; 5] = [
    // Before connection tracking (-200) and DNAT (-100): a packet to the VIP is still one.
    Place {
        name: "prerouting",
        family: NetfilterProtoFamily::Inet,
        number: 0,
        priority: -301,
        direction: Direction::In,
    },
    // First of all: a local sender gets EPERM, which is what a witness proves the gate by.
    Place {
        name: "output",
        family: NetfilterProtoFamily::Inet,
        number: 3,
        priority: -301,
        direction: Direction::Out,
    },
    // After SNAT (100): answers of a container behind the VIP carry its address only from here.
    Place {
        name: "postrouting",
        family: NetfilterProtoFamily::Inet,
        number: 4,
        priority: 299,
        direction: Direction::Out,
    },
    Place {
        name: "arp_input",
        family: NetfilterProtoFamily::ARP,
        number: 0,
        priority: -301,
        direction: Direction::In,
    },
    Place {
        name: "arp_output",
        family: NetfilterProtoFamily::ARP,
        number: 1,
        priority: -301,
        direction: Direction::Out,
    },
];

/// Addresses of both families, which every gate may guard. No service: without one to refuse the kernel need not have the
/// means to (`CONFIG_NFT_REJECT`).
const REHEARSED: [Guard; 2] =
    [Guard::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), Guard::Address(IpAddr::V6(Ipv6Addr::UNSPECIFIED))];

const FAMILIES: [NetfilterProtoFamily; 2] = [NetfilterProtoFamily::Inet, NetfilterProtoFamily::ARP];

/// Names of the tables of one gate, and its bit.
#[derive(Debug)]
pub(super) struct Tables {
    fence: String,
    pass: String,
    mark: u32,
}

impl Tables {
    pub(super) fn new(name: &str, mark: u32) -> Tables {
        Tables { fence: format!("understudy_fence_{name}"), pass: format!("understudy_pass_{name}"), mark }
    }

    /// Replaces whatever an earlier run left by a fence for these guards and an empty pass, at once.
    pub(super) fn install(&self, guards: &[Guard]) -> Batch {
        let mut batch = Batch::default();
        // The pass tables come first so that a gate somebody else holds is refused as message 0.
        for family in FAMILIES {
            replace_table(&mut batch, family, &self.pass, TableFlags::Owner);
            replace_table(&mut batch, family, &self.fence, TableFlags::empty());
            for set in SETS.iter().filter(|set| set.exists_in(family)) {
                new_set(&mut batch, family, &self.pass, set, SetFlags::Timeout);
                new_set(&mut batch, family, &self.fence, set, SetFlags::empty());
            }
            for (set, keys) in elements(family, guards) {
                let list = keys.into_iter().map(|key| element(key, None)).collect();
                change_elements(&mut batch, family, &self.fence, set, list, true);
            }
        }
        for place in &PLACES {
            self.chains(&mut batch, place, guards);
        }
        batch
    }

    fn chains(&self, batch: &mut Batch, place: &Place, guards: &[Guard]) {
        let matchers = || matcher::matchers(place.family, place.direction, guards);
        let shortcut = || matcher::shortcut(place.family, place.direction, guards);
        let clear = format!("clear_{}", place.name);
        new_chain(batch, place, &self.fence, &clear, place.priority - CLEAR_BEFORE_FENCE);
        new_rule(batch, place, &self.fence, &clear, clear_mark(self.mark).into());

        let pass = format!("pass_{}", place.name);
        new_chain(batch, place, &self.pass, &pass, place.priority - PASS_BEFORE_FENCE);
        if let Some(rule) = shortcut() {
            new_rule(batch, place, &self.pass, &pass, rule);
        }
        for mut rule in matchers() {
            rule.extend(set_mark(self.mark));
            new_rule(batch, place, &self.pass, &pass, rule);
        }

        let fence = format!("fence_{}", place.name);
        new_chain(batch, place, &self.fence, &fence, place.priority);
        if let Some(rule) = shortcut() {
            new_rule(batch, place, &self.fence, &fence, rule);
        }
        for mut rule in matchers() {
            rule.extend(marked(self.mark));
            rule.extend(clear_mark(self.mark));
            rule.push(accept());
            new_rule(batch, place, &self.fence, &fence, rule);
        }
        for rule in matcher::exceptions(place.family, place.direction, guards) {
            new_rule(batch, place, &self.fence, &fence, rule);
        }
        for mut rule in matchers() {
            rule.push(drop_packet());
            new_rule(batch, place, &self.fence, &fence, rule);
        }
    }

    /// Opens guards for this long from the moment the kernel takes the batch, or renews them, whether or not they are open.
    pub(super) fn open(&self, guards: &[Guard], timeout_ms: u64) -> Batch {
        let mut batch = self.shut(guards);
        self.add(&mut batch, guards, timeout_ms);
        batch
    }

    /// Renews guards that are open; the kernel refuses it as a whole, with ENOENT, where one of them is not.
    ///
    /// The element is a new one, so its timeout counts also on kernels that ignore updates.
    pub(super) fn renew(&self, guards: &[Guard], timeout_ms: u64) -> Batch {
        let mut batch = Batch::default();
        self.delete(&mut batch, guards);
        self.add(&mut batch, guards, timeout_ms);
        batch
    }

    /// Shuts guards, open or not: the delete succeeds since what it deletes was added before.
    pub(super) fn shut(&self, guards: &[Guard]) -> Batch {
        let mut batch = Batch::default();
        self.add(&mut batch, guards, NEVER_IN_FORCE_MS);
        self.delete(&mut batch, guards);
        batch
    }

    fn add(&self, batch: &mut Batch, guards: &[Guard], timeout_ms: u64) {
        for family in FAMILIES {
            for (set, keys) in elements(family, guards) {
                let list = keys.into_iter().map(|key| element(key, Some(timeout_ms))).collect();
                change_elements(batch, family, &self.pass, set, list, true);
            }
        }
    }

    fn delete(&self, batch: &mut Batch, guards: &[Guard]) {
        for family in FAMILIES {
            for (set, keys) in elements(family, guards) {
                let list = keys.into_iter().map(|key| element(key, None)).collect();
                change_elements(batch, family, &self.pass, set, list, false);
            }
        }
    }

    /// Removes the pass tables, as the kernel does when the socket is closed.
    pub(super) fn retire(&self) -> Batch {
        let mut batch = Batch::default();
        for family in FAMILIES {
            new_table(&mut batch, family, &self.pass, TableFlags::Owner);
            delete_table(&mut batch, family, &self.pass);
        }
        batch
    }

    /// Removes both pairs of tables.
    pub(super) fn uninstall(&self) -> Batch {
        let mut batch = self.retire();
        for family in FAMILIES {
            new_table(&mut batch, family, &self.fence, TableFlags::empty());
            delete_table(&mut batch, family, &self.fence);
        }
        batch
    }

    /// Installs and removes in one batch, under names of its own: tries all, leaves nothing.
    pub(super) fn rehearsal(&self) -> Batch {
        let mut batch = self.install(&REHEARSED);
        for family in FAMILIES {
            delete_table(&mut batch, family, &self.pass);
            delete_table(&mut batch, family, &self.fence);
        }
        batch
    }
}

fn replace_table(batch: &mut Batch, family: NetfilterProtoFamily, table: &str, flags: TableFlags) {
    new_table(batch, family, table, TableFlags::empty());
    delete_table(batch, family, table);
    new_table(batch, family, table, flags);
}

fn new_table(batch: &mut Batch, family: NetfilterProtoFamily, table: &str, flags: TableFlags) {
    let attributes = vec![TableAttribute::Name(table.to_owned()), TableAttribute::Flags(flags)];
    batch.push(family, NLM_F_CREATE, NfTablesMessage::NewTable(TableMessage { attributes }));
}

fn delete_table(batch: &mut Batch, family: NetfilterProtoFamily, table: &str) {
    let attributes = vec![TableAttribute::Name(table.to_owned())];
    batch.push(family, 0, NfTablesMessage::DeleteTable(TableMessage { attributes }));
}

fn new_set(batch: &mut Batch, family: NetfilterProtoFamily, table: &str, set: &Set, flags: SetFlags) {
    let attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(set.name.to_owned()),
        SetAttribute::Flags(flags),
        SetAttribute::KeyType(set.key_type),
        SetAttribute::KeyLen(set.key_bytes),
        SetAttribute::Id(set.id),
    ];
    batch.push(family, NLM_F_CREATE, NfTablesMessage::NewSet(SetMessage { attributes }));
}

fn new_chain(batch: &mut Batch, place: &Place, table: &str, chain: &str, priority: i32) {
    let attributes = vec![
        ChainAttribute::Table(table.to_owned()),
        ChainAttribute::Name(chain.to_owned()),
        ChainAttribute::Type("filter".to_owned()),
        ChainAttribute::Policy(POLICY_ACCEPT),
        ChainAttribute::Hook(vec![
            Hook::Number(HookNumber::Other(place.number)),
            Hook::Priority(priority.cast_unsigned()),
        ]),
    ];
    batch.push(place.family, NLM_F_CREATE, NfTablesMessage::NewChain(ChainMessage { attributes }));
}

fn new_rule(batch: &mut Batch, place: &Place, table: &str, chain: &str, rule: Vec<Expression>) {
    let attributes = vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Expressions(rule),
    ];
    let flags = NLM_F_CREATE | NLM_F_APPEND;
    batch.push(place.family, flags, NfTablesMessage::NewRule(RuleMessage { attributes }));
}

type Element = ListAttribute<SetElementAttribute>;

fn element(key: Vec<u8>, timeout_ms: Option<u64>) -> Element {
    let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(key))];
    if let Some(timeout_ms) = timeout_ms {
        attributes.push(SetElementAttribute::Timeout(timeout_ms));
    }
    ListAttribute::Element(attributes)
}

fn change_elements(
    batch: &mut Batch,
    family: NetfilterProtoFamily,
    table: &str,
    set: &Set,
    list: Vec<Element>,
    add: bool,
) {
    let message = SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.to_owned()),
            SetElementList::Set(set.name.to_owned()),
            SetElementList::Elements(list),
        ],
    };
    if add {
        batch.push(family, NLM_F_CREATE, NfTablesMessage::NewSetElement(message));
    } else {
        batch.push(family, 0, NfTablesMessage::DeleteSetElement(message));
    }
}
