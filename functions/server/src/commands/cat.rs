//! `hindsight cat`: one object's content, or one table's rows, as they were.

mod table;

use std::io::Write as _;

use anyhow::Result;
use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use clap::Args;
use futures::TryStreamExt;
use handlers::browse::{self, BrowseError, Found, HistoryOf, State};
use pipeline::base::inputs::Inventory;
use pipeline::fold::object::Keep;
use pipeline::model::Timestamp;
use pipeline::model::change::{Facet, ObjectChange, Op};

use super::ls::warn_uncertain;
use crate::app::{App, VaultFlag, bucket_and_rest, database_and_tables};
use crate::exit::{Ended, Failure};
use crate::nearest::{did_you_mean, nearest_keys};
use crate::output::Output;
use crate::protected::Protected;
use crate::vaults::OpenVault;

/// Write the content of an object, or the rows of a table, as they were at a time to standard output.
///
/// Rows are written as CSV, as `COPY ... WITH (FORMAT csv, HEADER)` of PostgreSQL takes it, in no order.
#[derive(Debug, Args)]
pub struct Cat {
    /// The object, or the table.
    #[arg(value_name = "s3://BUCKET/KEY|db://NAME/TABLE")]
    object: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// When: RFC 3339, 5m ago, or latest; now means latest, too. Of a database also xid:NUMBER, lsn:X/Y or marker:NAME.
    #[arg(long, value_name = "TIME", default_value = "latest")]
    at: String,
    /// Not the current version of that time, but this one.
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
}

pub async fn run(app: &App, command: Cat) -> Result<Ended> {
    if let Some(of) = database_and_tables(&command.object)? {
        return table::run(app, &command, of).await;
    }
    let (resource, key) = bucket_and_rest(&command.object)?;
    if key.is_empty() {
        return Err(Failure::usage(format!("{:?} names no object; write s3://BUCKET/KEY", command.object)).into());
    }
    let at = app.instant(&command.at)?;
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let inventory = Inventory::load(&opened.vault, &resource).await?;
    let planned = at.to_look_at(app, &inventory)?;
    let found = browse::find(&opened.vault, planned.inputs.clone(), planned.to, &key, command.version_id.as_deref()).await;
    let Found { version, uncertain } = match found {
        Err(error @ BrowseError::NotThere { .. }) => {
            if let Some(deleted) = deleted(&opened, &inventory, &key, planned.to).await? {
                return Err(Failure::refused(format!("{error}: it was deleted at {deleted}; look at it with an --at before that")).into());
            }
            let state = State::new(&opened.vault, planned.inputs.clone(), planned.cut(), Keep::Current, "").await?;
            let meant = did_you_mean(&nearest_keys(&state, &key).await?);
            return Err(Failure::refused(format!("{error}{meant}")).into());
        }
        found => found?,
    };
    warn_uncertain(&uncertain);
    let mut content = browse::content(&opened.vault, &version).await?;
    if app.flags.json {
        // Piece by piece: a content may be larger than the memory.
        let mut output = Output::new(true);
        output.bytes(format!("{{\"version\":{},\"content_base64\":\"", serde_json::to_string(&version)?).as_bytes())?;
        let mut encoder = EncoderWriter::new(output.writer(), &STANDARD);
        while let Some(piece) = content.try_next().await? {
            encoder.write_all(&piece)?;
        }
        encoder.finish()?;
        drop(encoder);
        output.bytes(b"\"}\n")?;
        output.finish()?;
        return Ok(Ended::Whole);
    }
    let mut output = Output::new(false);
    while let Some(piece) = content.try_next().await? {
        output.bytes(&piece)?;
    }
    output.finish()?;
    Ok(Ended::Whole)
}

/// When an object was deleted that was there before; none where it never was.
async fn deleted(opened: &OpenVault, inventory: &Inventory, key: &str, until: Timestamp) -> Result<Option<Timestamp>> {
    let of = HistoryOf { object: key.to_owned(), recursive: false, from: Timestamp::MIN, to: until };
    let changes = browse::history(&opened.vault, inventory, &of, usize::MAX).await?;
    let times =
        |is: fn(&ObjectChange) -> bool| changes.iter().filter(move |change| change.at <= until && is(change)).map(|change| change.at);
    let is_put = |change: &ObjectChange| change.op == Op::Put && change.facet == Facet::Version && !change.marker;
    let Some(newest) = times(is_put).max() else { return Ok(None) };
    // A marker hides it; that an older version was removed behind that changes nothing.
    let marked = times(|change| change.op == Op::Put && change.marker).filter(|at| *at >= newest).min();
    Ok(marked.or_else(|| times(|change| change.op == Op::Delete).max()))
}
