//! What a vault's store says when it does not do what was asked, in words that help where we have some.

use std::error::Error;
use std::fmt;
use std::io;

use super::directory;
use crate::s3::Hindrance;

/// An error of a store.
#[derive(Debug)]
pub struct StoreError {
    hindrance: Option<Box<Hindrance>>,
    error: Box<object_store::Error>,
}

impl StoreError {
    /// What keeps us from the store, if it is known.
    pub fn hindrance(&self) -> Option<&Hindrance> {
        self.hindrance.as_deref()
    }

    /// Of a store of our own its own error, without the library's word for it.
    fn own(&self) -> &(dyn Error + 'static) {
        match &*self.error {
            object_store::Error::Generic { store: directory::STORE, source } => source.as_ref(),
            error => error,
        }
    }

    /// Whether a range was asked for that begins behind the end of the file, in the library's words or in HTTP's.
    pub(super) fn is_behind_the_end(&self) -> bool {
        const WORDS: [&str; 2] = ["Wanted range starting at", "416 Range Not Satisfiable"];
        causes(&*self.error).map(ToString::to_string).any(|cause| WORDS.iter().any(|words| cause.contains(words)))
    }

    /// Whether it lies in what may be done there, or in the room that is left, and not in the moment.
    pub fn is_read_only(&self) -> bool {
        use object_store::Error as E;
        const KINDS: [io::ErrorKind; 4] =
            [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        let by_system = causes(&*self.error).any(|cause| cause.downcast_ref().is_some_and(|io: &io::Error| KINDS.contains(&io.kind())));
        by_system || matches!(*self.error, E::PermissionDenied { .. } | E::NotImplemented { .. } | E::NotSupported { .. })
    }
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> StoreError {
        let is_local = matches!(error, object_store::Error::Generic { store: "LocalFileSystem" | directory::STORE, .. });
        let answered = || causes(&error).find_map(|cause| Hindrance::of_answer(&cause.to_string()));
        let hindrance = if is_local { None } else { answered().or_else(|| Hindrance::of_error(&error)) };
        StoreError { hindrance: hindrance.map(Box::new), error: Box::new(error) }
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hindrance {
            Some(hindrance) => hindrance.fmt(f),
            None => write!(f, "{}", self.own()),
        }
    }
}

impl Error for StoreError {
    /// Nothing where our own words say it all.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if self.hindrance.is_some() { None } else { self.own().source() }
    }
}
