//! The commands of README.md, "Run it with Docker", as they stand.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use understudy_compose::{FEW, docker};

/// `docker compose` where only docker-compose 1.29 is installed, and an engine that loses count.
const SHIM: &str = r#"
docker() {
    if [ "$1 ${2-}" = "compose down" ]; then export COMPOSE_PARALLEL_LIMIT=$FEW; fi
    if [ "$1" = compose ] && ! command docker compose version >/dev/null 2>&1; then
        shift
        docker-compose "$@"
    else
        command docker "$@"
    fi
}
"#;

/// Not that of a stack that somebody runs from this folder.
const PROJECT: &str = "understudy-readme";

/// Runs them as a person would; what was printed and said.
fn shell(root: &Path, commands: &str) -> Result<(bool, String, String)> {
    let mut bash = Command::new("bash");
    bash.current_dir(root).env("COMPOSE_PROJECT_NAME", PROJECT).env("FEW", FEW);
    let ran = bash.args(["-euxc", &format!("{SHIM}{commands}")]).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((ran.status.success(), text(&ran.stdout), text(&ran.stderr)))
}

/// The first block of commands below a heading.
fn commands<'a>(readme: &'a str, heading: &str) -> Result<&'a str> {
    let section =
        readme.split_once(&format!("\n## {heading}\n")).with_context(|| format!("no {heading:?}"))?.1;
    let block = section.split_once("```sh\n").context("no commands")?.1;
    Ok(block.split_once("\n```").context("commands that never end")?.0)
}

#[test]
fn the_commands_of_the_readme_do_what_they_say() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md"))?;
    let commands = commands(&readme, "Run it with Docker")?;
    ensure!(commands.lines().count() > 5, "{commands}");
    let (succeeded, printed, said) = shell(&root, commands)?;
    if !succeeded {
        // The last command is what takes everything away.
        shell(&root, "docker compose down -v --remove-orphans")?;
    }
    ensure!(succeeded, "{printed}\n{said}");
    let served: Vec<_> =
        printed.lines().filter(|line| line.starts_with("web-") && !line.contains(' ')).collect();
    // Whichever was ready first, and another one after it was killed.
    let [before, after] = served[..] else { anyhow::bail!("served by {served:?}\n{printed}") };
    ensure!(before != after, "{before} was killed and answers\n{printed}");
    ensure!(printed.contains(&format!("slot 0 on {before}")), "the status says otherwise: {printed}");
    let left = docker(&["ps", "-aq", "--filter", &format!("label=com.docker.compose.project={PROJECT}")])?;
    ensure!(left.trim().is_empty(), "containers are left: {left}");
    Ok(())
}
