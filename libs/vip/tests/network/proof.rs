//! The proof of a witness without privileges.

use understudy_vip::boottime_ns;
use understudy_vip::gate::Guard;
use understudy_vip::proof::{Proof, prove_shut};

use crate::segment::{GUARDS, Namespace, Segment, VIPS, add_vips, install};

const MINUTE: u64 = 60_000_000_000;

/// Makes the calling thread, and no other, an ordinary user for good.
pub(crate) fn drop_privileges() {
    const NOBODY: libc::c_long = 65534;
    #[allow(unsafe_code)]
    // SAFETY: the raw call takes three numbers and touches no memory; unlike the library's
    // function it changes the calling thread alone.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    assert_eq!(result, 0);
}

pub(crate) fn witness(node: &Namespace, guard: Guard) -> Proof {
    node.run(|| async move {
        drop_privileges();
        prove_shut(guard)
    })
}

#[test]
fn the_proof_follows_the_gate() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    for vip in VIPS {
        assert_eq!(witness(node, Guard::Address(vip)), Proof::Absent);
    }
    let gate = node.run(|| async { install("web") });
    for vip in VIPS {
        assert_eq!(witness(node, Guard::Address(vip)), Proof::Absent);
    }
    add_vips(node);
    for vip in VIPS {
        assert_eq!(witness(node, Guard::Address(vip)), Proof::Refused);
    }
    node.run(|| async { gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap() });
    for vip in VIPS {
        assert_eq!(witness(node, Guard::Address(vip)), Proof::Open);
    }
    node.run(|| async { gate.shut(&GUARDS).unwrap() });
    for vip in VIPS {
        assert_eq!(witness(node, Guard::Address(vip)), Proof::Refused);
    }
    node.run(|| async { gate.uninstall().unwrap() });
    for vip in VIPS {
        assert_eq!(witness(node, Guard::Address(vip)), Proof::Open);
    }
}

#[test]
fn no_route_is_needed() {
    let node = Namespace::new();
    node.ip("link add alone0 type veth peer name alone1");
    node.ip("link set alone0 up");
    node.ip("link set alone1 up");
    node.run(|| async {
        let gate = install("web");
        for (vip, length) in VIPS.into_iter().zip([32, 128]) {
            let nodad = if vip.is_ipv6() { "nodad" } else { "" };
            node.ip(&format!("address add {vip}/{length} dev alone0 {nodad}"));
        }
        gate.open(&GUARDS, boottime_ns() + MINUTE).unwrap();
        assert_eq!(GUARDS.map(prove_shut), [Proof::Open; 2]);
        gate.shut(&GUARDS).unwrap();
        assert_eq!(GUARDS.map(prove_shut), [Proof::Refused; 2]);
    });
}

#[test]
fn a_firewall_against_all_udp_proves_nothing() {
    let segment = Segment::new(1);
    let node = &segment.members[0];
    add_vips(node);
    node.nft("add table inet firewall");
    node.nft("add chain inet firewall out { type filter hook output priority 0; }");
    node.nft("add rule inet firewall out meta l4proto udp drop");
    for vip in VIPS {
        assert_eq!(witness(node, Guard::Address(vip)), Proof::Open);
    }
}
