//! The part of `Win32::MMap` that is not Ruby: a map that is open, as an object of `Win32::MMap::Native`.

#![allow(missing_docs, reason = "all that is public is what `init` makes for Ruby")]

mod error;
mod value;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use magnus::{Error, RClass, RModule, RString, Ruby, Value, function, method, prelude::*, scan_args};
use mmf::{Access, LargePages};
use win32_mmap_store::{Error as StoreError, Place, Plan, Store, Wait};

/// An open map, until it is closed. Only threads with the global lock reach the cell; those that wait without it have
/// the store itself.
#[magnus::wrap(class = "Win32::MMap::Native", free_immediately, size)]
struct Native(RefCell<Option<Arc<Store>>>);

/// For how long to wait for the lock: seconds, or nil for ever; `false` for not taking it at all.
#[derive(Clone, Copy)]
enum Patience {
    Seconds(f64),
    Endless,
    Unlocked,
}

impl magnus::TryConvert for Patience {
    fn try_convert(value: Value) -> Result<Self, Error> {
        if value.is_nil() {
            return Ok(Patience::Endless);
        }
        if !value.to_bool() {
            return Ok(Patience::Unlocked);
        }
        f64::try_convert(value).map(Patience::Seconds)
    }
}

impl Native {
    /// `Native.new(file, name, size, existing, access, or_read_only, large_pages, inherit, base_address)`
    fn new(ruby: &Ruby, args: &[Value]) -> Result<Native, Error> {
        type Required = (Option<RString>, Option<RString>, u64, bool, i32, bool, bool, bool, usize);
        let (file, name, size, existing, access, or_read_only, large, inheritable, base) =
            scan_args::scan_args::<Required, (), (), (), (), ()>(args)?.required;
        let plan = Plan {
            place: match (file, name) {
                (Some(file), _) => Place::File(
                    win32_mmap_store::path(bytes(file))
                        .ok_or_else(|| Error::new(ruby.exception_arg_error(), "a path that is not UTF-8"))?,
                ),
                (None, Some(name)) => Place::Named(name.to_string()?),
                (None, None) => Place::Nameless,
            },
            size,
            existing,
            access: match access {
                0 => Access::ReadOnly,
                1 => Access::ReadWrite,
                _ => Access::CopyOnWrite,
            },
            or_read_only,
            large_pages: if large { LargePages::Require } else { LargePages::Never },
            inheritable,
            base_address: Some(base).filter(|address| *address != 0),
        };
        let store = Store::open(&plan).map_err(|error| error::raise(ruby, &error))?;
        Ok(Native(RefCell::new(Some(Arc::new(store)))))
    }

    fn open(&self, ruby: &Ruby) -> Result<Arc<Store>, Error> {
        let store = self.0.borrow().clone();
        store.ok_or_else(|| Error::new(ruby.exception_io_error(), "closed map"))
    }

