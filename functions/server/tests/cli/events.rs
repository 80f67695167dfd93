//! What a bucket would tell of what somebody did to it, in a queue or posted.

use serde_json::{Value, json};
use tests::sqs_server::SqsServer;

use super::record::Record;
use super::traffic::{Deed, What};

/// An event as EventBridge wraps it.
pub fn event(bucket: &str, record: &Record, deed: &Deed) -> Value {
    let version = &record.objects[&deed.key][deed.index];
    let (name, reason, deletion) = match deed.what {
        What::Put => ("Object Created", "PutObject", None),
        What::Marker => ("Object Deleted", "DeleteObject", Some("Delete Marker Created")),
        What::Purge => ("Object Deleted", "DeleteObject", Some("Permanently Deleted")),
    };
    let at = version.purged.filter(|_| deed.what == What::Purge).map_or(version.at, |(_, until)| until.floor_second());
    json!({
        "version": "0", "id": "0", "detail-type": name, "source": "aws.s3", "time": at, "region": "us-east-1",
        "resources": [format!("arn:aws:s3:::{bucket}")],
        "detail": {
            "version": "0", "bucket": { "name": bucket }, "reason": reason, "deletion-type": deletion,
            "object": { "key": deed.key, "size": version.content.len(), "etag": version.etag, "version-id": version.id },
        },
    })
}

/// A queue that gets a bucket's events, and what each of its messages tells of.
pub struct Queue {
    pub server: SqsServer,
    bucket: String,
    /// By the number of the message.
    pub deeds: Vec<Deed>,
    /// How many of the server's deletes were looked at.
    looked_at: usize,
}

impl Queue {
    /// A queue that is empty.
    pub fn new(bucket: &str) -> Queue {
        Queue { server: SqsServer::start().expect("a free port"), bucket: bucket.to_owned(), deeds: Vec::new(), looked_at: 0 }
    }

    /// The queue as the command line names it.
    pub fn events(&self) -> String {
        format!("sqs:{}", self.server.url())
    }

    /// Tells of something.
    pub fn tell(&mut self, record: &Record, deed: Deed) {
        let number = self.server.send(&event(&self.bucket, record, &deed).to_string());
        assert_eq!(number, self.deeds.len() as u64, "nobody else sends");
        self.deeds.push(deed);
    }

    /// What was acknowledged since this was last asked.
    pub fn acknowledged(&mut self) -> Vec<Deed> {
        let deleted = self.server.deleted();
        let news = deleted[self.looked_at..].iter().map(|number| self.deeds[*number as usize].clone()).collect();
        self.looked_at = deleted.len();
        news
    }
}
