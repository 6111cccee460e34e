//! Connections of the gRPC servers, which ask for the next one whatever became of the last.

use std::{error::Error, io, time::Duration};

use futures_util::{Stream, StreamExt as _};
use tokio::time::sleep;

/// Pause after the kernel could not give us a connection (no file descriptors), as servers do: it would fail again at
/// once, and a processor be spent on it.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// `incoming` with [`ACCEPT_PAUSE`] after each connection that failed.
pub(crate) fn paced<C>(incoming: impl Stream<Item = io::Result<C>>) -> impl Stream<Item = io::Result<C>> {
    incoming.then(async |accepted| {
        if let Err(error) = &accepted {
            tracing::warn!(error = error as &dyn Error, "accepting a connection");
            sleep(ACCEPT_PAUSE).await;
        }
        accepted
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn a_kernel_without_descriptors_is_not_asked_again_at_once() {
        let began = Instant::now();
        let failing = stream::repeat_with(|| Err::<(), _>(io::Error::other("no descriptor is left")));
        assert_eq!(paced(failing.take(3)).count().await, 3);
        assert!(began.elapsed() >= 3 * ACCEPT_PAUSE, "{:?}", began.elapsed());
    }
}
