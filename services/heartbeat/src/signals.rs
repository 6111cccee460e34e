//! Load signals of the group's own: a figure that a page of the workload shows, or that a command prints.
//!
//! What cannot be read, is not a number or is negative is left out of the heartbeat, and said once: a missing value
//! never scales in (`libs/scaling`), a wrong one would.

use std::{collections::BTreeMap, process::Stdio};

use anyhow::{Context as _, bail, ensure};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt as _,
    process::Command,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use understudy_service::config::{SignalConfig, SignalSource};

use crate::checks::http::Page;

/// Bytes of a page of metrics: large exporters have a few hundred KiB.
const MAX_PAGE: usize = 4 * 1024 * 1024;
/// Bytes of a command's answer: one number.
const MAX_ANSWER: u64 = 1024;

/// Values by name, as they were read last.
pub type Signals = BTreeMap<String, f64>;

/// Reads signals, each in its own rhythm, until it is dropped.
#[derive(Debug)]
pub struct SignalSampler {
    latest: watch::Receiver<Signals>,
    _tasks: JoinSet<()>,
}

impl SignalSampler {
    /// Starts reading, the first time now. Must be called in a tokio runtime.
    pub fn start(signals: &[SignalConfig]) -> Self {
        let (sender, latest) = watch::channel(Signals::new());
        let mut tasks = JoinSet::new();
        for signal in signals {
            tasks.spawn(sample(signal.clone(), sender.clone()));
        }
        Self { latest, _tasks: tasks }
    }

    /// The latest values.
    pub fn subscribe(&self) -> watch::Receiver<Signals> {
        self.latest.clone()
    }
}

async fn sample(signal: SignalConfig, latest: watch::Sender<Signals>) {
    let mut ticks = interval(signal.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut well, mut source) = (true, Source::of(&signal.source));
    loop {
        ticks.tick().await;
        let read = timeout(signal.timeout, source.read()).await;
        let value = read.context("no answer in time").flatten().and_then(|value| {
            ensure!(value.is_finite() && value >= 0.0, "{value} is no load: it must be a number from 0 on");
            Ok(value)
        });
        if let Err(error) = &value
            && well
        {
            tracing::warn!(signal = signal.name, "left out: {error:#}");
        }
        well = value.is_ok();
        latest.send_if_modified(|known| match value.ok() {
            Some(value) => known.insert(signal.name.clone(), value) != Some(value),
            None => known.remove(&signal.name).is_some(),
        });
    }
}

/// Where a signal comes from, kept from one reading to the next: while a look-up hangs no second one is begun.
enum Source<'a> {
    Metric { url: &'a str, page: Option<Box<Page>>, metric: &'a str },
    Command(&'a [String]),
}

impl<'a> Source<'a> {
    fn of(source: &'a SignalSource) -> Self {
        match source {
            SignalSource::Metric { url, metric } => {
                Self::Metric { url, page: Page::parse(url).map(Box::new), metric }
            }
            SignalSource::Command(command) => Self::Command(command),
        }
    }

    async fn read(&mut self) -> anyhow::Result<f64> {
        match self {
            Self::Metric { url, page, metric } => {
                let page = page.as_mut().with_context(|| format!("{url} is no http:// URL"))?;
                let text = fetch(page).await.with_context(|| format!("asking {url}"))?;
                sum(&text, metric).with_context(|| format!("{url} shows no {metric}"))
            }
            Self::Command(command) => run(command).await,
        }
    }
}

async fn fetch(page: &mut Page) -> anyhow::Result<String> {
    let stream = page.target.connect().await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(&page.path).header(HOST, &page.host).body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        ensure!(response.status().is_success(), "it answers {}", response.status());
        let body = Limited::new(response.into_body(), MAX_PAGE).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("reading the page: {error}"))?;
        Ok(String::from_utf8(body.to_bytes().to_vec())?)
    };
    tokio::pin!(answer, connection);
    // Driven here, not in a task of its own: when the timeout drops this, nothing is left behind.
    tokio::select! {
        biased;
        page = &mut answer => page,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}

/// Sum of a metric over all its labels, in Prometheus's text format (exposition format 0.0.4); `None` where it is not
/// shown.
#[doc(hidden)]
pub fn sum(page: &str, metric: &str) -> Option<f64> {
    let samples = page.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix(metric)?;
        let value = match rest.chars().next()? {
            // Values of labels may hold a brace: the last one closes. What follows ` # ` is an exemplar.
            '{' => rest.split(" # ").next()?.rsplit_once('}')?.1,
            space if space.is_whitespace() => rest,
            _ => return None,
        };
        value.split_whitespace().next()?.parse::<f64>().ok()
    });
    samples.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Kills a command's whole process group when it is dropped before the command has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already is what is wanted.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

