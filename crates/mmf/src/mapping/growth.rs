//! The length of the object, and the views that map it.
//!
//! Any process with write access may grow the object at any moment. An access past the known end
//! asks the system for the present length. Then:
//!
//! 1. An access that passes that length as well is refused, and maps nothing.
//! 2. Any other access gets a view that reaches its end, or twice as far as the newest view, so
//!    that views are few. It does not map what a peer has added beyond that.
//! 3. No view of a segment passes the capacity that its header had when it was opened.
//!
//! So this process bounds what is mapped by its own accesses, and in a segment by its capacity.

use std::sync::atomic::Ordering;

use super::{Growth, Mapping, options};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{self, View, ViewRequest};
use crate::types::Access;

impl Mapping {
    /// Grows the object to at least `len` bytes, with zeros after its old end. A shorter `len`
    /// changes nothing.
    ///
    /// Named and anonymous memory grows up to its [`reserve`](super::MappingOptions::reserve), a
    /// file as far as its disk. Every other process can access the new bytes at once: an access
    /// past the length that it knows asks the system for the present one. Pointers that were taken
    /// before stay valid for the bytes that they had.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] past the reserve; [`ErrorKind::NoSpace`], and then a file may be
    /// longer than before, but not as long as asked for; [`ErrorKind::ReadOnly`];
    /// [`ErrorKind::Unsupported`] for a [part](super::MappingOptions::part) and for copy-on-write.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::Mapping;
    ///
    /// let log = Mapping::options().size(1 << 16).reserve(1 << 30).anonymous()?;
    /// log.grow(1 << 20)?;
    /// log.write_at((1 << 20) - 4, b"last")?;
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn grow(&self, len: usize) -> Result<()> {
        self.try_grow(len).map_err(|error| self.name_error(error))
    }

