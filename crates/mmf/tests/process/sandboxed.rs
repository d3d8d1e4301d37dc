//! Filters that end the process at `process_vm_readv(2)`, as sandboxes install them. The default
//! fault policy never makes that call.

use std::ffi::c_int;
use std::ptr;

use mmf::{Dict, ErrorKind, FaultPolicy, Mapping, Name, Region};
use testkit::{TempDir, unique_name};

use crate::support::sandbox;
use crate::support::stories::{story, tells};
use crate::support::system::{checked, fork};

testkit::peers! {
    default_policy, system_calls
}

/// What the handlers' marks and faults are looked at with.
const FORBIDDEN: [libc::c_long; 2] = [libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];

/// A page for a handler that is never called.
struct Page(*mut u8);

impl Page {
    fn new(protection: c_int) -> Page {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping of the system's choosing.
        let page = unsafe { libc::mmap(ptr::null_mut(), mmf::page_size(), protection, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        Page(page.cast())
    }

    /// Makes it the handler, at such a place that it may be one of another copy of mmf.
    fn install(&self) {
        // SAFETY: plain integers, for which zeros are valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = self.0.addr() + 32;
        // SAFETY: a valid action; the old one is not asked for. No fault reaches the handler, see
        // below.
        checked(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) });
    }
}

#[test]
fn the_default_policy_works_where_a_filter_kills_at_process_vm_readv() {
    story("default_policy");
}

fn default_policy(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        // A foreign handler that can be read, one that cannot, and one whose library is gone.
        for protection in [Some(libc::PROT_READ), Some(libc::PROT_NONE), None] {
            fork(|| {
                let page = Page::new(protection.unwrap_or(libc::PROT_READ));
                page.install();
                if protection.is_none() {
                    // SAFETY: mapped above, and nothing refers to it.
                    checked(unsafe { libc::munmap(page.0.cast(), mmf::page_size()) });
                }
                sandbox::enter(&FORBIDDEN, sandbox::Answer::Kill);
                let path = dir.join(unique_name("sandboxed"));
                let map = Mapping::options().size(3 * 4096).prefault(true).create_new(&path).unwrap();
                std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
                let error = map.read_to_vec(0, 4).unwrap_err();
                assert_eq!(*error.kind(), ErrorKind::Fault { offset: 0, done: 0 }, "{error}");
                std::fs::remove_file(path).unwrap();
                let region = Region::create_new(Name::local(unique_name("sandboxed")).unwrap(), 4096).unwrap();
                region.write().unwrap().set(b"bytes").unwrap();
                let dict = Dict::create_new(Name::local(unique_name("sandboxed")).unwrap(), 1 << 20).unwrap();
                dict.set_bytes("key", b"value").unwrap();
                0
            })
            .ends_with(0);
        }
    });
}

#[test]
fn the_policy_of_system_calls_is_refused_where_a_filter_forbids_them() {
    story("system_calls");
}

fn system_calls(_: &[&str]) {
    tells(|| {
        let options = Mapping::options().size(4096).fault_policy(FaultPolicy::SystemCalls);
        fork(|| {
            sandbox::enter(&FORBIDDEN, sandbox::Answer::Error(libc::EPERM));
            let error = options.anonymous().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error}");
            0
        })
        .ends_with(0);
        // Documented: nothing tells a filter that kills from one that refuses.
        fork(|| {
            sandbox::enter(&FORBIDDEN, sandbox::Answer::Kill);
            i32::from(options.anonymous().is_ok())
        })
        .dies_of(libc::SIGSYS);
    });
}
