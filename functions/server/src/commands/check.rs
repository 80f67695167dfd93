//! `hindsight check`: what others are set to that would lose something.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result};
use axum::body::{Body, to_bytes};
use clap::{Args, Subcommand};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use pipeline::source::debezium::settings::{self, Finding};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::app::App;
use crate::exit::{Ended, Failure};
use crate::output::{Output, escaped};

/// Settings are no longer than this, in bytes.
const SETTINGS_MAX: usize = 1 << 20;

/// Look at how others are set that tell of changes, and name what is lost by that.
///
/// Nothing is changed. Ends with 3 where something is lost.
#[derive(Debug, Args)]
pub struct Check {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A Debezium connector for PostgreSQL.
    Debezium {
        /// Its settings as JSON: a file, - for standard input, or where Kafka Connect answers with them:
        /// http://HOST:8083/connectors/NAME/config.
        #[arg(value_name = "FILE|-|http://...")]
        settings: String,
    },
}

pub async fn run(app: &App, command: Check) -> Result<Ended> {
    let What::Debezium { settings: place } = command.what;
    let text = match place.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().take(SETTINGS_MAX as u64).read_to_string(&mut text).context("standard input")?;
            text
        }
        url if url.starts_with("http://") => fetch(url).await.with_context(|| format!("ask {url}"))?,
        url if url.starts_with("https://") => {
            return Err(Failure::usage(format!("{url}: ask with another program, curl {url} | hindsight check debezium -")).into());
        }
        path => std::fs::read_to_string(path).with_context(|| path.to_owned())?,
    };
    let settings = read(&text).map_err(|reason| Failure::usage(format!("{place}: {reason}")))?;
    let findings = settings::check(&settings);
    let mut output = Output::of_deed(app.flags.json);
    if output.json {
        output.document(&findings)?;
    } else if findings.is_empty() {
        output.line("nothing is lost by these settings; how the topics themselves are set was not looked at")?;
    } else {
        for finding in &findings {
            output.line(shown(finding))?;
        }
    }
    output.finish()?;
    Ok(if findings.is_empty() { Ended::Whole } else { Ended::InPart })
}

fn shown(Finding { setting, value, loses, instead }: &Finding) -> String {
    let is = value.as_ref().map_or_else(|| "is not set".to_owned(), |value| format!("is {}", escaped(value)));
    format!("{setting} {is}: {loses}\n  set it to {instead}")
}

/// The settings of a connector, as Kafka Connect takes them and gives them, alone or beside a name.
fn read(text: &str) -> Result<BTreeMap<String, String>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let settings = value.get("config").unwrap_or(&value);
    let settings = settings.as_object().ok_or("it is no JSON object of settings")?;
    if let Some(reason) = value.get("error_code").and(value.get("message")) {
        return Err(format!("it is none of settings: {reason}"));
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(settings.iter().map(|(name, value)| (name.clone(), text(value))).collect())
}

/// Asks a server for a document.
async fn fetch(url: &str) -> Result<String> {
    let uri: Uri = url.parse()?;
    let host = uri.host().context("it names no host")?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(hyper::header::HOST, authority).body(Body::empty())?;
    let answer = sender.send_request(request).await?;
    let body = to_bytes(Body::new(answer.into_body()), SETTINGS_MAX).await?;
    driving.abort();
    Ok(String::from_utf8(body.to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_alone_or_beside_a_name() {
        let expected = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "true".to_owned())]);
        assert_eq!(read(r#"{"a": "1", "b": true}"#), Ok(expected.clone()));
        assert_eq!(read(r#"{"name": "shop", "config": {"a": 1, "b": "true"}, "tasks": []}"#), Ok(expected));
        assert!(read(r#"{"error_code": 404, "message": "Connector shop not found"}"#).unwrap_err().contains("not found"));
        assert!(read("[]").is_err() && read("{").is_err());
    }
}
