//! What a person hears when a server, its certificate, the credentials or a name are not what they should be: what it is
//! and what to do, soon, and never a library's words.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tests::services::AwsEmulator;

use super::program::{Ended, Program};
use super::world::{World, make_bucket, seaweed};

/// Nothing may take longer to say that nobody is there, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// Words that only a library's error has.
const LIBRARY_WORDS: [&str; 7] =
    ["dispatch failure", "Generic S3 error", "ConnectorError", "SdkError", "service error", "hyper", "os error"];

/// A command, and what it must say.
fn check(program: &Program, arguments: &[&str], expected: &str) {
    #[expect(clippy::disallowed_methods, reason = "a person waits here, by the clock on the wall")]
    let began = Instant::now();
    let Ended { code, errors, .. } = program.run(arguments);
    assert!(code == 1 || code == 4, "{arguments:?} ended with {code}: {errors}");
    assert!(errors.contains(expected), "{arguments:?}: {errors}");
    for word in LIBRARY_WORDS {
        assert!(!errors.contains(word), "{arguments:?}: {word} in {errors}");
    }
    assert!(began.elapsed() < PATIENCE, "{arguments:?} took {:?}", began.elapsed());
}

/// The same of a bucket to protect and of a bucket with a vault.
fn check_both(program: &Program, url: &str, bucket: &str, expected: &str) {
    check(program, &["protect", &format!("s3://{bucket}"), "--vault", "./v/x", "--events", "list", "--endpoint", url], expected);
    check(program, &["ls", "s3://photos", "--vault", &format!("s3://{bucket}/x"), "--endpoint-url", url], expected);
}

fn with_keys() -> Program {
    Program::new().with([("AWS_ACCESS_KEY_ID", "nobody"), ("AWS_SECRET_ACCESS_KEY", "nothing")])
}

/// A port at which nobody listens.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

#[test]
fn a_server_that_is_not_there() {
    let program = with_keys();
    check_both(&program, &format!("http://{}", free_port()), "photos", "the connection was refused; check the port");
    check_both(&program, "http://no-such-host.invalid", "photos", "no such host is known; check the name in the URL");
}

#[test]
fn a_server_that_takes_connections_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    check_both(&with_keys(), &format!("http://{}", listener.local_addr().expect("an address")), "photos", "no answer came in time");
}

#[test]
fn a_host_that_takes_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    // Whoever comes when as many wait as may is not answered at all, as by a firewall.
    let mut waiting = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(connection);
        assert!(waiting.len() < 10_000, "this system lets everybody wait");
    }
    check_both(&with_keys(), &format!("http://{address}"), "photos", "no connection came about in time");
}

#[test]
fn a_server_that_speaks_no_tls_or_nothing_else() {
    let weed = seaweed();
    check_both(&with_keys(), &weed.endpoint().replace("http://", "https://"), "photos", "it does not speak TLS; write http://");
}

#[test]
fn a_certificate_that_nobody_here_has_signed() {
    let folder = tempfile::tempdir().expect("a folder");
    let openssl = |arguments: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        command.args(arguments).current_dir(folder.path()).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        command
    };
    let made = openssl(&["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "k.pem", "-out", "c.pem", "-days", "1"])
        .args(["-subj", "/CN=localhost", "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"])
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("openssl is not there: that a certificate is not trusted is not tried here");
        return;
    }
    let port = free_port().port();
    let mut server = openssl(&["s_server", "-quiet", "-www", "-cert", "c.pem", "-key", "k.pem", "-accept", &port.to_string()])
        .spawn()
        .expect("openssl runs");
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(server.try_wait().expect("a process").is_none(), "openssl serves");
        std::thread::yield_now();
    }
    let url = format!("https://localhost:{port}");
    check_both(&with_keys(), &url, "photos", "its certificate is not trusted (");
    // Once somebody vouches for it, it is only no S3 server.
    let authority = folder.path().join("c.pem");
    let trusting = with_keys().with([("SSL_CERT_FILE", authority.to_str().expect("a plain path"))]);
    let ended = trusting.run(&["protect", "s3://photos", "--vault", "./v/x", "--events", "list", "--endpoint", &url]);
    server.kill().expect("it can be killed");
    server.wait().expect("it ends");
    assert!(ended.code != 0 && !ended.errors.contains("certificate"), "{}", ended.errors);
}

