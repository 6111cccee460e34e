//! Target tracking: what the load wants, and what windows, cooldowns and steps make of it.

use std::{collections::VecDeque, time::Duration};

use understudy_wire::{BootTime, NodeId, Slot};

use crate::{
    plan::Reading,
    rules::{GroupRules, Load, Target},
    view::{GroupView, Sample},
};

/// A rise of one is noise.
const LEAST_RISE: u16 = 2;

/// Why a value does not count; `None`: it does.
fn refused(sample: Sample, stale_after: Duration) -> Option<String> {
    if !sample.value.is_finite() || sample.value < 0.0 {
        Some(format!("says {}", sample.value))
    } else if sample.age > stale_after {
        Some(format!("is {} s old", sample.age.as_secs()))
    } else {
        None
    }
}

/// Reads one target from the members that hold a slot, draining ones included: their load stays.
///
/// Who is missing counts as idle when more members are wanted, and forbids fewer: a missing value never scales in, and
/// never scales out by itself.
pub(crate) fn read(load: &Load, target: &Target, view: &GroupView) -> Reading {
    let mut missing = Vec::new();
    let (mut sum, mut heard) = (0.0, 0);
    for holder in (0..view.open).filter_map(|slot| view.slots.get(&Slot(slot))?.holder.as_ref()) {
        let sample = view.members.get(holder).and_then(|member| member.signals.get(&target.signal));
        let excuse = sample.map_or(Some("says nothing".into()), |sample| refused(*sample, load.stale_after));
        match (sample, excuse) {
            (Some(sample), None) => {
                sum += sample.value;
                heard += 1;
            }
            (_, excuse) => missing.push(format!("{holder} {}", excuse.unwrap_or_default())),
        }
    }
    let serving = view.serving;
    let demand = sum / target.value;
    let ratio = demand / f64::from(serving.max(1));
    let want = if ratio > 1.0 + load.tolerance_out {
        members(demand).max(serving)
    } else if !missing.is_empty() || heard == 0 {
        serving
    } else {
        members(demand / (1.0 - load.tolerance_in)).clamp(1, serving)
    };
    let mean = if heard == 0 { 0.0 } else { sum / heard as f64 };
    Reading { signal: target.signal.clone(), target: target.value, mean, heard, missing, demand, want }
}

/// Whole members for a demand; saturates.
pub(crate) fn members(demand: f64) -> u16 {
    // `as` saturates, and a billionth keeps 0.7 / 0.7 from being two members.
    (demand - 1e-9).ceil() as u16
}

/// The shared resource that is full, if any: who says it, and how much.
pub(crate) fn limit(load: &Load, view: &GroupView) -> Option<String> {
    load.shared.iter().find_map(|shared| {
        let said = view.members.iter().filter_map(|(node, member)| {
            let sample = *member.signals.get(&shared.signal)?;
            refused(sample, load.stale_after).is_none().then_some((node, sample.value))
        });
        let (node, most): (&NodeId, f64) = said.max_by(|one, other| one.1.total_cmp(&other.1))?;
        (most >= shared.full).then(|| {
            format!(
                "{} is at {most:.2} of {:.2} ({node}) and shared by all members: more of them cannot help",
                shared.signal, shared.full
            )
        })
    })
}

#[derive(Debug, Clone, Copy)]
struct Record {
    at: BootTime,
    /// N that was wanted then.
    want: u16,
    /// N that members were ordered for then; 0: for no more than served.
    growth: u16,
    /// The same with what was ordered ahead of the rise.
    ahead: u16,
}

/// What was wanted over the last windows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracker {
    history: VecDeque<Record>,
    /// Since when wants are recorded without a break.
    began: Option<BootTime>,
    scaled_out: Option<BootTime>,
    scaled_in: Option<BootTime>,
    wish: u16,
}

/// What a turn makes of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aim {
    /// N to work towards: above `serving` promote and order, below it drain.
    pub(crate) wish: u16,
    /// Largest growth that was aimed at within the window: what was ordered for it is kept until then. What was ordered
    /// ahead of a rise is kept for two start-up times: it comes into its own within one, or never.
    pub(crate) keep: u16,
    /// Standbys beyond M that are ordered because the load rises: as many as became wanted within the last start-up
    /// time will be wanted within the next.
    pub(crate) ahead: u16,
    /// Fewer are wanted, but not yet.
    pub(crate) held: Option<Held>,
}

