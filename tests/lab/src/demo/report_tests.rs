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
        assert!(!all_well(&[outcome(), one], 2), "fault {number}");
    }
}

#[test]
fn an_act_that_was_not_played_is_missed() {
    assert!(all_well(&[outcome(), outcome()], 2));
    assert!(!all_well(&[outcome()], 2));
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

2 of 3 takeovers as intended; answered by two nodes for 7 ms; DNS followed 1 of 3: WRONG
";
    assert_eq!(summary(&[outcome(), second], 3), expected);
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
    assert_eq!(Names::count(&samples, address()), Names { asked: 5, silent: 1, wrong: 3 });
}
