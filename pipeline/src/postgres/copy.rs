//! The lines of COPY in its text format.
//!
//! Fields stand between tabs, and NULL is `\N`; what would be taken for a tab, an end of a line or a backslash has a backslash
//! before it (PostgreSQL, "COPY", "Text Format"). So an end of a line in the bytes is one of the format.

use std::borrow::Cow;

/// A line that is none of COPY's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a line of COPY ends within an escape")]
pub struct CopyError;

/// The fields of a line, without its end; none for NULL.
///
/// # Errors
/// [`CopyError`].
pub fn fields(line: &str) -> Result<Vec<Option<Cow<'_, str>>>, CopyError> {
    line.split('\t').map(field).collect()
}

fn field(text: &str) -> Result<Option<Cow<'_, str>>, CopyError> {
    match text {
        "\\N" => Ok(None),
        text if text.contains('\\') => unescape(text).map(|text| Some(text.into())),
        text => Ok(Some(text.into())),
    }
}

fn unescape(text: &str) -> Result<String, CopyError> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        plain.push(if next == '\\' { escaped(rest.next().ok_or(CopyError)?) } else { next });
    }
    Ok(plain)
}

/// What a character means behind a backslash. The server writes none of the numeric forms that it reads.
fn escaped(c: char) -> char {
    match c {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        other => other,
    }
}

/// Appends a field as it stands between two tabs.
pub fn write_field(out: &mut Vec<u8>, field: Option<&str>) {
    let Some(text) = field else {
        out.extend_from_slice(b"\\N");
        return;
    };
    let mut rest = text.as_bytes();
    while let Some(special) = rest.iter().position(|&byte| letter(byte).is_some()) {
        out.extend_from_slice(&rest[..special]);
        out.extend([b'\\', letter(rest[special]).unwrap_or(b'\\')]);
        rest = &rest[special + 1..];
    }
    out.extend_from_slice(rest);
}

/// What stands behind the backslash for a byte that cannot stand alone.
const fn letter(byte: u8) -> Option<u8> {
    Some(match byte {
        b'\\' => b'\\',
        8 => b'b',
        12 => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        11 => b'v',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_server_writes_is_read() {
        let line = "1\t\\N\t\t\\\\N\ta\\tb\\nc\\\\d\\r\\b\\f\\v\tü";
        let read: Vec<Option<String>> = fields(line).unwrap().into_iter().map(|field| field.map(Cow::into_owned)).collect();
        let expected = [Some("1"), None, Some(""), Some("\\N"), Some("a\tb\nc\\d\r\u{8}\u{c}\u{b}"), Some("ü")];
        assert_eq!(read, expected.map(|field| field.map(str::to_owned)));
        assert_eq!(fields("a\\"), Err(CopyError));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_one_line_and_reads_the_same(values in proptest::collection::vec(proptest::option::of("[a\\\\N\u{0}-\u{20}ü]{0,6}"), 1..5)) {
            let mut line = Vec::new();
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    line.push(b'\t');
                }
                write_field(&mut line, value.as_deref());
            }
            let line = String::from_utf8(line).unwrap();
            prop_assert!(!line.contains('\n'));
            let read: Vec<Option<String>> = fields(&line).unwrap().into_iter().map(|field| field.map(Cow::into_owned)).collect();
            prop_assert_eq!(read, values);
        }
    }
}