    /// Sets the segment's capacity: this handle grows the object up to `capacity` bytes, and maps
    /// no more than those, however long a peer makes the object.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.growth = Growth::UpTo(capacity);
        self.limit = capacity;
    }

    /// Asks the system for the present length of the object, maps all of it, and returns the
    /// length.
    ///
    /// It is needed only for the length itself: an access past the known length asks the system,
    /// and maps what it needs or twice what was mapped. This call maps all of the object, so a peer
    /// decides how much address space it takes. If that matters, map a
    /// [part](super::MappingOptions::part). An object that became shorter keeps its known length;
    /// an access to a missing page returns [`ErrorKind::Fault`]. A copy-on-write mapping follows up
    /// to its [`reserve`](super::MappingOptions::reserve), since a new view would lose its changes.
    ///
    /// # Errors
    ///
    /// The system's errors.
    pub fn refresh(&self) -> Result<usize> {
        if self.growth != Growth::Fixed {
            let mut views = self.views();
            let adopted = self.object.len().and_then(|len| self.adopt(len, &mut views));
            adopted.map_err(|error| self.name_error(error))?;
        }
        Ok(self.len())
    }

    /// Returns the present length of the object, limited to the part that an access may reach. Maps
    /// nothing.
    pub(crate) fn length_now(&self) -> Result<usize> {
        let followed = match (self.growth, self.access) {
            (Growth::Fixed, _) => return Ok(self.len()),
            (_, Access::CopyOnWrite) => self.views().last().map_or(0, View::address_len),
            _ => self.limit,
        };
        let now = self.object.len().map_err(|error| self.name_error(error))?;
        Ok(usize::try_from(now).unwrap_or(usize::MAX).min(followed).max(self.len()))
    }

    /// Returns the end of the view for an access that ends at `end`: `end`, or twice as far as the
    /// newest view. All views are kept, so they must be few, and a peer that grows the object must
    /// not choose their length.
    ///
    /// It is rounded up to whole pages, as the system maps. On Windows, which sizes objects in
    /// pages, an access to the last page then finds all of the object.
    fn step(&self, end: usize, views: &[View]) -> usize {
        let least = views.last().map_or(0, View::address_len).saturating_mul(2).max(end);
        least.checked_next_multiple_of(sys::page_size()).unwrap_or(least)
    }

    /// Raises the known length to `now`, with a new view if the last one does not reach it.
    fn adopt(&self, now: u64, views: &mut Vec<View>) -> Result<()> {
        // No slice may be longer.
        let now = usize::try_from(now).unwrap_or(usize::MAX).min(isize::MAX as usize).min(self.limit);
        if now <= self.len() {
            return Ok(());
        }
        let address_len = views.last().map_or(0, View::address_len);
        let mut end = now;
        if self.access == Access::CopyOnWrite {
            // A new view would show the object's bytes in place of those that were changed here.
            end = end.min(address_len);
        } else if address_len < now {
            let view = self.farther(now, address_len)?;
            end = end.min(view.address_len());
            if end <= self.len() {
                // The object became shorter meanwhile. The known length stays, since other threads
                // may have loaded it.
                return Ok(());
            }
            self.base.store(view.base(), Ordering::Relaxed);
            views.push(view);
        }
        self.len.store(end, Ordering::Release);
        Ok(())
    }

    /// Maps a view that reaches `now`, or twice as far as the last one if the system allows that.
    /// Each view is kept until the drop, and the system limits their number (`vm.max_map_count`).
    fn farther(&self, now: usize, address_len: usize) -> Result<View> {
        self.rearm();
        let map =
            |address_len| View::map(&self.object, &ViewRequest { address_len, base_address: None, ..self.request });
        let twice = address_len.saturating_mul(2).min(isize::MAX as usize).min(self.limit);
        if twice > now {
            if let Ok(view) = map(twice) {
                return Ok(view);
            }
        }
        map(now)
    }

    fn try_grow(&self, len: usize) -> Result<()> {
        self.rearm();
        match self.access {
            Access::ReadWrite => {}
            Access::ReadOnly => return Err(Error::new(ErrorKind::ReadOnly, "grow")),
            Access::CopyOnWrite => return Err(Error::unsupported("grow", "growing a copy-on-write mapping")),
        }
        match self.growth {
            Growth::Fixed => return Err(Error::unsupported("grow", "growing a part; grow the whole")),
            // The local reserve does not limit growth by a peer.
            Growth::UpTo(most) if len > most.max(self.len()) => {
                let reason = format!("{len} bytes pass the {most} that were reserved");
                return Err(Error::invalid("grow", reason).with_help("reserve more when it is created"));
            }
            Growth::UpTo(_) | Growth::Unlimited => {}
        }
        // This comes before the object grows to a length that only other processes could map.
        options::address_space(len as u64)?;
        let mut views = self.views();
        // The object may be shorter than the known length: a process may have truncated the file.
        if len > self.len() || len as u64 > self.object.len()? {
            self.object.grow(len as u64)?;
            let now = options::known_or_asked_len(&self.object)?;
            // A peer may have grown it farther.
            self.adopt(now.min(self.step(len, &views) as u64), &mut views)?;
        }
        Ok(())
    }

    /// Locates a range past the known length: asks the system for the present one, since another
    /// process may have grown the object. A refused access maps nothing; any other one maps what
    /// [`step`](Mapping::step) says.
    #[cold]
    #[inline(never)]
    pub(super) fn locate_beyond(&self, offset: usize, len: usize, doing: &'static str) -> Result<*mut u8> {
        let size = self.length_now()?;
        if offset <= size && len <= size - offset {
            let mut views = self.views();
            let end = self.step(offset + len, &views).min(size);
            self.adopt(end as u64, &mut views).map_err(|error| self.name_error(error))?;
            // The object may have become shorter meanwhile.
            if offset + len <= self.len() {
                return Ok(self.base.load(Ordering::Relaxed).wrapping_add(offset));
            }
        }
        if self.structured {
            return Err(self.leads_nowhere(offset));
        }
        Err(self.name_error(Error::new(ErrorKind::OutOfBounds { offset, len, size }, doing)))
    }
}
