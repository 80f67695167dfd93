//! Up to where requests can be made: which export, what it has, and what it can tell.

use std::collections::BTreeMap;

use tokio::io::{AsyncRead, AsyncWrite};

use super::reply::Wire;
use super::{NbdError, Wanted};

const GREETING: u64 = 0x4e42_444d_4147_4943;
const NEWSTYLE: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;

const FLAG_FIXED: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;

const OPTION_EXPORT_NAME: u32 = 1;
const OPTION_GO: u32 = 7;
const OPTION_STRUCTURED_REPLY: u32 = 8;
const OPTION_SET_META_CONTEXT: u32 = 10;

const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_META_CONTEXT: u32 = 4;
const REPLY_IS_ERROR: u32 = 1 << 31;
const ERROR_UNSUPPORTED: u32 = REPLY_IS_ERROR | 1;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// The longest reply to an option that is taken, in bytes.
const OPTION_REPLY_BYTES_MAX: u32 = 64 << 10;
/// Replies to one option.
const OPTION_REPLIES_MAX: usize = 256;
/// The longest name of an export or a context that the protocol allows, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 4_096;
/// The longest read that a server must take that says nothing else, in bytes.
const READ_BYTES_MAX: u32 = 32 << 20;

/// What an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Export {
    /// In bytes.
    pub size: u64,
    /// Contexts by the numbers that the server gave them.
    pub contexts: BTreeMap<u32, String>,
    /// Whether replies are structured.
    pub structured: bool,
    /// The longest read that it takes, in bytes.
    pub read_bytes_max: u32,
}

/// Agrees with a server on what is read.
pub(super) async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin + Send>(wire: &mut Wire<S>, wanted: &Wanted) -> Result<Export, NbdError> {
    if wanted.export.len() > NAME_BYTES_MAX || wanted.contexts.iter().any(|context| context.len() > NAME_BYTES_MAX) {
        return Err(NbdError::protocol("the name of an export or a context is at most 4096 bytes long"));
    }
    if wire.u64().await? != GREETING {
        return Err(NbdError::protocol("it does not greet as an NBD server does"));
    }
    if wire.u64().await? != NEWSTYLE {
        return Err(NbdError::protocol("it speaks the protocol of before 2011"));
    }
    let offered = wire.u16().await?;
    if offered & FLAG_FIXED == 0 {
        return Err(NbdError::protocol("it does not take options"));
    }
    wire.write(&u32::from(offered & (FLAG_FIXED | FLAG_NO_ZEROES)).to_be_bytes()).await?;
    let structured = match ask(wire, OPTION_STRUCTURED_REPLY, &[], |_, _| Ok(())).await {
        Ok(()) => true,
        Err(Answer::Error(error, _)) if error == ERROR_UNSUPPORTED => false,
        Err(answer) => return Err(answer.into_error("structured replies")),
    };
    let contexts = if wanted.contexts.is_empty() {
        BTreeMap::new()
    } else if structured {
        contexts(wire, wanted).await?
    } else {
        return Err(NbdError::Refused { what: "metadata contexts".to_owned(), reason: "it has no structured replies".to_owned() });
    };
    let mut export = Export { size: 0, contexts, structured, read_bytes_max: READ_BYTES_MAX };
    go(wire, &wanted.export, &mut export, offered & FLAG_NO_ZEROES != 0).await?;
    Ok(export)
}

/// Asks for contexts, of which all must be there.
async fn contexts<S: AsyncRead + AsyncWrite + Unpin + Send>(
    wire: &mut Wire<S>,
    wanted: &Wanted,
) -> Result<BTreeMap<u32, String>, NbdError> {
    let mut data = text(&wanted.export);
    data.extend_from_slice(&length(wanted.contexts.len()));
    wanted.contexts.iter().for_each(|context| data.extend(text(context)));
    let mut found = BTreeMap::new();
    let answered = ask(wire, OPTION_SET_META_CONTEXT, &data, |kind, data| {
        let (REPLY_META_CONTEXT, Some((id, name))) = (kind, data.split_first_chunk::<4>()) else {
            return Err(NbdError::protocol(format!("it answers with {kind:#x} to being asked for contexts")));
        };
        let name = String::from_utf8(name.to_vec()).map_err(|_| NbdError::protocol("the name of a context is not UTF-8"))?;
        let is_wanted = wanted.contexts.contains(&name) && !found.values().any(|known| *known == name);
        if !is_wanted || found.insert(u32::from_be_bytes(*id), name).is_some() {
            return Err(NbdError::protocol("it gives a context that was not asked for, or one twice"));
        }
        Ok(())
    });
    answered.await.map_err(|answer| answer.into_error("metadata contexts"))?;
    match wanted.contexts.iter().find(|context| !found.values().any(|known| known == *context)) {
        Some(missing) => Err(NbdError::Refused { what: format!("context {missing}"), reason: "it does not have it".to_owned() }),
        None => Ok(found),
    }
}

