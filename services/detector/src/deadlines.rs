//! Which group is due next, without looking at all of them.

use std::collections::BTreeSet;

use understudy_wire::BootTime;

/// One deadline per group, by the group's index.
#[derive(Debug, Default)]
pub struct Deadlines {
    due: Vec<BootTime>,
    order: BTreeSet<(BootTime, usize)>,
}

impl Deadlines {
    /// Sets the deadline of a group; groups are numbered from 0 without gaps.
    pub fn set(&mut self, group: usize, due: BootTime) {
        if group == self.due.len() {
            self.due.push(due);
        } else {
            self.order.remove(&(self.due[group], group));
            self.due[group] = due;
        }
        self.order.insert((due, group));
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<BootTime> {
        self.order.first().map(|(due, _)| *due)
    }

    /// A group that is due by `now`.
    pub fn due(&self, now: BootTime) -> Option<usize> {
        self.order.first().filter(|(due, _)| *due <= now).map(|(_, group)| *group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_group_is_due_first_and_moves_back_when_set_anew() {
        let mut deadlines = Deadlines::default();
        deadlines.set(0, BootTime(30));
        deadlines.set(1, BootTime(10));
        deadlines.set(2, BootTime(20));
        assert_eq!(deadlines.next(), Some(BootTime(10)));
        assert_eq!(deadlines.due(BootTime(9)), None);
        assert_eq!(deadlines.due(BootTime(25)), Some(1));
        deadlines.set(1, BootTime(40));
        assert_eq!(deadlines.due(BootTime(25)), Some(2));
        assert_eq!(deadlines.next(), Some(BootTime(20)));
    }
}
