//! Identity of the machine, of the boot and of the process.

use std::fs;
use std::io::{self, ErrorKind};

use super::native;
use crate::error::{Error, Result};
use crate::sys::Boot;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const MACHINE_ID: &str = "/etc/machine-id";

/// Reads [`machine-id(5)`](https://man7.org/linux/man-pages/man5/machine-id.5.html) and
/// `/proc/sys/kernel/random/boot_id` ([`proc_sys_kernel(5)`](https://man7.org/linux/man-pages/man5/proc_sys_kernel.5.html)).
///
/// Only a missing file means that the system has no id. Any other failure, such as a lack of free
/// descriptors, is an error: zeros in its place would look like another boot. The machine's id is
/// for display alone, so a file that this process may not read counts as missing there.
pub(crate) fn boot() -> Result<Boot> {
    let boot = read_id(BOOT_ID, &[ErrorKind::NotFound])?;
    let machine = read_id(MACHINE_ID, &[ErrorKind::NotFound, ErrorKind::PermissionDenied])?;
    Ok(Boot { machine, boot })
}

/// Returns the id in a file, or zeros if reading fails with one of the errors `without`.
fn read_id(path: &str, without: &[ErrorKind]) -> Result<[u8; 16]> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if without.contains(&error.kind()) => Ok([0; 16]),
        Err(error) => Err(cannot_read(path, error)),
    }
}

fn cannot_read(path: &str, error: io::Error) -> Error {
    let help = format!("let this process read {path}, and if too many files are open, close some");
    Error::system("read the boot id for", error).with_help(help)
}

fn parse(text: &str) -> [u8; 16] {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

/// Returns 16 random bytes from the system's call for that, or else from `/dev/urandom`.
pub(crate) fn random_id() -> Result<[u8; 16]> {
    use std::io::Read;
    let mut id = [0; 16];
    if native::random(&mut id) {
        return Ok(id);
    }
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut id));
    read.map_err(|error| Error::system("get random bytes for", error))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_or_missing_and_every_other_failure_is_an_error() {
        let missing = [ErrorKind::NotFound];
        assert_eq!(read_id("/nowhere/boot_id", &missing).unwrap(), [0; 16]);
        // A directory cannot be read as a file.
        let error = read_id("/", &missing).unwrap_err();
        assert!(error.to_string().starts_with("cannot read the boot id"), "{error}");
        assert_eq!(parse("0001-02ff\n"), 0x0001_02ff_u128.to_be_bytes());
        assert_eq!(parse(""), [0; 16]);
    }
}
