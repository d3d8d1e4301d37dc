//! `Mmf::Dict`, without what `lib/mmf/dict.rb` makes of it.
//!
//! The handle below waits only for a slice of time; who waits longer begins anew until the deadline, and looks in between whether
//! Ruby wants this thread.

use std::cell::{Cell, Ref, RefCell};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use magnus::rb_sys::AsRawValue;
use magnus::{
    Error, RArray, RHash, RModule, RString, RTypedData, Ruby, TryConvert, Value, function, method, prelude::*,
};
use mmf::{Access, Dict, DictOptions, Encoding, ErrorKind, Source, Watched};
use rb_sys::{StableApiDefinition, rb_data_type_t, stable_api};

use crate::attribute::Calls;
use crate::changes::RubyChanges;
use crate::key::Key;
use crate::options::{Deadline, How, Options, Patience};
use crate::{attribute, changes, error, transaction, value};

/// How long the handle waits at a time: also with Ruby's lock, which is why it is short.
const SLICE: Duration = Duration::from_millis(2);

/// How long a call may work at least unless `work_time:` says otherwise, as in Rust.
const WORK_TIME: Patience = Patience(Some(0.05));

/// The most memory that a dict keeps for its next value.
const SPARE: usize = 1 << 16;

/// A dict until it is closed.
#[magnus::wrap(class = "Mmf::Dict", free_immediately, size)]
pub(crate) struct RubyDict {
    open: RefCell<Option<Arc<Dict>>>,
    source: Source,
    access: Access,
    /// How a forked child opens its own handle.
    options: DictOptions,
    timeout: Cell<Patience>,
    work_time: Cell<Patience>,
    /// Memory for the next value, to be taken by who uses it.
    spare: Cell<Vec<u8>>,
    pub(crate) calls: Calls,
}

/// What Ruby tells dicts from other objects by; null until one was met.
static KIND: AtomicPtr<rb_data_type_t> = AtomicPtr::new(ptr::null_mut());

impl RubyDict {
    /// As converting the object, in a quarter of the time: that is prepared for exceptions of Ruby's.
    pub(crate) fn of(object: &Value) -> Result<&RubyDict, Error> {
        let Some(typed) = RTypedData::from_value(*object) else { return <&RubyDict>::try_convert(*object) };
        let api = stable_api::get_default();
        // SAFETY: it is an object of the sort that has a kind.
        let kind = unsafe { api.rtypeddata_type(typed.as_raw()) };
        if !ptr::eq(kind, KIND.load(Ordering::Relaxed)) {
            let dict = <&RubyDict>::try_convert(*object)?;
            KIND.store(kind.cast_mut(), Ordering::Relaxed);
            return Ok(dict);
        }
        // SAFETY: as above.
        let data = unsafe { api.rtypeddata_get_data(typed.as_raw()) };
        // SAFETY: objects of this kind hold a `RubyDict` for as long as they live, and this one does: it is borrowed from
        // the stack, where Ruby finds it.
        Ok(unsafe { &*data.cast::<RubyDict>() })
    }

