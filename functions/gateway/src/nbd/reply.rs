//! Bytes of a connection, and the heads of replies.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};

use super::handshake::NAME_BYTES_MAX;
use super::{NbdError, Patience};

const SIMPLE_REPLY: u32 = 0x6744_6698;
const STRUCTURED_REPLY: u32 = 0x668e_33ef;
const FLAG_DONE: u16 = 1;

const DATA: u16 = 1;
const HOLE: u16 = 2;
const BLOCK_STATUS: u16 = 5;
const IS_ERROR: u16 = 1 << 15;

/// How much is read from the connection at once, in bytes.
const BUFFER_BYTES: usize = 256 << 10;
/// Stretches of one answer to a question after the block status.
const DESCRIPTORS_MAX: u32 = 1 << 20;

/// A connection, with the patience for it.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: BufStream<S>,
    patience: Patience,
}

/// The head of a reply, or of a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Which request it answers.
    pub cookie: u64,
    /// Whether nothing more of it comes.
    pub done: bool,
    /// What comes.
    pub kind: Kind,
}

/// What a reply, or a part of one, holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: the request was carried out.
    Nothing,
    /// So many bytes from this offset on; they follow.
    Data(u64, u32),
    /// So many zeros from this offset on.
    Hole(u64, u32),
    /// All that was asked for follows: the reply of a server without structured ones.
    Simple,
    /// The status of stretches in a context: lengths and flags.
    Status(u32, Vec<(u32, u32)>),
    /// An error, in words.
    Error(String),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire<S> {
    pub fn new(stream: S, patience: Patience) -> Wire<S> {
        Wire { stream: BufStream::with_capacity(BUFFER_BYTES, 4 << 10, stream), patience }
    }

    async fn patiently<T>(
        &mut self,
        what: &'static str,
        attempt: impl AsyncFnOnce(&mut BufStream<S>) -> io::Result<T>,
    ) -> Result<T, NbdError> {
        let patience = self.patience.answer;
        match tokio::time::timeout(patience, attempt(&mut self.stream)).await {
            Ok(result) => result.map_err(|source| NbdError::Io { what, source }),
            Err(_) => Err(NbdError::Silent { patience }),
        }
    }

    /// Sends bytes; they are on their way when this ends.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), NbdError> {
        self.patiently("written to", async |stream| {
            stream.write_all(bytes).await?;
            stream.flush().await
        })
        .await
    }

    /// So many bytes, a number that somebody has held against a bound.
    pub async fn bytes(&mut self, length: usize) -> Result<Vec<u8>, NbdError> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes).await?;
        Ok(bytes)
    }

    /// Fills a buffer. Each piece of it must come in time, not all of it.
    pub async fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), NbdError> {
        while !buffer.is_empty() {
            let count = self.patiently("read from", async |stream| stream.read(buffer).await).await?;
            if count == 0 {
                return Err(NbdError::Io { what: "read from", source: io::ErrorKind::UnexpectedEof.into() });
            }
            buffer = &mut buffer[count..];
        }
        Ok(())
    }

    async fn array<const N: usize>(&mut self) -> Result<[u8; N], NbdError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes).await?;
        Ok(bytes)
    }

    pub async fn u16(&mut self) -> Result<u16, NbdError> {
        Ok(u16::from_be_bytes(self.array().await?))
    }

    pub async fn u32(&mut self) -> Result<u32, NbdError> {
        Ok(u32::from_be_bytes(self.array().await?))
    }

    pub async fn u64(&mut self) -> Result<u64, NbdError> {
        Ok(u64::from_be_bytes(self.array().await?))
    }

    /// The head of the next reply, and of it everything but data, which follows.
    pub async fn head(&mut self) -> Result<Head, NbdError> {
        match self.u32().await? {
            SIMPLE_REPLY => {
                let (error, cookie) = (self.u32().await?, self.u64().await?);
                let kind = if error == 0 { Kind::Simple } else { Kind::Error(error_name(error)) };
                Ok(Head { cookie, done: true, kind })
            }
            STRUCTURED_REPLY => self.structured().await,
            other => Err(NbdError::protocol(format!("a reply begins with {other:#x}"))),
        }
    }

    async fn structured(&mut self) -> Result<Head, NbdError> {
        let (flags, kind, cookie, length) = (self.u16().await?, self.u16().await?, self.u64().await?, self.u32().await?);
        let wrong = |what: &str| NbdError::protocol(format!("{what} of {length} bytes"));
        let kind = match kind {
            0 if length == 0 => Kind::Nothing,
            DATA => {
                let data = length.checked_sub(8).filter(|data| *data > 0).ok_or_else(|| wrong("data"))?;
                Kind::Data(self.u64().await?, data)
            }
            HOLE if length == 12 => Kind::Hole(self.u64().await?, self.u32().await?),
            BLOCK_STATUS => {
                let count = length.checked_sub(4).filter(|rest| *rest > 0 && rest % 8 == 0).ok_or_else(|| wrong("a status"))? / 8;
                if count > DESCRIPTORS_MAX {
                    return Err(wrong("a status"));
                }
                let context = self.u32().await?;
                // As they come, and not as they are announced.
                let mut stretches = Vec::new();
                for _ in 0..count {
                    stretches.push((self.u32().await?, self.u32().await?));
                }
                Kind::Status(context, stretches)
            }
            error if error & IS_ERROR != 0 => Kind::Error(self.error(length).await?),
            other => return Err(NbdError::protocol(format!("a reply of kind {other}, of {length} bytes"))),
        };
        Ok(Head { cookie, done: flags & FLAG_DONE != 0, kind })
    }

    async fn error(&mut self, length: u32) -> Result<String, NbdError> {
        // A number, the length of a text, the text, and for some errors an offset.
        if !(6..=6 + NAME_BYTES_MAX as u32 + 8).contains(&length) {
            return Err(NbdError::protocol(format!("an error of {length} bytes")));
        }
        let (number, text_length) = (self.u32().await?, self.u16().await?);
        let rest = self.bytes(length as usize - 6).await?;
        let text = rest.get(..usize::from(text_length)).ok_or_else(|| NbdError::protocol("the words of an error are cut off"))?;
        let (name, text) = (error_name(number), String::from_utf8_lossy(text));
        Ok(if text.is_empty() { name } else { format!("{name} ({text})") })
    }

    /// So many bytes behind the others, a number that somebody has held against a bound.
    pub async fn append(&mut self, to: &mut BytesMut, at: usize, length: usize) -> Result<(), NbdError> {
        self.fill(&mut to[at..at + length]).await
    }
}

/// The errors of the protocol, which have the numbers of Linux.
fn error_name(number: u32) -> String {
    match number {
        1 => "operation not permitted".to_owned(),
        5 => "input or output error".to_owned(),
        12 => "out of memory".to_owned(),
        22 => "invalid argument".to_owned(),
        28 => "no space left".to_owned(),
        75 => "value too large".to_owned(),
        95 => "operation not supported".to_owned(),
        108 => "the server is shutting down".to_owned(),
        other => format!("error {other}"),
    }
}
