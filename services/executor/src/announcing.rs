//! Proof of takeover (design section 5): announce a VIP until other members of the segment see this node behind it.
//!
//! Pure: sightings and times go in, "announce now" comes out.

use std::{collections::BTreeMap, time::Duration};

use understudy_wire::{BootTime, NodeId};

/// Pauses after the first announcements: one lost frame costs a millisecond, not a client's ARP timeout.
const FAST: [Duration; 7] = [
    Duration::from_millis(1),
    Duration::from_millis(4),
    Duration::from_millis(15),
    Duration::from_millis(30),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];
/// Pause while a takeover is young or unproved. A client that could hear nothing meanwhile (its port was blocked, its
/// queue full) reaches this node half a second after it hears again, whatever other members have seen: they are not it.
/// Four frames a second and VIP, less than one host's own neighbour discovery.
const STEADY: Duration = Duration::from_millis(250);
/// How long a takeover is young: what a switch with spanning tree keeps a port shut after a link came up.
const YOUNG: Duration = Duration::from_secs(30);
/// Pause afterwards.
const SLOW: Duration = Duration::from_secs(10);

/// What a sighting changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Enough members see this node: these.
    Proved(Vec<NodeId>),
    /// A member sees somebody else, or nobody, after it was proved.
    Disputed(NodeId),
}

/// The announcing of one VIP during one tenure.
#[derive(Debug)]
pub struct Announcing {
    mine: [u8; 6],
    began: BootTime,
    due: BootTime,
    fast: usize,
    announced: u32,
    seen: BTreeMap<NodeId, bool>,
    proved: bool,
}

impl Announcing {
    /// Begins at `now`, due at once; `mine` is the address that others must see.
    pub fn new(mine: [u8; 6], now: BootTime) -> Self {
        Self { mine, began: now, due: now, fast: 0, announced: 0, seen: BTreeMap::new(), proved: false }
    }

    /// Whether to announce now; if so, the next time is set.
    pub fn poll(&mut self, now: BootTime) -> bool {
        if now < self.due {
            return false;
        }
        let pause = if self.fast < FAST.len() {
            FAST[self.fast]
        } else if self.proved && now.since(self.began) > YOUNG {
            SLOW
        } else {
            STEADY
        };
        self.fast += 1;
        self.announced += 1;
        self.due = now.after(pause);
        true
    }

    /// When [`Announcing::poll`] is due.
    pub fn next_deadline(&self) -> BootTime {
        self.due
    }

    /// Announcements so far.
    pub fn announced(&self) -> u32 {
        self.announced
    }

    /// When it began.
    pub fn began(&self) -> BootTime {
        self.began
    }

    /// What `node` sees behind the VIP; `needed` members must agree.
    pub fn sighting(
        &mut self,
        now: BootTime,
        node: &NodeId,
        address: Option<[u8; 6]>,
        needed: usize,
    ) -> Option<Change> {
        let sees_me = address == Some(self.mine);
        let before = self.seen.insert(node.clone(), sees_me);
        if !sees_me {
            if before == Some(true) || (self.proved && before.is_none()) {
                self.fast = 0;
                self.due = now;
                return self.proved.then(|| Change::Disputed(node.clone()));
            }
            return None;
        }
        let agreeing: Vec<_> =
            self.seen.iter().filter(|(_, sees)| **sees).map(|(node, _)| node.clone()).collect();
        if self.proved || needed == 0 || agreeing.len() < needed {
            return None;
        }
        self.proved = true;
        Some(Change::Proved(agreeing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    fn node(name: &str) -> NodeId {
        NodeId::new(name).expect("is a name")
    }

    /// Times in ms of the announcements up to `end`.
    fn announcements(announcing: &mut Announcing, end: u64) -> Vec<u64> {
        (0..end).filter(|ms| announcing.poll(at(*ms))).collect()
    }

    #[test]
    fn announces_fast_at_first_then_steadily() {
        let mut announcing = Announcing::new(ME, at(0));
        assert_eq!(announcements(&mut announcing, 1_000), [0, 1, 5, 20, 50, 100, 200, 400, 650, 900]);
    }

    #[test]
    fn is_proved_once_when_enough_members_agree() {
        let mut announcing = Announcing::new(ME, at(0));
        assert_eq!(announcing.sighting(at(1), &node("b"), Some(OTHER), 2), None);
        assert_eq!(announcing.sighting(at(2), &node("b"), Some(ME), 2), None);
        let proved = Change::Proved(vec![node("b"), node("c")]);
        assert_eq!(announcing.sighting(at(3), &node("c"), Some(ME), 2), Some(proved));
        assert_eq!(announcing.sighting(at(4), &node("c"), Some(ME), 2), None);
    }

    #[test]
    fn a_dispute_is_answered_at_once() {
        let mut announcing = Announcing::new(ME, at(0));
        announcements(&mut announcing, 5_000);
        announcing.sighting(at(5_000), &node("b"), Some(ME), 1);
        assert!(!announcing.poll(at(5_001)));
        let disputed = announcing.sighting(at(5_002), &node("b"), Some(OTHER), 1);
        assert_eq!(disputed, Some(Change::Disputed(node("b"))));
        assert!(announcing.poll(at(5_002)));
    }

    #[test]
    fn grows_slow_only_when_proved() {
        let mut announcing = Announcing::new(ME, at(0));
        announcements(&mut announcing, 31_000);
        assert!(announcing.next_deadline().since(at(31_000)) <= STEADY);
        announcing.sighting(at(31_000), &node("b"), Some(ME), 1);
        assert!(announcing.poll(at(31_300)));
        assert_eq!(announcing.next_deadline(), at(31_300).after(SLOW));
    }
}
