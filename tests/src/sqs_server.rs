//! A queue as SQS offers it, on a loopback port: what the product asks of one, at least once, and a memory of every delete.
//!
//! ```text
//!  test ─ send ─→ waiting ─ ReceiveMessage ─→ in flight ─ DeleteMessageBatch ─→ deleted
//!                    ↑                           │
//!                    └── time is over, or release┘      a receipt names its message: `receipt-000017-3`
//! ```
//!
//! The emulators of AWS name no versions in their events and hide a message for as long as they are asked to. Here a test says
//! itself when what a killed process had received comes again, and sees what was acknowledged and when.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use md5::{Digest, Md5};
use serde_json::{Value, json};

/// How long a request waits for a message at most, whatever it asks for: so that a process that ends is not waited for.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// A request larger than this is none of ours.
const REQUEST_BYTES_MAX: u64 = 1 << 20;
/// What every receipt begins with.
pub const RECEIPT: &str = "receipt-";

/// One queue. Its threads end with the process.
pub struct SqsServer {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    messages: BTreeMap<u64, Message>,
    deleted: Vec<u64>,
    next: u64,
}

struct Message {
    body: String,
    received: u32,
    in_flight: bool,
}

impl SqsServer {
    /// An empty queue on a free port.
    ///
    /// # Errors
    /// What binding the port says.
    pub fn start() -> io::Result<SqsServer> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // A client that goes away in the middle of a request is what this server is for.
                std::thread::spawn(move || drop(serve(&shared, connection)));
            }
        });
        Ok(SqsServer { address, shared })
    }

    /// The queue's URL.
    pub fn url(&self) -> String {
        format!("http://{}/000000000000/events", self.address)
    }

    /// Puts a message into the queue; returns its number.
    pub fn send(&self, body: &str) -> u64 {
        let mut queue = self.queue();
        let number = queue.next;
        queue.next += 1;
        queue.messages.insert(number, Message { body: body.to_owned(), received: 0, in_flight: false });
        self.shared.changed.notify_all();
        number
    }

    /// Everything that was received and not deleted comes again: its time is over.
    pub fn release(&self) {
        self.queue().messages.values_mut().for_each(|message| message.in_flight = false);
        self.shared.changed.notify_all();
    }

    /// The numbers of the messages that were deleted, in the order in which they were.
    pub fn deleted(&self) -> Vec<u64> {
        self.queue().deleted.clone()
    }

    /// How many messages have not been deleted.
    pub fn left(&self) -> usize {
        self.queue().messages.len()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of the message that a receipt is of.
pub fn message_of(receipt: &str) -> Option<u64> {
    receipt.strip_prefix(RECEIPT)?.split('-').next()?.parse().ok()
}

/// Answers the requests of one connection.
fn serve(shared: &Shared, connection: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection;
    loop {
        let (mut length, mut action, mut line) = (0, String::new(), String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.trim().split_once(':') else { if line.trim().is_empty() { break } else { continue } };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
                "x-amz-target" => action = value.trim().to_owned(),
                _ => {}
            }
        }
        let mut body = Vec::new();
        reader.by_ref().take(REQUEST_BYTES_MAX.min(length)).read_to_end(&mut body)?;
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let answer = match action.as_str() {
            "AmazonSQS.ReceiveMessage" => Some(receive(shared, &request)),
            "AmazonSQS.DeleteMessageBatch" => Some(delete(shared, &request)),
            _ => None,
        };
        let (status, answer) = match answer {
            Some(answer) => ("200 OK", answer),
            None => ("400 Bad Request", json!({ "__type": "com.amazonaws.sqs#InvalidAction", "message": action })),
        };
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: 0\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        writer.write_all(&[head.as_bytes(), answer.as_bytes()].concat())?;
    }
}

fn receive(shared: &Shared, request: &Value) -> Value {
    let most = request["MaxNumberOfMessages"].as_u64().unwrap_or(1) as usize;
    let wait = Duration::from_secs(request["WaitTimeSeconds"].as_u64().unwrap_or(0)).min(WAIT_MAX);
    let nothing = |queue: &mut Queue| queue.messages.values().all(|message| message.in_flight);
    let queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = shared.changed.wait_timeout_while(queue, wait, nothing);
    let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
    let waiting = queue.messages.iter_mut().filter(|(_, message)| !message.in_flight).take(most);
    let given = waiting.map(|(number, message)| {
        message.in_flight = true;
        message.received += 1;
        json!({
            "MessageId": number.to_string(),
            "ReceiptHandle": format!("{RECEIPT}{number:06}-{}", message.received),
            "MD5OfBody": hex::encode(Md5::digest(message.body.as_bytes())),
            "Body": message.body,
        })
    });
    json!({ "Messages": given.collect::<Vec<Value>>() })
}

fn delete(shared: &Shared, request: &Value) -> Value {
    let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    let mut done = Vec::new();
    for entry in request["Entries"].as_array().into_iter().flatten() {
        done.push(json!({ "Id": entry["Id"] }));
        let number = entry["ReceiptHandle"].as_str().and_then(message_of);
        // Twice is once, as at SQS.
        if let Some(number) = number.filter(|number| queue.messages.remove(number).is_some()) {
            queue.deleted.push(number);
        }
    }
    json!({ "Successful": done, "Failed": [] })
}
