use understudy_wire::v1::Judgement;

use super::super::{Role, fixture::*};
use super::*;

fn picture(replies: &[v1::StatusReply]) -> Overview {
    merge("demo", &EXPECTED, replies)
}

fn headline(replies: &[v1::StatusReply]) -> String {
    picture(replies).groups[0].headline.clone()
}

#[test]
fn three_seats_that_agree_give_a_holder_and_a_calm_headline() {
    let overview = picture(&calm());
    let golden = "web: slot 0 on web-a since epoch 1017; 2 ready standbys; can lose one more: yes, because 3 of 3 seats \
                  grant and 2 are needed";
    assert_eq!(overview.groups[0].headline, golden);
    assert_eq!(overview.groups[0].ready_standbys, ["web-b", "web-c"]);
    assert!(overview.all_held() && !overview.groups[0].slots[0].disagree);
    assert_eq!(overview.seats.missing, Vec::<u8>::new());
}

#[test]
fn a_quorum_is_enough_and_a_missing_seat_is_told() {
    let overview = picture(&calm()[..2]);
    assert_eq!(overview.groups[0].slots[0].holder.as_deref(), Some("web-a"));
    assert_eq!(overview.seats.missing, [3]);
    let golden = "web: slot 0 on web-a since epoch 1017; 2 ready standbys; can lose one more: no, because only 2 of 3 \
                  seats grant and as many are needed";
    assert_eq!(overview.groups[0].headline, golden);
}

#[test]
fn one_seat_alone_cannot_tell_who_holds() {
    let overview = picture(&calm()[..1]);
    let slot = &overview.groups[0].slots[0];
    assert_eq!((slot.state, &slot.holder), (Tenancy::Unknown, &None));
    assert!(overview.groups[0].headline.starts_with("web: slot 0: holder unknown (seat 1 for web-a);"));
    assert!(!overview.all_held());
}

#[test]
fn a_split_vote_is_no_holder() {
    let replies = [answer(1, Some("web-a")), answer(2, Some("web-b")), answer(3, None)];
    let overview = picture(&replies);
    let slot = &overview.groups[0].slots[0];
    assert_eq!((slot.state, slot.disagree), (Tenancy::Vacant, true));
    assert_eq!(slot.standing(), "nobody (seats disagree: 1 for web-a, 2 for web-b, 3 for nobody)");
    // The old holder claims, but no quorum backs it.
    assert_eq!(overview.groups[0].nodes[0].role, Role::Standby);
    assert_eq!(overview.groups[0].ready_standbys, ["web-b", "web-c"]);
}

#[test]
fn two_executor_processes_of_one_node_are_two_holders() {
    let mut replies = calm();
    for (index, reply) in replies.iter_mut().enumerate() {
        let granted = reply.groups[0].slots[0].granted.as_mut().unwrap();
        granted.incarnation = u64::try_from(index).unwrap() + 1;
    }
    let overview = picture(&replies);
    assert_eq!(overview.groups[0].slots[0].state, Tenancy::Vacant);
    assert!(overview.groups[0].slots[0].disagree);
}

#[test]
fn two_processes_on_one_seat_do_not_count_twice() {
    let mut rival = answer(1, Some("web-b"));
    rival.presence.as_mut().unwrap().incarnation = 99;
    let replies = [answer(1, Some("web-a")), rival, answer(2, Some("web-a")), answer(3, None)];
    let overview = picture(&replies);
    let votes = &overview.groups[0].slots[0].votes;
    assert_eq!(
        votes.iter().map(|vote| vote.node.as_deref()).collect::<Vec<_>>(),
        [None, Some("web-a"), None]
    );
    assert_eq!(overview.groups[0].slots[0].holder, None);
    assert_eq!(overview.seats.granting, 2);
    // The same answer twice is one process.
    let twice = [calm(), calm()].concat();
    assert_eq!(picture(&twice), picture(&calm()));
}

