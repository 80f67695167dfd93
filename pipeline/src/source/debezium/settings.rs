//! What a connector's settings lose.
//!
//! A setting is looked at as the connector takes it: where it is not there, by its default (Debezium, "PostgreSQL connector", "Connector
//! properties"). What is found is a loss that no restore can make good.

use std::collections::BTreeMap;

use serde::Serialize;

use super::PLACEHOLDER;

/// Something that settings lose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The setting.
    pub setting: String,
    /// Its value; none where it is not set.
    pub value: Option<String>,
    /// What is lost by that.
    pub loses: &'static str,
    /// What to set instead.
    pub instead: &'static str,
}

/// What a setting must be.
enum Must {
    /// One of these; the first is the default where the setting is not there.
    Be(&'static [&'static str]),
    /// One of these, which is not the default.
    BeSet(&'static [&'static str]),
    /// Not there at all.
    NotBe,
}

/// A setting, what it must be, what is lost otherwise, and what to set.
type Rule = (&'static str, Must, &'static str, &'static str);

const RULES: &[Rule] = &[
    ("plugin.name", Must::BeSet(&["pgoutput"]), "what other plugins tell was never checked", "pgoutput"),
    (
        "provide.transaction.metadata",
        Must::BeSet(&["true"]),
        "nothing is ever proven: only the ends of transactions say what is complete",
        "true",
    ),
    ("skipped.operations", Must::BeSet(&["none"]), "TRUNCATE is not told, so that its rows come back", "none"),
    ("decimal.handling.mode", Must::BeSet(&["string"]), "decimal numbers cannot be read, or are rounded, and NaN becomes NULL", "string"),
    ("interval.handling.mode", Must::BeSet(&["string"]), "months and days of intervals are averaged", "string"),
    ("time.precision.mode", Must::BeSet(&["isostring"]), "times are numbers whose unit nobody can tell afterwards", "isostring"),
    ("binary.handling.mode", Must::Be(&["bytes", "base64"]), "bytes cannot be read", "base64"),
    ("include.unknown.datatypes", Must::BeSet(&["true"]), "columns of types that the connector does not know are left out", "true"),
    (
        "snapshot.mode",
        Must::Be(&["initial"]),
        "there is no state to begin with, nothing after it, or one that was not read at one moment: only the slot's own snapshot is of one",
        "initial",
    ),
    ("snapshot.include.collection.list", Must::NotBe, "the snapshot leaves tables out, and empties them", "nothing"),
    (
        "offset.mismatch.strategy",
        Must::Be(&["no_validation", "trust_offset"]),
        "what lies between offsets and slot is skipped",
        "trust_offset",
    ),
    (
        "producer.override.enable.idempotence",
        Must::BeSet(&["true"]),
        "rows of a snapshot may be written twice, and without a key nobody can tell",
        "true",
    ),
    ("snapshot.select.statement.overrides", Must::NotBe, "the snapshot leaves rows out", "nothing"),
    ("column.include.list", Must::NotBe, "columns are left out", "nothing"),
    ("column.exclude.list", Must::NotBe, "columns are left out", "nothing"),
    ("table.include.list", Must::NotBe, "changes of other tables are not told", "nothing, or know which"),
    ("table.exclude.list", Must::NotBe, "changes of these tables are not told", "nothing, or know which"),
    ("schema.include.list", Must::NotBe, "changes of other schemas are not told", "nothing, or know which"),
    ("schema.exclude.list", Must::NotBe, "changes of these schemas are not told", "nothing, or know which"),
    ("message.key.columns", Must::NotBe, "rows are told apart by other columns than by their key", "nothing"),
    (
        "publication.autocreate.mode",
        Must::BeSet(&["disabled", "filtered", "no_tables"]),
        "rows of tables without a key can no longer be updated by anybody",
        "disabled, with a publication FOR TABLES IN SCHEMA",
    ),
    ("publish.via.partition.root", Must::Be(&["false"]), "rows of partitions are told as those of their whole", "false"),
    ("event.processing.failure.handling.mode", Must::Be(&["fail"]), "events that the connector cannot process are skipped", "fail"),
    ("errors.tolerance", Must::Be(&["none"]), "records that cannot be converted are skipped", "none"),
    ("slot.drop.on.stop", Must::Be(&["false"]), "what is committed while the connector does not run is not told", "false"),
    ("topic.delimiter", Must::Be(&["."]), "its topics are not found", "."),
    ("topic.transaction", Must::Be(&["transaction"]), "the ends of transactions are not found", "transaction"),
    ("field.name.adjustment.mode", Must::Be(&["none"]), "columns are renamed", "none"),
    (
        "topic.creation.default.cleanup.policy",
        Must::Be(&["delete"]),
        "records are removed that a newer one has the key of: states between them are lost",
        "delete",
    ),
    ("topic.creation.transaction.partitions", Must::Be(&["1"]), "the ends of transactions have no order", "1"),
    ("transforms", Must::NotBe, "events are changed on their way: whatever a transform takes out is lost", "nothing"),
];

/// The one connector whose events are read whole.
const CLASS: &str = "io.debezium.connector.postgresql.PostgresConnector";
/// The converter whose records are read.
const CONVERTER: &str = "org.apache.kafka.connect.json.JsonConverter";

/// What these settings lose, and what should be told to `protect`.
pub fn check(settings: &BTreeMap<String, String>) -> Vec<Finding> {
    let value = |setting: &str| settings.get(setting).map(|value| value.trim()).filter(|value| !value.is_empty());
    let mut findings: Vec<Finding> = Vec::new();
    let mut find = |setting: &str, loses, instead| {
        findings.push(Finding { setting: setting.to_owned(), value: value(setting).map(str::to_owned), loses, instead });
    };
    if value("connector.class") != Some(CLASS) {
        find("connector.class", "events of other connectors are kept as they are, and no state is made of them", CLASS);
    }
    for converter in ["key.converter", "value.converter"] {
        if value(converter).is_some_and(|value| value != CONVERTER) {
            find(converter, "records in another form are kept as they are, and no state is made of them", CONVERTER);
        }
    }
    for (setting, must, loses, instead) in RULES {
        let is_one_of = |allowed: &[&str], value: &str| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(value));
        let is_right = match (must, value(setting)) {
            (Must::Be(_) | Must::NotBe, None) => true,
            (Must::BeSet(_), None) | (Must::NotBe, Some(_)) => false,
            (Must::Be(allowed) | Must::BeSet(allowed), Some(value)) => is_one_of(allowed, value),
        };
        if !is_right {
            find(setting, *loses, *instead);
        }
    }
    let partitions = |setting: &str| value(setting).is_some_and(|partitions| partitions != "1");
    if partitions("topic.creation.default.partitions") && value("topic.creation.transaction.partitions").is_none() {
        find(
            "topic.creation.transaction.partitions",
            "the ends of transactions have no order",
            "1, with a group of topics named transaction",
        );
    }
    if value("unavailable.value.placeholder").is_some_and(|value| value != PLACEHOLDER) {
        find(
            "unavailable.value.placeholder",
            "values that were not sent count as values, unless `protect` is told",
            "the same in `protect --placeholder`",
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documented() -> BTreeMap<String, String> {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kafka.md")).unwrap();
        let block = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        serde_json::from_str(block).unwrap()
    }

    #[test]
    fn what_the_documentation_sets_loses_nothing() {
        assert_eq!(check(&documented()), []);
    }

    #[test]
    fn whatever_is_set_otherwise_or_not_at_all_is_found() {
        let bare: Vec<String> = check(&BTreeMap::new()).into_iter().map(|finding| finding.setting).collect();
        assert_eq!(
            bare,
            [
                "connector.class",
                "plugin.name",
                "provide.transaction.metadata",
                "skipped.operations",
                "decimal.handling.mode",
                "interval.handling.mode",
                "time.precision.mode",
                "include.unknown.datatypes",
                "producer.override.enable.idempotence",
                "publication.autocreate.mode",
            ]
        );
        for (setting, value) in [
            ("decimal.handling.mode", "double"),
            ("time.precision.mode", "connect"),
            ("binary.handling.mode", "hex"),
            ("snapshot.mode", "no_data"),
            ("snapshot.mode", "initial_only"),
            ("column.exclude.list", "public.a.b"),
            ("publication.autocreate.mode", "ALL_TABLES"),
            ("event.processing.failure.handling.mode", "skip"),
            ("errors.tolerance", "all"),
            ("transforms", "unwrap"),
            ("value.converter", "io.confluent.connect.avro.AvroConverter"),
            ("topic.creation.default.cleanup.policy", "compact"),
            ("topic.creation.transaction.partitions", "3"),
            ("unavailable.value.placeholder", "zz"),
        ] {
            let mut settings = documented();
            settings.insert(setting.to_owned(), value.to_owned());
            let found = check(&settings);
            let named: Vec<(&str, Option<&str>)> =
                found.iter().map(|finding| (finding.setting.as_str(), finding.value.as_deref())).collect();
            assert_eq!(named, [(setting, Some(value))]);
        }
    }
}
