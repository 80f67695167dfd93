//! Where an object lies in a directory: every key has a path of its own, and an ordinary key is its own path.
//!
//! ```text
//! photos/2026/a.jpg   photos/2026/a.jpg        as it is
//! a//b   /a   a/      a/%/b   %/a   a/%        an empty name is a lone %
//! ../etc   a/.        %2E./etc   a/%2E         names that a file system takes for itself
//! 100%   "a\nb"       100%25   a%0Ab           the escape itself, control characters
//! <300 bytes>         <251 bytes>%+/<rest>     a name longer than a file system takes goes on one level below
//! a (beside a/b)      a%=                      an object whose name is also a directory's
//! .hindsight/x        %2Ehindsight/x           the name of our own directory
//! ```
//!
//! No two keys have the same path: [`decode`] takes back exactly what [`encode`] gives and nothing else, so that a file
//! which no restore can have written is no object. What is escaped is escaped always, whatever else lies in the
//! directory; only `%=` depends on it, and both spellings decode to the same key.
//!
//! Keys that differ only in case, or in how an accent is composed, are different keys and different paths. A file
//! system that takes them for the same is refused by the target.

/// The directory that the target keeps for itself; no key has a path in it.
pub const OWN: &str = ".hindsight";

/// The longest file name that common file systems take.
const NAME_BYTES_MAX: usize = 255;
/// Ends the name of an object that lies beside a directory of the same name.
const BESIDE: &str = "%=";
/// Ends a piece of a name that goes on one level below.
const CONTINUED: &str = "%+";
/// An empty name, as in `a//b`.
const EMPTY: &str = "%";
/// The longest name in one piece: there must be room for [`BESIDE`].
const WHOLE_BYTES_MAX: usize = NAME_BYTES_MAX - BESIDE.len();
/// The longest piece of a name in several.
const PIECE_BYTES_MAX: usize = WHOLE_BYTES_MAX - CONTINUED.len();

/// The path of an object, relative to the target's root, `/` between its names.
pub fn encode(key: &str) -> String {
    let mut path = String::with_capacity(key.len());
    for (depth, name) in key.split('/').enumerate() {
        if depth > 0 {
            path.push('/');
        }
        encode_name(name, depth == 0, &mut path);
    }
    path
}

/// The path of an object where [`encode`] gives that of a directory.
pub fn encode_beside(key: &str) -> String {
    beside(&encode(key))
}

/// The other spelling of an encoded path, or of its last name.
pub(crate) fn beside(path: &str) -> String {
    format!("{path}{BESIDE}")
}

/// The key that a path is of; nothing where no key has this path.
pub fn decode(path: &str) -> Option<String> {
    let plain = path.strip_suffix(BESIDE).unwrap_or(path);
    let mut key = String::with_capacity(plain.len());
    let mut continued = true;
    for piece in plain.split('/') {
        if !continued {
            key.push('/');
        }
        let piece = if piece == EMPTY { "" } else { piece };
        let (piece, goes_on) = piece.strip_suffix(CONTINUED).map_or((piece, false), |piece| (piece, true));
        decode_piece(piece, &mut key)?;
        continued = goes_on;
    }
    // One spelling for each key: everything that decodes to it in another way is not ours.
    (encode(&key) == plain).then_some(key)
}

fn encode_name(name: &str, first: bool, path: &mut String) {
    if name.is_empty() {
        path.push_str(EMPTY);
        return;
    }
    let dot_is_special = name == "." || name == ".." || (first && name == OWN);
    let whole: usize = name.chars().enumerate().map(|(at, c)| escaped_len(c, at == 0 && dot_is_special)).sum();
    let piece_max = if whole <= WHOLE_BYTES_MAX { WHOLE_BYTES_MAX } else { PIECE_BYTES_MAX };
    let (mut piece, mut escape_dot) = (0, dot_is_special);
    for c in name.chars() {
        if piece + escaped_len(c, escape_dot) > piece_max {
            path.push_str(CONTINUED);
            path.push('/');
            // The rest of a long name may be `..`.
            (piece, escape_dot) = (0, true);
        }
        piece += escaped_len(c, escape_dot);
        if is_escaped(c, escape_dot) {
            path.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            path.push(c);
        }
        escape_dot = false;
    }
}

/// Only ASCII is ever escaped, so that an escape is one byte.
fn is_escaped(c: char, escape_dot: bool) -> bool {
    c == '%' || c.is_ascii_control() || (escape_dot && c == '.')
}

fn escaped_len(c: char, escape_dot: bool) -> usize {
    if is_escaped(c, escape_dot) { 3 } else { c.len_utf8() }
}

