//! One run of the policy.

use super::{options::Options, world::World};
use crate::seeds::{Outcome, Simulation, panic_of};

impl Simulation for Options {
    type Found = ();
    /// Actions of the policy.
    const COUNTED: &'static str = "actions";
    const NAME: Option<&'static str> = Some("scaling");

    fn seed(&self) -> u64 {
        self.seed
    }

    fn simulate(self, keep_lines: bool) -> (Outcome<()>, Vec<String>) {
        let seed = self.seed;
        let mut world = World::new(self, keep_lines);
        if let Some(what) = panic_of(|| world.run()) {
            world.check.fail(0, world.now, what);
        }
        let outcome = Outcome {
            seed,
            hash: world.trace.hash(),
            violation: world.check.violation.take(),
            count: world.check.actions,
            found: (),
        };
        (outcome, world.trace.into_lines())
    }
}
