//! Which machine, which boot, which process this is.

use crate::sys::Boot;

/// [`machine-id(5)`](https://man7.org/linux/man-pages/man5/machine-id.5.html) and
/// `/proc/sys/kernel/random/boot_id` ([`proc_sys_kernel(5)`](https://man7.org/linux/man-pages/man5/proc_sys_kernel.5.html)).
pub(crate) fn boot() -> Boot {
    Boot { machine: hex("/etc/machine-id"), boot: hex("/proc/sys/kernel/random/boot_id") }
}

fn hex(path: &str) -> [u8; 16] {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

/// 16 random bytes (`/dev/urandom`).
pub(crate) fn random_id() -> crate::error::Result<[u8; 16]> {
    use std::io::Read;
    let mut id = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut id));
    read.map_err(|error| crate::error::Error::system("get random bytes for", error))?;
    Ok(id)
}
