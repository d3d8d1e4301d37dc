//! Calls of the routines on `x86_64`, and the selection of their code paths.
//!
//! All routines are leaf functions without a stack frame. An `asm!` block that names the few
//! registers they change calls them. Windows callers therefore need not save `xmm6` to `xmm15`, as
//! they must around each call of an `extern "sysv64"` function. The routines change only `ymm0` to
//! `ymm5` and `ymm16` to `ymm19`. The exception is `vzeroupper`, which clears the upper half of
//! every register up to `ymm15`: see `call_long`.
//!
//! The fast part of a copy keeps `rdi`, `rsi` and `rdx`, so that the fix-up can restart from the
//! first byte with `rep movsb`. After a fault, the registers of `rep movsb` give exactly the bytes
//! left. `r8` and `r9` hold `lo` and `hi`, which the handler reads.

use std::arch::asm;
use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__cpuid, __cpuid_count, _MM_HINT_T0, _mm_prefetch};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::once::ProcessOnce;
use crate::sys::guard::{Fault, Matches};

mod asm;
mod multi_word;

/// The values by which the routines select a code path. The assembly text contains the offsets of
/// these fields.
#[repr(C)]
struct Tuning {
    /// 0: SSE2. 1: AVX2. 2: AVX-512 with the registers from 16 on, which need no `vzeroupper`.
    /// Vectors of 64 bytes gain nothing: Zen 4 splits them, and other processors lower their clock.
    vectors: AtomicU32,
    /// The length in bytes from which copies use non-temporal stores.
    stream_from: AtomicUsize,
    /// The length in bytes from which a fill is one `rep stosb`.
    fill_rep_from: AtomicUsize,
}

const _: () = assert!(std::mem::offset_of!(Tuning, stream_from) == 8);
const _: () = assert!(std::mem::offset_of!(Tuning, fill_rep_from) == 16);

static TUNING: Tuning = Tuning {
    vectors: AtomicU32::new(0),
    stream_from: AtomicUsize::new(usize::MAX),
    fill_rep_from: AtomicUsize::new(usize::MAX),
};

/// Selects code paths by the features of the processor. Any mixture of old and new values is a
/// correct selection.
pub(super) fn tune() {
    static CHOICE: ProcessOnce<(u32, usize)> = ProcessOnce::new();
    let &(vectors, cache) = CHOICE.get_or_init(|| {
        let wide = is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512bw");
        let vectors = if wide { 2 } else { u32::from(is_x86_feature_detected!("avx2")) };
        (vectors, largest_cache())
    });
    // Below this length, the destination may still be in the cache when the program reads it.
    let beyond_the_cache = cache / 4 * 3;
    TUNING.vectors.store(vectors, Ordering::Relaxed);
    TUNING.stream_from.store(beyond_the_cache, Ordering::Relaxed);
    TUNING.fill_rep_from.store(beyond_the_cache, Ordering::Relaxed);
}

/// Returns the size in bytes of the largest cache that `CPUID` reports (leaf 4 of Intel's
/// processors, leaf 0x8000001D of AMD's, in one format). Returns a default if the reported size is
/// below 1 MiB.
#[allow(unused_unsafe, reason = "newer compilers call the instruction safe")]
fn largest_cache() -> usize {
    const USUAL: usize = 32 << 20;
    // SAFETY: every 64-bit x86 processor has the instruction.
    let extended = unsafe { __cpuid(0x8000_0000) }.eax;
    let mut largest = 0;
    for leaf in [4, 0x8000_001d] {
        if leaf > 4 && extended < leaf {
            continue;
        }
        for index in 0..8 {
            // SAFETY: every 64-bit x86 processor has the instruction.
            let cache = unsafe { __cpuid_count(leaf, index) };
            if cache.eax & 0x1f == 0 {
                break;
            }
            let (ways, parts, line) = (cache.ebx >> 22, (cache.ebx >> 12) & 0x3ff, cache.ebx & 0xfff);
            let size =
                [ways, parts, line, cache.ecx].into_iter().map(|less_one| u64::from(less_one) + 1).product::<u64>();
            largest = largest.max(size);
        }
    }
    match usize::try_from(largest) {
        Ok(size) if size >= 1 << 20 => size,
        _ => USUAL,
    }
}

