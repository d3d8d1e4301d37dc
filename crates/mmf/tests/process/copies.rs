//! Several copies of the library in one process, as two extensions of a language load them: each
//! catches its own faults, and no two copies keep replacing each other's signal handler.

// A program that is linked statically loads nothing, and `cargo` builds the guest for this machine.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use mmf::{FaultPolicy, Mapping};
use testkit::TempDir;

use crate::support::guest;
use crate::support::sigbus::{Host, calls, hosts_own_fault, install, mended};
use crate::support::stories::{story, tells};
use crate::support::system::fork;

testkit::peers! {
    take_turns, stranger_between, all_at_once, fault_of_no_copy, unloaded, unloaded_by_default
}

/// What `guest_read` gives where a page was gone.
const GONE: c_int = 1;

type Open = unsafe extern "C" fn(*const c_char) -> *mut c_void;
type Read = unsafe extern "C" fn(*const c_void, usize, *mut u8, usize) -> c_int;
type Close = unsafe extern "C" fn(*mut c_void);
type Lock = unsafe extern "C" fn(*const c_char) -> c_int;

/// A copy of the library.
#[derive(Clone, Copy)]
struct Guest {
    open: Open,
    read: Read,
    close: Close,
    lock: Lock,
    /// What `dlopen` gave.
    library: *mut c_void,
}

// SAFETY: the loader takes its handle from any thread.
unsafe impl Send for Guest {}
// SAFETY: as above.
unsafe impl Sync for Guest {}

impl Guest {
    /// Loads a file of its own, since the system loads each file only once.
    fn load(dir: &Path, number: usize) -> Self {
        let file = dir.join(format!("guest{number}"));
        std::fs::copy(guest::path(), &file).unwrap();
        let file = CString::new(file.as_os_str().as_bytes()).unwrap();
        // SAFETY: a string that ends with a zero; what is loaded does nothing by itself.
        let library = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null(), "{file:?} cannot be loaded");
        let symbol = |name: &std::ffi::CStr| {
            // SAFETY: the library stays loaded, and the name ends with a zero.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
            assert!(!symbol.is_null(), "{name:?}");
            symbol
        };
        Guest {
            // SAFETY: the type that examples/guest.rs has there.
            open: unsafe { std::mem::transmute::<*mut c_void, Open>(symbol(c"guest_open")) },
            // SAFETY: likewise.
            read: unsafe { std::mem::transmute::<*mut c_void, Read>(symbol(c"guest_read")) },
            // SAFETY: likewise.
            close: unsafe { std::mem::transmute::<*mut c_void, Close>(symbol(c"guest_close")) },
            // SAFETY: likewise.
            lock: unsafe { std::mem::transmute::<*mut c_void, Lock>(symbol(c"guest_lock")) },
            library,
        }
    }

    /// Does all that registers something with the system, and is unloaded.
    #[track_caller]
    fn used_and_unloaded(self, dir: &Path) {
        self.truncated(dir).assert_caught();
        let name = CString::new(testkit::unique_name("unloaded")).unwrap();
        // SAFETY: a string that ends with a zero.
        assert_eq!(unsafe { (self.lock)(name.as_ptr()) }, 0);
        // SAFETY: what `dlopen` gave. The guest is not used again.
        assert_eq!(unsafe { libc::dlclose(self.library) }, 0);
    }

    fn several(dir: &Path, count: usize) -> Vec<Self> {
        (0..count).map(|number| Self::load(dir, number)).collect()
    }

    /// Maps three pages, of which the last two are then gone.
    #[track_caller]
    fn truncated(self, dir: &Path) -> Opened {
        let file = three_pages(dir);
        let name = CString::new(file.as_os_str().as_bytes()).unwrap();
        // SAFETY: a string that ends with a zero.
        let map = unsafe { (self.open)(name.as_ptr()) };
        assert!(!map.is_null(), "the opening failed");
        File::options().write(true).open(&file).unwrap().set_len(mmf::page_size() as u64).unwrap();
        std::fs::remove_file(file).unwrap();
        Opened { guest: self, map }
    }
}

fn three_pages(dir: &Path) -> PathBuf {
    let file = dir.join(testkit::unique_name("pages"));
    File::create(&file).unwrap().set_len(3 * mmf::page_size() as u64).unwrap();
    file
}

/// A mapping of a guest's.
struct Opened {
    guest: Guest,
    map: *mut c_void,
}

impl Opened {
    #[track_caller]
    fn assert_caught(&self) {
        let mut bytes = [0; 4];
        // SAFETY: the map is open, and there is room.
        let outcome = unsafe { (self.guest.read)(self.map, mmf::page_size() - 2, bytes.as_mut_ptr(), bytes.len()) };
        assert_eq!(outcome, GONE);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: open, and not used again.
        unsafe { (self.guest.close)(self.map) };
    }
}

#[test]
fn copies_that_open_in_turns_share_the_signal() {
    guest::built();
    story("take_turns");
}

