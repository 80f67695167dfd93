//! Row images and keys: JSON objects of which only the top level is looked at.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use memchr::memmem::Finder;

use super::outcome::RawReason;
use crate::model::json::{self, Entries};

fn entries(text: &str) -> Result<Entries<'_>, RawReason> {
    json::entries(text).map_err(|error| RawReason::Json { problem: error.to_string() })
}

/// A key as the JSON object that it is, without a schema beside it; none of anything else.
pub(super) fn object(key: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(key).ok()?;
    let entries = json::entries(text).ok()?;
    match &entries[..] {
        [(schema, _), (payload, values)] if schema == "schema" && payload == "payload" => {
            json::entries(values.get()).ok().map(|_| values.get())
        }
        _ => Some(text),
    }
}

/// The values of a record's key as an array, in the order of the key's columns; none where there is no key.
pub(super) fn identity(key: &[u8]) -> Result<Option<String>, RawReason> {
    let text = std::str::from_utf8(key).map_err(|error| RawReason::NotUtf8 { valid: error.valid_up_to() })?;
    if text.trim() == "null" {
        return Ok(None);
    }
    let mut entries = entries(text)?;
    // With a schema beside it.
    if let [(schema, _), (payload, values)] = &entries[..]
        && schema == "schema"
        && payload == "payload"
    {
        if values.get() == "null" {
            return Ok(None);
        }
        entries = self::entries(values.get())?;
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let values: Vec<&str> = entries.iter().map(|(_, value)| value.get()).collect();
    Ok(Some(format!("[{}]", values.join(","))))
}

/// A UUID of version 3 made of bytes alone, as Java's `UUID.nameUUIDFromBytes` does.
fn uuid_of(bytes: &[u8]) -> String {
    let mut digest: [u8; 16] = Md5::digest(bytes).into();
    digest[6] = digest[6] & 0x0F | 0x30;
    digest[8] = digest[8] & 0x3F | 0x80;
    let hex = hex::encode(digest);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// What the connector writes for a value that the database did not send, in every shape that it gives it.
#[derive(Debug)]
pub(super) struct Placeholder {
    /// The values, without spaces.
    values: Vec<String>,
    /// What one of them begins with, at least.
    hints: Vec<Finder<'static>>,
}

impl Placeholder {
    pub(super) fn new(text: &str) -> Placeholder {
        let bytes = text.as_bytes();
        let written = serde_json::to_string(text).expect("a text is JSON");
        let base64 = format!("\"{}\"", BASE64.encode(bytes));
        let hex = format!("\"{}\"", hex::encode(bytes));
        let numbers = bytes.iter().map(|byte| (*byte as i8).to_string()).collect::<Vec<_>>().join(",");
        let uuid = format!("\"{}\"", uuid_of(bytes));
        let of_arrays = [&written, &base64, &hex, &uuid].map(|value| format!("[{value}]"));
        let map = format!("{{{written}:{written}}}");
        let map_as_text = serde_json::to_string(&map).expect("a text is JSON");
        let values: Vec<String> =
            [written, base64, hex, uuid, format!("[{numbers}]"), map, map_as_text].into_iter().chain(of_arrays).collect();
        let hint = |value: &String| Finder::new(value.trim_start_matches(['[', '{', '"', '\\']).get(..8).unwrap_or(value)).into_owned();
        let mut hints: Vec<Finder<'static>> = Vec::new();
        for hinted in values.iter().map(hint) {
            if !hints.iter().any(|known| known.needle() == hinted.needle()) {
                hints.push(hinted);
            }
        }
        Placeholder { values, hints }
    }

    /// The columns of a row image that were not sent, as a JSON array of names; none where all were.
    pub(super) fn unsent(&self, image: &str) -> Result<Option<String>, RawReason> {
        if !self.hints.iter().any(|hint| hint.find(image.as_bytes()).is_some()) {
            return Ok(None);
        }
        let entries = entries(image)?;
        let unsent: Vec<&str> = entries.iter().filter(|(_, value)| self.is_it(value.get())).map(|(name, _)| &**name).collect();
        Ok((!unsent.is_empty()).then(|| json::array(unsent)))
    }

    fn is_it(&self, value: &str) -> bool {
        let is_nested = value.starts_with(['[', '{']);
        let packed: Cow<'_, str> =
            if is_nested { value.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>().into() } else { value.into() };
        self.values.iter().any(|known| *known == *packed)
    }
}