unsafe extern "C" {
    fn mmf_0_1_guard_copy();
    fn mmf_0_1_guard_fill();
    fn mmf_0_1_guard_words();
    fn mmf_0_1_guard_pairs();
    fn mmf_0_1_guard_four();
    fn mmf_0_1_guard_eight();
    fn mmf_0_1_guard_between();
}

/// Calls a routine that may end in `vzeroupper`.
///
/// A caller that was compiled for AVX may hold whole vectors in any register, so the block names
/// all of them as changed. On Windows that would save the lower halves of `xmm6` to `xmm15`, which
/// the routines do not change. There, the functions that use this macro are never inlined, and the
/// calling convention has the needed rule: a callee keeps the lower halves, and may change the
/// upper halves.
macro_rules! call_long {
    ($($operands:tt)*) => {{
        #[cfg(windows)]
        asm!("call {routine}", $($operands)*);
        #[cfg(not(windows))]
        asm!(
            "call {routine}",
            $($operands)*
            out("xmm4") _,
            out("xmm5") _,
            out("xmm6") _,
            out("xmm7") _,
            out("xmm8") _,
            out("xmm9") _,
            out("xmm10") _,
            out("xmm11") _,
            out("xmm12") _,
            out("xmm13") _,
            out("xmm14") _,
            out("xmm15") _,
        );
    }};
}

/// See [`copy`](crate::sys::guard::copy).
///
/// # Safety
///
/// The conditions of that function hold.
#[cfg_attr(not(windows), inline)]
#[cfg_attr(windows, inline(never))]
pub(in crate::sys::guard) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize, lo: usize, hi: usize) -> usize {
    let left;
    // SAFETY: the routine reads `len` bytes at `src` and writes `len` bytes at `dst`, which the
    // caller allows. The routine and its fix-ups change only the registers named here, and leave
    // the stack alone.
    unsafe {
        call_long!(
            routine = sym mmf_0_1_guard_copy,
            inout("rdi") dst => _,
            inout("rsi") src => _,
            in("rdx") len,
            in("r8") lo,
            in("r9") hi,
            out("rax") left,
            out("rcx") _,
            out("r10") _,
            out("r11") _,
            out("xmm0") _,
            out("xmm1") _,
            out("xmm2") _,
            out("xmm3") _,
            out("xmm16") _,
            out("xmm17") _,
            out("xmm18") _,
            out("xmm19") _,
        );
    }
    left
}

/// See [`fill`](crate::sys::guard::fill).
///
/// # Safety
///
/// The conditions of that function hold.
#[cfg_attr(not(windows), inline)]
#[cfg_attr(windows, inline(never))]
pub(in crate::sys::guard) unsafe fn fill(dst: *mut u8, byte: u8, len: usize, lo: usize, hi: usize) -> usize {
    let left;
    // SAFETY: the routine writes `len` bytes at `dst`, which the caller allows, and reads no
    // memory. The routine and its fix-ups change only the registers named here, and leave the stack
    // alone.
    unsafe {
        call_long!(
            routine = sym mmf_0_1_guard_fill,
            inout("rdi") dst => _,
            in("rsi") u64::from(byte),
            in("rdx") len,
            in("r8") lo,
            in("r9") hi,
            out("rax") left,
            out("rcx") _,
            out("r10") _,
            out("r11") _,
            out("xmm0") _,
            out("xmm1") _,
            out("xmm2") _,
            out("xmm3") _,
            out("xmm16") _,
        );
    }
    left
}

/// See [`store_words`](crate::sys::guard::store_words).
///
/// # Safety
///
/// The conditions of that function hold.
#[inline]
pub(in crate::sys::guard) unsafe fn store_words(dst: *mut u8, words: &[u64]) -> Result<(), Fault> {
    let words = words.as_ptr_range();
    let fault: u64;
    // SAFETY: the routine reads the words and writes as many at `dst`, which the caller allows. It
    // changes only the registers named here and leaves the stack alone.
    unsafe {
        asm!(
            "call {routine}",
            routine = sym mmf_0_1_guard_words,
            inout("rdi") dst => _,
            inout("rsi") words.start => _,
            inout("rdx") words.end => fault,
            out("rax") _,
        );
    }
    if fault == 0 { Ok(()) } else { Err(Fault) }
}

