//! The rows of a report as CSV (RFC 4180): a header, CR LF, quotes where they are needed.
//!
//! Keys come from whoever may write to the bucket, and a spreadsheet runs a cell that begins with `=` as a formula. A
//! text that begins with one of the characters in [`is_formula`] gets an apostrophe before it, and so does one that
//! begins with an apostrophe, so that a program has its exact text by taking one leading apostrophe away.
//! Parquet has the texts as they are.

use std::io::{self, Write};

use super::{COLUMNS, LEFT_OUT_SEPARATOR, ReportRow};

/// Writes rows as they come; holds none of them.
#[derive(Debug)]
pub struct CsvReport<W: Write> {
    out: W,
}

impl<W: Write> CsvReport<W> {
    /// Begins a report with its header.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(mut out: W) -> io::Result<CsvReport<W>> {
        out.write_all(line(&COLUMNS).as_bytes())?;
        Ok(CsvReport { out })
    }

    /// Appends rows.
    ///
    /// # Errors
    /// What `out` says.
    pub fn append(&mut self, rows: &[ReportRow]) -> io::Result<()> {
        for row in rows {
            let (bytes, left_out) = (row.bytes.to_string(), row.left_out.join(LEFT_OUT_SEPARATOR));
            let text = |text: &Option<String>| cell(text.as_deref().unwrap_or_default());
            let cells = [
                cell(&row.object),
                text(&row.version),
                cell(&row.action),
                bytes,
                text(&row.target_version),
                text(&row.reason),
                cell(&left_out),
                text(&row.uncertain),
            ];
            self.out.write_all(line(&cells).as_bytes())?;
        }
        Ok(())
    }

    /// Ends the report.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

fn line(cells: &[impl AsRef<str>]) -> String {
    let mut line = String::new();
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            line.push(',');
        }
        let cell = cell.as_ref();
        if cell.contains([',', '"', '\r', '\n']) || cell.starts_with(' ') || cell.ends_with(' ') {
            line.push('"');
            line.push_str(&cell.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(cell);
        }
    }
    line.push_str("\r\n");
    line
}

fn cell(text: &str) -> String {
    let guard = text.starts_with(|c| c == '\'' || is_formula(c));
    if guard { format!("'{text}") } else { text.to_owned() }
}

/// Whether spreadsheets take a cell that begins so for a formula; the wide forms too, in some languages.
fn is_formula(c: char) -> bool {
    matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠')
}
