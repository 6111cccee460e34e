//! Addresses, gate, announcements and neighbours: netlink, nftables, raw sockets.