/// See [`store_pairs`](crate::sys::guard::store_pairs).
///
/// # Safety
///
/// The conditions of that function hold.
#[inline]
pub(in crate::sys::guard) unsafe fn store_pairs(base: *mut u8, last: u64, pairs: &[[u64; 2]]) -> Result<usize, Fault> {
    let all = pairs.as_ptr_range();
    let (reached, fault): (*const [u64; 2], u64);
    // SAFETY: the routine reads the pairs and writes one word for each, at offsets up to `last`,
    // which the caller allows. It changes only the registers named here and leaves the stack alone.
    unsafe {
        asm!(
            "call {routine}",
            routine = sym mmf_0_1_guard_pairs,
            in("rdi") base,
            inout("rsi") all.start => reached,
            inout("rdx") all.end => fault,
            inout("rcx") last => _,
            out("rax") _,
            out("r8") _,
        );
    }
    if fault == 0 { Ok((reached.addr() - all.start.addr()) / size_of::<[u64; 2]>()) } else { Err(Fault) }
}

/// See [`load_four`](crate::sys::guard::load_four).
///
/// # Safety
///
/// The conditions of that function hold.
#[inline]
pub(in crate::sys::guard) unsafe fn load_four(src: *const u8) -> Result<[u64; 4], Fault> {
    let (first, second, third, fourth, fault): (u64, u64, u64, u64, u64);
    // SAFETY: the routine loads the four words, which the caller allows. It changes only the
    // registers named here and leaves the stack alone.
    unsafe {
        asm!(
            "call {routine}",
            routine = sym mmf_0_1_guard_four,
            in("rdi") src,
            out("rax") first,
            out("rcx") second,
            out("rsi") third,
            out("r8") fourth,
            out("rdx") fault,
        );
    }
    if fault == 0 { Ok([first, second, third, fourth]) } else { Err(Fault) }
}

/// See [`match_eight`](crate::sys::guard::match_eight). The processor loads a vector of 16 bytes in
/// one access or in two halves, so each word is whole (Intel's manual, volume 3, section 10.1.1).
/// The routine still loads the returned word separately.
///
/// # Safety
///
/// The conditions of that function hold.
#[inline(always)]
pub(in crate::sys::guard) unsafe fn match_eight(src: *const u8, mask: u32, wanted: u32) -> Result<Matches, Fault> {
    let (bits, word, fault): (u64, u64, u64);
    // SAFETY: the routine loads the eight words, which the caller allows. It changes only the
    // registers named here and leaves the stack alone.
    unsafe {
        asm!(
            "call {routine}",
            routine = sym mmf_0_1_guard_eight,
            in("rdi") src,
            in("esi") mask,
            inout("rdx") u64::from(wanted) => fault,
            out("rax") bits,
            out("rcx") word,
            out("xmm0") _,
            out("xmm1") _,
            out("xmm2") _,
            out("xmm3") _,
        );
    }
    if fault == 0 { Ok(Matches { bits, word }) } else { Err(Fault) }
}

/// See [`copy_validated`](crate::sys::guard::copy_validated). This processor performs loads in
/// program order (Intel's manual, volume 3, section 10.2.2; AMD's, volume 2, section 7.2). The
/// program order of the routine is therefore sufficient, without fences.
///
/// # Safety
///
/// The conditions of that function hold.
#[inline(always)]
pub(in crate::sys::guard) unsafe fn copy_validated(
    (first, expected): (*const u64, u64),
    second: *const u64,
    src: *const u64,
    key: &[u8],
    to: *mut [u8],
) -> Result<Option<[u64; 4]>, Fault> {
    let (word, one, two, three, outcome): (u64, u64, u64, u64, u64);
    // SAFETY: the routine loads the five words, reads the bytes after the three words for the
    // lengths of the key and of `to`, and writes to `to`. The caller allows all of these accesses.
    // The routine changes only the registers named here and leaves the stack alone.
    unsafe {
        asm!(
            "call {routine}",
            routine = sym mmf_0_1_guard_between,
            in("rdi") first,
            inout("rax") expected => _,
            in("rsi") second,
            inout("rdx") src => outcome,
            inout("rcx") key.as_ptr() => one,
            inout("r8") key.len() => two,
            inout("r9") to.cast::<u8>() => three,
            inout("r10") to.len() => _,
            out("r11") word,
            out("xmm0") _,
            out("xmm1") _,
            out("xmm2") _,
            out("xmm3") _,
            out("xmm4") _,
            out("xmm5") _,
        );
    }
    match outcome {
        0 => Ok(Some([word, one, two, three])),
        2 => Ok(None),
        _ => Err(Fault),
    }
}

