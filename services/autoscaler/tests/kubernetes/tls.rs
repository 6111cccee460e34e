//! The way that a pod takes: TLS with the authority of the cluster.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    server::TlsStream,
};
use understudy_autoscaler::driver::Driver as _;

use crate::{TIME, driver_with, server::Server};

/// Connections whose handshake has succeeded.
struct Secured {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            // Who does not trust this server goes away.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// An authority, and what a server of it presents.
fn authority() -> (String, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let own = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&own, &Issuer::new(params, key)).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], private)
        .unwrap();
    (authority, config)
}

#[tokio::test]
async fn the_server_must_be_one_of_the_clusters_authority() {
    let (ours, config) = authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::on(2, address, Secured { listener, acceptor });
    let file = server.folder.path().join("ca.crt");
    let driver = || {
        let line = format!("    certificate-authority: {}\n", file.display());
        driver_with(server.kubeconfig(&format!("https://{address}"), &line), TIME)
    };
    std::fs::write(&file, &ours).unwrap();
    assert_eq!(driver().list().await.unwrap().len(), 2);
    std::fs::write(&file, authority().0).unwrap();
    let why = driver().list().await.unwrap_err().to_string();
    assert!(why.starts_with("get statefulset shop/web: invalid peer certificate"), "{why}");
}
