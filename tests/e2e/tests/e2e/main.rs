//! End-to-end tests, a module for what belongs together: real namespaces, NATS, name servers and kernel addresses. One
//! program, since each more would be linked with everything once more.

mod actives;
mod announcements;
mod bad_input;
mod clocks;
mod control_plane;
mod crash;
mod cuts;
mod degraded;
mod leftovers;
mod name_servers;
mod names;
mod nemesis;
mod no_vip;
mod outages;
mod paths;
mod pause;
mod records;
mod returns;
mod scaling;
mod seats;
mod security;
mod standbys;
mod starved;
mod switchover;
mod workload;
