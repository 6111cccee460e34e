use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where Debian keeps programs for root that an ordinary `PATH` may lack (knotd, nft).
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Finds a program of somebody else: from the environment (`nats-server` -> `UNDERSTUDY_NATS_SERVER`), then
/// where `scripts/install-tools` puts it (`target/tools/bin` of the repository), then on the `PATH`.
///
/// # Errors
/// When it is nowhere; says what to run.
pub fn tool(name: &str) -> Result<PathBuf> {
    let variable = format!("UNDERSTUDY_{}", name.to_uppercase().replace('-', "_"));
    if let Some(path) = env::var_os(&variable) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("{variable} names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let installed = repository().join("target/tools/bin").join(name);
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .fold(Some(installed).filter(|path| path.is_file()), |found, path| {
            found.or_else(|| path.is_file().then_some(path))
        })
        .with_context(|| format!("{name} is not installed; run scripts/install-tools"))
}

/// Finds the library that gives the programs which preload it another wall clock (Debian package `faketime`).
///
/// # Errors
/// When it is not installed; says what to run.
pub fn faketime() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").context("listing /usr/lib")?;
    // Below the name of the machine's architecture, /usr/lib/x86_64-linux-gnu.
    let libraries =
        folders.filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    libraries
        .into_iter()
        .find(|library| library.is_file())
        .context("libfaketime is not installed; run scripts/install-tools")
}

/// Has `promtool` check a page of metrics: its form, names and explanations.
///
/// # Errors
/// When it complains, with what it said, or is not installed.
pub fn check_metrics(page: &str) -> Result<()> {
    let mut checking = Command::new(tool("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting promtool")?;
    // It reads everything before it says anything. Dropped, so that it sees the end.
    let mut input = checking.stdin.take().context("the input of promtool")?;
    input.write_all(page.as_bytes()).context("writing to promtool")?;
    drop(input);
    let ended = checking.wait_with_output().context("waiting for promtool")?;
    let said =
        [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if !ended.status.success() || !said.is_empty() {
        bail!("promtool check metrics: {}: {said}in\n{page}", ended.status);
    }
    Ok(())
}

/// Finds a program of this workspace (`understudy-detector`): in `UNDERSTUDY_BIN_DIR`, else beside the program
/// that runs now, which for a test is the folder above `deps`.
///
/// # Errors
/// When it is not there, that is, not built yet.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match env::var_os("UNDERSTUDY_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => build_folder(&env::current_exe().context("finding the running program")?),
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!("{} is missing; build the workspace first (cargo build)", path.display());
    }
    Ok(path)
}

fn build_folder(program: &Path) -> PathBuf {
    let folder = program.parent().unwrap_or(Path::new("/"));
    let is_inner = folder.file_name().is_some_and(|name| name == "deps" || name == "examples");
    if is_inner { folder.parent().unwrap_or(folder) } else { folder }.to_path_buf()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
