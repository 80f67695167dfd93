//! The template, deployed to an emulator of AWS that runs the real functions, by the commands of the page on AWS.
//!
//! The emulator runs binaries as they are: so `sam build` puts those of this test into place, and `sam deploy` packages and deploys with
//! the AWS command line, whose transform is the same. Three things it cannot do are replaced: it does not take a number that is written
//! as text, which every parameter is, for the concurrency of a queue; functions run here, so the architecture is this machine's; and the
//! archive of events, which no stack of it can have, is made beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::services::AwsEmulator;

const FUNCTIONS: [(&str, &str); 4] = [
    ("capture-s3", env!("CARGO_BIN_EXE_capture-s3")),
    ("reconcile", env!("CARGO_BIN_EXE_reconcile")),
    ("compact", env!("CARGO_BIN_EXE_compact")),
    ("restore", env!("CARGO_BIN_EXE_restore")),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn tools() -> PathBuf {
    let tools = std::env::var_os("HINDSIGHT_TOOLS").map_or_else(|| root().join(".cache/tools"), PathBuf::from);
    tools.canonicalize().expect("the tools: run ./dev setup")
}

/// The shell blocks of the page, in order.
fn page() -> String {
    let text = fs::read_to_string(root().join("docs/aws.md")).expect("the page");
    text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap_or_default()).collect()
}

/// A folder in which the commands run, and the emulator they run against.
struct Account {
    folder: tempfile::TempDir,
    emulator: AwsEmulator,
}

impl Account {
    fn new() -> Account {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let emulator = AwsEmulator::start().expect("the AWS emulator: run ./dev setup");
        let mut template = fs::read_to_string(root().join("template.yaml")).expect("the template");
        for (name, _) in FUNCTIONS {
            let binary = format!("        Binary: {name}\n    Properties:\n");
            assert!(template.contains(&binary), "{name} is a function of the template");
            template = template.replace(&binary, &format!("{binary}      CodeUri: built/{name}\n"));
        }
        let machine = root().join("functions/lambda/statemachine/restore.asl.json").canonicalize().expect("the state machine");
        let template = template
            .replace("functions/lambda/statemachine/restore.asl.json", &machine.display().to_string())
            .replace("MaximumConcurrency: !Ref CaptureConcurrency", "MaximumConcurrency: 10");
        fs::write(folder.path().join("template.yaml"), template).expect("a file");
        Account { folder, emulator }
    }

    /// Runs commands; what they print.
    fn run(&self, script: &str) -> String {
        let built: String =
            FUNCTIONS.iter().map(|(name, binary)| format!("mkdir -p built/{name}; strip -o built/{name}/bootstrap {binary}\n")).collect();
        let script = format!(
            r#"set -euo pipefail
            aws() {{ command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }}
            sam() {{ "sam_$1" "${{@:2}}"; }}
            sam_build() {{
              {built}
            }}
            sam_deploy() {{
              aws s3api create-bucket --bucket artifacts
              aws cloudformation package --template-file template.yaml --s3-bucket artifacts --output-template-file packaged.yaml >package.log
              local parameters=() name=
              while (($#)); do
                case $1 in
                  --stack-name) name=$2; shift 2 ;;
                  --capabilities) shift 2 ;;
                  --resolve-s3) shift ;;
                  --parameter-overrides) shift; parameters=("$@"); break ;;
                  *) echo "sam deploy has no $1 here"; return 1 ;;
                esac
              done
              aws cloudformation deploy --template-file packaged.yaml --stack-name "$name" --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND \
                --parameter-overrides "${{parameters[@]}}" "Architecture=$(uname -m | sed s/aarch64/arm64/)" "EndpointUrl=$AWS_ENDPOINT_URL" ||
                {{ aws cloudformation describe-stack-events --stack-name "$name"; return 1; }}
              aws events create-archive --archive-name "$name-events" --event-source-arn arn:aws:events:us-east-1:000000000000:event-bus/default \
                --event-pattern '{{"source": ["aws.s3"]}}'
            }}
            {script}"#
        );
        let hindsight = Path::new(FUNCTIONS[0].1).parent().expect("a folder");
        let path = format!("{}:{}:{}", hindsight.display(), tools().join("s3/bin").display(), std::env::var("PATH").unwrap_or_default());
        let endpoint = self.emulator.environment().find(|(name, _)| *name == "AWS_ENDPOINT_URL").expect("an endpoint").1;
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("HINDSIGHT_ENDPOINT_URL", endpoint)
            .envs(self.emulator.environment())
            .stdin(Stdio::null())
            .output()
            .expect("bash");
        let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{printed}\n{errors}");
        printed.into_owned()
    }
}

