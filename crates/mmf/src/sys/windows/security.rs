//! Who this user is, who owns an object, and who may open it.

use std::ffi::c_void;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, OwnedHandle};
use std::ptr::{self, NonNull};

use windows_sys::Win32::Foundation::{ERROR_INSUFFICIENT_BUFFER, GENERIC_ALL, GENERIC_WRITE, HANDLE, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW, ConvertSidToStringSidW,
    ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::{
    ACCESS_ALLOWED_ACE, ACL, CheckTokenMembership, DACL_SECURITY_INFORMATION, GENERIC_MAPPING, GetAce,
    GetKernelObjectSecurity, GetSecurityDescriptorDacl, GetSecurityDescriptorOwner, GetTokenInformation,
    INHERIT_ONLY_ACE, LookupAccountSidW, MapGenericMask, OBJECT_SECURITY_INFORMATION, OWNER_SECURITY_INFORMATION,
    PSECURITY_DESCRIPTOR, PSID, SECURITY_ATTRIBUTES, SECURITY_DESCRIPTOR, SetKernelObjectSecurity,
    TOKEN_INFORMATION_CLASS, TokenOwner, TokenSessionId, TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_ALL_ACCESS, FILE_GENERIC_EXECUTE, FILE_GENERIC_READ, FILE_GENERIC_WRITE, FILE_WRITE_DATA,
    STANDARD_RIGHTS_EXECUTE, STANDARD_RIGHTS_READ, STANDARD_RIGHTS_WRITE, SYNCHRONIZE,
};
use windows_sys::Win32::System::Memory::{
    LMEM_FIXED, LocalAlloc, SECTION_ALL_ACCESS, SECTION_MAP_EXECUTE, SECTION_MAP_READ, SECTION_MAP_WRITE, SECTION_QUERY,
};
use windows_sys::Win32::System::Threading::EVENT_MODIFY_STATE;

use super::{error, size32, wide};
use crate::error::{Error, ErrorKind, Result};
use crate::types::Permissions;

// https://learn.microsoft.com/windows/win32/secauthz/well-known-sids
const SYSTEM: &str = "S-1-5-18";
const ADMINISTRATORS: &str = "S-1-5-32-544";

/// Memory with the duty to call `LocalFree`: what the system gave, or what it was given to fill.
struct LocalAllocation(NonNull<c_void>);

impl LocalAllocation {
    fn new<T>(given: *mut T) -> Option<LocalAllocation> {
        NonNull::new(given.cast()).map(LocalAllocation)
    }
}

impl Drop for LocalAllocation {
    fn drop(&mut self) {
        // SAFETY: this is the only owner, and the function that gave it documents `LocalFree`, or is `LocalAlloc`.
        unsafe { LocalFree(self.0.as_ptr()) };
    }
}

/// Text that the system gave: UTF-16 up to a zero.
fn text_of(given: &LocalAllocation) -> String {
    let start: *const u16 = given.0.as_ptr().cast_const().cast();
    let mut units = Vec::new();
    loop {
        // SAFETY: the text ends in a zero, and all before this one were not it.
        let at = unsafe { start.add(units.len()) };
        // SAFETY: as above.
        match unsafe { at.read() } {
            0 => return String::from_utf16_lossy(&units),
            unit => units.push(unit),
        }
    }
}

/// What stands for the token whose rights this thread has: the one that it impersonates, or else the process's. Asked each
/// time, since a thread may act for another user from one moment to the next; opening the tokens would be three calls more.
///
/// It is [`GetCurrentThreadEffectiveToken`](https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-getcurrentthreadeffectivetoken),
/// which is defined in a header and exported by no library.
fn effective_token() -> HANDLE {
    ptr::without_provenance_mut(0_usize.wrapping_sub(6))
}

/// Room for any SID (68 bytes at most) and the pointer to it that precedes it, aligned for both.
type TokenAnswer = [u64; 16];

fn ask(class: TOKEN_INFORMATION_CLASS, answer: &mut TokenAnswer) -> Result<()> {
    let (mut len, room) = (0, size32::<TokenAnswer>());
    let answer: *mut TokenAnswer = answer;
    // SAFETY: `answer` is writable for as many bytes as the call is told.
    match unsafe { GetTokenInformation(effective_token(), class, answer.cast(), room, &raw mut len) } {
        0 => Err(error::last("query the identity of this user")),
        _ => Ok(()),
    }
}

fn ask_sid(class: TOKEN_INFORMATION_CLASS) -> Result<String> {
    let mut answer: TokenAnswer = [0; 16];
    ask(class, &mut answer)?;
    // SAFETY: `TOKEN_USER` and `TOKEN_OWNER` both begin with a pointer to a SID, and `answer` is aligned for it.
    let sid: PSID = unsafe { (&raw const answer).cast::<PSID>().read() };
    // SAFETY: the system pointed it at a SID in `answer`, which has not moved.
    unsafe { sid_text(sid) }
}

/// # Safety
///
/// `sid` points at a valid SID.
unsafe fn sid_text(sid: PSID) -> Result<String> {
    let mut text = ptr::null_mut();
    // SAFETY: the caller vouches for `sid`; `text` is writable.
    if unsafe { ConvertSidToStringSidW(sid, &raw mut text) } == 0 {
        return Err(error::last("name the owner of"));
    }
    Ok(LocalAllocation::new(text).as_ref().map(text_of).unwrap_or_default())
}

/// The user that this thread acts for.
pub(super) struct User {
    pub(super) sid: String,
}

impl User {
    pub(super) fn current() -> Result<User> {
        Ok(User { sid: ask_sid(TokenUser)? })
    }
}

/// The login session that this thread acts in.
pub(super) fn session() -> Result<u32> {
    let mut session: TokenAnswer = [0; 16];
    ask(TokenSessionId, &mut session)?;
    Ok((session[0] & 0xffff_ffff) as u32)
}

/// What kind of object a descriptor is for: the same generic right means other things.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SecuredObject {
    Section,
    File,
}

