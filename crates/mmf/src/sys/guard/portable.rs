//! Unguarded copies and atomic operations by Rust's atomics, one byte at a time. Slow, but simple
//! to verify.

use std::sync::atomic::{AtomicU8, Ordering};

/// # Safety
///
/// The conditions of [`copy`](super::copy) hold, and no page is gone.
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize, _: usize, _: usize) -> usize {
    for at in 0..len {
        // SAFETY: the address is within the source that the caller's promise covers.
        let from = unsafe { src.add(at) };
        // SAFETY: the address is within the source, and a byte is always aligned.
        let byte = unsafe { AtomicU8::from_ptr(from.cast_mut()) }.load(Ordering::Relaxed);
        // SAFETY: the address is within the destination that the caller's promise covers.
        let to = unsafe { dst.add(at) };
        // SAFETY: the address is within the destination, and a byte is always aligned.
        unsafe { AtomicU8::from_ptr(to) }.store(byte, Ordering::Relaxed);
    }
    0
}

/// # Safety
///
/// The conditions of [`fill`](super::fill) hold, and no page is gone.
pub(super) unsafe fn fill(dst: *mut u8, byte: u8, len: usize, _: usize, _: usize) -> usize {
    for at in 0..len {
        // SAFETY: the address is within the destination that the caller's promise covers.
        let to = unsafe { dst.add(at) };
        // SAFETY: the address is within the destination, and a byte is always aligned.
        unsafe { AtomicU8::from_ptr(to) }.store(byte, Ordering::Relaxed);
    }
    0
}

#[cfg(not(test))]
mod words {
    use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

    use crate::error::{Error, Result};
    use crate::sys::guard::{Fault, Word};

    pub(in crate::sys::guard) fn arm() -> Result<()> {
        let what = format!("there are no routines for {} on {}", std::env::consts::ARCH, std::env::consts::OS);
        Err(Error::unsupported("catch faults", what)
            .with_help("use FaultPolicy::SystemCalls, or Unguarded if no other process can truncate the memory"))
    }

    macro_rules! word {
        ($word:ty, $atomic:ty) => {
            impl Word for $word {
                unsafe fn load(src: *const Self) -> Result<Self, Fault> {
                    // SAFETY: the caller's promise.
                    Ok(unsafe { <$atomic>::from_ptr(src.cast_mut()) }.load(Ordering::SeqCst))
                }
                unsafe fn store(dst: *mut Self, value: Self) -> Result<(), Fault> {
                    // SAFETY: the caller's promise.
                    unsafe { <$atomic>::from_ptr(dst) }.store(value, Ordering::SeqCst);
                    Ok(())
                }
                unsafe fn store_release(dst: *mut Self, value: Self) -> Result<(), Fault> {
                    // SAFETY: the caller's promise.
                    unsafe { <$atomic>::from_ptr(dst) }.store(value, Ordering::Release);
                    Ok(())
                }
                unsafe fn swap(dst: *mut Self, value: Self) -> Result<Self, Fault> {
                    // SAFETY: the caller's promise.
                    Ok(unsafe { <$atomic>::from_ptr(dst) }.swap(value, Ordering::SeqCst))
                }
                unsafe fn add(dst: *mut Self, value: Self) -> Result<Self, Fault> {
                    // SAFETY: the caller's promise.
                    Ok(unsafe { <$atomic>::from_ptr(dst) }.fetch_add(value, Ordering::SeqCst))
                }
                unsafe fn compare_exchange(dst: *mut Self, current: Self, new: Self) -> Result<Self, Fault> {
                    // SAFETY: the caller's promise.
                    let word = unsafe { <$atomic>::from_ptr(dst) };
                    let (Ok(old) | Err(old)) = word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst);
                    Ok(old)
                }
            }
        };
    }
    word!(u8, AtomicU8);
    word!(u16, AtomicU16);
    word!(u32, AtomicU32);
    word!(u64, AtomicU64);
}
#[cfg(not(test))]
pub(super) use super::multi_word::{store_pairs, store_words};
#[cfg(not(test))]
pub(super) use super::validated_read::{copy_validated, load_four, match_eight, prefetch};
#[cfg(not(test))]
pub(super) use words::arm;
