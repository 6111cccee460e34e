//! One run of the lease.

use crate::{
    check::Gap,
    options::Options,
    seeds::{Outcome, Simulation, panic_of},
    world::World,
};

/// What a run shows.
#[derive(Debug, Clone)]
pub struct Found {
    /// All gaps between gates.
    pub gaps: Vec<Gap>,
    /// When the only fault struck a node that served, and which slot that was.
    pub struck: Option<(u64, u16)>,
    /// Where the only fault stopped processes of such a node: from its last granted heartbeat until they went on.
    pub stood_still: Option<u64>,
}

impl Simulation for Options {
    type Found = Found;
    /// How often a gate was opened.
    const COUNTED: &'static str = "tenures";
    const NAME: Option<&'static str> = None;

    fn seed(&self) -> u64 {
        self.seed
    }

    fn simulate(self, keep_lines: bool) -> (Outcome<Found>, Vec<String>) {
        let seed = self.seed;
        let mut world = World::new(self, keep_lines);
        if let Some(what) = panic_of(|| world.run()) {
            world.check.fail(0, world.now, what);
        }
        let struck = world.struck.and_then(|struck| {
            let is_hit = |holder: &Option<usize>| holder.is_some() && *holder == struck.hit.node;
            Some((struck.at, struck.before.iter().position(is_hit)? as u16))
        });
        let stood_still = struck.and(world.struck).and_then(|struck| struck.stood_still());
        let outcome = Outcome {
            seed,
            hash: world.trace.hash(),
            violation: world.check.violation.take(),
            count: world.check.tenures,
            found: Found { gaps: std::mem::take(&mut world.check.gaps), struck, stood_still },
        };
        (outcome, world.trace.into_lines())
    }
}
