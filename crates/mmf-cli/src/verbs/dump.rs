//! `mmf dump`.

use std::fmt::Write as _;

use super::contents::Contents;
use crate::cli::DumpArgs;
use crate::failure::Result;
use crate::output::print;

/// Bytes in a line, as in `hexdump -C`.
const LINE: usize = 16;

/// Text that is worth a system call.
const ENOUGH: usize = 1 << 16;

pub(crate) fn run(args: DumpArgs) -> Result<()> {
    let contents = Contents::open(&args.object, &args.reach, &args.range)?;
    let (mut got, end) = contents.range();
    let mut page = Page::default();
    let shown = contents.for_chunks(|at, bytes| {
        got = at + bytes.len();
        for (i, line) in bytes.chunks(LINE).enumerate() {
            page.line(at + i * LINE, line);
            if page.text.len() >= ENOUGH {
                print(&page.text)?;
                page.text.clear();
            }
        }
        Ok(())
    });
    if got == end {
        page.offset(end);
        page.text.push('\n');
    }
    print(&page.text).and(shown)
}

/// Lines, of which those that repeat are left out.
#[derive(Default)]
struct Page {
    text: String,
    last: Option<[u8; LINE]>,
    starred: bool,
}

impl Page {
    fn line(&mut self, at: usize, bytes: &[u8]) {
        let full: Option<[u8; LINE]> = bytes.try_into().ok();
        if full.is_some() && full == self.last {
            if !self.starred {
                self.text.push_str("*\n");
                self.starred = true;
            }
            return;
        }
        (self.last, self.starred) = (full, false);
        self.offset(at);
        for i in 0..LINE {
            if i % (LINE / 2) == 0 {
                self.text.push(' ');
            }
            match bytes.get(i) {
                // Writing to a string cannot fail.
                Some(byte) => drop(write!(self.text, " {byte:02x}")),
                None => self.text.push_str("   "),
            }
        }
        self.text.push_str("  |");
        self.text.extend(bytes.iter().map(|&byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '.' }));
        self.text.push_str("|\n");
    }

    fn offset(&mut self, at: usize) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{at:08x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_those_of_hexdump() {
        let mut page = Page::default();
        for i in 0..4 {
            page.line(i * LINE, &[0; LINE]);
        }
        page.line(4 * LINE, b"Hello, \x7fworld~\xff\n");
        page.line(5 * LINE, b"end");
        let expected = "\
00000000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
*
00000040  48 65 6c 6c 6f 2c 20 7f  77 6f 72 6c 64 7e ff 0a  |Hello, .world~..|
00000050  65 6e 64                                          |end|
";
        assert_eq!(page.text, expected);
    }
}
