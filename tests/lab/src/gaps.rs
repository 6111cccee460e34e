//! The table of gaps at the end of the end-to-end tests.

use std::{io::ErrorKind, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::table::{Align, table};

/// One line of the file.
#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Line {
    test: String,
    fault: String,
    gap_ms: f64,
    /// What of the gap the machine itself stood still.
    #[serde(default)]
    stalled_ms: f64,
    bound_ms: Option<f64>,
}

/// The table of a file of JSON lines (`{"test", "fault", "gap_ms", "stalled_ms", "bound_ms"}`, milliseconds, no bound
/// where it is null). A bound is for the whole gap; the stall explains one that is over. A file that is not there, or is empty, has nothing to show, and the text says so.
///
/// # Errors
/// When the file cannot be read, or a line of it is not of this form; names the line.
pub fn table_of(file: &Path) -> Result<String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    let lines = parse(&text).with_context(|| format!("reading {}", file.display()))?;
    if lines.is_empty() {
        return Ok(format!("no gaps to show: no test wrote one into {}\n", file.display()));
    }
    Ok(render(&lines))
}

fn parse(text: &str) -> Result<Vec<Line>> {
    let filled = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    filled
        .map(|(line, number)| serde_json::from_str(line).with_context(|| format!("line {number}: {line}")))
        .collect()
}

fn render(lines: &[Line]) -> String {
    let header = [
        ("test", Align::Left),
        ("fault", Align::Left),
        ("gap", Align::Right),
        ("stalled", Align::Right),
        ("bound", Align::Right),
        ("", Align::Left),
    ];
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    let over = lines.iter().filter(|line| !holds(line)).count();
    let verdict = match over {
        0 => "all within their bounds".to_owned(),
        over => format!("{over} over their bound"),
    };
    format!(
        "gaps that the client saw, and what of them the machine stood still, in milliseconds\n\n{}\n{} gaps, {verdict}\n",
        table(&header, &rows),
        lines.len()
    )
}

fn row(line: &Line) -> Vec<String> {
    let (bound, verdict) = match line.bound_ms {
        Some(bound) => (format!("{bound:.0}"), if holds(line) { "ok" } else { "OVER" }),
        None => ("-".to_owned(), ""),
    };
    let (gap, stalled) = (format!("{:.1}", line.gap_ms), format!("{:.1}", line.stalled_ms));
    vec![line.test.clone(), line.fault.clone(), gap, stalled, bound, verdict.to_owned()]
}

fn holds(line: &Line) -> bool {
    line.bound_ms.is_none_or(|bound| line.gap_ms <= bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"test":"row 1","fault":"active cut off the network","gap_ms":287.04,"bound_ms":400.0}
{"bound_ms":10.0,"fault":"switchover web-a to web-b","gap_ms":10.06,"test":"row 11"}
{"bound_ms":10.0,"fault":"switchover web-b to web-a","gap_ms":30.5,"stalled_ms":25.1,"test":"row 11"}

{"test":"row 12","fault":"measured only","gap_ms":3.0,"bound_ms":null}
"#;

    #[test]
    fn the_table_names_what_is_over_its_bound() {
        let expected = "\
gaps that the client saw, and what of them the machine stood still, in milliseconds

test    fault                         gap  stalled  bound
row 1   active cut off the network  287.0      0.0    400  ok
row 11  switchover web-a to web-b    10.1      0.0     10  OVER
row 11  switchover web-b to web-a    30.5     25.1     10  OVER
row 12  measured only                 3.0      0.0      -

4 gaps, 2 over their bound
";
        assert_eq!(render(&parse(FILE).unwrap()), expected);
    }

    #[test]
    fn a_line_of_another_form_is_named() {
        let error = parse("\n{\"test\":\"row 1\"}\n").unwrap_err();
        assert!(format!("{error:#}").starts_with("line 2: {\"test\":\"row 1\"}: missing field"), "{error:#}");
    }

    #[test]
    fn nothing_to_show_is_said() {
        let text = table_of(Path::new("/nonexistent/gaps.jsonl")).unwrap();
        assert_eq!(text, "no gaps to show: no test wrote one into /nonexistent/gaps.jsonl\n");
    }
}
