//! The webhook's listener under attack: connections that say nothing, drip, or come in crowds, and posts that wait.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::program::{Program, Serving, ask};
use super::world::{World, seaweed};

const TOKEN: &str = "open sesame";
/// As many connections and posts as may be there at a time.
const CONNECTIONS_MAX: usize = 256;
const WAITING_MAX: usize = 128;
/// How long a connection that must be closed may stand, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";

async fn serving(bucket: &str, point: Option<&str>) -> (World, Serving) {
    let mut world = World::new(seaweed(), bucket, true).await;
    world.program = world.program.with([("HINDSIGHT_WEBHOOK_TOKEN", TOKEN)]);
    let protected = ["protect", &world.url(), "--vault", "./vault", "--events", "webhook"];
    world.program.ok(&protected);
    let serving = world.program.serve_until(point, &["--vault", "./vault"]);
    (world, serving)
}

fn connect(serving: &Serving) -> TcpStream {
    let connection = TcpStream::connect(&serving.address).expect("a connection");
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    connection
}

/// Everything that comes until the other side closes. A reset is a close, too.
fn until_closed(connection: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match connection.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("it is not closed: {error}; {}", String::from_utf8_lossy(&answer)),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The head of the next answer on a connection that stays.
fn answer(connection: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match connection.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            other => panic!("{other:?} after {}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn post(body: &str) -> String {
    format!("POST /webhook HTTP/1.1\r\nHost: h\r\nAuthorization: bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_drips_is_closed_and_holds_up_nobody() {
    let (_world, serving) = serving("cli-slow", None).await;
    let mut silent = connect(&serving);
    let mut half = connect(&serving);
    half.write_all(b"POST /webhook HTTP/1.1\r\nHost: h\r\nAuthoriz").expect("sent");
    let mut idle = connect(&serving);
    idle.write_all(HEALTH.as_bytes()).expect("sent");
    assert!(answer(&mut idle).starts_with("HTTP/1.1 200"));
    // One byte now and then is no head either, for however long.
    let mut dripping = connect(&serving);
    dripping.write_all(b"GET /healthz HTTP/1.1\r\nX-A: ").expect("sent");
    let mut drips = 0;
    while dripping.write_all(b"a").is_ok() {
        drips += 1;
        assert!(drips < 60, "it may drip for ever");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for connection in [&mut silent, &mut half, &mut idle] {
        let rest = until_closed(connection);
        assert!(!rest.contains("200 OK"), "{rest}");
    }
    assert!(serving.get("/healthz").starts_with("HTTP/1.1 200"));
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_told_that_there_is_no_place() {
    let (_world, serving) = serving("cli-crowd", None).await;
    let mut crowd: Vec<TcpStream> = Vec::new();
    // Each that is in was answered once, and stays.
    let told = loop {
        let mut connection = connect(&serving);
        connection.write_all(HEALTH.as_bytes()).expect("sent");
        let told = answer(&mut connection);
        if !told.starts_with("HTTP/1.1 200") {
            break told;
        }
        crowd.push(connection);
        assert!(crowd.len() < 8 * CONNECTIONS_MAX, "everybody is let in");
    };
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("Retry-After: 1"), "{told}");
    assert!(crowd.len() >= CONNECTIONS_MAX, "only {} were let in", crowd.len());
    drop(crowd);
    // When they have left there is place again.
    let mut metrics = String::new();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        metrics = ask(&serving.address, "GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap_or_default();
        if metrics.starts_with("HTTP/1.1 200") {
            break;
        }
    }
    let refused = metrics.lines().find_map(|line| line.strip_prefix("hindsight_connections_refused_total ")).expect(&metrics);
    assert!(refused.parse::<f64>().expect("a number") >= 1.0, "{refused}");
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let (_world, serving) = serving("cli-large", None).await;
    let mut head = connect(&serving);
    head.write_all(format!("GET /healthz HTTP/1.1\r\nX-A: {}\r\n\r\n", "a".repeat(64 << 10)).as_bytes()).ok();
    assert!(until_closed(&mut head).starts_with("HTTP/1.1 431"));

    let mut many = connect(&serving);
    many.write_all(format!("GET /healthz HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(500)).as_bytes()).ok();
    assert!(until_closed(&mut many).starts_with("HTTP/1.1 431"));

    let mut announced = connect(&serving);
    let request = format!("POST /webhook HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1048577\r\n\r\n");
    announced.write_all(request.as_bytes()).expect("sent");
    assert!(until_closed(&mut announced).starts_with("HTTP/1.1 413"));

    // In chunks nobody announces how much it will be.
    let mut chunked = connect(&serving);
    let request = format!("POST /webhook HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n");
    chunked.write_all(request.as_bytes()).expect("sent");
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    for _ in 0..32 {
        if chunked.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    assert!(until_closed(&mut chunked).starts_with("HTTP/1.1 413"));

    // Whoever has no token is not even read.
    let mut stranger = connect(&serving);
    stranger.write_all(b"POST /webhook HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").expect("sent");
    assert!(until_closed(&mut stranger).starts_with("HTTP/1.1 401"));
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_posts_than_may_wait_are_sent_away_at_once() {
    let (_world, serving) = serving("cli-waiting", None).await;
    // Each has the token, announces a body, and keeps it back.
    let announced = format!("POST /webhook HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 2\r\n\r\n");
    let mut waiting = Vec::new();
    let told = loop {
        let mut connection = connect(&serving);
        connection.write_all(announced.as_bytes()).expect("sent");
        waiting.push(connection);
        assert!(waiting.len() < CONNECTIONS_MAX, "everybody may wait");
        // Whoever comes later is answered at once when there is no place; else it has one itself, and leaves it.
        if waiting.len() >= WAITING_MAX {
            let mut late = connect(&serving);
            late.write_all(announced.as_bytes()).expect("sent");
            late.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            let mut head = [0; 512];
            let read = late.read(&mut head).unwrap_or(0);
            if read > 0 {
                break String::from_utf8_lossy(&head[..read]).into_owned();
            }
        }
    };
    assert!(told.starts_with("HTTP/1.1 503") && told.to_ascii_lowercase().contains("retry-after: 1"), "{told}");
    // Strangers have no place to take, and who asks for health is answered.
    assert!(serving.ask("POST /webhook HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n").starts_with("HTTP/1.1 401"));
    assert!(serving.get("/healthz").starts_with("HTTP/1.1 200"));
    // Those that have a place are served.
    let mut first = waiting.swap_remove(0);
    first.write_all(b"{}").expect("sent");
    assert!(answer(&mut first).starts_with("HTTP/1.1 200"));
    drop(waiting);
    let metrics = serving.get("/metrics");
    assert!(metrics.contains("hindsight_webhook_answers_total{status=\"503\"}"), "{metrics}");
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_written_into_the_log() {
    let world = World::new(seaweed(), "cli-secret", true).await;
    let program: Program = world.program.with([("HINDSIGHT_WEBHOOK_TOKEN", TOKEN)]);
    program.ok(&["protect", "s3://cli-secret", "--vault", "./vault", "--events", "webhook"]);
    // Into a file, not a pipe: a process whose log nobody takes stands still.
    let log = program.folder().join("log");
    let mut child = program
        .command(&["serve", "--vault", "./vault", "--listen", "127.0.0.1:0", "--log-level", "trace"])
        .stderr(std::fs::File::create(&log).expect("a file"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let told = || std::fs::read_to_string(&log).expect("text");
    let address = loop {
        let told = told();
        assert!(child.try_wait().expect("it can be asked").is_none(), "{told}");
        // A whole line: the address may be written in pieces.
        let written = told.rsplit_once('\n').map_or("", |(lines, _)| lines);
        if let Some((_, rest)) = written.split_once("address=") {
            break rest.split_whitespace().next().expect("an address").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut requests = vec![post("{}"), "POST /webhook?token=open%20sesame HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}".to_owned()];
    requests.push(requests[1].replace("sesame", "sesame-wrong"));
    for request in requests {
        let mut connection = TcpStream::connect(&address).expect("a connection");
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        connection.write_all(request.as_bytes()).expect("sent");
        answer(&mut connection);
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let told = told();
    assert!(told.contains("TRACE"), "the log is as talkative as can be");
    for word in ["sesame", "open%20"] {
        let line = told.lines().find(|line| line.contains(word));
        assert!(line.is_none(), "{line:?}");
    }
}
