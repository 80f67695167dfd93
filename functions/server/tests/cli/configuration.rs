//! A bucket's policy, lifecycle and tags are changed while it is kept, and come out of the vault as they were.

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, Tag, Tagging,
};
use serde_json::Value;
use tests::services::AwsEmulator;

use super::stories::a_quiet_second;
use super::world::World;

const BUCKET: &str = "cli-configuration";
const URL: &str = "s3://cli-configuration";

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_of_a_configuration_are_got_back_as_they_were_at_any_time() {
    let emulator = AwsEmulator::shared().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let world = World::new(emulator, BUCKET, true).await;
    world.put("a", "content").await;
    let closed = set_policy(&world, "Deny").await;
    set_tags(&world, Some("gold")).await;
    world.program.ok(&["protect", URL, "--vault", "./vault", "--events", "list:1"]);
    let serving = world.program.serve(&["--vault", "./vault"]);
    world.program.ok(&["status", "--vault", "./vault", "--wait"]);
    let first = a_quiet_second().await;
    let open = set_policy(&world, "Allow").await;
    set_tags(&world, None).await;
    set_lifecycle(&world).await;
    world.program.ok(&["status", "--vault", "./vault", "--wait"]);
    let second = a_quiet_second().await;
    world.client.delete_bucket_policy().bucket(&world.bucket).send().await.expect("a policy is removed");
    world.program.ok(&["status", "--vault", "./vault", "--wait"]);
    // It is known to be gone from when that was read, which is behind all that the same listing proves.
    a_quiet_second().await;
    world.program.ok(&["status", "--vault", "./vault", "--wait"]);
    assert_ne!(closed, open);

    for made in ["no base", "a base"] {
        println!("{made}");
        assert_eq!(names(&world, &["--at", &first]), ["policy", "tagging", "versioning"]);
        assert_eq!(names(&world, &["--at", &second]), ["lifecycle", "policy", "versioning"]);
        assert_eq!(names(&world, &[]), ["lifecycle", "versioning"]);
        assert_eq!(shown(&world, &["policy", "--at", &first]), closed);
        assert_eq!(shown(&world, &["policy", "--at", &second]), open);
        assert!(shown(&world, &["tagging", "--at", &first]).contains("<Value>gold</Value>"));
        assert!(shown(&world, &["lifecycle"]).contains("<Days>90</Days>"));
        world.program.ok(&["compact", URL, "--vault", "./vault", "--base-now"]);
    }
    for (arguments, head) in [(&["--at", &first][..], "document"), (&["--history"], "when")] {
        let people = shown(&world, arguments);
        assert!(people.starts_with(head) && people.lines().skip(1).any(|line| line.contains("policy")), "{people}");
    }
    let document = &json(&world, &["policy", "--at", &first])[0];
    assert_eq!((document["name"].as_str(), document["document"].as_str()), (Some("policy"), Some(&*closed)), "{document}");
    assert_eq!(document["size"].as_u64(), Some(closed.len() as u64), "{document}");

    tells_the_history(&world, &first, &second);
    refuses_what_was_not_there(&world, &second);
    assert_eq!(serving.stop(), 0);
}

fn tells_the_history(world: &World, first: &str, second: &str) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = |name: &str| -> Vec<(String, String)> {
        json(world, &[name, "--history"]).iter().map(|line| (text(&line["at"]), text(&line["change"]))).collect()
    };
    let policy = told("policy");
    assert_eq!(policy.iter().map(|(_, change)| change.as_str()).collect::<Vec<_>>(), ["set", "changed", "removed"]);
    assert!(&*policy[0].0 < first && first < &*policy[1].0 && &*policy[1].0 < second && second < &*policy[2].0, "{policy:?}");
    assert_eq!(told("tagging").iter().map(|(_, change)| change.as_str()).collect::<Vec<_>>(), ["set", "removed"]);
    let all = json(world, &["--history"]);
    let told: Vec<(String, String)> = all.iter().map(|line| (text(&line["name"]), text(&line["change"]))).collect();
    assert_eq!(told.iter().filter(|(name, _)| is_set_here(name)).count(), 3 + 2 + 1 + 1, "with the lifecycle and the versioning: {told:?}");
    let nothing = shown(world, &["cors", "--history"]);
    assert_eq!(nothing, "the vault knows of no change of a document cors\n");
}

