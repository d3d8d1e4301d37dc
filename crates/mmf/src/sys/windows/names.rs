//! Names of sections: how the system spells them, and which there are.

use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr;

use windows_sys::Wdk::Foundation::{NtQueryObject, OBJECT_ATTRIBUTES, OBJECT_NAME_INFORMATION};
use windows_sys::Wdk::Storage::FileSystem::{NtOpenDirectoryObject, NtQueryDirectoryObject};
use windows_sys::Win32::Foundation::{HANDLE, STATUS_NO_MORE_ENTRIES, STATUS_NOT_IMPLEMENTED, UNICODE_STRING};

use super::object::Object;
use super::section::Section;
use super::security::{self, User};
use super::{error, size32};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Name, Scope};
use crate::types::{Access, Listed, Spec, Swept};

const PREFIX: &str = "mmf.";

/// A name's units with the zero at its end fit the 16-bit length of `UNICODE_STRING`.
const EXACT_MAX: usize = 32766;

/// As `CreateFileMapping` takes it. A user's own names are apart from those of others in the same login session.
pub(super) fn kernel_name(name: &Name, user: &User) -> String {
    let text = name.as_str();
    match name.scope() {
        Scope::Local => format!("Local\\{}{text}", own_prefix(user)),
        Scope::Global => format!("Global\\{PREFIX}{text}"),
        Scope::Exact => text.to_owned(),
    }
}

fn own_prefix(user: &User) -> String {
    format!("{PREFIX}{}.", user.sid)
}

/// A `\` ends the name of a directory; which there are only the system knows, and it tells when the name is used.
/// <https://learn.microsoft.com/windows/win32/termserv/kernel-object-namespaces>
pub(crate) fn check_exact(text: &str) -> Result<(), String> {
    let units = text.encode_utf16().count();
    if units > EXACT_MAX {
        return Err(format!("it has {units} UTF-16 units, and this system's limit is {EXACT_MAX}"));
    }
    if text.contains('\0') {
        return Err("it holds a zero".to_owned());
    }
    if text.split('\\').any(str::is_empty) {
        return Err("it is empty, or before or after a \\".to_owned());
    }
    Ok(())
}

/// Sections have no links.
pub(crate) fn give_up_linked(_: &Name) -> Result<()> {
    Err(Error::invalid("unlink", "only `exact:` names are unlinked; others go with their last holder"))
}

pub(crate) fn unlink_exact(_: &str) -> Result<()> {
    Err(Error::unsupported("unlink", "Windows removes a name when the last process that holds it closes it"))
}

/// Windows keeps nothing of the dead.
pub(crate) fn sweep() -> Result<Vec<Swept>> {
    Ok(Vec::new())
}

pub(crate) fn list() -> Result<Vec<Listed>> {
    let (user, session) = (User::current()?, security::session()?);
    let own = own_prefix(&user);
    // https://learn.microsoft.com/windows/win32/termserv/kernel-object-namespaces
    let everybodys = r"\BaseNamedObjects";
    let local = match session {
        0 => everybodys.to_owned(),
        session => format!(r"\Sessions\{session}\BaseNamedObjects"),
    };
    let mut names = Vec::new();
    for entry in sections_in(&local)? {
        names.extend(entry.strip_prefix(&own).and_then(|text| Name::local(text).ok()));
    }
    for entry in sections_in(everybodys)? {
        // In session 0 both scopes are one directory.
        let own = session == 0 && entry.starts_with(&own);
        names.extend(entry.strip_prefix(PREFIX).filter(|_| !own).and_then(|text| Name::global(text).ok()));
    }
    names.sort();
    names.dedup();
    let mut living = Vec::new();
    for name in names {
        let spec = Spec { access: Access::ReadOnly, allow_other_owners: true, ..Spec::default() };
        match Section::open(&kernel_name(&name, &user), &spec) {
            Ok((section, _)) => {
                let object = Object::Memory(section);
                living.push(Listed { name, size: object.len().ok(), info: object.info().ok() });
            }
            // Gone since it was seen.
            Err(error) if *error.kind() == ErrorKind::NotFound => {}
            Err(_) => living.push(Listed { name, size: None, info: None }),
        }
    }
    Ok(living)
}

/// `OBJECT_DIRECTORY_INFORMATION`, which no Windows header declares for programs.
/// <https://learn.microsoft.com/windows/win32/devnotes/ntquerydirectoryobject>
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct DirectoryEntry {
    name: UNICODE_STRING,
    kind: UNICODE_STRING,
}

