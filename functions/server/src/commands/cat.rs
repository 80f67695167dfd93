//! `hindsight cat`: one object's content as it was.

use std::io::Write as _;

use anyhow::Result;
use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use clap::Args;
use futures::TryStreamExt;
use handlers::browse::{self, BrowseError, State};
use pipeline::base::inputs::Inventory;
use pipeline::fold::object::Keep;

use crate::app::{App, VaultFlag, bucket_and_rest};
use crate::exit::{Ended, Failure};
use crate::nearest::{did_you_mean, nearest_keys};
use crate::output::Output;
use crate::protected::Protected;

/// Write the content of an object as it was at a time to standard output.
#[derive(Debug, Args)]
pub struct Cat {
    /// The object.
    #[arg(value_name = "s3://BUCKET/KEY")]
    object: String,
    #[command(flatten)]
    vault: VaultFlag,
    /// When: RFC 3339, 5m ago, or latest; now means latest, too.
    #[arg(long, value_name = "TIME", default_value = "latest")]
    at: String,
    /// Not the current version of that time, but this one.
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
}

pub async fn run(app: &App, command: Cat) -> Result<Ended> {
    let (resource, key) = bucket_and_rest(&command.object)?;
    if key.is_empty() {
        return Err(Failure::usage(format!("{:?} names no object; write s3://BUCKET/KEY", command.object)).into());
    }
    let at = app.instant(&command.at)?;
    let Protected { opened, .. } = app.kept(&command.vault, &resource).await?;
    let planned = at.to_look_at(app, &Inventory::load(&opened.vault, &resource).await?)?;
    let found = browse::find(&opened.vault, planned.inputs.clone(), planned.to, &key, command.version_id.as_deref()).await;
    let version = match found {
        Err(error @ BrowseError::NotThere { .. }) => {
            let state = State::new(&opened.vault, planned.inputs.clone(), planned.cut(), Keep::Current, "");
            let meant = did_you_mean(&nearest_keys(&state, &key).await?);
            return Err(Failure::refused(format!("{error}{meant}")).into());
        }
        found => found?,
    };
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
