//! Keys: Strings and Symbols, which are the same.

use std::ops::Deref;

use magnus::rb_sys::{AsRawValue, FromRawValue};
use magnus::{Error, RString, Ruby, Symbol, TryConvert, Value};

use crate::{error, value};

/// A copy of a key's text, since other threads of Ruby's may change what they have given. Most are short, and take no memory
/// of their own.
#[derive(Clone)]
pub(crate) enum Key {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(String),
}

const SHORT: usize = 62;

impl Key {
    pub(crate) fn new(text: &str) -> Key {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Key::Short { len, bytes }
            }
            _ => Key::Long(text.to_owned()),
        }
    }

    pub(crate) fn into_string(self) -> String {
        match self {
            Key::Short { .. } => (*self).to_owned(),
            Key::Long(text) => text,
        }
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            // SAFETY: `Key::new` alone makes one, of so many bytes of a text.
            Key::Short { len, bytes } => unsafe { std::str::from_utf8_unchecked(&bytes[..usize::from(*len)]) },
            Key::Long(text) => text,
        }
    }
}

impl TryConvert for Key {
    fn try_convert(key: Value) -> Result<Self, Error> {
        let ruby = Ruby::get_with(key);
        let text = match Symbol::from_value(key) {
            Some(symbol) => name(&ruby, symbol),
            None => RString::from_value(key)
                .ok_or_else(|| error::new(&ruby, "InvalidArgumentError", "a key is a String or a Symbol"))?,
        };
        let text = value::utf8(&ruby, text)?;
        // SAFETY: nothing of Ruby's runs while the bytes are copied.
        let bytes = unsafe { text.as_slice() };
        let text = std::str::from_utf8(bytes).map_err(|_| value::not_utf8(&ruby))?;
        Ok(Key::new(text))
    }
}

/// A Symbol's text: its own, no copy.
pub(crate) fn name(ruby: &Ruby, symbol: Symbol) -> RString {
    // SAFETY: it is a Symbol.
    let name = unsafe { rb_sys::rb_sym2str(symbol.as_raw()) };
    // SAFETY: it is a String, which lives as long as the Symbol.
    let name = unsafe { Value::from_raw(name) };
    // No Symbol is without.
    RString::from_value(name).unwrap_or_else(|| ruby.str_new(""))
}
