//! Waiting without Ruby's global lock, so that other threads run, and `Thread#raise`, `Timeout` and Ctrl-C get through.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use magnus::rb_sys::protect;
use magnus::{Error, Ruby};

/// Runs `body` without the global lock until it gives a value.
///
/// It must not touch Ruby, and give `None` soon after the flag was set, which means that somebody wants this thread's
/// attention. If that was no exception, it runs again.
///
/// # Errors
///
/// The exception that was raised in this thread meanwhile. What `body` gave is dropped then.
pub fn wait<R>(_ruby: &Ruby, mut body: impl FnMut(&AtomicBool) -> Option<R>) -> Result<R, Error> {
    loop {
        let cancel = AtomicBool::new(false);
        let mut given = None;
        let mut job = || given = Some(catch_unwind(AssertUnwindSafe(|| body(&cancel))));
        call(&mut job, &cancel);
        protect(|| {
            // SAFETY: this thread has the global lock again; `protect` catches what is raised.
            unsafe { rb_sys::rb_thread_check_ints() };
            rb_sys::Qnil.into()
        })?;
        match given {
            Some(Ok(Some(value))) => return Ok(value),
            Some(Err(panic)) => resume_unwind(panic),
            // Interrupted, by something that raised nothing.
            Some(Ok(None)) | None => {}
        }
    }
}

/// Runs `body` with the global lock, within what [`wait`] runs without it.
///
/// # Safety
///
/// This thread runs the `body` of a [`wait`], and no `locked` within that one has begun and not ended.
pub unsafe fn locked<R>(ruby: &Ruby, body: impl FnOnce(&Ruby) -> R) -> R {
    unsafe extern "C" fn run(job: *mut c_void) -> *mut c_void {
        // SAFETY: it is the pointer to `job` below, which lives until this returns and is used by nobody else.
        let job = unsafe { &mut *job.cast::<&mut dyn FnMut()>() };
        job();
        ptr::null_mut()
    }
    let mut body = Some(body);
    let mut given = None;
    let mut job = || given = body.take().map(|body| catch_unwind(AssertUnwindSafe(|| body(ruby))));
    let mut job: &mut dyn FnMut() = &mut job;
    // SAFETY: this thread is one of Ruby's that has released the lock, as the caller sees to; `run` does not unwind (the
    // job catches panics), and the pointer lives until the call returns.
    unsafe { rb_sys::rb_thread_call_with_gvl(Some(run), (&raw mut job).cast()) };
    match given {
        Some(Ok(value)) => value,
        Some(Err(panic)) => resume_unwind(panic),
        // Ruby calls it in every case.
        None => std::process::abort(),
    }
}

/// The form of `rb_thread_call_without_gvl` that neither raises nor calls the job where an interrupt is pending.
fn call(job: &mut dyn FnMut(), cancel: &AtomicBool) {
    unsafe extern "C" fn run(job: *mut c_void) -> *mut c_void {
        // SAFETY: it is the pointer to `job` below, which lives until this returns and is used by nobody else.
        let job = unsafe { &mut *job.cast::<&mut dyn FnMut()>() };
        job();
        ptr::null_mut()
    }
    unsafe extern "C" fn unblock(cancel: *mut c_void) {
        // SAFETY: it is the pointer to `cancel` below, which lives until the call returns; Ruby calls this only before.
        let cancel = unsafe { &*cancel.cast::<AtomicBool>() };
        cancel.store(true, Ordering::Relaxed);
    }
    let mut job = job;
    let cancel = ptr::from_ref(cancel).cast_mut().cast();
    // SAFETY: this thread has the global lock, as whoever has a `Ruby`; `run` does not touch Ruby, does not unwind (the job
    // catches panics), and both pointers live until the call returns.
    unsafe { rb_sys::rb_thread_call_without_gvl2(Some(run), (&raw mut job).cast(), Some(unblock), cancel) };
}
