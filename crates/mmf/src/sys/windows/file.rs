//! Files as objects.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::path::{self, Path};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, process};

use windows_sys::Win32::Foundation::{
    ERROR_ALREADY_EXISTS, ERROR_FILE_EXISTS, GENERIC_READ, GENERIC_WRITE, HANDLE, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, CREATE_NEW, CreateFileW, DELETE, FILE_ATTRIBUTE_NORMAL, FILE_DISPOSITION_INFO,
    FILE_INFO_BY_HANDLE_CLASS, FILE_REMOTE_PROTOCOL_INFO, FILE_RENAME_INFO, FILE_SHARE_DELETE, FILE_SHARE_MODE,
    FILE_SHARE_READ, FILE_SHARE_WRITE, FILE_TYPE_DISK, FileDispositionInfo, FileRemoteProtocolInfo, FileRenameInfo,
    GetFileInformationByHandle, GetFileInformationByHandleEx, GetFileType, GetFinalPathNameByHandleW, ReOpenFile,
    SetFileInformationByHandle,
};
use windows_sys::Win32::System::Memory::PAGE_READWRITE;

use super::section::{Section, check_countable, create_mapping};
use super::security::{Descriptor, SecuredObject, User};
use super::{error, size32, wide};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Access, Spec};

const SHARE_ALL: FILE_SHARE_MODE = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

/// What paths may have without the prefix `\\?\`, less the room that a directory keeps for a short file name.
/// <https://learn.microsoft.com/windows/win32/fileio/maximum-file-path-limitation>
const MAX_PLAIN_PATH: usize = 247;

pub(crate) struct File {
    file: fs::File,
    access: Access,
}

impl File {
    /// Made under another name beside its place and then renamed, so that nobody meets it half made.
    pub(super) fn create(path: &Path, spec: &Spec) -> Result<File> {
        let path = path::absolute(path).map_err(|source| error::classify("create", source))?;
        // Asked before any space is taken for nothing; the renaming asks again.
        if fs::symlink_metadata(&path).is_ok() {
            return Err(Error::new(ErrorKind::AlreadyExists, "create"));
        }
        let Some(directory) = path.parent() else {
            return Err(Error::invalid("create", "the path does not end in a file's name"));
        };
        let size = spec.size.unwrap_or(0);
        check_countable(size, "create")?;
        let permissions = spec.permissions.clone().unwrap_or_default();
        let descriptor = Descriptor::new(&permissions, &User::current()?, SecuredObject::File)?;
        let unpublished = UnpublishedFile::in_directory(directory, &descriptor)?;
        // Before it has a name that would stay.
        if !spec.first_bytes.is_empty() && is_remote(&unpublished.file) {
            return Err(Error::remote_segment("create"));
        }
        // On NTFS this takes the disk's space, and what was never written reads as zeros.
        let filled = unpublished.file.set_len(size).and_then(|()| (&unpublished.file).write_all(&spec.first_bytes));
        filled.map_err(|source| error::classify("create", source))?;
        Ok(File { file: unpublished.publish(&path, spec.access)?, access: spec.access })
    }

    pub(super) fn open(path: &Path, spec: &Spec) -> Result<File> {
        let opened = OpenOptions::new()
            .read(true)
            .write(spec.access == Access::ReadWrite)
            .share_mode(SHARE_ALL)
            .open(path)
            .map_err(|source| match fs::metadata(path) {
                Ok(found) if found.is_dir() => Error::unsupported("open", "mapping a directory"),
                _ => error::classify("open", source),
            })?;
        File::new(opened, spec.access)
    }

    /// A handle that somebody passed on.
    pub(super) fn from_handle(handle: OwnedHandle, spec: &Spec) -> Result<File> {
        let file = File::new(handle.into(), spec.access)?;
        // Nothing but trying tells whether a handle has the rights. An empty file cannot be tried.
        match file.section(spec.access) {
            Ok(_) => Ok(file),
            Err(error) => Err(error.with_help("was the handle passed on with the rights for this access?")),
        }
    }

    fn new(file: fs::File, access: Access) -> Result<File> {
        // SAFETY: an open handle; the call only asks.
        if unsafe { GetFileType(file.as_raw_handle()) } != FILE_TYPE_DISK {
            return Err(Error::unsupported("open", "mapping what is no regular file or shared memory"));
        }
        Ok(File { file, access })
    }

