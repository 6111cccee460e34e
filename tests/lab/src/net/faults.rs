//! Faults as rules of one nftables table in the switch. Ports of the switch stand for hosts, so a rule takes
//! every frame from one host to another, whatever address it carries, and floods copy by copy.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::{Host, Network, namespace};

/// Which frames a cut takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Every frame, ARP and neighbour discovery too.
    All,
    /// ARP only.
    Arp,
    /// ICMPv6 only: neighbour discovery and its kin.
    Icmpv6,
    /// TCP segments to or from this port, on IPv4 and IPv6.
    Tcp(u16),
    /// UDP datagrams to or from this port, on IPv4 and IPv6.
    Udp(u16),
}

impl Traffic {
    fn matches(self) -> Vec<String> {
        match self {
            Self::All => vec![String::new()],
            Self::Arp => vec!["ether type arp".to_owned()],
            Self::Icmpv6 => vec!["ether type ip6 meta l4proto ipv6-icmp".to_owned()],
            Self::Tcp(port) => vec![format!("tcp dport {port}"), format!("tcp sport {port}")],
            Self::Udp(port) => vec![format!("udp dport {port}"), format!("udp sport {port}")],
        }
    }
}

/// What is cut now, by names of ports.
#[derive(Debug, Default)]
pub(super) struct Faults {
    cuts: Vec<Cut>,
    isolated: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Cut {
    from: String,
    to: String,
    traffic: Traffic,
}

impl Cut {
    fn all(from: &str, to: &str) -> Self {
        Self { from: from.to_owned(), to: to.to_owned(), traffic: Traffic::All }
    }
}

impl Faults {
    /// One transaction that replaces all rules: the kernel goes from the old set to the new one at once.
    fn script(&self) -> String {
        let mut rules = String::new();
        for Cut { from, to, traffic } in &self.cuts {
            for matches in traffic.matches() {
                let _ = writeln!(rules, "iifname \"{from}\" oifname \"{to}\" {matches} drop");
            }
        }
        for port in &self.isolated {
            // To and from every other host, but not the watchers, which look behind the cut.
            let _ = writeln!(rules, "iifname \"{port}\" oifname \"h*\" drop");
            let _ = writeln!(rules, "iifname \"h*\" oifname \"{port}\" drop");
        }
        format!(
            "table bridge faults {{}}\n\
             delete table bridge faults\n\
             table bridge faults {{\nchain forward {{\ntype filter hook forward priority 0; policy accept;\n\
             {rules}}}\n}}\n"
        )
    }
}

impl Network {
    /// Drops every frame from host `from` to host `to`; the other way stays open.
    ///
    /// # Errors
    /// A host that is not there, or a failing `nft`.
    pub fn cut(&self, from: &str, to: &str) -> Result<()> {
        self.cut_traffic(&[from], &[to], &[Traffic::All])
    }

    /// Drops every frame between two hosts, both ways at once.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn cut_both(&self, one: &str, other: &str) -> Result<()> {
        let (one, other) = (self.port(one)?, self.port(other)?);
        self.change(|faults| {
            faults.add(&one, &other, Traffic::All);
            faults.add(&other, &one, Traffic::All);
        })
    }

