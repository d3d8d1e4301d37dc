//! Ruby's values as `MessagePack` and back: <https://github.com/msgpack/msgpack/blob/master/spec.md>.
//!
//! Numbers take the shortest form, floats 8 bytes, as the library below writes them.

use std::ffi::{c_char, c_long};

use magnus::encoding::{Coderange, EncodingCapable};
use magnus::r_hash::ForEach;
use magnus::rb_sys::FromRawValue;
use magnus::{Error, Float, Integer, RArray, RHash, RString, Ruby, Symbol, Value, prelude::*};

use crate::{error, key};

/// How deep arrays and hashes may be in each other, as in every language. Each level takes stack,
/// of which a fiber has little.
const DEEPEST: usize = mmf::Dict::MAX_DEPTH;

/// A value's bytes.
pub(crate) fn encode(ruby: &Ruby, value: Value) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    encode_into(ruby, value, &mut bytes)?;
    Ok(bytes)
}

/// As [`encode`], behind what there is.
pub(crate) fn encode_into(ruby: &Ruby, value: Value, bytes: &mut Vec<u8>) -> Result<(), Error> {
    put(ruby, value, DEEPEST, bytes)
}

fn put(ruby: &Ruby, value: Value, deeper: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    if value.is_nil() {
        out.push(0xc0);
    } else if let Some(text) = RString::from_value(value) {
        return put_text(ruby, text, out);
    } else if let Some(number) = Integer::from_value(value) {
        return put_number(ruby, number, out);
    } else if let Some(symbol) = Symbol::from_value(value) {
        return put_text(ruby, key::name(ruby, symbol), out);
    } else if let Some(number) = Float::from_value(value) {
        out.push(0xcb);
        out.extend_from_slice(&number.to_f64().to_be_bytes());
    } else if value.is_kind_of(ruby.class_true_class()) {
        out.push(0xc3);
    } else if value.is_kind_of(ruby.class_false_class()) {
        out.push(0xc2);
    } else if let Some(array) = RArray::from_value(value) {
        let deeper = go_deeper(ruby, deeper)?;
        let len = array.len();
        put_len(ruby, len, out, [0, 0xdc, 0xdd], (0x90, 15))?;
        for nth in 0..len {
            // What counts is the array's length above: nothing here runs Ruby code that could change it.
            put(ruby, array.entry(isize::try_from(nth).unwrap_or(isize::MAX))?, deeper, out)?;
        }
    } else if let Some(hash) = RHash::from_value(value) {
        let deeper = go_deeper(ruby, deeper)?;
        put_len(ruby, hash.len(), out, [0, 0xde, 0xdf], (0x80, 15))?;
        return hash.foreach(|key: Value, value: Value| {
            put(ruby, key, deeper, out)?;
            put(ruby, value, deeper, out)?;
            Ok(ForEach::Continue)
        });
    } else {
        // SAFETY: the name is copied before anything of Ruby runs.
        let class = unsafe { value.classname() }.into_owned();
        let text =
            format!("MessagePack holds no {class}: give nil, true, false, a number, String, Symbol, Array or Hash");
        return Err(error::new(ruby, "InvalidArgumentError", text));
    }
    Ok(())
}

fn go_deeper(ruby: &Ruby, deeper: usize) -> Result<usize, Error> {
    let text = || format!("arrays and hashes lie in each other deeper than {DEEPEST}");
    deeper.checked_sub(1).ok_or_else(|| error::new(ruby, "InvalidArgumentError", text()))
}

/// Text as text, binary strings as bytes.
fn put_text(ruby: &Ruby, text: RString, out: &mut Vec<u8>) -> Result<(), Error> {
    let is_binary = text.enc_get() == ruby.ascii8bit_encindex();
    let text = if is_binary { text } else { utf8(ruby, text)? };
    // SAFETY: nothing of Ruby runs while the bytes are copied.
    let bytes = unsafe { text.as_slice() };
    if is_binary {
        put_len(ruby, bytes.len(), out, [0xc4, 0xc5, 0xc6], (0, 0))?;
    } else {
        put_len(ruby, bytes.len(), out, [0xd9, 0xda, 0xdb], (0xa0, 31))?;
    }
    out.extend_from_slice(bytes);
    Ok(())
}

