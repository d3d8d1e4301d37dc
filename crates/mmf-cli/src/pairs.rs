//! The operations of a mapping beside what they would be without guard and checks.

use std::hint::black_box;
use std::io;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use mmf::{ErrorKind, Mapping};

use crate::measure::{Pair, Plan, alone, pairs, repeated};

/// A run of bytes of a mapping and one of a buffer, as far from the start of a page as wanted.
pub struct Copy<'a> {
    pub map: &'a Mapping,
    pub buffer: &'a mut [u8],
    /// Where it begins in the mapping.
    pub at: usize,
    /// Where it begins in the buffer.
    pub from: usize,
    pub len: usize,
}

impl Copy<'_> {
    /// `read_at` beside the copy that the compiler knows.
    pub fn read(self, plan: Plan) -> io::Result<Pair> {
        let Copy { map, buffer, at, from, len } = self;
        // Checked here, once, for the pointers below.
        map.read_at(at, &mut buffer[from..from + len])?;
        let (start, room) = (map.as_ptr(), buffer.as_mut_ptr());
        let ours = repeated(|| {
            let _ = black_box(map.read_at(black_box(at), &mut buffer[from..from + black_box(len)]));
        });
        let theirs = repeated(|| {
            let (at, len) = (black_box(at), black_box(len));
            // SAFETY: `at` lies in the mapping, as the first read has shown.
            let source = unsafe { start.add(at) };
            // SAFETY: `from` lies in the buffer, which was sliced there.
            let target = unsafe { room.add(from) };
            // SAFETY: both hold `len` bytes, for the same reasons, and are different memory. No
            // other thread or process uses the mapping or the buffer meanwhile.
            unsafe { ptr::copy_nonoverlapping(source, target, len) };
            black_box(target);
        });
        Ok(pairs(plan, ours, theirs))
    }

    /// `write_at` beside the copy that the compiler knows.
    pub fn write(self, plan: Plan) -> io::Result<Pair> {
        let Copy { map, buffer, at, from, len } = self;
        // Checked here, once, for the pointers below.
        map.write_at(at, &buffer[from..from + len])?;
        let (start, bytes) = (map.as_mut_ptr()?, buffer.as_ptr());
        let ours = repeated(|| {
            let _ = black_box(map.write_at(black_box(at), &buffer[from..from + black_box(len)]));
        });
        let theirs = repeated(|| {
            let (at, len) = (black_box(at), black_box(len));
            // SAFETY: `at` lies in the mapping, as the first write has shown.
            let target = unsafe { start.add(at) };
            // SAFETY: `from` lies in the buffer, which was sliced there.
            let source = unsafe { bytes.add(from) };
            // SAFETY: both hold `len` bytes, for the same reasons, and are different memory. No
            // other thread or process uses the mapping.
            unsafe { ptr::copy_nonoverlapping(source, target, len) };
            black_box(target);
        });
        Ok(pairs(plan, ours, theirs))
    }
}

/// The first word of a mapping, as the compiler's atomic.
fn first_word(map: &Mapping) -> io::Result<&AtomicU64> {
    map.load::<u64>(0, Ordering::Relaxed)?;
    #[allow(clippy::cast_ptr_alignment, reason = "the load above is refused where it is not aligned")]
    let word = map.as_mut_ptr()?.cast::<AtomicU64>();
    // SAFETY: the load has shown that there is an aligned word, which lives as long as the borrow
    // of the mapping; a word that is only used atomically may be shared.
    Ok(unsafe { &*word })
}

/// `load` beside that of the standard library.
pub fn load(plan: Plan, map: &Mapping) -> io::Result<Pair> {
    let word = first_word(map)?;
    let ours = repeated(|| {
        let _ = black_box(map.load::<u64>(black_box(0), Ordering::Acquire));
    });
    let theirs = repeated(|| {
        black_box(black_box(word).load(Ordering::Acquire));
    });
    Ok(pairs(plan, ours, theirs))
}

/// `fetch_add` beside that of the standard library.
pub fn fetch_add(plan: Plan, map: &Mapping) -> io::Result<Pair> {
    let word = first_word(map)?;
    let ours = repeated(|| {
        let _ = black_box(map.fetch_add(black_box(0), 1_u64, Ordering::AcqRel));
    });
    let theirs = repeated(|| {
        black_box(black_box(word).fetch_add(1, Ordering::AcqRel));
    });
    Ok(pairs(plan, ours, theirs))
}

/// To read a page that its file no longer has and get the error, in nanoseconds. Fails on a system
/// that does not let a file become shorter while it is mapped.
pub fn fault(plan: Plan) -> io::Result<f64> {
    let file = Scratch(std::env::temp_dir().join(format!("mmf-bench-{}", std::process::id())));
    let map = Mapping::create_new(&file.0, 4096)?;
    std::fs::OpenOptions::new().write(true).open(&file.0)?.set_len(0)?;
    let mut byte = [0];
    match map.read_at(0, &mut byte) {
        Err(error) if matches!(error.kind(), ErrorKind::Fault { .. }) => {}
        other => return Err(io::Error::other(format!("reading a page that is gone gave {other:?}"))),
    }
    Ok(alone(
        plan,
        repeated(|| {
            let _ = black_box(map.read_at(black_box(0), &mut byte));
        }),
    ))
}

/// A file that is removed again.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
