//! Windows: named memory is a section of the pagefile, and a file is mapped through a section for each view.
//!
//! A name dies with the last handle even while views stay mapped, so a mapping keeps its object until its views are gone.

mod error;
mod event;
mod file;
mod identity;
mod liveness_token;
mod names;
mod object;
mod parker;
mod privilege;
mod section;
mod security;
mod shared_view;
#[cfg(test)]
mod tests;
mod view;

pub use std::os::windows::io::{BorrowedHandle, OwnedHandle};

pub(crate) use identity::{boot, forks, random_id, watch_forks};
pub(crate) use liveness_token::{LivenessTokens, is_any_checked_token_held, is_token_held};
pub(crate) use names::{check_exact, give_up_linked, list, sweep, unlink_exact};
pub(crate) use object::Object;
pub(crate) use parker::{ParkToken, Parker};
pub(crate) use view::View;

use std::ffi::OsStr;
use std::os::windows::ffi::OsStrExt;
use std::sync::OnceLock;

use windows_sys::Win32::System::SystemInformation::{GetSystemInfo, SYSTEM_INFO};

/// [`GetSystemInfo`](https://learn.microsoft.com/windows/win32/api/sysinfoapi/nf-sysinfoapi-getsysteminfo): a system call,
/// and its answer never changes.
fn system_info() -> &'static SYSTEM_INFO {
    struct Info(SYSTEM_INFO);
    // SAFETY: the pointers in it are plain addresses: the limits of user space, never followed.
    unsafe impl Send for Info {}
    // SAFETY: as above.
    unsafe impl Sync for Info {}
    static INFO: OnceLock<Info> = OnceLock::new();
    &INFO
        .get_or_init(|| {
            let mut info = SYSTEM_INFO::default();
            // SAFETY: `info` is writable and of the size that the call fills.
            unsafe { GetSystemInfo(&raw mut info) };
            Info(info)
        })
        .0
}

pub(crate) fn page_size() -> usize {
    system_info().dwPageSize as usize
}

/// Views begin at multiples of 64 KiB.
fn granularity() -> usize {
    system_info().dwAllocationGranularity as usize
}

/// Gives a type with `handle` and `into_handle` the traits that this system's libraries take.
macro_rules! impl_handle_traits {
    ($type:ty) => {
        impl std::os::windows::io::AsHandle for $type {
            fn as_handle(&self) -> std::os::windows::io::BorrowedHandle<'_> {
                self.handle()
            }
        }
        impl From<$type> for std::os::windows::io::OwnedHandle {
            fn from(value: $type) -> Self {
                value.into_handle()
            }
        }
    };
}
pub(crate) use impl_handle_traits;

/// UTF-16 with the zero at its end that the system's functions want. The text holds no zero itself: names and paths
/// were checked for it.
fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

/// The size of a structure, as many of them begin with it.
const fn size32<T>() -> u32 {
    assert!(size_of::<T>() <= u32::MAX as usize);
    #[allow(clippy::cast_possible_truncation, reason = "checked just above")]
    let size = size_of::<T>() as u32;
    size
}

/// The high and the low half, as the system's functions take a 64-bit size.
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, (value & 0xffff_ffff) as u32)
}
