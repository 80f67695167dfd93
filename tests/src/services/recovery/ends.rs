//! Where transactions ended in the log of a cluster, and when: what its archive says, whoever else says what.

use std::process::Command;

use pipeline::model::Timestamp;

use crate::services::Postgres;

/// A transaction, or a part of one that was rolled back, ended here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Where the record of it begins.
    pub lsn: u64,
    /// When it ended, by the server's clock.
    pub at: Timestamp,
    /// Its number.
    pub transaction: String,
    /// Whether it was committed.
    pub committed: bool,
}

impl Postgres {
    /// Where transactions ended, of all databases, in the order of the archive.
    pub fn ends(&self) -> Vec<End> {
        let entries = std::fs::read_dir(self.archive()).expect("an archive");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        let is_segment = |name: &String| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut segments: Vec<String> = names.filter(is_segment).collect();
        segments.sort();
        let (first, last) = (segments.first().expect("a segment"), segments.last().expect("a segment"));
        let mut program = Command::new(self.programs().join("pg_waldump"));
        program.args(["--rmgr=Transaction", "--path"]).arg(self.archive()).args([first, last]).env("TZ", "UTC");
        // It complains where the archive ends, which is within a segment or at the end of one; nobody can tell that from damage, but
        // by what comes of it.
        let output = program.output().expect("it starts: run ./dev setup");
        String::from_utf8(output.stdout).expect("text").lines().filter_map(parse).collect()
    }
}

/// A line of `pg_waldump`; nothing of one that tells of no end.
fn parse(line: &str) -> Option<End> {
    let field = |name: &str| line.split_once(name)?.1.split(',').next().map(str::trim);
    let (what, mut rest) = line.split_once("desc: ")?.1.split_once(' ')?;
    let committed = match what {
        "COMMIT" | "COMMIT_PREPARED" => true,
        "ABORT" | "ABORT_PREPARED" => false,
        _ => return None,
    };
    let mut transaction = field("tx:")?;
    if what.ends_with("_PREPARED") {
        (transaction, rest) = rest.split_once(": ")?;
    }
    let at = rest.split_once(" UTC")?.0.replace(' ', "T") + "Z";
    let (high, low) = field("lsn:")?.split_once('/')?;
    let half = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(End {
        lsn: (half(high)? << 32) | half(low)?,
        at: Timestamp::parse(&at, Timestamp::default()).ok()?,
        transaction: transaction.to_owned(),
        committed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_from_what_the_tool_prints() {
        let check = |line: &str, expected: Option<(u64, &str, bool)>| {
            let found = parse(line);
            let found = found.as_ref().map(|end| (end.lsn, end.at.to_string(), &*end.transaction, end.committed));
            let expected =
                expected.map(|(lsn, transaction, committed)| (lsn, "2026-11-28T03:45:17.123456Z".to_owned(), transaction, committed));
            assert_eq!(found, expected, "{line}");
        };
        let head = "rmgr: Transaction len (rec/tot):     34/    34, tx:        752, lsn: 1/0155D6C8, prev 1/0155D688, desc: ";
        let time = "2026-11-28 03:45:17.123456 UTC";
        check(&format!("{head}COMMIT {time}"), Some((0x1_0155_D6C8, "752", true)));
        check(&format!("{head}COMMIT {time}; inval msgs: catcache 55"), Some((0x1_0155_D6C8, "752", true)));
        check(&format!("{head}ABORT {time}"), Some((0x1_0155_D6C8, "752", false)));
        check(&format!("{head}COMMIT_PREPARED 749: {time}"), Some((0x1_0155_D6C8, "749", true)));
        check(&format!("{head}ABORT_PREPARED 749: {time}"), Some((0x1_0155_D6C8, "749", false)));
        check(&format!("{head}PREPARE gid COMMIT: {time}"), None);
        check(&format!("{head}INVALIDATION ; inval msgs: catcache 55"), None);
    }
}
