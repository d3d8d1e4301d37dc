//! `mmf set`.

use clap::builder::{OsStringValueParser, TypedValueParser};

use super::{finish, to_fill};
use crate::cli::SetArgs;
use crate::failure::{Failure, Result};
use crate::json::{self, Json};

/// A key and its new value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair {
    key: String,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Json(Json),
    File(String),
}

impl Pair {
    /// For clap.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Pair> {
        OsStringValueParser::new().try_map(|pair| match pair.to_str() {
            Some(text) => Pair::parse(text),
            None => Err("keys and text are UTF-8; KEY@FILE sets other bytes".to_owned()),
        })
    }

    /// Parses a pair, as `--help` describes it.
    fn parse(text: &str) -> Result<Pair, String> {
        let at = text.find(['=', '@']).ok_or("a pair is KEY=TEXT, KEY:=JSON or KEY@FILE")?;
        let (key, rest) = text.split_at(at);
        let (key, value) = match (key.strip_suffix(':'), rest.strip_prefix('=')) {
            (Some(key), Some(json)) => {
                let value = json::read(json.as_bytes())
                    .map_err(|error| format!("the text after `:=` is not JSON: {error}; for text: {key}={json}"))?;
                (key, Value::Json(value))
            }
            (_, Some(text)) => (key, Value::Text(text.to_owned())),
            (_, None) if rest == "@" => return Err("the path of the file is missing".to_owned()),
            (_, None) => (key, Value::File(rest[1..].to_owned())),
        };
        if key.is_empty() {
            return Err("the key is missing".to_owned());
        }
        Ok(Pair { key: key.to_owned(), value })
    }
}

pub(crate) fn run(args: SetArgs) -> Result<()> {
    // The files are read before the lock is taken, and before a dict is created.
    let mut files = Vec::new();
    for pair in &args.pairs {
        if let Value::File(path) = &pair.value {
            files.push(std::fs::read(path).map_err(|error| Failure::io("read", path, error))?);
        }
    }
    let dict = to_fill(&args.object, &args.making, &args.changing)?;
    let mut files = files.iter();
    dict.transaction(|tx| {
        for Pair { key, value } in &args.pairs {
            match value {
                Value::Text(text) => tx.set(key, text)?,
                Value::Json(json) => tx.set(key, json)?,
                Value::File(_) => tx.set_bytes(key, files.next().map_or(&[], Vec::as_slice))?,
            }
        }
        Ok(())
    })?;
    finish(&dict, &args.changing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_ends_the_key() {
        let text = |text: &str| Value::Text(text.to_owned());
        let file = |path: &str| Value::File(path.to_owned());
        for (given, key, value) in [
            ("a=b", "a", text("b")),
            ("ver=1.10", "ver", text("1.10")),
            ("a=", "a", text("")),
            ("a=b:=c@d", "a", text("b:=c@d")),
            ("mail=me@example.com", "mail", text("me@example.com")),
            ("a:b=c", "a:b", text("c")),
            ("a:=1", "a", Value::Json(Json::Unsigned(1))),
            ("a:= \"=@\"", "a", Value::Json(Json::Text("=@".to_owned()))),
            ("a@b=c", "a", file("b=c")),
            ("a@b:=c", "a", file("b:=c")),
            ("a:@b", "a:", file("b")),
        ] {
            let pair = Pair { key: key.to_owned(), value };
            assert_eq!(Pair::parse(given), Ok(pair), "{given}");
        }
        for given in ["", "a", "a:", "=b", ":=1", "@b", "a:=b", "a:=", "a:=1 2", "a@", "a:=18446744073709551616"] {
            assert!(Pair::parse(given).is_err(), "{given}");
        }
    }
}
