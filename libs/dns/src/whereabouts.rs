//! Where a name server is: looked up beside the work, again and again until it is known, and anew when a try failed there.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::error::DnsError;
use crate::updater::Timing;

/// Address of one server, or why it is not known yet.
type Found = Option<Result<SocketAddr, Arc<io::Error>>>;

/// One server, written `host:port`. Dropping it ends the task that looks it up.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    name: String,
    found: watch::Receiver<Found>,
    doubt: Arc<Notify>,
    task: tokio::task::AbortHandle,
}

impl Drop for Whereabouts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Whereabouts {
    /// Starts to look `name` up. An address needs no looking up and is known at once.
    pub(crate) fn find(name: String, timing: Timing) -> Self {
        Self::find_with(name, timing, |name| async move {
            let found = tokio::net::lookup_host(name).await?.next();
            found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))
        })
    }

    fn find_with<L, F>(name: String, timing: Timing, look_up: L) -> Self
    where
        L: Fn(String) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<SocketAddr>> + Send,
    {
        let known: Found = name.parse().ok().map(Ok);
        let fixed = known.is_some();
        let (sender, found) = watch::channel(known);
        let doubt = Arc::new(Notify::new());
        let (wanted, asked) = (name.clone(), Arc::clone(&doubt));
        // One task, so that a resolver that hangs ties up one blocking thread and not one for each try.
        let task = tokio::spawn(async move {
            if fixed {
                return;
            }
            loop {
                follow(&wanted, timing, &look_up, &sender).await;
                asked.notified().await;
                tokio::time::sleep(timing.retry_min).await;
            }
        });
        Self { name, found, doubt, task: task.abort_handle() }
    }

    /// The server as it was named.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its address as it was found last; one that is not known yet is waited for, for `patience` at most.
    pub(crate) async fn address(&self, patience: Duration) -> Result<SocketAddr, DnsError> {
        let mut found = self.found.clone();
        let known = found.wait_for(|found| matches!(found, Some(Ok(_))));
        if let Ok(Ok(address)) = timeout(patience, known).await.map(|known| known.map(|known| known.clone()))
            && let Some(Ok(address)) = address
        {
            return Ok(address);
        }
        let cause = match &*self.found.borrow() {
            Some(Err(cause)) => Arc::clone(cause),
            _ => Arc::new(io::Error::new(io::ErrorKind::TimedOut, "no answer yet")),
        };
        Err(DnsError::Unknown { server: self.name.clone(), cause })
    }

    /// A try failed there: it may be elsewhere by now. Never waits.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }
}

/// Looks `name` up until there is an answer. What was known stays until then: a name service that fails takes no server
/// away.
async fn follow<L, F>(name: &str, timing: Timing, look_up: &L, found: &watch::Sender<Found>)
where
    L: Fn(String) -> F,
    F: Future<Output = io::Result<SocketAddr>>,
{
    let mut delays = timing.delays();
    let mut failures = 0_u32;
    loop {
        match look_up(name.to_owned()).await {
            Ok(address) => {
                if failures > 0 {
                    tracing::info!(server = name, %address, failures, "dns.servers: found");
                }
                found.send_if_modified(|known| {
                    let news = !matches!(known, Some(Ok(known)) if *known == address);
                    *known = Some(Ok(address));
                    news
                });
                return;
            }
            Err(cause) => {
                failures = failures.saturating_add(1);
                // The first and every doubling: it may stay away for days.
                if failures.is_power_of_two() {
                    let cause = &cause as &dyn std::error::Error;
                    tracing::warn!(server = name, cause, failures, "dns.servers: looking it up; tries go on");
                }
                if !matches!(*found.borrow(), Some(Ok(_))) {
                    found.send_replace(Some(Err(Arc::new(cause))));
                }
            }
        }
        tokio::time::sleep(delays.next().unwrap_or(timing.retry_max)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};
    use std::sync::Mutex;

    use super::*;

    /// What was looked up, in order.
    type Asked = Arc<Mutex<Vec<String>>>;

    /// Answers in turn; the last one stays.
    fn resolver(
        answers: &[Option<&str>],
    ) -> (Asked, impl Fn(String) -> Ready<io::Result<SocketAddr>> + Send + Sync + 'static) {
        let answers: Vec<Option<SocketAddr>> =
            answers.iter().map(|answer| answer.map(|answer| answer.parse().unwrap())).collect();
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        let look_up = move |name: String| {
            let mut log = log.lock().unwrap();
            let answer = answers[log.len().min(answers.len() - 1)];
            log.push(name);
            ready(answer.ok_or_else(|| io::Error::other("no such name")))
        };
        (asked, look_up)
    }

    const PATIENCE: Duration = Duration::from_secs(1);
    const TIMING: Timing = Timing {
        retry_min: Duration::from_millis(50),
        retry_max: Duration::from_secs(5),
        recheck: Duration::from_secs(30),
    };

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_unknown_at_first_is_found_when_it_is_there() {
        let (asked, look_up) = resolver(&[None, None, None, None, None, None, None, Some("10.0.0.1:53")]);
        let server = Whereabouts::find_with("dns:53".to_owned(), TIMING, look_up);
        let unknown = server.address(PATIENCE).await.unwrap_err();
        assert_eq!(unknown.to_string(), "looking dns:53 up");
        assert_eq!(std::error::Error::source(&unknown).unwrap().to_string(), "no such name");
        let found = server.address(Duration::from_secs(60)).await.unwrap();
        assert_eq!(found, "10.0.0.1:53".parse().unwrap());
        assert_eq!(*asked.lock().unwrap(), ["dns:53"; 8], "as often as needed, and no more");
        server.address(PATIENCE).await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 8, "what is known is not asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_moved_is_looked_up_again_and_is_where_it_was_until_then() {
        let (asked, look_up) = resolver(&[Some("10.0.0.1:53"), None, None, Some("10.0.0.2:53")]);
        let server = Whereabouts::find_with("dns:53".to_owned(), TIMING, look_up);
        assert_eq!(server.address(PATIENCE).await.unwrap(), "10.0.0.1:53".parse().unwrap());
        for _ in 0..100 {
            server.doubt();
        }
        let mut found = server.found.clone();
        assert_eq!(server.address(PATIENCE).await.unwrap(), "10.0.0.1:53".parse().unwrap());
        let moved =
            found.wait_for(|found| matches!(found, Some(Ok(at)) if at.ip().to_string() == "10.0.0.2"));
        timeout(Duration::from_secs(60), moved).await.unwrap().unwrap();
        assert!(asked.lock().unwrap().len() <= 5, "a hundred doubts are one question");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_never_looked_up() {
        let (asked, look_up) = resolver(&[None]);
        let server = Whereabouts::find_with("[fd77::31]:53".to_owned(), TIMING, look_up);
        server.doubt();
        assert_eq!(server.address(Duration::ZERO).await.unwrap(), "[fd77::31]:53".parse().unwrap());
        assert!(asked.lock().unwrap().is_empty());
    }
}
