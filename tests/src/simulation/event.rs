//! Events as S3 writes them, so that the decoder is part of every run.

use bytes::Bytes;
use pipeline::model::Timestamp;
use serde_json::{Value, json};

use super::swarm::Form;
use crate::memory_bucket::{Effect, Happened};

/// The time that the event of a change states.
pub fn told(form: Form, at: Timestamp) -> Timestamp {
    match form {
        Form::EventBridge | Form::Blind => at.floor_second(),
        Form::Notification => Timestamp::from_micros(at.micros().div_euclid(1_000) * 1_000),
    }
}

/// The event of a change.
pub fn event(form: Form, bucket: &str, happened: &Happened, sequencer: &str) -> Value {
    match form {
        Form::EventBridge | Form::Blind => event_bridge(form, bucket, happened, sequencer),
        Form::Notification => notification(bucket, happened, sequencer),
    }
}

/// One message of these events, in one of the ways in which they are wrapped.
pub fn message(form: Form, events: Vec<Value>, wrapping: u64) -> Bytes {
    let body = match form {
        Form::Notification => json!({ "Records": events }),
        Form::EventBridge | Form::Blind if events.len() == 1 => events.into_iter().next().unwrap_or_default(),
        Form::EventBridge | Form::Blind => Value::Array(events),
    };
    let wrapped = match wrapping {
        0 => {
            json!({ "Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:eu-west-1:111122223333:t", "Message": body.to_string() })
        }
        1 => json!({ "Records": [{ "messageId": "m", "body": body.to_string(), "eventSource": "aws:sqs" }] }),
        _ => body,
    };
    wrapped.to_string().into()
}

fn event_bridge(form: Form, bucket: &str, happened: &Happened, sequencer: &str) -> Value {
    let (detail_type, deletion) = match happened.effect {
        Effect::Put | Effect::PutInParts => ("Object Created", None),
        Effect::Marker => ("Object Deleted", Some("Delete Marker Created")),
        Effect::Purged => ("Object Deleted", Some("Permanently Deleted")),
        Effect::Tags => ("Object Tags Added", None),
        Effect::Acl => ("Object ACL Updated", None),
        Effect::Class => ("Object Storage Class Changed", None),
    };
    let mut object = json!({ "key": happened.object });
    if form != Form::Blind {
        object["version-id"] = json!(happened.version);
    }
    if matches!(happened.effect, Effect::Put | Effect::PutInParts) {
        object["size"] = json!(happened.size);
        object["etag"] = json!(happened.etag);
    }
    if matches!(happened.effect, Effect::Put | Effect::PutInParts | Effect::Marker | Effect::Purged) {
        object["sequencer"] = json!(sequencer);
    }
    let mut detail = json!({
        "version": "0", "bucket": { "name": bucket }, "object": object,
        "request-id": format!("R{sequencer}"), "requester": "111122223333", "source-ip-address": "1.2.3.4"
    });
    if let Some(deletion) = deletion {
        detail["reason"] = json!("DeleteObject");
        detail["deletion-type"] = json!(deletion);
    }
    json!({
        "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": detail_type, "source": "aws.s3", "account": "111122223333",
        "time": told(form, happened.at), "region": "eu-west-1", "resources": [format!("arn:aws:s3:::{bucket}")], "detail": detail
    })
}

fn notification(bucket: &str, happened: &Happened, sequencer: &str) -> Value {
    let name = match happened.effect {
        Effect::Put => "ObjectCreated:Put",
        Effect::PutInParts => "ObjectCreated:CompleteMultipartUpload",
        Effect::Marker => "ObjectRemoved:DeleteMarkerCreated",
        Effect::Purged => "ObjectRemoved:Delete",
        Effect::Tags => "ObjectTagging:Put",
        Effect::Acl => "ObjectAcl:Put",
        Effect::Class => "LifecycleTransition",
    };
    let mut object = json!({ "key": encoded(&happened.object), "versionId": happened.version, "sequencer": sequencer });
    if matches!(happened.effect, Effect::Put | Effect::PutInParts) {
        object["size"] = json!(happened.size);
        object["eTag"] = json!(happened.etag);
    }
    json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-west-1", "eventTime": told(Form::Notification, happened.at), "eventName": name,
        "userIdentity": { "principalId": "AWS:AIDAJDPLRKLG7UEXAMPLE" }, "requestParameters": { "sourceIPAddress": "1.2.3.4" },
        "responseElements": { "x-amz-request-id": format!("R{sequencer}") },
        "s3": { "s3SchemaVersion": "1.0", "configurationId": "c", "bucket": { "name": bucket, "arn": format!("arn:aws:s3:::{bucket}") }, "object": object }
    })
}

/// As a form field: what S3 does to keys in notifications.
fn encoded(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => text.push(char::from(byte)),
            b' ' => text.push('+'),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
