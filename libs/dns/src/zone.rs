//! A zone, the servers to update it at, and the key to sign with.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::BASE64;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{Name, TSigner};

use crate::error::DnsError;

/// Seconds that the signer's and the server's clock may differ (RFC 8945 section 10 recommends 300).
const FUDGE: u16 = 300;

/// A zone that is updated at each of its servers.
#[derive(Debug, Clone)]
pub struct Zone {
    /// The primaries, `host:port` each, each updated on its own. A name is looked up in the background, and again when a
    /// try failed there. A secondary refuses updates and is no use here.
    pub servers: Vec<String>,
    /// Name of the zone, fully qualified; a missing final dot is taken as given.
    pub origin: String,
    /// The key to sign updates with; without one they go out unsigned.
    pub key: Option<TsigKey>,
    /// Time to live of the records written, in seconds: how long clients may keep the old address.
    pub ttl: u32,
    /// Bound on one [`apply`](crate::apply) at one server, all its exchanges together.
    pub timeout: Duration,
}

/// TSIG algorithms (RFC 8945 section 6) that are safe to use today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `hmac-sha256`
    HmacSha256,
    /// `hmac-sha384`
    HmacSha384,
    /// `hmac-sha512`
    HmacSha512,
}

impl FromStr for Algorithm {
    type Err = DnsError;

    /// Reads the algorithm's name as name servers write it (`hmac-sha256`).
    fn from_str(text: &str) -> Result<Self, DnsError> {
        match text {
            "hmac-sha256" => Ok(Self::HmacSha256),
            "hmac-sha384" => Ok(Self::HmacSha384),
            "hmac-sha512" => Ok(Self::HmacSha512),
            _ => Err(DnsError::BadKey {
                key: String::new(),
                reason: format!("algorithm {text:?}: expected hmac-sha256, hmac-sha384 or hmac-sha512"),
            }),
        }
    }
}

impl From<Algorithm> for TsigAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HmacSha256 => Self::HmacSha256,
            Algorithm::HmacSha384 => Self::HmacSha384,
            Algorithm::HmacSha512 => Self::HmacSha512,
        }
    }
}

/// A shared secret that signs updates. Its `Debug` never shows the secret.
#[derive(Clone)]
pub struct TsigKey {
    name: String,
    algorithm: Algorithm,
    signer: TSigner,
}

impl TsigKey {
    /// A key by its name, algorithm and secret in base64, as `keymgr -t` and `tsig-keygen` print them.
    ///
    /// Errors: [`DnsError::BadKey`] with the reason, never with the secret.
    pub fn new(name: &str, algorithm: Algorithm, secret_base64: &str) -> Result<Self, DnsError> {
        let bad = |reason: String| DnsError::BadKey { key: name.to_owned(), reason };
        let secret = BASE64
            .decode(secret_base64.trim().as_bytes())
            .map_err(|error| bad(format!("secret is not base64: byte {}", error.position)))?;
        Self::from_bytes(name, algorithm, secret)
    }

    /// A key by its name, algorithm and raw secret.
    ///
    /// Errors: [`DnsError::BadKey`] for an empty secret or a name that is no domain name.
    pub fn from_bytes(name: &str, algorithm: Algorithm, secret: Vec<u8>) -> Result<Self, DnsError> {
        let bad = |reason: String| DnsError::BadKey { key: name.to_owned(), reason };
        if secret.is_empty() {
            return Err(bad("secret is empty".to_owned()));
        }
        let key_name = Name::from_ascii(name).map_err(|error| bad(error.to_string()))?;
        if key_name.num_labels() == 0 {
            return Err(bad("name is empty".to_owned()));
        }
        let signer = TSigner::new(secret, algorithm.into(), key_name.to_lowercase(), FUDGE)
            .map_err(|error| bad(error.to_string()))?;
        Ok(Self { name: name.to_owned(), algorithm, signer })
    }

    /// Name of the key, as the server must know it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The algorithm it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn signer(&self) -> &TSigner {
        &self.signer
    }
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TsigKey")
            .field("name", &self.name)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_secret() {
        let key = TsigKey::new("ha-key", Algorithm::HmacSha256, "c2VjcmV0LXNlY3JldC1zZWNyZXQ=").unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains("ha-key"), "{shown}");
        for secret in ["secret-secret", "c2VjcmV0", "115, 101"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn bad_keys_are_refused_without_showing_the_secret() {
        let error = TsigKey::new("k", Algorithm::HmacSha256, "topsecret!!").unwrap_err().to_string();
        assert!(error.contains("base64") && !error.contains("topsecret"), "{error}");
        assert!(TsigKey::new("k", Algorithm::HmacSha512, "").is_err());
        assert!(TsigKey::new("", Algorithm::HmacSha384, "YQ==").is_err());
        assert!("hmac-md5".parse::<Algorithm>().is_err());
    }
}