    fn open(ruby: &Ruby, how: How, options: RHash) -> Result<RubyDict, Error> {
        let options = Options(options);
        let access = options.access(ruby)?;
        let timeout = options.timeout(ruby)?;
        let work_time = options.seconds(ruby, "work_time", WORK_TIME)?;
        let mut wanted = Dict::options()
            .access(access)
            .allow_other_owners(options.get(ruby, "allow_other_owners")?.unwrap_or(false))
            .timeout(Some(SLICE))
            .work_time(longest(timeout, work_time));
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
            return Err(error::new(ruby, "InvalidArgumentError", "a dict needs a name or a file"));
        };
        let deadline = timeout.deadline();
        // Another process may be rebuilding a file after a power cut.
        let dict = mmf_gvl::wait(ruby, |cancel| {
            loop {
                let opened = match how {
                    How::Open => wanted.open(&source),
                    How::Create => wanted.create_new(&source),
                    How::Both => wanted.open_or_create(&source),
                };
                match opened {
                    Err(error) if is_taken(&error) && !deadline.is_over() => {}
                    opened => return Some(opened),
                }
                if cancel.load(Ordering::Relaxed) {
                    return None;
                }
            }
        })?;
        let dict = dict.map_err(|error| error::raise(ruby, error))?;
        Ok(RubyDict {
            open: RefCell::new(Some(Arc::new(dict))),
            source,
            access,
            options: wanted,
            timeout: Cell::new(timeout),
            work_time: Cell::new(work_time),
            spare: Cell::new(Vec::new()),
            calls: Calls::default(),
        })
    }

    /// The handle; in a forked child one of its own, since it cannot use its parent's.
    fn current(&self, ruby: &Ruby) -> Result<Ref<'_, Arc<Dict>>, Error> {
        let open = self.open.borrow();
        match Ref::filter_map(open, Option::as_ref) {
            Ok(dict) if !dict.is_forked() => Ok(dict),
            Ok(dict) => {
                drop(dict);
                let dict = self.options.open(&self.source).map_err(|error| error::raise(ruby, error))?;
                *self.open.borrow_mut() = Some(Arc::new(dict));
                self.apply_work_time();
                self.current(ruby)
            }
            Err(_) => Err(error::new(ruby, "ClosedError", "closed dict")),
        }
    }

    /// The handle, for who gives Ruby's lock away meanwhile.
    pub(crate) fn get(&self, ruby: &Ruby) -> Result<Arc<Dict>, Error> {
        self.current(ruby).map(|dict| Arc::clone(&dict))
    }

    /// A key's value.
    pub(crate) fn value_of(&self, ruby: &Ruby, key: &str) -> Result<Option<Value>, Error> {
        let mut bytes = self.spare.take();
        let found = at_once(ruby, self, self.timeout.get(), |dict| dict.get_into(key, &mut bytes));
        let value = found.and_then(|found| found.map(|encoding| decode(ruby, encoding, &bytes)).transpose());
        self.keep(bytes);
        value
    }

    /// Sets a key, and gives the change's version.
    pub(crate) fn set_value(&self, ruby: &Ruby, key: &str, value: Value) -> Result<u64, Error> {
        let mut bytes = self.spare.take();
        bytes.clear();
        let version = value::encode_into(ruby, value, &mut bytes).and_then(|()| {
            at_once(ruby, self, self.timeout.get(), |dict| dict.set_encoded(key, Encoding::MessagePack, &bytes))
        });
        self.keep(bytes);
        version
    }

    /// Whether there is such a key.
    pub(crate) fn has(&self, ruby: &Ruby, key: &str) -> Result<bool, Error> {
        at_once(ruby, self, self.timeout.get(), |dict| dict.contains_key(key))
    }

    fn keep(&self, bytes: Vec<u8>) {
        if bytes.capacity() <= SPARE {
            self.spare.set(bytes);
        }
    }

    /// The value of a key; nil if there is none.
    fn index(ruby: &Ruby, this: Value, key: Key) -> Result<Option<Value>, Error> {
        RubyDict::of(&this)?.value_of(ruby, &key)
    }

    /// As `index`, with something else for nil.
    fn value(ruby: &Ruby, this: &Self, key: Key, missing: Value) -> Result<Value, Error> {
        Ok(this.value_of(ruby, &key)?.unwrap_or(missing))
    }

    fn set(ruby: &Ruby, this: Value, key: Key, value: Value) -> Result<u64, Error> {
        RubyDict::of(&this)?.set_value(ruby, &key, value)
    }

    fn has_key(ruby: &Ruby, this: Value, key: Key) -> Result<bool, Error> {
        RubyDict::of(&this)?.has(ruby, &key)
    }

    /// A value and its version, or nil.
    fn versioned(ruby: &Ruby, this: &Self, key: Key, patience: Patience) -> Result<Option<(Value, u64)>, Error> {
        let dict = this.get(ruby)?;
        let mut bytes = Vec::new();
        let found = attempt(ruby, &dict, patience.deadline(), |dict| {
            // A version that is the same before and after is the value's.
            loop {
                let Some(version) = dict.version(&key)? else { return Ok(None) };
                let Some(encoding) = dict.get_into(&key, &mut bytes)? else { return Ok(None) };
                if dict.version(&key)? == Some(version) {
                    return Ok(Some((encoding, version)));
                }
            }
        })?;
        found.map(|(encoding, version)| Ok((decode(ruby, encoding, &bytes)?, version))).transpose()
    }

    /// Sets a key if it has that version still, nil for none, and tells whether it had.
    fn replace(
        ruby: &Ruby,
        this: &Self,
        key: Key,
        version: Option<u64>,
        value: Value,
        patience: Patience,
    ) -> Result<bool, Error> {
        let bytes = value::encode(ruby, value)?;
        at_once(ruby, this, patience, |dict| {
            dict.transaction(|transaction| {
                let same = dict.version(&key)? == version;
                if same {
                    transaction.set_encoded(&key, Encoding::MessagePack, &bytes)?;
                }
                Ok(same)
            })
        })
    }

    /// The value that was removed, or nil.
    fn delete(ruby: &Ruby, this: &Self, key: Key) -> Result<Option<Value>, Error> {
        let mut bytes = Vec::new();
        let encoding = at_once(ruby, this, this.timeout.get(), |dict| {
            dict.transaction(|transaction| {
                let encoding = dict.get_into(&key, &mut bytes)?;
                transaction.remove(&key)?;
                Ok(encoding)
            })
        })?;
        encoding.map(|encoding| decode(ruby, encoding, &bytes)).transpose()
    }

    fn increment(ruby: &Ruby, this: &Self, key: Key, by: i64, patience: Patience) -> Result<i64, Error> {
        at_once(ruby, this, patience, |dict| dict.increment(&key, by))
    }

    fn clear(ruby: &Ruby, this: &Self) -> Result<u64, Error> {
        let dict = this.get(ruby)?;
        attempt(ruby, &dict, this.timeout.get().deadline(), Dict::clear)
    }

    fn flush(ruby: &Ruby, this: &Self) -> Result<(), Error> {
        let dict = this.get(ruby)?;
        attempt(ruby, &dict, this.timeout.get().deadline(), Dict::flush)
    }

    fn version(ruby: &Ruby, this: &Self, key: Key) -> Result<Option<u64>, Error> {
        at_once(ruby, this, this.timeout.get(), |dict| dict.version(&key))
    }

    fn keys(ruby: &Ruby, this: &Self) -> Result<RArray, Error> {
        let dict = this.get(ruby)?;
        Ok(ruby.ary_from_vec(attempt(ruby, &dict, this.timeout.get().deadline(), Dict::keys)?))
    }

    fn timeout(&self) -> Option<f64> {
        self.timeout.get().0
    }

    fn set_timeout(&self, patience: Patience) {
        self.timeout.set(patience);
        self.apply_work_time();
    }

    fn work_time(&self) -> Option<f64> {
        self.work_time.get().0
    }

    fn set_work_time(&self, patience: Patience) {
        self.work_time.set(patience);
        self.apply_work_time();
    }

    /// Passes the longer of both times on to the handle: its own timeout is only a slice.
    fn apply_work_time(&self) {
        if let Some(dict) = &*self.open.borrow() {
            dict.set_work_time(longest(self.timeout.get(), self.work_time.get()));
        }
    }

    /// Pairs of keys and values.
    fn entries(ruby: &Ruby, this: &Self) -> Result<RArray, Error> {
        let dict = this.get(ruby)?;
        let entries = attempt(ruby, &dict, this.timeout.get().deadline(), Dict::entries)?;
        let pairs = ruby.ary_new();
        for entry in entries {
            let value = decode(ruby, entry.encoding, &entry.value)?;
            pairs.push(ruby.ary_new_from_values(&[ruby.str_new(&entry.key).as_value(), value]))?;
        }
        Ok(pairs)
    }

    fn size(ruby: &Ruby, this: &Self) -> Result<usize, Error> {
        this.get(ruby)?.len().map_err(|error| error::raise(ruby, error))
    }

    fn capacity(ruby: &Ruby, this: &Self) -> Result<u64, Error> {
        Ok(this.get(ruby)?.capacity())
    }

    fn source(&self) -> String {
        self.source.to_string()
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.access == Access::ReadOnly
    }

    /// `native_watch(key, prefix)`: one of them or neither.
    fn watch(ruby: &Ruby, this: &Self, key: Option<Key>, prefix: Option<Key>) -> Result<RubyChanges, Error> {
        let dict = this.get(ruby)?;
        let watched = match (key, prefix) {
            (Some(key), _) => Watched::Key(key.into_string()),
            (None, Some(prefix)) => Watched::Prefix(prefix.into_string()),
            (None, None) => Watched::All,
        };
        RubyChanges::watch(ruby, dict, watched)
    }

    /// What a value is in a transaction's changes.
    fn encode(ruby: &Ruby, _class: Value, value: Value) -> Result<RString, Error> {
        Ok(ruby.str_from_slice(&value::encode(ruby, value)?))
    }

    fn decode(ruby: &Ruby, _class: Value, bytes: RString) -> Result<Value, Error> {
        value::decode(ruby, &crate::bytes(bytes))
    }

    /// A key as it is kept.
    fn key(ruby: &Ruby, _class: Value, key: Key) -> RString {
        ruby.str_new(&key)
    }

    fn close(&self) {
        // Out of the cell first, since closing takes its time.
        let dict = self.open.borrow_mut().take();
        drop(dict);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.open.borrow().is_none()
    }
}

