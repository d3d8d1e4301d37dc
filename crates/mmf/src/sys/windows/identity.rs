//! Which machine, which boot, which process this is.

use std::ptr;

use windows_sys::Wdk::System::SystemInformation::{NtQuerySystemInformation, SystemTimeOfDayInformation};
use windows_sys::Win32::Foundation::{
    ERROR_FILE_NOT_FOUND, ERROR_SUCCESS, STATUS_INVALID_INFO_CLASS, STATUS_NOT_IMPLEMENTED,
};
use windows_sys::Win32::Security::Cryptography::{BCRYPT_USE_SYSTEM_PREFERRED_RNG, BCryptGenRandom};
use windows_sys::Win32::System::Registry::{HKEY_LOCAL_MACHINE, RRF_RT_REG_SZ, RRF_SUBKEY_WOW6464KEY, RegGetValueW};

use super::{error, size32, wide};
use crate::error::Result;
use crate::sys::Boot;

/// There are none.
#[inline]
pub(crate) fn forks() -> u32 {
    0
}

/// There are none.
pub(crate) fn watch_forks() -> u32 {
    forks()
}

/// The id that the system's setup gave the machine, and the moment of the boot with half of that id behind it.
///
/// Nothing depends on the latter for life: tokens are objects of the kernel's, and none outlives it.
///
/// Only a value that does not exist means that the system has no id. Any other failure is an error:
/// zeros in its place would look like another boot.
pub(crate) fn boot() -> Result<Boot> {
    let machine = machine()?;
    Ok(Boot { machine, boot: boot_id(booted()?, machine) })
}

/// Zeros where the moment is not known. An id for each process would have a dict that others use taken for one that a power
/// cut has left.
fn boot_id(booted: u64, machine: [u8; 16]) -> [u8; 16] {
    if booted == 0 {
        return [0; 16];
    }
    let mut id = machine;
    id.rotate_left(8);
    id[..8].copy_from_slice(&booted.to_le_bytes());
    id
}

/// `HKLM\SOFTWARE\Microsoft\Cryptography\MachineGuid`, the same for programs of 32 and 64 bits.
fn machine() -> Result<[u8; 16]> {
    let (key, value) = (wide(r"SOFTWARE\Microsoft\Cryptography"), wide("MachineGuid"));
    let mut text = [0_u16; 64];
    let mut len = size32::<[u16; 64]>();
    // SAFETY: both names end in a zero; `text` is writable for `len` bytes; the type is not asked for.
    let code = unsafe {
        RegGetValueW(
            HKEY_LOCAL_MACHINE,
            key.as_ptr(),
            value.as_ptr(),
            RRF_RT_REG_SZ | RRF_SUBKEY_WOW6464KEY,
            ptr::null_mut(),
            text.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match code {
        ERROR_SUCCESS => {}
        ERROR_FILE_NOT_FOUND => return Ok([0; 16]),
        code => return Err(error::of_code("read the boot id for", code)),
    }
    let digits: String = String::from_utf16_lossy(&text).chars().filter(char::is_ascii_hexdigit).take(32).collect();
    Ok(u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes())
}

/// `SYSTEM_TIMEOFDAY_INFORMATION`, whose members no Windows header names.
#[repr(C)]
#[derive(Default)]
struct TimeOfDay {
    booted: i64,
    now: i64,
    zone_bias: i64,
    zone: u32,
    reserved: u32,
    /// What changes of the clock have added to `booted`.
    boot_bias: u64,
    sleep_bias: u64,
}

/// When the system started, in its own unit, by the clock as it was then; 0 if it does not tell.
fn booted() -> Result<u64> {
    let mut time = TimeOfDay::default();
    let len = size32::<TimeOfDay>();
    // SAFETY: `time` has the layout that this class writes, and is writable for `len` bytes; the length is not asked back.
    let status =
        unsafe { NtQuerySystemInformation(SystemTimeOfDayInformation, (&raw mut time).cast(), len, ptr::null_mut()) };
    match status {
        STATUS_INVALID_INFO_CLASS | STATUS_NOT_IMPLEMENTED => Ok(0),
        status if status < 0 => Err(error::of_status("read the boot id for", status)),
        _ => Ok(u64::from_ne_bytes(time.booted.to_ne_bytes()).wrapping_sub(time.boot_bias)),
    }
}

/// 16 random bytes, of the system's generator.
pub(crate) fn random_id() -> Result<[u8; 16]> {
    let mut id = [0; 16];
    // SAFETY: no algorithm is named, as the flag wants it; `id` is writable for 16 bytes.
    let status = unsafe { BCryptGenRandom(ptr::null_mut(), id.as_mut_ptr(), 16, BCRYPT_USE_SYSTEM_PREFERRED_RNG) };
    if status < 0 { Err(error::of_status("get random bytes for", status)) } else { Ok(id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_told_by_its_moment_and_its_machine_or_not_at_all() {
        let machine = *b"0123456789abcdef";
        assert_eq!(boot_id(0x0807_0605_0403_0201, machine), *b"\x01\x02\x03\x04\x05\x06\x07\x0801234567");
        assert_eq!(boot_id(0, machine), [0; 16]);
    }
}
