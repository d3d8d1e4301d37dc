//! [`Cursor`]: reads and writes a mapping as a stream.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::Mapping;
use crate::error::{ErrorKind, Result};

/// A position in a [`Mapping`], to read, write and seek with as in a file.
///
/// A read ends at the mapping's end. A write there writes nothing, so `write_all` fails: a mapping
/// grows only by [`grow`](Mapping::grow). If a page is gone, a call reads or writes the bytes
/// before it, and the next call fails.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Seek, SeekFrom, Write};
/// use mmf::Mapping;
///
/// let map = Mapping::anonymous(4096)?;
/// let mut cursor = map.cursor();
/// write!(cursor, "{} {}", 1, 2)?;
/// cursor.seek(SeekFrom::Start(0))?;
/// let mut text = [0; 3];
/// cursor.read_exact(&mut text)?;
/// assert_eq!(&text, b"1 2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    mapping: &'a Mapping,
    position: u64,
}

impl Mapping {
    /// Returns a cursor at the first byte.
    #[must_use]
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { mapping: self, position: 0 }
    }
}

impl Cursor<'_> {
    /// Returns the position in bytes from the start of the mapping.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the position, and the number of bytes, up to `wanted`, that follow it.
    fn here(&self, wanted: usize) -> (usize, usize) {
        let mut len = self.mapping.len();
        let at = usize::try_from(self.position).unwrap_or(usize::MAX);
        if at.saturating_add(wanted) > len {
            // Another process may have grown it. If the query fails, the known end counts.
            len = self.mapping.length_now().unwrap_or(len);
        }
        let at = at.min(len);
        (at, wanted.min(len - at))
    }

    /// Advances by the bytes that were read or written. Returns the error only if there were none.
    fn advance(&mut self, result: Result<()>, n: usize) -> io::Result<usize> {
        let done = match result {
            Ok(()) => n,
            Err(error) => match *error.kind() {
                ErrorKind::Fault { done, .. } if done > 0 => done,
                _ => return Err(error.into()),
            },
        };
        self.position += done as u64;
        Ok(done)
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (at, n) = self.here(buf.len());
        let result = self.mapping.read_at(at, &mut buf[..n]);
        self.advance(result, n)
    }
}

impl Write for Cursor<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let (at, n) = self.here(buf.len());
        let result = self.mapping.write_at(at, &buf[..n]);
        self.advance(result, n)
    }

    /// Hands the whole mapping to the system like [`Mapping::flush`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.mapping.flush(..)?)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(by) => (self.position, by),
            SeekFrom::End(by) => (self.mapping.length_now()? as u64, by),
        };
        let Some(position) = from.checked_add_signed(by) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot seek before the start or past every end"));
        };
        self.position = position;
        Ok(position)
    }
}