/// Returns the longer of two times; the longest that there is for one without an end.
fn longest(one: Patience, other: Patience) -> Duration {
    one.time().zip(other.time()).map_or(Duration::MAX, |(one, other)| one.max(other))
}

fn decode(ruby: &Ruby, encoding: Encoding, bytes: &[u8]) -> Result<Value, Error> {
    match encoding {
        Encoding::Bytes => Ok(ruby.str_from_slice(bytes).as_value()),
        Encoding::MessagePack => value::decode(ruby, bytes),
    }
}

/// Whether it is worth another try.
pub(crate) fn is_taken(error: &mmf::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Timeout { .. } | ErrorKind::Contended)
}

/// Does what may have to wait.
pub(crate) fn attempt<R>(
    ruby: &Ruby,
    dict: &Dict,
    deadline: Deadline,
    mut body: impl FnMut(&Dict) -> mmf::Result<R>,
) -> Result<R, Error> {
    let result = mmf_gvl::wait(ruby, |cancel| {
        loop {
            match body(dict) {
                Err(error) if is_taken(&error) && !deadline.is_over() => {}
                result => return Some(result),
            }
            if cancel.load(Ordering::Relaxed) {
                return None;
            }
        }
    })?;
    result.map_err(|error| error::raise(ruby, error))
}