async fn run(command: &[String]) -> anyhow::Result<f64> {
    let program = command.first().context("no command")?;
    let mut child = Command::new(program)
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        output.take(MAX_ANSWER).read_to_string(&mut said).await.context("reading its answer")?;
    }
    let status = child.wait().await?;
    group.0 = None;
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    said.trim().parse().with_context(|| format!("{program} says {said:?}, not a number"))
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use tokio::{io::AsyncWriteExt as _, net::TcpListener, task::JoinHandle};

    use super::*;

    fn signal(name: &str, source: SignalSource) -> SignalConfig {
        let (interval, timeout) = (Duration::from_millis(20), Duration::from_secs(5));
        SignalConfig { name: name.into(), source, interval, timeout }
    }

    fn says(text: &str) -> SignalSource {
        SignalSource::Command(vec!["/bin/echo".into(), text.into()])
    }

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let page = "# HELP in_flight Requests\n# TYPE in_flight gauge\nin_flight{path=\"/a}\"} 3\n\
                    in_flight{path=\"/b\"} 4 1700000000000\nin_flight_max 99\nother 1\n\
                    seen{a=\"b\"} 2 # {trace=\"x\"} 7\nbad nan\n";
        assert_eq!(sum(page, "in_flight"), Some(7.0));
        assert_eq!(sum(page, "in_flight_max"), Some(99.0));
        assert_eq!(sum(page, "seen"), Some(2.0));
        assert_eq!(sum(page, "flight"), None);
        assert!(sum(page, "bad").unwrap().is_nan());
    }

    #[tokio::test]
    async fn what_is_no_load_is_left_out() {
        let signals = [
            signal("queue", says("12.5")),
            signal("not-a-number", says("nan")),
            signal("negative", says("-1")),
            signal("words", says("many")),
            signal("missing", SignalSource::Command(vec!["/nowhere/at/all".into()])),
        ];
        let sampler = SignalSampler::start(&signals);
        let mut latest = sampler.subscribe();
        let told = latest.wait_for(|signals| !signals.is_empty());
        let told = timeout(Duration::from_secs(10), told).await.expect("in time").unwrap().clone();
        assert_eq!(told, Signals::from([("queue".into(), 12.5)]));
    }

    /// A page that answers once, and what it was asked first.
    async fn page(address: &str) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let bound = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let length = stream.read(&mut asked).await.unwrap();
            let page = "in_flight 5\n";
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", page.len());
            stream.write_all(format!("{head}{page}").as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).lines().next().unwrap_or_default().to_owned()
        });
        (bound, served)
    }

    #[tokio::test]
    async fn a_page_has_an_address_of_either_family_and_a_path() {
        for (address, end, line) in [
            ("127.0.0.1:0", "/metrics", "GET /metrics HTTP/1.1"),
            ("[::1]:0", "/", "GET / HTTP/1.1"),
            ("127.0.0.1:0", "?all=1", "GET /?all=1 HTTP/1.1"),
        ] {
            let (bound, served) = page(address).await;
            let url = format!("http://{bound}{end}");
            let source = SignalSource::Metric { url, metric: "in_flight".into() };
            let read = timeout(Duration::from_secs(10), async { Source::of(&source).read().await }).await;
            assert_eq!(read.expect("in time").unwrap(), 5.0, "{bound}{end}");
            assert_eq!(served.await.unwrap(), line);
        }
    }

    #[tokio::test]
    async fn a_page_is_asked_and_a_value_that_ends_is_forgotten() {
        let (address, served) = page("127.0.0.1:0").await;
        let url = format!("http://{address}/metrics");
        let source = SignalSource::Metric { url, metric: "in_flight".into() };
        let sampler = SignalSampler::start(&[signal("in_flight", source)]);
        let mut latest = sampler.subscribe();
        let wait = async {
            latest.wait_for(|signals| signals.get("in_flight") == Some(&5.0)).await.unwrap();
            // Nobody listens any more.
            latest.wait_for(Signals::is_empty).await.unwrap();
        };
        timeout(Duration::from_secs(10), wait).await.expect("in time");
        served.await.unwrap();
    }
}
