//! What is written for people and for programs.
//!
//! Keys come from whoever may write to a bucket. On a terminal they are shown with everything escaped that could steer
//! it; as JSON, and with `-0`, they are what they are.

use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

/// Standard output, buffered.
pub struct Output {
    writer: BufWriter<Standard>,
    /// Whether JSON is wanted.
    pub json: bool,
}

/// Whoever read standard output has seen enough. No other pipe that breaks is this.
#[derive(Debug)]
pub struct NobodyReads;

impl std::fmt::Display for NobodyReads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads standard output any more")
    }
}

impl std::error::Error for NobodyReads {}

/// Standard output, and what is done when nobody reads it any more.
struct Standard {
    stdout: StdoutLock<'static>,
    goes_on: bool,
}

impl Standard {
    fn heard<T>(&self, result: io::Result<T>, otherwise: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            Err(_) if self.goes_on => Ok(otherwise),
            Err(_) => Err(io::Error::new(io::ErrorKind::BrokenPipe, NobodyReads)),
            done => done,
        }
    }
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stdout.write(bytes);
        self.heard(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.stdout.flush();
        self.heard(flushed, ())
    }
}

impl Output {
    /// Standard output for people, or for programs, of a command that only shows something: it ends when nobody looks.
    pub fn new(json: bool) -> Output {
        Output { writer: BufWriter::new(Standard { stdout: io::stdout().lock(), goes_on: false }), json }
    }

    /// The same, of a command that does something, or finds out: it goes on, and ends as it would, when nobody looks.
    pub fn of_deed(json: bool) -> Output {
        Output { writer: BufWriter::new(Standard { stdout: io::stdout().lock(), goes_on: true }), json }
    }

    /// A line for people.
    ///
    /// # Errors
    /// What standard output says.
    pub fn line(&mut self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.writer, "{text}")
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// What standard output says.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    /// Where bytes go, for what writes by itself.
    pub fn writer(&mut self) -> &mut impl Write {
        &mut self.writer
    }

    /// One JSON document on one line.
    ///
    /// # Errors
    /// What standard output says.
    pub fn document(&mut self, document: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, document)?;
        self.writer.write_all(b"\n")
    }

    /// A report: as JSON, or as people read it.
    ///
    /// # Errors
    /// What standard output says.
    pub fn report(&mut self, report: &(impl Serialize + ToString)) -> io::Result<()> {
        if self.json { self.document(report) } else { self.bytes(report.to_string().as_bytes()) }
    }

    /// One of many things: as JSON, or as a line for people.
    ///
    /// # Errors
    /// What standard output says.
    pub fn show(&mut self, document: &impl Serialize, line: impl FnOnce() -> String) -> io::Result<()> {
        if self.json { self.document(document) } else { self.line(line()) }
    }

    /// Makes everything visible.
    ///
    /// # Errors
    /// What standard output says.
    pub fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A text from outside as it may stand on a terminal: control characters, and those that hide or turn around others, are
/// written as escapes.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c.is_control() || is_deceptive(c) => drop(write!(shown, "\\u{{{:x}}}", c as u32)),
            c => shown.push(c),
        }
    }
    shown
}

/// Characters without a shape of their own: separators of lines, marks of direction, joiners, tags.
fn is_deceptive(c: char) -> bool {
    matches!(c as u32, 0xAD | 0x61C | 0x180E | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xFFF9..=0xFFFB | 0xE0000..=0xE007F)
}

/// A number of bytes as a person reads it.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// How many things there are: `1 file`, `2 files`.
pub fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// A length of time as a person reads it, in its two largest units.
pub fn span(span: std::time::Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let seconds = span.as_secs();
    let Some(first) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else {
        return format!("{} ms", span.as_millis());
    };
    let (unit, name) = UNITS[first];
    let large = format!("{} {name}", seconds / unit);
    match UNITS.get(first + 1).map(|(small, name)| (seconds % unit / small, name)) {
        Some((small, name)) if small > 0 => format!("{large} {small} {name}"),
        _ => large,
    }
}

/// Columns that line up, with a head.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|&title| title.to_owned()).collect()] }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// How many rows there are below the head.
    pub fn len(&self) -> usize {
        self.rows.len() - 1
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            f.write_str(cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_steer_a_terminal_is_escaped_and_the_rest_is_not() {
        assert_eq!(escaped("photos/größe 1.jpg 写真"), "photos/größe 1.jpg 写真");
        assert_eq!(escaped("a\x1b[2Jb\n\u{9b}c"), "a\\u{1b}[2Jb\\n\\u{9b}c");
        assert_eq!(escaped("exe\u{202e}gpj.\\"), "exe\\u{202e}gpj.\\\\");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 1_023, 1_024, 1_536, 1 << 40].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 TiB"]);
    }

    #[test]
    fn spans_are_short() {
        let shown = [0, 59_000, 60_000, 61_500, 7_200_000, 90_061_000].map(|millis| span(std::time::Duration::from_millis(millis)));
        assert_eq!(shown, ["0 ms", "59 s", "1 min", "1 min 1 s", "2 h", "1 d 1 h"]);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["a", "title"]);
        table.row(vec!["longer".to_owned(), "x".to_owned()]);
        assert_eq!(table.to_string(), "a       title\nlonger  x");
    }
}
