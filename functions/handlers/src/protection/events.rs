//! How changes of a bucket are learned, as a record has it and as a person writes it.
//!
//! ```text
//! sqs:URL   functions:URL   webhook   kafka:CLUSTER/TOPIC   list   list:5m
//! ```

use std::fmt;
use std::str::FromStr;

use pipeline::model::time::parse_duration;
use serde::{Deserialize, Serialize};

/// Seconds between listings where `list` says nothing more.
const LIST_EVERY_SECONDS: u64 = 60;
/// Whoever lists seldomer than once in four weeks has no backup.
const LIST_EVERY_SECONDS_MAX: u64 = 28 * 86_400;
/// The longest name of a topic.
const TOPIC_BYTES_MAX: usize = 249;

/// How changes of a bucket are learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Events {
    /// S3 events in an SQS queue, whatever brought them there.
    Sqs {
        /// The queue's URL.
        url: String,
    },
    /// S3 events posted to this process.
    Webhook,
    /// S3 events in a topic of Kafka.
    Kafka {
        /// Which of the configured clusters, or its brokers.
        cluster: String,
        /// The topic.
        topic: String,
    },
    /// S3 events in an SQS queue from which functions take them, on a host of functions that lists the bucket, too: no process does.
    Functions {
        /// The queue's URL.
        url: String,
    },
    /// No events: all versions are listed again and again.
    List {
        /// Seconds between the end of one listing and the next.
        seconds: u64,
    },
}

impl Events {
    /// The queue that they are in, if they are in one.
    pub fn queue(&self) -> Option<&str> {
        match self {
            Events::Sqs { url } | Events::Functions { url } => Some(url),
            Events::Webhook | Events::Kafka { .. } | Events::List { .. } => None,
        }
    }

    /// Whether changes come the same way, whatever that is asked how often.
    pub fn is_fed_as(&self, other: &Events) -> bool {
        self == other || matches!((self, other), (Events::List { .. }, Events::List { .. }))
    }

    /// Whether a feed says up to when it has told all. Otherwise only listings say how far the bucket is known.
    pub fn tells_how_far(&self) -> bool {
        !matches!(self, Events::Functions { .. } | Events::List { .. })
    }

    /// Whether functions keep the bucket, and no process.
    pub fn is_by_functions(&self) -> bool {
        matches!(self, Events::Functions { .. })
    }
}

/// As it is written. An interval is in seconds.
impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Events::Sqs { url } => write!(f, "sqs:{url}"),
            Events::Functions { url } => write!(f, "functions:{url}"),
            Events::Webhook => f.write_str("webhook"),
            Events::Kafka { cluster, topic } => write!(f, "kafka:{cluster}/{topic}"),
            Events::List { seconds } => write!(f, "list:{seconds}"),
        }
    }
}

/// Why a text is no source of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// It begins with no word that is known.
    #[error("{text:?} is no source of events: write sqs:URL, functions:URL, webhook, kafka:CLUSTER/TOPIC, list, or list:30s and the like")]
    Unknown {
        /// All of it.
        text: String,
    },
    /// What should be the URL of a queue is none.
    #[error("{url:?} is not the URL of a queue: write it as SQS tells it, https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE")]
    NoQueue {
        /// What stands in its place.
        url: String,
    },
    /// What should be a cluster of Kafka and a topic is not.
    #[error(
        "{place:?} is not CLUSTER/TOPIC: a cluster of the configuration or HOST:PORT, and a topic's name, of letters, digits, dots, hyphens and \
         underscores"
    )]
    NoTopic {
        /// What stands in its place.
        place: String,
    },
    /// What should be an interval is none, or too long.
    #[error("{every:?} is not how often a bucket can be listed: write 30s, 5m, 6h or the like, from one second to four weeks")]
    NoInterval {
        /// What stands in its place.
        every: String,
    },
}

impl FromStr for Events {
    type Err = EventsError;

    fn from_str(text: &str) -> Result<Events, EventsError> {
        let queue = |url: &str| if is_queue(url) { Ok(url.to_owned()) } else { Err(EventsError::NoQueue { url: url.to_owned() }) };
        Ok(match text.split_once(':') {
            None if text == "webhook" => Events::Webhook,
            None if text == "list" => Events::List { seconds: LIST_EVERY_SECONDS },
            Some(("sqs", url)) => Events::Sqs { url: queue(url)? },
            Some(("functions", url)) => Events::Functions { url: queue(url)? },
            Some(("kafka", place)) => match place.rsplit_once('/') {
                Some((cluster, topic)) if !cluster.is_empty() && is_topic(topic) => {
                    Events::Kafka { cluster: cluster.to_owned(), topic: topic.to_owned() }
                }
                _ => return Err(EventsError::NoTopic { place: place.to_owned() }),
            },
            Some(("list", every)) => {
                let seconds = every.parse().ok().or_else(|| parse_duration(every).ok().map(|every| every.as_secs()));
                let seconds = seconds.filter(|seconds| (1..=LIST_EVERY_SECONDS_MAX).contains(seconds));
                Events::List { seconds: seconds.ok_or_else(|| EventsError::NoInterval { every: every.to_owned() })? }
            }
            _ => return Err(EventsError::Unknown { text: text.to_owned() }),
        })
    }
}

/// Whether a text is the URL of a queue.
fn is_queue(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.path().len() > 1)
}

/// Whether Kafka would take this for a topic's name.
fn is_topic(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !matches!(name, "" | "." | "..") && name.len() <= TOPIC_BYTES_MAX && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Events) {
        let read: Events = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read, expected, "{text}");
        assert_eq!(read.to_string().parse(), Ok(read), "{text}");
    }

    #[test]
    fn what_is_written_is_read() {
        let kafka = |cluster: &str, topic: &str| Events::Kafka { cluster: cluster.to_owned(), topic: topic.to_owned() };
        check("webhook", Events::Webhook);
        check("sqs:https://sqs/1/q", Events::Sqs { url: "https://sqs/1/q".to_owned() });
        check("functions:https://q/a", Events::Functions { url: "https://q/a".to_owned() });
        check("list", Events::List { seconds: 60 });
        check("list:5", Events::List { seconds: 5 });
        check("list:2m", Events::List { seconds: 120 });
        check("kafka:main/s3-events", kafka("main", "s3-events"));
        check("kafka:a:9092,b:9092/s3.events", kafka("a:9092,b:9092", "s3.events"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| text.parse::<Events>().expect_err(text);
        for text in ["", "kafka", "sqs", "https://sqs/1/q", "Webhook"] {
            assert!(matches!(wrong(text), EventsError::Unknown { .. }), "{text}");
        }
        for text in ["sqs:", "sqs:name", "sqs:http://[::1", "functions:ftp://host/queue", "sqs:http://host"] {
            assert!(matches!(wrong(text), EventsError::NoQueue { .. }), "{text}");
        }
        for text in ["kafka:main", "kafka:/t", "kafka:main/a b", "kafka:main/.."] {
            assert!(matches!(wrong(text), EventsError::NoTopic { .. }), "{text}");
        }
        for text in ["list:", "list:0", "list:x", "list:2419201", "list:99999999999999999999", "list:5w"] {
            assert!(matches!(wrong(text), EventsError::NoInterval { .. }), "{text}");
        }
    }
}
