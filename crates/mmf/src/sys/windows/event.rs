//! Named events, in the directory that all login sessions share.
//!
//! The native calls tell what those of Win32 do not: whether a name was taken when it was to be made anew, without
//! opening what has it. To make an event there takes no privilege, as it does for a section.
//! <https://learn.microsoft.com/windows/win32/termserv/kernel-object-namespaces>

use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::ptr;

use windows_sys::Wdk::Foundation::OBJECT_ATTRIBUTES;
use windows_sys::Wdk::Storage::FileSystem::NtCreateEvent;
use windows_sys::Wdk::System::Threading::NtOpenEvent;
use windows_sys::Win32::Foundation::{HANDLE, NTSTATUS, OBJ_OPENIF, UNICODE_STRING};
use windows_sys::Win32::System::Kernel::SynchronizationEvent;

use super::security::Descriptor;
use super::size32;

/// What an event's name is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventUse {
    Token = 0,
    Parker = 1,
    Checked = 2,
}

/// The path of the event of this use for a slot of the segment with this id.
///
/// Any user may list the names there, so they tell nothing about others: each is the id's answer to a question of its own,
/// by SipHash-2-4, which nobody computes without the id. Who may not read the segment cannot take its names away.
pub(super) fn path(id: &[u8; 16], of: EventUse, slot: usize) -> Vec<u16> {
    let (low, high) = id.split_at(8);
    let key = [low, high].map(|half| u64::from_le_bytes(half.try_into().unwrap_or_default()));
    let question = (slot as u64) | (of as u64) << 32;
    let [first, second] = [0, 1].map(|half| siphash(key, question | half << 48));
    format!("\\BaseNamedObjects\\mmf.{first:016x}{second:016x}").encode_utf16().collect()
}

/// [SipHash-2-4](https://www.aumasson.jp/siphash/siphash.pdf) of the eight bytes of a number, lowest first.
fn siphash(key: [u64; 2], message: u64) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    // The message, and then its length in the highest byte.
    for word in [message, 8 << 56] {
        v[3] ^= word;
        mix(&mut v, 2);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    mix(&mut v, 4);
    v.iter().fold(0, |all, part| all ^ part)
}

fn mix(v: &mut [u64; 4], rounds: usize) {
    for _ in 0..rounds {
        v[0] = v[0].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[2] = v[2].rotate_left(32);
    }
}

/// Whether [`make`] opens an event that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    Refuse,
    Open,
}

/// Makes an event that resets itself when it has let one through.
pub(super) fn make(
    path: &[u16],
    rights: u32,
    descriptor: &Descriptor,
    existing: Existing,
) -> Result<OwnedHandle, NTSTATUS> {
    let flags = if existing == Existing::Open { OBJ_OPENIF } else { 0 };
    let name = name(path);
    let attributes = OBJECT_ATTRIBUTES {
        Length: size32::<OBJECT_ATTRIBUTES>(),
        ObjectName: &raw const name,
        Attributes: flags,
        SecurityDescriptor: descriptor.as_ptr(),
        ..OBJECT_ATTRIBUTES::default()
    };
    let mut handle: HANDLE = ptr::null_mut();
    // SAFETY: `handle` is writable; the attributes and what they point at outlive the call.
    let status = unsafe { NtCreateEvent(&raw mut handle, rights, &raw const attributes, SynchronizationEvent, false) };
    owned(status, handle)
}

pub(super) fn open(path: &[u16], rights: u32) -> Result<OwnedHandle, NTSTATUS> {
    let name = name(path);
    let attributes = OBJECT_ATTRIBUTES {
        Length: size32::<OBJECT_ATTRIBUTES>(),
        ObjectName: &raw const name,
        ..OBJECT_ATTRIBUTES::default()
    };
    let mut handle: HANDLE = ptr::null_mut();
    // SAFETY: as in `make`.
    let status = unsafe { NtOpenEvent(&raw mut handle, rights, &raw const attributes) };
    owned(status, handle)
}

/// It points at the path, which must outlive its use.
fn name(path: &[u16]) -> UNICODE_STRING {
    let bytes = u16::try_from(size_of_val(path)).unwrap_or(0);
    UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: path.as_ptr().cast_mut() }
}

fn owned(status: NTSTATUS, handle: HANDLE) -> Result<OwnedHandle, NTSTATUS> {
    if status < 0 {
        return Err(status);
    }
    // SAFETY: the call succeeded, so it is an open handle, and owned by nobody else.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_by_the_published_hash() {
        // The answer for eight bytes from its authors' list.
        assert_eq!(
            siphash([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908], 0x0706_0504_0302_0100),
            0x93f5_f579_9a93_2462
        );
        let id = [7; 16];
        let all = [
            path(&id, EventUse::Token, 1),
            path(&id, EventUse::Parker, 1),
            path(&id, EventUse::Token, 2),
            path(&[8; 16], EventUse::Token, 1),
        ];
        for (n, path) in all.iter().enumerate() {
            assert!(!all[..n].contains(path));
        }
    }
}
