//! Few wake-ups. To be woken costs a small process more than what it then does, and most of what a node waits for comes
//! in bursts: three detectors answer one heartbeat within a millisecond. So a thread with nothing urgent to do naps once,
//! before it waits for the answers or when the first of them has come, and is woken once for the rest.
//!
//! What comes between two bursts is seldom in haste: where detectors are, what members see, pings. A thread that waits for
//! the next heartbeat rests: it listens to those who may be in haste, and takes in all else with the burst.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, ppoll};
use understudy_bus::Socket;

use crate::clock;

/// What naps are to the heartbeat interval.
const PART: u32 = 100;
/// Longest nap, however long the interval: it delays whatever comes meanwhile, a planned move too, which may take 10 ms.
const LONGEST: Duration = Duration::from_millis(1);
/// A nap that ends when the one who may be in haste speaks can take so many of those. Whoever [gathers](gather) first, for
/// one, has answered by then.
const PATIENT: u32 = 3;
/// A nap is followed by none for so many of its lengths: the rest of a burst is seldom worth another.
const PAUSE: u32 = 10;
/// Longest rest, where heartbeats are rarer: whoever asks for a page of the service may have to wait for so long.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// Tasks that a message passes from its socket to a service's loop, or back, at most: connection, stream, paths, queue.
const HOPS: usize = 4;

thread_local! {
    static ALLOWED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static UNTIL: RefCell<Option<Arc<UnixStream>>> = const { RefCell::new(None) };
    static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
    static REST: RefCell<Option<Rest>> = const { RefCell::new(None) };
    static BUSY: Cell<usize> = const { Cell::new(0) };
    /// A rest has ended with a nap for the whole burst.
    static GATHERED: Cell<bool> = const { Cell::new(false) };
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

/// Who is listened to while a thread rests.
pub struct Rest {
    /// What comes here cannot wait.
    pub hasty: Vec<Socket>,
    /// The first message of the next burst comes here; it is [gathered](gather) with the rest of it.
    pub first: Option<Socket>,
    /// Between two bursts.
    pub interval: Duration,
}

/// Whether this thread may rest from now on, until its loop says otherwise: while each task that lives by an
/// [`Alarm`](clock::Alarm) waits for it, nothing is taken in until the first of them goes off, or something comes over one of
/// these sockets, or [`LONGEST_REST`] has passed. For a service on one thread.
pub fn rest(rest: Option<Rest>) {
    REST.set(rest);
}

/// Something goes back and forth over NATS for which somebody waits: as long as it lives the thread does not rest.
#[derive(Debug)]
pub struct Busy(());

/// For a service on one thread.
pub fn busy() -> Busy {
    BUSY.set(BUSY.get() + 1);
    Busy(())
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.set(BUSY.get().saturating_sub(1));
    }
}

/// Called whenever the thread has nothing left to do.
pub(crate) fn park() {
    if !nap() {
        rest_now();
    }
}

/// What ended a rest.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    /// It could not begin: not allowed, or a task is at work.
    Awake,
    /// [`LONGEST_REST`] was over.
    Over,
    /// An alarm, or somebody who cannot wait.
    Up,
    /// The first message of a burst, and the rest has had the time to come.
    Gathered,
}

fn rest_now() -> Woken {
    REST.with_borrow(|rest| {
        let idle = clock::idle().filter(|_| BUSY.get() == 0);
        let (Some(rest), Some(timers)) = (rest, idle) else { return Woken::Awake };
        let timers = timers.iter().map(|timer| timer.as_fd());
        let hasty = timers.chain(rest.hasty.iter().map(|socket| socket.as_fd()));
        let first = rest.first.iter().map(|socket| socket.as_fd());
        let came = await_any(first.chain(hasty), LONGEST_REST);
        let (first, hasty) = came.split_at(usize::from(rest.first.is_some()));
        if came.iter().all(|events| events.is_empty()) {
            return Woken::Over;
        }
        // One that has ended says so, too.
        if first != [PollFlags::POLLIN] || hasty.iter().any(|events| !events.is_empty()) {
            return Woken::Up;
        }
        sleep(length(rest.interval));
        GATHERED.set(true);
        Woken::Gathered
    })
}

