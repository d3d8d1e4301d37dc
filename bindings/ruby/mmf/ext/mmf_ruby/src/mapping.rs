//! `Mmf::Mapping`, without what `lib/mmf/mapping.rb` makes of it.

use std::cell::RefCell;
use std::ffi::c_long;
use std::mem::MaybeUninit;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::{ptr, slice};

use magnus::encoding::EncodingCapable;
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::{Error, RArray, RHash, RModule, RString, Ruby, Symbol, TryConvert, Value, function, method, prelude::*};
use mmf::{Atom, Mapping, Source};
use rb_sys::{StableApiDefinition, stable_api};

use crate::error;
use crate::options::{How, Options};

/// A mapping until it is closed. Only threads with the global lock reach the cell; those that work without it have
/// the mapping itself.
#[magnus::wrap(class = "Mmf::Mapping", free_immediately, size)]
pub(crate) struct RubyMapping(RefCell<Option<Arc<Mapping>>>);

impl RubyMapping {
    fn open(ruby: &Ruby, how: How, options: RHash) -> Result<RubyMapping, Error> {
        let options = Options(options);
        let mut wanted = Mapping::options()
            .access(options.access(ruby)?)
            .large_pages(options.large_pages(ruby)?)
            .prefault(options.get(ruby, "prefault")?.unwrap_or(false))
            .inheritable(options.get(ruby, "inheritable")?.unwrap_or(false))
            .allow_other_owners(options.get(ruby, "allow_other_owners")?.unwrap_or(false));
        if let Some(size) = options.get(ruby, "size")? {
            wanted = wanted.size(size);
        }
        if let Some(reserve) = options.get(ruby, "reserve")? {
            wanted = wanted.reserve(reserve);
        }
        if let Some(permissions) = options.permissions(ruby)? {
            wanted = wanted.permissions(permissions);
        }
        if let Some(address) = options.get(ruby, "base_address")? {
            wanted = wanted.base_address(address);
        }
        if let Some((from, to)) = options.get::<(u64, Option<u64>)>(ruby, "part")? {
            wanted = wanted.part((Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded)));
        }
        let source = options.source(ruby)?;
        // Creating allocates and opening may wait for another process.
        let map = mmf_gvl::wait(ruby, |_| {
            Some(match (&source, how) {
                (None, _) => wanted.anonymous(),
                (Some(source), How::Open) => wanted.open(source),
                (Some(source), How::Create) => wanted.create_new(source),
                (Some(source), How::Both) => wanted.open_or_create(source),
            })
        })?;
        let map = map.map_err(|error| error::raise(ruby, error))?;
        Ok(RubyMapping(RefCell::new(Some(Arc::new(map)))))
    }

    fn get(&self, ruby: &Ruby) -> Result<Arc<Mapping>, Error> {
        let map = self.0.borrow().clone();
        map.ok_or_else(|| error::new(ruby, "ClosedError", "closed mapping"))
    }

    fn with<R>(ruby: &Ruby, this: &Self, body: impl FnOnce(&Mapping) -> mmf::Result<R>) -> Result<R, Error> {
        body(&*this.get(ruby)?).map_err(|error| error::raise(ruby, error))
    }

    fn size(ruby: &Ruby, this: &Self) -> Result<usize, Error> {
        Self::with(ruby, this, |map| Ok(map.len()))
    }

    fn refresh(ruby: &Ruby, this: &Self) -> Result<usize, Error> {
        Self::with(ruby, this, Mapping::refresh)
    }

    fn grow(ruby: &Ruby, this: &Self, size: usize) -> Result<(), Error> {
        let map = this.get(ruby)?;
        mmf_gvl::wait(ruby, |_| Some(map.grow(size)))?.map_err(|error| error::raise(ruby, error))
    }

    /// `native_pread(length, offset, buffer)`: the bytes, in a new String where the buffer is nil.
    fn pread(
        ruby: &Ruby,
        this: &Self,
        length: usize,
        offset: usize,
        buffer: Option<RString>,
    ) -> Result<RString, Error> {
        let map = this.get(ruby)?;
        // Before memory is taken: only for bytes that are there.
        if offset.checked_add(length).is_none_or(|end| map.read_at(end, &mut []).is_err()) {
            map.read_to_vec(offset, length).map_err(|error| error::raise(ruby, error))?;
        }
        let text = room(ruby, length, buffer)?;
        // SAFETY: it is a String.
        let bytes = unsafe { stable_api::get_default().rstring_ptr(text.as_raw()) };
        // SAFETY: so many bytes are this String's alone, since `room`; nothing of Ruby's runs while they are borrowed.
        let bytes = unsafe { slice::from_raw_parts_mut(bytes.cast_mut().cast::<MaybeUninit<u8>>(), length) };
        let failed = map.read_uninit(offset, bytes).err();
        match failed {
            None => Ok(text),
            Some(error) => {
                // SAFETY: it can be changed, since `room`, and has room for no bytes. What it had is gone.
                unsafe { rb_sys::rb_str_set_len(text.as_raw(), 0) };
                Err(error::raise(ruby, error))
            }
        }
    }

    fn pwrite(ruby: &Ruby, this: &Self, data: RString, offset: usize) -> Result<usize, Error> {
        // SAFETY: nothing of Ruby runs while the bytes are copied into the mapping, so the string stays as it is.
        let data = unsafe { data.as_slice() };
        Self::with(ruby, this, |map| map.write_at(offset, data))?;
        Ok(data.len())
    }

    fn fill(ruby: &Ruby, this: &Self, byte: u8, offset: usize, length: usize) -> Result<(), Error> {
        Self::with(ruby, this, |map| map.fill(offset..offset.saturating_add(length), byte))
    }

    fn sync(ruby: &Ruby, this: &Self, offset: usize, length: usize, wait: bool) -> Result<(), Error> {
        let map = this.get(ruby)?;
        let range = offset..offset.saturating_add(length);
        mmf_gvl::wait(ruby, |_| Some(if wait { map.sync(range.clone()) } else { map.flush(range.clone()) }))?
            .map_err(|error| error::raise(ruby, error))
    }

    fn address(ruby: &Ruby, this: &Self) -> Result<usize, Error> {
        Self::with(ruby, this, |map| Ok(map.as_ptr().addr()))
    }

    fn name(ruby: &Ruby, this: &Self) -> Result<Option<String>, Error> {
        Self::with(ruby, this, |map| Ok(map.name().map(|name| name.as_str().to_owned())))
    }

    fn source(ruby: &Ruby, this: &Self) -> Result<Option<String>, Error> {
        Self::with(ruby, this, |map| Ok(map.source().map(Source::to_string)))
    }

    fn access(ruby: &Ruby, this: &Self) -> Result<Symbol, Error> {
        Self::with(ruby, this, |map| Ok(ruby.to_symbol(map.access().to_string().replace('-', "_"))))
    }

    /// `atomic(kind, operation, offset, operands)`, in one place for all kinds of numbers.
    fn atomic(ruby: &Ruby, this: &Self, kind: Symbol, what: Symbol, at: usize, with: RArray) -> Result<Value, Error> {
        let map = this.get(ruby)?;
        let (kind, what) = (kind.name()?, what.name()?);
        match &*kind {
            "u8" => atomic::<u8>(ruby, &map, &what, at, with),
            "u16" => atomic::<u16>(ruby, &map, &what, at, with),
            "u32" => atomic::<u32>(ruby, &map, &what, at, with),
            "u64" => atomic::<u64>(ruby, &map, &what, at, with),
            "i8" => atomic::<i8>(ruby, &map, &what, at, with),
            "i16" => atomic::<i16>(ruby, &map, &what, at, with),
            "i32" => atomic::<i32>(ruby, &map, &what, at, with),
            "i64" => atomic::<i64>(ruby, &map, &what, at, with),
            other => Err(error::new(ruby, "InvalidArgumentError", format!("no number is called {other}"))),
        }
    }

    fn close(&self) {
        // Out of the cell first, since closing takes its time.
        let map = self.0.borrow_mut().take();
        drop(map);
    }

    fn is_closed(&self) -> bool {
        self.0.borrow().is_none()
    }
}