    /// Drops some kinds of traffic from each host of `from` to each host of `to`, all at one instant.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn cut_traffic(&self, from: &[&str], to: &[&str], traffic: &[Traffic]) -> Result<()> {
        let from = self.ports(from)?;
        let to = self.ports(to)?;
        self.change(|faults| {
            for from in &from {
                for to in &to {
                    for &traffic in traffic {
                        faults.add(from, to, traffic);
                    }
                }
            }
        })
    }

    /// Drops every frame from the first to the second host of each pair, all at one instant.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn cut_pairs(&self, pairs: &[(&str, &str)]) -> Result<()> {
        let pairs = self.port_pairs(pairs)?;
        self.change(|faults| pairs.iter().for_each(|(from, to)| faults.add(from, to, Traffic::All)))
    }

    /// Ends what [`Network::cut_pairs`] did to the same pairs, and nothing else.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn mend_pairs(&self, pairs: &[(&str, &str)]) -> Result<()> {
        let pairs = self.port_pairs(pairs)?;
        let mended = |cut: &Cut| pairs.iter().any(|(from, to)| *cut == Cut::all(from, to));
        self.change(|faults| faults.cuts.retain(|cut| !mended(cut)))
    }

    /// Cuts a host off from every other host, now and to come. Its watcher still reaches it, so a test sees
    /// whether the host goes on serving where nobody else can tell. For a cable pulled see [`Network::unplug`].
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn isolate(&self, host: &str) -> Result<()> {
        let port = self.port(host)?;
        self.change(|faults| {
            if !faults.isolated.contains(&port) {
                faults.isolated.push(port);
            }
        })
    }

    /// Ends the isolation of a host; cuts that name it stay.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn rejoin(&self, host: &str) -> Result<()> {
        let port = self.port(host)?;
        self.change(|faults| faults.isolated.retain(|isolated| *isolated != port))
    }

    /// Ends every fault between two hosts (not an isolation of either).
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn heal_between(&self, one: &str, other: &str) -> Result<()> {
        let (one, other) = (self.port(one)?, self.port(other)?);
        self.change(|faults| {
            let between =
                |cut: &Cut| (cut.from == one && cut.to == other) || (cut.from == other && cut.to == one);
            faults.cuts.retain(|cut| !between(cut));
        })
    }

    /// Ends the isolation of a host and every cut that names it.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn heal(&self, host: &str) -> Result<()> {
        let port = self.port(host)?;
        self.change(|faults| {
            faults.isolated.retain(|isolated| *isolated != port);
            faults.cuts.retain(|cut| cut.from != port && cut.to != port);
        })
    }

    /// Ends every cut and isolation.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn heal_all(&self) -> Result<()> {
        self.change(|faults| *faults = Faults::default())
    }

    /// Pulls the cable: the host's interface loses its carrier.
    ///
    /// # Errors
    /// A host that is not there, or a failing `ip`.
    pub fn unplug(&self, host: &str) -> Result<()> {
        self.set_link(&self.switch, &self.port(host)?, "down")
    }

    /// Puts the cable of an unplugged host back, and returns when it carries frames.
    ///
    /// # Errors
    /// As [`Network::unplug`].
    pub fn plug(&self, host: &str) -> Result<()> {
        self.revive(host, |host| self.set_link(&self.switch, host.port(), "up"))
    }

    /// Takes the host's interface down from inside, as an administrator does; its addresses stay.
    ///
    /// # Errors
    /// As [`Network::unplug`].
    pub fn link_down(&self, host: &str) -> Result<()> {
        self.set_link(self.find(host)?.namespace(), "eth0", "down")
    }

    /// Takes the interface of [`Network::link_down`] up again, and returns when it carries frames.
    ///
    /// # Errors
    /// As [`Network::unplug`].
    pub fn link_up(&self, host: &str) -> Result<()> {
        self.revive(host, |host| self.set_link(host.namespace(), "eth0", "up"))
    }

    fn set_link(&self, namespace: &str, link: &str, state: &str) -> Result<()> {
        namespace::ip_batch(Some(namespace), &format!("link set {link} {state}\n"))
    }

    fn revive(&self, host: &str, set_up: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
        let host = self.find(host)?;
        let wait = |runs| {
            namespace::wait_carrying(host.namespace(), "eth0", runs)?;
            namespace::wait_carrying(&self.switch, host.port(), runs)
        };
        // The kernel takes up to a second to see a loss of carrier. Set up before, the link would look as if it
        // had been running all along, and then be taken out of service for a moment.
        wait(false)?;
        set_up(&host)?;
        wait(true)
    }

    fn port(&self, host: &str) -> Result<String> {
        Ok(self.find(host)?.port().to_owned())
    }

    fn port_pairs(&self, pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
        pairs.iter().map(|(from, to)| Ok((self.port(from)?, self.port(to)?))).collect()
    }

    fn ports(&self, hosts: &[&str]) -> Result<Vec<String>> {
        hosts.iter().map(|host| self.port(host)).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) -> Result<()> {
        let mut faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut faults);
        let mut nft = namespace::command(&self.switch, crate::tools::tool("nft")?)?;
        nft.args(["-f", "-"]);
        namespace::run(nft, &faults.script()).context("changing the faults of the switch")?;
        Ok(())
    }
}

impl Faults {
    fn add(&mut self, from: &str, to: &str, traffic: Traffic) {
        let cut = Cut { from: from.to_owned(), to: to.to_owned(), traffic };
        if !self.cuts.contains(&cut) {
            self.cuts.push(cut);
        }
    }
}
