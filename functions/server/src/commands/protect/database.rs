//! What is asked of a database before it is protected, and what is taken away from it afterwards.

use std::time::Duration;

use anyhow::Result;
use database::Address;
use database::begin::{Looked, Source, look_at_connected, slot_name};
use handlers::protection::{self, Changes, DatabaseProtection, Events, How};
use pipeline::model::ResourceId;
use pipeline::source::debezium::PLACEHOLDER;

use super::bucket::NO_KAFKA;
use super::{DatabaseFlags, Protect, choose, decide};
use crate::app::App;
use crate::databases;
use crate::exit::{Ended, Failure};
use crate::output::{counted, escaped};

/// Tables that are named in a warning.
const NAMED_MAX: usize = 10;
/// How long `serve` may take to let go of a slot.
const LETS_GO_WITHIN: Duration = Duration::from_secs(40);
/// How often it is asked whether it has.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Protects a database.
pub async fn protect(app: &App, command: Protect) -> Result<Ended> {
    let address = databases::address(&command.what)?;
    let DatabaseFlags { name, slot, placeholder } = command.database;
    let resource = resource(name.as_deref(), &address)?;
    let place = app.place(&command.vault)?;
    let slot_or_own = |slot: Option<String>| slot.map_or_else(|| Ok(slot_name(resource.name())), allowed);
    let (changes, warnings) = match command.events {
        None => {
            if placeholder.is_some() {
                return Err(Failure::usage("--placeholder is for the topics of a connector: say --events kafka:CLUSTER/PREFIX").into());
            }
            let slot = slot_or_own(slot)?;
            let source = Source { address: address.clone(), slot: slot.clone(), programs: None };
            (Changes::Replication { slot }, warn(&source.look().await?))
        }
        Some(Events::Kafka { cluster, topic: prefix }) => {
            if slot.is_some() {
                return Err(Failure::usage("--slot is for replication, and with --events kafka:... the connector has its own").into());
            }
            app.topic(&cluster, &prefix, String::new())?;
            let mut warnings = warn_connector(&look_at_connected(&address).await?);
            warnings.extend(app.abilities.kafka.is_none().then(|| NO_KAFKA.to_owned()));
            let placeholder = placeholder.unwrap_or_else(|| PLACEHOLDER.to_owned());
            (Changes::Connector { cluster, prefix, placeholder }, warnings)
        }
        Some(_) => {
            let reason =
                "--events of a database are the topics of a connector, kafka:CLUSTER/PREFIX; without them the database itself tells";
            return Err(Failure::usage(reason).into());
        }
    };
    let chosen = choose(app, &place, &resource).await?;
    let known = protection::newest(&chosen.opened.vault, &resource).await?;
    if let Some(known) = known.as_ref().and_then(|known| known.record.database()).filter(|_| !command.moved) {
        let before = Address::parse(&known.server)?;
        if !before.is_same_database(&address) {
            return Err(Failure::refused(format!(
                "{resource} is kept in this vault as it is at {before}, and this is {address}: if it is the same database at a new \
                 address, say --moved, and else call it otherwise with --name"
            ))
            .into());
        }
    }
    let how = DatabaseProtection { server: address.to_string(), changes };
    decide(app, &chosen, resource, How::Database(how), warnings).await
}

fn resource(name: Option<&str>, address: &Address) -> Result<ResourceId, Failure> {
    let allowed = "one to 63 of a-z, A-Z, 0-9, dot, - and _";
    match name {
        Some(name) => ResourceId::database(name.strip_prefix("db://").unwrap_or(name))
            .map_err(|_| Failure::usage(format!("--name {name:?} cannot be a name: {allowed}"))),
        None => ResourceId::database(address.database()).map_err(|_| {
            Failure::usage(format!(
                "database {:?} must be called otherwise in the vault: say --name NAME, of {allowed}",
                address.database()
            ))
        }),
    }
}

fn allowed(slot: String) -> Result<String, Failure> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    // The second publication's name is longer.
    if slot.is_empty() || slot.len() > 53 || !slot.bytes().all(is_allowed) {
        return Err(Failure::usage(format!("--slot {slot:?} cannot be a name: one to 53 of a-z, 0-9 and _")));
    }
    Ok(slot)
}

