//! Names in SQL.

/// A name in double quotes, whatever is in it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A schema and what is in it.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

/// A schema and what is in it, as people write them: in quotes only where a part has a dot or a quote in it, so that no two are the same.
pub fn dotted(schema: &str, name: &str) -> String {
    let part = |part: &str| if part.contains(['.', '"']) { quoted(part) } else { part.to_owned() };
    format!("{}.{}", part(schema), part(name))
}

/// A table with its columns, as COPY wants it: of one without columns nothing may stand there.
pub fn with_columns<'a>(table: &str, columns: impl Iterator<Item = &'a str>) -> String {
    let columns: Vec<String> = columns.map(quoted).collect();
    if columns.is_empty() { table.to_owned() } else { format!("{table} ({})", columns.join(", ")) }
}

/// A text as a literal that reads the same whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_name_stays_in_it() {
        assert_eq!(qualified("My \"shop\"", "ü.x"), r#""My ""shop"""."ü.x""#);
        assert_eq!(dotted("My shop", "ü"), "My shop.ü");
        assert_eq!((dotted("a.b", "c"), dotted("a", "b.c")), (r#""a.b".c"#.to_owned(), r#"a."b.c""#.to_owned()));
        assert_eq!(with_columns("t", ["a", "B"].into_iter()), r#"t ("a", "B")"#);
        assert_eq!(with_columns("t", std::iter::empty()), "t");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
    }
}
