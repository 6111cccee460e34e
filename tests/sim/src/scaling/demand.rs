//! Load traces, in members: how many members at their target the load keeps busy.

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Kinds of traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Shape {
    Flat,
    Daily,
    Spike,
    Ramp,
    Flapping,
}

/// A load trace with its noise, the same for whoever follows it.
#[derive(Debug, Clone)]
pub struct Demand {
    shape: Shape,
    seed: u64,
    /// Load at rest and at the peak, members.
    low: f64,
    high: f64,
    /// Length of one period, of a spike or of the ramp; seconds.
    period: f64,
    from: f64,
    /// Relative standard deviation of one measurement.
    noise: f64,
}

impl Demand {
    /// A trace between `low` and `high` members over `length` seconds.
    pub fn new(shape: Shape, seed: u64, (low, high): (f64, f64), length: u64, noise: f64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x10ad);
        let length = length as f64;
        let period = match shape {
            Shape::Flat => length,
            Shape::Daily => length,
            Shape::Spike => random.random_range(0.2..0.3) * length,
            Shape::Ramp => random.random_range(0.4..0.5) * length,
            Shape::Flapping => random.random_range(40.0..120.0),
        };
        let from = random.random_range(0.1..0.25) * length;
        Self { shape, seed, low, high, period, from, noise }
    }

    /// The load at `second`.
    pub fn at(&self, second: u64) -> f64 {
        let time = second as f64;
        let height = match self.shape {
            Shape::Flat => 0.0,
            Shape::Daily => 0.5 - 0.5 * (std::f64::consts::TAU * time / self.period).cos(),
            // Three minutes up, three down.
            Shape::Spike => {
                let edge = 180.0;
                let up = ((time - self.from) / edge).clamp(0.0, 1.0);
                let down = ((time - self.from - self.period) / edge).clamp(0.0, 1.0);
                up - down
            }
            Shape::Ramp => ((time - self.from) / self.period).clamp(0.0, 1.0),
            Shape::Flapping => f64::from(u8::from((time / self.period) as u64 % 2 == 1)),
        };
        self.low + (self.high - self.low) * height
    }

    /// The load as it is measured at `second` over all members: the same noise for every reader.
    pub fn measured(&self, second: u64) -> f64 {
        let mut random = SmallRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9) ^ second);
        // Twelve uniform numbers have a variance of one.
        let normal: f64 = (0..12).map(|_| random.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        self.at(second) * (1.0 + self.noise * normal).max(0.0)
    }
}