/// See [`prefetch`](crate::sys::guard::prefetch).
#[inline(always)]
#[allow(unused_unsafe, reason = "newer compilers call it safe")]
pub(in crate::sys::guard) fn prefetch(at: *const u8) {
    // SAFETY: the instruction never faults, whatever its address is (Intel's manual, volume 2,
    // `PREFETCHh`).
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// Calls an atomic routine with a word's address and two operands. Returns a `Fetched`.
macro_rules! call {
    ($routine:path, $word:expr, $a:expr, $b:expr) => {{
        let (word, a, b): (*mut u8, u64, u64) = ($word, $a, $b);
        let (value, fault): (u64, u64);
        // SAFETY: the routine accesses only the one word, which the caller allows. It changes only
        // the registers named here and leaves the stack alone.
        unsafe {
            std::arch::asm!(
                "call {routine}",
                routine = sym $routine,
                in("rdi") word,
                in("rsi") a,
                inout("rdx") b => fault,
                out("rax") value,
            );
        }
        $crate::sys::guard::trap::Fetched { value, fault }
    }};
}
pub(super) use call;

/// Runs `check` once for each code path that the routines have on this processor.
#[cfg(test)]
pub(in crate::sys::guard) fn every_way(check: &mut dyn FnMut()) {
    tune();
    let best = TUNING.vectors.load(Ordering::Relaxed);
    // First loops only; then non-temporal stores and `rep` from the smallest possible length.
    for from in [usize::MAX, 300] {
        for vectors in 0..=best {
            TUNING.vectors.store(vectors, Ordering::Relaxed);
            TUNING.stream_from.store(from, Ordering::Relaxed);
            TUNING.fill_rep_from.store(from, Ordering::Relaxed);
            check();
        }
    }
    tune();
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::{__m256i, _mm256_add_epi64, _mm256_loadu_si256, _mm256_storeu_si256};
    use std::ptr;

    use super::*;

    /// Sums vectors before and after `work`, as a caller compiled for AVX2 that keeps them in
    /// registers. The sum is right only if the routines keep the upper halves of the vectors. An
    /// unoptimised build keeps no vectors in registers.
    ///
    /// # Safety
    ///
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    #[allow(unused_unsafe, reason = "newer compilers let such a function call such intrinsics")]
    unsafe fn sum_around(work: impl Fn(), numbers: &[[u64; 4]; 16]) -> [u64; 4] {
        // SAFETY: each array has 32 bytes, and the load accepts any alignment.
        let vectors: [__m256i; 16] =
            std::array::from_fn(|at| unsafe { _mm256_loadu_si256(numbers[at].as_ptr().cast()) });
        work();
        let mut sum = vectors[0];
        for vector in &vectors[1..] {
            // SAFETY: this function is compiled for AVX2.
            sum = unsafe { _mm256_add_epi64(sum, *vector) };
        }
        let mut out = [0; 4];
        // SAFETY: `out` has 32 bytes, and the store accepts any alignment.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) };
        out
    }

    #[test]
    fn a_callers_vectors_outlive_the_routines() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        let numbers: [[u64; 4]; 16] = std::array::from_fn(|at| [at as u64 + 1; 4]);
        let (source, mut target) = ([7_u8; 500], [0_u8; 500]);
        let target = ptr::from_mut(&mut target).cast::<u8>();
        every_way(&mut || {
            // SAFETY: both arrays have 500 bytes.
            let copied = || assert_eq!(unsafe { copy(target, source.as_ptr(), 500, usize::MAX, 0) }, 0);
            // SAFETY: the target has 500 bytes.
            let filled = || assert_eq!(unsafe { fill(target, 1, 500, usize::MAX, 0) }, 0);
            // SAFETY: the processor has AVX2.
            assert_eq!(unsafe { sum_around(copied, &numbers) }, [136; 4]);
            // SAFETY: the processor has AVX2.
            assert_eq!(unsafe { sum_around(filled, &numbers) }, [136; 4]);
        });
    }
}
