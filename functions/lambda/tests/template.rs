//! What `template.yaml` gives to whom: read as the YAML that it is, before any transform.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The template as JSON, with its functions written out (`{"Fn::GetAtt": ["A", "Arn"]}`).
fn template() -> Value {
    let tools = std::env::var_os("HINDSIGHT_TOOLS").map_or_else(|| root().join(".cache/tools"), PathBuf::from);
    let script = "import json, sys\nfrom samtranslator.yaml_helper import yaml_parse\njson.dump(yaml_parse(open(sys.argv[1])), sys.stdout)";
    let output = Command::new(tools.join("aws/bin/python"))
        .args(["-c", script])
        .arg(root().join("template.yaml"))
        .output()
        .expect("python: run ./dev setup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn resources(template: &Value) -> BTreeMap<&str, &Value> {
    template["Resources"].as_object().expect("resources").iter().map(|(name, resource)| (name.as_str(), resource)).collect()
}

/// One value, or the values of a list.
fn each(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    }
}

/// The statements of a document, those under a condition included.
fn statements(document: &Value) -> Vec<&Value> {
    each(&document["Statement"]).into_iter().map(|statement| statement.get("Fn::If").map_or(statement, |either| &either[1])).collect()
}

/// Everything that a role may do: actions, each with the resource it is for.
fn rights(resources: &BTreeMap<&str, &Value>, role: &str) -> BTreeSet<(String, String)> {
    let properties = &resources[role]["Properties"];
    let managed = each(&properties["ManagedPolicyArns"]).into_iter().map(|policy| {
        let name = policy["Ref"].as_str().expect("a policy of this template");
        &resources[name]["Properties"]["PolicyDocument"]
    });
    let own =
        each(&properties["Policies"]).into_iter().map(|policy| &policy.get("Fn::If").map_or(policy, |either| &either[1])["PolicyDocument"]);
    let mut rights = BTreeSet::new();
    for statement in managed.chain(own).flat_map(statements) {
        assert_eq!(statement["Effect"], "Allow");
        for action in each(&statement["Action"]) {
            for resource in each(&statement["Resource"]) {
                rights.insert((action.as_str().expect("an action").to_owned(), resource.to_string()));
            }
        }
    }
    rights
}

const ROLES: [(&str, &str); 4] = [
    ("CaptureS3Function", "CaptureS3Role"),
    ("ReconcileFunction", "ReconcileRole"),
    ("CompactFunction", "CompactRole"),
    ("RestoreFunction", "RestoreRole"),
];

#[test]
fn every_function_has_a_role_of_its_own_and_every_binary_is_one() {
    let template = template();
    let resources = resources(&template);
    let of_type = |sought: &str| {
        resources.iter().filter(move |(_, resource)| resource["Type"] == sought).map(|(name, _)| *name).collect::<BTreeSet<_>>()
    };
    assert_eq!(of_type("AWS::Serverless::Function"), ROLES.iter().map(|(function, _)| *function).collect());
    for (function, role) in ROLES {
        let properties = &resources[function]["Properties"];
        assert_eq!(properties["Role"]["Fn::GetAtt"][0], role);
        for setting in ["MemorySize", "Timeout", "ReservedConcurrentExecutions", "LoggingConfig"] {
            assert!(!properties[setting].is_null(), "{function} has {setting}");
        }
    }
    let built: BTreeSet<String> = ROLES
        .iter()
        .map(|(function, _)| resources[function]["Metadata"]["BuildProperties"]["Binary"].as_str().expect("a binary").to_owned())
        .collect();
    let bins = fs::read_dir(root().join("functions/lambda/src/bin")).expect("binaries");
    let bins = bins.map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    assert_eq!(built, bins);
}

