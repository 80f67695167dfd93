//! `hindsight serve`: the process that keeps changes.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::App;
use crate::exit::Ended;
use crate::serve::{Serving, serve};

/// Keep the changes of everything that the vaults say is protected.
#[derive(Debug, Args)]
pub struct Serve {
    /// A vault: its name or place; may be given several times. Without any, all configured vaults.
    #[arg(long, value_name = "VAULT", env = "HINDSIGHT_VAULT")]
    vault: Vec<String>,
    /// The address for the webhook, metrics and health.
    #[arg(long, value_name = "ADDRESS", env = "HINDSIGHT_LISTEN")]
    listen: Option<SocketAddr>,
}

pub async fn run(app: &App, command: Serve) -> Result<Ended> {
    let mut vaults = Vec::new();
    for place in app.places(&command.vault)? {
        vaults.push(place.open().await?);
    }
    let (stopper, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("ending");
        // Nobody listens any more: then it has ended already.
        let _ = stopper.send(true);
    });
    let listen = command.listen.unwrap_or(app.config.listen);
    serve(Serving { app: app.clone(), vaults, listen: Some(listen), stop }).await?;
    Ok(Ended::Whole)
}
