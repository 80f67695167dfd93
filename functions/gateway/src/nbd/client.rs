//! Requests and their replies.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::handshake::{Export, shake_hands};
use super::reply::{Head, Kind, Wire};
use super::{Address, NbdError, Patience, Wanted};

const REQUEST: u32 = 0x2560_9513;
const READ: u16 = 0;
const DISCONNECT: u16 = 2;
const BLOCK_STATUS: u16 = 7;

/// The longest stretch whose status is asked for at once, in bytes: a length of 32 bits, in whole sectors.
const STATUS_BYTES_MAX: u64 = 0x7fff_0000;
/// More extents than this of one range are not taken in: as many as a disk of 128 GiB has that alternates every 64 KiB.
const EXTENTS_MAX: usize = 1 << 21;
/// A server may send data sector by sector, and no more finely.
const PART_BYTES_MIN: u32 = 512;

/// Whatever a connection is made of.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection to one export.
pub struct Client {
    wire: Wire<Box<dyn Stream>>,
    export: Export,
    cookie: u64,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("export", &self.export).finish_non_exhaustive()
    }
}

/// A stretch of an export that has one status in a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// From where to where, in bytes.
    pub range: Range<u64>,
    /// What the context says: of `base:allocation` bit 0 is a hole, bit 1 zeros; of `qemu:dirty-bitmap:` bit 0 is changed.
    pub flags: u32,
}

impl Extent {
    /// Whether it reads as zeros, where the context is `base:allocation`.
    pub fn is_zeros(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Whether it has changed, where the context is a dirty bitmap.
    pub fn is_dirty(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// From where on, in bytes.
    pub offset: u64,
    /// What is there.
    pub content: Bytes,
}

impl Client {
    /// Connects to an export.
    ///
    /// # Errors
    /// [`NbdError`].
    pub async fn connect(address: &Address, wanted: &Wanted, patience: Patience) -> Result<Client, NbdError> {
        let connecting = async {
            Ok(match address {
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?) as Box<dyn Stream>,
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
            })
        };
        let connected = tokio::time::timeout(patience.answer, connecting).await;
        let connected = connected.map_err(|_| NbdError::Silent { patience: patience.answer })?;
        let stream = connected.map_err(|source| NbdError::Io { what: "reached", source })?;
        Client::over(stream, wanted, patience).await
    }

    /// The same over a connection that there is.
    ///
    /// # Errors
    /// [`NbdError`].
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        wanted: &Wanted,
        patience: Patience,
    ) -> Result<Client, NbdError> {
        let mut wire = Wire::new(Box::new(stream) as Box<dyn Stream>, patience);
        let export = shake_hands(&mut wire, wanted).await?;
        Ok(Client { wire, export, cookie: 0 })
    }

    /// How large the export is, in bytes.
    pub fn size(&self) -> u64 {
        self.export.size
    }

    /// The longest read that the server takes, in bytes.
    pub fn read_bytes_max(&self) -> u32 {
        self.export.read_bytes_max
    }

    /// The status of a range in one of the contexts that were asked for. Neighbours of one status are one extent; all of the range is
    /// covered.
    ///
    /// # Errors
    /// [`NbdError`].
    ///
    /// # Panics
    /// If the context was not asked for.
    pub async fn extents(&mut self, context: &str, range: Range<u64>) -> Result<Vec<Extent>, NbdError> {
        let wanted = self.export.contexts.iter().find(|(_, name)| *name == context).map(|(id, _)| *id);
        let wanted = wanted.expect("a context is asked for before its extents are");
        let end = range.end.min(self.export.size);
        let mut extents: Vec<Extent> = Vec::new();
        let mut from = range.start;
        while from < end {
            let asked = (end - from).min(STATUS_BYTES_MAX);
            let cookie = self.request(BLOCK_STATUS, from, asked as u32).await?;
            let begin = from;
            loop {
                let Head { cookie: answered, done, kind } = self.wire.head().await?;
                if answered != cookie {
                    return Err(NbdError::protocol("it answers what was not asked"));
                }
                match kind {
                    Kind::Status(context, stretches) if context == wanted && from == begin => {
                        for (length, flags) in stretches {
                            if length == 0 || from >= begin + asked {
                                return Err(NbdError::protocol("a status of nothing, or behind what was asked"));
                            }
                            // The last may reach further.
                            let to = from.saturating_add(u64::from(length)).min(end);
                            let last = extents.last_mut().filter(|last| last.flags == flags && last.range.end == from);
                            match last {
                                Some(last) => last.range.end = to,
                                None => {
                                    if extents.len() == EXTENTS_MAX {
                                        return Err(NbdError::protocol("more extents than a range may have"));
                                    }
                                    extents.push(Extent { range: from..to, flags });
                                }
                            }
                            from = to;
                        }
                    }
                    Kind::Status(context, _) if context == wanted => return Err(NbdError::protocol("a status twice")),
                    Kind::Status(context, _) if self.export.contexts.contains_key(&context) => {}
                    Kind::Nothing if done => {}
                    Kind::Error(reason) => {
                        return Err(NbdError::Refused { what: format!("the status of {asked} bytes at {begin}"), reason });
                    }
                    _ => return Err(NbdError::protocol("it answers a question after the status with something else")),
                }
                if done {
                    break;
                }
            }
            if from == begin {
                return Err(NbdError::protocol("it says nothing about the status"));
            }
        }
        Ok(extents)
    }

