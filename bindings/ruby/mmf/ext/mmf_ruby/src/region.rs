//! `Mmf::Region`, without what `lib/mmf/region.rb` makes of it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use magnus::{Error, RHash, RModule, RString, Ruby, Value, function, method, prelude::*};
use mmf::{Access, ErrorKind, LockError, Region, RegionOptions, Source};

use crate::error;
use crate::guard::{Guard, Held};
use crate::options::{Deadline, How, Options};

/// A region until it is closed.
#[magnus::wrap(class = "Mmf::Region", free_immediately, size)]
pub(crate) struct RubyRegion {
    open: RefCell<Option<Handle>>,
    source: Source,
    access: Access,
    /// How a forked child opens its own handle.
    options: RegionOptions,
}

/// A handle, and the process that it is good for.
struct Handle {
    region: Arc<Region>,
    process: u32,
}

impl Handle {
    fn new(region: Region) -> Handle {
        Handle { region: Arc::new(region), process: std::process::id() }
    }
}

impl RubyRegion {
    fn open(ruby: &Ruby, how: How, options: RHash) -> Result<RubyRegion, Error> {
        let options = Options(options);
        let access = options.access(ruby)?;
        let mut wanted = Region::options()
            .access(access)
            .allow_other_owners(options.get(ruby, "allow_other_owners")?.unwrap_or(false));
        if let Some(capacity) = options.get(ruby, "capacity")? {
            wanted = wanted.capacity(capacity);
        }
        if let Some(most) = options.get(ruby, "max_capacity")? {
            wanted = wanted.max_capacity(most);
        }
        if let Some(permissions) = options.permissions(ruby)? {
            wanted = wanted.permissions(permissions);
        }
        let Some(source) = options.source(ruby)? else {
            return Err(error::new(ruby, "InvalidArgumentError", "a region needs a name or a file"));
        };
        let region = mmf_gvl::wait(ruby, |_| {
            Some(match how {
                How::Open => wanted.open(&source),
                How::Create => wanted.create_new(&source),
                How::Both => wanted.open_or_create(&source),
            })
        })?;
        let region = region.map_err(|error| error::raise(ruby, error))?;
        Ok(RubyRegion { open: RefCell::new(Some(Handle::new(region))), source, access, options: wanted })
    }

    /// The handle; in a forked child one of its own, since it cannot use its parent's.
    fn get(&self, ruby: &Ruby) -> Result<Arc<Region>, Error> {
        let mut open = self.open.borrow_mut();
        let Some(handle) = &mut *open else { return Err(error::new(ruby, "ClosedError", "closed region")) };
        if handle.process != std::process::id() {
            *handle = Handle::new(self.options.open(&self.source).map_err(|error| error::raise(ruby, error))?);
        }
        Ok(Arc::clone(&handle.region))
    }

    fn with<R>(ruby: &Ruby, this: &Self, body: impl FnOnce(&Region) -> mmf::Result<R>) -> Result<R, Error> {
        body(&*this.get(ruby)?).map_err(|error| error::raise(ruby, error))
    }

    /// `native_lock(writing, timeout, despite_poison) { |guard| }`
    fn lock(ruby: &Ruby, this: &Self, writing: bool, deadline: Deadline, despite: bool) -> Result<Value, Error> {
        let region = this.get(ruby)?;
        // SAFETY: the guard borrows from a region that the `Arc` beside it in `Guard` keeps alive and in its place, and
        // is dropped before it.
        let borrowed: &'static Region = unsafe { &*Arc::as_ptr(&region) };
        let held = if writing {
            let guard = wait(ruby, deadline, |slice| match slice {
                None => borrowed.try_write(),
                Some(slice) => borrowed.write_for(slice),
            })?;
            despite_poison(ruby, guard, despite)?.map_held(Held::Writing)
        } else {
            let guard = wait(ruby, deadline, |slice| match slice {
                None => borrowed.try_read(),
                Some(slice) => borrowed.read_for(slice),
            })?;
            despite_poison(ruby, guard, despite)?.map_held(Held::Reading)
        };
        let (held, poisoned) = held;
        let guard = ruby.obj_wrap(Guard::new(held, Arc::clone(&region)));
        let result = ruby.yield_value::<_, Value>(guard);
        let cleared = if poisoned && writing && result.is_ok() { region.clear_poison() } else { Ok(()) };
        guard.release();
        cleared.map_err(|error| error::raise(ruby, error))?;
        result
    }

    /// The contents, by a handle that may only read too.
    fn read(ruby: &Ruby, this: &Self, deadline: Deadline) -> Result<RString, Error> {
        let region = this.get(ruby)?;
        let bytes = if this.access == Access::ReadOnly {
            mmf_gvl::wait(ruby, |_| Some(region.to_vec()))?.map_err(|error| error::raise(ruby, error))?
        } else {
            let guard = wait(ruby, deadline, |slice| match slice {
                None => region.try_read(),
                Some(slice) => region.read_for(slice),
            })?;
            let guard = guard.map_err(|error| error::raise(ruby, error.into()))?;
            guard.to_vec().map_err(|error| error::raise(ruby, error))?
        };
        Ok(ruby.str_from_slice(&bytes))
    }

