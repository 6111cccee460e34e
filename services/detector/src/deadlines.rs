//! Which group is due next, without looking at all of them.

use std::collections::BTreeSet;

use understudy_wire::BootTime;

/// One deadline per group, by the group's index.
///
/// Every heartbeat moves its group's deadline further away. That touches no order: the old entry comes up, is found early
/// and is put where it belongs then. So a group costs one entry, and a few moves an interval however many nodes it has.
#[derive(Debug, Default)]
pub struct Deadlines {
    groups: Vec<Due>,
    order: BTreeSet<(BootTime, usize)>,
}

#[derive(Debug)]
struct Due {
    at: BootTime,
    /// Its entry in the order, never after `at`.
    queued: BootTime,
}

impl Deadlines {
    /// Sets the deadline of a group; groups are numbered from 0 without gaps.
    pub fn set(&mut self, group: usize, at: BootTime) {
        match self.groups.get_mut(group) {
            Some(due) => {
                due.at = at;
                if at < due.queued {
                    self.order.remove(&(due.queued, group));
                    due.queued = at;
                    self.order.insert((at, group));
                }
            }
            None => {
                self.groups.push(Due { at, queued: at });
                self.order.insert((at, group));
            }
        }
    }

    /// When to look for groups that are due. May be early, never late.
    pub fn next(&self) -> Option<BootTime> {
        self.order.first().map(|(due, _)| *due)
    }

    /// A group that is due by `now`.
    pub fn due(&mut self, now: BootTime) -> Option<usize> {
        loop {
            let (queued, group) = *self.order.first()?;
            if queued > now {
                return None;
            }
            let due = &mut self.groups[group];
            if due.at <= now {
                return Some(group);
            }
            self.order.remove(&(queued, group));
            due.queued = due.at;
            self.order.insert((due.at, group));
        }
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
        deadlines.set(2, BootTime(50));
        assert_eq!(deadlines.due(BootTime(29)), None, "group 2 was looked for early");
        assert_eq!(deadlines.next(), Some(BootTime(30)));
        deadlines.set(2, BootTime(5));
        assert_eq!((deadlines.next(), deadlines.due(BootTime(5))), (Some(BootTime(5)), Some(2)));
    }
}
