use super::*;
use crate::Moment;

const NAME: &str = "web.ha.test.";

fn address() -> IpAddr {
    "10.77.0.100".parse().unwrap()
}

fn outcome() -> Outcome {
    let from = Moment::from_nanos(1_000_000_000);
    Outcome {
        what: "active cut off the network",
        from: "web-a".to_owned(),
        to: "web-b".to_owned(),
        record: Takeover {
            node: "web-b".to_owned(),
            previous: "web-a".to_owned(),
            epoch: 1017,
            ..Takeover::default()
        },
        gap: Gap {
            from,
            to: from + Duration::from_micros(287_040),
            lost: 286,
            pause: Duration::from_millis(2),
        },
        two_answering: Duration::ZERO,
        zone_epoch: 1017,
        names: Names { asked: 40, silent: 0, wrong: 0 },
        trouble: Vec::new(),
    }
}

#[test]
fn what_went_well_is_two_lines() {
    let expected =
        "      client  gap 287.0 ms, answered by two nodes for 0 ms                                     ok
        name  web.ha.test. = 10.77.0.100 in 40 of 40 answers, epoch 1017 beside it             ok
";
    assert_eq!(outcome().lines(NAME, address()), expected);
    assert!(outcome().is_ok());
}

#[test]
fn each_fault_is_named_and_fails_the_act() {
    let mut wrong = outcome();
    wrong.gap.pause = Duration::from_millis(12);
    wrong.two_answering = Duration::from_millis(3);
    wrong.zone_epoch = 1016;
    wrong.names = Names { asked: 40, silent: 2, wrong: 1 };
    wrong.trouble = vec!["web-c took over too, epoch 1018".to_owned()];
    wrong.record.previous = "web-c".to_owned();
    let expected =
        "      client  gap 287.0 ms (the probe itself paused for 12 ms of it), answered by two nodes
              for 3 ms                                                                         WRONG
        name  web.ha.test. = 10.77.0.100 in 37 of 40 answers, epoch 1016 beside it, 2 without
              answer, 1017 expected                                                            WRONG
       wrong  web-c took over too, epoch 1018                                                  WRONG
       wrong  it says that it follows \"web-c\", not web-a                                       WRONG
";
    assert_eq!(wrong.lines(NAME, address()), expected);
}

#[test]
fn one_thing_wrong_is_enough() {
    let faults: [fn(&mut Outcome); 6] = [
        |outcome| outcome.two_answering = Duration::from_millis(1),
        |outcome| outcome.zone_epoch = 1016,
        |outcome| outcome.zone_epoch = 1018,
        |outcome| outcome.names.wrong = 1,
        |outcome| outcome.names.silent = outcome.names.asked,
        |outcome| outcome.trouble.push("it moved twice".to_owned()),
    ];
    for (fault, number) in faults.into_iter().zip(1..) {
        let mut one = outcome();
        fault(&mut one);
        assert!(!one.is_ok(), "fault {number}");
        assert!(!all_well((&[outcome(), one], 2), (&[], 0)), "fault {number}");
    }
}

#[test]
fn an_act_that_was_not_played_is_missed() {
    assert!(all_well((&[outcome(), outcome()], 2), (&[change()], 1)));
    assert!(!all_well((&[outcome()], 2), (&[change()], 1)));
    assert!(!all_well((&[outcome(), outcome()], 2), (&[], 1)));
}

#[test]
fn the_summary_is_a_table_and_a_verdict() {
    let mut second = outcome();
    second.what = "executor stopped";
    (second.from, second.to) = ("web-b".to_owned(), "web-a".to_owned());
    second.record.previous = "web-b".to_owned();
    second.two_answering = Duration::from_millis(7);
    second.zone_epoch = 3;
    let expected = "\
act  what                        from   to     epoch       gap  two answering  DNS
1    active cut off the network  web-a  web-b   1017  287.0 ms           0 ms  followed  ok
2    executor stopped            web-b  web-a   1017  287.0 ms           7 ms  NOT       WRONG
6    standby lost for good       web-c  web-1          12.0 ms           0 ms  followed  ok

2 of 3 takeovers and 1 of 3 scalings as intended; answered by two nodes for 7 ms; DNS followed 2 of
6; 7 requests answered, 0 failed: WRONG
";
    assert_eq!(summary((&[outcome(), second], 3), (&[change()], 3)), expected);
}

