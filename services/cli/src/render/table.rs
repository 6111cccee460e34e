//! Tables without borders: they survive a copy into a ticket.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

use super::Style;

/// How a cell is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
}

/// One cell.
pub(super) type Field = (String, Tone);

pub(super) fn field(text: impl Into<String>) -> Field {
    (text.into(), Tone::Plain)
}

/// A table, every line indented by two spaces. A column that is empty in all rows is left out.
pub(super) fn table(style: Style, header: &[&str], rows: &[Vec<Field>]) -> String {
    let filled: Vec<usize> = (0..header.len())
        .filter(|column| rows.iter().any(|row| row.get(*column).is_some_and(|(text, _)| !text.is_empty())))
        .collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if style.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if style.terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(filled.iter().map(|column| {
        let cell = Cell::new(header[*column]);
        if style.colour { cell.add_attribute(Attribute::Dim) } else { cell }
    }));
    for row in rows {
        table.add_row(
            filled
                .iter()
                .map(|column| row.get(*column).map_or_else(|| Cell::new(""), |field| cell(style, field))),
        );
    }
    for column in table.column_iter_mut() {
        column.set_padding((2, 0));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

fn cell(style: Style, (text, tone): &Field) -> Cell {
    let cell = Cell::new(text);
    match tone {
        _ if !style.colour => cell,
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Warn => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red).add_attribute(Attribute::Bold),
    }
}