/// Does what mostly need not wait: the first time with Ruby's lock, since giving that away costs more than the rest.
fn at_once<R>(
    ruby: &Ruby,
    this: &RubyDict,
    patience: Patience,
    mut body: impl FnMut(&Dict) -> mmf::Result<R>,
) -> Result<R, Error> {
    let first = body(&*this.current(ruby)?);
    match first {
        Err(error) if is_taken(&error) => {
            let deadline = patience.deadline();
            if deadline.is_over() {
                return Err(error::raise(ruby, error));
            }
            attempt(ruby, &*this.get(ruby)?, deadline, body)
        }
        result => result.map_err(|error| error::raise(ruby, error)),
    }
}

pub(crate) fn define(ruby: &Ruby, module: RModule) -> Result<(), Error> {
    let class = module.define_class("Dict", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("native_open", function!(RubyDict::open, 2))?;
    class.define_singleton_method("encode", method!(RubyDict::encode, 1))?;
    class.define_singleton_method("decode", method!(RubyDict::decode, 1))?;
    class.define_singleton_method("key", method!(RubyDict::key, 1))?;
    class.define_method("[]", method!(RubyDict::index, 1))?;
    class.define_method("[]=", method!(RubyDict::set, 2))?;
    class.define_method("store", method!(RubyDict::set, 2))?;
    class.define_method("key?", method!(RubyDict::has_key, 1))?;
    class.define_method("native_get", method!(RubyDict::value, 2))?;
    class.define_method("native_versioned", method!(RubyDict::versioned, 2))?;
    class.define_method("native_replace", method!(RubyDict::replace, 4))?;
    class.define_method("delete", method!(RubyDict::delete, 1))?;
    class.define_method("native_increment", method!(RubyDict::increment, 3))?;
    class.define_method("native_clear", method!(RubyDict::clear, 0))?;
    class.define_method("native_flush", method!(RubyDict::flush, 0))?;
    class.define_method("version", method!(RubyDict::version, 1))?;
    class.define_method("keys", method!(RubyDict::keys, 0))?;
    class.define_method("native_entries", method!(RubyDict::entries, 0))?;
    class.define_method("native_watch", method!(RubyDict::watch, 2))?;
    class.define_method("timeout", method!(RubyDict::timeout, 0))?;
    class.define_method("timeout=", method!(RubyDict::set_timeout, 1))?;
    class.define_method("work_time", method!(RubyDict::work_time, 0))?;
    class.define_method("work_time=", method!(RubyDict::set_work_time, 1))?;
    class.define_method("size", method!(RubyDict::size, 0))?;
    class.define_method("capacity", method!(RubyDict::capacity, 0))?;
    class.define_method("source", method!(RubyDict::source, 0))?;
    class.define_method("read_only?", method!(RubyDict::is_read_only, 0))?;
    class.define_method("close", method!(RubyDict::close, 0))?;
    class.define_method("closed?", method!(RubyDict::is_closed, 0))?;
    attribute::define(class)?;
    transaction::define(class)?;
    changes::define(ruby, class)
}
