//! Tables without borders, which survive a copy into a ticket or a log.

use comfy_table::{CellAlignment, Table, presets};

/// How the cells of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table with the width that its cells need; plain text, every line ended by a newline and free of trailing blanks.
pub(crate) fn table(header: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    table.set_header(header.iter().map(|(title, _)| *title));
    table.add_rows(rows);
    for (index, (column, (_, align))) in table.column_iter_mut().zip(header).enumerate() {
        column.set_padding((if index == 0 { 0 } else { 2 }, 0));
        column.set_cell_alignment(match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