fn change() -> Change {
    let from = Moment::from_nanos(1_000_000_000);
    Change {
        act: 6,
        what: "standby lost for good".to_owned(),
        from: "web-c".to_owned(),
        to: "web-1".to_owned(),
        epoch: None,
        gap: Gap { from, to: from + Duration::from_millis(12), lost: 11, pause: Duration::from_millis(2) },
        two_answering: Duration::ZERO,
        names: Names { asked: 40, silent: 0, wrong: 0 },
        answered: Answered {
            by: [("web-a", 5), ("web-b", 2)].map(|(node, count)| (node.to_owned(), count)).into(),
            failed: Vec::new(),
        },
        trouble: Vec::new(),
    }
}

#[test]
fn a_change_is_three_lines_and_its_faults() {
    let expected =
        "      client  gap 12.0 ms at slot 0, any slot answered by two nodes for 0 ms                   ok
        name  web.ha.test. = 10.77.0.100 in 40 of 40 answers                                   ok
    requests  7 answered (5 by web-a, 2 by web-b), 0 failed                                    ok
";
    let mut change = change();
    assert_eq!(change.lines("web.ha.test. = 10.77.0.100"), expected);
    change.answered.failed = ["1", "2", "3", "4"].map(|number| format!("refused {number}")).into();
    change.trouble.push("web-b has served 10.77.0.100".to_owned());
    let text = change.lines("web.ha.test. = 10.77.0.100");
    assert!(text.contains("7 answered (5 by web-a, 2 by web-b), 4 failed"), "{text}");
    assert!(text.contains("wrong  web-b has served 10.77.0.100"), "{text}");
    assert!(text.contains("refused 3") && !text.contains("refused 4"), "{text}");
}

#[test]
fn one_thing_wrong_with_a_change_is_enough() {
    let faults: [fn(&mut Change); 6] = [
        |change| change.two_answering = Duration::from_millis(1),
        |change| change.names.wrong = 1,
        |change| change.names.silent = change.names.asked,
        |change| change.answered.failed.push("refused".to_owned()),
        |change| change.answered.by.clear(),
        |change| change.trouble.push("it moved".to_owned()),
    ];
    for (fault, number) in faults.into_iter().zip(1..) {
        let mut one = change();
        fault(&mut one);
        assert!(!one.is_ok(), "fault {number}");
        assert!(!all_well((&[], 0), (&[one], 1)), "fault {number}");
    }
}

#[test]
fn requests_are_counted_by_node() {
    let at = Moment::from_nanos(1);
    let request = |answer: Result<&str, &str>| Request {
        begun: at,
        ended: at,
        answer: answer.map(str::to_owned).map_err(str::to_owned),
    };
    let answered = Answered::count(&[request(Ok("web-a")), request(Err("refused")), request(Ok("web-a"))]);
    assert_eq!(answered.by, [("web-a".to_owned(), 2)].into());
    assert_eq!(answered.failed, ["refused"]);
}

#[test]
fn only_the_vip_alone_is_the_right_answer() {
    let at = Moment::from_nanos(1);
    let sample = |addresses: Option<Vec<&str>>| DnsSample {
        at,
        addresses: addresses.map(|all| all.iter().map(|address| address.parse().unwrap()).collect()),
    };
    let samples = [
        sample(Some(vec!["10.77.0.100"])),
        sample(None),
        sample(Some(vec![])),
        sample(Some(vec!["10.77.0.41"])),
        sample(Some(vec!["10.77.0.100", "10.77.0.41"])),
    ];
    assert_eq!(Names::count(&samples, &[&[address()]]), Names { asked: 5, silent: 1, wrong: 3 });
    let both = ["10.77.0.41".parse().unwrap(), address()];
    let names = Names::count(&samples, &[&[address()], &both]);
    assert_eq!(names, Names { asked: 5, silent: 1, wrong: 2 });
}
