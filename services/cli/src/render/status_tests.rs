use understudy_wire::v1::Judgement;

use super::*;
use crate::overview::{fixture::*, merge};

const PLAIN: Style = Style { terminal: false, colour: false };

#[test]
fn a_calm_deployment() {
    let golden = "\
web: slot 0 on web-a since epoch 1017; 2 ready standbys; can lose one more: yes, because 3 of 3 seats grant and 2 are needed

web: 1 active, 2 standby wanted
  slot  holder  epoch  grants                 VIPs         names
  0     web-a   1017   seats 1 2 3 for web-a  10.77.0.100  web.ha.test.

  node   role            judged  phi  heard  health   ready  kind  priority
  web-a  active, slot 0  alive   0.1  34 ms  healthy  yes    hot   100
  web-b  standby         alive   0.1  34 ms  healthy  yes    hot   100
  web-c  standby         alive   0.1  34 ms  healthy  yes    hot   100

demo: 3 of 3 seats grant, 2 needed
  seat  state     late    direct path
  1     granting  0.1 ms  10.77.0.21:7410
  2     granting  0.1 ms  10.77.0.22:7410
  3     granting  0.1 ms  10.77.0.23:7410
";
    assert_eq!(status(&merge("demo", &EXPECTED, &calm()), PLAIN), golden);
}

#[test]
fn a_deployment_in_trouble() {
    let mut replies = vec![answer(1, Some("web-a")), answer(2, Some("web-b"))];
    replies[1].presence.as_mut().unwrap().state = "conflict".into();
    change(&mut replies, 0, |node| {
        (node.judgement, node.phi, node.silent_ms) = (Judgement::Failed.into(), 11.26, 2_417.0);
    });
    replies[1].groups[0].nodes[0].judgement = Judgement::Suspect.into();
    change(&mut replies, 1, |node| {
        (node.ready, node.damped) = (false, true);
        node.details.as_mut().unwrap().reason = "check http: 503\x1b[31m".into();
    });
    change(&mut replies, 2, |node| node.maintenance = true);
    let golden = "\
web: slot 0 has NO HOLDER (seats disagree: 1 for web-a, 2 for web-b); no ready standby; can lose one more: no, because slot 0 has no holder, no standby is ready, only 1 of 3 seats grant and 2 are needed

web: 1 active, 2 standby wanted
  slot  holder  epoch   grants                                    VIPs         names
  0     -       (1017)  seats disagree: 1 for web-a, 2 for web-b  10.77.0.100  web.ha.test.

  node   role     judged  phi   heard  health   ready  kind  priority  notes
  web-a  out      failed  11.3  2.4 s  healthy  yes    hot   100       claims slot 0 (epoch 1017) without a quorum; seats differ: 1 failed, 2 suspect
  web-b  standby  alive   0.1   34 ms  healthy  no     hot   100       damped: fell often, is chosen last; check http: 503 [31m
  web-c  out      alive   0.1   34 ms  healthy  yes    hot   100       maintenance

demo: 1 of 3 seats grant, 2 needed
  seat  state      late    direct path
  1     granting   0.1 ms  10.77.0.21:7410
  2     conflict   0.1 ms  10.77.0.22:7410
  3     no answer
";
    assert_eq!(status(&merge("demo", &EXPECTED, &replies), PLAIN), golden);
}

#[test]
fn nothing_configured_and_nothing_heard() {
    let mut reply = answer(1, None);
    reply.groups.clear();
    let expected = crate::session::Expected { assumed: true, ..EXPECTED };
    let text = status(&merge("demo", &expected, &[reply]), PLAIN);
    assert!(text.starts_with("no groups are configured\n"), "{text}");
    assert!(text.contains("(assumed: no configuration says how many; see --seats)"), "{text}");
    let mut reply = answer(1, None);
    reply.groups[0].nodes.clear();
    assert!(status(&merge("demo", &EXPECTED, &[reply]), PLAIN).contains("  no node was heard\n"));
}

#[test]
fn colours_only_where_they_are_wanted() {
    let overview = merge("demo", &EXPECTED, &calm());
    assert!(!status(&overview, PLAIN).contains('\x1b'));
    assert!(status(&overview, Style { terminal: false, colour: true }).contains('\x1b'));
}
