//! The life of a service: arguments, configuration, telemetry, pages, main, end.

use std::{future::Future, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::{
    access::Door,
    calm,
    config::{Config, Problem, environment},
    healthz,
    http::{self, Health, Metrics, TICK_LIMIT},
    interface::{self, Interface},
    owner::Role,
    realtime::{self, Granted},
    seat::OwnSeat,
    shutdown, systemd, telemetry,
};

/// Exit codes, after sysexits.h where it has one.
pub mod exit {
    /// Ended as asked.
    pub const OK: u8 = 0;
    /// Something failed.
    pub const ERROR: u8 = 1;
    /// EX_UNAVAILABLE: this environment cannot run the service, and starting it again will not help.
    pub const HOPELESS: u8 = 69;
    /// EX_CONFIG: the configuration was refused.
    pub const CONFIG: u8 = 78;
}

/// Threads that do a service's work; blocking calls have others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Everything on the first: for services that do a little and often. Each message that a thread hands to another
    /// wakes it, and an idle node does nothing else.
    One,
    /// One for the service's loop, one for receiving and one for the rest: for services with work for several CPUs.
    Several,
}

/// Beside the loop's own thread: more would only move work between CPUs.
const WORKERS: usize = 2;
/// How long blocking calls may hold up the end: a name that is being looked up takes its time, and nobody waits for it.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Arguments of every service; `#[command(flatten)]` them.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Configuration file; UNDERSTUDY_<SECTION>__<KEY> variables override it.
    #[arg(long, value_name = "FILE", env = "UNDERSTUDY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Check the configuration, print what is wrong with it, and end.
    #[arg(long)]
    pub check: bool,
    /// What to do instead of running the service.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What a service's program does besides running the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Ask the service that runs on this host with this configuration whether it is well: exit code 0 if it is.
    Healthz,
}

/// The network that the service speaks over has gone, or never came.
#[derive(Debug, thiserror::Error)]
#[error("node.interface = {0:?} is not there: ending, to be started again where it is")]
struct InterfaceLost(String);

/// The node's network is not there, or not to be told from others.
#[derive(Debug, thiserror::Error)]
#[error(
    "node.interface is not set, and not exactly one interface has an address in the network of the VIPs: ending, to be \
     started again where it is"
)]
struct NoInterface;

/// The environment cannot run this service, however often it is started: exit code 69.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Hopeless(pub String);

/// What a service gets.
#[derive(Debug)]
pub struct Frame {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Name of this process among its like: the node's name, else the host's.
    pub instance: String,
    /// Its metrics.
    pub metrics: Metrics,
    /// Its health: the main loop must tick.
    pub health: Health,
    /// Cancelled on SIGTERM and SIGINT.
    pub shutdown: CancellationToken,
    /// What scheduling and locking were granted.
    pub realtime: Granted,
    /// The seat of a detector, where its credential hangs on it.
    pub seat: Option<OwnSeat>,
}

/// Runs `main` of a service and returns the process's exit code.
///
/// # Panics
/// Where `main` does.
pub fn run<M, F>(role: Role, threads: Threads, args: &CommonArgs, main: M) -> ExitCode
where
    M: FnOnce(Frame) -> F + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let service = role.program();
    let (config, report) = Config::examine(args.config.as_deref(), environment());
    let Some(config) = config else {
        print(service, "error", &report.errors);
        print(service, "warning", &report.warnings);
        return exit::CONFIG.into();
    };
    if args.check {
        print(service, "warning", &report.warnings);
        return exit::OK.into();
    }
    if args.command == Some(Command::Healthz) {
        return ask_healthz(role, &config).into();
    }
    // Before the runtime, so that the thread that runs `main` has it too.
    let realtime = realtime::enter(&config.realtime);
    match runtime(threads, &config, &realtime) {
        Ok(runtime) => {
            let life = live(role, config, report.warnings, realtime, main);
            // On one thread as a task like any other: what wakes the runtime's own future goes through the kernel.
            let code = match threads {
                Threads::One => match runtime.block_on(runtime.spawn(life)) {
                    Ok(code) => code,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                Threads::Several => runtime.block_on(life),
            };
            runtime.shutdown_timeout(LAST_CALLS);
            code.into()
        }
        Err(error) => {
            complain(service, &anyhow::Error::new(error).context("starting the runtime"));
            exit::ERROR.into()
        }
    }
}