#[test]
fn nobody_may_delete_from_the_vault_and_only_restores_may_write_elsewhere() {
    let template = template();
    let resources = resources(&template);
    let vault = |resource: &str| resource.contains("VaultBucket");
    for (function, role) in ROLES {
        let rights = rights(&resources, role);
        let may =
            |action: &str, place: &dyn Fn(&str) -> bool| rights.iter().any(|(allowed, resource)| allowed == action && place(resource));
        for (action, resource) in &rights {
            assert!(!action.contains('*') && resource != "\"*\"", "{function} may {action} on {resource}: name what it needs");
            let writes = ["s3:Put", "s3:Delete", "s3:Create", "s3:Bypass", "s3:Restore"].iter().any(|verb| action.starts_with(verb));
            let is_target = function == "RestoreFunction" && resource.contains("RestoreTargets");
            assert!(!writes || is_target || action == "s3:PutObject" && vault(resource), "{function} may {action} on {resource}");
            assert!(!action.starts_with("s3:Delete") || is_target);
        }
        assert!(
            may("s3:GetObject", &vault) && may("s3:ListBucket", &vault) && may("kms:Decrypt", &|resource| resource.contains("VaultKey"))
        );
        let reads_buckets = may("s3:GetObjectVersion", &|resource| resource.contains("\"Buckets\""));
        assert_eq!(reads_buckets, ["CaptureS3Function", "ReconcileFunction"].contains(&function), "{function}");
        let reads_queue = rights.iter().any(|(action, _)| action.starts_with("sqs:"));
        assert_eq!(reads_queue, function == "CaptureS3Function");
    }
    let restore = rights(&resources, "RestoreRole");
    let added: Vec<_> = restore.iter().filter(|(action, resource)| action == "s3:PutObject" && vault(resource)).collect();
    assert!(added.len() == 1 && added[0].1.contains("/state/*"), "a restore adds its notes, and nothing else: {added:?}");
}

#[test]
fn services_act_for_this_account_and_these_resources_only() {
    let template = template();
    let resources = resources(&template);
    let mut seen = 0;
    for (name, resource) in &resources {
        let properties = &resource["Properties"];
        for document in [&properties["AssumeRolePolicyDocument"], &properties["PolicyDocument"], &properties["KeyPolicy"]] {
            for statement in statements(document) {
                let Some(service) = statement["Principal"]["Service"].as_str() else { continue };
                seen += 1;
                let condition = statement["Condition"].to_string();
                assert!(condition.contains("aws:SourceAccount"), "{name} lets {service} act for any account");
                // Who calls a function's role is the function that has it.
                assert!(
                    service == "lambda.amazonaws.com" || condition.contains("aws:SourceArn"),
                    "{name} lets {service} act for any resource"
                );
            }
        }
    }
    assert_eq!(seen, 9, "four functions, the schedules, the state machine, two queues and the access log");
    let is_denied_in_clear = |bucket: &str| {
        resources.values().any(|resource| {
            resource["Type"] == "AWS::S3::BucketPolicy"
                && resource["Properties"]["Bucket"]["Ref"] == bucket
                && statements(&resource["Properties"]["PolicyDocument"])
                    .iter()
                    .any(|statement| statement["Effect"] == "Deny" && statement["Condition"]["Bool"]["aws:SecureTransport"] == "false")
        })
    };
    for (name, resource) in resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::S3::Bucket") {
        let properties = &resource["Properties"];
        assert!(is_denied_in_clear(name), "{name} may be reached without TLS");
        assert_eq!(properties["VersioningConfiguration"]["Status"], "Enabled");
        assert_eq!(properties["PublicAccessBlockConfiguration"].as_object().map(|all| all.values().all(|on| on == true)), Some(true));
        assert!(!properties["BucketEncryption"].is_null());
        assert_eq!((&resource["DeletionPolicy"], &resource["UpdateReplacePolicy"]), (&"Retain".into(), &"Retain".into()));
    }
    assert_eq!(resources["VaultBucket"]["Properties"]["ObjectLockEnabled"], true);
    assert!(
        resources["VaultBucket"]["Properties"]["ObjectLockConfiguration"].is_null(),
        "no default retention, which would keep every small segment"
    );
    assert_eq!(resources["VaultKey"]["Properties"]["EnableKeyRotation"], true);
}

#[test]
fn what_waits_in_the_queue_waits_as_long_as_a_call_may_take() {
    let template = template();
    let resources = resources(&template);
    let queue = &resources["EventsQueue"]["Properties"];
    let timeout = resources["CaptureS3Function"]["Properties"]["Timeout"].as_u64().expect("seconds");
    // AWS Lambda, "Using Lambda with Amazon SQS": six times the timeout of the function.
    assert!(queue["VisibilityTimeout"].as_u64() >= Some(6 * timeout));
    assert_eq!(queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0], "EventsDeadLetters");
    let events = &resources["CaptureS3Function"]["Properties"]["Events"]["Messages"]["Properties"];
    assert_eq!(events["FunctionResponseTypes"], serde_json::json!(["ReportBatchItemFailures"]), "one bad message must not bring all back");
    // The pattern names the protected buckets, so that what is written into the vault calls nobody.
    for rule in ["BucketEvents", "EventsArchive"] {
        assert_eq!(resources[rule]["Properties"]["EventPattern"]["detail"]["bucket"]["name"]["Ref"], "Buckets");
    }
}