/// What the page has defined, for the scripts behind it.
const OUTPUT: &str = r#"
    output() { aws cloudformation describe-stacks --stack-name hindsight --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue" --output text; }
    export HINDSIGHT_VAULT=$(output Vault)
    # Until no message is waiting or being worked on.
    drained() {
      until [ "$(aws sqs get-queue-attributes --queue-url $(output Queue) --attribute-names All \
        --query 'Attributes.[ApproximateNumberOfMessages,ApproximateNumberOfMessagesNotVisible]' --output text)" = "0	$1" ]; do sleep 0.3; done
    }
"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_happens_in_a_bucket_goes_through_the_functions_and_back() {
    let account = Account::new();
    let told = account.run(&page());
    assert!(told.contains("SUCCEEDED") && told.contains("\"status\": \"COMPLETED\""), "{told}");
    assert!(told.lines().any(|line| line.ends_with("6 one.txt")), "it was removed, and is restored\n{told}");
    assert!(told.lines().any(|line| line.starts_with("replay hindsight-") && line.ends_with(": COMPLETED")), "{told}");

    // From events alone: no listing has been since.
    let told = account.run(&format!(
        "{OUTPUT}
        drained 0
        echo second > two.txt; aws s3 cp two.txt s3://photos/two.txt --no-progress; drained 0
        hindsight history s3://photos/two.txt --json"
    ));
    let told = told.lines().filter(|line| line.starts_with('{')).map(json).collect::<Vec<_>>();
    assert!(
        told.iter().any(|change| change["via"] == "event" || change["stream"].as_str().is_some_and(|s| s.starts_with("sqs:"))),
        "{told:?}"
    );

    // What is no event is kept whole, and holds nothing up; what comes again changes nothing.
    let told = account.run(&format!(
        "{OUTPUT}
        aws sqs send-message --queue-url $(output Queue) --message-body 'no event at all' >sent.json; drained 0
        hindsight dead-letters --json
        before=$(hindsight history s3://photos/two.txt --json | wc -l)
        event='{{\"version\":\"0\",\"id\":\"1\",\"detail-type\":\"Object Created\",\"source\":\"aws.s3\",\"account\":\"1\",\"time\":\"2026-01-01T00:00:00Z\",\"region\":\"us-east-1\",\"resources\":[],\"detail\":{{\"version\":\"0\",\"bucket\":{{\"name\":\"photos\"}},\"object\":{{\"key\":\"two.txt\",\"size\":7,\"etag\":\"x\",\"sequencer\":\"00\"}},\"request-id\":\"r\",\"requester\":\"1\",\"reason\":\"PutObject\"}}}}'
        for i in 1 2 3; do aws sqs send-message --queue-url $(output Queue) --message-body \"$event\" >sent.json; done; drained 0
        echo \"same: $before $(hindsight history s3://photos/two.txt --json | wc -l)\""
    ));
    assert!(told.contains("the message is not JSON of the expected shape"), "{told}");
    let same = told.lines().find_map(|line| line.strip_prefix("same: ")).expect("counts");
    let (before, after) = same.split_once(' ').expect("two counts");
    assert_eq!(before, after, "{told}");

    // A rule that was off: what was put meanwhile and still exists is found by a listing.
    let told = account.run(&format!(
        "{OUTPUT}
        rule=$(aws events list-rules --query 'Rules[0].Name' --output text)
        aws events disable-rule --name $rule
        echo third > three.txt; aws s3 cp three.txt s3://photos/three.txt --no-progress
        sleep 3; aws lambda invoke --function-name $(output ReconcileFunctionName) --payload '{{\"resource\": \"s3://photos\"}}' answer.json >invoked.json
        aws events enable-rule --name $rule
        cat answer.json"
    ));
    let answer = json(told.lines().last().unwrap_or_default());
    assert_eq!(answer["readings"]["arn:aws:s3:::photos"]["found"], 1, "{told}");

    // A replay of everything changes nothing of what is known.
    let told = account.run(&format!(
        "{OUTPUT}
        echo \"before: $(hindsight history s3://photos/ --recursive --json | wc -l)\"
        hindsight replay --archive hindsight-events --rule $(output EventsRule) --from '1h ago' --to '1s ago' --json
        sleep 3; drained 0
        echo \"after: $(hindsight history s3://photos/ --recursive --json | wc -l)\""
    ));
    let count = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(count("before: "), count("after: "), "{told}");
    assert!(told.contains("\"state\":\"COMPLETED\""), "{told}");

    // A compaction, and a restore of what it made.
    let told = account.run(&format!(
        "{OUTPUT}
        aws lambda invoke --function-name $(output CompactFunctionName) --payload '{{}}' compacted.json >invoked.json; cat compacted.json; echo
        aws lambda invoke --function-name $(output RestoreFunctionName) \
          --payload '{{\"resource\": \"s3://photos\", \"to\": \"latest\", \"target\": \"s3://photos-restored/all\", \"mode\": \"overwrite\"}}' answer.json >invoked.json
        cat answer.json; echo; aws s3 ls s3://photos-restored/all/"
    ));
    assert!(told.contains("\"arn:aws:s3:::photos\"") && told.contains("\"done\": true"), "{told}");
    for object in ["two.txt", "three.txt"] {
        assert!(told.lines().any(|line| line.ends_with(object)), "{object}: {told}");
    }

    // What cannot be done is refused in words, and the state machine says of which kind it is.
    let refused = |request: &str| {
        account.run(&format!(
            "{OUTPUT}
            arn=$(aws stepfunctions start-execution --state-machine-arn $(output Restore) --input '{request}' --query executionArn --output text)
            until [ \"$(aws stepfunctions describe-execution --execution-arn $arn --query status --output text)\" != RUNNING ]; do sleep 0.3; done
            aws stepfunctions describe-execution --execution-arn $arn --query '[status,error,cause,output]' --output text"
        ))
    };
    for (request, kind, reason) in [
        (r#"{"resource": "s3://photos", "to": "2001-01-01T00:00:00Z", "target": "s3://photos-restored"}"#, "Refused", "2001-01-01"),
        (r#"{"resource": "s3://photos", "to": "latest", "target": "s3://photos-restored"}"#, "Refused", "mode"),
        (r#"{"resource": "s3://photos", "to": "latest", "target": "s3://photos-restored", "mode": "exact"}"#, "Refused", "yes"),
        (r#"{"resource": "s3://photos", "to": "latest", "target": "/tmp/files"}"#, "InvalidRequest", "buckets to buckets"),
        (r#"{"resource": "s3://photos", "to": "latest", "targte": "s3://photos-restored"}"#, "InvalidRequest", "targte"),
    ] {
        let told = refused(request);
        assert!(told.contains("FAILED") && told.contains(kind) && told.contains(reason), "{request}: {told}");
    }
    let told = refused(r#"{"resource": "s3://photos", "to": "latest", "target": "s3://photos-restored/none", "key": ["never.txt"]}"#);
    assert!(told.contains("NothingMatched"), "{told}");
}