impl SecuredObject {
    fn mapping(self) -> GENERIC_MAPPING {
        match self {
            SecuredObject::Section => GENERIC_MAPPING {
                GenericRead: STANDARD_RIGHTS_READ | SECTION_QUERY | SECTION_MAP_READ,
                GenericWrite: STANDARD_RIGHTS_WRITE | SECTION_MAP_WRITE,
                GenericExecute: STANDARD_RIGHTS_EXECUTE | SECTION_MAP_EXECUTE,
                GenericAll: SECTION_ALL_ACCESS,
            },
            SecuredObject::File => GENERIC_MAPPING {
                GenericRead: FILE_GENERIC_READ,
                GenericWrite: FILE_GENERIC_WRITE,
                GenericExecute: FILE_GENERIC_EXECUTE,
                GenericAll: FILE_ALL_ACCESS,
            },
        }
    }
}

/// A security descriptor to make an object with, its generic rights turned into those of that kind of object, as the
/// system itself does with it: so it can be compared with what an object has.
pub(super) struct Descriptor(LocalAllocation);

impl Descriptor {
    pub(super) fn new(permissions: &Permissions, user: &User, kind: SecuredObject) -> Result<Descriptor> {
        // The owner is named, since an elevated process's objects would belong to the Administrators.
        let sid = &user.sid;
        match permissions {
            Permissions::User => Descriptor::parse(&format!("O:{sid}D:P(A;;GA;;;{sid})"), kind),
            // All rights, since programs often ask for all of them to open. `WD` leaves out app containers.
            Permissions::Everyone => Descriptor::parse(&format!("O:{sid}D:P(A;;GA;;;WD)(A;;GA;;;AC)"), kind),
            Permissions::Sddl(text) => Descriptor::parse(text, kind),
            Permissions::Mode(_) => Err(Error::unsupported("use", "a Unix mode on Windows; it takes SDDL text")),
        }
    }

