//! The life of a service: arguments, configuration, telemetry, pages, main, end.

use std::{future::Future, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Problem, environment},
    http::{self, Health, Metrics, TICK_LIMIT},
    realtime::{self, Granted},
    shutdown, telemetry,
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

/// One for receiving and one for the rest: the services are small, and more threads only move work between CPUs.
const WORKERS: usize = 2;

/// Arguments of every service; `#[command(flatten)]` them.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Configuration file; UNDERSTUDY_<SECTION>__<KEY> variables override it.
    #[arg(long, value_name = "FILE", env = "UNDERSTUDY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Check the configuration, print what is wrong with it, and end.
    #[arg(long)]
    pub check: bool,
}

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
}

/// Runs `main` of the service called `service` and returns the process's exit code.
pub fn run<M, F>(service: &'static str, args: &CommonArgs, main: M) -> ExitCode
where
    M: FnOnce(Frame) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
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
    // Before the runtime, so that the thread that runs `main` has it too.
    let realtime = realtime::enter(&config.realtime);
    match runtime(&config, &realtime) {
        Ok(runtime) => runtime.block_on(live(service, config, &report.warnings, realtime, main)).into(),
        Err(error) => {
            complain(service, &anyhow::Error::new(error).context("starting the runtime"));
            exit::ERROR.into()
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

fn runtime(config: &Config, realtime: &Granted) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKERS).enable_all();
    if realtime.scheduling.is_ok() {
        let priority = config.realtime.priority;
        builder.on_thread_start(move || {
            // Granted to the first thread, so this one gets it as well; if not, it runs as it is.
            drop(realtime::enter_thread(priority));
        });
    }
    builder.build()
}

async fn live<M, F>(
    service: &'static str,
    config: Config,
    warnings: &[Problem],
    realtime: Granted,
    main: M,
) -> u8
where
    M: FnOnce(Frame) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let instance = instance(&config);
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
    realtime.log();
    let code = match frame(config, instance, realtime).await {
        Ok(frame) => code(main(frame).await),
        Err(error) => code(Err(error)),
    };
    guard.shutdown().await;
    code
}

async fn frame(config: Config, instance: String, realtime: Granted) -> anyhow::Result<Frame> {
    let shutdown = shutdown::on_signals(exit::ERROR.into())?;
    let (metrics, health) = (Metrics::default(), Health::new(TICK_LIMIT));
    if let Some(address) = config.http.listen {
        // Not tied to the token: the pages show a hand-over to its end.
        http::serve(address, metrics.clone(), health.clone(), CancellationToken::new()).await?;
    }
    Ok(Frame { config: Arc::new(config), instance, metrics, health, shutdown, realtime })
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
