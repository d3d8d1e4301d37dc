//! Keeps this library's code loaded once the system holds the address of a function of it.
//!
//! A signal handler and fork handlers stay registered to the end of the process. A program may load
//! a library that contains this code and unload it again with `dlclose(3)`. The next signal would
//! then jump to unmapped memory. So the first registration takes one more reference to the library,
//! which is never given back.

use std::sync::atomic::{AtomicBool, Ordering};

/// Keeps the library that contains this function loaded. Nothing happens where that is the program
/// itself.
pub(crate) fn keep_loaded() {
    static KEPT: AtomicBool = AtomicBool::new(false);
    // Two threads may both do it: one reference more changes nothing.
    if !KEPT.load(Ordering::Relaxed) {
        imp::keep_loaded();
        KEPT.store(true, Ordering::Relaxed);
    }
}

#[cfg(not(target_feature = "crt-static"))]
mod imp {
    use std::ffi::{c_int, c_void};
    use std::mem::MaybeUninit;

    /// Take a reference to what is loaded, load nothing, and never unload it.
    #[cfg(any(linux_like, apple, bsd))]
    const FLAGS: c_int = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    /// A reference alone does, too.
    #[cfg(not(any(linux_like, apple, bsd)))]
    const FLAGS: c_int = libc::RTLD_LAZY;

    pub(super) fn keep_loaded() {
        let here = (super::keep_loaded as *const ()).cast::<c_void>();
        let Some(library) = object_at(here) else { return };
        if main_program().and_then(object_at).is_some_and(|program| program.dli_fbase == library.dli_fbase) {
            return;
        }
        // Where it fails, the file is the program's own: what is loaded by `dlopen` is found by the
        // name that it was loaded by.
        // SAFETY: the loader's own string, which lives as long as the library, and so while this
        // code runs. The flags have the loader run no code.
        unsafe { libc::dlopen(library.dli_fname, FLAGS) };
    }

    /// The library or program that has this address (`dladdr(3)`).
    fn object_at(address: *const c_void) -> Option<libc::Dl_info> {
        let mut info = MaybeUninit::<libc::Dl_info>::uninit();
        // SAFETY: any address may be asked for, and there is room for the answer.
        let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) } != 0;
        // SAFETY: the call succeeded, so it has written all fields.
        let info = found.then(|| unsafe { info.assume_init() })?;
        (!info.dli_fname.is_null()).then_some(info)
    }

    /// An address in the program itself: the kernel tells where its program headers are
    /// (`getauxval(3)`).
    #[cfg(linux_like)]
    fn main_program() -> Option<*const c_void> {
        // SAFETY: takes a number only.
        let headers = unsafe { libc::getauxval(libc::AT_PHDR) };
        let headers = usize::try_from(headers).ok().filter(|headers| *headers != 0)?;
        Some(std::ptr::with_exposed_provenance(headers))
    }
    #[cfg(not(linux_like))]
    fn main_program() -> Option<*const c_void> {
        None
    }
}

/// A program that is linked statically loads no libraries.
#[cfg(target_feature = "crt-static")]
mod imp {
    pub(super) fn keep_loaded() {}
}
