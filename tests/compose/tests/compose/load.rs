//! N follows a real load, 1 to 3 and back to 1: a workload that burns the processor for each request, and clients that ask
//! whatever the name server says serves, a connection each. No request may fail while slots are given up.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use understudy_compose::yard::{NAME_SERVER, Plan, Yard, each_once, three_containers};
use understudy_lab::wait_until;

const VIPS: [&str; 3] = ["172.29.78.10", "172.29.78.11", "172.29.78.12"];
/// Clients at the peak: at two under way on each member they want three.
const PEAK: usize = 6;
/// A request costs 10 ms of a processor that is shared; an answer after this counts as none.
const PATIENCE: Duration = Duration::from_secs(5);
/// How old what clients know of the name server may be: the TTL of its records.
const TTL: Duration = Duration::from_secs(1);

fn plan(config: &Path) -> Vec<String> {
    let burns = Path::new(env!("CARGO_BIN_EXE_understudy-burn"));
    let scaling = "min = 1\nmax = 3\nstart_up = \"20s\"\nwindow_out = \"2s\"\nwindow_in = \"5s\"\ncooldown_in = \"2s\"\n\
                   drain = \"4s\"\nrepair = { after = \"10s\" }\n\
                   [[group.web.scaling.target]]\nsignal = \"in_flight\"\nvalue = 2.0\n\
                   [[group.web.signal]]\nname = \"in_flight\"\nurl = \"http://127.0.0.1:8080/metrics\"\nmetric = \
                   \"requests_in_flight\"";
    let template = three_containers("web", config, Some(burns));
    vec![Plan { group: "web", vips: &VIPS, scaling, template: &template }.text()]
}

/// What clients share.
#[derive(Default)]
struct Shared {
    /// What the name server says serves.
    serving: Mutex<Vec<IpAddr>>,
    /// So many of the clients ask; the others wait.
    asking: AtomicUsize,
    stop: AtomicBool,
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

/// Clients that ask all the time, each the next address in turn.
struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let shared: Arc<Shared> = Arc::default();
        let (resolving, mut threads) = (Arc::clone(&shared), Vec::new());
        threads.push(std::thread::spawn(move || resolve(&resolving)));
        for client in 0..PEAK {
            let shared = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || ask_all_the_time(&shared, client)));
        }
        Self { shared, threads }
    }

    fn set(&self, clients: usize) {
        self.shared.asking.store(clients, Ordering::Relaxed);
    }

    fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// What has failed since this was asked last.
    fn failed(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there was printed where it happened.
            let _ = thread.join();
        }
    }
}

/// Keeps the list of addresses no older than the TTL, as a resolver does.
fn resolve(shared: &Shared) {
    let names: Vec<String> = (0..VIPS.len()).map(|slot| format!("web-{slot}.ha.test")).collect();
    let server = format!("@{NAME_SERVER}");
    while !shared.stop.load(Ordering::Relaxed) {
        let asked =
            Command::new("kdig").args(["+short", "+timeout=1", "+retry=0", &server]).args(&names).output();
        let said =
            asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let found: Vec<IpAddr> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
        // A server that does not answer has taken nothing back.
        if !found.is_empty() {
            *shared.serving.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
        std::thread::park_timeout(TTL / 4);
    }
}

fn ask_all_the_time(shared: &Shared, client: usize) {
    let mut turn = client;
    while !shared.stop.load(Ordering::Relaxed) {
        let serving = shared.serving.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if client >= shared.asking.load(Ordering::Relaxed) || serving.is_empty() {
            std::thread::park_timeout(TTL / 20);
            continue;
        }
        turn += 1;
        let address = SocketAddr::new(serving[turn % serving.len()], 8080);
        match ask(address) {
            Ok(()) => drop(shared.answered.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                let mut failed = shared.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push(format!("{address}: {error:#}"));
            }
        }
    }
}

fn ask(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading the answer")?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    Ok(())
}

#[test]
fn a_group_grows_and_shrinks_with_a_real_load_and_no_request_fails() -> Result<()> {
    let yard = Yard::up(plan)?;
    yard.wait_whole("web", 1, 1)?;
    let load = Load::start();
    load.set(1);
    wait_until("requests are answered", PATIENCE * 4, || load.answered() > 20)
        .with_context(|| format!("{:?}", load.failed()))?;
    load.set(PEAK);
    yard.wait_whole("web", 3, 1).context("the load has risen")?;
    println!("out: {} answered, {:?} failed", load.answered(), load.failed());

    // The rest of what was begun at the peak belongs to it.
    load.set(1);
    yard.wait_whole("web", 1, 1).context("the load has fallen")?;
    wait_until("what is not needed is removed", PATIENCE * 12, || {
        yard.members("web").is_ok_and(|members| members.len() == 2 && each_once(&members).is_ok())
    })
    .with_context(|| format!("{:?}", yard.members("web")))?;
    let before = load.answered();
    wait_until("requests are still answered", PATIENCE * 4, || load.answered() > before + 20)?;
    let failed = load.failed();
    println!("in: {} answered, {failed:?} failed", load.answered());
    ensure!(failed.is_empty(), "while scaling in: {failed:?}");
    yard.end();
    Ok(())
}
