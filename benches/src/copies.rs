//! Guarded copies beside those that the compiler knows, between the same two buffers.

use std::io;

use mmf::Mapping;
use mmf_cli::measure::{Pair, rate, size};
use mmf_cli::pairs::Copy;

use crate::Effort;
use crate::report::{Row, Table};

const SIZES: [usize; 15] =
    [8, 16, 32, 64, 128, 256, 512, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 16 << 20, 256 << 20];

/// Where the copy begins: in the mapping, and in the buffer.
const PLACES: [(usize, usize, &str); 4] =
    [(0, 0, "aligned"), (1, 0, "mapping + 1"), (0, 3, "buffer + 3"), (4096 - 5, 31, "mapping - 5, buffer + 31")];

/// Copies up to here are a matter of nanoseconds, not of speed.
const SMALL: usize = 64;

/// Copies up to here take about a millisecond at most.
const SHORT: usize = 16 << 20;

pub(crate) fn run(effort: Effort) -> io::Result<Vec<Table>> {
    let room = effort.largest + 8192;
    let map = Mapping::options().size(room as u64).prefault(true).anonymous()?;
    let mut memory = vec![1; room + 4096];
    // A copy's speed depends on where the two begin, by the page.
    let skip = memory.as_ptr().align_offset(4096);
    let buffer = &mut memory[skip..];
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for len in SIZES.into_iter().filter(|len| *len <= effort.largest) {
        let plan = if len <= SHORT { effort.plan } else { effort.long_plan() };
        for (at, from, place) in PLACES {
            let what = format!("{}, {place}", size(len));
            let read = Copy { map: &map, buffer, at, from, len }.read(plan)?;
            reads.push(row(&what, len, read));
            let write = Copy { map: &map, buffer, at, from, len }.write(plan)?;
            writes.push(row(&what, len, write));
        }
    }
    let other = "`ptr::copy_nonoverlapping`";
    Ok(vec![
        Table { title: "`read_at`", other, rows: reads, notes: NOTES },
        Table { title: "`write_at`", other, rows: writes, notes: NOTES },
    ])
}

fn row(what: &str, len: usize, pair: Pair) -> Row {
    if len <= SMALL {
        return Row::more(what, pair).target("at most 1.5 ns more", pair.more <= 1.5);
    }
    let row = Row::speed(what, pair).target("at least 0.95 x", pair.speed >= 0.95);
    Row { ours: rate(len, pair.ours), theirs: rate(len, pair.theirs), ..row }
}

const NOTES: &str = "The other side copies between the same two buffers, a shared mapping and private memory, with\n\
    lengths that the compiler cannot see. It checks no bounds, and the process dies if a page is gone.";
