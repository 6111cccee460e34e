//! A receiver of traces, as a collector has one: OTLP over gRPC.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use tonic::{Request, Response, Status, transport::Server};

use crate::wait_until;

/// Services by the trace that they have spans in.
type Services = BTreeMap<Vec<u8>, BTreeSet<String>>;

/// The traces that have come so far.
#[derive(Debug, Clone, Default)]
pub struct Traces(Arc<Mutex<Services>>);

impl Traces {
    /// Receives on `address` of the calling thread's network until the process ends.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn receive(&self, address: SocketAddr) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let server = Server::builder().add_service(TraceServiceServer::new(self.clone()));
        runtime.block_on(server.serve(address)).with_context(|| format!("receiving traces on {address}"))
    }

    /// Waits for one trace with spans of all these services.
    ///
    /// # Errors
    /// When there is none in time; with the services of each trace.
    pub fn wait_for_one_of(&self, services: &[&str], deadline: Duration) -> Result<()> {
        let whole = || {
            let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            seen.values().any(|of_it| services.iter().all(|one| of_it.contains(*one))).then_some(())
        };
        wait_until(&format!("one trace with spans of {}", services.join(", ")), deadline, whole)
            .with_context(|| format!("traces: {:?}", self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[tonic::async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let service = service.and_then(|service| service.value).and_then(|value| value.value);
            let Some(Value::StringValue(service)) = service else { continue };
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                seen.entry(span.trace_id).or_default().insert(service.clone());
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
