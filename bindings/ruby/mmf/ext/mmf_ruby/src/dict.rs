//! `Mmf::Dict`, without what `lib/mmf/dict.rb` makes of it.
//!
//! The handle below waits only for a slice of time; who waits longer begins anew until the deadline, and looks in between whether
//! Ruby wants this thread.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use magnus::error::{ErrorType, Tag};
use magnus::r_hash::ForEach;
use magnus::{
    Error, IntoValue, RArray, RHash, RModule, RString, Ruby, Symbol, TryConvert, Value, function, method, prelude::*,
};
use mmf::{Access, Change, Changes, Dict, DictOptions, Encoding, ErrorKind, Source, Watched};

use crate::options::{Deadline, How, Options, SLICE};
use crate::{error, value};

/// A dict until it is closed.
#[magnus::wrap(class = "Mmf::Dict", free_immediately, size)]
pub(crate) struct RubyDict {
    open: RefCell<Option<Handle>>,
    source: Source,
    access: Access,
}

/// A handle, and the process that it is good for.
struct Handle {
    dict: Arc<Dict>,
    process: u32,
}

impl Handle {
    fn new(dict: Dict) -> Handle {
        Handle { dict: Arc::new(dict), process: std::process::id() }
    }
}

/// A String or a Symbol.
struct Key(String);

impl TryConvert for Key {
    fn try_convert(key: Value) -> Result<Self, Error> {
        let ruby = Ruby::get_with(key);
        if let Some(symbol) = Symbol::from_value(key) {
            return Ok(Key(symbol.name()?.into_owned()));
        }
        match RString::from_value(key) {
            Some(text) => Ok(Key(value::utf8(&ruby, text)?.to_string()?)),
            None => Err(error::new(&ruby, "InvalidArgumentError", "a key is a String or a Symbol")),
        }
    }
}

impl RubyDict {
    fn open(ruby: &Ruby, how: How, options: RHash) -> Result<RubyDict, Error> {
        let options = Options(options);
        let access = options.access(ruby)?;
        let mut wanted = Self::options(access);
        if let Some(capacity) = options.get(ruby, "capacity")? {
            wanted = wanted.capacity(capacity);
        }
        if let Some(permissions) = options.permissions(ruby)? {
            wanted = wanted.permissions(permissions);
        }
        let Some(source) = options.source(ruby)? else {
            return Err(error::new(ruby, "InvalidArgumentError", "a dict needs a name or a file"));
        };
        let dict = mmf_gvl::wait(ruby, |_| {
            Some(match how {
                How::Open => wanted.open(&source),
                How::Create => wanted.create_new(&source),
                How::Both => wanted.open_or_create(&source),
            })
        })?;
        let dict = dict.map_err(|error| error::raise(ruby, error))?;
        Ok(RubyDict { open: RefCell::new(Some(Handle::new(dict))), source, access })
    }

    fn options(access: Access) -> DictOptions {
        Dict::options().access(access).timeout(Some(SLICE))
    }

    /// The handle; in a forked child one of its own, since it cannot use its parent's.
    fn get(&self, ruby: &Ruby) -> Result<Arc<Dict>, Error> {
        let mut open = self.open.borrow_mut();
        let Some(handle) = &mut *open else { return Err(error::new(ruby, "ClosedError", "closed dict")) };
        if handle.process != std::process::id() {
            let dict = Self::options(self.access).open(&self.source);
            *handle = Handle::new(dict.map_err(|error| error::raise(ruby, error))?);
        }
        Ok(Arc::clone(&handle.dict))
    }

    /// A value as it is now, or `missing`.
    fn value(ruby: &Ruby, this: &Self, key: Key, deadline: Deadline, missing: Value) -> Result<Value, Error> {
        let dict = this.get(ruby)?;
        let mut bytes = Vec::new();
        match read(ruby, &dict, deadline, |dict| dict.get_into(&key.0, &mut bytes))? {
            Some(encoding) => decode(ruby, encoding, &bytes),
            None => Ok(missing),
        }
    }

    /// A value and its version, or nil.
    fn versioned(ruby: &Ruby, this: &Self, key: Key, deadline: Deadline) -> Result<Option<(Value, u64)>, Error> {
        let dict = this.get(ruby)?;
        let mut bytes = Vec::new();
        let found = attempt(ruby, &dict, deadline, |dict| {
            // A version that is the same before and after is the value's.
            loop {
                let Some(version) = dict.version(&key.0)? else { return Ok(None) };
                let Some(encoding) = dict.get_into(&key.0, &mut bytes)? else { return Ok(None) };
                if dict.version(&key.0)? == Some(version) {
                    return Ok(Some((encoding, version)));
                }
            }
        })?;
        found.map(|(encoding, version)| Ok((decode(ruby, encoding, &bytes)?, version))).transpose()
    }

