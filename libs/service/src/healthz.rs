//! `healthz`: asks the running service for its own page, for container engines and service managers that start a
//! command to learn whether a service is well. Where the page has TLS and tokens, it asks with the service's own: it runs
//! with the same configuration and as the same user.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use understudy_bus::tls;

use crate::{
    access::Tokens,
    config::{Config, Secret},
    owner::Role,
};

/// The page is answered from memory; a service that needs longer is not well.
const PATIENCE: Duration = Duration::from_secs(2);
/// The page is one line.
const LONGEST: usize = 4096;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why the service is not known to be well.
#[derive(Debug, thiserror::Error)]
pub enum HealthzError {
    /// There is no page to ask for.
    #[error("http.listen: not set, so there is no /healthz to ask for; set it, such as to 127.0.0.1:9100")]
    NoPage,
    /// Nobody answers there.
    #[error("asking {address} for /healthz")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        cause: Failure,
    },
    /// It answered that it is not well.
    #[error("{address}/healthz: {status}: {text}")]
    Unwell {
        /// Where.
        address: SocketAddr,
        /// HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
}

/// Asks for the page of the service of this role that runs with this configuration on this host.
///
/// # Errors
/// When there is no page, nobody answers within two seconds, or the answer is not 200.
pub async fn ask(role: Role, config: &Config) -> Result<(), HealthzError> {
    let listen = config.http.listen.ok_or(HealthzError::NoPage)?;
    let address = reachable(listen);
    let unreachable = |cause| HealthzError::Unreachable { address, cause };
    let late = |_elapsed| unreachable(io::Error::from(io::ErrorKind::TimedOut).into());
    let asking = fetch(role, config, listen, address);
    let (status, text) = tokio::time::timeout(PATIENCE, asking).await.map_err(late)?.map_err(unreachable)?;
    match status {
        200 => Ok(()),
        _ => Err(HealthzError::Unwell { address, status, text: text.trim_end().to_owned() }),
    }
}

/// Where this host reaches what listens on `address`: everywhere includes here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Asks as the page is served: see [`crate::access::Door::of`].
async fn fetch(
    role: Role,
    config: &Config,
    listen: SocketAddr,
    address: SocketAddr,
) -> Result<(u16, String), Failure> {
    let stream = TcpStream::connect(address).await?;
    let tls = config.tls.cert_file.is_some() && !listen.ip().is_loopback();
    let tokens = if tls { Tokens::load(config)? } else { Tokens::default() };
    match (tokens.one(), &config.tls.ca_file) {
        (Some(token), Some(ca)) => {
            let name = role.server_name();
            get(tls::call(ca, name, stream).await?, name, Some(token)).await
        }
        _ => get(stream, &address.to_string(), None).await,
    }
}

async fn get<S>(stream: S, host: &str, token: Option<&Secret>) -> Result<(u16, String), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get("/healthz").header(HOST, host);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::Door;
    use crate::http::{Health, Metrics, serve};

    /// A configuration with these lines.
    fn configured(more: &str) -> Config {
        let text = format!("cluster = \"demo\"\nnats.servers = [\"a\", \"b\"]\n{more}");
        Config::examine_text(Some(("test", &text)), std::iter::empty()).0.unwrap()
    }

    /// `[tls]` and `[access]` of a publisher, and their files.
    fn credentials(folder: &Path) -> String {
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
        let own = CertificateParams::new(vec![Role::Heartbeat.server_name().to_owned()]).unwrap();
        write("own.pem", own.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().pem());
        write("own.key", key.serialize_pem());
        write("token", "0123456789abcdef".to_owned());
        let file = |name: &str| folder.join(name).display().to_string();
        format!(
            "tls = {{ ca_file = {:?}, cert_file = {:?}, key_file = {:?} }}\naccess.viewer_token_file = {:?}\n",
            file("ca.pem"),
            file("own.pem"),
            file("own.key"),
            file("token")
        )
    }

    #[tokio::test]
    async fn a_page_with_tls_and_tokens_is_asked_with_the_services_own() {
        let folder = tempfile::tempdir().unwrap();
        let (lines, any) = (credentials(folder.path()), SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let door = Door::of(&configured(&lines), any).unwrap();
        assert!(matches!(door, Door::Guarded(..)));
        let health = Health::new(Duration::from_secs(60));
        let page = serve(any, door, Metrics::default(), health, CancellationToken::new()).await.unwrap();
        let config = configured(&format!("http.listen = \"{page}\"\n{lines}"));
        ask(Role::Heartbeat, &config).await.unwrap();
        // Another service has taken the port.
        let stranger = ask(Role::Executor, &config).await.unwrap_err();
        let HealthzError::Unreachable { cause, .. } = &stranger else { panic!("{stranger}") };
        assert!(cause.to_string().starts_with("TLS: calling a service of"), "{cause}");
        std::fs::write(folder.path().join("token"), "fedcba9876543210").unwrap();
        let refused = ask(Role::Heartbeat, &config).await.unwrap_err();
        assert!(matches!(refused, HealthzError::Unwell { status: 401, .. }), "{refused}");
    }

    #[test]
    fn a_page_that_listens_everywhere_is_asked_on_loopback() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:9100"), "127.0.0.1:9100");
        assert_eq!(at("[::]:9100"), "[::1]:9100");
        assert_eq!(at("10.0.0.1:9100"), "10.0.0.1:9100");
    }

    #[tokio::test]
    async fn tells_well_from_hanging_from_absent() {
        let ask_at = |listen: Option<SocketAddr>| async move {
            let line = listen.map(|listen| format!("http.listen = \"{listen}\"")).unwrap_or_default();
            ask(Role::Heartbeat, &configured(&line)).await
        };
        assert!(matches!(ask_at(None).await, Err(HealthzError::NoPage)));

        let page = |limit| async move {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let stop = CancellationToken::new();
            serve(any, Door::Open, Metrics::default(), Health::new(limit), stop).await.unwrap()
        };
        let well = page(Duration::from_secs(60)).await;
        ask_at(Some(well)).await.unwrap();
        // A main loop that never ticks again.
        let hanging = ask_at(Some(page(Duration::ZERO).await)).await.unwrap_err();
        assert!(hanging.to_string().contains("503: main loop silent for"), "{hanging}");

        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let absent = ask_at(Some(free)).await.unwrap_err();
        assert!(matches!(absent, HealthzError::Unreachable { .. }), "{absent}");
    }
}
