//! QEMU's monitor protocol, QMP: one line of JSON for each command and each answer.
//!
//! QEMU tells of events between answers; those that somebody waits for are kept. A monitor has one client at a time: the next one waits
//! until it has gone, and so must we, which is why connecting has its own patience.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// How long a command may take. Those that are given here return at once, but a disk may be slow.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// How long the greeting may take: somebody else may be connected.
const GREETING_WITHIN: Duration = Duration::from_secs(10);
/// The longest line that is taken, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Events that are kept for somebody who may wait for them.
const EVENTS_MAX: usize = 256;

/// Why QEMU did not do something.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens at the socket: the machine does not run.
    #[error("no machine answers at {}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the monitor at {} does not answer", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Nothing came in time.
    #[error("the monitor at {} did not answer {what} within {} s{}", socket.display(), within.as_secs(), if what == "the greeting" { ": somebody else may be connected to it" } else { "" })]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        what: String,
        /// How long was waited.
        within: Duration,
    },
    /// What it says is not QMP.
    #[error("what answers at {} does not speak QMP: {reason}", socket.display())]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// What it said.
        reason: String,
    },
    /// QEMU refuses a command.
    #[error("QEMU refuses {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// In its words.
        reason: String,
    },
}

/// A connection to a monitor.
#[derive(Debug)]
pub struct Qmp {
    socket: PathBuf,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    events: VecDeque<Value>,
    /// QEMU's version, as it greets: `7.2.22`.
    version: String,
}

impl Qmp {
    /// Connects to the monitor at a socket.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn connect(socket: &Path) -> Result<Qmp, QmpError> {
        let stream = UnixStream::connect(socket).await.map_err(|source| QmpError::NotRunning { socket: socket.to_owned(), source })?;
        let (reader, writer) = stream.into_split();
        let mut qmp =
            Qmp { socket: socket.to_owned(), reader: BufReader::new(reader), writer, events: VecDeque::new(), version: String::new() };
        let greeting = qmp.line("the greeting", GREETING_WITHIN).await?;
        let number = |part: &str| greeting.pointer(&format!("/QMP/version/qemu/{part}")).and_then(Value::as_u64);
        let (Some(major), Some(minor), Some(micro)) = (number("major"), number("minor"), number("micro")) else {
            return Err(qmp.protocol("it greets otherwise"));
        };
        qmp.version = format!("{major}.{minor}.{micro}");
        qmp.command("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// QEMU's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Gives a command, and returns what it returns.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn command(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.send(&[(command, arguments)]).await?;
        self.answer(command).await
    }

    /// Gives several commands at once: QEMU carries all of them out, whatever becomes of the first, even if nobody hears of it any more.
    /// Returns the first error.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn commands(&mut self, commands: &[(&str, Value)]) -> Result<(), QmpError> {
        self.send(commands).await?;
        let mut result = Ok(());
        for (command, _) in commands {
            let answer = self.answer(command).await.map(drop);
            let is_over = matches!(answer, Err(QmpError::Io { .. } | QmpError::Silent { .. } | QmpError::Protocol { .. }));
            result = result.and(answer);
            if is_over {
                break;
            }
        }
        result
    }

    /// Waits until an event of this name tells of this id.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn event(&mut self, name: &str, id: &str) -> Result<(), QmpError> {
        let is_it = |event: &Value| event["event"] == name && event["data"]["id"] == id;
        loop {
            if let Some(at) = self.events.iter().position(is_it) {
                self.events.remove(at);
                return Ok(());
            }
            let line = self.line(name, COMMAND_WITHIN).await?;
            self.keep(line);
        }
    }

    async fn send(&mut self, commands: &[(&str, Value)]) -> Result<(), QmpError> {
        let lines: String =
            commands.iter().map(|(command, arguments)| format!("{}\n", json!({"execute": command, "arguments": arguments}))).collect();
        self.writer.write_all(lines.as_bytes()).await.map_err(|source| QmpError::Io { socket: self.socket.clone(), source })
    }

    async fn answer(&mut self, command: &str) -> Result<Value, QmpError> {
        loop {
            let mut line = self.line(command, COMMAND_WITHIN).await?;
            if let Some(error) = line.get("error") {
                let reason = error["desc"].as_str().unwrap_or("it does not say why").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), reason });
            }
            match line.get_mut("return") {
                Some(value) => return Ok(value.take()),
                None => self.keep(line),
            }
        }
    }

    fn keep(&mut self, event: Value) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    async fn line(&mut self, what: &str, within: Duration) -> Result<Value, QmpError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX);
        let read = tokio::time::timeout(within, bounded.read_until(b'\n', &mut line)).await;
        let read = read.map_err(|_| QmpError::Silent { socket: self.socket.clone(), what: what.to_owned(), within })?;
        read.map_err(|source| QmpError::Io { socket: self.socket.clone(), source })?;
        if line.is_empty() {
            return Err(QmpError::Io { socket: self.socket.clone(), source: io::ErrorKind::UnexpectedEof.into() });
        }
        serde_json::from_slice(&line).map_err(|error| self.protocol(&error.to_string()))
    }

    fn protocol(&self, reason: &str) -> QmpError {
        QmpError::Protocol { socket: self.socket.clone(), reason: reason.to_owned() }
    }
}
