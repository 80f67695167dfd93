//! `hindsight cat`: one object's content as it was.

use anyhow::Result;
use base64::Engine as _;
use clap::Args;
use futures::TryStreamExt;
use handlers::browse;

use crate::app::{App, VaultFlag, bucket_and_rest};
use crate::exit::{Ended, Failure};
use crate::output::Output;

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
    let opened = app.vault(&command.vault).await?;
    let planned = super::ls::planned(app, &opened.vault, &resource, &command.at).await?;
    let version = browse::find(&opened.vault, planned.inputs.clone(), planned.to, &key, command.version_id.as_deref()).await?;
    let mut content = browse::content(&opened.vault, &version).await?;
    if app.flags.json {
        let mut whole = Vec::with_capacity(usize::try_from(version.size).unwrap_or_default());
        while let Some(piece) = content.try_next().await? {
            whole.extend_from_slice(&piece);
        }
        let text = base64::engine::general_purpose::STANDARD.encode(whole);
        let mut output = Output::new(true);
        output.document(&serde_json::json!({ "version": version, "content_base64": text }))?;
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