fn warn(looked: &Looked) -> Vec<String> {
    let mut warnings = Vec::new();
    let Looked { new_rows_only, unreadable_sequences, no_dump, .. } = looked;
    let named = |names: &[String]| {
        let more = if names.len() > NAMED_MAX { " ..." } else { "" };
        names.iter().take(NAMED_MAX).map(|name| escaped(name)).collect::<Vec<_>>().join(", ") + more
    };
    if !new_rows_only.is_empty() {
        warnings.push(format!(
            "of {} only new rows are kept, because rows that are changed or deleted cannot be told apart without a primary key: {}; \
             ALTER TABLE ... ADD PRIMARY KEY, or REPLICA IDENTITY FULL, and protect it again",
            counted(new_rows_only.len() as u64, "table"),
            named(new_rows_only)
        ));
    }
    if !unreadable_sequences.is_empty() {
        warnings.push(format!(
            "{} cannot be read, and a restore would not know what it had handed out: {}; GRANT SELECT ON SEQUENCE ... TO this user",
            counted(unreadable_sequences.len() as u64, "sequence"),
            named(unreadable_sequences)
        ));
    }
    warnings.extend(no_dump.clone());
    warnings
}

/// What is said of a database whose changes a connector tells.
fn warn_connector(looked: &Looked) -> Vec<String> {
    let mut warnings = Vec::new();
    if !looked.new_rows_only.is_empty() {
        let named: Vec<String> = looked.new_rows_only.iter().take(NAMED_MAX).map(|table| escaped(table)).collect();
        warnings.push(format!(
            "rows of {} cannot be told apart without a primary key, and a connector tells only new ones of them: {}; ALTER TABLE ... ADD \
             PRIMARY KEY, or REPLICA IDENTITY FULL",
            counted(looked.new_rows_only.len() as u64, "table"),
            named.join(", ")
        ));
    }
    warnings.extend(looked.no_dump.clone());
    warnings
}

/// How a database is protected, as people read it.
pub(super) fn shown(protection: &DatabaseProtection) -> Vec<(&'static str, String)> {
    let changes = match &protection.changes {
        Changes::Replication { slot } => format!("replication slot {}", escaped(slot)),
        Changes::Connector { cluster, prefix, .. } => format!("kafka:{}/{}", escaped(cluster), escaped(prefix)),
    };
    vec![("server", escaped(&protection.server)), ("changes from", changes)]
}

/// Takes away what was made in the database, and says what could not be.
pub async fn clean_up(app: &App, protection: &DatabaseProtection) -> Vec<String> {
    let address = match databases::address(&protection.server) {
        Ok(address) => address,
        Err(error) => return vec![format!("{error:#}")],
    };
    // A connector is somebody else's.
    let Changes::Replication { slot } = &protection.changes else { return Vec::new() };
    let source = Source { address, slot: slot.clone(), programs: None };
    let began = app.clock.now();
    loop {
        match source.end().await {
            Ok(()) => return Vec::new(),
            // Somebody reads it still.
            Err(error) if error.is_in_use() && app.clock.now().since(began) < LETS_GO_WITHIN => app.clock.sleep(ASK_EVERY).await,
            Err(error) => {
                return vec![format!(
                    "replication slot {} is left, and its server keeps its log for it until the disk is full: {error}; once that is \
                     mended, ask for the same again",
                    source.slot
                )];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_called_as_it_is_or_as_one_says() {
        let named = |name: Option<&str>, url: &str| resource(name, &Address::parse(url).unwrap()).map(|resource| resource.to_string());
        assert_eq!(named(None, "postgres://ann@db/shop").unwrap(), "db://shop");
        assert_eq!(named(Some("db://store"), "postgres://ann@db/shop").unwrap(), "db://store");
        assert!(named(None, "postgres://ann@db/my%20shop").unwrap_err().to_string().contains("--name NAME"));
        assert!(named(Some("a/b"), "postgres://ann@db/shop").unwrap_err().to_string().contains("cannot be a name"));
        for (slot, good) in [("shop_2", true), ("Shop", false), ("", false), (&"x".repeat(54), false)] {
            assert_eq!(allowed(slot.to_owned()).is_ok(), good, "{slot}");
        }
    }
}
