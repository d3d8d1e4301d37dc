//! Chunks in a mapping, handed over by two counters.

use std::hint::spin_loop;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mmf::Mapping;

/// How many chunks the producer has published.
const HEAD: usize = 0;
/// How many chunks the consumer has done with. Far enough that no processor fetches both counters at once.
const TAIL: usize = 256;
/// Where the chunks begin.
pub(crate) const DATA: usize = 4096;

/// How long the peer may take for a chunk before something is wrong.
const LIMIT: Duration = Duration::from_secs(10);

/// A ring of chunks. As many slots as chunks make it the object itself, in which nothing is overwritten.
pub(crate) struct Ring<'a> {
    pub(crate) map: &'a Mapping,
    pub(crate) chunk: usize,
    pub(crate) slots: usize,
}

impl Ring<'_> {
    /// Before the peer knows of the next transfer.
    pub(crate) fn reset(&self) -> io::Result<()> {
        self.map.store(HEAD, 0_u64, Ordering::Relaxed)?;
        Ok(self.map.store(TAIL, 0_u64, Ordering::Relaxed)?)
    }

    /// Where the chunk of this number lies in the mapping.
    pub(crate) fn place(&self, number: usize) -> usize {
        DATA + number % self.slots * self.chunk
    }

    /// Waits until the chunk's slot is free, has it filled, and publishes it.
    pub(crate) fn put(&self, number: usize, fill: impl FnOnce(usize) -> io::Result<()>) -> io::Result<()> {
        // Pairs with the consumer's release in `take`: it no longer looks at what lay here.
        self.wait(TAIL, (number + 1).saturating_sub(self.slots))?;
        fill(self.place(number))?;
        Ok(self.map.store(HEAD, number as u64 + 1, Ordering::Release)?)
    }

    /// Waits until the chunk is published, has it looked at, and frees its slot.
    pub(crate) fn take(&self, number: usize, look: impl FnOnce(usize) -> io::Result<()>) -> io::Result<()> {
        // Pairs with the producer's release in `put`: the chunk is complete.
        self.wait(HEAD, number + 1)?;
        look(self.place(number))?;
        Ok(self.map.store(TAIL, number as u64 + 1, Ordering::Release)?)
    }

    /// Until the counter is at least so large: awake at first, then leaving the core to others.
    fn wait(&self, counter: usize, least: usize) -> io::Result<()> {
        let mut began = None;
        let mut turns = 0_u32;
        while self.map.load::<u64>(counter, Ordering::Acquire)? < least as u64 {
            turns = turns.saturating_add(1);
            if turns < 20_000 {
                spin_loop();
                continue;
            }
            std::thread::yield_now();
            if began.get_or_insert_with(Instant::now).elapsed() > LIMIT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not go on"));
            }
        }
        Ok(())
    }
}

/// The bytes of a chunk in place, to look at.
///
/// # Safety
///
/// - `place` and `chunk` bytes from there lie in the mapping.
/// - No process writes to them while the slice lives.
pub(crate) unsafe fn in_place(map: &Mapping, place: usize, chunk: usize) -> &[u8] {
    // SAFETY: the caller says that it lies in the mapping.
    let start = unsafe { map.as_ptr().add(place) };
    // SAFETY: the caller says that `chunk` bytes do and that nobody writes; they live as long as the borrowed mapping.
    unsafe { std::slice::from_raw_parts(start, chunk) }
}

/// Makes the words `first`, `first + 1` and so on.
pub(crate) fn produce(chunk: &mut [u8], first: u64) {
    for (word, number) in chunk.chunks_exact_mut(8).zip(first..) {
        word.copy_from_slice(&number.to_le_bytes());
    }
}

/// As `produce`, by stores that pass by the caches: where the reader's core shares none with this one, lines that this one
/// has changed come slowly out of its caches.
#[cfg(target_arch = "x86_64")]
pub(crate) fn produce_past_caches(chunk: &mut [u8], first: u64) {
    use std::arch::x86_64::{_mm_sfence, _mm_stream_si64};
    for (word, number) in chunk.chunks_exact_mut(8).zip(first..) {
        // SAFETY: the word is eight writable bytes, and the instruction (`movnti`) needs no alignment.
        unsafe { _mm_stream_si64(word.as_mut_ptr().cast(), i64::from_ne_bytes(number.to_ne_bytes())) };
    }
    // What the ring publishes after this is ordered behind ordinary stores alone.
    // SAFETY: every processor of this architecture has it.
    unsafe { _mm_sfence() };
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn produce_past_caches(chunk: &mut [u8], first: u64) {
    produce(chunk, first);
}

/// The sum of all words: a full read.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    bytes.chunks_exact(8).fold(0, |sum: u64, bytes| {
        word.copy_from_slice(bytes);
        sum.wrapping_add(u64::from_le_bytes(word))
    })
}
