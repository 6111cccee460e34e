//! `tcp`.

use std::net::TcpListener as StdListener;

use tokio::net::TcpListener;
use understudy_heartbeat::checks::CheckKind;

use crate::{Single, check, hasty, verdict};

fn tcp(address: &str) -> CheckKind {
    CheckKind::Tcp { address: address.to_owned() }
}

#[tokio::test]
async fn up_while_the_port_is_open_and_down_once_it_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut single = Single::start(check("tcp", tcp(&address.to_string())));
    single.up().await;
    drop(listener);
    assert_eq!(single.down().await, format!("connecting to {address}: Connection refused (os error 111)"));
    let _listener = TcpListener::bind(address).await.unwrap();
    single.up().await;
}

#[tokio::test]
async fn a_host_name_is_looked_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(verdict(check("tcp", tcp(&format!("localhost:{port}")))).await, "up");
}

/// With its accept queue full the kernel drops the handshake: the connect hangs.
#[tokio::test]
async fn a_full_accept_queue_is_down_after_the_timeout() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let listener: StdListener = listener.into();
    let address = listener.local_addr().unwrap();
    let _fills_the_queue = std::net::TcpStream::connect(address).unwrap();
    let mut single = Single::start(hasty(tcp(&address.to_string())));
    assert_eq!(single.down().await, "no answer within 300ms");
}

/// The listener sees the connection and then its end: nothing is left open.
#[tokio::test]
async fn the_connection_is_closed_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut single = Single::start(check("tcp", tcp(&listener.local_addr().unwrap().to_string())));
    let (stream, _) = listener.accept().await.unwrap();
    single.up().await;
    let mut byte = [0];
    let closed = async {
        stream.readable().await.unwrap();
        stream.try_read(&mut byte)
    };
    let end = tokio::time::timeout(crate::DEADLINE, closed).await.expect("still open");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
