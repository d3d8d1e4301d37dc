//! Attribute style: `dict.foo`, `dict.foo = 1`.
//!
//! Such calls come by `method_missing` and define no method, so that a key that goes takes its reader with it.

use std::cell::RefCell;
use std::ffi::{c_char, c_long};

use magnus::rb_sys::{AsRawId, AsRawValue};
use magnus::{Error, RClass, Ruby, Symbol, TryConvert, Value, method, prelude::*};
use rb_sys::{ID, StableApiDefinition, VALUE, stable_api};

use crate::dict::RubyDict;
use crate::error;
use crate::key::Key;

/// What the name of a method that is not there says.
#[derive(Clone)]
enum Call {
    Get(Key),
    /// With the name as a method's, 0 where Ruby has met none.
    Set(Key, ID),
    /// It is no attribute's.
    Other,
}

impl Call {
    fn of(name: Value) -> Call {
        let Ok(name) = Key::try_convert(name) else { return Call::Other };
        match name.strip_suffix('=') {
            Some(key) if is_attribute(key) => Call::Set(Key::new(key), id(key)),
            None if is_attribute(&name) && !is_conversion(&name) => Call::Get(name),
            _ => Call::Other,
        }
    }
}

/// What was called last: each Symbol has one place, which it shares with others.
#[derive(Default)]
pub(crate) struct Calls(RefCell<Vec<Option<(VALUE, Call)>>>);

/// As many as a program uses at a time.
const PLACES: usize = 64;

impl Calls {
    fn of(&self, ruby: &Ruby, name: Symbol) -> Call {
        let raw = name.as_raw();
        // Others may be collected, and another one be where they were.
        if !rb_sys::STATIC_SYM_P(raw) {
            return Call::of(name.as_value());
        }
        let mut calls = self.0.borrow_mut();
        if calls.is_empty() {
            calls.resize(PLACES, None);
        }
        // Its bits below say what it is; those above count.
        let at = usize::try_from(raw >> 12).unwrap_or_default() % PLACES;
        let Some(place) = calls.get_mut(at) else { return Call::of(name.as_value()) };
        match place {
            Some((known, call)) if *known == raw => call.clone(),
            _ => {
                let mut call = Call::of(name.as_value());
                // A name that Ruby meets later may be a method's, so it meets it now. The setter's stays for ever as well.
                if let Call::Set(key, id @ 0) = &mut call {
                    *id = ruby.intern(key).as_raw();
                }
                *place = Some((raw, call.clone()));
                call
            }
        }
    }
}

/// `method_missing(name, *args)`: a setter or a reader, or else what Ruby says to a method that is not there.
fn method_missing(ruby: &Ruby, this: Value, args: &[Value]) -> Result<Value, Error> {
    let Some((name, rest)) = args.split_first() else { return ruby.call_super(args) };
    let Some(name) = Symbol::from_value(*name) else { return ruby.call_super(args) };
    let dict = RubyDict::of(&this)?;
    let wrong = |expected: u8| {
        let text = format!("wrong number of arguments (given {}, expected {expected})", rest.len());
        Error::new(ruby.exception_arg_error(), text)
    };
    match dict.calls.of(ruby, name) {
        Call::Get(key) => match dict.value_of(ruby, &key)? {
            None => ruby.call_super(args),
            Some(_) if !rest.is_empty() => Err(wrong(0)),
            Some(value) => Ok(value),
        },
        Call::Set(key, id) => {
            let [value] = rest else { return Err(wrong(1)) };
            if is_taken(this, &key, id) {
                let text = format!("`{}' is a method: use dict[{:?}] = …", &*key, &*key);
                return Err(error::new(ruby, "InvalidArgumentError", text));
            }
            Ok(ruby.into_value(dict.set_value(ruby, &key, *value)?))
        }
        Call::Other => ruby.call_super(args),
    }
}

/// `respond_to_missing?(name, include_private)`: true for what exists, and for every setter that can be used.
fn responds_to_missing(ruby: &Ruby, this: Value, args: &[Value]) -> Result<Value, Error> {
    let dict = RubyDict::of(&this)?;
    match args.first().map_or(Call::Other, |name| Call::of(*name)) {
        // What cannot be looked up, in a dict that is closed or whose pages are gone, cannot be called either.
        Call::Get(key) => Ok(ruby.into_value(dict.has(ruby, &key).unwrap_or(false))),
        Call::Set(key, id) => {
            Ok(ruby.into_value(!dict.is_read_only() && !dict.is_closed() && !is_taken(this, &key, id)))
        }
        Call::Other => ruby.call_super(args),
    }
}

/// What could be the name of an attribute.
fn is_attribute(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first == '_' || first.is_alphabetic())
        && letters.all(|letter| letter == '_' || letter.is_alphanumeric())
}

/// What is never taken for an attribute: Ruby asks for these itself, to convert an object.
const CONVERSIONS: [&str; 14] = [
    "to_a",
    "to_ary",
    "to_hash",
    "to_int",
    "to_io",
    "to_open",
    "to_path",
    "to_proc",
    "to_regexp",
    "to_str",
    "to_sym",
    "coerce",
    "marshal_dump",
    "_dump",
];

fn is_conversion(name: &str) -> bool {
    CONVERSIONS.contains(&name)
}

/// A name as a method's; 0 where Ruby has met none.
fn id(name: &str) -> ID {
    let Ok(len) = c_long::try_from(name.len()) else { return 0 };
    // SAFETY: it is Ruby's own.
    let utf8 = unsafe { rb_sys::rb_utf8_encoding() };
    // SAFETY: so many bytes of text in that encoding, which are copied where they are needed for longer.
    unsafe { rb_sys::rb_check_id_cstr(name.as_ptr().cast::<c_char>(), len, utf8) }
}

/// Whether a call of that name would never get to `method_missing`.
fn is_taken(this: Value, name: &str, id: ID) -> bool {
    if is_conversion(name) {
        return true;
    }
    // SAFETY: it is an object in memory, no number or the like; those have a class, of their own or shared.
    let class = unsafe { stable_api::get_default().rbasic_class(this.as_raw()) };
    // SAFETY: a class and a name; private methods are nobody's attributes and do not count.
    id != 0 && class.is_some_and(|class| unsafe { rb_sys::rb_method_boundp(class.as_ptr() as VALUE, id, 1) != 0 })
}

pub(crate) fn define(class: RClass) -> Result<(), Error> {
    class.define_method("method_missing", method!(method_missing, -1))?;
    class.define_private_method("respond_to_missing?", method!(responds_to_missing, -1))
}
