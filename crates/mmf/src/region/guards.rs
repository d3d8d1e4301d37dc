//! [`ReadGuard`] and [`WriteGuard`]: the lock of a region, and what it allows.

use std::io;

use super::change::{RegionState, Segment};
use super::contents;
use super::lock_error::LockError;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::layout::PAYLOAD;
use crate::segment::{Deadline, ReadLock, WriteLock};

/// Plain data: every pattern of bytes is a value, without references and padding.
///
/// # Safety
///
/// - Every pattern of `size_of::<Self>()` bytes is a value of the type.
/// - The type has no padding.
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($type:ty),*) => {$(
        // SAFETY: a number: every pattern is a value, and there is no padding.
        unsafe impl Plain for $type {}
    )*};
}
plain!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);
// SAFETY: elements stand side by side without padding.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The lock for reading. Dropping it releases the lock.
pub struct ReadGuard<'a> {
    lock: ReadLock<'a, RegionState>,
}

/// The lock for writing. Dropping it releases the lock, and peers see the change. If a panic drops
/// it after a change, it leaves poison.
pub struct WriteGuard<'a> {
    lock: WriteLock<'a, RegionState>,
}

impl<'a> ReadGuard<'a> {
    /// Takes the lock. Calls `until` only if the fast path fails.
    #[inline]
    pub(super) fn lock(segment: &'a Segment, until: impl FnOnce() -> Deadline) -> Result<Self, LockError<Self>> {
        ReadLock::lock(segment, until, "lock", |outcome| {
            let (lock, acquired) = outcome.map_err(LockError::Failed)?;
            let guard = ReadGuard { lock };
            if acquired.poisoned { Err(LockError::Poisoned(guard)) } else { Ok(guard) }
        })
    }
}

impl<'a> WriteGuard<'a> {
    /// Takes the lock. Calls `until` only if the fast path fails.
    #[inline]
    pub(super) fn lock(segment: &'a Segment, until: impl FnOnce() -> Deadline) -> Result<Self, LockError<Self>> {
        WriteLock::lock(segment, until, "lock", |outcome| {
            let (lock, acquired) = outcome.map_err(LockError::Failed)?;
            let guard = WriteGuard { lock };
            if acquired.poisoned { Err(LockError::Poisoned(guard)) } else { Ok(guard) }
        })
    }

    /// Begins a change: until the drop, the death of this process leaves poison, and readers
    /// without a lock see that a change is under way.
    #[inline]
    fn begin(&mut self) -> Result<()> {
        let segment = self.lock.segment();
        segment.or_fault(segment.begin_change(), "write")
    }

    /// Makes a change. A failure leaves the contents torn.
    #[inline]
    fn change(&mut self, change: impl FnOnce(&Segment) -> Result<()>) -> Result<()> {
        self.begin()?;
        let segment = self.lock.segment();
        let changed = change(segment);
        if changed.is_err() {
            segment.set_torn(true);
        }
        changed
    }

    /// Writes `data` at `offset`, which lengthens the contents where it passes their end; a gap
    /// reads as zeros.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] past the capacity, and then nothing was changed;
    /// [`ErrorKind::NoSpace`]; [`ErrorKind::Damaged`]; [`ErrorKind::Fault`], after which the change
    /// may be half made: that is poison once the guard is dropped, unless [`set`](Self::set) has
    /// replaced all of it.
    pub fn write_at(&mut self, offset: usize, data: &[u8]) -> Result<()> {
        let segment = self.lock.segment();
        let len = contents::len(segment, "write")?;
        let Some(end) = offset.checked_add(data.len()) else {
            return Err(segment.name_error(Error::invalid("write", "the end of the range overflows")));
        };
        contents::make_room(segment, end)?;
        self.change(|segment| {
            if offset > len {
                segment.map.fill(PAYLOAD + len..PAYLOAD + offset, 0)?;
            }
            segment.map.write_at(PAYLOAD + offset, data)?;
            if end > len { contents::set_len(segment, end, "write") } else { Ok(()) }
        })
    }

    /// Makes `data` the whole contents.
    ///
    /// # Errors
    ///
    /// Those of [`write_at`](Self::write_at).
    pub fn set(&mut self, data: &[u8]) -> Result<()> {
        let segment = self.lock.segment();
        contents::make_room(segment, data.len())?;
        self.change(|segment| {
            segment.map.write_at(PAYLOAD, data)?;
            contents::set_len(segment, data.len(), "write")
        })?;
        segment.set_torn(false);
        Ok(())
    }

    /// Cuts the contents off, or lengthens them by zeros.
    ///
    /// # Errors
    ///
    /// Those of [`write_at`](Self::write_at).
    pub fn resize(&mut self, len: usize) -> Result<()> {
        let segment = self.lock.segment();
        let now = contents::len(segment, "resize")?;
        contents::make_room(segment, len)?;
        self.change(|segment| {
            if len > now {
                segment.map.fill(PAYLOAD + now..PAYLOAD + len, 0)?;
            }
            contents::set_len(segment, len, "resize")
        })
    }

    /// Writes a value of plain data at `offset`, as [`write_at`](Self::write_at).
    ///
    /// # Errors
    ///
    /// Those of [`write_at`](Self::write_at).
    pub fn put<T: Plain>(&mut self, offset: usize, value: T) -> Result<()> {
        // SAFETY: `Plain` has no padding, so all its bytes are initialised; they live in `value`
        // until the end.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        self.write_at(offset, bytes)
    }

