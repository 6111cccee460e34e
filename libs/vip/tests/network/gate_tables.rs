//! What becomes of the tables: replaced without a hole, kept, removed, refused.

use understudy_vip::boottime_ns;
use understudy_vip::gate::{Gate, GateError};

use crate::segment::{GUARDS, MARK, Segment, VIP4, VIP6, add_vips, config, install, own4, own6};
use crate::traffic::{Background, refused};

const MINUTE: u64 = 60_000_000_000;

#[test]
fn dropping_the_gate_shuts_it_and_keeps_the_fence() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let gate = install("web");
        add_vips(node);
        gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap();
        drop(gate);
        assert!(refused(VIP4, own4(0)) && refused(VIP6, own6(0)));
    });
    let tables = node.nft("list tables");
    assert_eq!(tables, "table inet understudy_fence_web\ntable arp understudy_fence_web\n");
}

#[test]
fn only_uninstalling_removes_the_fence() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let gate = install("web");
        add_vips(node);
        gate.uninstall().unwrap();
        assert!(!refused(VIP4, own4(0)) && !refused(VIP6, own6(0)));
    });
    assert_eq!(node.nft("list tables"), "");
}

#[test]
fn installing_over_leftovers_replaces_them_without_a_hole() {
    const ROUNDS: usize = 100;
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async { drop(install("web")) });
    add_vips(node);
    let senders: Vec<_> = [(VIP4, own4(0)), (VIP6, own6(0))]
        .map(|(vip, own)| {
            Background::start(node, move || {
                move || {
                    assert!(refused(vip, own), "{vip}: a hole");
                    1
                }
            })
        })
        .into();
    node.run(|| async {
        for _ in 0..ROUNDS {
            drop(install("web"));
        }
    });
    for sender in senders {
        assert!(sender.finish() > 100);
    }
    // A guard that is not listed any more is free.
    node.run(|| async {
        let _gate = Gate::install(config("web"), &GUARDS[..1]).unwrap();
        assert!(refused(VIP4, own4(0)) && !refused(VIP6, own6(0)));
    });
}

#[test]
fn a_gate_has_one_holder() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.run(|| async {
        let gate = install("web");
        add_vips(node);
        gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap();
        let second = Gate::install(config("web"), &[]);
        assert!(matches!(second, Err(GateError::Held { .. })), "{second:?}");
        assert!(!refused(VIP4, own4(0)), "the holder's guards stay as they were");
        gate.shut(&GUARDS).unwrap();
        assert!(refused(VIP4, own4(0)), "and so does the fence");
        drop(gate);
        install("web");
    });
}

#[test]
fn a_forged_pass_table_is_swept_away() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    node.nft("add table inet understudy_pass_web");
    node.nft("add chain inet understudy_pass_web forged { type filter hook output priority -305; }");
    node.nft(&format!("add rule inet understudy_pass_web forged meta mark set {MARK}"));
    node.run(|| async {
        let _gate = install("web");
        add_vips(node);
        assert!(refused(VIP4, own4(0)));
    });
}

#[test]
fn without_the_capability_it_says_so() {
    let segment = Segment::new(1);
    segment.members[0].run(|| async {
        crate::proof::drop_privileges();
        let gate = Gate::install(config("web"), &GUARDS);
        assert!(matches!(gate, Err(GateError::NotPermitted(_))), "{gate:?}");
        let probe = understudy_vip::gate::available();
        assert!(matches!(probe, Err(GateError::NotPermitted(_))), "{probe:?}");
    });
}