/// Why nothing is scaled in yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// So many were wanted within the window.
    Window(u16),
    /// The window has not been watched yet.
    Young,
    /// The last change was just now.
    Cooldown,
}

impl Tracker {
    /// Takes in that `want` members are wanted now that `serving` serve.
    pub(crate) fn aim(&mut self, rules: &GroupRules, serving: u16, want: u16, now: BootTime) -> Aim {
        let load = &rules.load;
        let longest = load.window_in.max(load.window_out).max(rules.start_up * 2);
        // A turn that comes late by more than the longest window has watched nothing of it.
        if self.history.back().is_some_and(|last| now.since(last.at) > longest.max(Duration::from_secs(60))) {
            *self = Self { scaled_out: self.scaled_out, scaled_in: self.scaled_in, ..Self::default() };
        }
        let began = *self.began.get_or_insert(now);
        while self.history.front().is_some_and(|oldest| now.since(oldest.at) > longest) {
            self.history.pop_front();
        }
        // Newest first: this turn, then those before it.
        let within = |window: Duration| {
            let recent = self.history.iter().rev().take_while(move |record| now.since(record.at) <= window);
            std::iter::once(want).chain(recent.map(|record| record.want))
        };
        let watched = |window: Duration| now.since(began) >= window;
        let least_out = within(load.window_out).min().unwrap_or(want);
        let most_in = within(load.window_in).max().unwrap_or(want);
        let cools = |at: Option<BootTime>, span| at.is_some_and(|at| now.since(at) < span);

        let mut held = None;
        let wish = if least_out > serving && watched(load.window_out) {
            let from = self.wish.max(serving);
            let most = if cools(self.scaled_out, load.cooldown_out) { from } else { from + load.step_out };
            least_out.min(most)
        } else if want < serving {
            let changed = self.scaled_out.max(self.scaled_in);
            held = if !watched(load.window_in) {
                Some(Held::Young)
            } else if most_in >= serving {
                Some(Held::Window(most_in))
            } else if cools(changed, load.cooldown_in) {
                Some(Held::Cooldown)
            } else {
                None
            };
            if held.is_some() { serving } else { most_in.max(serving.saturating_sub(load.step_in)) }
        } else {
            serving
        };
        self.wish = wish;
        let before = within(rules.start_up).last().unwrap_or(want);
        let rise = least_out.saturating_sub(before);
        let rises = rise >= LEAST_RISE && least_out >= serving;
        let ahead = if rises { rise.min(rules.max.saturating_sub(wish)) } else { 0 };
        let growth = if wish > serving { wish } else { 0 };
        self.history.push_back(Record {
            at: now,
            want,
            growth,
            ahead: if ahead > 0 { wish + ahead } else { 0 },
        });
        let kept = |record: &Record| {
            let since = now.since(record.at);
            let growth = if since <= load.window_in { record.growth } else { 0 };
            growth.max(if since <= rules.start_up * 2 { record.ahead } else { 0 })
        };
        let keep = self.history.iter().map(kept).max().unwrap_or(wish).max(wish);
        Aim { wish, keep, ahead, held }
    }

    /// Slots were opened, or drained.
    pub(crate) fn scaled(&mut self, out: bool, now: BootTime) {
        *(if out { &mut self.scaled_out } else { &mut self.scaled_in }) = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Member, SlotView};

    fn view(values: &[Option<f64>]) -> GroupView {
        let count = values.len() as u16;
        let mut view = GroupView { open: count, serving: count, ..GroupView::default() };
        for (index, value) in values.iter().enumerate() {
            let node = NodeId::new(&format!("web-{index}")).unwrap();
            let slot = SlotView { holder: Some(node.clone()), ..SlotView::default() };
            view.slots.insert(Slot(index as u16), slot);
            let mut member = Member::default();
            if let Some(value) = value {
                member.signals.insert("cpu".into(), Sample { value: *value, age: Duration::from_secs(1) });
            }
            view.members.insert(node, member);
        }
        view
    }

    fn want(values: &[Option<f64>]) -> u16 {
        let load = Load::default();
        read(&load, &Target { signal: "cpu".into(), value: 0.5 }, &view(values)).want
    }