    /// A stream that writes from the start, lengthening the contents as it goes.
    pub fn writer(&mut self) -> Writer<'_, 'a> {
        Writer { guard: self, at: 0 }
    }

    /// The contents in place, for changing without a copy. Calling it counts as a change.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fault`]; [`ErrorKind::Damaged`].
    ///
    /// # Safety
    ///
    /// While the slice lives, no process writes or reads these bytes without having the lock, and
    /// none makes the object shorter. That is so if every process that may open it uses it through
    /// this crate and is trusted.
    pub unsafe fn as_mut_slice(&mut self) -> Result<&mut [u8]> {
        self.begin()?;
        let segment = self.lock.segment();
        let len = contents::len(segment, "write")?;
        let base = segment.map.as_mut_ptr()?.wrapping_add(PAYLOAD);
        // SAFETY: `contents::len` checked that so much is mapped, for as long as the region lives,
        // which outlives this guard; the lock keeps all others out, by the caller's promise.
        Ok(unsafe { std::slice::from_raw_parts_mut(base, len) })
    }
}

macro_rules! reading {
    ($guard:ident) => {
        impl $guard<'_> {
            pub(super) fn segment(&self) -> &Segment {
                self.lock.segment()
            }

            /// Returns the length of the contents in bytes.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::Fault`]; [`ErrorKind::Damaged`] if a peer has stored an invalid length.
            pub fn len(&self) -> Result<usize> {
                contents::len(self.segment(), "measure")
            }

            /// Returns whether the contents have no bytes.
            ///
            /// # Errors
            ///
            /// Those of [`len`](Self::len).
            pub fn is_empty(&self) -> Result<bool> {
                Ok(self.len()? == 0)
            }

            /// Copies `buf.len()` bytes at `offset` into `buf`.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::OutOfBounds`] past the end of the contents; [`ErrorKind::Fault`];
            /// [`ErrorKind::Damaged`].
            pub fn read_at(&self, offset: usize, buf: &mut [u8]) -> Result<()> {
                let (size, len) = (self.len()?, buf.len());
                if offset > size || len > size - offset {
                    let kind = ErrorKind::OutOfBounds { offset, len, size };
                    return Err(self.segment().name_error(Error::new(kind, "read")));
                }
                self.segment().map.read_at(PAYLOAD + offset, buf)
            }

            /// Returns a copy of the contents.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::Fault`]; [`ErrorKind::Damaged`]; [`ErrorKind::NoSpace`] in this
            /// process.
            pub fn to_vec(&self) -> Result<Vec<u8>> {
                let mut bytes = Vec::new();
                self.read_into(&mut bytes)?;
                Ok(bytes)
            }

            /// Copies the contents like [`to_vec`](Self::to_vec), into a buffer whose memory is
            /// used again.
            ///
            /// # Errors
            ///
            /// Those of [`to_vec`](Self::to_vec).
            pub fn read_into(&self, bytes: &mut Vec<u8>) -> Result<()> {
                contents::copy(self.segment(), bytes, None)
            }

            /// Returns a copy of a value of plain data at `offset`.
            ///
            /// # Errors
            ///
            /// Those of [`read_at`](Self::read_at).
            pub fn get<T: Plain>(&self, offset: usize) -> Result<T> {
                let mut value = std::mem::MaybeUninit::<T>::zeroed();
                // SAFETY: all bytes are zero, so they are initialised, and they are this value's
                // alone.
                let bytes = unsafe { std::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
                self.read_at(offset, bytes)?;
                // SAFETY: every pattern of bytes is a value of a `Plain` type.
                Ok(unsafe { value.assume_init() })
            }

            /// A stream that reads from the start.
            #[must_use]
            pub fn reader(&self) -> Reader<'_> {
                Reader { segment: self.segment(), at: 0 }
            }

            /// The contents in place, without a copy.
            ///
            /// # Errors
            ///
            /// Those of [`len`](Self::len).
            ///
            /// # Safety
            ///
            /// While the slice lives, no process writes these bytes without having the lock, and
            /// none makes the object shorter. That is so if every process that may open it uses it
            /// through this crate and is trusted.
            pub unsafe fn as_slice(&self) -> Result<&[u8]> {
                let len = self.len()?;
                let base = self.segment().map.as_ptr().wrapping_add(PAYLOAD);
                // SAFETY: `contents::len` checked that so much is mapped, for as long as the region
                // lives, which outlives this guard; the lock keeps writers out, by the caller's
                // promise.
                Ok(unsafe { std::slice::from_raw_parts(base, len) })
            }
        }
    };
}
reading!(ReadGuard);
reading!(WriteGuard);

/// Reads a region's contents as a stream; from [`ReadGuard::reader`].
#[derive(Clone)]
pub struct Reader<'a> {
    segment: &'a Segment,
    at: usize,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = contents::len(self.segment, "read")?.saturating_sub(self.at);
        let n = buf.len().min(left);
        self.segment.map.read_at(PAYLOAD + self.at, &mut buf[..n])?;
        self.at += n;
        Ok(n)
    }
}

/// Writes a region's contents as a stream; from [`WriteGuard::writer`].
pub struct Writer<'g, 'a> {
    guard: &'g mut WriteGuard<'a>,
    at: usize,
}

impl io::Write for Writer<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.guard.write_at(self.at, buf)?;
        self.at += buf.len();
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
