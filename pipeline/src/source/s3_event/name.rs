//! What an event says was done, by the name of its type.

use super::outcome::{Ignored, RejectReason, excerpt};

/// What was done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// An object or a version of it was put.
    Put,
    /// A delete marker was put.
    Marker,
    /// A version, or the object of a bucket without versions, is gone.
    Purge,
    /// Versions are gone or hidden; which and how many is not said.
    Gone,
    /// All versions are gone.
    Emptied,
    Tags,
    Acl,
    Class,
    Nothing(Ignored),
}

/// What an EventBridge event says.
pub(super) fn of_detail_type(detail_type: &str, deletion_type: Option<&str>) -> Result<Action, RejectReason> {
    Ok(match detail_type {
        "Object Created" => Action::Put,
        "Object Deleted" => match deletion_type {
            Some("Delete Marker Created") => Action::Marker,
            Some("Permanently Deleted") => Action::Purge,
            None => Action::Gone,
            Some(other) => {
                return Err(RejectReason::Type { name: format!("Object Deleted, {}", excerpt(other)) });
            }
        },
        "Object Tags Added" | "Object Tags Deleted" => Action::Tags,
        "Object ACL Updated" => Action::Acl,
        "Object Storage Class Changed" => Action::Class,
        "Object Access Tier Changed" => Action::Nothing(Ignored::AccessTier),
        "Object Restore Initiated" | "Object Restore Completed" | "Object Restore Expired" => Action::Nothing(Ignored::Restore),
        "Object Annotation Created" | "Object Annotation Removed" => Action::Nothing(Ignored::Annotation),
        "AWS API Call via CloudTrail" => Action::Nothing(Ignored::CloudTrail),
        _ => {
            return Err(RejectReason::Type { name: excerpt(detail_type) });
        }
    })
}

/// What a notification says. Some releases of RustFS write the names without colons.
pub(super) fn of_event_name(event_name: &str) -> Result<Action, RejectReason> {
    let name = event_name.strip_prefix("s3:").unwrap_or(event_name);
    Ok(match name {
        "ObjectCreated:Put" | "ObjectCreated:Post" | "ObjectCreated:Copy" | "ObjectCreated:CompleteMultipartUpload" => Action::Put,
        "ObjectCreatedPut" | "ObjectCreatedPost" | "ObjectCreatedCopy" | "ObjectCreatedCompleteMultipartUpload" => Action::Put,
        // Ceph: an object that came from another zone.
        "ObjectSynced:Create" | "Replication:Create" => Action::Put,

        "ObjectRemoved:DeleteMarkerCreated" | "ObjectRemovedDeleteMarkerCreated" | "LifecycleExpiration:DeleteMarkerCreated" => {
            Action::Marker
        }
        "ObjectSynced:DeletionMarkerCreated" | "Replication:DeletionMarkerCreated" => Action::Marker,

        "ObjectRemoved:Delete" | "ObjectRemovedDelete" | "LifecycleExpiration:Delete" => Action::Purge,
        "LifecycleExpiration:DeleteMarkerDeleted" | "ObjectRemoved:DeleteMarkerDeleted" => Action::Purge,
        "ObjectLifecycle:Expiration:NonCurrent" | "ObjectLifecycle:Expiration:Noncurrent" => Action::Purge,
        "ObjectLifecycle:Expiration:DeleteMarker" | "ObjectSynced:Delete" | "Replication:Delete" => Action::Purge,

        // Of a versioned bucket this makes a delete marker, of any other it removes the object; the event does not say.
        "ObjectLifecycle:Expiration:Current" => Action::Gone,
        "ObjectRemoved:DeleteAllVersions" | "ObjectRemovedDeleteAllVersions" | "LifecycleDelMarkerExpiration:Delete" => Action::Emptied,

        "ObjectTagging:Put" | "ObjectTagging:Delete" | "ObjectTaggingPut" | "ObjectTaggingDelete" => Action::Tags,
        "ObjectCreated:PutTagging" | "ObjectCreated:DeleteTagging" => Action::Tags,
        "ObjectAcl:Put" | "ObjectAclPut" => Action::Acl,
        "LifecycleTransition" | "ObjectTransition:Complete" => Action::Class,
        "ObjectLifecycle:Transition:Current" => Action::Class,
        "ObjectLifecycle:Transition:NonCurrent" | "ObjectLifecycle:Transition:Noncurrent" => Action::Class,

        "TestEvent" => Action::Nothing(Ignored::TestEvent),
        "IntelligentTiering" => Action::Nothing(Ignored::AccessTier),
        "ReducedRedundancyLostObject" => Action::Nothing(Ignored::LostObject),
        "ObjectCreated:PutRetention" | "ObjectCreated:PutLegalHold" | "ObjectRetention:Put" => Action::Nothing(Ignored::Retention),
        "ObjectTransition:Failed" | "ObjectRemoved:NoOP" => Action::Nothing(Ignored::Housekeeping),
        "ObjectRemoved:AbortMultipartUpload" | "ObjectCreated:CreateMultipartUpload" => Action::Nothing(Ignored::Housekeeping),
        "ObjectLifecycle:Expiration:AbortMultipartUpload" | "ObjectLifecycle:Expiration:AbortMPU" => Action::Nothing(Ignored::Housekeeping),
        _ => match name.split_once(':').map_or(name, |(family, _)| family) {
            "ObjectRestore" => Action::Nothing(Ignored::Restore),
            "ObjectAnnotation" => Action::Nothing(Ignored::Annotation),
            "ObjectAccessed" => Action::Nothing(Ignored::Access),
            "Replication" => Action::Nothing(Ignored::Replication),
            "BucketCreated" | "BucketRemoved" => Action::Nothing(Ignored::Bucket),
            "Scanner" => Action::Nothing(Ignored::Housekeeping),
            _ => {
                return Err(RejectReason::Type { name: excerpt(event_name) });
            }
        },
    })
}
