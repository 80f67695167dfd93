//! Counts as metrics of CloudWatch: a line of JSON in the log, in its embedded metric format
//! (docs.aws.amazon.com: CloudWatch, "Specification: Embedded metric format").

use std::io::Write;

use pipeline::model::Timestamp;
use serde_json::{Map, Value, json};

/// The namespace of all metrics.
const NAMESPACE: &str = "Hindsight";

/// Writes counts down, each with its unit.
pub fn write(function: &str, now: Timestamp, counts: &[(&str, &str, u64)]) {
    // A metric that cannot be written must not fail what it counts.
    let _ = writeln!(std::io::stdout(), "{}", line(function, now, counts));
}

fn line(function: &str, now: Timestamp, counts: &[(&str, &str, u64)]) -> Value {
    let metrics: Vec<Value> = counts.iter().map(|(name, unit, _)| json!({ "Name": name, "Unit": unit })).collect();
    let directive = json!({ "Namespace": NAMESPACE, "Dimensions": [["Function"]], "Metrics": metrics });
    let mut line = Map::new();
    line.insert("_aws".to_owned(), json!({ "Timestamp": now.micros() / 1_000, "CloudWatchMetrics": [directive] }));
    line.insert("Function".to_owned(), function.into());
    line.extend(counts.iter().map(|(name, _, count)| ((*name).to_owned(), Value::from(*count))));
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_declares_each_metric_and_has_its_value() {
        let line = line("capture-s3", Timestamp::from_seconds(7), &[("Changes", "Count", 3), ("LagMax", "Milliseconds", 40)]);
        assert_eq!(line["_aws"]["Timestamp"], 7_000);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!((&directive["Namespace"], &directive["Dimensions"]), (&json!("Hindsight"), &json!([["Function"]])));
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(line[metric["Name"].as_str().unwrap()].is_u64());
        }
        assert_eq!((&line["Function"], &line["Changes"]), (&json!("capture-s3"), &json!(3)));
    }
}
