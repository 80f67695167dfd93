//! `hindsight configuration`: the documents of a bucket's configuration as they were.

use anyhow::Result;
use clap::Args;
use handlers::configuration::{self, DocumentChange, What};
use pipeline::base::inputs::Inventory;
use pipeline::model::Timestamp;
use pipeline::view::Document;
use serde::Serialize;

use crate::app::{App, VaultFlag, WHOLE, bucket_only};
use crate::exit::Ended;
use crate::output::{Output, Table, escaped};
use crate::protected::Protected;

/// List the documents of a bucket's configuration as they were at a time, or write one of them to standard output.
///
/// They are its policy, lifecycle, cors, versioning, encryption, notification, tagging, public-access-block, ownership and object-lock, as
/// far as they were set. They are read behind every listing, and every minute where events tell of changes: the times are those at which
/// they were read.
#[derive(Debug, Args)]
pub struct Configuration {
    /// The bucket.
    #[arg(value_name = "s3://BUCKET")]
    bucket: String,
    /// The document that is written, exactly as the server gave it.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    vault: VaultFlag,
    /// When: RFC 3339, 5m ago, or latest; now means latest, too.
    #[arg(long, value_name = "TIME", default_value = "latest")]
    at: String,
    /// When each document, or this one, was set, changed and removed.
    #[arg(long, conflicts_with = "at")]
    history: bool,
}

/// A document, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    /// When it was first read with this text.
    since: Timestamp,
    size: usize,
    /// Its text, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(document: &'a Document) -> Line<'a> {
        Line { name: &document.name, since: document.since, size: document.text.len(), document: None }
    }
}

/// A change of a document, as JSON.
#[derive(Serialize)]
struct ChangeLine<'a> {
    at: Timestamp,
    change: &'static str,
    name: &'a str,
    /// Of the new text; none where it was removed.
    size: Option<usize>,
}

pub async fn run(app: &App, command: Configuration) -> Result<Ended> {
    let resource = bucket_only(&command.bucket, WHOLE)?;
    let at = app.instant(&command.at)?;
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let inventory = Inventory::load(&opened.vault, &resource).await?;
    let mut output = Output::new(app.flags.json);
    if command.history {
        let changes = configuration::history(&opened.vault, &inventory, command.name.as_deref()).await?;
        show_history(&mut output, &changes, command.name.as_deref())?;
    } else {
        let planned = at.to_look_at(app, &inventory)?;
        match &command.name {
            Some(name) => {
                let inputs = planned.inputs.clone();
                let document = configuration::document(&opened.vault, &inventory, inputs, planned.to, name).await?;
                show_document(&mut output, &document)?;
            }
            None => {
                let documents = configuration::documents(&opened.vault, planned.inputs.clone(), planned.to).await?;
                show_documents(&mut output, &documents, planned.to)?;
            }
        }
    }
    output.finish()?;
    Ok(Ended::Whole)
}

fn show_document(output: &mut Output, document: &Document) -> Result<()> {
    match output.json {
        true => output.document(&Line { document: Some(&document.text), ..Line::of(document) })?,
        // Byte for byte, without so much as the end of a line: it is to be put back.
        false => output.bytes(document.text.as_bytes())?,
    }
    Ok(())
}

fn show_documents(output: &mut Output, documents: &[Document], at: Timestamp) -> Result<()> {
    let mut table = Table::new(&["document", "since", "size"]);
    for document in documents {
        if output.json {
            output.document(&Line::of(document))?;
        }
        table.row(vec![escaped(&document.name), document.since.to_string(), document.text.len().to_string()]);
    }
    match (output.json, documents) {
        (true, _) => {}
        (false, []) => tracing::warn!("no document of the configuration was set at {at}"),
        (false, _) => output.line(table)?,
    }
    Ok(())
}

fn show_history(output: &mut Output, changes: &[DocumentChange], name: Option<&str>) -> Result<()> {
    let mut table = Table::new(&["when", "change", "document", "size"]);
    for DocumentChange { at, name, what, text } in changes {
        let (change, size) = (word(*what), text.as_ref().map(String::len));
        if output.json {
            output.document(&ChangeLine { at: *at, change, name, size })?;
        }
        let size = size.map_or_else(|| "-".to_owned(), |size| size.to_string());
        table.row(vec![at.to_string(), change.to_owned(), escaped(name), size]);
    }
    match (output.json, changes) {
        (true, _) => {}
        (false, []) => {
            let of = name.map_or_else(|| "any document of the configuration".to_owned(), |name| format!("a document {}", escaped(name)));
            output.line(format_args!("the vault knows of no change of {of}"))?;
        }
        (false, _) => output.line(table)?,
    }
    Ok(())
}

fn word(what: What) -> &'static str {
    match what {
        What::Set => "set",
        What::Changed => "changed",
        What::Removed => "removed",
    }
}
