//! JSON whose maps keep their order, and the values of dicts in it.

pub(crate) mod exact;
mod tree;

pub(crate) use tree::Json;

use exact::decode;
use mmf::Encoding;
use rmpv::{Utf8String, Value};
use serde::de::DeserializeOwned;

/// Reads JSON, but for whole numbers of more than 64 bits: what reads them makes other numbers of
/// them.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    let value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match too_wide(text) {
        Some(number) => Err(format!("{} has more than 64 bits", String::from_utf8_lossy(number))),
        None => Ok(value),
    }
}

/// The first whole number of more than 64 bits in what is JSON.
fn too_wide(json: &[u8]) -> Option<&[u8]> {
    let mut left = json;
    while let Some(&byte) = left.first() {
        let len = match byte {
            b'"' => text_len(left),
            b'-' | b'0'..=b'9' => {
                let is_number = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let len = left.iter().take_while(|byte| is_number(byte)).count();
                let number = std::str::from_utf8(&left[..len]).unwrap_or_default();
                let is_whole = !number.contains(['.', 'e', 'E']);
                if is_whole && number.parse::<u64>().is_err() && number.parse::<i64>().is_err() {
                    return Some(&left[..len]);
                }
                len
            }
            _ => 1,
        };
        left = left.get(len..)?;
    }
    None
}

/// Bytes of the text in quotes that something begins with.
fn text_len(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            // The escaped byte does not end the string.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// A value of a dict, in JSON as people read it: text and what JSON has as they are, also numbers
/// of 32 bits and maps whose keys look like those of [`exact`]; all else as there.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_would_become_another_is_refused() {
        let read = |text: &str| read::<Json>(text.as_bytes());
        for text in [
            "18446744073709551616",
            "-9223372036854775809",
            r#"{"a\"": ["\\", 123456789012345678901234567890]}"#,
            "[1, -123456789012345678901234567890]",
        ] {
            assert!(read(text).is_err_and(|reason| reason.ends_with(" has more than 64 bits")), "{text}");
        }
        for text in [
            "18446744073709551615",
            "-9223372036854775808",
            "1e29",
            "123456789012345678901234567890.0",
            r#""123456789012345678901234567890 \" 123456789012345678901234567890""#,
            r#"{"123456789012345678901234567890": -0}"#,
        ] {
            assert!(read(text).is_ok(), "{text}");
        }
    }
}
