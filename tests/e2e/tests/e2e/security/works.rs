//! With everything on, a deployment does what it does without.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tonic::{Request, Response, Status, transport::Server};
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::{CLIENT_PORT, Host, Launch, binary, wait_until};

use super::{
    keys::{Keys, plan, said},
    leaks,
};

/// A planned move.
const PLANNED: Duration = Duration::from_millis(50);
/// Where the collector listens on the client's host.
const COLLECTOR: &str = "10.77.0.5:4317";

/// All that was exported, as text.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<String>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        *self.0.lock().expect("no holder of the lock panics") += &format!("{:?}\n", request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn listen(&self, host: &Host) -> Result<()> {
        let (collector, address): (_, SocketAddr) = (self.clone(), COLLECTOR.parse()?);
        host.thread("collector", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be made");
            // Ends with the test's process.
            let _ = runtime
                .block_on(Server::builder().add_service(TraceServiceServer::new(collector)).serve(address));
        })?;
        Ok(())
    }

    fn text(&self) -> String {
        self.0.lock().expect("no holder of the lock panics").clone()
    }
}

fn run(stage: &Stage, owner: &str, arguments: &[&str]) -> Result<String> {
    let output = stage.deployment.understudy_as(owner, arguments)?;
    ensure!(output.status.success(), "{owner}: {arguments:?}: {}", said(&output));
    Ok(said(&output))
}

#[test]
fn a_secured_deployment_fails_over_is_steered_and_shown() -> Result<()> {
    let stage = Stage::with("secured", plan("secured", Some(COLLECTOR)))?;
    let (keys, spans) = (Keys::of(&stage)?, Collector::default());
    spans.listen(&stage.deployment.client)?;
    let epoch = stage.dns_epoch()?;
    stage.fails_over("active cut off the network, secured", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    stage.dns_epoch_above(epoch)?;
    stage.deployment.network.heal("web-a")?;
    stage.deployment.wait_standbys()?;
    stage.fails_over("switchover, secured", "web-c", PLANNED, |_| {
        run(&stage, "operator", &["switchover", "--group", "web", "--to", "web-c"]).map(drop)
    })?;
    run(&stage, "operator", &["maintenance", "on", "--group", "web", "--node", "web-a"])?;
    ensure!(run(&stage, "viewer", &["maintenance", "list"])?.contains("web-a"), "the list has no web-a");
    run(&stage, "operator", &["maintenance", "off", "--group", "web", "--node", "web-a"])?;
    // What a viewer sees.
    ensure!(run(&stage, "viewer", &["status"])?.contains("web-c"), "status has no web-c");
    let history = run(&stage, "viewer", &["events", "--json"])?;
    ensure!(history.contains("Takeover") && history.contains("MaintenanceChanged"), "{history}");
    let watch = Launch::new(&stage.deployment.client, "watch", binary("understudy")?)
        .arguments(["watch", "--json"])
        .environment("UNDERSTUDY_CONFIG", stage.deployment.config())
        .environment("UNDERSTUDY_NATS__NKEY_FILE", keys.file("viewer.nk"))
        .spawn()?;
    wait_until("watch shows the state", SOON, || watch.log_text().contains("\"state\""))?;
    wait_until("spans of the takeover are exported", SOON, || spans.text().contains("election"))?;
    // Everybody was given all that is needed: no server had anything to refuse.
    for server in stage.deployment.nats.servers() {
        let log = server.process().log_text();
        let violations: Vec<_> = log.lines().filter(|line| line.contains("Violation")).collect();
        ensure!(violations.is_empty(), "{}: {violations:#?}", server.process().name());
    }
    leaks::none(&stage, &keys, &[("spans", spans.text())], None)?;
    stage.end()
}

#[test]
fn a_subscriber_in_python_reads_plain_cloudevents() -> Result<()> {
    let stage = Stage::with("python", plan("python", None))?;
    let (keys, here) = (Keys::of(&stage)?, Path::new(env!("CARGO_MANIFEST_DIR")));
    let server = stage.deployment.nats.servers()[0].host().socket(CLIENT_PORT);
    let mut command = stage.deployment.client.command("python3")?;
    command
        .env("PYTHONPATH", here.join("../../target/tools/python"))
        .arg(here.join("tests/e2e/security/subscriber.py"))
        .arg(format!("tls://{server}"))
        .args([keys.file("nats-ca.pem"), keys.file("viewer.nk"), keys.file("viewer.pub")])
        .arg("takeover")
        .stdout(Stdio::piped());
    let mut subscriber = command.spawn().context("starting python3")?;
    let output = subscriber.stdout.take().context("it has an output")?;
    let mut lines = BufReader::new(output).lines();
    let first = lines.next().context("it ended: run scripts/install-tools")??;
    ensure!(first == "subscribed", "{first}");
    stage.fails_over("switchover, heard in Python", "web-b", PLANNED, |_| {
        run(&stage, "operator", &["switchover", "--group", "web", "--to", "web-b"]).map(drop)
    })?;
    let event = lines.next().context("it ended without an event")??;
    ensure!(subscriber.wait()?.success(), "it failed");
    let event: serde_json::Value = serde_json::from_str(&event)?;
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    ensure!(text("specversion") == "1.0" && text("type") == "understudy.v1.Takeover", "{event}");
    ensure!(text("subject") == "web" && text("source") == "/understudy/lab/executor/web-b", "{event}");
    ensure!(!text("id").is_empty() && text("time").ends_with('Z'), "{event}");
    ensure!(text("datacontenttype") == "application/json", "{event}");
    ensure!(event["data"]["node"] == "web-b" && event["data"]["cause"] == "switchover", "{event}");
    stage.end()
}
