//! `understudy validate FILE`: every mistake at once, nothing started.

use std::path::Path;

use understudy_service::{
    config::{self, Config, Report, environment},
    exit,
};

use crate::{args::Validate, output};

pub(super) fn run(args: &Validate) -> anyhow::Result<u8> {
    let report = match args.env {
        true => Config::examine(Some(&args.file), environment()).1,
        false => config::validate(&args.file),
    };
    output::print(&describe(&args.file, &report))?;
    Ok(if report.errors.is_empty() { exit::OK } else { exit::CONFIG })
}

/// Errors, warnings, and what follows from them.
fn describe(file: &Path, report: &Report) -> String {
    let errors = report.errors.iter().map(|problem| format!("error: {problem}\n"));
    let warnings = report.warnings.iter().map(|problem| format!("warning: {problem}\n"));
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    let (wrong, doubtful) = (count(report.errors.len(), "error"), count(report.warnings.len(), "warning"));
    let verdict = match (report.errors.len(), report.warnings.len()) {
        (0, 0) => "good".to_owned(),
        (0, _) => format!("good, {doubtful}"),
        _ => format!("{wrong}, {doubtful}: no service starts with it"),
    };
    errors.chain(warnings).chain([format!("{}: {verdict}\n", file.display())]).collect()
}

#[cfg(test)]
mod tests {
    use understudy_service::config::{Origin, Problem};

    use super::*;

    fn problem(line: usize) -> Problem {
        let origin = Origin::File { file: "ha.toml".into(), line };
        let (key, value) = ("lease.drift".to_owned(), Some("0.2".to_owned()));
        Problem { origin, key, value, message: "must be below 0.1".to_owned() }
    }

    #[test]
    fn every_mistake_is_listed_and_counted() {
        let report = Report { errors: vec![problem(3), problem(9)], warnings: vec![problem(4)] };
        let golden = "error: ha.toml:3: lease.drift = 0.2: must be below 0.1\n\
                      error: ha.toml:9: lease.drift = 0.2: must be below 0.1\n\
                      warning: ha.toml:4: lease.drift = 0.2: must be below 0.1\n\
                      ha.toml: 2 errors, 1 warning: no service starts with it\n";
        assert_eq!(describe(Path::new("ha.toml"), &report), golden);
        let report = Report { errors: vec![], warnings: vec![problem(4)] };
        assert!(describe(Path::new("ha.toml"), &report).ends_with("ha.toml: good, 1 warning\n"));
    }
}
