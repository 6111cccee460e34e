//! The kinds of checks behind one face.

use super::address::Target;
use super::config::{CheckConfig, CheckConfigError, CheckKind};
use super::exec::ExecProbe;
use super::failure::Failure;
use super::grpc::GrpcProbe;
use super::http::{HttpConfigError, HttpProbe};
use super::process::ProcessProbe;
use super::tcp::TcpProbe;

#[derive(Debug)]
pub(super) enum Probe {
    Tcp(TcpProbe),
    Http(HttpProbe),
    Grpc(Box<GrpcProbe>),
    Exec(ExecProbe),
    Process(ProcessProbe),
}

impl Probe {
    pub(super) fn new(config: &CheckConfig) -> Result<Self, CheckConfigError> {
        let name = || config.name.clone();
        let bad_address =
            |address: &str| CheckConfigError::Address { name: name(), address: address.to_owned() };
        let empty = |setting| CheckConfigError::Empty { name: name(), setting };
        match &config.kind {
            CheckKind::Tcp { address } => {
                let target = Target::parse(address).ok_or_else(|| bad_address(address))?;
                Ok(Self::Tcp(TcpProbe { target }))
            }
            CheckKind::Http { expect_status, .. } if expect_status.is_empty() => {
                Err(CheckConfigError::EmptyStatusRange { name: name() })
            }
            CheckKind::Http { url, expect_status, host } => {
                HttpProbe::new(url, host.as_deref(), expect_status.clone()).map(Self::Http).map_err(|error| {
                    match error {
                        HttpConfigError::Url => CheckConfigError::Url { name: name(), url: url.clone() },
                        HttpConfigError::Host => {
                            CheckConfigError::Host { name: name(), host: host.clone().unwrap_or_default() }
                        }
                    }
                })
            }
            CheckKind::Grpc { address, service } => {
                let probe = GrpcProbe::new(address, service).ok_or_else(|| bad_address(address))?;
                Ok(Self::Grpc(Box::new(probe)))
            }
            CheckKind::Exec { command } => {
                ExecProbe::new(command).map(Self::Exec).ok_or_else(|| empty("command"))
            }
            CheckKind::Process { selector } => {
                ProcessProbe::new(selector).map(Self::Process).ok_or_else(|| empty("selector"))
            }
        }
    }

    /// One run. Cancel safe: a dropped run leaves nothing behind that could overlap the next one, provided
    /// that [`Probe::abandon`] is called.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        match self {
            Self::Tcp(probe) => probe.run().await,
            Self::Http(probe) => probe.run().await,
            Self::Grpc(probe) => probe.run().await,
            Self::Exec(probe) => probe.run().await,
            Self::Process(probe) => probe.run().await,
        }
    }

    /// The last run was given up on.
    pub(super) fn abandon(&mut self) {
        if let Self::Exec(probe) = self {
            probe.abandon();
        }
    }
}
