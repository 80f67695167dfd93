//! Names as SQL has them in a dump.

use crate::restore::TableName;

/// A name as SQL writes it, and what is behind it.
pub(crate) fn name(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '_' | '$')))?;
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let (part, behind) = rest.split_once('"')?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, behind)),
        }
    }
}

/// The name of a table with its schema, and what is behind it.
pub(crate) fn table(text: &str) -> Option<(TableName, &str)> {
    let (schema, rest) = name(text)?;
    let (table, rest) = name(rest.strip_prefix('.')?)?;
    Some(((schema, table), rest))
}

/// Names up to a parenthesis, and what is behind it.
pub(crate) fn names(text: &str) -> Option<(Vec<String>, &str)> {
    let (mut names, mut rest) = (Vec::new(), text);
    loop {
        let (one, behind) = name(rest)?;
        names.push(one);
        match behind.strip_prefix(')') {
            Some(behind) => return Some((names, behind)),
            None => rest = behind.strip_prefix(", ")?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_quotes_and_without() {
        assert_eq!(name("a_1$ x"), Some(("a_1$".to_owned(), " x")));
        assert_eq!(name("\"a\"\"b.c\".d"), Some(("a\"b.c".to_owned(), ".d")));
        assert_eq!((name("\"open"), name(" x"), name("end")), (None, None, None));
        assert_eq!(table("public.\"T\" ("), Some((("public".to_owned(), "T".to_owned()), " (")));
        assert_eq!(names("a, \"b)\") x"), Some((vec!["a".to_owned(), "b)".to_owned()], " x")));
    }
}
