use super::*;

#[test]
fn the_instructions_name_what_is_there() {
    let places = Places {
        client: "us7x0-demo-client".to_owned(),
        node: "us7x0-demo-web-a".to_owned(),
        name: "web-a".to_owned(),
        executor: 4711,
        dns: "10.77.0.31".to_owned(),
        understudy: "target/debug/understudy".to_owned(),
        config: "/tmp/understudy-lab/us7x0-demo/understudy.toml".to_owned(),
        folder: "/tmp/understudy-lab/us7x0-demo".to_owned(),
        pids: [("nats-1", 1), ("knot", 2), ("detector-1", 3), ("web-a-executor", 4711)]
            .map(|(name, pid)| (name.to_owned(), pid))
            .into(),
    };
    let expected = "
The deployment goes on until Ctrl-C. In another terminal, as root, from this folder:

understudy() { ip netns exec us7x0-demo-client \\
    target/debug/understudy --config /tmp/understudy-lab/us7x0-demo/understudy.toml \"$@\"; }
understudy status
understudy watch
understudy events --last 3
understudy switchover --group web --to web-b
understudy maintenance on --group web --node web-a
understudy scale --group web --active 2               # whatever the load says
understudy scale --group web --auto                   # as the load says
understudy scaling explain --group web                # why it did that, or nothing
understudy scaling pause --group web                  # nothing, until: resume

ip netns exec us7x0-demo-client curl -s http://10.77.0.100:8080/  # who serves
ip netns exec us7x0-demo-client curl -s http://10.77.0.101:8080/  # the same of slot 1, while it is open
ip netns exec us7x0-demo-client kdig @10.77.0.31 web.ha.test. A +short
ip netns exec us7x0-demo-client kdig @10.77.0.31 _understudy.web.ha.test. TXT +short

ip -n us7x0-demo-web-a link set eth0 down             # cuts web-a off
ip -n us7x0-demo-web-a link set eth0 up               # and back
kill -STOP 4711; sleep 5; kill -CONT 4711             # the executor of web-a
ip netns pids us7x0-demo-web-a | xargs kill -9        # all processes of web-a at once

What ends is started again after two seconds. Logs are in /tmp/understudy-lab/us7x0-demo; pids:

  nats-1                   1  knot                     2  detector-1               3
  web-a-executor        4711

";
    assert_eq!(instructions(&places, true), expected);
    let fixed = instructions(&places, false);
    assert!(!fixed.contains("understudy scal") && !fixed.contains("10.77.0.101"), "{fixed}");
}
