//! What checks make of the answers of a workload, without the workload. The result is the reason of a failure, as
//! heartbeats carry it.

use std::process::ExitStatus;

use tokio::io::{AsyncRead, AsyncWrite};

use super::config::{CheckConfig, CheckConfigError, CheckKind, check_common};
use super::exec;
use super::grpc::GrpcProbe;
use super::http::HttpProbe;
use super::probe::Probe;

/// Whether checks with these settings can be started.
pub fn accepts(configs: &[CheckConfig]) -> Result<(), CheckConfigError> {
    check_common(configs)?;
    configs.iter().try_for_each(|config| Probe::new(config).map(drop))
}

/// One run of an HTTP check over `stream`.
pub async fn http<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Result<(), String> {
    let probe = HttpProbe::new("http://127.0.0.1:8080/healthz", None, CheckKind::DEFAULT_STATUS);
    let Ok(probe) = probe else { unreachable!("the URL is one") };
    probe.run_over(stream).await.map_err(|failure| failure.reason())
}

/// One run of a gRPC health check over `stream`.
pub async fn grpc<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<(), String> {
    let probe = GrpcProbe::new("127.0.0.1:8080", "web").expect("the address is one");
    probe.run_over(stream).await.map_err(|failure| failure.reason())
}

/// A command that failed after it wrote `chunks`.
pub fn exec<'a>(status: ExitStatus, chunks: impl Iterator<Item = &'a [u8]>) -> String {
    exec::failure(status, chunks).reason()
}