    /// The new version; nil when the time is over.
    fn wait_changed(ruby: &Ruby, this: &Self, since: u64, deadline: Deadline) -> Result<Option<u64>, Error> {
        let region = this.get(ruby)?;
        let version = mmf_gvl::wait(ruby, |cancel| {
            loop {
                match region.wait_changed(since, Instant::now() + deadline.slice()) {
                    Err(error) if matches!(error.kind(), ErrorKind::Timeout { .. }) => {}
                    result => return Some(result.map(Some)),
                }
                if deadline.is_over() {
                    return Some(Ok(None));
                }
                if cancel.load(Ordering::Relaxed) {
                    return None;
                }
            }
        })?;
        version.map_err(|error| error::raise(ruby, error))
    }

    fn version(ruby: &Ruby, this: &Self) -> Result<u64, Error> {
        Self::with(ruby, this, Region::version)
    }

    fn capacity(ruby: &Ruby, this: &Self) -> Result<u64, Error> {
        Self::with(ruby, this, |region| Ok(region.capacity()))
    }

    fn is_poisoned(ruby: &Ruby, this: &Self) -> Result<bool, Error> {
        Self::with(ruby, this, Region::is_poisoned)
    }

    fn source(&self) -> String {
        self.source.to_string()
    }

    /// Size, version, poison, creation, and of each participant its process, since when, writing, reading.
    fn status(ruby: &Ruby, this: &Self) -> Result<Value, Error> {
        let status = Self::with(ruby, this, Region::status)?;
        let seconds =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
        let participants = ruby.ary_new();
        for one in status.participants {
            participants.push((one.process, seconds(one.since), one.writing, one.reading))?;
        }
        let values =
            (status.len, status.capacity, status.version, status.poisoned, seconds(status.created), participants);
        Ok(magnus::IntoValue::into_value_with(values, ruby))
    }

    fn close(&self) {
        // Out of the cell first, since closing takes its time.
        let region = self.open.borrow_mut().take();
        drop(region);
    }

    fn is_closed(&self) -> bool {
        self.open.borrow().is_none()
    }
}

/// A guard, and whether there was poison.
struct Locked<G>(G, bool);

impl<G> Locked<G> {
    fn map_held(self, held: impl FnOnce(G) -> Held) -> (Held, bool) {
        (held(self.0), self.1)
    }
}

fn despite_poison<G: mmf::LockGuard>(
    ruby: &Ruby,
    result: Result<G, LockError<G>>,
    despite: bool,
) -> Result<Locked<G>, Error> {
    match result {
        Ok(guard) => Ok(Locked(guard, false)),
        Err(LockError::Poisoned(guard)) if despite => Ok(Locked(guard, true)),
        Err(error) => Err(error::raise(ruby, error.into())),
    }
}

/// Takes a lock: at once where it is free, else without Ruby's lock.
fn wait<G>(
    ruby: &Ruby,
    deadline: Deadline,
    lock: impl Fn(Option<Duration>) -> Result<G, LockError<G>>,
) -> Result<Result<G, LockError<G>>, Error> {
    let is_taken = |result: &Result<G, LockError<G>>| match result {
        Err(LockError::Failed(error)) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Timeout { .. }),
        _ => false,
    };
    let first = lock(None);
    if !is_taken(&first) || deadline.is_over() {
        return Ok(first);
    }
    mmf_gvl::wait(ruby, |cancel: &AtomicBool| {
        loop {
            let result = lock(Some(deadline.slice()));
            if !is_taken(&result) || deadline.is_over() {
                return Some(result);
            }
            if cancel.load(Ordering::Relaxed) {
                return None;
            }
        }
    })
}

pub(crate) fn define(ruby: &Ruby, module: RModule) -> Result<(), Error> {
    let class = module.define_class("Region", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("native_open", function!(RubyRegion::open, 2))?;
    class.define_method("native_lock", method!(RubyRegion::lock, 3))?;
    class.define_method("native_read", method!(RubyRegion::read, 1))?;
    class.define_method("native_wait", method!(RubyRegion::wait_changed, 2))?;
    class.define_method("native_status", method!(RubyRegion::status, 0))?;
    class.define_method("version", method!(RubyRegion::version, 0))?;
    class.define_method("capacity", method!(RubyRegion::capacity, 0))?;
    class.define_method("poisoned?", method!(RubyRegion::is_poisoned, 0))?;
    class.define_method("source", method!(RubyRegion::source, 0))?;
    class.define_method("close", method!(RubyRegion::close, 0))?;
    class.define_method("closed?", method!(RubyRegion::is_closed, 0))?;
    Ok(())
}
