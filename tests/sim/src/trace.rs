//! One line per event, and a hash over all of them.

/// Nanoseconds of a millisecond: real time is kept in nanoseconds since the start of the run.
pub(crate) const MS: u64 = 1_000_000;

/// What happened, in order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    /// Formatting costs ten times what the run itself does: only a replay keeps lines.
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keep_lines: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: keep_lines.then(Vec::new) }
    }

    /// Takes an event in: `facts` go into the hash always, `line` is made only when lines are kept.
    pub(crate) fn note(&mut self, now: u64, facts: &[u64], line: impl FnOnce() -> String) {
        for fact in std::iter::once(&now).chain(facts) {
            self.hash = (self.hash ^ fact).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.3} ms  {}", now as f64 / MS as f64, line()));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