    fn set(ruby: &Ruby, this: &Self, key: Key, value: Value, deadline: Deadline) -> Result<u64, Error> {
        let dict = this.get(ruby)?;
        let bytes = value::encode(ruby, value)?;
        attempt(ruby, &dict, deadline, |dict| dict.set_encoded(&key.0, Encoding::MessagePack, &bytes))
    }

    /// Sets a key if it has that version still, nil for none, and tells whether it had.
    fn replace(
        ruby: &Ruby,
        this: &Self,
        key: Key,
        version: Option<u64>,
        value: Value,
        deadline: Deadline,
    ) -> Result<bool, Error> {
        let dict = this.get(ruby)?;
        let bytes = value::encode(ruby, value)?;
        attempt(ruby, &dict, deadline, |dict| {
            dict.transaction(|transaction| {
                let same = dict.version(&key.0)? == version;
                if same {
                    transaction.set_encoded(&key.0, Encoding::MessagePack, &bytes)?;
                }
                Ok(same)
            })
        })
    }

    /// The value that was removed, or nil.
    fn delete(ruby: &Ruby, this: &Self, key: Key, deadline: Deadline) -> Result<Option<Value>, Error> {
        let dict = this.get(ruby)?;
        let mut bytes = Vec::new();
        let encoding = attempt(ruby, &dict, deadline, |dict| {
            dict.transaction(|transaction| {
                let encoding = dict.get_into(&key.0, &mut bytes)?;
                transaction.remove(&key.0)?;
                Ok(encoding)
            })
        })?;
        encoding.map(|encoding| decode(ruby, encoding, &bytes)).transpose()
    }

    fn increment(ruby: &Ruby, this: &Self, key: Key, by: i64, deadline: Deadline) -> Result<i64, Error> {
        let dict = this.get(ruby)?;
        attempt(ruby, &dict, deadline, |dict| dict.increment(&key.0, by))
    }

    fn clear(ruby: &Ruby, this: &Self, deadline: Deadline) -> Result<u64, Error> {
        let dict = this.get(ruby)?;
        attempt(ruby, &dict, deadline, Dict::clear)
    }

    fn flush(ruby: &Ruby, this: &Self, deadline: Deadline) -> Result<(), Error> {
        let dict = this.get(ruby)?;
        attempt(ruby, &dict, deadline, Dict::flush)
    }

    fn has_key(ruby: &Ruby, this: &Self, key: Key, deadline: Deadline) -> Result<bool, Error> {
        let dict = this.get(ruby)?;
        read(ruby, &dict, deadline, |dict| dict.contains_key(&key.0))
    }

    fn version(ruby: &Ruby, this: &Self, key: Key, deadline: Deadline) -> Result<Option<u64>, Error> {
        let dict = this.get(ruby)?;
        read(ruby, &dict, deadline, |dict| dict.version(&key.0))
    }

    fn keys(ruby: &Ruby, this: &Self, deadline: Deadline) -> Result<RArray, Error> {
        let dict = this.get(ruby)?;
        Ok(ruby.ary_from_vec(attempt(ruby, &dict, deadline, Dict::keys)?))
    }

