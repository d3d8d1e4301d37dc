//! Values in JSON from which the same bytes can be restored.

use std::collections::HashSet;
use std::fmt::Write as _;

use mmf::{Dict, Encoding};
use rmpv::Value;

use super::Json;

/// Part of `--help` of the verbs that export and import.
pub(crate) const EXACT_RULE: &str = "\
Lines: {\"key\": TEXT, \"value\": VALUE}, in the order of the keys. A value is plain JSON if possible, otherwise:
  {\"$bytes\": HEX}        bytes without encoding, of `mmf set KEY@FILE`; a whole value only
  {\"$bin\": HEX}          binary
  {\"$f32\": NUMBER}       a number of 32 bits, or HEX, its bits, if it is not finite
  {\"$f64\": HEX}          the bits of a number that is not finite
  {\"$ext\": [TYPE, HEX]}  an extension type of MessagePack
  {\"$map\": [[KEY, VALUE] ...]}  a map with keys that are not text or begin with `$`
  {\"$msgpack\": HEX}      MessagePack as it is, of an encoder that chose other bytes, or
                         of a value that is nested too deep; a whole value only";

/// How deep JSON may be: `serde_json` reads 128 levels, and a line is one of them.
pub(super) const DEEPEST: usize = 120;

/// How many steps its decoder may go down: two for each array or map that the library reads, and
/// three for a text in the innermost.
const STEPS: usize = 2 * Dict::MAX_DEPTH + 3;

/// How numbers and maps of JSON are used.
pub(super) struct Style {
    /// Numbers of 32 bits become such of 64, and maps keep keys that begin with `$`.
    loose: bool,
}

pub(super) const READABLE: Style = Style { loose: true };
const EXACT: Style = Style { loose: false };

/// The one value that the bytes are, if it is no deeper than the library reads: what is much deeper
/// takes all of the stack.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Value> {
    let value = rmpv::decode::read_value_with_max_depth(&mut bytes, STEPS).ok()?;
    (bytes.is_empty() && depth(&value) <= Dict::MAX_DEPTH).then_some(value)
}

/// How many arrays and maps are in each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(key, value)| depth(key).max(depth(value))).max().unwrap_or(0),
        _ => 0,
    }
}

/// A value in JSON from which [`parse`] makes the same bytes.
pub(crate) fn of(encoding: Encoding, bytes: &[u8]) -> Json {
    let exact = || {
        let value = decode(bytes)?;
        // The writer may have encoded it differently than `parse` would.
        if encode(&value)? != bytes {
            return None;
        }
        of_value(&value, &EXACT, DEEPEST)
    };
    match encoding {
        Encoding::Bytes => of_bytes(encoding, bytes),
        Encoding::MessagePack => exact().unwrap_or_else(|| of_bytes(encoding, bytes)),
    }
}

/// Its bytes alone.
pub(super) fn of_bytes(encoding: Encoding, bytes: &[u8]) -> Json {
    let word = match encoding {
        Encoding::Bytes => "$bytes",
        Encoding::MessagePack => "$msgpack",
    };
    Json::one(word, Json::Text(hex(bytes)))
}

/// The value; `None` if it is too deep, or has a text that is none.
pub(super) fn of_value(value: &Value, style: &Style, deep: usize) -> Option<Json> {
    Some(match value {
        Value::Nil => Json::Null,
        Value::Boolean(value) => Json::Bool(*value),
        Value::Integer(value) => match value.as_u64() {
            Some(value) => Json::Unsigned(value),
            None => Json::Signed(value.as_i64()?),
        },
        Value::F32(value) if !value.is_finite() => Json::one("$f32", Json::Text(hex(&value.to_bits().to_be_bytes()))),
        // The fewest digits that tell it from its neighbours, which people expect to see.
        Value::F32(value) if style.loose => Json::Float(value.to_string().parse().ok()?),
        Value::F32(value) => Json::one("$f32", Json::Float(f64::from(*value))),
        Value::F64(value) if !value.is_finite() => Json::one("$f64", Json::Text(hex(&value.to_bits().to_be_bytes()))),
        Value::F64(value) => Json::Float(*value),
        Value::String(text) => Json::Text(text.as_str()?.to_owned()),
        Value::Binary(bytes) => Json::one("$bin", Json::Text(hex(bytes))),
        Value::Array(values) => {
            let deep = deep.checked_sub(1)?;
            Json::List(values.iter().map(|value| of_value(value, style, deep)).collect::<Option<_>>()?)
        }
        Value::Map(entries) => of_map(entries, style, deep)?,
        Value::Ext(kind, bytes) => {
            let kind = Json::Signed(i64::from(*kind));
            Json::one("$ext", Json::List(vec![kind, Json::Text(hex(bytes))]))
        }
    })
}

fn of_map(entries: &[(Value, Value)], style: &Style, deep: usize) -> Option<Json> {
    // As deep as the form with pairs is.
    let deep = deep.checked_sub(3)?;
    let mut keys = HashSet::new();
    let mut is_plain = |key: &Value| {
        let text = key.as_str();
        text.is_some_and(|text| keys.insert(text.to_owned()) && (style.loose || !text.starts_with('$')))
    };
    if entries.iter().all(|(key, _)| is_plain(key)) {
        let entry = |(key, value): &(Value, Value)| Some((key.as_str()?.to_owned(), of_value(value, style, deep)?));
        return Some(Json::Map(entries.iter().map(entry).collect::<Option<_>>()?));
    }
    let pair = |(key, value): &(Value, Value)| {
        Some(Json::List(vec![of_value(key, style, deep)?, of_value(value, style, deep)?]))
    };
    Some(Json::one("$map", Json::List(entries.iter().map(pair).collect::<Option<_>>()?)))
}

/// The bytes that a value in JSON stands for.
pub(crate) fn parse(json: Json) -> Result<(Encoding, Vec<u8>), String> {
    let word = match &json {
        Json::Map(entries) => match &entries[..] {
            [(word, Json::Text(text))] => Some((word.as_str(), text)),
            _ => None,
        },
        _ => None,
    };
    match word {
        Some(("$bytes", text)) => Ok((Encoding::Bytes, unhex(text)?)),
        Some(("$msgpack", text)) => Ok((Encoding::MessagePack, unhex(text)?)),
        _ => {
            let value = to_value(json)?;
            // A value that the library would not read is not written.
            if depth(&value) > Dict::MAX_DEPTH {
                return Err(format!("its lists and maps are nested more than {} deep", Dict::MAX_DEPTH));
            }
            let bytes = encode(&value).ok_or("it cannot be encoded")?;
            Ok((Encoding::MessagePack, bytes))
        }
    }
}

fn to_value(json: Json) -> Result<Value, String> {
    Ok(match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Boolean(value),
        Json::Unsigned(value) => value.into(),
        Json::Signed(value) => value.into(),
        Json::Float(value) => Value::F64(value),
        Json::Text(text) => text.into(),
        Json::List(values) => Value::Array(values.into_iter().map(to_value).collect::<Result<_, _>>()?),
        Json::Map(mut entries) => {
            if !entries.iter().any(|(key, _)| key.starts_with('$')) {
                let entry = |(key, value): (String, Json)| Ok((key.into(), to_value(value)?));
                return Ok(Value::Map(entries.into_iter().map(entry).collect::<Result<_, String>>()?));
            }
            match (entries.pop(), entries.is_empty()) {
                (Some((word, meant)), true) => special(&word, meant)?,
                _ => {
                    return Err("a map with several keys has one that begins with `$`; see `$map` in --help".to_owned());
                }
            }
        }
    })
}

/// The value of a map with one key that begins with `$`.
fn special(word: &str, meant: Json) -> Result<Value, String> {
    match (word, meant) {
        ("$bin", Json::Text(text)) => Ok(Value::Binary(unhex(&text)?)),
        #[allow(clippy::cast_possible_truncation, reason = "it is one of 32 bits, written with more")]
        ("$f32", Json::Float(value)) => Ok(Value::F32(value as f32)),
        ("$f32", Json::Text(text)) => Ok(Value::F32(f32::from_bits(u32::from_be_bytes(bits(&text)?)))),
        ("$f64", Json::Text(text)) => Ok(Value::F64(f64::from_bits(u64::from_be_bytes(bits(&text)?)))),
        ("$ext", Json::List(parts)) => match &parts[..] {
            [kind @ (Json::Signed(_) | Json::Unsigned(_)), Json::Text(text)] => {
                let kind = match kind {
                    Json::Signed(kind) => i8::try_from(*kind).ok(),
                    Json::Unsigned(kind) => i8::try_from(*kind).ok(),
                    _ => None,
                };
                Ok(Value::Ext(kind.ok_or("the type of `$ext` is -128 to 127")?, unhex(text)?))
            }
            _ => Err("`$ext` has a type and bytes".to_owned()),
        },
        ("$map", Json::List(pairs)) => {
            let pair = |pair| match pair {
                Json::List(mut pair) if pair.len() == 2 => {
                    let (value, key) = (pair.pop().unwrap_or(Json::Null), pair.pop().unwrap_or(Json::Null));
                    Ok((to_value(key)?, to_value(value)?))
                }
                _ => Err("`$map` has pairs of a key and a value".to_owned()),
            };
            Ok(Value::Map(pairs.into_iter().map(pair).collect::<Result<_, _>>()?))
        }
        _ => Err(format!("`{word}` is not a special key with such a value; see --help")),
    }
}

fn encode(value: &Value) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).ok()?;
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    bytes.ok_or_else(|| "each byte is written as two hexadecimal digits".to_owned())
}

fn bits<const N: usize>(text: &str) -> Result<[u8; N], String> {
    unhex(text)?.try_into().map_err(|_| format!("the bits of the number are {} hexadecimal digits", 2 * N))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(bytes: &[u8]) -> String {
        for encoding in [Encoding::MessagePack, Encoding::Bytes] {
            let line = of(encoding, bytes).line();
            let read: Json = serde_json::from_str(&line).expect(&line);
            assert_eq!(parse(read), Ok((encoding, bytes.to_vec())), "{line}");
        }
        of(Encoding::MessagePack, bytes).line()
    }

    #[test]
    fn values_come_back_as_the_bytes_they_were() {
        for (value, line) in [
            (Value::Nil, "null"),
            (Value::from(u64::MAX), "18446744073709551615"),
            (Value::from(i64::MIN), "-9223372036854775808"),
            (Value::from(-1), "-1"),
            (Value::F64(0.1), "0.1"),
            (Value::F64(-0.0), "-0.0"),
            (Value::F64(5e-324), "5e-324"),
            (Value::F64(1.0), "1.0"),
            (Value::F64(2.0_f64.powi(70)), "1.1805916207174113e+21"),
            (Value::F64(f64::NAN), r#"{"$f64":"7ff8000000000000"}"#),
            (Value::F64(f64::NEG_INFINITY), r#"{"$f64":"fff0000000000000"}"#),
            (Value::F32(0.1), r#"{"$f32":0.10000000149011612}"#),
            (Value::F32(f32::INFINITY), r#"{"$f32":"7f800000"}"#),
            (Value::from("a\"\u{0}ß\n"), r#""a\"\u0000ß\n""#),
            (Value::Binary(vec![0, 255]), r#"{"$bin":"00ff"}"#),
            (Value::Ext(-1, vec![1, 2, 3, 4]), r#"{"$ext":[-1,"01020304"]}"#),
            (Value::Map(vec![("z".into(), 1.into()), ("a".into(), Value::Nil)]), r#"{"z":1,"a":null}"#),
            (Value::Map(vec![(1.into(), "one".into())]), r#"{"$map":[[1,"one"]]}"#),
            (Value::Map(vec![("$bin".into(), "00".into())]), r#"{"$map":[["$bin","00"]]}"#),
            (Value::Map(vec![("a".into(), 1.into()), ("a".into(), 2.into())]), r#"{"$map":[["a",1],["a",2]]}"#),
            (
                Value::Array(vec![Value::Map(vec![(Value::Nil, Value::Binary(vec![]))])]),
                r#"[{"$map":[[null,{"$bin":""}]]}]"#,
            ),
        ] {
            assert_eq!(there_and_back(&encode(&value).expect("a value")), line);
        }
        // Invalid MessagePack, more than one value, invalid text, and numbers wider than necessary.
        for bytes in [&[][..], &[0xc1], &[1, 2], &[0xa1, 0xff], &[0xcd, 0, 7], &[0xca, 0x7f, 0xa0, 0, 1]] {
            there_and_back(bytes);
        }
    }

    #[test]
    fn whatever_the_depth_it_comes_back() {
        for levels in [30, 39, 40, 41, 60, 63, 64, 65, 119, 120, 121, 500, 2000] {
            let mut list = vec![0x91; levels];
            list.push(0xc0);
            there_and_back(&list);
            let mut map = [0x81, 0x01].repeat(levels);
            map.push(0xc0);
            there_and_back(&map);
        }
    }

    #[test]
    fn a_value_is_as_deep_as_the_library_reads_and_no_deeper() {
        for (levels, is_read) in [(Dict::MAX_DEPTH, true), (Dict::MAX_DEPTH + 1, false)] {
            for end in [&b"\xc0"[..], b"\xa1x", b"\xc7\x01\x05x"] {
                let bytes = [&vec![0x91; levels][..], end].concat();
                assert_eq!(decode(&bytes).is_some(), is_read, "{levels} {end:x?}");
            }
            let text = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            assert_eq!(parse(serde_json::from_str(&text).expect(&text)).is_ok(), is_read, "{levels}");
        }
    }

    #[test]
    fn bytes_of_no_particular_kind_come_back() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut bytes = [0; 12];
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = state.to_be_bytes()[0];
            }
            let len = usize::from(bytes[0]) % bytes.len();
            there_and_back(&bytes[1..=len.max(1)]);
        }
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        for text in [
            r#"{"$what":1}"#,
            r#"{"$bin":"0"}"#,
            r#"{"$bin":"0x"}"#,
            r#"{"$bin":1}"#,
            r#"{"$f32":"00"}"#,
            r#"{"$ext":[128,""]}"#,
            r#"{"$map":[[1]]}"#,
            r#"{"$bin":"00","a":1}"#,
            r#"[{"$bytes":"00"}]"#,
        ] {
            let json: Json = serde_json::from_str(text).expect(text);
            let reason = parse(json).expect_err(text);
            assert!(reason.len() > 10, "{text}: {reason}");
        }
        assert!(serde_json::from_str::<Json>(r#"{"a":1,"a":2}"#).is_err());
    }
}