    pub(super) fn len(&self) -> Result<u64> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|source| error::classify("measure", source))
    }

    /// Reads the first bytes, as many as there are. `None`: the system refuses.
    pub(super) fn read_start(&self, bytes: &mut [u8]) -> Option<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.seek_read(&mut bytes[done..], done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(done)
    }

    pub(super) fn grow(&self, len: u64) -> Result<()> {
        if len <= self.len()? {
            return Ok(());
        }
        if self.access != Access::ReadWrite {
            return Err(Error::new(ErrorKind::ReadOnly, "grow"));
        }
        // Making a longer section extends the file, and never shortens it whatever others do meanwhile: setting its
        // length could cut off what a peer has just added.
        create_mapping(self.file.as_raw_handle(), ptr::null(), PAGE_READWRITE, len, None).map(drop)
    }

    pub(super) fn sync(&self) -> Result<()> {
        if self.access != Access::ReadWrite {
            return Ok(());
        }
        self.file.sync_all().map_err(|source| error::classify("sync", source))
    }

    /// The volume's number and the file's on it.
    pub(super) fn identity(&self) -> Result<u128> {
        let mut info = BY_HANDLE_FILE_INFORMATION::default();
        // SAFETY: the handle is open, and `info` is writable.
        if unsafe { GetFileInformationByHandle(self.file.as_raw_handle(), &raw mut info) } == 0 {
            return Err(error::last("examine"));
        }
        let parts = [info.dwVolumeSerialNumber, info.nFileIndexHigh, info.nFileIndexLow];
        Ok(parts.iter().fold(0, |number, part| number << 32 | u128::from(*part)))
    }

    pub(super) fn is_remote(&self) -> bool {
        is_remote(&self.file)
    }

    /// For one view; `None` where the file is empty.
    pub(super) fn section(&self, access: Access) -> Result<Option<Section>> {
        Section::over_file(self.file.as_handle(), access)
    }

    pub(super) fn handle(&self) -> BorrowedHandle<'_> {
        self.file.as_handle()
    }

    pub(super) fn into_handle(self) -> OwnedHandle {
        self.file.into()
    }

    /// Where it lies now, for people to read.
    pub(super) fn path(&self) -> Option<String> {
        let mut path = vec![0u16; 1024];
        loop {
            let room = u32::try_from(path.len()).ok()?;
            // SAFETY: the buffer is writable for as many units as the call is told.
            let len = unsafe { GetFinalPathNameByHandleW(self.file.as_raw_handle(), path.as_mut_ptr(), room, 0) };
            match len as usize {
                0 => return None,
                len if len < path.len() => return Some(String::from_utf16_lossy(&path[..len])),
                len => path.resize(len, 0),
            }
        }
    }
}

/// Whether it was reached through the network: for a local file there is nothing to ask, and asking fails
/// ([`FILE_REMOTE_PROTOCOL_INFO`]).
///
/// [`FILE_REMOTE_PROTOCOL_INFO`]: https://learn.microsoft.com/windows/win32/api/winbase/ns-winbase-file_remote_protocol_info
fn is_remote(file: &fs::File) -> bool {
    let mut info = FILE_REMOTE_PROTOCOL_INFO::default();
    // SAFETY: the handle is open, and `info` is writable and of the size that the call is told.
    let told = unsafe {
        GetFileInformationByHandleEx(
            file.as_raw_handle(),
            FileRemoteProtocolInfo,
            (&raw mut info).cast(),
            size32::<FILE_REMOTE_PROTOCOL_INFO>(),
        )
    };
    told != 0
}

/// A file that has no name of its own yet: the system deletes it when its handle closes, as it also does when this
/// process dies.
pub(super) struct UnpublishedFile {
    file: fs::File,
}

