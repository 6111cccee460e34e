//! The socket of `node.sock`, watched for what comes. A Unix socket becomes writable anew whenever its peer has read, and
//! who watches for that, as tokio's own does, is woken once more for each message that it sent.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};
use tonic::transport::server::Connected;

/// One end of the link. It is watched for room to write only while it has none.
#[derive(Debug)]
pub(super) struct LinkStream {
    reading: Watched,
    writing: Option<Watched>,
}

type Watched = AsyncFd<Arc<UnixStream>>;

impl LinkStream {
    /// Takes a socket over. Must be called in a runtime.
    ///
    /// # Errors
    /// What the kernel says when it is to be watched otherwise.
    pub(super) fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        Ok(Self { reading: watch(stream.into_std()?, Interest::READABLE)?, writing: None })
    }

    fn write_with(
        &mut self,
        context: &mut Context<'_>,
        write: impl Fn(&mut &UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(writing) = &self.writing {
                let mut ready = ready!(writing.poll_write_ready(context))?;
                let Ok(written) = ready.try_io(|socket| write(&mut &**socket.get_ref())) else { continue };
                self.writing = None;
                return Poll::Ready(written);
            }
            match write(&mut &**self.reading.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The same socket under another number, as epoll takes each number once.
                    let socket = self.reading.get_ref().try_clone()?;
                    self.writing = Some(watch(socket, Interest::WRITABLE)?);
                }
                written => return Poll::Ready(written),
            }
        }
    }
}

fn watch(socket: UnixStream, interest: Interest) -> io::Result<Watched> {
    let socket = Arc::new(socket);
    // SAFETY: the socket owns its descriptor, which stays open and the same until the last of its owners is dropped. The
    // `AsyncFd` is one of them.
    #[expect(unsafe_code, reason = "there is no safe way to watch a descriptor")]
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    Ok(watched?)
}

impl AsyncRead for LinkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.reading.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            let Ok(read) = ready.try_io(|socket| (&**socket.get_ref()).read(room)) else { continue };
            let read = read?;
            // Less than there was room for is all there was; asking once more would tell only that.
            if (1..room.len()).contains(&read) {
                ready.clear_ready();
            }
            buffer.advance(read);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_with(context, |socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_with(context, |socket| socket.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.reading.get_ref().shutdown(Shutdown::Write))
    }
}

/// A request carries the socket that it came over.
impl Connected for LinkStream {
    type ConnectInfo = Arc<UnixStream>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(self.reading.get_ref())
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
    };

    use super::LinkStream;

    /// More than a socket takes, both ways at once, so that both ends wait for room and for bytes; then the end.
    #[tokio::test]
    async fn everything_arrives_in_order_and_then_the_end() {
        const BYTES: usize = 4 * 1024 * 1024;
        let (one, other) = UnixStream::pair().unwrap();
        let exchange = async |stream: UnixStream, own: u8, peers: u8| {
            let (mut reader, mut writer) = tokio::io::split(LinkStream::new(stream).unwrap());
            let pattern = |seed: u8| (0..BYTES).map(move |at| (at % 251) as u8 ^ seed).collect::<Vec<u8>>();
            let mut received = Vec::new();
            let write = async {
                writer.write_all(&pattern(own)).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let (read, ()) = tokio::join!(reader.read_to_end(&mut received), write);
            assert_eq!(read.unwrap(), BYTES);
            assert!(received == pattern(peers), "other bytes than were sent");
        };
        tokio::join!(exchange(one, 1, 2), exchange(other, 2, 1));
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_told() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut stream = LinkStream::new(one).unwrap();
        drop(other);
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    }
}