    pub(super) fn parse(text: &str, kind: SecuredObject) -> Result<Descriptor> {
        if text.contains('\0') {
            return Err(Error::invalid("use", "the SDDL text holds a zero"));
        }
        let mut given: PSECURITY_DESCRIPTOR = ptr::null_mut();
        let text_wide = wide(text);
        // SAFETY: the text ends in a zero; `given` is writable; the length is not asked for.
        let done = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text_wide.as_ptr(),
                SDDL_REVISION_1,
                &raw mut given,
                ptr::null_mut(),
            )
        };
        let failure = error::last("use");
        let Some(given) = LocalAllocation::new(given).filter(|_| done != 0) else {
            let reason = format!("{text:?} is no security descriptor in SDDL");
            return Err(failure.with_kind(ErrorKind::InvalidInput { reason }));
        };
        let descriptor = Descriptor(given);
        let mapping = kind.mapping();
        let mapped = descriptor.change_rights(|mut rights| {
            // SAFETY: both are valid for the call.
            unsafe { MapGenericMask(&raw mut rights, &raw const mapping) };
            rights
        });
        if mapped? {
            return Ok(descriptor);
        }
        // The system would then use a default that depends on the process.
        let reason = format!("{text:?} grants access to no user: it has no D: part");
        Err(Error::invalid("use", reason))
    }

    /// For an event that those may set who may write an object. Needs `READ_CONTROL`.
    pub(super) fn of_unpark_rights(object: BorrowedHandle<'_>) -> Result<Descriptor> {
        let descriptor = Descriptor(security_of(object, DACL_SECURITY_INFORMATION)?);
        // One bit for both kinds of objects.
        const _: () = assert!(SECTION_MAP_WRITE == FILE_WRITE_DATA);
        let write = SECTION_MAP_WRITE | GENERIC_WRITE | GENERIC_ALL;
        descriptor.change_rights(|rights| if rights & write == 0 { 0 } else { SYNCHRONIZE | EVENT_MODIFY_STATE })?;
        Ok(descriptor)
    }

    /// Changes the rights in each entry of the DACL; whether it has one.
    fn change_rights(&self, change: impl Fn(u32) -> u32) -> Result<bool> {
        let (mut present, mut defaulted, mut dacl) = (0, 0, ptr::null_mut::<ACL>());
        // SAFETY: a valid descriptor; the three are writable.
        let done = unsafe {
            GetSecurityDescriptorDacl(self.0.0.as_ptr(), &raw mut present, &raw mut dacl, &raw mut defaulted)
        };
        if done == 0 {
            return Err(error::last("use"));
        }
        if present == 0 {
            return Ok(false);
        }
        if dacl.is_null() {
            // `D:NO_ACCESS_CONTROL`: there are no rights to change.
            return Ok(true);
        }
        // SAFETY: it points into the descriptor, which lives.
        let count = unsafe { (*dacl).AceCount };
        for index in 0..u32::from(count) {
            let mut ace: *mut c_void = ptr::null_mut();
            // SAFETY: a valid list; `ace` is writable.
            if unsafe { GetAce(dacl, index, &raw mut ace) } == 0 {
                return Err(error::last("use"));
            }
            // Every kind of entry that a DACL holds begins as this one: a header, then the mask.
            let ace: *mut ACCESS_ALLOWED_ACE = ace.cast();
            // SAFETY: the entry lies in the descriptor, which is ours alone.
            let flags = unsafe { (*ace).Header.AceFlags };
            // Rights that are only there to be inherited stay generic.
            if u32::from(flags) & INHERIT_ONLY_ACE == 0 {
                // SAFETY: as above.
                let rights = unsafe { &mut (*ace).Mask };
                *rights = change(*rights);
            }
        }
        Ok(true)
    }

    /// It lives as long as `self`.
    pub(super) fn as_ptr(&self) -> *const SECURITY_DESCRIPTOR {
        self.0.0.as_ptr().cast()
    }

    /// For a function that makes an object. It borrows from this descriptor, and must not outlive it.
    pub(super) fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: size32::<SECURITY_ATTRIBUTES>(),
            lpSecurityDescriptor: self.0.0.as_ptr(),
            bInheritHandle: 0,
        }
    }

    /// Who may open it, as SDDL.
    pub(super) fn dacl(&self) -> Result<String> {
        text_of_part(&self.0, DACL_SECURITY_INFORMATION)
    }

    /// Who shall own it, as SDDL; empty where that is left to the system.
    pub(super) fn owner(&self) -> Result<String> {
        text_of_part(&self.0, OWNER_SECURITY_INFORMATION)
    }

    /// Lets an object be opened as this descriptor says from now on.
    pub(super) fn replace_dacl(&self, object: &OwnedHandle) -> Result<()> {
        let object = object.as_raw_handle();
        // SAFETY: a valid descriptor, which the call only reads.
        match unsafe { SetKernelObjectSecurity(object, DACL_SECURITY_INFORMATION, self.0.0.as_ptr()) } {
            0 => Err(error::last("set the permissions of")),
            _ => Ok(()),
        }
    }
}