fn refuses_what_was_not_there(world: &World, second: &str) {
    for (arguments, code, expected) in [
        (&["policy"][..], 4, "there was no document \"policy\" at "),
        (&["policy"], 4, ": it was gone by "),
        (&["policy"], 4, "; there were: encryption, lifecycle, "),
        (&["cors", "--at", second], 4, ", policy, versioning"),
        (&["--at", "2001-01-01T00:00:00Z"], 4, "the earliest restorable time is"),
        (&["--at", second, "--history"], 2, "cannot be used with"),
        (&["--at", "yesterday"], 2, "is not a time"),
    ] {
        let ended = world.program.run(&call(arguments));
        assert_eq!((ended.code, ended.output.as_str()), (code, ""), "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains(expected), "{arguments:?}: {}", ended.errors);
    }
    let inside = world.program.run(&["configuration", &format!("{URL}/a"), "--vault", "./vault"]);
    assert_eq!((inside.code, inside.errors.contains("names more than a bucket")), (2, true), "{}", inside.errors);
}

fn call<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["configuration", URL], arguments, &["--vault", "./vault"]].concat()
}

fn shown(world: &World, arguments: &[&str]) -> String {
    world.program.ok(&call(arguments))
}

fn json(world: &World, arguments: &[&str]) -> Vec<Value> {
    world.program.json(&call(arguments))
}

/// The documents that there are, but those that every bucket of this server has.
fn names(world: &World, arguments: &[&str]) -> Vec<String> {
    let names = json(world, arguments).into_iter().map(|line| line["name"].as_str().unwrap_or_default().to_owned());
    names.filter(|name| is_set_here(name)).collect()
}

fn is_set_here(name: &str) -> bool {
    !["encryption", "ownership"].contains(&name)
}

/// Sets a policy, and says what the server makes of it.
async fn set_policy(world: &World, effect: &str) -> String {
    let World { client, bucket, .. } = world;
    let policy = format!(
        "{{\"Version\": \"2012-10-17\",\n  \"Statement\": [{{\"Effect\": \"{effect}\", \"Principal\": \"*\", \"Action\": \"s3:PutObjectAcl\", \
         \"Resource\": \"arn:aws:s3:::{bucket}/*\"}}]}}"
    );
    client.put_bucket_policy().bucket(bucket).policy(policy).send().await.expect("a policy");
    let found = client.get_bucket_policy().bucket(bucket).send().await.expect("a policy");
    found.policy().expect("a policy").to_owned()
}

async fn set_tags(world: &World, tier: Option<&str>) {
    let World { client, bucket, .. } = world;
    match tier {
        Some(tier) => {
            let tag = Tag::builder().key("tier").value(tier).build().expect("a tag");
            let tags = Tagging::builder().tag_set(tag).build().expect("tags");
            client.put_bucket_tagging().bucket(bucket).tagging(tags).send().await.map(drop).expect("tags");
        }
        None => client.delete_bucket_tagging().bucket(bucket).send().await.map(drop).expect("tags are removed"),
    }
}

async fn set_lifecycle(world: &World) {
    let rule = LifecycleRule::builder()
        .id("old")
        .filter(LifecycleRuleFilter::builder().prefix("old/").build())
        .expiration(LifecycleExpiration::builder().days(90).build())
        .status(ExpirationStatus::Enabled);
    let rules = BucketLifecycleConfiguration::builder().rules(rule.build().expect("a rule")).build().expect("rules");
    let World { client, bucket, .. } = world;
    client.put_bucket_lifecycle_configuration().bucket(bucket).lifecycle_configuration(rules).send().await.expect("a lifecycle");
}
