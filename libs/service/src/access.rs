//! Who may come in: TLS, tokens with roles, and where a service may listen without them.

use std::net::SocketAddr;

use anyhow::Context as _;
use subtle::ConstantTimeEq as _;
use understudy_bus::Tls;

use crate::{
    config::{Config, Secret},
    run::Hopeless,
};

/// Shorter tokens could be guessed: 16 characters of hexadecimal are 64 bits.
const SHORTEST_TOKEN: usize = 16;

/// What the bearer of a token may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Viewer,
    /// Steer.
    Operator,
}

/// The tokens of one service.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<(Role, Secret)>);

impl Tokens {
    /// Reads the files that `[access]` names.
    ///
    /// # Errors
    /// A file that cannot be read, or a token that is too short.
    pub fn load(config: &Config) -> anyhow::Result<Self> {
        let access = &config.access;
        let files = [
            (Role::Viewer, "access.viewer_token_file", &access.viewer_token_file),
            (Role::Operator, "access.operator_token_file", &access.operator_token_file),
        ];
        let mut tokens = Vec::new();
        for (role, key, file) in files {
            let Some(file) = file else { continue };
            let token = Secret::read(key, file)?;
            if token.expose().len() < SHORTEST_TOKEN {
                anyhow::bail!("{key}: a token has {SHORTEST_TOKEN} characters at least");
            }
            tokens.push((role, token));
        }
        Ok(Self(tokens))
    }

    /// The role behind the value of an `Authorization` header (RFC 6750, section 2.1).
    pub fn role(&self, authorization: Option<&str>) -> Option<Role> {
        let (scheme, shown) = authorization?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        // Every token is compared, each in constant time: how long it takes tells nothing.
        let same = |token: &Secret| bool::from(token.expose().as_bytes().ct_eq(shown.trim().as_bytes()));
        self.0.iter().filter(|(_, token)| same(token)).map(|(role, _)| *role).max()
    }

    /// One of them, for a process that asks for its own page.
    pub(crate) fn one(&self) -> Option<&Secret> {
        self.0.first().map(|(_, token)| token)
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How a page is served at an address.
#[derive(Debug, Clone)]
pub enum Door {
    /// Plain, to whoever reaches it.
    Open,
    /// Over TLS, to bearers of a token.
    Guarded(Tls, Tokens),
}

impl Door {
    /// Plain on a loopback address, else with TLS and tokens; without those only where `access.insecure` says so.
    ///
    /// # Errors
    /// Files that cannot be used; an address that would be open to everybody.
    pub fn of(config: &Config, address: SocketAddr) -> anyhow::Result<Self> {
        if address.ip().is_loopback() {
            return Ok(Self::Open);
        }
        let (tls, tokens) = (load_tls(config)?, Tokens::load(config)?);
        match tls {
            Some(tls) if !tokens.is_empty() => Ok(Self::Guarded(tls, tokens)),
            _ => {
                refuse_open(config, "http.listen", address, "[tls] and access.viewer_token_file")?;
                Ok(Self::Open)
            }
        }
    }
}

fn load_tls(config: &Config) -> anyhow::Result<Option<Tls>> {
    let tls = &config.tls;
    let (Some(ca), Some(certificate), Some(key)) = (&tls.ca_file, &tls.cert_file, &tls.key_file) else {
        return Ok(None);
    };
    crate::config::warn_if_open("tls.key_file", key);
    Ok(Some(Tls::load(ca, certificate, key).context("[tls]")?))
}

/// The one place where something plain may be opened to a network, and only in development.
fn refuse_open(config: &Config, key: &str, address: SocketAddr, wanted: &str) -> anyhow::Result<()> {
    if config.access.insecure {
        tracing::warn!(%address, "{key}: open to everybody who reaches it, since access.insecure is set");
        return Ok(());
    }
    let text = format!(
        "{key} = {address} would be open to everybody who reaches it: it needs {wanted}, or a loopback address, or (in \
         development) access.insecure = true"
    );
    Err(Hopeless(text).into())
}

/// TLS of a detector's end of the direct path.
///
/// # Errors
/// Files that cannot be used; an address that would be open to everybody.
pub fn direct_server(config: &Config) -> anyhow::Result<Option<Tls>> {
    let (tls, address) = (load_tls(config)?, config.detector.listen);
    if tls.is_none() && !address.ip().is_loopback() {
        refuse_open(config, "detector.listen", address, "[tls]")?;
    }
    Ok(tls)
}

/// TLS of a node's end of the direct path.
///
/// # Errors
/// Files that cannot be used.
pub fn direct_client(config: &Config) -> anyhow::Result<Option<Tls>> {
    let tls = load_tls(config)?;
    if tls.is_none() {
        tracing::warn!(
            "no [tls]: the direct path is plain, and a detector is whoever answers at its address"
        );
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens(vec![
            (Role::Viewer, Secret::new("viewer-token-0123")),
            (Role::Operator, Secret::new("operator-token-0123")),
        ])
    }

    #[test]
    fn a_token_gives_its_role_and_nothing_else_does() {
        let role = |header: &str| tokens().role(Some(header));
        assert_eq!(role("Bearer viewer-token-0123"), Some(Role::Viewer));
        assert_eq!(role("bearer  operator-token-0123 "), Some(Role::Operator));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "viewer-token-0123",
            "Basic viewer-token-0123",
            "Bearer viewer-token-012",
            "Bearer viewer-token-01234",
        ] {
            assert_eq!(role(wrong), None, "{wrong:?}");
        }
        assert_eq!(tokens().role(None), None);
        assert_eq!(Tokens::default().role(Some("Bearer ")), None);
    }

    #[test]
    fn only_loopback_is_open_without_being_told() {
        let load = |more: &str| {
            let text = format!("cluster = \"demo\"\nnats.servers = [\"a\", \"b\"]\n{more}");
            Config::examine_text(Some(("test", &text)), std::iter::empty()).0.unwrap()
        };
        let closed = load("detector.listen = \"127.0.0.1:7410\"");
        let open = |config: &Config, address: &str| Door::of(config, address.parse().unwrap()).is_ok();
        assert!(open(&closed, "127.0.0.1:9100") && open(&closed, "[::1]:9100"));
        for address in ["0.0.0.0:9100", "10.77.0.21:9100", "[::]:9100"] {
            assert!(!open(&closed, address), "{address}");
            assert!(open(&load("access.insecure = true"), address), "{address}");
        }
        assert!(direct_server(&closed).is_ok());
        let told = direct_server(&load("")).unwrap_err().to_string();
        assert!(told.starts_with("detector.listen = 0.0.0.0:7410 would be open to everybody"), "{told}");
    }
}
