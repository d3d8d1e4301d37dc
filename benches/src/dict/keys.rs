//! Keys of 16 bytes, in an order that no cache foresees.

use std::cell::Cell;

pub(super) const LEN: usize = 16;

/// So many keys, gone through again and again.
pub(super) struct Keys {
    /// One behind the other, so that fetching a key costs next to nothing.
    text: String,
    at: Cell<usize>,
}

impl Keys {
    /// Shuffled.
    pub(super) fn new(count: usize) -> Keys {
        let mut order: Vec<usize> = (0..count).collect();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for nth in (1..count).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            order.swap(nth, usize::try_from(state % (nth as u64 + 1)).unwrap_or(0));
        }
        let text = order.into_iter().map(name).collect();
        Keys { text, at: Cell::new(0) }
    }

    pub(super) fn next(&self) -> &str {
        let at = self.at.get();
        let end = at + LEN;
        self.at.set(if end == self.text.len() { 0 } else { end });
        &self.text[at..end]
    }
}

/// A key by its number. They are put in by their numbers, and so lie in another order than they are asked for.
pub(super) fn name(nth: usize) -> String {
    format!("{:016x}", (nth as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
