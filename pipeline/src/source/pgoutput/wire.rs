//! The bytes of a message, one field after the other.

use super::PgOutputError;

/// A message on its way through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a> {
    rest: &'a [u8],
}

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    /// It did not change, is large, and was not sent.
    Unsent,
    Text(&'a str),
}

/// What a message says of how a row was.
#[derive(Debug, Clone)]
pub(super) enum Old<'a> {
    /// Nothing: its key is as it was, or it is new.
    Untold,
    /// What identified it.
    Key(Vec<Value<'a>>),
    /// All of it.
    Whole(Vec<Value<'a>>),
}

impl<'a> Bytes<'a> {
    pub(super) fn of(rest: &'a [u8]) -> Bytes<'a> {
        Bytes { rest }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PgOutputError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(PgOutputError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], PgOutputError> {
        Ok(self.take(N)?.try_into().expect("it has the length that was asked for"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, PgOutputError> {
        Ok(u8::from_be_bytes(self.number()?))
    }

    pub(super) fn count(&mut self) -> Result<usize, PgOutputError> {
        let count = i16::from_be_bytes(self.number()?);
        usize::try_from(count).map_err(|_| PgOutputError::Short)
    }

    pub(super) fn i32(&mut self) -> Result<i32, PgOutputError> {
        Ok(i32::from_be_bytes(self.number()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, PgOutputError> {
        Ok(u32::from_be_bytes(self.number()?))
    }

    /// A text that ends with a zero byte.
    pub(super) fn text(&mut self) -> Result<&'a str, PgOutputError> {
        let length = self.rest.iter().position(|&byte| byte == 0).ok_or(PgOutputError::Short)?;
        let text = utf8(self.take(length)?)?;
        self.take(1)?;
        Ok(text)
    }

    /// The values of a row.
    fn row(&mut self) -> Result<Vec<Value<'a>>, PgOutputError> {
        // The count is not taken for room: it is a claim.
        (0..self.count()?).map(|_| self.value()).collect()
    }

    /// The values of a row behind the letter that says that they are the new ones.
    pub(super) fn marked_row(&mut self) -> Result<Vec<Value<'a>>, PgOutputError> {
        match self.byte()? {
            b'N' => self.row(),
            mark => Err(PgOutputError::Mark { mark }),
        }
    }

    /// What stands before the new values of a row.
    pub(super) fn old(&mut self) -> Result<Old<'a>, PgOutputError> {
        let marked = self.rest.first().copied().ok_or(PgOutputError::Short)?;
        if marked == b'N' {
            return Ok(Old::Untold);
        }
        self.byte()?;
        match marked {
            b'K' => Ok(Old::Key(self.row()?)),
            b'O' => Ok(Old::Whole(self.row()?)),
            mark => Err(PgOutputError::Mark { mark }),
        }
    }

    /// That nothing is left.
    pub(super) fn end(&self) -> Result<(), PgOutputError> {
        if self.rest.is_empty() { Ok(()) } else { Err(PgOutputError::Longer { bytes: self.rest.len() }) }
    }

    fn value(&mut self) -> Result<Value<'a>, PgOutputError> {
        Ok(match self.byte()? {
            b'n' => Value::Null,
            b'u' => Value::Unsent,
            b't' => {
                let length = usize::try_from(self.i32()?).map_err(|_| PgOutputError::Short)?;
                Value::Text(utf8(self.take(length)?)?)
            }
            form => return Err(PgOutputError::Form { form }),
        })
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, PgOutputError> {
    std::str::from_utf8(bytes).map_err(|error| PgOutputError::NotUtf8 { valid: error.valid_up_to() })
}