    /// The store with what the patience needs of it.
    fn ready(&self, ruby: &Ruby, patience: Patience) -> Result<Arc<Store>, Error> {
        let store = self.open(ruby)?;
        if matches!(patience, Patience::Unlocked) || store.has_lock() {
            return Ok(store);
        }
        let store = Arc::new(store.with_lock().map_err(|error| error::raise(ruby, &error))?);
        *self.0.borrow_mut() = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Does it at once where the lock is free, else without the global lock.
    fn patiently<R>(
        ruby: &Ruby,
        patience: Patience,
        body: impl Fn(Option<Wait<'_>>) -> Result<R, StoreError>,
    ) -> Result<R, Error> {
        let result = match patience {
            Patience::Unlocked => body(None),
            Patience::Seconds(_) | Patience::Endless => match body(Some(Wait::NOT)) {
                Err(StoreError::Timeout { .. }) => {
                    let wait = match patience {
                        Patience::Seconds(seconds) => {
                            Wait::during(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
                        }
                        _ => Wait::FOREVER,
                    };
                    mmf_gvl::wait(ruby, |cancel| match body(Some(wait.cancelled_by(cancel))) {
                        Err(StoreError::Cancelled) => None,
                        result => Some(result),
                    })?
                }
                result => result,
            },
        };
        result.map_err(|error| error::raise(ruby, &error))
    }

    fn get(ruby: &Ruby, this: &Self, key: RString, patience: Patience) -> Result<Value, Error> {
        let store = this.ready(ruby, patience)?;
        let tree = Self::patiently(ruby, patience, |wait| store.attributes(wait))?;
        // SAFETY: nothing here changes or frees the key while its bytes are looked at.
        let found = tree.as_ref().and_then(|tree| tree.get(unsafe { key.as_slice() }));
        match (&tree, found) {
            (Some(tree), Some(id)) => value::build(ruby, tree, id),
            _ => Ok(ruby.qnil().as_value()),
        }
    }

    fn has_key(ruby: &Ruby, this: &Self, key: RString, patience: Patience) -> Result<bool, Error> {
        let store = this.ready(ruby, patience)?;
        let tree = Self::patiently(ruby, patience, |wait| store.attributes(wait))?;
        // SAFETY: nothing here changes or frees the key while its bytes are looked at.
        Ok(tree.is_some_and(|tree| tree.get(unsafe { key.as_slice() }).is_some()))
    }

    fn set(ruby: &Ruby, this: &Self, key: RString, value: RString, patience: Patience) -> Result<(), Error> {
        let store = this.ready(ruby, patience)?;
        let (key, value) = (key.to_string()?, bytes(value));
        Self::patiently(ruby, patience, |wait| store.assign(&key, &value, wait))
    }

    /// `change(patience) { |bytes| new bytes or nil }`
    fn change(ruby: &Ruby, this: &Self, patience: Patience) -> Result<(), Error> {
        let store = this.ready(ruby, patience)?;
        let mut held = Self::patiently(ruby, patience, |wait| store.hold(wait))?;
        let raise = |error| error::raise(ruby, &error);
        let contents = ruby.str_from_slice(&held.contents().map_err(raise)?);
        let new: Option<RString> = ruby.yield_value(contents)?;
        new.map_or(Ok(()), |new| held.replace(&bytes(new)).map_err(raise))
    }

    fn read_string(ruby: &Ruby, this: &Self, len: u64, patience: Patience) -> Result<RString, Error> {
        let store = this.ready(ruby, patience)?;
        Self::patiently(ruby, patience, |wait| store.read_string(len, wait)).map(|bytes| ruby.str_from_slice(&bytes))
    }

    fn write_string(ruby: &Ruby, this: &Self, text: RString, patience: Patience) -> Result<(), Error> {
        let store = this.ready(ruby, patience)?;
        let text = bytes(text);
        Self::patiently(ruby, patience, |wait| store.write_string(&text, wait))
    }

    fn flush(ruby: &Ruby, this: &Self, len: u64) -> Result<(), Error> {
        let store = this.open(ruby)?;
        mmf_gvl::wait(ruby, |_| Some(store.flush(len)))?.map_err(|error| error::raise(ruby, &error))
    }

    fn size(ruby: &Ruby, this: &Self) -> Result<u64, Error> {
        Ok(this.open(ruby)?.size())
    }

    fn set_size(ruby: &Ruby, this: &Self, size: u64) -> Result<(), Error> {
        this.open(ruby)?.set_size(size).map_err(|error| error::raise(ruby, &error))
    }

    fn is_read_only(ruby: &Ruby, this: &Self) -> Result<bool, Error> {
        Ok(this.open(ruby)?.access() == Access::ReadOnly)
    }

    fn address(ruby: &Ruby, this: &Self) -> Result<usize, Error> {
        Ok(this.open(ruby)?.address())
    }

    fn close(&self) {
        // Out of the cell first, since closing takes its time.
        let store = self.0.borrow_mut().take();
        drop(store);
    }

    fn is_closed(&self) -> bool {
        self.0.borrow().is_none()
    }
}

/// A copy, since Ruby may move the string's bytes while somebody waits.
fn bytes(text: RString) -> Vec<u8> {
    // SAFETY: nothing here changes or frees the string while it is copied.
    unsafe { text.as_slice() }.to_vec()
}

fn class(ruby: &Ruby) -> Result<RClass, Error> {
    ruby.class_object().const_get::<_, RModule>("Win32")?.const_get("MMap")
}

#[magnus::init]
fn init(ruby: &Ruby) -> Result<(), Error> {
    let native = class(ruby)?.define_class("Native", ruby.class_object())?;
    native.define_singleton_method("new", function!(Native::new, -1))?;
    native.define_method("get", method!(Native::get, 2))?;
    native.define_method("key?", method!(Native::has_key, 2))?;
    native.define_method("set", method!(Native::set, 3))?;
    native.define_method("change", method!(Native::change, 1))?;
    native.define_method("read_string", method!(Native::read_string, 2))?;
    native.define_method("write_string", method!(Native::write_string, 2))?;
    native.define_method("flush", method!(Native::flush, 1))?;
    native.define_method("size", method!(Native::size, 0))?;
    native.define_method("size=", method!(Native::set_size, 1))?;
    native.define_method("read_only?", method!(Native::is_read_only, 0))?;
    native.define_method("address", method!(Native::address, 0))?;
    native.define_method("close", method!(Native::close, 0))?;
    native.define_method("closed?", method!(Native::is_closed, 0))?;
    Ok(())
}
