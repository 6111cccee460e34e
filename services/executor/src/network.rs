//! The node's kernel side: gate, addresses, announcements and neighbours of one interface, in one hand.
//!
//! Every call comes from the executor's one loop, so nothing is opened after it was shut for a later tenure.

use std::{io, net::IpAddr, time::Duration};

use anyhow::Context as _;
use ipnet::IpNet;
use tokio::sync::mpsc;
use understudy_service::{Hopeless, clock};
use understudy_vip::{
    address::{Addresses, Link},
    announce::{AnnounceError, Announcer},
    gate::{self, Gate, GateConfig, GateError, Guard},
    neighbours::{self, Sighting, Watcher},
};
use understudy_wire::{BootTime, GroupId};

use crate::ungated;

/// Lifetime of an added address behind the gate, whose second line it is. Renewed every second, so three may fail.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(4);

/// What the kernel does for one node.
pub struct Network {
    interface: String,
    gate: Option<Gate>,
    addresses: Addresses,
    announcer: Announcer,
    watcher: Watcher,
    /// The interface as it was last looked at.
    pub link: Link,
}

impl Network {
    /// Fences `guards`, all shut, before anything else; then removes VIPs that an earlier run left behind.
    ///
    /// Returns the sightings of the neighbours too, and the VIPs that were removed.
    pub async fn install(
        group: &GroupId,
        interface: &str,
        vips: &[IpAddr],
        guards: &[Guard],
        mark: u32,
    ) -> anyhow::Result<(Self, mpsc::Receiver<Sighting>, Vec<IpAddr>)> {
        let gate = match gate::available() {
            Ok(()) => {
                let config = GateConfig { name: group.to_string(), mark };
                Some(Gate::install(config, guards).context("installing the gate")?)
            }
            Err(error @ GateError::NotPermitted(_)) => {
                return Err(Hopeless(format!("{:#}", anyhow::Error::new(error))).into());
            }
            Err(error) => {
                let cause = format!("{:#}", anyhow::Error::new(error));
                tracing::error!(cause, "no gate: only the lifetime of addresses ends a lost lease");
                None
            }
        };
        let addresses = Addresses::connect(vips.iter().copied()).context("opening route netlink")?;
        let link = addresses.link(interface).await?;
        let mut leftovers = Vec::new();
        for vip in vips {
            if addresses.remove(interface, *vip).await? {
                leftovers.push(*vip);
            }
        }
        let announcer = Announcer::open(interface).map_err(refused)?;
        let (sightings, watcher) = neighbours::watch(interface, vips.to_vec())?;
        let interface = interface.to_owned();
        Ok((Self { interface, gate, addresses, announcer, watcher, link }, sightings, leftovers))
    }

    /// Looks at the interface again: it may have come up, or gone, since.
    pub async fn look_at_link(&mut self) {
        let up = self.link.up;
        match self.addresses.link(&self.interface).await {
            Ok(link) => self.link = link,
            Err(error) => {
                tracing::debug!(cause = &error as &dyn std::error::Error, "looking at the interface");
                self.link.up = false;
            }
        }
        if self.link.up != up {
            tracing::warn!(interface = self.interface, up = self.link.up, "the interface has changed");
        }
    }

    /// Whether the kernel enforces the lease to the millisecond.
    pub fn gated(&self) -> bool {
        self.gate.is_some()
    }

    /// Adds a VIP, or renews its lifetime, under a lease that ends at `until`.
    pub async fn add(&self, vip: IpNet, until: BootTime) -> anyhow::Result<()> {
        if self.gated() {
            return Ok(self.addresses.add(&self.interface, vip, ADDRESS_LIFETIME).await?);
        }
        let lifetime = ungated::lifetime(until.since(clock::now())).with_context(|| {
            format!("adding {vip}: too little of the lease is left for an address without a gate")
        })?;
        self.addresses.add(&self.interface, vip, lifetime).await?;
        // The kernel took it before now, so this is the latest that it can end.
        if clock::now().after(lifetime + ungated::LATE) > until {
            self.remove(vip).await?;
            anyhow::bail!("adding {vip}: held up for so long that it could outlive the lease; removed again");
        }
        Ok(())
    }

    /// Removes a VIP; one that is gone is fine.
    pub async fn remove(&self, vip: IpNet) -> anyhow::Result<bool> {
        Ok(self.addresses.remove(&self.interface, vip.addr()).await?)
    }

    /// Extends what is open to the end of a lease that was renewed (rule R5).
    pub async fn renew(&self, guards: &[Guard], vips: &[IpNet], until: BootTime) -> anyhow::Result<()> {
        if self.gated() {
            return self.open(guards, until);
        }
        for vip in vips {
            self.add(*vip, until).await?;
        }
        Ok(())
    }

    /// Lets traffic through until the lease ends (rule R5).
    pub fn open(&self, guards: &[Guard], until: BootTime) -> anyhow::Result<()> {
        match &self.gate {
            Some(gate) if !guards.is_empty() => Ok(gate.open(guards, until.0)?),
            _ => Ok(()),
        }
    }

    /// Shuts the gate, or takes the addresses away where there is none. Nothing is served when this returns.
    ///
    /// When the kernel refuses that, this process ends: its pass tables vanish with it, and the witness proves it.
    pub async fn shut(&self, guards: &[Guard], vips: &[IpNet]) {
        let shut = match &self.gate {
            Some(_) if guards.is_empty() => Ok(()),
            Some(gate) => gate.shut(guards).map_err(anyhow::Error::from),
            None => self.remove_all(vips).await,
        };
        if let Err(error) = shut {
            tracing::error!(
                cause = format!("{error:#}"),
                "the gate cannot be shut: ending the process shuts it"
            );
            std::process::abort();
        }
    }

    async fn remove_all(&self, vips: &[IpNet]) -> anyhow::Result<()> {
        for vip in vips {
            self.remove(*vip).await?;
        }
        Ok(())
    }

    /// Tells the segment where a VIP is; nothing is sent after `until`.
    pub fn announce(&self, vip: IpAddr, until: BootTime) -> anyhow::Result<()> {
        Ok(self.announcer.announce(vip, until.0)?)
    }

    /// Makes the kernel find out who is behind a VIP.
    pub fn solicit(&self, vip: IpAddr) {
        if let Err(error) = self.watcher.solicit(vip) {
            tracing::debug!(cause = &error as &dyn std::error::Error, "asking for a neighbour");
        }
    }
}

/// Who may not announce would take over and tell nobody where the address is: starting it again does not help.
fn refused(error: AnnounceError) -> anyhow::Error {
    match &error {
        AnnounceError::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            let cause = anyhow::Error::new(error);
            Hopeless(format!("{cause:#}; grant CAP_NET_RAW")).into()
        }
        _ => error.into(),
    }
}
