//! A secured deployment, and what its owners hold.

use std::{fs, path::PathBuf, process::Output};

use anyhow::{Context as _, Result, ensure};
use understudy_bus::Tls;
use understudy_e2e::Stage;
use understudy_lab::{Deployment, Host, deployment::Plan};

/// A group whose member is an autoscaler that does not run, so that there is one more kind of owner to play.
pub(crate) const SCALER: &str =
    "[autoscaler]\ngroup = \"web-scaler\"\n[group.web-scaler]\nmembers = [\"scaler-1\"]\n";

/// TLS and permissions on, and traces to `collector` where there is one.
pub(crate) fn plan(name: &str, collector: Option<&str>) -> Plan {
    let more = collector.map(|at| format!("[telemetry]\notlp = \"http://{at}\"\n")).unwrap_or_default();
    Plan { secured: true, more, ..Plan::new(name) }
}

/// Files of a deployment's owners.
pub(crate) struct Keys(PathBuf);

impl Keys {
    pub(crate) fn of(stage: &Stage) -> Result<Self> {
        Ok(Self(stage.deployment.credentials().context("the deployment is secured")?))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn text(&self, name: &str) -> Result<String> {
        let text = fs::read_to_string(self.file(name)).with_context(|| format!("reading {name}"))?;
        Ok(text.trim().to_owned())
    }

    /// Certificate and key of a service.
    pub(crate) fn tls(&self, owner: &str) -> Result<Tls> {
        let file = |kind: &str| self.file(&format!("{owner}.{kind}"));
        Ok(Tls::load(&self.file("ca.pem"), &file("pem"), &file("key"))?)
    }

    /// Everything that must never be shown: seeds, tokens, and the first line within each private key.
    pub(crate) fn secrets(&self) -> Result<Vec<(String, String)>> {
        let mut secrets = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let text = self.text(&name)?;
            match name.rsplit('.').next() {
                Some("nk" | "token") => secrets.push((name, text)),
                Some("key") => {
                    let line = text.lines().nth(1).context("a key in PEM has lines")?.to_owned();
                    secrets.push((name, line));
                }
                _ => {}
            }
        }
        ensure!(secrets.len() > 20, "only {} secrets were found", secrets.len());
        Ok(secrets)
    }

    /// Asks a page of `role`, which listens in `host`, from the client.
    pub(crate) fn page(
        &self,
        deployment: &Deployment,
        (role, host, port): (&str, &Host, u16),
        path: &str,
        token: Option<&str>,
    ) -> Result<Page> {
        let name = format!("{role}.understudy.internal");
        let mut command = deployment.client.command("curl")?;
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            "10",
            "--write-out",
            "\n%{http_code}",
            "--cacert",
        ]);
        command.arg(self.file("ca.pem"));
        command.args(["--resolve", &format!("{name}:{port}:{}", host.ipv4())]);
        if let Some(token) = token {
            command.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        let output = command.arg(format!("https://{name}:{port}{path}")).output().context("running curl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').with_context(|| format!("curl: {}", said(&output)))?;
        Ok(Page { status: status.parse()?, body: body.to_owned() })
    }

    /// A page as a viewer sees it.
    pub(crate) fn metrics(&self, deployment: &Deployment, of: (&str, &Host, u16)) -> Result<String> {
        let page = self.page(deployment, of, "/metrics", Some(&self.text("viewer.token")?))?;
        ensure!(page.status == 200, "{}: {} {}", of.0, page.status, page.body);
        Ok(page.body)
    }
}

/// Answer of a page; status 0: there was none.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Value of one sample in OpenMetrics text; one that is missing is 0.
pub(crate) fn sample(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    line.unwrap_or(0)
}

/// Both outputs of a program.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