/// Long enough for a DACL of some twenty entries, so that the system is mostly asked once.
const TYPICAL_DESCRIPTOR_LEN: u32 = 1024;

/// What the system keeps of who owns an object and who may open it, as one piece. Needs `READ_CONTROL`.
fn security_of(object: BorrowedHandle<'_>, parts: OBJECT_SECURITY_INFORMATION) -> Result<LocalAllocation> {
    let doing = "read the permissions of";
    let mut room = TYPICAL_DESCRIPTOR_LEN;
    loop {
        // SAFETY: plain memory; null where there is none.
        let Some(given) = LocalAllocation::new(unsafe { LocalAlloc(LMEM_FIXED, room as usize) }) else {
            return Err(error::last(doing));
        };
        let (descriptor, mut needed) = (given.0.as_ptr(), 0);
        // SAFETY: `descriptor` is writable for as many bytes as the call is told, and `needed` is too.
        if unsafe { GetKernelObjectSecurity(object.as_raw_handle(), parts, descriptor, room, &raw mut needed) } != 0 {
            return Ok(given);
        }
        let failure = error::last(doing);
        if error::code_of(&failure) != ERROR_INSUFFICIENT_BUFFER || needed <= room {
            return Err(failure);
        }
        room = needed;
    }
}

fn text_of_part(descriptor: &LocalAllocation, part: OBJECT_SECURITY_INFORMATION) -> Result<String> {
    let mut text = ptr::null_mut();
    // SAFETY: a valid descriptor; `text` is writable; the length is not asked for.
    let done = unsafe {
        ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor.0.as_ptr(),
            SDDL_REVISION_1,
            part,
            &raw mut text,
            ptr::null_mut(),
        )
    };
    if done == 0 {
        return Err(error::last("read the permissions of"));
    }
    Ok(LocalAllocation::new(text).as_ref().map(text_of).unwrap_or_default())
}

/// Owner and DACL of an object.
pub(super) struct Security {
    descriptor: LocalAllocation,
    /// Points into the descriptor.
    owner: PSID,
}

impl Security {
    /// Needs `READ_CONTROL`. `None` where the system has noted no owner, as some file systems cannot.
    pub(super) fn of(object: BorrowedHandle<'_>) -> Result<Option<Security>> {
        let descriptor = security_of(object, OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION)?;
        let (mut owner, mut defaulted) = (ptr::null_mut(), 0);
        // SAFETY: a valid descriptor; `owner` and `defaulted` are writable.
        if unsafe { GetSecurityDescriptorOwner(descriptor.0.as_ptr(), &raw mut owner, &raw mut defaulted) } == 0 {
            return Err(error::last("read the permissions of"));
        }
        Ok(if owner.is_null() { None } else { Some(Security { descriptor, owner }) })
    }

    pub(super) fn dacl(&self) -> Result<String> {
        text_of_part(&self.descriptor, DACL_SECURITY_INFORMATION)
    }

