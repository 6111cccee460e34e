//! `understudy certs FILE --dir DIR`: a development authority, and a credential for everybody in the configuration.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use nkeys::KeyPair as Nkey;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};
use understudy_service::{
    config::{Config, Endpoint},
    exit,
};

use crate::{
    args::Certs,
    credentials::{Folder, Mode, configuration, owners},
    output,
};

/// How long certificates last. Long, since one that ends takes a connection down with it; an authority that is more
/// than a development one renews them by itself.
const YEARS: i32 = 10;
/// Length of a year on average.
const YEAR: Duration = Duration::from_secs(31_556_952);
/// Random bytes of a token.
const TOKEN: usize = 32;

pub(super) fn run(args: &Certs) -> anyhow::Result<u8> {
    let config = configuration(&args.file)?;
    let folder = Folder::make(&args.dir)?;
    // Two authorities, so that no key of a service, however it was come by, passes as a NATS server or as a route
    // between them, which no permission binds.
    let services = Authority::open(&folder, "ca", "Understudy services")?;
    let servers = Authority::open(&folder, "nats-ca", "Understudy NATS servers")?;
    servers.issue(&folder, "nats", server_names(&config)?)?;
    let owners = owners(&config);
    for owner in &owners {
        let name = owner.to_string();
        if owner.is_service() {
            let names = vec![
                SanType::URI(ia5(&owner.uri(&config.cluster))?),
                SanType::DnsName(ia5(&owner.server_name())?),
            ];
            services.issue(&folder, &name, names)?;
        }
        let seed = folder.keep(&format!("{name}.nk"), Mode::Secret, || Ok(Nkey::new_user().seed()?))?;
        let key = || Ok(Nkey::from_seed(seed.trim()).with_context(|| format!("{name}.nk"))?.public_key());
        folder.keep(&format!("{name}.pub"), Mode::Public, key)?;
    }
    for role in ["viewer", "operator"] {
        let token = || Ok(HEXLOWER.encode(&rand::random::<[u8; TOKEN]>()));
        folder.keep(&format!("{role}.token"), Mode::Secret, token)?;
    }
    let (count, dir) = (owners.len(), args.dir.display());
    output::print(&format!("{dir}: credentials of {count} owners; what was there is kept\n"))?;
    if config.groups.values().all(|group| group.members.is_empty()) {
        eprintln!(
            "warning: no group names its members, so no node has a credential: set group.<name>.members"
        );
    }
    Ok(exit::OK)
}

/// What clients call the servers: every host of `nats.servers`.
fn server_names(config: &Config) -> anyhow::Result<Vec<SanType>> {
    let host = |server: &String| {
        let bare = server.rsplit("//").next().unwrap_or_default();
        let host = bare.parse::<Endpoint>().map_or_else(|_| bare.to_owned(), |endpoint| endpoint.host);
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => Ok(SanType::DnsName(ia5(&host)?)),
        }
    };
    config.nats.servers.iter().map(host).collect()
}

fn ia5(text: &str) -> anyhow::Result<Ia5String> {
    Ia5String::try_from(text).with_context(|| format!("{text} in a certificate"))
}

/// An authority: its key, and its certificate's contents.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// The authority of this name in `folder`, made when it is missing.
    fn open(folder: &Folder, name: &str, title: &str) -> anyhow::Result<Self> {
        let key = key(folder, name)?;
        let mut params = params(title)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        folder.keep(&format!("{name}.pem"), Mode::Public, || Ok(params.self_signed(&key)?.pem()))?;
        Ok(Self(Issuer::new(params, key)))
    }

    /// Key and certificate of `name`, made when they are missing.
    fn issue(&self, folder: &Folder, name: &str, names: Vec<SanType>) -> anyhow::Result<()> {
        let key = key(folder, name)?;
        let mut params = params(name)?;
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Detectors answer nodes, publishers serve pages, NATS servers call one another: each is both.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        folder.keep(&format!("{name}.pem"), Mode::Public, || Ok(params.signed_by(&key, &self.0)?.pem()))?;
        Ok(())
    }
}

fn key(folder: &Folder, name: &str) -> anyhow::Result<KeyPair> {
    let file = format!("{name}.key");
    let pem = folder.keep(&file, Mode::Secret, || Ok(KeyPair::generate()?.serialize_pem()))?;
    KeyPair::from_pem(&pem).with_context(|| format!("reading {file}"))
}

/// What all certificates have in common. From the first day of last year, since clocks may differ.
fn params(title: &str) -> anyhow::Result<CertificateParams> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let year = 1970 + i32::try_from(since.as_secs() / YEAR.as_secs())?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, title);
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + YEARS, 1, 1);
    Ok(params)
}
