//! Keeping the documents of a bucket's configuration, one of which says whether it sends events.

use pipeline::model::Clock;
use pipeline::model::change::ObjectChange;

use crate::capture::{Capture, CaptureError};

/// The document of a bucket's configuration that says where it sends events.
const NOTIFICATION: &str = "notification";

/// Whether the S3 bucket says that it sends events; none where it does not say.
pub fn sends_events(notification: Option<&str>) -> Option<bool> {
    let targets = [
        "EventBridgeConfiguration",
        "QueueConfiguration",
        "TopicConfiguration",
        "CloudFunctionConfiguration",
        "LambdaFunctionConfiguration",
    ];
    notification.map(|document| targets.iter().any(|target| document.contains(target)))
}

/// Keeps the documents of the bucket's configuration that have changed; says whether it sends events. `has_said` is whether it has
/// said so before, as far as is known.
pub async fn keep_configuration(capture: &mut Capture, has_said: bool) -> Result<Option<bool>, CaptureError> {
    let configuration = capture.reader().bucket().configuration().await?;
    // From here on they are certain to be so: whatever was asked for before says nothing of them.
    let now = capture.clock().now();
    let stated = sends_events(configuration.documents.get(NOTIFICATION).map(String::as_str));
    // A server writes no document where nothing is set. That it wrote one before says that events are off, as often as it is asked:
    // whoever heard that first may have broken off before the gap was written down, and the document is not known any more.
    let has_said = has_said || capture.known(|known| known.configuration().contains_key(NOTIFICATION));
    let turned_off = has_said && stated.is_none() && !configuration.unread.contains_key(NOTIFICATION);
    let rows = capture.known(|known| {
        let changed = configuration
            .documents
            .iter()
            .filter(|(name, document)| known.configuration().get(name.as_str()).map(|known| &**known) != Some(document.as_str()));
        let put = changed.map(|(name, document)| ObjectChange {
            metadata: Some(document.clone()),
            via: "scan".to_owned(),
            ..ObjectChange::put("", name, now)
        });
        let gone = known
            .configuration()
            .keys()
            .filter(|name| !configuration.documents.contains_key(&***name) && !configuration.unread.contains_key(&***name));
        let delete = gone.map(|name| ObjectChange { via: "scan".to_owned(), ..ObjectChange::delete("", name, now) });
        put.chain(delete).collect::<Vec<_>>()
    });
    if !rows.is_empty() {
        capture.append(&rows, None).await?;
    }
    Ok(if turned_off { Some(false) } else { stated })
}
