//! JSON whose maps keep their order, and the values of dicts in it.

pub(crate) mod exact;
mod tree;

pub(crate) use tree::Json;

use mmf::Encoding;
use rmpv::{Utf8String, Value};

/// A value of a dict, in JSON as people read it: text and what JSON has as they are, also numbers of 32 bits and maps
/// whose keys look like those of [`exact`]; all else as there.
pub(crate) fn readable(encoding: Encoding, bytes: &[u8]) -> Json {
    let value = match encoding {
        Encoding::Bytes => None,
        Encoding::MessagePack => decode(bytes),
    };
    match value.as_ref().and_then(|value| exact::of_value(value, &exact::READABLE, usize::MAX)) {
        Some(json) => json,
        None => exact::of_bytes(encoding, bytes),
    }
}

/// The text, if a value is one.
pub(crate) fn text(encoding: Encoding, bytes: &[u8]) -> Option<String> {
    match (encoding, decode(bytes)?) {
        (Encoding::MessagePack, Value::String(text)) => Utf8String::into_str(text),
        _ => None,
    }
}

/// The bytes, if a value is raw or encoded bytes.
pub(crate) fn bytes(encoding: Encoding, bytes: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
    match encoding {
        Encoding::Bytes => Ok(bytes),
        Encoding::MessagePack => match decode(&bytes) {
            Some(Value::Binary(binary)) => Ok(binary),
            _ => Err(bytes),
        },
    }
}

/// The one value that the bytes are, if it is no deeper than JSON may be: what is much deeper takes all of the stack.
fn decode(mut bytes: &[u8]) -> Option<Value> {
    let value = rmpv::decode::read_value_with_max_depth(&mut bytes, exact::DEEPEST).ok()?;
    bytes.is_empty().then_some(value)
}