    #[test]
    fn the_load_is_divided_by_the_target() {
        assert_eq!(want(&[Some(0.5), Some(0.5)]), 2);
        assert_eq!(want(&[Some(0.6), Some(0.5)]), 3);
        assert_eq!(want(&[Some(1.0), Some(1.0)]), 4);
        assert_eq!(want(&[Some(0.1), Some(0.1)]), 1);
        // Two percent stay free after a scale-in.
        assert_eq!(want(&[Some(0.246), Some(0.246)]), 2);
        assert_eq!(want(&[Some(0.244), Some(0.244)]), 1);
    }

    #[test]
    fn what_is_missing_never_scales_in_and_never_out_by_itself() {
        assert_eq!(want(&[Some(0.0), None]), 2);
        assert_eq!(want(&[None, None]), 2);
        for bad in [f64::NAN, f64::INFINITY, -0.1] {
            assert_eq!(want(&[Some(0.0), Some(bad)]), 2, "{bad}");
            assert_eq!(want(&[Some(2.0), Some(bad)]), 4, "{bad}");
        }
    }

    fn at(secs: u64) -> BootTime {
        BootTime(1_000_000_000_000).after(Duration::from_secs(secs))
    }

    fn rules(load: Load) -> GroupRules {
        GroupRules { max: 12, load, ..GroupRules::fixed(1, 1) }
    }

    #[test]
    fn fewer_are_wanted_for_a_whole_window_before_anything_is_scaled_in() {
        let rules = rules(Load { step_in: 1, window_out: Duration::from_secs(10), ..Load::default() });
        let mut tracker = Tracker::default();
        for second in (0..300).step_by(5) {
            let aim = tracker.aim(&rules, 4, 2, at(second));
            assert_eq!((aim.wish, aim.held), (4, Some(Held::Young)), "at {second} s");
        }
        assert_eq!(tracker.aim(&rules, 4, 2, at(300)).wish, 3);
        tracker.scaled(false, at(300));
        assert_eq!(tracker.aim(&rules, 3, 2, at(305)).held, Some(Held::Cooldown));
        assert_eq!(tracker.aim(&rules, 3, 4, at(310)).wish, 3);
        for second in (315..610).step_by(5) {
            assert_eq!(tracker.aim(&rules, 3, 2, at(second)).held, Some(Held::Window(4)), "at {second} s");
        }
        assert_eq!(tracker.aim(&rules, 3, 2, at(615)).wish, 2);
    }

    #[test]
    fn one_sample_scales_nothing_out_and_steps_add_up() {
        let rules = rules(Load { step_out: 3, window_out: Duration::from_secs(10), ..Load::default() });
        let mut tracker = Tracker::default();
        assert_eq!(tracker.aim(&rules, 2, 9, at(0)).wish, 2);
        assert_eq!(tracker.aim(&rules, 2, 2, at(5)).wish, 2);
        assert_eq!(tracker.aim(&rules, 2, 9, at(10)).wish, 2);
        assert_eq!(tracker.aim(&rules, 2, 9, at(15)).wish, 2);
        assert_eq!(tracker.aim(&rules, 2, 9, at(20)).wish, 5);
        assert_eq!(tracker.aim(&rules, 2, 9, at(25)).wish, 8);
        let aim = tracker.aim(&rules, 3, 9, at(30));
        assert_eq!((aim.wish, aim.keep), (9, 9));
        // The load is gone before they are ready: they are kept for a window.
        let aim = tracker.aim(&rules, 3, 3, at(35));
        assert_eq!((aim.wish, aim.keep), (3, 9));
    }

    #[test]
    fn a_rise_is_ordered_ahead_of_and_a_single_step_is_not() {
        let rules = rules(Load { window_out: Duration::from_secs(10), ..Load::default() });
        let mut tracker = Tracker::default();
        let mut ahead = Vec::new();
        for (second, want) in [(0, 4), (5, 4), (10, 5), (20, 5), (30, 6), (40, 6), (50, 7), (60, 7), (120, 7)]
        {
            ahead.push(tracker.aim(&rules, want.min(6), want, at(second)).ahead);
        }
        assert_eq!(ahead, [0, 0, 0, 0, 0, 2, 2, 3, 0]);
        // Never beyond max.
        let tight = GroupRules { max: 7, ..rules };
        let mut tracker = Tracker::default();
        for (second, want) in [(0, 4), (5, 4), (10, 7), (20, 7)] {
            assert_eq!(tracker.aim(&tight, 4, want, at(second)).ahead, 0, "at {second} s");
        }
    }
}
