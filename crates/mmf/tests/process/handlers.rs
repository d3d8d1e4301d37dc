//! The guard beside other signal handlers: it handles the faults of mappings, and every other
//! handler still gets its own.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use mmf::{Access, Dict, ErrorKind, FaultPolicy, Mapping, MappingOptions, Name, Region};
use testkit::{TempDir, Watchdog, unique_name};

use crate::support::guest;
use crate::support::sigbus::{self, Host, calls, hosts_own_fault, install, mended};
use crate::support::stories::{story, tells};
use crate::support::system::{checked, fork};

testkit::peers! {
    host_before, host_after, host_after_and_no_opening, host_passes_on, fault_outside_mappings, blocked, replaced_again_and_again
}

/// A mapping of three pages, of which the last two are gone.
fn truncated(dir: &TempDir, options: &MappingOptions) -> Mapping {
    let path = dir.join("truncated");
    let page = mmf::page_size() as u64;
    let file = File::options().write(true).create(true).truncate(false).open(&path).unwrap();
    file.set_len(3 * page).unwrap();
    let map = options.open(&path).unwrap();
    file.set_len(page).unwrap();
    map
}

/// Meets a page that is gone, and one that is there.
#[track_caller]
fn assert_caught(map: &Mapping) {
    let page = mmf::page_size();
    let error = map.read_to_vec(page - 2, 4).expect_err("the page is gone");
    assert_eq!(*error.kind(), ErrorKind::Fault { offset: page, done: 2 }, "{error}");
    let error = map.load::<u64>(2 * page, std::sync::atomic::Ordering::SeqCst).expect_err("the page is gone");
    assert_eq!(*error.kind(), ErrorKind::Fault { offset: 2 * page, done: 0 }, "{error}");
    map.read_to_vec(0, page).expect("the page is there");
}

#[test]
fn a_handler_installed_before_ours_gets_its_own_faults_and_none_of_ours() {
    story("host_before");
}

fn host_before(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        for host in [Host::WithDetails, Host::NumberOnly] {
            // Each in a process that has no handler of ours yet.
            fork(|| {
                install(host);
                let map = truncated(&dir, &Mapping::options());
                for round in 1..=3 {
                    assert_caught(&map);
                    assert_eq!(calls(), round - 1, "our fault reached the host");
                    hosts_own_fault(dir.path());
                    assert_eq!((calls(), mended()), (round, round), "its own fault did not");
                }
                0
            })
            .ends_with(0);
        }
    });
}

#[test]
fn a_handler_installed_after_ours_is_followed_by_ours_again_at_the_next_mapping() {
    story("host_after");
}

fn host_after(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        for host in [Host::WithDetails, Host::NumberOnly] {
            fork(|| {
                let first = truncated(&dir, &Mapping::options());
                assert_caught(&first);
                // It takes away what was ours, and passes nothing on.
                for round in 1..=5 {
                    install(host);
                    hosts_own_fault(dir.path());
                    assert_eq!(mended(), 2 * round - 1);
                    let next = truncated(&dir, &Mapping::options());
                    assert_caught(&next);
                    assert_caught(&first);
                    hosts_own_fault(dir.path());
                    assert_eq!((calls(), mended()), (2 * round, 2 * round), "only its own faults reach it");
                }
                0
            })
            .ends_with(0);
        }
    });
}

#[test]
fn a_handler_installed_after_ours_is_followed_by_ours_at_growths_syncs_and_first_locks_too() {
    story("host_after_and_no_opening");
}

fn host_after_and_no_opening(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        fork(|| {
            let first = truncated(&dir, &Mapping::options());
            let grows = Mapping::options().size(4096).reserve(1 << 20).anonymous().unwrap();
            let name = Name::local(unique_name("handler")).unwrap();
            let region = Region::create_new(&name, 1 << 20).unwrap();
            let read_only = Region::options().access(Access::ReadOnly).open(&name).unwrap();
            let dict = Dict::create_new(dir.join("dict").as_path(), 1 << 20).unwrap();
            dict.set_bytes("key", b"value").unwrap();
            let actions: [&dyn Fn(); 5] = [
                &|| grows.grow(100_000).unwrap(),
                &|| grows.sync(..).unwrap(),
                &|| region.write().unwrap().set(&[7; 100_000]).unwrap(),
                &|| assert_eq!(read_only.to_vec().unwrap().len(), 100_000),
                &|| dict.flush().unwrap(),
            ];
            for action in actions {
                install(Host::WithDetails);
                action();
                assert_caught(&first);
            }
            assert_eq!(calls(), 0, "our fault reached the host");
            hosts_own_fault(dir.path());
            assert_eq!(mended(), 1);
            0
        })
        .ends_with(0);
    });
}

#[test]
fn a_handler_installed_after_ours_that_passes_on_what_is_not_its_own_costs_us_nothing() {
    story("host_passes_on");
}

