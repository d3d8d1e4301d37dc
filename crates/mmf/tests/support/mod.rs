//! Support for all test binaries: each includes this one module.
//!
//! | module | contents |
//! | --- | --- |
//! | `actor` | a peer process that maps what the test tells it to map |
//! | `cases` | mappings of every source |
//! | `guest` | the path of the shared library `examples/guest.rs` |
//! | `intruder`, `second_user` | a peer process of another user |
//! | `packed` | golden files without their zeros |
//! | `program` | a program of another language |
//! | `remote` | a peer process that reads and writes one mapping |
//! | `sandbox` | filters of system calls |
//! | `sigbus` | a program's own handler of `SIGBUS` |
//! | `stories` | tests that run in a process of their own, which must leave nothing behind |
//! | `system` | calls of a Unix system that only tests make |

#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its part")]

pub(crate) mod actor;
pub(crate) mod cases;
#[cfg(unix)]
pub(crate) mod guest;
#[cfg(target_os = "linux")]
pub(crate) mod intruder;
pub(crate) mod packed;
pub(crate) mod program;
pub(crate) mod remote;
#[cfg(target_os = "linux")]
pub(crate) mod sandbox;
#[cfg(target_os = "linux")]
pub(crate) mod second_user;
#[cfg(unix)]
pub(crate) mod sigbus;
pub(crate) mod stories;
#[cfg(unix)]
pub(crate) mod system;

/// Returns the reason for which a region was not locked. Panics if it was, or is poisoned.
pub(crate) fn failed<G>(result: Result<G, mmf::LockError<G>>) -> mmf::ErrorKind {
    match result {
        Err(mmf::LockError::Failed(error)) => error.kind().clone(),
        Err(mmf::LockError::Poisoned(_)) => panic!("poison"),
        Ok(_) => panic!("locked"),
    }
}
