//! A limit on the size of files (`ulimit -f`): the library fails with an error instead of a write
//! that ends the process by `SIGXFSZ`.

use mmf::{Dict, Error, ErrorKind, Mapping, Name, Region, Source};
use testkit::{TempDir, unique_name};

use crate::support::stories::{story, tells};
use crate::support::system::{checked, fork};

testkit::peers! {
    creation, growth
}

/// Bytes that a file may have.
const LIMIT: u64 = 4 << 20;
/// The same, of the type that the system call takes.
const FILE_LIMIT: libc::rlim_t = 4 << 20;

fn limit_files(bytes: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads one limit.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) });
}

fn sources(dir: &TempDir) -> Vec<Source> {
    let mut sources = vec![Name::local(unique_name("limit")).unwrap().into(), dir.join(unique_name("limit")).into()];
    if cfg!(target_os = "linux") {
        sources.push(Name::global(unique_name("limit")).unwrap().into());
    }
    sources
}

#[track_caller]
fn assert_refused(error: &Error) {
    assert_eq!(*error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("`ulimit -f`"), "what to do about it is missing: {error}");
}

#[test]
fn a_creation_beyond_the_limit_on_files_is_an_error() {
    story("creation");
}

fn creation(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        fork(|| {
            limit_files(FILE_LIMIT);
            for source in sources(&dir) {
                assert_refused(&Mapping::create_new(source.clone(), LIMIT + 1).unwrap_err());
                drop(Mapping::create_new(source, LIMIT).unwrap());
            }
            assert_refused(&Mapping::anonymous(LIMIT + 1).unwrap_err());
            drop(Mapping::anonymous(LIMIT).unwrap());
            let exact = Name::exact(unique_name("limit")).unwrap();
            assert_refused(&Mapping::create_new(&exact, LIMIT + 1).unwrap_err());
            0
        })
        .ends_with(0);
    });
}

#[test]
fn a_growth_beyond_the_limit_on_files_is_an_error_and_changes_nothing() {
    story("growth");
}

fn growth(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        for (for_dict, for_region) in sources(&dir).into_iter().zip(sources(&dir)) {
            fork(|| {
                let dict = Dict::create_new(for_dict.clone(), 64 << 20).unwrap();
                let region = Region::create_new(for_region.clone(), 64 << 20).unwrap();
                let map = Mapping::options().size(4096).reserve(64 << 20).anonymous().unwrap();
                dict.set_bytes("key", b"before").unwrap();
                limit_files(FILE_LIMIT);
                assert_refused(&dict.set_bytes("large", &vec![1; 8 << 20]).unwrap_err());
                assert_refused(&region.write().unwrap().resize(8 << 20).unwrap_err());
                assert_refused(&map.grow(8 << 20).unwrap_err());
                // All goes on, up to the limit.
                dict.set_bytes("key", b"after").unwrap();
                assert!(dict.get_bytes("large").unwrap().is_none() && dict.check().unwrap().is_whole());
                region.write().unwrap().resize(1 << 20).unwrap();
                map.grow(4 << 20).unwrap();
                // And beyond it, once there is none.
                limit_files(libc::RLIM_INFINITY);
                dict.set_bytes("large", &vec![1; 8 << 20]).unwrap();
                0
            })
            .ends_with(0);
        }
    });
}