impl UnpublishedFile {
    pub(super) fn in_directory(directory: &Path, descriptor: &Descriptor) -> Result<UnpublishedFile> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let attributes = descriptor.attributes();
        loop {
            let name = format!(".mmf-{}-{}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
            let path = verbatim(&directory.join(name))?;
            let access = GENERIC_READ | GENERIC_WRITE | DELETE;
            // SAFETY: the path ends in a zero; the attributes and what they point at outlive the call.
            let handle = unsafe {
                CreateFileW(
                    path.as_ptr(),
                    access,
                    SHARE_ALL,
                    &raw const attributes,
                    CREATE_NEW,
                    FILE_ATTRIBUTE_NORMAL,
                    ptr::null_mut(),
                )
            };
            match owned(handle, "create") {
                Ok(file) => {
                    let unpublished = UnpublishedFile { file };
                    unpublished.delete_on_close(true)?;
                    return Ok(unpublished);
                }
                // Left by a process of this id that died in the one moment when it is not deleted.
                Err(error) if error::code_of(&error) == ERROR_FILE_EXISTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn delete_on_close(&self, delete: bool) -> Result<()> {
        let information = FILE_DISPOSITION_INFO { DeleteFile: delete };
        self.set(FileDispositionInfo, (&raw const information).cast(), size_of::<FILE_DISPOSITION_INFO>())
    }

    /// Gives it its name, unless that is taken, and a handle that lets others open it without sharing deletion.
    fn publish(self, path: &Path, access: Access) -> Result<fs::File> {
        self.delete_on_close(false)?;
        let published = self.rename(path).and_then(|()| {
            let rights = if access == Access::ReadWrite { GENERIC_READ | GENERIC_WRITE } else { GENERIC_READ };
            // SAFETY: an open handle.
            owned(unsafe { ReOpenFile(self.file.as_raw_handle(), rights, SHARE_ALL, 0) }, "open")
        });
        if published.is_err() {
            // Why it failed matters more than what it leaves.
            let _ = self.delete_on_close(true);
        }
        published
    }

    fn rename(&self, path: &Path) -> Result<()> {
        let path = verbatim(path)?;
        let name_len = size_of_val(&path[..path.len() - 1]);
        // `FILE_RENAME_INFO` ends in the name, which has room for one unit in the declaration: the zero.
        let len = size_of::<FILE_RENAME_INFO>() + name_len;
        let mut buffer = vec![0u64; len.div_ceil(size_of::<u64>())];
        let information: *mut FILE_RENAME_INFO = buffer.as_mut_ptr().cast();
        // All else stays zero: no replacing, no directory that the name is relative to.
        let name_len = u32::try_from(name_len).map_err(|_| Error::invalid("create", "the path is too long"))?;
        // SAFETY: the buffer is zeroed, aligned and long enough for the structure.
        unsafe { (*information).FileNameLength = name_len };
        // SAFETY: as above.
        let name = unsafe { &raw mut (*information).FileName }.cast::<u16>();
        // SAFETY: the buffer was made long enough for the path, and is no part of it.
        unsafe { ptr::copy_nonoverlapping(path.as_ptr(), name, path.len()) };
        self.set(FileRenameInfo, buffer.as_ptr().cast(), len).map_err(|error| match error::code_of(&error) {
            ERROR_ALREADY_EXISTS | ERROR_FILE_EXISTS => error.with_kind(ErrorKind::AlreadyExists),
            _ => error,
        })
    }

    fn set(&self, class: FILE_INFO_BY_HANDLE_CLASS, information: *const std::ffi::c_void, len: usize) -> Result<()> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        // SAFETY: both callers pass the structure of their class, and its length.
        match unsafe { SetFileInformationByHandle(self.file.as_raw_handle(), class, information, len) } {
            0 => Err(error::last("create")),
            _ => Ok(()),
        }
    }
}

fn owned(handle: HANDLE, doing: &'static str) -> Result<fs::File> {
    if handle == INVALID_HANDLE_VALUE {
        return Err(error::last(doing));
    }
    // SAFETY: just opened, and owned by nobody else.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) }.into())
}

/// The path as the system takes it however long it is, as the standard library does for what it opens. Absolute paths
/// only: their separators are all `\` already.
fn verbatim(path: &Path) -> Result<Vec<u16>> {
    let text: Vec<u16> = path.as_os_str().encode_wide().collect();
    if text.contains(&0) {
        let zero = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(error::classify("create", zero)
            .with_kind(ErrorKind::InvalidInput { reason: "the path holds a zero".to_owned() }));
    }
    let starts_with = |prefix: &str| text.starts_with(&wide(prefix)[..prefix.len()]);
    if text.len() <= MAX_PLAIN_PATH || starts_with(r"\\?\") || starts_with(r"\\.\") {
        return Ok(wide(path));
    }
    let (prefix, skip) = if starts_with(r"\\") { (r"\\?\UNC\", 2) } else { (r"\\?\", 0) };
    let mut long: Vec<u16> = prefix.encode_utf16().collect();
    long.extend(&text[skip..]);
    long.push(0);
    Ok(long)
}
