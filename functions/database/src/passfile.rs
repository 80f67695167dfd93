//! The file of passwords that PostgreSQL's own programs read (its manual, "The Password File"): one line for each,
//! `HOST:PORT:DATABASE:USER:PASSWORD`. In every field but the last `*` stands for anything, and `\` makes the next character plain.

use crate::Address;

/// The password of the first line that is meant for a database.
pub fn find(text: &str, address: &Address) -> Option<String> {
    let port = address.port().to_string();
    let wanted = [address.host(), &port, address.database(), address.user()];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (fields, password) = fields(line)?;
        let is_meant = fields.iter().zip(wanted).all(|((field, escaped), wanted)| field == wanted || field == "*" && !escaped);
        is_meant.then_some(password)
    })
}

/// The four fields before the password, each with whether anything in it was escaped, and that.
fn fields(line: &str) -> Option<([(String, bool); 4], String)> {
    let mut fields: [(String, bool); 4] = Default::default();
    let mut characters = line.chars();
    for (field, escaped) in &mut fields {
        loop {
            match characters.next()? {
                ':' => break,
                '\\' => {
                    field.push(characters.next()?);
                    *escaped = true;
                }
                plain => field.push(plain),
            }
        }
    }
    let mut password = String::new();
    while let Some(character) = characters.next() {
        password.push(if character == '\\' { characters.next()? } else { character });
    }
    Some((fields, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_is_meant_has_the_password() {
        let text =
            "# db:5432:shop:ann:no\nother:5432:shop:ann:1\ndb:5432:shop:ann:a\\:b\\\\c\n*:*:*:ann:any\n\\*:5432:shop:bob:literal\nbroken";
        let find = |url: &str| find(text, &Address::parse(url).unwrap());
        assert_eq!(find("postgres://ann@db/shop").as_deref(), Some("a:b\\c"));
        assert_eq!(find("postgres://ann@db/else").as_deref(), Some("any"));
        assert_eq!(find("postgres://bob@db/shop"), None);
    }
}
