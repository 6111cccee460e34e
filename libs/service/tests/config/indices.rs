//! Elements of a list behind one that was refused.

use crate::{FULL, errors, spoilt};

/// What stands behind an element that could not be read is told under its own index, and is told at all.
#[test]
fn elements_keep_their_index_behind_one_that_was_refused() {
    let checks = "[[group.web.check]]\nkind = \"tcp\"\n[[group.web.check]]\nkind = \"tcp\"\nname = \"a\"\naddress = \
                  \"h:1\"\nrise = 0\n[[group.web.check]]\nkind = \"tcp\"\nname = \"a\"\naddress = \"h:2\"\nfall = 0\n";
    let told = errors(&format!("{FULL}{checks}"), &[]);
    assert_eq!(
        told,
        [
            "understudy.toml:71: group.web.check[2]: a check of kind \"tcp\" needs address, such as address = \
             \"127.0.0.1:5432\"",
            "understudy.toml:77: group.web.check[3].rise = 0: must be at least 1",
            "understudy.toml:80: group.web.check[4].name = \"a\": has the name \"a\" of group.web.check[3]; give each check a \
             name of its own",
            "understudy.toml:82: group.web.check[4].fall = 0: must be at least 1",
        ]
    );
    let vips = "[\"10.77.0.100\", \"10.77.0.0/24\", \"10.77.0.101/24\"]";
    let told = errors(&spoilt("[\"10.77.0.100/24\", \"fd77::100/64\"]", vips), &[]);
    assert_eq!(
        told,
        [
            "understudy.toml:32: group.web.slot[0].vips[0] = \"10.77.0.100\": has no prefix length; write \"10.77.0.100/24\" \
             (with the segment's own prefix)",
            "understudy.toml:32: group.web.slot[0].vips[1] = \"10.77.0.0/24\": is the network 10.77.0.0/24 itself; write an \
             address within it",
            "understudy.toml:35: group.web.slot[1].vips[0] = \"10.77.0.101/24\": is the VIP of group.web.slot[0].vips[2] as \
             well; an address belongs to one slot",
        ]
    );
}
