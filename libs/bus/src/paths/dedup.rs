//! Tells a heartbeat that the other path has brought already.

use std::collections::HashMap;

use understudy_wire::{BootId, GroupId, Heartbeat, NodeId};

/// Nodes remembered at least, twice that at most: far above any deployment, and a flood of invented names cannot
/// fill the memory.
const NODES: usize = 65_536;
/// How far a heartbeat may come behind the newest of its boot, in numbers of `seq`: 6 s of heartbeats at 100 ms.
const WINDOW: u64 = 64;

type Key = (GroupId, NodeId, BootId);

/// The newest `seq` of one boot, and which of the [`WINDOW`] below it came.
#[derive(Clone, Copy)]
struct Window {
    highest: u64,
    came: u64,
}

impl Window {
    fn first(&mut self, seq: u64) -> bool {
        if seq > self.highest {
            let shift = seq - self.highest;
            self.came = if shift >= WINDOW { 0 } else { self.came << shift };
            self.came |= 1;
            self.highest = seq;
            return true;
        }
        let behind = self.highest - seq;
        if behind >= WINDOW || self.came & (1 << behind) != 0 {
            return false;
        }
        self.came |= 1 << behind;
        true
    }
}

/// Two generations of windows: the older one is forgotten when the newer one is full.
#[derive(Default)]
pub(super) struct Dedup {
    young: HashMap<Key, Window>,
    old: HashMap<Key, Window>,
}

impl Dedup {
    /// Whether this heartbeat is the first with its (node, boot, seq).
    pub(super) fn first(&mut self, heartbeat: &Heartbeat) -> bool {
        let key = (heartbeat.group.clone(), heartbeat.node.clone(), heartbeat.boot);
        if let Some(window) = self.young.get_mut(&key) {
            return window.first(heartbeat.seq);
        }
        let known = self.old.remove(&key);
        let mut window = known.unwrap_or(Window { highest: heartbeat.seq, came: 1 });
        let first = known.is_none() || window.first(heartbeat.seq);
        if self.young.len() >= NODES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, window);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_passes_once_in_any_order() {
        let mut window = Window { highest: 10, came: 1 };
        let firsts: Vec<_> = [10, 12, 11, 11, 12, 9, 200, 137, 136, 200].map(|seq| window.first(seq)).into();
        assert_eq!(firsts, [false, true, true, false, false, true, true, true, false, false]);
    }
}
