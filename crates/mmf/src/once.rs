//! Values of the whole process that are computed at their first use, without a lock.
//!
//! [`OnceLock`](std::sync::OnceLock) blocks other threads while one computes. A child that is
//! forked at that moment has the blocked state and not the thread, so its first use blocks for
//! ever. Here, each thread that finds no value computes one. The first to store its value wins; the
//! others drop theirs.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value that is there from its first use on, and never freed: for statics.
pub(crate) struct ProcessOnce<T>(AtomicPtr<T>);

impl<T: Send + Sync> ProcessOnce<T> {
    pub(crate) const fn new() -> ProcessOnce<T> {
        ProcessOnce(AtomicPtr::new(ptr::null_mut()))
    }

    /// Returns the value, computed now if there is none. It may be computed more than once.
    #[inline]
    pub(crate) fn get_or_init(&'static self, init: impl FnOnce() -> T) -> &'static T {
        match self.get() {
            Some(value) => value,
            None => self.publish(init()),
        }
    }

    #[inline]
    pub(crate) fn get(&'static self) -> Option<&'static T> {
        // SAFETY: null, or a value that `publish` stored before (`Release`), which nothing changes
        // or frees.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Stores a value where there is none, and returns the one that is there.
    #[cold]
    pub(crate) fn publish(&'static self, value: T) -> &'static T {
        let new = Box::into_raw(Box::new(value));
        match self.0.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: just stored, and never freed.
            Ok(_) => unsafe { &*new },
            Err(first) => {
                // SAFETY: made above, and no other thread has seen it.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: not null, so a value that another call stored.
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
