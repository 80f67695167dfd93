use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{Array as _, AsArray as _};
use bytes::Bytes;
use proptest::prelude::*;

use super::csv::CsvReport;
use super::parquet::ParquetReport;
use super::*;
use crate::target::Reason;

fn row(object: &str) -> ReportRow {
    ReportRow {
        object: object.to_owned(),
        version: Some("v1".to_owned()),
        action: "create".to_owned(),
        bytes: 3,
        target_version: None,
        reason: None,
        left_out: vec!["acl: no".to_owned(), "tag x: no".to_owned()],
        uncertain: None,
    }
}

fn csv(rows: &[ReportRow]) -> String {
    let mut report = CsvReport::new(Vec::new()).unwrap();
    report.append(rows).unwrap();
    String::from_utf8(report.finish().unwrap()).unwrap()
}

/// Reads RFC 4180 as any program would.
fn read_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (true, '"') if chars.peek() == Some(&'"') => cell.extend(chars.next()),
            (_, '"') => quoted = !quoted,
            (false, ',') => row.push(std::mem::take(&mut cell)),
            (false, '\r') if chars.peek() == Some(&'\n') => {
                chars.next();
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            (_, c) => cell.push(c),
        }
    }
    rows
}

#[test]
fn a_csv_row_is_a_line_with_the_columns_of_the_header() {
    assert_eq!(
        csv(&[row("a b.jpg")]),
        "object,version,action,bytes,target_version,reason,left_out,uncertain\r\na b.jpg,v1,create,3,,,acl: no; tag x: no,\r\n"
    );
}

#[test]
fn a_key_is_no_formula_of_a_spreadsheet() {
    let text = csv(&[row("=HYPERLINK(\"http://x\")"), row("-1"), row("'=1"), row("＝1")]);
    let objects: Vec<_> = read_csv(&text).into_iter().skip(1).map(|row| row[0].clone()).collect();
    assert_eq!(objects, ["'=HYPERLINK(\"http://x\")", "'-1", "''=1", "'＝1"]);
}

#[test]
fn parquet_holds_the_rows_as_they_are_in_several_row_groups() {
    let mut report = ParquetReport::new(Vec::new()).unwrap();
    let count = 70_000;
    report.append((0..count).map(|number| row(&format!("=k{number}")))).unwrap();
    let file = Bytes::from(report.finish().unwrap());
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 2);
    let (mut objects, mut left_out) = (Vec::new(), 0);
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        objects.extend(batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
        left_out += batch.column(6).as_list::<i32>().values().len();
    }
    assert_eq!(objects.len(), count);
    assert_eq!((objects[0].as_str(), objects[count - 1].as_str(), left_out), ("=k0", "=k69999", 2 * count));
}

fn report() -> RestoreReport {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let mut report =
        RestoreReport::begin("s3://photos", "/srv/restored", at("2026-08-22T12:00:07Z"), Mode::Overwrite, at("2026-08-23T08:00:00Z"));
    report.tally = Tally { creates: 1_234_567, bytes: 42, ..Tally::default() };
    report.finish(at("2026-08-23T08:01:01.5Z"));
    report
}

#[test]
fn the_summary_is_a_table() {
    let mut report = report();
    report.count("evil\u{1b}[2J", None, &Action::Fail(Reason::Failed("the disk of \"evil\u{1b}[2J\" is full".to_owned())), 0, None);
    report.finish(report.finished);
    let expected = "\
restore       s3://photos to /srv/restored
state at      2026-08-22T12:00:07Z (not proven)
mode          overwrite
status        PARTIAL
took          61.5 s, from 2026-08-23T08:00:00Z to 2026-08-23T08:01:01.5Z
matched                     0
created             1,234,567
overwritten                 0
removed                     0
same                        0
skipped                     0
kept                        0
failed                      1
written                    42 bytes
requests                    0
failed as                   1  the disk of \"KEY\" is full
                               - evil\\u{1b}[2J
";
    assert_eq!(report.to_string(), expected);
}

#[test]
fn the_status_follows_from_the_counts() {
    let check = |tally: Tally, expected| assert_eq!(status(&tally), expected);
    check(Tally::default(), Status::Completed);
    check(Tally { creates: 1, skips: 1, ..Tally::default() }, Status::Completed);
    check(Tally { creates: 1, failed: 1, ..Tally::default() }, Status::Partial);
    check(Tally { failed: 1, ..Tally::default() }, Status::Failed);
}

#[test]
fn a_selection_that_finds_nothing_did_not_complete() {
    let check = |selective: bool, tally: Tally, matched: u64, expected| {
        let mut report = RestoreReport { selective, tally, matched, ..report() };
        report.finish(report.finished);
        assert_eq!(report.status, expected, "{report}");
    };
    check(true, Tally::default(), 0, Status::NothingMatched);
    check(true, Tally { kept: 7, ..Tally::default() }, 0, Status::NothingMatched);
    check(true, Tally { skips: 1, ..Tally::default() }, 1, Status::Completed);
    // What did not exist then was removed: that was asked for.
    check(true, Tally { deletes: 1, ..Tally::default() }, 0, Status::Completed);
    check(false, Tally::default(), 0, Status::Completed);
}

#[test]
fn a_key_that_did_not_exist_is_a_part_that_is_not_restored() {
    let mut report = RestoreReport { selective: true, matched: 1, missing_keys: 1, ..report() };
    report.unmatched.push("--key b");
    report.finish(report.finished);
    assert_eq!(report.status, Status::Partial);
    assert!(report.to_string().contains("unmatched                   1\n              --key b\n"), "{report}");
}

#[test]
fn a_restore_across_a_gap_is_not_called_complete() {
    let mut report = report();
    report.gaps.push("12:00 to 12:05: events were off");
    report.finish(report.finished);
    assert_eq!(report.status, Status::Partial);
}

#[test]
fn the_summary_is_json_with_plain_counts() {
    let json = serde_json::to_value(report()).unwrap();
    assert_eq!(
        (json["status"].as_str(), json["creates"].as_u64(), json["to"].as_str()),
        (Some("COMPLETED"), Some(1_234_567), Some("2026-08-22T12:00:07Z"))
    );
    assert_eq!(serde_json::from_value::<RestoreReport>(json).unwrap(), report());
}

#[test]
fn a_summary_names_the_first_and_counts_all() {
    let mut named: Named = (0..NAMED_MAX + 50).map(|number| number.to_string()).collect();
    named.add(named.clone());
    assert_eq!((named.count, named.first.len()), (2 * (NAMED_MAX as u64 + 50), NAMED_MAX));
}

proptest! {
    #[test]
    fn every_key_comes_back_from_the_csv(objects in proptest::collection::vec(any::<String>(), 0..5)) {
        let rows: Vec<_> = objects.iter().map(|object| row(object)).collect();
        let read = read_csv(&csv(&rows));
        prop_assert_eq!(read.len(), rows.len() + 1);
        for (cells, object) in read.iter().skip(1).zip(&objects) {
            prop_assert_eq!(cells.len(), COLUMNS.len());
            prop_assert_eq!(cells[0].strip_prefix('\'').unwrap_or(&cells[0]), object);
            prop_assert!(!cells[0].starts_with(['=', '+', '-', '@', '\t', '\r']));
        }
    }
}