/// The names of the sections in a directory of the kernel's.
fn sections_in(path: &str) -> Result<Vec<String>> {
    let directory = open_directory(path).map_err(|error| error.on(path))?;
    // Entries lie at the beginning, the texts they point at behind them. The longest text has 64 KiB.
    let mut buffer = vec![DirectoryEntry::default(); 4096];
    let len = u32::try_from(size_of_val(&*buffer)).unwrap_or(0);
    let (mut context, mut names) = (0, Vec::new());
    // Many at once are one state of the directory. Wine has only one at a time.
    let mut single = false;
    loop {
        buffer.fill(DirectoryEntry::default());
        // SAFETY: the buffer is writable for the bytes that the call is told; `context` is writable; the length is not
        // asked back.
        let status = unsafe {
            NtQueryDirectoryObject(
                directory.as_raw_handle(),
                buffer.as_mut_ptr().cast(),
                len,
                single,
                context == 0,
                &raw mut context,
                ptr::null_mut(),
            )
        };
        if status == STATUS_NO_MORE_ENTRIES {
            return Ok(names);
        }
        if status == STATUS_NOT_IMPLEMENTED && !single {
            single = true;
            continue;
        }
        if status < 0 {
            return Err(error::of_status("list", status).on(path));
        }
        // An entry of zeros ends them.
        for entry in buffer.iter().take_while(|entry| !entry.name.Buffer.is_null()) {
            // SAFETY: the system filled the entry, and both texts lie in the buffer.
            let kind = unsafe { text_of(&entry.kind) };
            if kind == "Section" {
                // SAFETY: as above.
                names.push(unsafe { text_of(&entry.name) });
            }
        }
    }
}

fn open_directory(path: &str) -> Result<OwnedHandle> {
    const DIRECTORY_QUERY: u32 = 1;
    let mut units: Vec<u16> = path.encode_utf16().collect();
    let bytes = u16::try_from(size_of_val(&*units)).unwrap_or(0);
    let name = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: units.as_mut_ptr() };
    let attributes = OBJECT_ATTRIBUTES {
        Length: size32::<OBJECT_ATTRIBUTES>(),
        ObjectName: &raw const name,
        ..OBJECT_ATTRIBUTES::default()
    };
    let mut directory: HANDLE = ptr::null_mut();
    // SAFETY: `directory` is writable; the attributes and the name they point at outlive the call.
    let status = unsafe { NtOpenDirectoryObject(&raw mut directory, DIRECTORY_QUERY, &raw const attributes) };
    if status < 0 {
        return Err(error::of_status("list", status));
    }
    // SAFETY: just opened, and owned by nobody else.
    Ok(unsafe { OwnedHandle::from_raw_handle(directory) })
}

/// The full name of an object in the kernel; `None` where it has none.
pub(super) fn of_object(object: BorrowedHandle<'_>) -> Option<String> {
    const OBJECT_NAME_INFORMATION_CLASS: i32 = 1;
    // The longest name, and what points at it.
    let mut buffer = vec![0u64; (1 << 16) / size_of::<u64>() + 4];
    let len = u32::try_from(size_of_val(&*buffer)).unwrap_or(0);
    // SAFETY: the buffer is writable for the bytes that the call is told; the length is not asked back.
    let status = unsafe {
        NtQueryObject(
            object.as_raw_handle(),
            OBJECT_NAME_INFORMATION_CLASS,
            buffer.as_mut_ptr().cast(),
            len,
            ptr::null_mut(),
        )
    };
    if status < 0 {
        return None;
    }
    // SAFETY: this class fills the buffer, which is aligned for it, with this structure.
    let information = unsafe { buffer.as_ptr().cast::<OBJECT_NAME_INFORMATION>().read() };
    // SAFETY: its text lies in the buffer.
    Some(unsafe { text_of(&information.Name) }).filter(|name| !name.is_empty())
}

/// # Safety
///
/// The string was filled by the system, and what it points at lives.
unsafe fn text_of(string: &UNICODE_STRING) -> String {
    if string.Buffer.is_null() {
        return String::new();
    }
    let units = usize::from(string.Length) / size_of::<u16>();
    // SAFETY: the caller vouches for the buffer, which holds `Length` bytes.
    String::from_utf16_lossy(unsafe { std::slice::from_raw_parts(string.Buffer, units) })
}
