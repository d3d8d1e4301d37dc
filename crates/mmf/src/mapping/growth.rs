//! How long the object is, and how much of it is mapped.
//!
//! Any process that may write the object may make it longer at any moment. An access past the known
//! end asks the system for the present length. Then:
//!
//! 1. An access that passes that length too is refused, and maps nothing.
//! 2. Any other is served by a view that reaches its end, or twice as far as the newest view, so
//!    that views are few; how much a peer added beyond that does not matter.
//! 3. No view of a segment passes the capacity that its header had when it was opened.
//!
//! So what is mapped is bounded by what this process asks for, and in a segment by its capacity.

use std::sync::atomic::Ordering;

use super::{Growth, Mapping, options};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{self, View, ViewRequest};
use crate::types::Access;

impl Mapping {
    /// Makes the object at least `len` bytes long, zeros behind its old end. A shorter `len`
    /// changes nothing.
    ///
    /// Named and anonymous memory grows up to what [`reserve`](super::MappingOptions::reserve) set
    /// aside, a file as far as its disk. Every other process can reach the new bytes at once: an
    /// access past the length that it knows asks the system for the present one. Pointers taken
    /// before stay good for the bytes they had.
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

    /// Lets this handle grow the object to `capacity` bytes, as the segment's header says, and map
    /// no more than those, however long a peer makes the object.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.growth = Growth::UpTo(capacity);
        self.limit = capacity;
    }

    /// Asks the system how long the object is now, and gives the length that can be reached.
    ///
    /// Needed only for the length itself: an access past the known length asks by itself, and maps
    /// no more than it needs or twice what was mapped. This maps all of the object, so a peer
    /// decides how much of the address space it takes; where that matters, map a
    /// [part](super::MappingOptions::part). An object that became shorter keeps its known length;
    /// what is gone is an [`ErrorKind::Fault`]. A copy-on-write mapping follows as far as its
    /// [`reserve`](super::MappingOptions::reserve), since farther on it would have to be mapped
    /// anew, without its changes.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn refresh(&self) -> Result<usize> {
        if self.growth != Growth::Fixed {
            let mut views = self.views();
            let adopted = self.object.len().and_then(|len| self.adopt(len, &mut views));
            adopted.map_err(|error| self.name_error(error))?;
        }
        Ok(self.len())
    }

    /// The length of the object now, as far as an access can follow it. Maps nothing.
    pub(crate) fn length_now(&self) -> Result<usize> {
        let followed = match (self.growth, self.access) {
            (Growth::Fixed, _) => return Ok(self.len()),
            (_, Access::CopyOnWrite) => self.views().last().map_or(0, View::address_len),
            _ => self.limit,
        };
        let now = self.object.len().map_err(|error| self.name_error(error))?;
        Ok(usize::try_from(now).unwrap_or(usize::MAX).min(followed).max(self.len()))
    }

    /// How far to map for an access that ends at `end`: twice as far as the newest view at the
    /// most, or to `end`. All views are kept, so they must not be many; and a peer that extends the
    /// object must not choose their length.
    ///
    /// In whole pages, as the system maps: where it sizes objects in pages (Windows), an access to
    /// the last page then finds all of the object.
    fn step(&self, end: usize, views: &[View]) -> usize {
        let least = views.last().map_or(0, View::address_len).saturating_mul(2).max(end);
        least.checked_next_multiple_of(sys::page_size()).unwrap_or(least)
    }

    /// Takes up a length that the object has by now, with a new view where the last does not reach
    /// it.
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
                // It became shorter meanwhile, and others may be about to use the length that is
                // known.
                return Ok(());
            }
            self.base.store(view.base(), Ordering::Relaxed);
            views.push(view);
        }
        self.len.store(end, Ordering::Release);
        Ok(())
    }

    /// A view that reaches `now`; twice as far as the last where that can be had, since each is
    /// kept to the end, and the system limits their number (`vm.max_map_count`).
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
            // What a peer has made already is no question of this mapping's reserve.
            Growth::UpTo(most) if len > most.max(self.len()) => {
                let reason = format!("{len} bytes pass the {most} that were reserved");
                return Err(Error::invalid("grow", reason).with_help("reserve more when it is created"));
            }
            Growth::UpTo(_) | Growth::Unlimited => {}
        }
        // Before the object has grown to what only others can reach.
        options::address_space(len as u64)?;
        let mut views = self.views();
        // The known length may be more than there is: a process may have made the file shorter.
        if len > self.len() || len as u64 > self.object.len()? {
            self.object.grow(len as u64)?;
            let now = options::known_or_asked_len(&self.object)?;
            // A peer may have made it longer than that.
            self.adopt(now.min(self.step(len, &views) as u64), &mut views)?;
        }
        Ok(())
    }

    /// Asks the system, since another process may have made the object longer. A refused access
    /// maps nothing; any other maps what it needs, not all that a peer may have added.
    #[cold]
    #[inline(never)]
    pub(super) fn locate_beyond(&self, offset: usize, len: usize, doing: &'static str) -> Result<*mut u8> {
        let size = self.length_now()?;
        if offset <= size && len <= size - offset {
            let mut views = self.views();
            let end = self.step(offset + len, &views).min(size);
            self.adopt(end as u64, &mut views).map_err(|error| self.name_error(error))?;
            // It may have become shorter meanwhile.
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