fn host_passes_on(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        fork(|| {
            let first = truncated(&dir, &Mapping::options());
            install(Host::PassesOn);
            // At once, before another mapping; then with ours on top of it, which is on top of ours.
            assert_caught(&first);
            hosts_own_fault(dir.path());
            let next = truncated(&dir, &Mapping::options());
            let before = calls();
            assert_caught(&next);
            assert_caught(&first);
            assert_eq!(calls(), before, "our fault reached the host although ours stands before it");
            hosts_own_fault(dir.path());
            assert_eq!(mended(), 2);
            0
        })
        .ends_with(0);
    });
}

#[test]
fn a_fault_that_is_nobodys_kills_as_it_always_did_and_never_goes_round_between_handlers() {
    story("fault_outside_mappings");
}

fn fault_outside_mappings(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        let unguarded = Mapping::options().fault_policy(FaultPolicy::Unguarded);
        // Ours alone; a host's below ours; and ours, the host's and ours again, where each passes on to the next.
        let below = || install(Host::PassesOn);
        let stages: [&dyn Fn(); 2] = [&|| (), &below];
        for stage in stages {
            fork(|| {
                drop(truncated(&dir, &Mapping::options()));
                stage();
                drop(truncated(&dir, &Mapping::options()));
                let map = truncated(&dir, &unguarded);
                drop(map.read_to_vec(0, 3 * mmf::page_size()));
                0
            })
            .dies_of(libc::SIGBUS);
        }
        // What a process sends is no fault, and kills too: at the second time, since Rust's own handler, to which ours
        // passes it on, answers the first by leaving the place to the system's.
        fork(|| {
            drop(truncated(&dir, &Mapping::options()));
            // SAFETY: takes a number only.
            checked(unsafe { libc::raise(libc::SIGBUS) });
            // SAFETY: as above.
            unsafe { libc::raise(libc::SIGBUS) }
        })
        .dies_of(libc::SIGBUS);
    });
}

#[test]
fn a_thread_that_blocks_sigbus_dies_unless_system_calls_are_its_guard() {
    story("blocked");
}

fn blocked(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        let map = truncated(&dir, &Mapping::options());
        fork(|| {
            sigbus::block();
            assert_caught(&map);
            0
        })
        .dies_of(libc::SIGBUS);
        let by_calls = truncated(&dir, &Mapping::options().fault_policy(FaultPolicy::SystemCalls));
        fork(|| {
            sigbus::block();
            let page = mmf::page_size();
            let error = by_calls.read_to_vec(page - 2, 4).expect_err("the page is gone");
            assert_eq!(*error.kind(), ErrorKind::Fault { offset: page, done: 2 }, "{error}");
            0
        })
        .ends_with(0);
    });
}

#[test]
fn a_host_that_takes_the_signal_away_again_and_again_is_told_of_at_last() {
    story("replaced_again_and_again");
}

fn replaced_again_and_again(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        let refused = (0..100).find_map(|_| {
            install(Host::WithDetails);
            Mapping::anonymous(4096).err()
        });
        let error = refused.expect("each handler needs another of ours, and they are not endless");
        assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("FaultPolicy::SystemCalls"), "{error}");
        let map = truncated(&dir, &Mapping::options().fault_policy(FaultPolicy::SystemCalls));
        assert!(map.read_to_vec(0, 3 * mmf::page_size()).is_err());
    });
}

/// Runs a script of `hosts/` until its genuine fault.
fn host(program: &str, script: &str, guest: &Path, when: &str) -> Output {
    let dir = TempDir::new();
    let file = dir.join("file");
    std::fs::write(&file, vec![1; 3 * mmf::page_size()]).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts").join(script);
    let mut command = Command::new(program);
    // No file of a dead host is left where it ran.
    command.current_dir(dir.path()).arg(script).arg(guest).arg(&file).arg(when);
    command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[track_caller]
fn assert_reported(output: &Output, signals: &[i32], parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.stdout, b"alive\n", "the guest's fault was not an error code: {text}");
    let signal = output.status.signal();
    assert!(signal.is_some_and(|signal| signals.contains(&signal)), "{}: {text}", output.status);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in the host's report: {text}");
    }
}

#[test]
#[ignore = "needs python3"]
fn python_gets_an_error_code_for_our_fault_and_its_faulthandler_still_reports_a_genuine_one() {
    // Compiling takes as long as it takes.
    let guest = guest::built();
    let _watchdog = Watchdog::start(testkit::DEADLINE * 6);
    for when in ["before", "after", "at last"] {
        let output = host("python3", "host.py", &guest, when);
        assert_reported(&output, &[libc::SIGBUS], &["Fatal Python error: Bus error", "in genuine_fault"]);
    }
}

#[test]
#[ignore = "needs ruby"]
fn ruby_gets_an_error_code_for_our_fault_and_still_reports_a_genuine_one() {
    let guest = guest::built();
    let _watchdog = Watchdog::start(testkit::DEADLINE * 6);
    let output = host("ruby", "host.rb", &guest, "");
    assert_reported(&output, &[libc::SIGABRT, libc::SIGBUS], &["[BUG] Bus Error", "genuine_fault"]);
}
