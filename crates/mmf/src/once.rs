//! Process-wide values that are computed at their first use, without a lock.
//!
//! [`OnceLock`](std::sync::OnceLock) blocks other threads while one thread computes. A child that
//! is forked at that moment inherits the blocked state without the thread, so its first use blocks
//! without end.
//!
//! Here, each thread that finds no value computes one. The first thread to store its value wins,
//! and the other threads drop theirs.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value for statics, which exists from its first use on and is never freed.
pub(crate) struct ProcessOnce<T>(AtomicPtr<T>);

impl<T: Send + Sync> ProcessOnce<T> {
    pub(crate) const fn new() -> ProcessOnce<T> {
        ProcessOnce(AtomicPtr::new(ptr::null_mut()))
    }

    /// Returns the value, and computes it if there is none. It may be computed more than once.
    #[inline]
    pub(crate) fn get_or_init(&'static self, init: impl FnOnce() -> T) -> &'static T {
        match self.get() {
            Some(value) => value,
            None => self.publish(init()),
        }
    }

    #[inline]
    pub(crate) fn get(&'static self) -> Option<&'static T> {
        // SAFETY: the pointer is null, or `publish` stored it before (`Release`). No code changes
        // or frees the value.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Stores a value if there is none, and returns the stored one.
    #[cold]
    pub(crate) fn publish(&'static self, value: T) -> &'static T {
        let new = Box::into_raw(Box::new(value));
        match self.0.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: this call just stored it, and it is never freed.
            Ok(_) => unsafe { &*new },
            Err(first) => {
                // SAFETY: this call allocated it, and no other thread has seen it.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: the pointer is not null, so another call stored it.
                unsafe { &*first }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_get_the_value_that_was_stored_first() {
        static VALUE: ProcessOnce<u64> = ProcessOnce::new();
        let found: Vec<u64> = std::thread::scope(|threads| {
            let threads: Vec<_> = (0..8).map(|n| threads.spawn(move || *VALUE.get_or_init(|| n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(found.iter().all(|value| *value == found[0]), "{found:?}");
        assert_eq!(VALUE.get(), Some(&found[0]));
    }
}
