//! The life of a service, as a process: its exit codes and what it says.

use std::{
    io::Read as _,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use understudy_lab::wait_until;

const CONFIG: &str =
    "cluster = \"demo\"\nnats.servers = [\"a\", \"b\"]\n[group.web]\n[realtime]\nenabled = false\n";

/// The example is the smallest service there can be.
fn service(folder: &Path, config: &str, arguments: &[&str]) -> Command {
    let file = folder.join("understudy.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(example());
    command.env_clear().arg("--config").arg(file).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Examples lie beside the folder of the test binaries.
fn example() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/minimal");
    assert!(example.exists(), "with --test the example must be built before: cargo build --example minimal");
    example
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_refused_configuration_is_78_with_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("[group.web]", "[group.web]\nactive = 0\nstandby = \"x\"");
    let output = service(folder.path(), &config, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = said(&output);
    assert!(said.contains("understudy.toml:4: group.web.active = 0: must be from 1 to 1000"), "{said}");
    assert!(said.contains("understudy.toml:5: group.web.standby = \"x\": must be a whole number"), "{said}");
}

#[test]
fn check_ends_with_0_and_tells_the_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("[group.web]", "[group.web]\nstandby = 0");
    let output = service(folder.path(), &config, &["--check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("warning: "), "{}", said(&output));
}

#[test]
fn failures_of_main_are_1_and_a_hopeless_environment_is_69() {
    let folder = tempfile::tempdir().unwrap();
    let output = service(folder.path(), CONFIG, &["fail"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("doing it: broken"), "{}", said(&output));
    let output = service(folder.path(), CONFIG, &["hopeless"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let output =
        service(folder.path(), &format!("{CONFIG}[http]\nlisten = \"{address}\"\n"), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(
        said(&output).contains(&format!("listening on http.listen = {address}: Address already in use")),
        "{}",
        said(&output)
    );
}

/// Ends the process also when a test panics.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut running = Self(command.spawn().unwrap());
        // The example prints a line when it has started.
        let mut first = [0; 1];
        running.0.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        running
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        wait_until("it to end", Duration::from_secs(10), || self.0.try_wait().unwrap()).unwrap()
    }
}

#[test]
fn the_first_signal_ends_it_in_order_and_the_second_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running = Running::start(service(folder.path(), CONFIG, &[]));
        running.signal(signal);
        assert_eq!(running.end().code(), Some(0));
    }
    let mut stubborn = Running::start(service(folder.path(), CONFIG, &["stubborn"]));
    stubborn.signal(Signal::SIGTERM);
    let mut second = [0; 1];
    // It says that it has seen the first one.
    stubborn.0.stdout.as_mut().unwrap().read_exact(&mut second).unwrap();
    stubborn.signal(Signal::SIGTERM);
    assert_eq!(stubborn.end().code(), Some(1));
}

#[test]
fn a_log_that_cannot_be_written_ends_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = service(folder.path(), CONFIG, &[]);
    // Every write there fails as on a full disk. It logs at its start what real-time scheduling it lacks.
    command.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let mut running = Running::start(command);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().code(), Some(0));
}

/// The example in a network namespace of its own, after `prepare`; and its log.
fn in_a_network(prepare: &str, folder: &Path, config: &str) -> (Command, std::path::PathBuf) {
    let (plain, log) = (service(folder, config, &[]), folder.join("log"));
    let mut inside = Command::new("unshare");
    inside.args(["--net", "sh", "-c", &format!("{prepare}exec \"$@\""), "sh"]);
    inside.arg(plain.get_program()).args(plain.get_args());
    inside.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
    (inside, log)
}

/// As in the namespace of a container that is being started anew.
#[test]
fn a_service_of_a_node_that_starts_without_its_interface_ends_with_1_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("[realtime]", "[node]\ninterface = \"eth0\"\n[realtime]");
    let (inside, log) = in_a_network("", folder.path(), &config);
    let code = Running::start(inside).end().code();
    let said = std::fs::read_to_string(log).unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("node.interface = \"eth0\" is not there"), "{said}");
}

/// In a network namespace of its own, whose only interface is taken away, as an engine does with a container's.
#[test]
fn a_service_whose_interface_is_gone_ends_with_1_to_be_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("[realtime]", "[node]\ninterface = \"eth0\"\n[realtime]");
    let (inside, log) = in_a_network("ip link add eth0 type veth peer name eth1 && ", folder.path(), &config);
    let mut running = Running::start(inside);
    let pid = running.0.id().to_string();
    let gone =
        Command::new("nsenter").args(["-t", &pid, "-n", "ip", "link", "del", "eth0"]).status().unwrap();
    assert!(gone.success());
    let code = running.end().code();
    let said = std::fs::read_to_string(log).unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("node.interface = \"eth0\" is not there"), "{said}");
}