    /// Whether it lets in whom a new object with this descriptor would: the entries, as the system wrote them down.
    /// The flags before them tell how they came about.
    pub(super) fn lets_in_as(&self, wanted: &Descriptor) -> Result<bool> {
        let entries = |text: String| text.find('(').map_or(text.clone(), |start| text[start..].to_owned());
        Ok(entries(self.dacl()?) == entries(wanted.dacl()?))
    }

    /// The owner's SID.
    pub(super) fn owner(&self) -> Result<String> {
        // SAFETY: the system pointed it at a SID in the descriptor, which lives as long as `self`.
        unsafe { sid_text(self.owner) }
    }

    /// The owner's account, or the SID where no account has it.
    pub(super) fn owner_account(&self) -> Result<String> {
        // User and domain names have at most 256 units.
        let (mut name, mut domain) = ([0u16; 260], [0u16; 260]);
        let (mut name_len, mut domain_len, mut meaning) = (260, 260, 0);
        // SAFETY: the SID lives as long as `self`; both buffers are writable for as many units as the call is told.
        let done = unsafe {
            LookupAccountSidW(
                ptr::null(),
                self.owner,
                name.as_mut_ptr(),
                &raw mut name_len,
                domain.as_mut_ptr(),
                &raw mut domain_len,
                &raw mut meaning,
            )
        };
        if done == 0 {
            return self.owner();
        }
        let text = |units: &[u16], len: u32| String::from_utf16_lossy(units.get(..len as usize).unwrap_or_default());
        let (name, domain) = (text(&name, name_len), text(&domain, domain_len));
        Ok(if domain.is_empty() { name } else { format!("{domain}\\{name}") })
    }

    /// Refuses what belongs to neither this user nor the system itself.
    pub(super) fn check_owner(&self, user: &User) -> Result<()> {
        let owner = self.owner()?;
        // Last, who owns what is made without naming an owner: the Administrators, for an elevated process.
        if owner == user.sid || owner == SYSTEM || owner == ask_sid(TokenOwner)? {
            return Ok(());
        }
        // Only an elevated process is one of them: in any other the group is there to deny.
        if owner == ADMINISTRATORS && self.owned_by_group_of_ours()? {
            return Ok(());
        }
        Err(foreign(owner))
    }

    fn owned_by_group_of_ours(&self) -> Result<bool> {
        let mut member = 0;
        // SAFETY: no token means this thread's; the SID lives as long as `self`; `member` is writable.
        match unsafe { CheckTokenMembership(ptr::null_mut(), self.owner, &raw mut member) } {
            0 => Err(error::last("read the owner of")),
            _ => Ok(member != 0),
        }
    }
}

/// The refusal of an object of somebody else.
pub(super) fn foreign(owner: impl Into<String>) -> Error {
    Error::new(ErrorKind::ForeignOwner { owner: owner.into() }, "open")
        .with_help("allow other owners if that user is trusted")
}

#[cfg(test)]
mod tests {
    use super::*;
    use windows_sys::Win32::Security::{ImpersonateSelf, RevertToSelf, SecurityImpersonation, TokenType};

    #[test]
    fn the_user_is_asked_of_the_token_that_the_thread_has_now() {
        let kind = || {
            let mut answer: TokenAnswer = [0; 16];
            ask(TokenType, &mut answer).unwrap();
            answer[0] & 0xffff_ffff
        };
        const PRIMARY: u64 = 1;
        const IMPERSONATION: u64 = 2;
        let user = User::current().unwrap().sid;
        assert_eq!(kind(), PRIMARY);
        // SAFETY: gives this thread a copy of the process's token.
        assert_ne!(unsafe { ImpersonateSelf(SecurityImpersonation) }, 0);
        assert_eq!(kind(), IMPERSONATION);
        assert_eq!(User::current().unwrap().sid, user);
        // SAFETY: takes it away again.
        assert_ne!(unsafe { RevertToSelf() }, 0);
        assert_eq!(kind(), PRIMARY);
    }
}
