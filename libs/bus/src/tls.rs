//! TLS of our own connections: the direct path, where both ends show a certificate, and pages, where only the service
//! does. A handshake is made when a connection begins and never after, so it delays no grant.

use std::{fmt, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, client,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
        server::WebPkiClientVerifier,
        version::TLS13,
    },
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity as Pair};

pub use tokio_rustls::server::TlsStream;

use crate::{Identity, accept::pause, jetstream::Task, quiet::Quiet};

/// Handshakes under way at a time; more wait in the kernel's queue. One costs a millisecond of a processor.
const HANDSHAKES: usize = 64;
/// A node that has not finished its handshake by then is sent away, so that silent ones cannot fill the places: it has
/// given up itself (`crate::direct`).
const NODE_HANDSHAKE: Duration = Duration::from_millis(250);
/// The same for whoever looks at a page, perhaps from far away.
const PAGE_HANDSHAKE: Duration = Duration::from_secs(2);
/// Connections that wait to be taken by the server: it takes them at once.
const ACCEPTED: usize = 64;

/// Certificate and key of this process, and the authority that everybody's must come from.
#[derive(Clone)]
pub struct Tls {
    mutual: Arc<ServerConfig>,
    server: Arc<ServerConfig>,
    client: ClientTlsConfig,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// The files could not be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS: {step} {file}")]
pub struct TlsError {
    step: &'static str,
    file: String,
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl TlsError {
    fn new<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        step: &'static str,
        file: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |cause| Self { step, file: file.display().to_string(), cause: cause.into() }
    }
}

fn certificates(step: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(file).map_err(TlsError::new(step, file))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(TlsError::new(step, file))?;
    if found.is_empty() {
        return Err(TlsError::new(step, file)("holds no certificate"));
    }
    Ok(found)
}

/// The authority in a file.
fn authority(ca: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates("reading the authority from", ca)? {
        roots.add(root).map_err(TlsError::new("trusting", ca))?;
    }
    Ok(roots)
}

/// Calls a service's page as whoever has no certificate: takes nobody's but one of the authority in `ca` for `name`.
///
/// # Errors
/// A file that holds no authority; a handshake that fails.
pub async fn call(
    ca: &Path,
    name: &'static str,
    stream: TcpStream,
) -> Result<client::TlsStream<TcpStream>, TlsError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::new("choosing a version for", ca))?
        .with_root_certificates(authority(ca)?)
        .with_no_client_auth();
    let name = ServerName::try_from(name).map_err(TlsError::new("asking for a name under", ca))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    connecting.await.map_err(TlsError::new("calling a service of", ca))
}

impl Tls {
    /// Reads PEM files: certificates of the authority, this process's certificate (with its chain) and key.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should; a key that does not belong to the certificate.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let roots = authority(ca)?;
        let chain = certificates("reading the certificate from", certificate)?;
        let private =
            PrivateKeyDer::from_pem_file(key).map_err(TlsError::new("reading the key from", key))?;
        // Said here and not left to a process-wide default, which two crates could fight for.
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(TlsError::new("trusting", ca))?;
        let builder = |provider: &Arc<CryptoProvider>| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
            builder
                .with_protocol_versions(&[&TLS13])
                .map_err(TlsError::new("choosing a version for", certificate))
        };
        let refused = || TlsError::new("using the key with", certificate);
        let mut mutual = builder(&provider)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), private.clone_key())
            .map_err(refused())?;
        mutual.alpn_protocols = vec![b"h2".to_vec()];
        let server =
            builder(&provider)?.with_no_client_auth().with_single_cert(chain, private).map_err(refused())?;
        let read = |file: &Path| std::fs::read(file).map_err(TlsError::new("reading", file));
        let client = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(ca)?))
            .identity(Pair::from_pem(read(certificate)?, read(key)?))
            .domain_name(Identity::Observer.server_name());
        Ok(Self { mutual: Arc::new(mutual), server: Arc::new(server), client })
    }

    /// For calling detectors: shows our certificate, and takes nobody's but a detector's.
    pub(crate) fn client(&self) -> ClientTlsConfig {
        self.client.clone()
    }

    /// Serves only callers that show a certificate of the authority.
    pub fn accept_known(
        &self,
        listener: TcpListener,
        refused: impl Fn(SocketAddr, &io::Error) + Send + Sync + 'static,
    ) -> Accepted {
        accept(listener, TlsAcceptor::from(Arc::clone(&self.mutual)), NODE_HANDSHAKE, refused)
    }

    /// Serves any caller over TLS.
    pub fn accept_any(
        &self,
        listener: TcpListener,
        refused: impl Fn(SocketAddr, &io::Error) + Send + Sync + 'static,
    ) -> Accepted {
        accept(listener, TlsAcceptor::from(Arc::clone(&self.server)), PAGE_HANDSHAKE, refused)
    }
}

/// Connections whose handshake is done. Dropping it closes the listener.
pub struct Accepted {
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    _task: Task,
}

impl Accepted {
    /// The next connection. Cancel safe. `None` is never the case while the runtime lives.
    pub async fn next(&mut self) -> Option<(TlsStream<TcpStream>, SocketAddr)> {
        self.connections.recv().await
    }
}

/// Each handshake has a task of its own, so that one that hangs holds up nobody.
fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    limit: Duration,
    refused: impl Fn(SocketAddr, &io::Error) + Send + Sync + 'static,
) -> Accepted {
    let (sender, connections) = mpsc::channel(ACCEPTED);
    let (places, refused) = (Arc::new(Semaphore::new(HANDSHAKES)), Arc::new(refused));
    let quiet = Quiet::default();
    let task = tokio::spawn(async move {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause(&error, &quiet).await;
                    continue;
                }
            };
            let (acceptor, sender, refused) = (acceptor.clone(), sender.clone(), Arc::clone(&refused));
            tokio::spawn(async move {
                let _place = place;
                // Without it a small grant could wait for the acknowledgement of the one before.
                let handshake = async {
                    stream.set_nodelay(true)?;
                    acceptor.accept(stream).await
                };
                let late = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, "no handshake in time");
                match timeout(limit, handshake).await.map_err(late).flatten() {
                    Ok(stream) => drop(sender.send((stream, peer)).await),
                    Err(error) => refused(peer, &error),
                }
            });
        }
    });
    Accepted { connections, _task: Task(task.abort_handle()) }
}