/// A text in UTF-8, if it is one.
pub(crate) fn utf8(ruby: &Ruby, text: RString) -> Result<RString, Error> {
    let text = if text.is_utf8_compatible_encoding() { text } else { converted(ruby, text)? };
    if !matches!(text.enc_coderange_scan(), Coderange::Broken) {
        return Ok(text);
    }
    Err(not_utf8(ruby))
}

#[cold]
fn converted(ruby: &Ruby, text: RString) -> Result<RString, Error> {
    // It gives back the same where it cannot convert.
    let text = text.conv_enc(ruby.utf8_encoding())?;
    if text.is_utf8_compatible_encoding() { Ok(text) } else { Err(not_utf8(ruby)) }
}

pub(crate) fn not_utf8(ruby: &Ruby) -> Error {
    error::new(ruby, "InvalidArgumentError", "the text is not valid in its encoding, or has no form in UTF-8")
}

fn put_number(ruby: &Ruby, number: Integer, out: &mut Vec<u8>) -> Result<(), Error> {
    if let Ok(number) = number.to_i64() {
        if let Ok(positive) = u64::try_from(number) {
            put_positive(positive, out);
        } else {
            put_negative(number, out);
        }
        return Ok(());
    }
    match number.to_u64() {
        // A negative one that is too large would wrap.
        Ok(large) if large > i64::MAX.unsigned_abs() && number.funcall::<_, _, bool>("positive?", ())? => {
            put_positive(large, out);
            Ok(())
        }
        _ => Err(error::new(ruby, "OutOfBoundsError", "MessagePack holds numbers from -2**63 to 2**64 - 1")),
    }
}

