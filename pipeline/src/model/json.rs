//! JSON of others, of which only the top level is looked at: the rest stays as it is written.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The entries of an object in their order, each value as it is written.
pub type Entries<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// The entries of a JSON object.
///
/// # Errors
/// The parser's, where the text is no JSON object.
pub fn entries(text: &str) -> Result<Entries<'_>, serde_json::Error> {
    serde_json::from_str(text).map(|Object(entries)| entries)
}

/// The entries of an object whose values are texts, or null, in their order.
pub type Texts<'a> = Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>;

/// The entries of a JSON object whose values are texts, or null.
///
/// # Errors
/// The parser's, where the text is no such object.
pub fn texts(text: &str) -> Result<Texts<'_>, serde_json::Error> {
    serde_json::from_str(text).map(|TextObject(entries)| entries)
}

/// A JSON object with these entries, without spaces between them.
pub fn object<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::from("{");
    for (name, value) in entries {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&serde_json::to_string(name).expect("a text is JSON"));
        text.push(':');
        text.push_str(value);
    }
    text.push('}');
    text
}

/// A JSON array of texts.
pub fn array<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<&str> = texts.into_iter().collect();
    serde_json::to_string(&texts).expect("texts are JSON")
}

struct Object<'a>(Entries<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<'a>, D::Error> {
        struct Visit;

        impl<'de> Visitor<'de> for Visit {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Entries::new();
                while let Some(Name(name)) = map.next_key()? {
                    entries.push((name, map.next_value()?));
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(Visit).map(Object)
    }
}

struct TextObject<'a>(Texts<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for TextObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TextObject<'a>, D::Error> {
        struct Visit;

        impl<'de> Visitor<'de> for Visit {
            type Value = Texts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts<'de>, A::Error> {
                let mut entries = Texts::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, Option<Name<'de>>>()? {
                    entries.push((name, value.map(|Name(value)| value)));
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(Visit).map(TextObject)
    }
}

/// A name, borrowed where it is written as it reads.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_as_they_are_written() {
        let text = r#"{"a": 1.10, "ü\"": [1, {"b":2}], "a":null}"#;
        let found = entries(text).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (&**name, value.get())).collect();
        assert_eq!(found, [("a", "1.10"), ("ü\"", r#"[1, {"b":2}]"#), ("a", "null")]);
        assert_eq!(object(found), r#"{"a":1.10,"ü\"":[1, {"b":2}],"a":null}"#);
        assert!(entries("[1]").is_err() && entries("{").is_err());
    }

    #[test]
    fn texts_are_read_and_nothing_else() {
        let found = texts(r#"{"a":"1","b":null,"ü\"":"x\n"}"#).unwrap();
        let found: Vec<(&str, Option<&str>)> = found.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        assert_eq!(found, [("a", Some("1")), ("b", None), ("ü\"", Some("x\n"))]);
        assert!(texts(r#"{"a":1}"#).is_err() && texts("[]").is_err());
    }
}
