//! Rise and fall counts of one check.

/// A check changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// `rise` successes in a row.
    Up,
    /// `fall` failures in a row.
    Down,
}

/// Believes a check only after several equal results in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RiseFall {
    rise: u32,
    fall: u32,
    up: bool,
    /// Results in a row that contradict `up`.
    against: u32,
}

impl RiseFall {
    /// Starts as `initial`; goes up after `rise` successes in a row and down after `fall` failures in a row.
    /// A count of 0 is taken as 1: one result is the least that can change anything.
    pub fn new(rise: u32, fall: u32, initial: bool) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), up: initial, against: 0 }
    }

    /// Takes in one result; `Some` if it changed the state.
    pub fn observe(&mut self, ok: bool) -> Option<Transition> {
        if ok == self.up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let (needed, transition) =
            if ok { (self.rise, Transition::Up) } else { (self.fall, Transition::Down) };
        if self.against < needed {
            return None;
        }
        self.up = ok;
        self.against = 0;
        Some(transition)
    }

    /// The state now believed.
    pub fn is_up(&self) -> bool {
        self.up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_after_fall_failures_in_a_row_only() {
        let mut check = RiseFall::new(2, 3, true);
        let results = [false, false, true, false, false, false];
        let seen: Vec<_> = results.map(|ok| check.observe(ok)).into();
        assert_eq!(seen, [None, None, None, None, None, Some(Transition::Down)]);
        assert_eq!(check.observe(false), None, "a change is told once");
    }

    #[test]
    fn rises_after_rise_successes_in_a_row_only() {
        let mut check = RiseFall::new(2, 3, false);
        let seen: Vec<_> = [true, false, true, true].map(|ok| check.observe(ok)).into();
        assert_eq!(seen, [None, None, None, Some(Transition::Up)]);
    }

    #[test]
    fn a_count_of_zero_means_one() {
        let mut check = RiseFall::new(0, 0, true);
        assert_eq!(check.observe(false), Some(Transition::Down));
        assert_eq!(check.observe(true), Some(Transition::Up));
    }
}
