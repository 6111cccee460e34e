//! Connections that the kernel could not give us: it is not asked again at once.

use std::{error::Error, io, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use tokio::time::sleep;

use crate::quiet::Quiet;

/// Without file descriptors the next attempt fails as well, and a processor would be spent on it.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells that no connection came, and waits for [`PAUSE`].
pub(crate) async fn pause(error: &io::Error, quiet: &Quiet) {
    if let Some(before) = quiet.pass() {
        tracing::warn!(error = error as &dyn Error, before, "accepting a connection");
    }
    sleep(PAUSE).await;
}

/// `incoming` with a [`pause`] after each connection that failed: the gRPC server asks for the next one whatever became
/// of the last.
pub(crate) fn paced<C>(incoming: impl Stream<Item = io::Result<C>>) -> impl Stream<Item = io::Result<C>> {
    let quiet = Arc::new(Quiet::default());
    incoming.then(move |accepted| {
        let quiet = Arc::clone(&quiet);
        async move {
            if let Err(error) = &accepted {
                pause(error, &quiet).await;
            }
            accepted
        }
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
        assert!(began.elapsed() >= 3 * PAUSE, "{:?}", began.elapsed());
    }
}
