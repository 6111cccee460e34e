//! Few wake-ups. To be woken costs a small process more than what it then does, and most of what a node waits for comes
//! in bursts: three detectors answer one heartbeat within a millisecond. So a thread with nothing urgent to do naps once,
//! before it waits for the answers or when the first of them has come, and is woken once for the rest.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, ppoll};

/// What naps are to the heartbeat interval.
const PART: u32 = 100;
/// Longest nap, however long the interval: it delays whatever comes meanwhile, a planned move too, which may take 10 ms.
const LONGEST: Duration = Duration::from_millis(1);
/// A nap that ends when the one who may be in haste speaks can take so many of those. Whoever [gathers](gather) first, for
/// one, has answered by then.
const PATIENT: u32 = 3;
/// A nap is followed by none for so many of its lengths: the rest of a burst is seldom worth another.
const PAUSE: u32 = 10;
/// Tasks that a message passes from its socket to a service's loop, or back, at most: connection, stream, paths, queue.
const HOPS: usize = 4;

thread_local! {
    static ALLOWED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static UNTIL: RefCell<Option<Arc<UnixStream>>> = const { RefCell::new(None) };
    static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whether this thread, which has just sent something and waits for the answers, may take a millisecond more to see them
/// (less at intervals below 100 ms), or three, but no longer than until something comes over a socket. Good for one nap: what
/// is under way must not be slowed down, and a thread that was woken by a timer with nothing to do sent nothing that would be
/// answered. For a service on one thread.
pub async fn allow(calm: bool, interval: Duration, until: Option<Arc<UnixStream>>) {
    if calm {
        // Whatever else has just begun asks its question too, such as a check whose connection the kernel has made.
        others().await;
    }
    let patient = if until.is_some() { PATIENT } else { 1 };
    ALLOWED.set(if calm { length(interval) * patient } else { Duration::ZERO });
    UNTIL.set(until);
}

fn length(interval: Duration) -> Duration {
    (interval / PART).min(LONGEST)
}

/// Called whenever the thread has nothing left to do. Whether it napped.
pub(crate) fn nap() -> bool {
    let nap = ALLOWED.take();
    if nap.is_zero() || NEXT.get().is_some_and(|next| Instant::now() < next) {
        return false;
    }
    match UNTIL.take() {
        Some(socket) => {
            let mut watched = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            // Whatever ends it early, a signal or the peer's end of the socket, is for the runtime to see.
            let _ = ppoll(&mut watched, Some(nap.into()), None);
        }
        None => std::thread::sleep(nap),
    }
    NEXT.set(Some(Instant::now() + nap * PAUSE));
    true
}

/// The first message of a burst has come and needs no haste: waits for a millisecond (less at intervals below 100 ms), until
/// the rest has reached the queues of the caller, who takes it from there. For a service on one thread.
pub async fn gather(interval: Duration) {
    ALLOWED.set(length(interval));
    UNTIL.set(None);
    if nap() {
        others().await;
    }
}

/// Lets the other tasks of this thread go as far as they can, such as those that send what was just put into a queue, or
/// that take in what the kernel has by now.
pub async fn others() {
    hop().await;
    // Asks the kernel, once.
    tokio::task::yield_now().await;
    hop().await;
}

/// Waits until every other task that can go on has done so, one message further each time.
async fn hop() {
    let mut hops = 0;
    poll_fn(|context| {
        if hops == HOPS {
            return Poll::Ready(());
        }
        hops += 1;
        // At the end of the queue. The runtime's own way to yield asks the kernel each time.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(100);

    #[tokio::test]
    async fn naps_where_it_may_and_not_again_at_once() {
        let naps = || {
            let begun = Instant::now();
            let naps = nap();
            assert!(!naps || begun.elapsed() >= LONGEST, "a nap takes its time");
            naps
        };
        assert!(!naps(), "nothing was allowed");
        allow(true, INTERVAL, None).await;
        assert!(naps());
        assert!(!naps(), "one nap each time");
        assert!(NEXT.get().is_some(), "a pause follows it");
        NEXT.set(Some(Instant::now() + INTERVAL));
        allow(true, INTERVAL, None).await;
        assert!(!naps(), "nor soon after another");
        NEXT.set(None);
        allow(true, INTERVAL, None).await;
        allow(false, INTERVAL, None).await;
        assert!(!naps(), "no longer allowed");
    }

    /// A message that passes from task to task, and comes from the kernel in the first place.
    #[tokio::test]
    async fn others_go_as_far_as_they_can() {
        let (mut peer, own) = tokio::net::UnixStream::pair().unwrap();
        let (first, mut between) = tokio::sync::mpsc::channel(1);
        let (last, mut end) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut own = own;
            first.send(own.read_u8().await.unwrap()).await.unwrap();
        });
        tokio::spawn(async move { last.send(between.recv().await.unwrap()).await.unwrap() });
        others().await;
        peer.write_u8(7).await.unwrap();
        others().await;
        assert_eq!(end.try_recv(), Ok(7));
    }

    #[tokio::test]
    async fn a_patient_nap_ends_when_the_peer_speaks() {
        let (peer, own) = UnixStream::pair().unwrap();
        let own = Arc::new(own);
        let nap_from = async || {
            NEXT.set(None);
            allow(true, INTERVAL, Some(Arc::clone(&own))).await;
            let begun = Instant::now();
            assert!(nap());
            begun
        };
        let begun = nap_from().await;
        assert!(begun.elapsed() >= LONGEST * PATIENT, "nobody spoke");
        (&peer).write_all(b"x").unwrap();
        let begun = Instant::now();
        // So many that a machine that stands still for a moment does not count.
        for _ in 0..1_000 {
            nap_from().await;
        }
        assert!(begun.elapsed() < LONGEST * PATIENT * 1_000, "something had come");
    }
}