/// Until one of them can be read, or has ended: what each of them has. Whatever else ends it, such as a signal, is for the
/// runtime to see.
fn await_any<'a>(descriptors: impl Iterator<Item = BorrowedFd<'a>>, limit: Duration) -> Vec<PollFlags> {
    let mut watched: Vec<_> =
        descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
    let _ = ppoll(&mut watched, Some(limit.into()), None);
    watched.iter().map(|watched| watched.revents().unwrap_or(PollFlags::empty())).collect()
}

fn sleep(nap: Duration) {
    std::thread::sleep(nap);
    NEXT.set(Some(Instant::now() + nap * PAUSE));
}

/// Whether it napped.
fn nap() -> bool {
    let nap = ALLOWED.take();
    if nap.is_zero() || NEXT.get().is_some_and(|next| Instant::now() < next) {
        return false;
    }
    match UNTIL.take() {
        Some(socket) => {
            await_any(std::iter::once(socket.as_fd()), nap);
            NEXT.set(Some(Instant::now() + nap * PAUSE));
        }
        None => sleep(nap),
    }
    true
}

/// The first message of a burst has come and needs no haste: waits for a millisecond (less at intervals below 100 ms), until
/// the rest has reached the queues of the caller, who takes it from there. For a service on one thread.
pub async fn gather(interval: Duration) {
    ALLOWED.set(length(interval));
    UNTIL.set(None);
    if GATHERED.take() || nap() {
        ALLOWED.set(Duration::ZERO);
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

    /// Whoever rests is woken by an alarm, by what is in haste and by what ends, and by nothing else; the first message of a
    /// burst is given the time for the rest of it.
    #[test]
    fn a_rest_ends_for_what_cannot_wait() {
        let (beat, own) = UnixStream::pair().unwrap();
        let (peer, hasty) = UnixStream::pair().unwrap();
        let (own, hasty): (Socket, Socket) = (Arc::new(own), Arc::new(hasty));
        let may_rest = || {
            let (hasty, first) = (vec![Arc::clone(&hasty)], Some(Arc::clone(&own)));
            rest(Some(Rest { hasty, first, interval: INTERVAL }));
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut alarm = runtime.block_on(async { clock::Alarm::new().unwrap() });
        let mut wait = |span| {
            let deadline = clock::now().after(span);
            let _ = runtime
                .block_on(async { tokio::time::timeout(Duration::ZERO, alarm.reached(deadline)).await });
        };
        may_rest();
        assert_eq!(rest_now(), Woken::Awake, "its task is at work");
        wait(INTERVAL);
        let begun = Instant::now();
        assert_eq!(rest_now(), Woken::Over, "whoever asks for a page is heard then");
        assert!(begun.elapsed() >= LONGEST_REST);
        let (one, other) = (busy(), busy());
        drop(one);
        assert_eq!(rest_now(), Woken::Awake, "somebody waits for an answer");
        drop(other);
        wait(LONGEST_REST / 10);
        assert_eq!(rest_now(), Woken::Up, "the alarm");
        wait(INTERVAL);
        (&beat).write_all(b"x").unwrap();
        let begun = Instant::now();
        assert_eq!(rest_now(), Woken::Gathered, "the first of a burst");
        assert!(begun.elapsed() >= LONGEST && GATHERED.take());
        (&peer).write_all(b"x").unwrap();
        assert_eq!(rest_now(), Woken::Up, "no nap before what is in haste");
        rest(None);
        assert_eq!(rest_now(), Woken::Awake, "not allowed");
        let (other, ended) = UnixStream::pair().unwrap();
        drop(other);
        rest(Some(Rest { hasty: Vec::new(), first: Some(Arc::new(ended)), interval: INTERVAL }));
        assert_eq!(rest_now(), Woken::Up, "its end cannot wait");
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
