//! Just enough XML: elements and their text, in document order.

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// Deeper documents are no answers of S3.
const DEPTH_MAX: usize = 16;

/// What stands in a document, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// An element begins; its name without a namespace.
    Open(String),
    /// An element ends, with the text that stood in it.
    Close(String, String),
}

/// A document that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the reply is no XML that we understand: {reason}")]
pub struct XmlError {
    reason: String,
}

fn wrong(reason: impl ToString) -> XmlError {
    XmlError { reason: reason.to_string() }
}

/// Calls `each` for every element of the document; the whole document must be well formed.
pub(super) fn walk<E: From<XmlError>>(document: &[u8], mut each: impl FnMut(Node) -> Result<(), E>) -> Result<(), E> {
    let mut reader = Reader::from_reader(document);
    let mut open: Vec<(String, String)> = Vec::new();
    let mut seen = false;
    loop {
        match reader.read_event().map_err(wrong)? {
            Event::Start(start) => {
                let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                if open.len() >= DEPTH_MAX || (seen && open.is_empty()) {
                    return Err(wrong("it is nested too deeply or has two roots").into());
                }
                seen = true;
                each(Node::Open(name.clone()))?;
                open.push((name, String::new()));
            }
            Event::Empty(empty) => {
                let name = String::from_utf8_lossy(empty.local_name().as_ref()).into_owned();
                if seen && open.is_empty() {
                    return Err(wrong("it has two roots").into());
                }
                seen = true;
                each(Node::Open(name.clone()))?;
                each(Node::Close(name, String::new()))?;
            }
            Event::End(_) => {
                let (name, text) = open.pop().ok_or_else(|| wrong("an element ends that never began"))?;
                each(Node::Close(name, text))?;
            }
            Event::Text(text) => {
                if let Some((_, content)) = open.last_mut() {
                    content.push_str(&text.xml10_content().map_err(wrong)?);
                }
            }
            Event::CData(text) => {
                if let Some((_, content)) = open.last_mut() {
                    content.push_str(&text.decode().map_err(wrong)?);
                }
            }
            Event::GeneralRef(reference) => {
                if let Some((_, content)) = open.last_mut() {
                    // Character references may name control characters that XML 1.0 forbids; keys may hold them.
                    match reference.resolve_char_ref().map_err(wrong)? {
                        Some(character) => content.push(character),
                        None => {
                            let name = reference.decode().map_err(wrong)?;
                            content.push_str(resolve_xml_entity(&name).ok_or_else(|| wrong(format!("unknown entity &{name};")))?);
                        }
                    }
                }
            }
            Event::Eof if open.is_empty() && seen => return Ok(()),
            Event::Eof => return Err(wrong("it ends early").into()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

/// The text of the first element with this name.
pub(super) fn text_of(document: &[u8], element: &str) -> Option<String> {
    let mut found = None;
    let read: Result<(), XmlError> = walk(document, |node| {
        if let Node::Close(name, text) = node
            && name == element
            && found.is_none()
        {
            found = Some(text);
        }
        Ok(())
    });
    read.ok().and(found)
}

/// The name of the outermost element, and whether anything stands in it.
pub(super) fn root(document: &[u8]) -> Result<(String, bool), XmlError> {
    let mut root = None;
    let mut elements = 0_usize;
    walk(document, |node| {
        if let Node::Open(name) = node {
            elements += 1;
            root.get_or_insert(name);
        }
        Ok::<(), XmlError>(())
    })?;
    root.map(|name| (name, elements > 1)).ok_or_else(|| wrong("it is empty"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_read_with_its_references() {
        let document = b"<?xml version=\"1.0\"?>\n<a:R xmlns:a=\"x\"><K>q&#34;&lt;&amp;&#x1;\xc3\xbc<![CDATA[<]]></K><E/></a:R>";
        assert_eq!(text_of(document, "K").as_deref(), Some("q\"<&\u{1}ü<"));
        assert_eq!(root(document), Ok(("R".to_owned(), true)));
        assert_eq!(root(b"<VersioningConfiguration/>"), Ok(("VersioningConfiguration".to_owned(), false)));
    }

    #[test]
    fn a_document_that_ends_early_is_an_error() {
        for document in ["", "<a>", "<a><b></a>", "text", "<a/><b/>", "<a>&unknown;</a>"] {
            assert!(root(document.as_bytes()).is_err(), "{document}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(document in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = root(&document);
        }

        #[test]
        fn nothing_that_looks_like_xml_makes_it_panic(document in "[<>/&;#x0-9a-z!\\[\\]?\" -]{0,80}") {
            let _ = root(document.as_bytes());
        }
    }
}