fn take_turns(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        for copies in [2, 3] {
            fork(|| {
                install(Host::WithDetails);
                let guests = Guest::several(dir.path(), copies);
                let first: Vec<Opened> = guests.iter().map(|guest| guest.truncated(dir.path())).collect();
                for turn in 0..200 {
                    guests[turn % copies].truncated(dir.path()).assert_caught();
                    first.iter().for_each(Opened::assert_caught);
                }
                assert_eq!(calls(), 0, "a fault of a copy's reached the host");
                hosts_own_fault(dir.path());
                assert_eq!((calls(), mended()), (1, 1), "the host's own did not reach it once");
                0
            })
            .ends_with(0);
        }
    });
}

#[test]
fn a_stranger_between_copies_costs_each_copy_one_handler() {
    guest::built();
    story("stranger_between");
}

fn stranger_between(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        for stranger in [Host::WithDetails, Host::PassesOn] {
            fork(|| {
                let guests = Guest::several(dir.path(), 2);
                let first: Vec<Opened> = guests.iter().map(|guest| guest.truncated(dir.path())).collect();
                install(stranger);
                for turn in 0..200 {
                    guests[turn % 2].truncated(dir.path()).assert_caught();
                }
                first.iter().for_each(Opened::assert_caught);
                assert_eq!(calls(), 0, "a fault of a copy's reached the stranger, who came before");
                hosts_own_fault(dir.path());
                assert_eq!((calls(), mended()), (1, 1), "the stranger's own did not reach it once");
                0
            })
            .ends_with(0);
        }
    });
}

#[test]
fn copies_that_open_at_once_come_to_rest() {
    guest::built();
    story("all_at_once");
}

fn all_at_once(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        fork(|| {
            let guests = Guest::several(dir.path(), 3);
            let start = Barrier::new(guests.len());
            let turn = |guest: &Guest| {
                start.wait();
                // Who fails goes on, lest the others wait for it.
                std::panic::catch_unwind(|| drop(guest.truncated(dir.path()))).is_ok()
            };
            let turn = &turn;
            let opened: usize = std::thread::scope(|threads| {
                let threads: Vec<_> = guests
                    .iter()
                    .map(|guest| threads.spawn(move || (0..100).filter(|_| turn(guest)).count()))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(opened, 300);
            for guest in guests {
                guest.truncated(dir.path()).assert_caught();
            }
            0
        })
        .ends_with(0);
    });
}

#[test]
fn a_fault_that_is_no_copys_kills_in_the_end() {
    guest::built();
    story("fault_of_no_copy");
}

fn fault_of_no_copy(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        let faults = || {
            let file = three_pages(dir.path());
            let map = Mapping::options().fault_policy(FaultPolicy::Unguarded).open(&file).unwrap();
            File::create(&file).unwrap();
            drop(map.read_to_vec(0, 1));
            0
        };
        // SAFETY: takes a number only.
        let sends = || unsafe { libc::raise(libc::SIGBUS) };
        let ends: [&dyn Fn() -> i32; 2] = [&faults, &sends];
        for end in ends {
            fork(|| {
                // Rust's own would put itself out of the way at first, and return.
                // SAFETY: the system's action is no handler.
                assert_ne!(unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) }, libc::SIG_ERR);
                let guests = Guest::several(dir.path(), 3);
                for turn in 0..60 {
                    guests[turn % 3].truncated(dir.path()).assert_caught();
                }
                end()
            })
            .dies_of(libc::SIGBUS);
        }
    });
}

#[test]
fn an_unloaded_copy_leaves_the_hosts_handler_its_own_faults() {
    guest::built();
    story("unloaded");
}

fn unloaded(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        for copies in [1, 2] {
            for host in [Host::WithDetails, Host::NumberOnly] {
                fork(|| {
                    install(host);
                    for guest in Guest::several(dir.path(), copies) {
                        guest.used_and_unloaded(dir.path());
                    }
                    hosts_own_fault(dir.path());
                    assert_eq!((calls(), mended()), (1, 1), "the host's own did not reach it once");
                    // The fork handlers are called.
                    fork(|| 0).ends_with(0);
                    0
                })
                .ends_with(0);
            }
        }
        // One is unloaded, whose handler stands before the other's or behind it.
        for unloaded in [0, 1] {
            fork(|| {
                install(Host::WithDetails);
                let guests = Guest::several(dir.path(), 2);
                let maps = guests.iter().map(|guest| guest.truncated(dir.path())).collect::<Vec<_>>();
                maps.iter().for_each(Opened::assert_caught);
                drop(maps);
                guests[unloaded].used_and_unloaded(dir.path());
                guests[1 - unloaded].truncated(dir.path()).assert_caught();
                hosts_own_fault(dir.path());
                assert_eq!((calls(), mended()), (1, 1), "the host's own did not reach it once");
                0
            })
            .ends_with(0);
        }
    });
}

#[test]
fn an_unloaded_copy_leaves_the_host_the_systems_own_action() {
    guest::built();
    story("unloaded_by_default");
}

fn unloaded_by_default(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        for copies in [1, 2] {
            fork(|| {
                // SAFETY: the system's action is no handler.
                assert_ne!(unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) }, libc::SIG_ERR);
                for guest in Guest::several(dir.path(), copies) {
                    guest.used_and_unloaded(dir.path());
                }
                hosts_own_fault(dir.path());
                0
            })
            .dies_of(libc::SIGBUS);
        }
    });
}