fn put_positive(number: u64, out: &mut Vec<u8>) {
    if let Ok(number) = u8::try_from(number) {
        if number >= 0x80 {
            out.push(0xcc);
        }
        out.push(number);
    } else if let Ok(number) = u16::try_from(number) {
        out.push(0xcd);
        out.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        out.push(0xce);
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn put_negative(number: i64, out: &mut Vec<u8>) {
    if let Ok(number) = i8::try_from(number) {
        if number < -32 {
            out.push(0xd0);
        }
        out.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = i16::try_from(number) {
        out.push(0xd1);
        out.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        out.push(0xd2);
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// A length: within the first byte up to `short.1`, else behind the codes for 1, 2 and 4 bytes, of which
/// the first may be 0: there is none.
fn put_len(ruby: &Ruby, len: usize, out: &mut Vec<u8>, codes: [u8; 3], short: (u8, u8)) -> Result<(), Error> {
    let Ok(long) = u32::try_from(len) else {
        return Err(error::new(ruby, "OutOfBoundsError", "MessagePack holds lengths to 2**32 - 1"));
    };
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len), _) if short.0 != 0 && len <= short.1 => out.push(short.0 | len),
        (Ok(len), _) if codes[0] != 0 => out.extend_from_slice(&[codes[0], len]),
        (_, Ok(len)) => {
            out.push(codes[1]);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(codes[2]);
            out.extend_from_slice(&long.to_be_bytes());
        }
    }
    Ok(())
}

/// The value that bytes hold, which anybody may have written.
pub(crate) fn decode(ruby: &Ruby, bytes: &[u8]) -> Result<Value, Error> {
    let mut reader = Reader { ruby, rest: bytes };
    let value = reader.value(DEEPEST)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(reader.wrong("it goes on behind its end")) }
}

struct Reader<'a> {
    ruby: &'a Ruby,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[cold]
    fn wrong(&self, what: &str) -> Error {
        error::new(self.ruby, "MismatchError", format!("the value cannot be read: {what}"))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.wrong("it ends too early")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.take(N)?.try_into().unwrap_or([0; N]))
    }

    /// A length of so many bytes.
    fn len(&mut self, bytes: u8) -> Result<usize, Error> {
        let len = match bytes {
            1 => u32::from(u8::from_be_bytes(self.array()?)),
            2 => u32::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?),
        };
        usize::try_from(len).map_err(|_| self.wrong("it is too long"))
    }

    fn value(&mut self, deeper: usize) -> Result<Value, Error> {
        let ruby = self.ruby;
        let [code] = self.array()?;
        Ok(match code {
            0x00..=0x7f => ruby.into_value(code),
            0xe0..=0xff => ruby.into_value(i8::from_be_bytes([code])),
            0xc0 => ruby.qnil().as_value(),
            0xc2 => ruby.qfalse().as_value(),
            0xc3 => ruby.qtrue().as_value(),
            0xcc => ruby.into_value(u8::from_be_bytes(self.array()?)),
            0xcd => ruby.into_value(u16::from_be_bytes(self.array()?)),
            0xce => ruby.into_value(u32::from_be_bytes(self.array()?)),
            0xcf => ruby.into_value(u64::from_be_bytes(self.array()?)),
            0xd0 => ruby.into_value(i8::from_be_bytes(self.array()?)),
            0xd1 => ruby.into_value(i16::from_be_bytes(self.array()?)),
            0xd2 => ruby.into_value(i32::from_be_bytes(self.array()?)),
            0xd3 => ruby.into_value(i64::from_be_bytes(self.array()?)),
            0xca => ruby.into_value(f32::from_be_bytes(self.array()?)),
            0xcb => ruby.into_value(f64::from_be_bytes(self.array()?)),
            0xa0..=0xbf => self.text(usize::from(code & 0x1f))?,
            0xd9..=0xdb => {
                let len = self.len(1 << (code - 0xd9))?;
                self.text(len)?
            }
            0xc4..=0xc6 => {
                let len = self.len(1 << (code - 0xc4))?;
                ruby.str_from_slice(self.take(len)?).as_value()
            }
            0x90..=0x9f => self.list(usize::from(code & 0x0f), deeper)?,
            0xdc | 0xdd => {
                let len = self.len(2 << (code - 0xdc))?;
                self.list(len, deeper)?
            }
            0x80..=0x8f => self.map(usize::from(code & 0x0f), deeper)?,
            0xde | 0xdf => {
                let len = self.len(2 << (code - 0xde))?;
                self.map(len, deeper)?
            }
            0xc7..=0xc9 | 0xd4..=0xd8 => return Err(self.wrong("it has an extension type")),
            0xc1 => return Err(self.wrong("it is not MessagePack")),
        })
    }

    fn text(&mut self, len: usize) -> Result<Value, Error> {
        let bytes = self.take(len)?;
        let Ok(len) = c_long::try_from(bytes.len()) else { return Err(self.wrong("it is too long")) };
        // SAFETY: so many bytes, which are copied. What is no UTF-8 is a String that Ruby calls broken.
        let text = unsafe { rb_sys::rb_utf8_str_new(bytes.as_ptr().cast::<c_char>(), len) };
        // SAFETY: it is a String, just made.
        Ok(unsafe { Value::from_raw(text) })
    }

    /// One level down, where `len` values of a byte at the least are to come.
    fn down(&self, len: usize, deeper: usize) -> Result<usize, Error> {
        if len > self.rest.len() {
            return Err(self.wrong("it ends too early"));
        }
        deeper.checked_sub(1).ok_or_else(|| self.wrong("arrays and maps lie in each other too deep"))
    }

    fn list(&mut self, len: usize, deeper: usize) -> Result<Value, Error> {
        let deeper = self.down(len, deeper)?;
        let array = self.ruby.ary_new();
        for _ in 0..len {
            array.push(self.value(deeper)?)?;
        }
        Ok(array.as_value())
    }

    fn map(&mut self, len: usize, deeper: usize) -> Result<Value, Error> {
        let deeper = self.down(len.saturating_mul(2), deeper)?;
        let hash = self.ruby.hash_new();
        for _ in 0..len {
            let key = self.value(deeper)?;
            hash.aset(key, self.value(deeper)?)?;
        }
        Ok(hash.as_value())
    }
}
