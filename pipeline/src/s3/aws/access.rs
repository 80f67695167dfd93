//! Tags and access control lists, between the SDK's types and ours.

use aws_sdk_s3::error::BuildError;
use aws_sdk_s3::types::{self, AccessControlPolicy, Grantee, Owner, Permission, Tag, Tagging, Type};

use crate::s3::{Acl, Grant, Tags};

/// The tags of a tag set.
pub(super) fn tags(set: &[Tag]) -> Tags {
    set.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

/// A tag set of these tags.
pub(super) fn tagging(tags: &Tags) -> Result<Tagging, BuildError> {
    let set = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect::<Result<Vec<_>, _>>()?;
    Tagging::builder().set_tag_set(Some(set)).build()
}

/// An ACL as the SDK gives it; nothing if a grant names nobody or no permission.
pub(super) fn acl(owner: Option<&Owner>, grants: &[types::Grant]) -> Option<Acl> {
    let mut ours = grants.iter().map(grant).collect::<Option<Vec<_>>>()?;
    ours.sort();
    Some(Acl { owner: owner.and_then(|owner| owner.id()).map(str::to_owned), grants: ours })
}

fn grant(grant: &types::Grant) -> Option<Grant> {
    let grantee = grant.grantee()?;
    let who = match (grantee.id(), grantee.uri(), grantee.email_address()) {
        (Some(id), _, _) => format!("id={id}"),
        (None, Some(uri), _) => format!("uri={uri}"),
        (None, None, Some(email)) => format!("email={email}"),
        (None, None, None) => return None,
    };
    Some(Grant { grantee: who, permission: grant.permission()?.as_str().to_owned() })
}

/// An ACL as the SDK takes it; nothing if a grantee is none of `id=`, `uri=`, `email=`.
pub(super) fn policy(acl: &Acl, owner: String) -> Option<AccessControlPolicy> {
    let grants = acl.grants.iter().map(sdk_grant).collect::<Option<Vec<_>>>()?;
    Some(AccessControlPolicy::builder().owner(Owner::builder().id(owner).build()).set_grants(Some(grants)).build())
}

fn sdk_grant(grant: &Grant) -> Option<types::Grant> {
    let (form, who) = grant.grantee.split_once('=')?;
    let grantee = match form {
        "id" => Grantee::builder().r#type(Type::CanonicalUser).id(who),
        "uri" => Grantee::builder().r#type(Type::Group).uri(who),
        "email" => Grantee::builder().r#type(Type::AmazonCustomerByEmail).email_address(who),
        _ => return None,
    };
    Some(types::Grant::builder().grantee(grantee.build().ok()?).permission(Permission::from(grant.permission.as_str())).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_survives_the_way_to_the_sdk_and_back() {
        let grant = |grantee: &str, permission: &str| Grant { grantee: grantee.to_owned(), permission: permission.to_owned() };
        let ours = Acl {
            owner: Some("o".to_owned()),
            grants: vec![
                grant("email=a@example.com", "READ_ACP"),
                grant("id=o", "FULL_CONTROL"),
                grant("uri=http://acs.amazonaws.com/groups/global/AllUsers", "READ"),
            ],
        };
        let theirs = policy(&ours, "o".to_owned()).unwrap();
        assert_eq!(acl(theirs.owner(), theirs.grants()), Some(ours));
    }

    #[test]
    fn a_grant_to_nobody_is_not_left_out() {
        let nobody = Acl { owner: None, grants: vec![Grant { grantee: "group".to_owned(), permission: "READ".to_owned() }] };
        assert!(policy(&nobody, "o".to_owned()).is_none());
        assert_eq!(acl(None, &[types::Grant::builder().permission(Permission::Read).build()]), None);
    }

    #[test]
    fn tags_survive_the_way_to_the_sdk_and_back() {
        let ours = Tags::from([("k".to_owned(), "v".to_owned()), ("empty".to_owned(), String::new())]);
        assert_eq!(tags(tagging(&ours).unwrap().tag_set()), ours);
    }
}