fn ask_healthz(role: Role, config: &Config) -> u8 {
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::new)
        .and_then(|runtime| runtime.block_on(healthz::ask(role, config)).map_err(anyhow::Error::new));
    match asked {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(role.program(), &error);
            exit::ERROR
        }
    }
}

fn print(service: &str, kind: &str, problems: &[Problem]) {
    for problem in problems {
        complain(service, &format_args!("{kind}: {problem}"));
    }
}

/// For the time before telemetry; the only place that writes to stderr itself.
fn complain(service: &str, what: &dyn std::fmt::Display) {
    eprintln!("{service}: {what:#}");
}

fn runtime(threads: Threads, config: &Config, realtime: &Granted) -> std::io::Result<Runtime> {
    let mut builder = match threads {
        Threads::One => {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.on_thread_park(|| {
                calm::nap();
            });
            builder
        }
        Threads::Several => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(WORKERS);
            builder
        }
    };
    builder.enable_all();
    if realtime.scheduling.is_ok() {
        let priority = config.realtime.priority;
        builder.on_thread_start(move || {
            // Granted to the first thread, so this one gets it as well; if not, it runs as it is.
            drop(realtime::enter_thread(priority));
        });
    }
    builder.build()
}

async fn live<M, F>(role: Role, config: Config, warnings: Vec<Problem>, realtime: Granted, main: M) -> u8
where
    M: FnOnce(Frame) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let (service, instance) = (role.program(), instance(&config));
    let guard = match telemetry::init(service, &instance, &config.telemetry) {
        Ok(guard) => guard,
        Err(error) => {
            complain(service, &anyhow::Error::new(error));
            return exit::ERROR;
        }
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    for limit in realtime.limits() {
        tracing::warn!("{limit}");
    }
    let code = match frame(role, config, instance, realtime).await {
        Ok(frame) => {
            systemd::start(frame.health.clone());
            let ended = until_interface_is_lost(role, frame, main).await;
            systemd::stopping();
            code(ended)
        }
        Err(error) => code(Err(error)),
    };
    guard.shutdown().await;
    code
}

/// Runs `main`; when the node's interface is gone it is asked to end.
async fn until_interface_is_lost<M, F>(role: Role, frame: Frame, main: M) -> anyhow::Result<()>
where
    M: FnOnce(Frame) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    // An executor says so itself, where it needs it; a publisher would go on where nobody hears it.
    if role == Role::Heartbeat && frame.config.node.interface.is_none() && !frame.config.own_vips().is_empty()
    {
        return Err(NoInterface.into());
    }
    let found = frame.config.node.interface.as_deref().map(Interface::find);
    // One configuration serves all hosts: that of a detector may have no such interface, and needs none.
    let Some(mut interface) = found.filter(|interface| role.is_of_a_node() || interface.is_there()) else {
        return main(frame).await;
    };
    let shutdown = frame.shutdown.clone();
    let running = main(frame);
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => ended,
        () = interface.lost() => {
            shutdown.cancel();
            running.await?;
            Err(InterfaceLost(interface.name).into())
        }
    }
}

async fn frame(role: Role, mut config: Config, instance: String, realtime: Granted) -> anyhow::Result<Frame> {
    let shutdown = shutdown::on_signals(exit::ERROR.into())?;
    let seat = role.resolve(&mut config).await?;
    // A replica may have learnt its name only now.
    let instance = config.node.name.as_ref().map_or(instance, ToString::to_string);
    if role.is_of_a_node() && config.node.interface.is_none() {
        config.node.interface = interface::facing(&config.own_vips());
    }
    let (metrics, health) = (Metrics::default(), Health::new(TICK_LIMIT));
    for limit in realtime.limits() {
        health.limited(limit);
    }
    if let Some(address) = config.http.listen {
        // Not tied to the token: the pages show a hand-over to its end.
        let door = Door::of(&config, address)?;
        http::serve(address, door, metrics.clone(), health.clone(), CancellationToken::new()).await?;
    }
    Ok(Frame { config: Arc::new(config), instance, metrics, health, shutdown, realtime, seat })
}

fn instance(config: &Config) -> String {
    match &config.node.name {
        Some(name) => name.to_string(),
        None => crate::seat::hostname(),
    }
}

fn code(result: anyhow::Result<()>) -> u8 {
    match result {
        Ok(()) => exit::OK,
        Err(error) => {
            tracing::error!("{error:#}");
            let hopeless =
                error.chain().any(|cause| cause.is::<Hopeless>() || cause.is::<http::ListenError>());
            if hopeless { exit::HOPELESS } else { exit::ERROR }
        }
    }
}
