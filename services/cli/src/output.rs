//! Writing to stdout, which may be a terminal, a file or a pipe that is gone.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::render::Style;

/// Writes `text` as it is and flushes it.
///
/// # Errors
/// Whatever writing gives; a pipe without a reader is one of them.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes `value` as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}

/// How tables look on this stdout: colours on a terminal only, and not with NO_COLOR (no-color.org).
pub(crate) fn style() -> Style {
    let terminal = io::stdout().is_terminal();
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Style { terminal, colour: terminal && !no_colour && !dumb }
}