    /// Pairs of keys and values.
    fn entries(ruby: &Ruby, this: &Self, deadline: Deadline) -> Result<RArray, Error> {
        let dict = this.get(ruby)?;
        let entries = attempt(ruby, &dict, deadline, Dict::entries)?;
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

    fn is_read_only(&self) -> bool {
        self.access == Access::ReadOnly
    }

    /// `native_transaction(timeout, changes) { }`: the block fills `changes`, with keys that have their new value as
    /// `Dict.encode` gives it, or nil to be removed. They are made if it ends, also by `break` and `return`; not if it ends by
    /// an exception or `throw`.
    fn transaction(ruby: &Ruby, this: &Self, deadline: Deadline, changes: RHash) -> Result<Value, Error> {
        let dict = this.get(ruby)?;
        let process = std::process::id();
        let mut outcome = None;
        let done = mmf_gvl::wait(ruby, |cancel| {
            loop {
                let result = dict.transaction(|transaction| {
                    // SAFETY: this is the body of `wait`, and the only call in it.
                    let (result, steps) = unsafe { mmf_gvl::locked(ruby, |ruby| block(ruby, process, changes)) };
                    outcome = Some(result);
                    let Some(steps) = steps else {
                        transaction.abort();
                        return Ok(());
                    };
                    for (key, value) in steps {
                        match value {
                            Some(bytes) => transaction.set_encoded(&key, Encoding::MessagePack, &bytes)?,
                            None => drop(transaction.remove(&key)?),
                        }
                    }
                    Ok(())
                });
                match &result {
                    Err(error) if outcome.is_none() && is_taken(error) && !deadline.is_over() => {}
                    _ => return Some(result),
                }
                if cancel.load(Ordering::Relaxed) {
                    return None;
                }
            }
        })?;
        done.map_err(|error| error::raise(ruby, error))?;
        outcome.unwrap_or_else(|| Ok(ruby.qnil().as_value()))
    }

    /// `native_snapshot(timeout) { }`
    fn snapshot(ruby: &Ruby, this: &Self, deadline: Deadline) -> Result<Value, Error> {
        let dict = this.get(ruby)?;
        let mut outcome = None;
        attempt(ruby, &dict, deadline, |dict| {
            dict.snapshot(|_| {
                // SAFETY: this is the body of the `wait` in `attempt`, and the only call in it.
                outcome = Some(unsafe { mmf_gvl::locked(ruby, |ruby| ruby.yield_values::<(), Value>(())) });
                Ok(())
            })
        })?;
        outcome.unwrap_or_else(|| Ok(ruby.qnil().as_value()))
    }

    /// `native_watch(key, prefix)`: one of them or neither.
    fn watch(ruby: &Ruby, this: &Self, key: Option<Key>, prefix: Option<Key>) -> Result<RubyChanges, Error> {
        let dict = this.get(ruby)?;
        let watched = match (key, prefix) {
            (Some(key), _) => Watched::Key(key.0),
            (None, Some(prefix)) => Watched::Prefix(prefix.0),
            (None, None) => Watched::All,
        };
        // SAFETY: what borrows from the dict lies in `Watching` before the `Arc` that keeps it alive and in its place, and so is
        // dropped before it.
        let borrowed: &'static Dict = unsafe { &*Arc::as_ptr(&dict) };
        let changes = borrowed.watch(watched).map_err(|error| error::raise(ruby, error))?;
        Ok(RubyChanges(RefCell::new(Some(Watching { changes, _dict: dict }))))
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
        ruby.str_new(&key.0)
    }

    fn close(&self) {
        // Out of the cell first, since closing takes its time.
        let dict = self.open.borrow_mut().take();
        drop(dict);
    }

    fn is_closed(&self) -> bool {
        self.open.borrow().is_none()
    }
}

type Steps = Vec<(String, Option<Vec<u8>>)>;

/// What the block gave, and what is to be changed then.
fn block(ruby: &Ruby, process: u32, changes: RHash) -> (Result<Value, Error>, Option<Steps>) {
    let result = ruby.yield_values::<(), Value>(());
    let is_kept = match &result {
        Ok(_) => true,
        Err(error) => matches!(error.error_type(), ErrorType::Jump(Tag::Break | Tag::Return)),
    };
    if !is_kept {
        return (result, None);
    }
    if std::process::id() != process {
        let text = "a forked child has left its parent's transaction";
        return (Err(error::new(ruby, "InvalidArgumentError", text)), None);
    }
    let mut steps = Vec::new();
    let collected = changes.foreach(|key: String, value: Option<RString>| {
        steps.push((key, value.map(crate::bytes)));
        Ok(ForEach::Continue)
    });
    match collected {
        Ok(()) => (result, Some(steps)),
        Err(error) => (Err(error), None),
    }
}

fn decode(ruby: &Ruby, encoding: Encoding, bytes: &[u8]) -> Result<Value, Error> {
    match encoding {
        Encoding::Bytes => Ok(ruby.str_from_slice(bytes).as_value()),
        Encoding::MessagePack => value::decode(ruby, bytes),
    }
}

/// Whether it is worth another try.
fn is_taken(error: &mmf::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Timeout { .. } | ErrorKind::Contended)
}