/// Chooses the export.
async fn go<S: AsyncRead + AsyncWrite + Unpin + Send>(
    wire: &mut Wire<S>,
    name: &str,
    export: &mut Export,
    no_zeroes: bool,
) -> Result<(), NbdError> {
    let mut data = text(name);
    data.extend_from_slice(&1u16.to_be_bytes());
    data.extend_from_slice(&INFO_BLOCK_SIZE.to_be_bytes());
    let mut size = None;
    let answered = ask(wire, OPTION_GO, &data, |kind, data| {
        let (REPLY_INFO, Some((info, data))) = (kind, data.split_first_chunk::<2>()) else {
            return Err(NbdError::protocol(format!("it answers with {kind:#x} to being asked for an export")));
        };
        match (u16::from_be_bytes(*info), data) {
            (INFO_EXPORT, data) => {
                let (bytes, flags) =
                    data.split_first_chunk::<8>().ok_or_else(|| NbdError::protocol("the size of the export is cut off"))?;
                if flags.len() != 2 {
                    return Err(NbdError::protocol("the flags of the export are cut off"));
                }
                size = Some(u64::from_be_bytes(*bytes));
            }
            (INFO_BLOCK_SIZE, data) => {
                let sizes: &[u8; 12] = data.try_into().map_err(|_| NbdError::protocol("its block sizes are cut off"))?;
                let [_, _, longest] = [0, 4, 8].map(|at| u32::from_be_bytes([sizes[at], sizes[at + 1], sizes[at + 2], sizes[at + 3]]));
                export.read_bytes_max = longest.min(READ_BYTES_MAX);
            }
            // What was not asked for may be told all the same.
            _ => {}
        }
        Ok(())
    });
    match answered.await {
        Ok(()) => {}
        Err(Answer::Error(ERROR_UNSUPPORTED, _)) if export.contexts.is_empty() => size = Some(by_name(wire, name, no_zeroes).await?),
        Err(answer) => return Err(answer.into_error(&format!("export {name:?}"))),
    }
    export.size = size.ok_or_else(|| NbdError::protocol("it does not say how large the export is"))?;
    if export.size > i64::MAX as u64 {
        return Err(NbdError::protocol(format!("it says that the export has {} bytes", export.size)));
    }
    Ok(())
}

/// Chooses the export as one did before there was `GO`; says its size.
async fn by_name<S: AsyncRead + AsyncWrite + Unpin + Send>(wire: &mut Wire<S>, name: &str, no_zeroes: bool) -> Result<u64, NbdError> {
    option(wire, OPTION_EXPORT_NAME, name.as_bytes()).await?;
    let size = wire.u64().await?;
    wire.u16().await?;
    if !no_zeroes {
        wire.bytes(124).await?;
    }
    Ok(size)
}

/// How an option was answered that was not acknowledged.
enum Answer {
    /// With an error of the server, and its words.
    Error(u32, String),
    /// Not as the protocol says.
    Broken(NbdError),
}

impl From<NbdError> for Answer {
    fn from(error: NbdError) -> Answer {
        Answer::Broken(error)
    }
}

impl Answer {
    fn into_error(self, what: &str) -> NbdError {
        match self {
            Answer::Broken(error) => error,
            Answer::Error(number, words) => {
                let name = match number & !REPLY_IS_ERROR {
                    1 => "it does not know this option",
                    2 => "its policy forbids it",
                    3 => "it finds the request wrong",
                    5 => "it wants TLS",
                    6 => "there is no such export",
                    7 => "it is shutting down",
                    8 => "block sizes must be agreed on",
                    9 => "the request is too long",
                    _ => "an error that is not known",
                };
                let words = if words.is_empty() { String::new() } else { format!(" ({words})") };
                NbdError::Refused { what: what.to_owned(), reason: format!("{name}{words}") }
            }
        }
    }
}

/// Sends an option and hears its replies up to the last one.
async fn ask<S: AsyncRead + AsyncWrite + Unpin + Send>(
    wire: &mut Wire<S>,
    number: u32,
    data: &[u8],
    mut hear: impl FnMut(u32, &[u8]) -> Result<(), NbdError>,
) -> Result<(), Answer> {
    option(wire, number, data).await?;
    for _ in 0..OPTION_REPLIES_MAX {
        if wire.u64().await? != OPTION_REPLY || wire.u32().await? != number {
            return Err(NbdError::protocol("it answers something else than what was asked").into());
        }
        let (kind, length) = (wire.u32().await?, wire.u32().await?);
        if length > OPTION_REPLY_BYTES_MAX {
            return Err(NbdError::protocol(format!("a reply of {length} bytes to an option")).into());
        }
        let data = wire.bytes(length as usize).await?;
        match kind {
            REPLY_ACK if data.is_empty() => return Ok(()),
            REPLY_ACK => return Err(NbdError::protocol("it acknowledges with data").into()),
            error if error & REPLY_IS_ERROR != 0 => {
                let words = String::from_utf8_lossy(&data[..data.len().min(NAME_BYTES_MAX)]).into_owned();
                return Err(Answer::Error(error, words));
            }
            kind => hear(kind, &data)?,
        }
    }
    Err(NbdError::protocol(format!("more than {OPTION_REPLIES_MAX} replies to an option")).into())
}

async fn option<S: AsyncRead + AsyncWrite + Unpin + Send>(wire: &mut Wire<S>, number: u32, data: &[u8]) -> Result<(), NbdError> {
    let mut bytes = Vec::with_capacity(16 + data.len());
    bytes.extend_from_slice(&NEWSTYLE.to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&length(data.len()));
    bytes.extend_from_slice(data);
    wire.write(&bytes).await
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("names are bounded").to_be_bytes()
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = length(text.len()).to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