    /// Reads ranges, `at_once` of them at the same time, each no longer than [`Client::read_bytes_max`] and within the export. They come in
    /// any order.
    pub fn reads(&mut self, ranges: impl IntoIterator<Item = Range<u64>>, at_once: usize) -> Reads<'_> {
        Reads { waiting: ranges.into_iter().collect(), flying: BTreeMap::new(), at_once: at_once.max(1), client: self }
    }

    /// One range.
    ///
    /// # Errors
    /// [`NbdError`].
    pub async fn read(&mut self, range: Range<u64>) -> Result<Bytes, NbdError> {
        let read = self.reads([range], 1).next().await?;
        Ok(read.map(|read| read.content).unwrap_or_default())
    }

    /// Says that nothing more will be asked.
    ///
    /// # Errors
    /// [`NbdError::Io`].
    pub async fn close(mut self) -> Result<(), NbdError> {
        self.request(DISCONNECT, 0, 0).await.map(drop)
    }

    async fn request(&mut self, kind: u16, offset: u64, length: u32) -> Result<u64, NbdError> {
        self.cookie += 1;
        let mut bytes = Vec::with_capacity(28);
        bytes.extend_from_slice(&REQUEST.to_be_bytes());
        bytes.extend_from_slice(&0u16.to_be_bytes());
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&self.cookie.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        self.wire.write(&bytes).await?;
        Ok(self.cookie)
    }
}

/// Reads under way.
#[derive(Debug)]
pub struct Reads<'a> {
    client: &'a mut Client,
    waiting: VecDeque<Range<u64>>,
    flying: BTreeMap<u64, Flying>,
    at_once: usize,
}

/// One read under way.
#[derive(Debug)]
struct Flying {
    offset: u64,
    content: BytesMut,
    /// What of it came, by offsets within it.
    came: Vec<Range<u32>>,
}

impl Flying {
    /// Where a part of a reply lies in it, if it lies there whole and nothing of it came before.
    fn place(&mut self, offset: u64, length: u32) -> Result<usize, NbdError> {
        let length_max = self.content.len() as u64;
        let start = offset.checked_sub(self.offset).filter(|start| start.saturating_add(u64::from(length)) <= length_max);
        let start = start.ok_or_else(|| NbdError::protocol(format!("{length} bytes at {offset}, where nothing was asked for")))?;
        let part = start as u32..start as u32 + length;
        let parts_max = self.content.len() / PART_BYTES_MIN as usize + 2;
        let overlaps = self.came.iter().any(|came| came.start < part.end && part.start < came.end);
        if length == 0 || overlaps || self.came.len() >= parts_max {
            return Err(NbdError::protocol("it sends a byte twice, or none, or a read in too many parts"));
        }
        // They come in order as a rule, and then are one.
        match self.came.last_mut().filter(|last| last.end == part.start) {
            Some(last) => last.end = part.end,
            None => self.came.push(part),
        }
        Ok(start as usize)
    }

    fn is_whole(&self) -> bool {
        self.came.iter().map(|came| came.len()).sum::<usize>() == self.content.len()
    }
}

impl Reads<'_> {
    /// The next that is whole; none when all have come.
    ///
    /// # Errors
    /// [`NbdError`]; nothing more comes after it.
    pub async fn next(&mut self) -> Result<Option<Read>, NbdError> {
        loop {
            while self.flying.len() < self.at_once {
                let Some(range) = self.waiting.pop_front() else { break };
                self.begin(range).await?;
            }
            if self.flying.is_empty() {
                return Ok(None);
            }
            if let Some(read) = self.hear().await? {
                return Ok(Some(read));
            }
        }
    }

    async fn begin(&mut self, range: Range<u64>) -> Result<(), NbdError> {
        let length = u32::try_from(range.end.saturating_sub(range.start)).unwrap_or(u32::MAX);
        let is_taken = length > 0 && length <= self.client.export.read_bytes_max && range.end <= self.client.export.size;
        if !is_taken {
            let what = format!("a read from {} to {}", range.start, range.end);
            return Err(NbdError::Refused { what, reason: "it is empty, too long, or behind the end".to_owned() });
        }
        let cookie = self.client.request(READ, range.start, length).await?;
        let flying = Flying { offset: range.start, content: BytesMut::zeroed(length as usize), came: Vec::new() };
        self.flying.insert(cookie, flying);
        Ok(())
    }

    /// Hears one part of a reply; a read that is whole with it.
    async fn hear(&mut self) -> Result<Option<Read>, NbdError> {
        let Head { cookie, done, kind } = self.client.wire.head().await?;
        let structured = self.client.export.structured;
        let flying = self.flying.get_mut(&cookie).ok_or_else(|| NbdError::protocol("it answers what was not asked"))?;
        match kind {
            Kind::Data(offset, length) if structured => {
                let at = flying.place(offset, length)?;
                self.client.wire.append(&mut flying.content, at, length as usize).await?;
            }
            // It is zeros already.
            Kind::Hole(offset, length) if structured => drop(flying.place(offset, length)?),
            Kind::Simple if !structured => {
                let length = flying.content.len();
                let at = flying.place(flying.offset, length as u32)?;
                self.client.wire.append(&mut flying.content, at, length).await?;
            }
            Kind::Nothing if done => {}
            Kind::Error(reason) => {
                let what = format!("{} bytes at {}", flying.content.len(), flying.offset);
                return Err(NbdError::Refused { what, reason });
            }
            _ => return Err(NbdError::protocol("it answers a read with something else")),
        }
        if !done {
            return Ok(None);
        }
        let Some(flying) = self.flying.remove(&cookie) else { return Ok(None) };
        if !flying.is_whole() {
            return Err(NbdError::protocol(format!("{} bytes at {} did not all come", flying.content.len(), flying.offset)));
        }
        Ok(Some(Read { offset: flying.offset, content: flying.content.freeze() }))
    }
}
