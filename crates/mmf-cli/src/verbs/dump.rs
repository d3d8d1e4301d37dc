//! `mmf dump`.

use std::fmt::Write as _;

use mmf::{Access, ErrorKind};

use super::{CHUNK, resolve};
use crate::cli::DumpArgs;
use crate::failure::Result;
use crate::output::print;

/// Bytes in a line, as in `hexdump -C`.
const LINE: usize = 16;

/// Text that is worth a system call.
const ENOUGH: usize = 1 << 16;

pub(crate) fn run(args: DumpArgs) -> Result<()> {
    let map = args.object.open(Access::ReadOnly, args.any_owner)?;
    let (from, end) = resolve(&args.range, &map, &args.object)?;
    let mut chunk = vec![0; CHUNK.min(end - from)];
    let mut page = Page::default();
    let mut at = from;
    while at < end {
        let part = &mut chunk[..CHUNK.min(end - at)];
        let result = map.read_at(at, part);
        let got = match result.as_ref().map_err(mmf::Error::kind) {
            Ok(()) => part.len(),
            Err(ErrorKind::Fault { done, .. }) => *done,
            Err(_) => 0,
        };
        for line in part[..got].chunks(LINE) {
            page.line(at, line);
            at += line.len();
            if page.text.len() >= ENOUGH {
                print(&page.text)?;
                page.text.clear();
            }
        }
        if let Err(error) = result {
            print(&page.text)?;
            return Err(error.into());
        }
    }
    page.end(at);
    print(&page.text)
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

    fn end(&mut self, at: usize) {
        self.offset(at);
        self.text.push('\n');
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
        page.end(5 * LINE + 3);
        let expected = "\
00000000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
*
00000040  48 65 6c 6c 6f 2c 20 7f  77 6f 72 6c 64 7e ff 0a  |Hello, .world~..|
00000050  65 6e 64                                          |end|
00000053
";
        assert_eq!(page.text, expected);
    }
}