/// Does what may have to wait.
fn attempt<R>(
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

/// Does what takes no lock: the first time at once, since giving Ruby's lock away costs more than a look.
fn read<R>(
    ruby: &Ruby,
    dict: &Dict,
    deadline: Deadline,
    mut body: impl FnMut(&Dict) -> mmf::Result<R>,
) -> Result<R, Error> {
    match body(dict) {
        Err(error) if is_taken(&error) && !deadline.is_over() => attempt(ruby, dict, deadline, body),
        result => result.map_err(|error| error::raise(ruby, error)),
    }
}

/// Changes as they come. Empty while some thread waits for the next.
#[magnus::wrap(class = "Mmf::Dict::Changes", free_immediately, size)]
pub(crate) struct RubyChanges(RefCell<Option<Watching>>);

struct Watching {
    changes: Changes<'static>,
    /// What the changes borrow from. It comes after them, and so is dropped after them.
    _dict: Arc<Dict>,
}

impl RubyChanges {
    /// What happened, the key, the version; nil when the time is over.
    fn next(ruby: &Ruby, this: &Self, deadline: Deadline) -> Result<Option<Value>, Error> {
        let Some(mut watching) = this.0.borrow_mut().take() else {
            return Err(error::new(ruby, "InvalidArgumentError", "another thread waits for the next change"));
        };
        let waited = mmf_gvl::wait(ruby, |cancel| {
            loop {
                match watching.changes.next_for(deadline.slice()) {
                    Ok(None) if deadline.is_over() => return Some(Ok(None)),
                    Ok(None) => {}
                    result => return Some(result),
                }
                if cancel.load(Ordering::Relaxed) {
                    return None;
                }
            }
        });
        *this.0.borrow_mut() = Some(watching);
        let change = waited?.map_err(|error| error::raise(ruby, error))?;
        let told = |what: &str, key: Option<String>, version: Option<u64>| {
            Some((ruby.to_symbol(what), key, version).into_value_with(ruby))
        };
        Ok(match change {
            None => None,
            Some(Change::Set { key, version }) => told("set", Some(key), Some(version)),
            Some(Change::Removed { key, version }) => told("removed", Some(key), Some(version)),
            Some(Change::Cleared { version }) => told("cleared", None, Some(version)),
            Some(_) => told("missed", None, None),
        })
    }
}

pub(crate) fn define(ruby: &Ruby, module: RModule) -> Result<(), Error> {
    let class = module.define_class("Dict", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("native_open", function!(RubyDict::open, 2))?;
    class.define_singleton_method("encode", method!(RubyDict::encode, 1))?;
    class.define_singleton_method("decode", method!(RubyDict::decode, 1))?;
    class.define_singleton_method("key", method!(RubyDict::key, 1))?;
    class.define_method("native_get", method!(RubyDict::value, 3))?;
    class.define_method("native_versioned", method!(RubyDict::versioned, 2))?;
    class.define_method("native_set", method!(RubyDict::set, 3))?;
    class.define_method("native_replace", method!(RubyDict::replace, 4))?;
    class.define_method("native_delete", method!(RubyDict::delete, 2))?;
    class.define_method("native_increment", method!(RubyDict::increment, 3))?;
    class.define_method("native_clear", method!(RubyDict::clear, 1))?;
    class.define_method("native_flush", method!(RubyDict::flush, 1))?;
    class.define_method("native_key", method!(RubyDict::has_key, 2))?;
    class.define_method("native_version", method!(RubyDict::version, 2))?;
    class.define_method("native_keys", method!(RubyDict::keys, 1))?;
    class.define_method("native_entries", method!(RubyDict::entries, 1))?;
    class.define_method("native_transaction", method!(RubyDict::transaction, 2))?;
    class.define_method("native_snapshot", method!(RubyDict::snapshot, 1))?;
    class.define_method("native_watch", method!(RubyDict::watch, 2))?;
    class.define_method("size", method!(RubyDict::size, 0))?;
    class.define_method("capacity", method!(RubyDict::capacity, 0))?;
    class.define_method("source", method!(RubyDict::source, 0))?;
    class.define_method("read_only?", method!(RubyDict::is_read_only, 0))?;
    class.define_method("close", method!(RubyDict::close, 0))?;
    class.define_method("closed?", method!(RubyDict::is_closed, 0))?;
    let changes = class.define_class("Changes", ruby.class_object())?;
    changes.undef_default_alloc_func();
    changes.define_method("next", method!(RubyChanges::next, 1))?;
    Ok(())
}
