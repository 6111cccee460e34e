//! What to do about a zone as it was found: pure, no I/O.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::update_message::UpdateMessage;
use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::contribution::Contribution;
use crate::desired::Target;
use crate::lookup::{Mark, Picture};

/// What is to be done at one server.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The zone holds this contribution, with this epoch, and the address records.
    AlreadyThere,
    /// The zone holds a later tenure of the slot.
    NewerKnown { epoch: u64 },
    /// This message, an UPDATE, brings the zone there if it still is as it was read.
    Update(Message),
}

/// Decides from the zone as read. The prerequisite of the update is that the TXT RRset still is exactly `picture.marks`.
pub(crate) fn decide(target: &Target, ttl: u32, picture: &Picture) -> Decision {
    let ours = || picture.marks.iter().filter(|mark| slot_of(mark) == Some(target.slot));
    let known = ours().filter_map(|mark| mark.contribution.as_ref()).max_by_key(|found| found.epoch);
    if let Some(known) = known {
        if known.epoch > target.epoch {
            return Decision::NewerKnown { epoch: known.epoch };
        }
        let same = known.epoch == target.epoch && known.addresses == target.addresses;
        if same && ours().count() == 1 && target.addresses.is_subset(&picture.addresses) {
            return Decision::AlreadyThere;
        }
    }
    Decision::Update(update(target, ttl, picture))
}

fn slot_of(mark: &Mark) -> Option<u32> {
    mark.contribution.as_ref().map(|contribution| contribution.slot)
}

fn update(target: &Target, ttl: u32, picture: &Picture) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.metadata.recursion_desired = false;
    message.add_zone(Query::query(target.origin.clone(), RecordType::SOA));
    message.add_pre_requisites(unchanged(&target.mark, &picture.marks));

    let adoption = picture.marks.iter().all(|mark| mark.contribution.is_none());
    if adoption {
        for record_type in [RecordType::A, RecordType::AAAA] {
            message.add_update(empty(&target.name, DNSClass::ANY, record_type));
        }
    } else {
        for address in obsolete(target, &picture.marks) {
            message.add_update(without(address_record(&target.name, 0, address)));
        }
    }
    for mark in picture.marks.iter().filter(|mark| slot_of(mark) == Some(target.slot)) {
        message.add_update(without(mark.record.clone()));
    }
    for address in &target.addresses {
        message.add_update(address_record(&target.name, ttl, *address));
    }
    let contribution =
        Contribution { slot: target.slot, epoch: target.epoch, addresses: target.addresses.clone() };
    message.add_update(Record::from_rdata(target.mark.clone(), ttl, RData::TXT(contribution.to_txt())));
    message
}

/// The TXT RRset as prerequisite: exactly these records (RFC 2136 section 2.4.2), or no such RRset (section 2.4.3).
fn unchanged(mark: &Name, marks: &[Mark]) -> Vec<Record> {
    if marks.is_empty() {
        return vec![empty(mark, DNSClass::NONE, RecordType::TXT)];
    }
    let exactly = |found: &Mark| Record::from_rdata(mark.clone(), 0, found.record.data.clone());
    marks.iter().map(exactly).collect()
}

/// What the slot contributed before, does not contribute now, and no other slot contributes.
fn obsolete(target: &Target, marks: &[Mark]) -> BTreeSet<IpAddr> {
    let contributed = |by_slot: bool| {
        let found = marks.iter().filter_map(|mark| mark.contribution.as_ref());
        found.filter(move |found| (found.slot == target.slot) == by_slot).flat_map(|found| &found.addresses)
    };
    let others: BTreeSet<_> = contributed(false).collect();
    let gone = |address: &&IpAddr| !others.contains(address) && !target.addresses.contains(address);
    contributed(true).filter(gone).copied().collect()
}

/// A record without data: a prerequisite of class NONE (section 2.4.3), a whole RRset to delete of class ANY (section 2.5.2).
fn empty(owner: &Name, class: DNSClass, record_type: RecordType) -> Record {
    let mut record = Record::update0(owner.clone(), 0, record_type);
    record.dns_class = class;
    record
}

/// The deletion of one record (section 2.5.4).
fn without(mut record: Record) -> Record {
    record.dns_class = DNSClass::NONE;
    record.ttl = 0;
    record
}

fn address_record(owner: &Name, ttl: u32, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    };
    Record::from_rdata(owner.clone(), ttl, data)
}
