//! Copies and atomic operations on shared bytes that return, instead of killing the process, when a page
//! is gone.
//!
//! # The contract
//!
//! ```text
//! copy(dst, src, len, lo, hi) -> usize      bytes NOT copied; faults at addresses in lo..hi are caught
//! fill(dst, byte, len, lo, hi) -> usize     bytes NOT filled
//! load8..load64(src) -> Fetched             value, and whether it faulted
//! store8..store64(dst, value) -> bool       true: it faulted
//! swap, add, compare_exchange, per width    -> Fetched (the old value)
//! arm() -> Result<()>                       makes faults be caught in this process; cheap when they are already
//! ```
//!
//! A copy is per-byte relaxed atomics in no fixed order; the bytes before the first that faults are copied, and the
//! count is exact. Atomic operations are sequentially consistent. Loads do not write: they work on read-only views.
