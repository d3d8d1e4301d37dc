//! Text from shared memory, made safe to print.
//!
//! A peer chooses the keys and values, and a terminal takes control characters in them for
//! commands. So they are escaped in everything that is made of lines: keys, tables, notes, errors
//! and JSON. A value that `get` prints to a terminal is escaped too; a pipe or a file gets it
//! unchanged.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a terminal may take it for a command, a line end or a change of the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with every unsafe character as Rust escapes it: `\n`, `\u{1b}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    escaped_but(text, &[])
}

/// The same, except for characters in `kept`.
pub(crate) fn escaped_but<'t>(text: &'t str, kept: &[char]) -> Cow<'t, str> {
    let escape = |c: char| is_unsafe(c) && !kept.contains(&c);
    if !text.contains(escape) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !escape(c) => safe.push(c),
            '\n' | '\r' | '\t' => safe.extend(c.escape_default()),
            c => safe.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(safe)
}

/// JSON in which every unsafe character is an escape. Line ends stay: in JSON they stand between
/// values alone.
pub(crate) fn safe_json(json: String) -> String {
    let escape = |c: char| is_unsafe(c) && c != '\n';
    if !json.contains(escape) {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if escape(c) {
            // None of them needs a pair of escapes. Writing to a string cannot fail.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A key as a line of its own: as it is, or as a JSON string if it is empty, begins with `"` or has
/// unsafe characters. So a line that begins with `"` is always JSON.
pub(crate) fn key_line(key: &str) -> Cow<'_, str> {
    if !key.is_empty() && !key.starts_with('"') && !key.contains(is_unsafe) {
        return Cow::Borrowed(key);
    }
    // A string is always JSON.
    Cow::Owned(safe_json(serde_json::to_string(key).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_takes_for_commands_is_escaped() {
        assert_eq!(escaped("größer \\ \"x\""), "größer \\ \"x\"");
        assert_eq!(escaped("a\x1b[2J\nb\u{9b}1m\u{202e}\x7f\t"), r"a\u{1b}[2J\nb\u{9b}1m\u{202e}\u{7f}\t");
        assert_eq!(escaped_but("a\tb\nc\x07", &['\n', '\t']), "a\tb\nc\\u{7}");
    }

    #[test]
    fn a_key_is_a_line_from_which_it_can_be_read_back() {
        for plain in ["key", "größer", "a b", "with\"quotes\"", "back\\slash", " "] {
            assert_eq!(key_line(plain), plain);
        }
        for odd in ["", "\"", "\"quoted\"", "two\nlines", "\x1b]0;title\x07", "\u{9b}2J", "\u{2028}", "\\\n"] {
            let line = key_line(odd);
            assert!(line.starts_with('"') && !line.contains(is_unsafe), "{line}");
            assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), odd);
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        let text = "\u{9b}\x7f\u{2029}\n\u{1b}\"\\";
        let json = safe_json(serde_json::to_string_pretty(&[text]).expect("JSON"));
        assert!(json.contains("\\u009b\\u007f\\u2029"), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).expect("JSON"), [text]);
    }
}
