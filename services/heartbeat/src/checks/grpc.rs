//! The gRPC health protocol (`grpc.health.v1`) answers `SERVING`.

use std::io;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use super::address::Target;
use super::failure::Failure;

#[derive(Debug)]
pub(super) struct GrpcProbe {
    target: Target,
    endpoint: Endpoint,
    service: String,
}

impl GrpcProbe {
    /// `None` if the address is not `host:port`.
    pub(super) fn new(address: &str, service: &str) -> Option<Self> {
        let target = Target::parse(address)?;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        Some(Self { target, endpoint, service: service.to_owned() })
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let stream = self.target.connect().await?;
        self.run_over(stream).await
    }

    /// The run on a connection that is there.
    pub(super) async fn run_over<S>(&self, stream: S) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let channel = self.channel(stream).await?;
        let request = HealthCheckRequest { service: self.service.clone() };
        let answer = HealthClient::new(channel)
            .check(request)
            .await
            .map_err(|cause| Failure::step("asking", self.target.name(), cause))?;
        let status = ServingStatus::try_from(answer.into_inner().status).unwrap_or(ServingStatus::Unknown);
        if status == ServingStatus::Serving {
            Ok(())
        } else {
            Err(Failure::NotServing { service: self.service.clone(), status: status.as_str_name() })
        }
    }

    /// A channel over one new connection that is never made again. Our own connect rather than tonic's, whose
    /// name lookups would pile up on blocking threads when the name server hangs.
    async fn channel<S>(&self, stream: S) -> Result<Channel, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut stream = Some(TokioIo::new(stream));
        let connector = service_fn(move |_| {
            let stream = stream.take().ok_or(io::Error::from(io::ErrorKind::ConnectionReset));
            async move { stream }
        });
        self.endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|cause| Failure::step("opening HTTP/2 to", self.target.name(), cause))
    }
}
