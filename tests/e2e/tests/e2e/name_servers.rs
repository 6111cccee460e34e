//! Row 25: another make of name server, and two of them of which one falls behind.

use anyhow::{Result, ensure};
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage, epoch_at};
use understudy_lab::{
    Software,
    deployment::{NAME, Plan, VIP, VIP6},
    wait_until,
};

#[test]
fn row_25_bind_in_the_place_of_knot() -> Result<()> {
    let stage = Stage::with("row 25", Plan { name_servers: vec![Software::Bind], ..Plan::new("bind") })?;
    let epoch = stage.dns_epoch()?;
    stage.fails_over("active cut off, BIND", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    stage.dns_epoch_above(epoch)?;
    stage.end()
}

/// Elsewhere the second server of a zone is sent what was signed for the first and answers FORMERR, and is then left
/// as it is. Here each is updated on its own, for as long as it takes.
#[test]
fn row_25_name_server_that_is_behind_is_brought_up_to_date() -> Result<()> {
    let name_servers = vec![Software::Bind, Software::Knot];
    let stage = Stage::with("row 25", Plan { name_servers, ..Plan::new("behind") })?;
    let [ahead, behind] = &stage.deployment.name_servers[..] else { unreachable!("the plan has two") };
    let old = stage.dns_epoch()?;
    wait_until("both name servers hold the first epoch", SOON, || (epoch_at(behind)? == old).then_some(()))?;
    // Not refusing but silent: what it is sent meanwhile lies in its queue, and it takes that first when it goes on.
    behind.process().stop()?;
    stage.fails_over("active cut off, one name server stopped", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    let new = stage.dns_epoch_above(old)?;
    behind.process().cont()?;
    wait_until("the other name server holds the new epoch", SOON, || {
        (epoch_at(behind)? == new).then_some(())
    })?;
    for server in [ahead, behind] {
        let (ipv4, ipv6) = (server.records(NAME, "A")?, server.records(NAME, "AAAA")?);
        ensure!(ipv4 == [VIP] && ipv6 == [VIP6], "{} has {ipv4:?} and {ipv6:?}", server.address());
    }
    stage.end()
}
