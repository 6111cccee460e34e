//! Two unlike paths between all hosts, both always used.

use rand::Rng;

use crate::{
    event::{Event, Message},
    trace::MS,
    world::World,
};

/// Paths: 0 stands for NATS, 1 for the direct stream.
pub(crate) const PATHS: usize = 2;
/// Hosts of nodes are 0..8, those of detectors from here on.
pub(crate) const FIRST_DETECTOR: u8 = 8;
/// Shortest delay between two hosts.
const DELAY_MIN: u64 = MS / 20;

/// Messages from `from` to `to` (bits of hosts) are lost on `paths` (bits).
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) id: u64,
    pub(crate) paths: u32,
    pub(crate) from: u32,
    pub(crate) to: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) cuts: Vec<Cut>,
    /// Real time until which a path as a whole is down.
    pub(crate) down_until: [u64; PATHS],
    pub(crate) healed: bool,
}

impl Links {
    fn passes(&self, now: u64, path: usize, from: u8, to: u8) -> bool {
        now >= self.down_until[path]
            && !self.cuts.iter().any(|cut| {
                cut.paths & (1 << path) != 0 && cut.from & (1 << from) != 0 && cut.to & (1 << to) != 0
            })
    }
}

impl World {
    /// Sends over both paths.
    pub(crate) fn send(&mut self, from: u8, to: u8, message: &Message) {
        for path in 0..PATHS {
            if !self.links.passes(self.now, path, from, to) {
                continue;
            }
            let dice: u64 = self.random.random();
            let delay = self.delay(dice);
            if self.links.healed {
                self.after(delay, Event::Deliver { to, message: message.clone() });
                continue;
            }
            let network = self.options.network;
            if dice & 0xffff < network.loss {
                continue;
            }
            let slow = (dice >> 16) & 0xffff < network.tail;
            let delay = if slow { self.random.random_range(DELAY_MIN..network.tail_max) } else { delay };
            self.after(delay, Event::Deliver { to, message: message.clone() });
            if (dice >> 32) & 0xffff < network.duplicate {
                let again = self.random.random_range(delay..network.tail_max.max(delay + 1));
                self.after(again, Event::Deliver { to, message: message.clone() });
            }
        }
    }

    /// Mostly short, sometimes up to `delay_max`: the square of an even distribution.
    fn delay(&self, dice: u64) -> u64 {
        let part = dice >> 48;
        DELAY_MIN + ((self.options.network.delay_max * part) >> 16) * part / 65_536
    }
}
