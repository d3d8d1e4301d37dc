//! A full tmpfs: the first access to a page that cannot be allocated is a fault.

use std::ffi::{CStr, CString};
use std::fs;
use std::ptr;

use super::*;

stories! { ignored "needs root: mounts a tmpfs": what_a_full_tmpfs_cannot_hold_is_a_fault, growing_on_a_full_tmpfs_fails }

/// A tmpfs that this thread alone sees.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(bytes: usize) -> Tmpfs {
        // SAFETY: gives this thread a list of mounts of its own; no memory is concerned.
        let apart = unsafe { libc::unshare(libc::CLONE_NEWNS) };
        assert_eq!(apart, 0, "unshare: {}", io::Error::last_os_error());
        mount(c"/", libc::MS_REC | libc::MS_PRIVATE, None);
        let dir = TempDir::new();
        mount(&c_string(&dir), 0, Some(&CString::new(format!("size={bytes}")).unwrap()));
        Tmpfs(dir)
    }

    /// A sparse file that has one page, and no room for another.
    fn with_sparse_file() -> (Tmpfs, PathBuf) {
        let tmpfs = Tmpfs::mount(16 * page_size());
        let path = file(&tmpfs.0);
        Mapping::open(&path).unwrap().write_at(0, &pattern(1, page_size())).unwrap();
        let mut ballast = File::create(tmpfs.0.join("ballast")).unwrap();
        while ballast.write(&vec![1; page_size()]).is_ok() {}
        (tmpfs, path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // SAFETY: the text ends with a zero and lives on; the call only reads it.
        unsafe { libc::umount2(c_string(&self.0).as_ptr(), libc::MNT_DETACH) };
    }
}

fn c_string(dir: &TempDir) -> CString {
    CString::new(dir.path().to_str().unwrap()).unwrap()
}

fn mount(on: &CStr, flags: libc::c_ulong, data: Option<&CStr>) {
    let data = data.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: the texts end with zeros and live on; the call only reads them.
    let done = unsafe { libc::mount(c"none".as_ptr(), on.as_ptr(), c"tmpfs".as_ptr(), flags, data.cast()) };
    assert_eq!(done, 0, "mount {on:?}: {}", io::Error::last_os_error());
}

fn what_a_full_tmpfs_cannot_hold_is_a_fault() {
    let (tmpfs, path) = Tmpfs::with_sparse_file();
    let dir = &tmpfs.0;
    let page = page_size();
    for policy in GUARDED {
        let bench = bench(&path, policy, 0);
        for operation in COPYING.iter().filter(|operation| operation.into_mapping) {
            check(operation, &bench, &pattern(1, bench.len), 0, bench.len, page);
            check(operation, &bench, &pattern(1, bench.len), 3 * page, 5, page);
        }
        for (name, run) in WORDS {
            check_word(name, run, &bench, page + 8, page);
        }
        let prefaulted = Mapping::options().fault_policy(policy).prefault(true).open(&path);
        assert!(matches!(plain(prefaulted), Err(ErrorKind::Fault { .. })));
        // Room comes back, and so do the pages.
        let ballast = fs::read(dir.join("ballast")).unwrap();
        fs::remove_file(dir.join("ballast")).unwrap();
        bench.map.write_at(0, &pattern(2, bench.len)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), pattern(2, bench.len));
        drop(bench);
        fs::remove_file(&path).unwrap();
        file(dir);
        Mapping::open(&path).unwrap().write_at(0, &pattern(1, page)).unwrap();
        fs::write(dir.join("ballast"), &ballast).unwrap();
    }
}

fn growing_on_a_full_tmpfs_fails() {
    let (tmpfs, path) = Tmpfs::with_sparse_file();
    let dir = &tmpfs.0;
    let map = Mapping::open(&path).unwrap();
    let error = map.grow(size() * 2).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!((map.len(), map.refresh().unwrap()), (size(), size()));
    let refused = Mapping::create_new(dir.join("another"), size() as u64).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::NoSpace, "{refused}");
    assert!(!dir.join("another").exists());
    assert_eq!(map.read_to_vec(0, page_size()).unwrap(), pattern(1, page_size()));
}
