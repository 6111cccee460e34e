//! Traces, exported to a real collector's endpoint.
//!
//! One test for all of it: the tracer is the process's, so two tests would see each other's.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use understudy_service::{
    clock,
    config::Telemetry,
    telemetry::{self, PastSpan, SHUTDOWN_LIMIT},
};
use understudy_wire::{ClusterId, Epoch, GroupId, Slot, event};

/// More exports than a test makes.
const EXPORTS: usize = 64;

struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.map_err(|_| Status::unavailable("test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel(EXPORTS);
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, receiver)
}

fn exporting_to(address: SocketAddr) -> Telemetry {
    Telemetry { otlp: Some(format!("http://{address}")), ..Telemetry::default() }
}

/// (service, span) of everything that has arrived.
fn arrived(receiver: &mut mpsc::Receiver<ExportTraceServiceRequest>) -> Vec<(String, Span)> {
    let mut spans = Vec::new();
    while let Ok(request) = receiver.try_recv() {
        for resource in request.resource_spans {
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            let name = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            let service = format!("{:?}", name.value.as_ref().unwrap().value.as_ref().unwrap());
            let all = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(all.map(|span| (service.clone(), span)));
        }
    }
    spans
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_spans_a_tenure_and_a_dead_collector_costs_nothing() {
    let (cluster, group) = (ClusterId::new("demo").unwrap(), GroupId::new("web").unwrap());
    let tenure = event::trace_id(&cluster, &group, Slot(0), Epoch(1017));
    let (address, mut receiver) = collector().await;
    let (began, end) = (clock::now().before(Duration::from_millis(300)), clock::now());

    // A seat and an executor, as two processes would: neither has heard of the other's spans.
    let detector = telemetry::traces("understudy-detector", "1", &exporting_to(address)).unwrap();
    telemetry::record(&telemetry::tenure_context(tenure), PastSpan::new("vacancy", began, end));
    detector.shutdown().await;
    let executor = telemetry::traces("understudy-executor", "web-b", &exporting_to(address)).unwrap();
    let mut failed = PastSpan::new("dns", began, end).with("server", "10.77.0.31:53");
    failed.error = Some("no answer".into());
    let takeover = telemetry::record_tenure(tenure, PastSpan::new("takeover", began, end));
    telemetry::record(&takeover, failed);
    telemetry::record(&opentelemetry::Context::new(), PastSpan::new("unrelated", began, end));
    executor.shutdown().await;

    let spans = arrived(&mut receiver);
    let span =
        |name: &str| spans.iter().find(|(_, span)| span.name == name).unwrap_or_else(|| panic!("no {name}"));
    let ((seat, vacancy), (_, takeover), (node, dns)) = (span("vacancy"), span("takeover"), span("dns"));
    assert!(seat.contains("understudy-detector") && node.contains("understudy-executor"), "{seat} {node}");
    assert_eq!(vacancy.trace_id, tenure.to_be_bytes());
    assert_eq!((&takeover.trace_id, &dns.trace_id), (&vacancy.trace_id, &vacancy.trace_id));
    // Both hang from the root span, whose id each worked out for itself.
    assert!(takeover.parent_span_id.is_empty());
    assert_eq!((&vacancy.parent_span_id, &dns.parent_span_id), (&takeover.span_id, &takeover.span_id));
    assert_eq!(vacancy.end_time_unix_nano - vacancy.start_time_unix_nano, end.since(began).as_nanos() as u64);
    assert_eq!(dns.status.as_ref().unwrap().message, "no answer");
    let (_, unrelated) = span("unrelated");
    assert_ne!(unrelated.trace_id, vacancy.trace_id);
    assert_eq!(spans.len(), 4);

    // A collector that is gone, and one that accepts and never answers.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for address in [gone, silent.local_addr().unwrap()] {
        let guard = telemetry::traces("understudy-executor", "web-b", &exporting_to(address)).unwrap();
        let start = Instant::now();
        for _ in 0..10_000 {
            telemetry::record(&telemetry::tenure_context(tenure), PastSpan::new("step", began, end));
        }
        assert!(start.elapsed() < Duration::from_secs(2), "10,000 spans took {:?}", start.elapsed());
        let start = Instant::now();
        guard.shutdown().await;
        assert!(start.elapsed() < SHUTDOWN_LIMIT + Duration::from_millis(500), "{:?}", start.elapsed());
    }

    // Nothing configured: nothing is recorded and nothing fails.
    telemetry::traces("understudy-executor", "web-b", &Telemetry::default()).unwrap().shutdown().await;
}
