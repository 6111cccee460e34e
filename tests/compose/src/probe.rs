//! Who serves, asked over TCP and HTTP from a container's network, a connection for each question. Several askers take
//! turns, so that a question that nobody answers holds up none of the next.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use understudy_lab::{Moment, wait_until};

use crate::engine::Namespace;

/// Between two questions.
pub const INTERVAL: Duration = Duration::from_millis(2);
/// So many take turns that each has given up its question before it is its turn again.
const ASKERS: u32 = 10;
/// An answer takes a fraction of a millisecond; one that takes longer waited for a neighbour and does not count. For
/// connecting, and once more for the answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(20);
/// "Now".
const PRESENT: Duration = Duration::from_millis(100);

/// A question that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// When it was asked.
    pub asked: Moment,
    /// Who answered.
    pub node: String,
}

/// Asks all the time until it is dropped.
#[derive(Debug)]
pub struct Probe {
    answers: Arc<Mutex<Vec<Tally>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Probe {
    /// Asks `address` from inside `namespace`.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let mut probe = Self { answers: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        let begin = Moment::now();
        for turn in 0..ASKERS {
            let namespace = namespace.again()?;
            let (answers, stop) = (Arc::clone(&probe.answers), Arc::clone(&probe.stop));
            let (ready, started) = std::sync::mpsc::sync_channel(1);
            let thread = std::thread::Builder::new().name("probe".into()).spawn(move || {
                let joined = namespace.join();
                let works = joined.is_ok();
                let _ = ready.send(joined);
                if works {
                    ask_in_turn(address, begin + INTERVAL * turn, &answers, &stop);
                }
            })?;
            probe.threads.push(thread);
            started.recv().context("the probe ended")??;
        }
        Ok(probe)
    }

    /// The answers to questions that were asked since.
    pub fn since(&self, since: Moment) -> Vec<Tally> {
        let answers = lock(&self.answers);
        let from = answers.partition_point(|answer| answer.asked < since);
        answers[from..].to_vec()
    }

    /// Who answers now.
    pub fn now(&self) -> Option<String> {
        let answers = lock(&self.answers);
        let last = answers.last()?;
        (Moment::now().since(last.asked) < PRESENT).then(|| last.node.clone())
    }

    /// Waits until a question that is asked after this call is answered by a node that is `wanted`; its name.
    ///
    /// # Errors
    /// When the deadline passes; says who answers instead.
    pub fn wait_served(&self, deadline: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let since = Moment::now();
        let served = || self.since(since).last().map(|last| last.node.clone()).filter(|node| wanted(node));
        wait_until("another node to answer", deadline, served)
            .with_context(|| format!("{:?} answers", self.now()))
    }

    /// The longest time without an answer since. Both ends count as answered, so a gap that lasts is one up to now;
    /// only of the youngest questions the answers may still be coming.
    pub fn longest_gap(&self, since: Moment) -> Duration {
        let now =
            Moment::from_nanos(Moment::now().nanos().saturating_sub(2 * ANSWER_LIMIT.as_nanos() as u64));
        longest_gap(&self.since(since), since, now)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there was printed where it happened.
            let _ = thread.join();
        }
    }
}

fn longest_gap(answers: &[Tally], from: Moment, to: Moment) -> Duration {
    let asked = answers.iter().map(|answer| answer.asked);
    let times: Vec<Moment> = [from].into_iter().chain(asked).chain([to]).collect();
    times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks at its own moments, every tenth of all, until it is told to stop. Answers are kept in the order of their
/// questions.
fn ask_in_turn(address: SocketAddr, mut turn: Moment, answers: &Mutex<Vec<Tally>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        turn.reach();
        let asked = Moment::now();
        if let Ok(node) = ask(address) {
            let mut answers = lock(answers);
            let place = answers.partition_point(|answer| answer.asked <= asked);
            answers.insert(place, Tally { asked, node });
        }
        // Turns that were missed are not made up for.
        turn = turn + INTERVAL * ASKERS;
        while turn < Moment::now() {
            turn = turn + INTERVAL * ASKERS;
        }
    }
}

/// `GET /`: the sample workload answers the name of its host.
fn ask(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    anyhow::ensure!(head.contains(" 200 "), "{head}");
    Ok(body.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn gap(answered: &[u64]) -> u128 {
        let answers: Vec<_> =
            answered.iter().map(|asked| Tally { asked: at(*asked), node: "web-a".into() }).collect();
        longest_gap(&answers, at(1_000), at(2_000)).as_millis()
    }

    #[test]
    fn a_gap_counts_from_the_beginning_and_up_to_now() {
        assert_eq!(gap(&[1_010, 1_020, 1_500, 1_990]), 490, "between two answers");
        assert_eq!(gap(&[1_700, 1_990]), 700, "before the first");
        assert_eq!(gap(&[1_010, 1_100]), 900, "after the last, which nobody has ended yet");
        assert_eq!(gap(&[]), 1_000, "no answer at all");
        assert_eq!(gap(&[1_010, 1_990, 2_030]), 980, "an answer that is younger than what is judged");
    }
}