fn decode_piece(piece: &str, key: &mut String) -> Option<()> {
    let mut rest = piece;
    while let Some(at) = rest.find('%') {
        key.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3)?;
        let byte = u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)?;
        key.push(char::from(byte));
        rest = &rest[at + 3..];
    }
    key.push_str(rest);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(key: &str, path: &str) {
        assert_eq!(encode(key), path, "{key:?}");
        assert_eq!(decode(path).as_deref(), Some(key), "{path:?}");
        assert_eq!(decode(&encode_beside(key)).as_deref(), Some(key), "{path:?} beside");
    }

    #[test]
    fn an_ordinary_key_is_its_own_path() {
        for key in
            ["a", "photos/2026/08/IMG_0001 (1).jpg", "ünïcode/日本語/🎉", "con", "a:b*?\"<>|\\", ".hidden", "...", "a/.hindsight", " "]
        {
            check(key, key);
        }
    }

    #[test]
    fn hostile_keys_stay_inside_and_come_back() {
        check("../../etc/passwd", "%2E./%2E./etc/passwd");
        check("/etc/passwd", "%/etc/passwd");
        check("a//b", "a/%/b");
        check("a/", "a/%");
        check("/", "%/%");
        check("", "%");
        check("%", "%25");
        check("./.", "%2E/%2E");
        check("a\0b\r\nc\u{7f}", "a%00b%0D%0Ac%7F");
        check("a%2Fb%=%+", "a%252Fb%25=%25+");
        check(".hindsight/objects.jsonl", "%2Ehindsight/objects.jsonl");
        check(".hindsight", "%2Ehindsight");
    }

    #[test]
    fn a_name_that_no_file_system_takes_goes_on_below() {
        check(&"x".repeat(253), &"x".repeat(253));
        check(&"x".repeat(254), &format!("{}%+/xxx", "x".repeat(251)));
        check(&format!("{}..", "x".repeat(252)), &format!("{}%+/x..", "x".repeat(251)));
        // What is left over would be the parent directory.
        check(&format!("{}...", "x".repeat(251)), &format!("{}%+/%2E..", "x".repeat(251)));
        check(&format!("{}..", "x".repeat(251)), &format!("{}..", "x".repeat(251)));
        check(&format!("{}..", "é".repeat(126)), &format!("{}%+/é%2E.", "é".repeat(125)).replace("%2E", "."));
    }

    #[test]
    fn what_encode_never_gives_is_no_object() {
        let foreign = [
            "",
            ".",
            "..",
            "../a",
            "a/..",
            "/a",
            "a/",
            "a//b",
            "100%",
            "%zz",
            "%2e",
            "%41",
            "%2F",
            "%+",
            "a%+/b",
            "a%+",
            "%=",
            "a%=%=",
            "a%=/b",
            "%FF",
            "%é",
            ".hindsight",
            ".hindsight/x",
            "a\nb",
            "%2",
            "a/%%",
            "%+%=",
        ];
        for path in foreign {
            assert_eq!(decode(path), None, "{path:?}");
        }
        assert_eq!(decode(&"x".repeat(254)), None);
    }

    fn hostile_keys() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/".to_owned()),
            Just(".".to_owned()),
            Just("%".to_owned()),
            Just("%=".to_owned()),
            Just("%+".to_owned()),
            Just("%2E".to_owned()),
            Just(OWN.to_owned()),
            Just("\0\r\n".to_owned()),
            "[a-c]{1,3}",
            "\\PC{1,4}",
            any::<char>().prop_map(String::from),
            (245_usize..260).prop_map(|count| "x".repeat(count)),
            (120_usize..130).prop_map(|count| "é".repeat(count)),
        ];
        proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
    }

    fn stays_inside_and_comes_back(key: &str) -> Result<(), TestCaseError> {
        let (plain, other) = (encode(key), encode_beside(key));
        prop_assert_ne!(&plain, &other);
        for path in [plain, other] {
            prop_assert_eq!(decode(&path), Some(key.to_owned()));
            prop_assert!(!path.chars().any(|c| c.is_ascii_control()), "{path:?}");
            for name in path.split('/') {
                prop_assert!(!name.is_empty() && name != "." && name != ".." && name.len() <= NAME_BYTES_MAX, "{path:?}");
            }
            prop_assert_ne!(path.split('/').next(), Some(OWN));
        }
        Ok(())
    }

    #[test]
    fn slow_a_million_keys_come_back() {
        if std::env::var_os("SLOW").is_some() {
            let config = ProptestConfig::with_cases(1_000_000);
            let checked = proptest::test_runner::TestRunner::new(config).run(&hostile_keys(), |key| stays_inside_and_comes_back(&key));
            checked.unwrap();
        }
    }

    proptest! {
        #[test]
        fn every_key_comes_back_from_a_path_that_stays_inside(key in hostile_keys()) {
            stays_inside_and_comes_back(&key)?;
        }

        #[test]
        fn a_path_has_at_most_one_key_and_is_its_only_spelling(path in hostile_keys()) {
            if let Some(key) = decode(&path) {
                prop_assert!(encode(&key) == path || encode_beside(&key) == path);
            }
        }
    }
}
