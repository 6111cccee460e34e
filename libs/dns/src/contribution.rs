//! The text of the TXT records beside a managed name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::rdata::TXT;

/// Longest character-string inside a TXT record (RFC 1035 section 3.3).
const CHARACTER_STRING: usize = 255;
/// Begins every TXT of ours, of whatever format.
const TAG: &str = "understudy=";
/// The format written today.
const FORMAT: &str = "1";

/// What one slot has contributed to a name, as its TXT record in the zone says.
///
/// The text is one line of `key=value` words, always all four and in this order, cut into character-strings of at
/// most 255 bytes (a reader joins them without anything between):
///
/// ```text
/// understudy=1 slot=0 epoch=1017 addresses=10.77.0.100,2001:db8::100
/// ```
///
/// `addresses` is empty for a slot that has withdrawn. TXT records that do not begin with `understudy=` are not ours
/// and stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// The slot.
    pub slot: u32,
    /// Epoch of the tenure that wrote it.
    pub epoch: u64,
    /// The addresses it added to the name.
    pub addresses: BTreeSet<IpAddr>,
}

impl Contribution {
    pub(crate) fn to_txt(&self) -> TXT {
        let text = self.to_string();
        TXT::from_bytes(text.as_bytes().chunks(CHARACTER_STRING).collect())
    }

    /// Reads a TXT record: `None` if it is not ours, the reason if it is but cannot be read.
    pub(crate) fn from_txt(txt: &TXT) -> Option<Result<Self, &'static str>> {
        let bytes = txt.txt_data.concat();
        if !bytes.starts_with(TAG.as_bytes()) {
            return None;
        }
        Some(std::str::from_utf8(&bytes).map_err(|_| "not text").and_then(Self::parse))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut words = text.split(' ');
        let mut value = |key: &str, missing| {
            words.next().and_then(|word| word.strip_prefix(key)?.strip_prefix('=')).ok_or(missing)
        };
        if value("understudy", "no format")? != FORMAT {
            return Err("written in a format that is not known here");
        }
        let slot = value("slot", "no slot")?.parse().map_err(|_| "bad slot")?;
        let epoch = value("epoch", "no epoch")?.parse().map_err(|_| "bad epoch")?;
        let list = value("addresses", "no addresses")?;
        let addresses =
            list.split(',').filter(|_| !list.is_empty()).map(str::parse).collect::<Result<_, _>>();
        let contribution = Self { slot, epoch, addresses: addresses.map_err(|_| "bad address")? };
        if words.next().is_some() { Err("more words than the format has") } else { Ok(contribution) }
    }
}

impl std::fmt::Display for Contribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{TAG}{FORMAT} slot={} epoch={} addresses=", self.slot, self.epoch)?;
        for (i, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Result<Contribution, &'static str>> {
        Contribution::from_txt(&TXT::from_bytes(vec![text.as_bytes()]))
    }

    #[test]
    fn text_is_as_documented_and_read_back() {
        let addresses = BTreeSet::from(["10.77.0.100".parse().unwrap(), "2001:db8::100".parse().unwrap()]);
        let contribution = Contribution { slot: 0, epoch: 1017, addresses };
        assert_eq!(
            contribution.to_string(),
            "understudy=1 slot=0 epoch=1017 addresses=10.77.0.100,2001:db8::100"
        );
        assert_eq!(Contribution::from_txt(&contribution.to_txt()), Some(Ok(contribution)));
    }

    #[test]
    fn long_texts_are_cut_and_joined() {
        let addresses = (0..32).map(|i| format!("2001:db8:1111:2222:3333:4444:5555:{i:x}").parse().unwrap());
        let contribution = Contribution { slot: u32::MAX, epoch: u64::MAX, addresses: addresses.collect() };
        let txt = contribution.to_txt();
        assert!(txt.txt_data.len() > 1);
        assert_eq!(Contribution::from_txt(&txt), Some(Ok(contribution)));
    }

    #[test]
    fn an_empty_contribution_keeps_its_epoch() {
        let withdrawn = Contribution { slot: 3, epoch: 9, addresses: BTreeSet::new() };
        assert_eq!(Contribution::from_txt(&withdrawn.to_txt()), Some(Ok(withdrawn)));
    }

    #[test]
    fn foreign_text_is_not_ours_and_broken_text_is_an_error() {
        for foreign in ["", "v=spf1 -all", "Understudy"] {
            assert_eq!(parse(foreign), None, "{foreign:?}");
        }
        for broken in [
            "understudy=",
            "understudy=2 slot=0 epoch=1 addresses=",
            "understudy=1 slot=0",
            "understudy=1 slot=-1 epoch=1 addresses=",
            "understudy=1 slot=0 epoch=99999999999999999999 addresses=",
            "understudy=1 slot=0 epoch=1 addresses=10.0.0",
            "understudy=1 slot=0 epoch=1 addresses=10.0.0.1,",
            "understudy=1 slot=0 epoch=1 addresses= more=1",
            "understudy=1 epoch=1 slot=0 addresses=",
        ] {
            assert!(matches!(parse(broken), Some(Err(_))), "{broken:?}");
        }
    }
}
