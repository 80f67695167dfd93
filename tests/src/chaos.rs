//! A network that troubles, between a process and a real server: requests are refused, answers break off, drip or stall.
//!
//! ```text
//!  client ─ request ─→ Chaos ─→ server
//!         ←─ answer ──┘ ├ busy: 503, and nothing reaches the server
//!                       ├ lost: the server has done it, and the connection is reset before the answer
//!                       └ cut, drip, stall: so many bytes of the answer's body, and then an end, a trickle, nothing
//! ```
//!
//! Requests are passed on byte for byte, because they are signed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It is passed on, and its answer comes back.
    None,
    /// The server says that it is busy.
    Busy,
    /// It is carried out, and the answer is lost.
    Lost,
    /// The answer's body ends after so many bytes.
    Cut(usize),
    /// After so many bytes of the answer's body the rest comes in little pieces, this far apart.
    Drip(usize, Duration),
    /// After so many bytes of the answer's body nothing comes any more.
    Stall(usize),
}

/// Decides about a request, by its method, its target and its number.
type Decide = dyn Fn(&str, &str, u64) -> Trouble + Send + Sync;

/// The network. Its threads end with the process.
pub struct Chaos {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    decide: Mutex<Arc<Decide>>,
    requests: AtomicU64,
    troubles: AtomicU64,
}

/// How much a trickle brings at a time.
const DRIP_BYTES: usize = 64;

impl Chaos {
    /// A network to the server at this endpoint, without trouble so far.
    ///
    /// # Errors
    /// What binding a port says.
    pub fn start(endpoint: &str) -> io::Result<Chaos> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let server = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let calm: Arc<Decide> = Arc::new(|_: &str, _: &str, _| Trouble::None);
        let shared = Arc::new(Shared { server, decide: Mutex::new(calm), requests: AtomicU64::new(0), troubles: AtomicU64::new(0) });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // That either side goes away is what this is for.
                std::thread::spawn(move || drop(relay(&shared, connection)));
            }
        });
        Ok(Chaos { address, shared })
    }

    /// Where it answers, as an endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From here on requests have these troubles.
    pub fn trouble(&self, decide: impl Fn(&str, &str, u64) -> Trouble + Send + Sync + 'static) {
        *self.shared.decide.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(decide);
    }

    /// From here on all is well.
    pub fn calm(&self) {
        self.trouble(|_, _, _| Trouble::None);
    }

    /// How many requests came, and how many of them had trouble.
    pub fn seen(&self) -> (u64, u64) {
        (self.shared.requests.load(Ordering::Relaxed), self.shared.troubles.load(Ordering::Relaxed))
    }
}

/// A message's head, and how its body is delimited.
struct Head {
    bytes: Vec<u8>,
    line: String,
    length: Option<u64>,
    chunked: bool,
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut head = Head { bytes: Vec::new(), line: String::new(), length: None, chunked: false };
    loop {
        let from = head.bytes.len();
        if reader.read_until(b'\n', &mut head.bytes)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&head.bytes[from..]).trim().to_owned();
        if head.line.is_empty() {
            head.line = line;
            continue;
        }
        if line.is_empty() {
            return Ok(Some(head));
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = Some(value.trim().parse().map_err(io::Error::other)?),
            "transfer-encoding" => head.chunked = value.to_ascii_lowercase().contains("chunked"),
            _ => {}
        }
    }
}

/// A body as it stands on the wire.
fn read_body(reader: &mut impl BufRead, head: &Head) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if !head.chunked {
        reader.take(head.length.unwrap_or(0)).read_to_end(&mut body)?;
        return Ok(body);
    }
    loop {
        let from = body.len();
        reader.read_until(b'\n', &mut body)?;
        let size = String::from_utf8_lossy(&body[from..]).trim().split(';').next().map(|size| u64::from_str_radix(size, 16));
        let size = size.unwrap_or(Ok(0)).map_err(io::Error::other)?;
        // The chunk and the line's end behind it.
        reader.by_ref().take(size + 2).read_to_end(&mut body)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn relay(shared: &Shared, client: TcpStream) -> io::Result<()> {
    let mut from_client = BufReader::new(client.try_clone()?);
    let mut to_client = client;
    let server = TcpStream::connect(&shared.server)?;
    let mut from_server = BufReader::new(server.try_clone()?);
    let mut to_server = server;
    while let Some(head) = read_head(&mut from_client)? {
        if String::from_utf8_lossy(&head.bytes).to_ascii_lowercase().contains("expect: 100-continue") {
            to_client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = read_body(&mut from_client, &head)?;
        let mut words = head.line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let number = shared.requests.fetch_add(1, Ordering::Relaxed);
        let decide = Arc::clone(&shared.decide.lock().unwrap_or_else(PoisonError::into_inner));
        let trouble = decide(method, target, number);
        shared.troubles.fetch_add(u64::from(trouble != Trouble::None), Ordering::Relaxed);
        if trouble == Trouble::Busy {
            let text = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            let head = format!("HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            to_client.write_all(head.as_bytes())?;
            continue;
        }
        to_server.write_all(&head.bytes)?;
        to_server.write_all(&body)?;
        let mut answer = read_head(&mut from_server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        while answer.line.contains(" 100 ") {
            answer = read_head(&mut from_server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        let bodiless = method == "HEAD" || answer.line.contains(" 204 ") || answer.line.contains(" 304 ");
        let body = if bodiless { Vec::new() } else { read_body(&mut from_server, &answer)? };
        if trouble == Trouble::Lost {
            return to_client.shutdown(Shutdown::Both);
        }
        to_client.write_all(&answer.bytes)?;
        match trouble {
            Trouble::Cut(after) if after < body.len() => {
                to_client.write_all(&body[..after])?;
                return to_client.shutdown(Shutdown::Both);
            }
            Trouble::Drip(after, apart) if after < body.len() => {
                to_client.write_all(&body[..after])?;
                for piece in body[after..].chunks(DRIP_BYTES) {
                    wait(apart);
                    to_client.write_all(piece)?;
                }
            }
            Trouble::Stall(after) if after < body.len() => {
                to_client.write_all(&body[..after])?;
                // Until the client has had enough.
                return from_client.read_to_end(&mut Vec::new()).map(drop);
            }
            _ => to_client.write_all(&body)?,
        }
    }
    Ok(())
}

/// Lets time pass in a thread that has nothing else to do.
fn wait(duration: Duration) {
    let never = std::sync::Condvar::new();
    let guard = Mutex::new(());
    let held = guard.lock().unwrap_or_else(PoisonError::into_inner);
    drop(never.wait_timeout(held, duration));
}