#[test]
fn credentials_that_are_missing_or_wrong() {
    let weed = seaweed();
    let mut environment: Vec<(&str, &str)> = weed.environment().collect();
    check_both(
        &Program::new().with([("AWS_EC2_METADATA_DISABLED", "true")]),
        weed.endpoint(),
        "photos",
        "there are no credentials; set AWS_ACCESS_KEY_ID",
    );
    check_both(&with_keys(), weed.endpoint(), "photos", "the access key is not known there; check AWS_ACCESS_KEY_ID");
    environment.retain(|(name, _)| *name != "AWS_SECRET_ACCESS_KEY");
    let wrong = Program::new().with(environment).with([("AWS_SECRET_ACCESS_KEY", "wrong")]);
    check_both(&wrong, weed.endpoint(), "photos", "the secret key does not belong to the access key");
    let profile = Program::new().with([("AWS_EC2_METADATA_DISABLED", "true")]);
    check(
        &profile,
        &["protect", "s3://photos", "--vault", "./v/x", "--events", "list", "--endpoint", weed.endpoint(), "--profile", "nope"],
        "with profile nope: there are no credentials",
    );
}

#[test]
fn a_profile_that_is_named_goes_over_the_keys_of_the_environment() {
    let weed = seaweed();
    let credentials = tempfile::NamedTempFile::new().expect("a file");
    let key = |name: &str| weed.environment().find(|(known, _)| *known == name).map(|(_, value)| value).expect("the server has keys");
    let lines = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| format!("{} = {}\n", name.to_lowercase(), key(name)));
    std::fs::write(credentials.path(), format!("[weed]\n{}", lines.concat())).expect("it is written");
    let program = with_keys().with([("AWS_SHARED_CREDENTIALS_FILE", credentials.path().to_str().expect("a path"))]);
    let with_profile = |profile, expected: &str| {
        let arguments = ["protect", "s3://no-such-bucket-here", "--vault", "./v/x", "--events", "list", "--endpoint", weed.endpoint()];
        check(&program, &[&arguments[..], &["--profile", profile]].concat(), expected);
    };
    with_profile("weed", "there is no such bucket; check its name");
    with_profile("nope", "with profile nope: there are no credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_and_queues_that_are_not_there() {
    let emulator = AwsEmulator::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let program = Program::new().with(emulator.environment());
    check_both(&program, emulator.endpoint(), "no-such-bucket-here", "there is no such bucket; check its name");
    let weed = seaweed();
    check_both(&Program::new().with(weed.environment()), weed.endpoint(), "no-such-bucket-here", "there is no such bucket; check its name");

    let world = World::new(&emulator, "cli-no-queue", true).await;
    make_bucket(&world.client, "cli-vault-of-none", true).await;
    let queue = format!("sqs:{}/000000000000/none", emulator.endpoint());
    check(&world.program, &["protect", &world.url(), "--vault", "./v/x", "--events", &queue], "there is no such queue; check its URL");
    assert!(!world.program.folder().join("v").exists(), "a refusal makes no vault");
    // One that cannot be asked may be there.
    let queue = format!("sqs:http://{}/000000000000/none", free_port());
    let told = world.program.ok(&["protect", &world.url(), "--vault", "./v/x", "--events", &queue]);
    assert!(told.contains("cannot be asked now: the connection was refused"), "{told}");
    // A bucket without a vault is another thing than no bucket.
    let ended = world.program.run(&["ls", "s3://photos", "--vault", "s3://cli-vault-of-none/x"]);
    assert_eq!((ended.code, ended.errors.contains("there is no vault at this place")), (4, true), "{}", ended.errors);
}
