//! `Mmf::Region::Guard`: a lock that is held for the time of a block.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use magnus::{Error, RClass, RModule, RString, Ruby, method, prelude::*};
use mmf::{ReadGuard, Region, WriteGuard};

use crate::error;

/// The lock in hand.
pub(crate) enum Held {
    Reading(ReadGuard<'static>),
    Writing(WriteGuard<'static>),
}

/// Held as long as the block runs. Whoever keeps the object beyond that has an empty one.
#[magnus::wrap(class = "Mmf::Region::Guard", free_immediately, size)]
pub(crate) struct Guard {
    held: RefCell<Option<OfThread>>,
    thread: ThreadId,
}

struct OfThread {
    held: Held,
    /// What the guard borrows from. It comes after it, and so is dropped after it.
    _region: Arc<Region>,
}

// SAFETY: the guard inside stays with the thread that took it: `Guard::with` refuses others, `Guard::release` is called
// by the frame that made it, and by then it is empty for the garbage collector, in whatever thread that runs.
unsafe impl Send for OfThread {}

impl Guard {
    /// `held` must borrow from `region`.
    pub(crate) fn new(held: Held, region: Arc<Region>) -> Guard {
        Guard { held: RefCell::new(Some(OfThread { held, _region: region })), thread: thread::current().id() }
    }

    /// Gives the lock back, in the thread that took it.
    pub(crate) fn release(&self) {
        let held = self.held.borrow_mut().take();
        drop(held);
    }

    fn with<R>(ruby: &Ruby, this: &Self, body: impl FnOnce(&mut Held) -> mmf::Result<R>) -> Result<R, Error> {
        if thread::current().id() != this.thread {
            return Err(error::new(ruby, "InvalidArgumentError", "the lock is another thread's"));
        }
        match &mut *this.held.borrow_mut() {
            Some(held) => body(&mut held.held).map_err(|error| error::raise(ruby, error)),
            None => Err(error::new(ruby, "ClosedError", "the lock was released")),
        }
    }

    fn writing<R>(
        ruby: &Ruby,
        this: &Self,
        body: impl FnOnce(&mut WriteGuard<'static>) -> mmf::Result<R>,
    ) -> Result<R, Error> {
        let result = Self::with(ruby, this, |held| match held {
            Held::Writing(guard) => body(guard).map(Some),
            Held::Reading(_) => Ok(None),
        })?;
        result.ok_or_else(|| error::new(ruby, "ReadOnlyError", "the lock is one for reading"))
    }

    fn size(ruby: &Ruby, this: &Self) -> Result<usize, Error> {
        Self::with(ruby, this, |held| match held {
            Held::Reading(guard) => guard.len(),
            Held::Writing(guard) => guard.len(),
        })
    }

    fn read(ruby: &Ruby, this: &Self) -> Result<RString, Error> {
        let bytes = Self::with(ruby, this, |held| match held {
            Held::Reading(guard) => guard.to_vec(),
            Held::Writing(guard) => guard.to_vec(),
        })?;
        Ok(ruby.str_from_slice(&bytes))
    }

    fn pread(ruby: &Ruby, this: &Self, length: usize, offset: usize) -> Result<RString, Error> {
        let bytes = Self::with(ruby, this, |held| {
            // No more than there is, before memory is taken for it.
            let size = match held {
                Held::Reading(guard) => guard.len()?,
                Held::Writing(guard) => guard.len()?,
            };
            let mut bytes = vec![0; length.min(size.saturating_sub(offset))];
            match held {
                Held::Reading(guard) => guard.read_at(offset.min(size), &mut bytes)?,
                Held::Writing(guard) => guard.read_at(offset.min(size), &mut bytes)?,
            }
            Ok(bytes)
        })?;
        Ok(ruby.str_from_slice(&bytes))
    }

    fn pwrite(ruby: &Ruby, this: &Self, data: RString, offset: usize) -> Result<usize, Error> {
        let data = crate::bytes(data);
        Self::writing(ruby, this, |guard| guard.write_at(offset, &data))?;
        Ok(data.len())
    }

    fn replace(ruby: &Ruby, this: &Self, data: RString) -> Result<(), Error> {
        let data = crate::bytes(data);
        Self::writing(ruby, this, |guard| guard.set(&data))
    }

    fn truncate(ruby: &Ruby, this: &Self, size: usize) -> Result<(), Error> {
        Self::writing(ruby, this, |guard| guard.resize(size))
    }
}

pub(crate) fn define(ruby: &Ruby, module: RModule) -> Result<(), Error> {
    let class = module.const_get::<_, RClass>("Region")?.define_class("Guard", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_method("size", method!(Guard::size, 0))?;
    class.define_method("read", method!(Guard::read, 0))?;
    class.define_method("pread", method!(Guard::pread, 2))?;
    class.define_method("pwrite", method!(Guard::pwrite, 2))?;
    class.define_method("replace", method!(Guard::replace, 1))?;
    class.define_method("truncate", method!(Guard::truncate, 1))?;
    Ok(())
}