#[test]
fn observers_strangers_and_surplus_seats_have_no_vote() {
    let mut stranger = answer(2, Some("web-a"));
    stranger.presence.as_mut().unwrap().cluster = "other".into();
    let nameless = v1::StatusReply { presence: None, ..answer(3, Some("web-a")) };
    let replies =
        [answer(1, Some("web-a")), answer(0, Some("web-a")), answer(7, Some("web-a")), stranger, nameless];
    let overview = picture(&replies);
    assert_eq!(overview.groups[0].slots[0].votes.len(), 1);
    assert_eq!(overview.groups[0].slots[0].holder, None);
    assert_eq!(overview.seats.detectors.iter().map(|detector| detector.seat).collect::<Vec<_>>(), [1, 0, 7]);
}

#[test]
fn without_a_configuration_an_even_highest_seat_means_one_more() {
    let assumed = Expected { assumed: true, ..EXPECTED };
    for (highest, seats) in [(0, 3), (1, 3), (3, 3), (4, 5), (5, 5), (300, 255)] {
        assert_eq!(seat_count(&assumed, highest), seats, "{highest}");
        assert_eq!(seat_count(&EXPECTED, highest), 3);
    }
}

#[test]
fn a_late_or_silent_seat_is_told_and_a_silent_one_grants_nothing() {
    let mut replies = calm();
    replies[0].presence.as_mut().unwrap().late_nanos = 250_000_000;
    replies[1].presence.as_mut().unwrap().state = "silent".into();
    let overview = picture(&replies);
    let states: Vec<_> = overview.seats.detectors.iter().map(|detector| detector.state.as_str()).collect();
    assert_eq!(states, ["late", "silent", "granting"]);
    assert_eq!(overview.seats.granting, 2);
}

#[test]
fn no_ready_standby_is_no_redundancy() {
    let mut replies = calm();
    change(&mut replies, 1, |node| node.maintenance = true);
    change(&mut replies, 2, |node| node.ready = false);
    let golden = "web: slot 0 on web-a since epoch 1017; no ready standby; can lose one more: no, because no standby is \
                  ready";
    assert_eq!(headline(&replies), golden);
    assert_eq!(picture(&replies).groups[0].nodes[1].role, Role::Out);
}

#[test]
fn a_holder_that_has_not_claimed_yet_is_not_said_to_serve() {
    let mut replies = calm();
    change(&mut replies, 0, |node| node.claims.clear());
    assert!(headline(&replies).contains("slot 0 granted to web-a, which has not claimed it yet"));
    let mut replies = calm();
    change(&mut replies, 0, |node| node.details.as_mut().unwrap().phase = "taking over".into());
    assert!(headline(&replies).contains("slot 0 on web-a, taking over, epoch 1017"));
}

#[test]
fn most_seats_judge_and_the_worst_of_equally_many_counts() {
    let mut replies = calm();
    replies[0].groups[0].nodes[1].judgement = Judgement::Failed.into();
    let node = |replies: &[v1::StatusReply]| picture(replies).groups[0].nodes[1].clone();
    assert_eq!(node(&replies).judgement, "alive");
    assert_eq!(node(&replies).judgements.len(), 3);
    assert_eq!(node(&replies[..2]).judgement, "failed");
    assert_eq!(node(&replies[..2]).role, Role::Out);
    // What the node says of itself is taken from whoever heard it last.
    replies[2].groups[0].nodes[1].silent_ms = 1.0;
    replies[2].groups[0].nodes[1].priority = 7;
    assert_eq!((node(&replies).silent_ms, node(&replies).priority), (1.0, 7));
}

#[test]
fn numbers_that_are_none_and_enums_of_tomorrow_do_no_harm() {
    let mut replies = calm();
    change(&mut replies, 0, |node| {
        (node.phi, node.silent_ms, node.judgement, node.health) = (f64::NAN, f64::NAN, 99, 99);
    });
    replies[0].groups[0].slots[0].remaining_ms = f64::NAN;
    let overview = picture(&replies);
    assert_eq!(overview.groups[0].nodes[0].judgement, "unknown");
    assert!(serde_json::to_string(&overview).is_ok());
    assert!(picture(&[]).groups.is_empty());
}