/// A binary String of so many bytes, whichever they are: the buffer, or a new one.
fn room(ruby: &Ruby, length: usize, buffer: Option<RString>) -> Result<RString, Error> {
    let Ok(len) = c_long::try_from(length) else {
        return Err(error::new(ruby, "OutOfBoundsError", "no String is so long"));
    };
    let text = protect(|| match buffer {
        // SAFETY: there are no bytes to copy from; `protect` catches what is raised.
        None => unsafe { rb_sys::rb_str_new(ptr::null(), len) },
        Some(buffer) => {
            // SAFETY: it is a String; `protect` catches what is raised, where it is frozen.
            unsafe { rb_sys::rb_str_modify(buffer.as_raw()) };
            // SAFETY: as above, where there is no memory.
            unsafe { rb_sys::rb_str_resize(buffer.as_raw(), len) }
        }
    })?;
    // SAFETY: it is a String, as both give.
    let text = unsafe { Value::from_raw(text) };
    let text = RString::try_convert(text)?;
    text.enc_associate(ruby.ascii8bit_encindex())?;
    Ok(text)
}

fn atomic<T>(ruby: &Ruby, map: &Mapping, what: &str, at: usize, with: RArray) -> Result<Value, Error>
where
    T: Atom + TryConvert + magnus::IntoValue,
{
    let operand = |index: isize| with.entry::<Option<T>>(index);
    let (first, second) = (operand(0)?, operand(1)?);
    let result = match (what, first, second) {
        ("load", ..) => map.load::<T>(at, SeqCst),
        ("store", Some(value), _) => map.store(at, value, SeqCst).map(|()| value),
        ("swap", Some(value), _) => map.swap(at, value, SeqCst),
        ("add", Some(value), _) => map.fetch_add(at, value, SeqCst),
        ("compare", Some(current), Some(new)) => {
            map.compare_exchange(at, current, new, SeqCst, SeqCst).map(|result| result.unwrap_or_else(|found| found))
        }
        _ => return Err(error::new(ruby, "InvalidArgumentError", "no such operation")),
    };
    Ok(result.map_err(|error| error::raise(ruby, error))?.into_value_with(ruby))
}

pub(crate) fn define(ruby: &Ruby, module: RModule) -> Result<(), Error> {
    let class = module.define_class("Mapping", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("native_open", function!(RubyMapping::open, 2))?;
    class.define_method("size", method!(RubyMapping::size, 0))?;
    class.define_method("refresh", method!(RubyMapping::refresh, 0))?;
    class.define_method("native_grow", method!(RubyMapping::grow, 1))?;
    class.define_method("native_pread", method!(RubyMapping::pread, 3))?;
    class.define_method("native_pwrite", method!(RubyMapping::pwrite, 2))?;
    class.define_method("native_fill", method!(RubyMapping::fill, 3))?;
    class.define_method("native_sync", method!(RubyMapping::sync, 3))?;
    class.define_method("native_atomic", method!(RubyMapping::atomic, 4))?;
    class.define_method("address", method!(RubyMapping::address, 0))?;
    class.define_method("name", method!(RubyMapping::name, 0))?;
    class.define_method("source", method!(RubyMapping::source, 0))?;
    class.define_method("access", method!(RubyMapping::access, 0))?;
    class.define_method("close", method!(RubyMapping::close, 0))?;
    class.define_method("closed?", method!(RubyMapping::is_closed, 0))?;
    Ok(())
}
