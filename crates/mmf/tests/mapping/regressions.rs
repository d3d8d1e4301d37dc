//! Tests of past defects of mappings.

use mmf::{Access, Mapping, Name};
use testkit::{TempDir, unique_name};
#[cfg(unix)]
use {
    mmf::{ErrorKind, FaultPolicy},
    std::fs::OpenOptions,
    testkit::{Peer, peer},
};

#[cfg(target_os = "linux")]
testkit::peers! { copies_from_unguarded, leases }
#[cfg(all(unix, not(target_os = "linux")))]
testkit::peers! { copies_from_unguarded }

const PAGE: usize = 4096;

/// A new view would have shown the file's bytes in place of the ones that were changed.
#[test]
fn a_copy_on_write_mapping_keeps_its_changes_when_the_file_grows() {
    let dir = TempDir::new();
    let path = dir.path().join("file");
    let file = Mapping::create_new(&path, PAGE as u64).unwrap();
    let own = Mapping::options().access(Access::CopyOnWrite).open(&path).unwrap();
    own.write_at(10, b"mine").unwrap();
    file.grow(4 * PAGE).unwrap();
    let _ = own.refresh();
    let _ = own.read_to_vec(2 * PAGE, 1);
    assert_eq!(own.read_to_vec(10, 4).unwrap(), b"mine");
    assert_eq!(file.read_to_vec(10, 4).unwrap(), [0; 4]);
}

/// Every view is kept until the drop, and a system has only so many.
#[cfg(target_os = "linux")]
#[test]
fn growing_page_by_page_takes_few_views() {
    let dir = TempDir::new();
    let path = dir.path().join("file");
    let file = Mapping::create_new(&path, PAGE as u64).unwrap();
    for pages in 2..400 {
        file.grow(pages * PAGE).unwrap();
        file.write_at((pages - 1) * PAGE, b"end").unwrap();
    }
    // Those of this file alone, by its inode (proc_pid_maps(5)): other tests of this process map and unmap meanwhile.
    let inode = std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap()).to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let views = maps.lines().filter(|line| line.split_whitespace().nth(4) == Some(inode.as_str())).count();
    assert!((1..20).contains(&views), "{views} views");
}

/// Finding out which side failed must be guarded as the copy itself was.
#[cfg(unix)]
#[test]
fn a_copy_from_an_unguarded_mapping_to_a_guarded_one_is_guarded() {
    let mut peer = Peer::spawn("copies_from_unguarded", &[]);
    peer.expect("Fault { offset: 4096, done: 4096 }");
    peer.finish();
}

#[cfg(unix)]
fn copies_from_unguarded(_: &[&str]) {
    let dir = TempDir::new();
    let path = dir.path().join("file");
    let from = Mapping::options().size(2 * PAGE as u64).fault_policy(FaultPolicy::Unguarded).create_new(&path).unwrap();
    let to = Mapping::anonymous(2 * PAGE as u64).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(PAGE as u64).unwrap();
    let error = from.copy_to(.., &to, 0).unwrap_err();
    peer::say(format!("{:?}", error.kind()));
}

/// What is there already needs no reserve.
#[test]
fn growing_to_a_length_that_a_peer_has_grown_to_is_no_error() {
    let name = Name::local(unique_name("regress")).unwrap();
    let peer = Mapping::options().size(PAGE as u64).reserve(1 << 20).create_new(&name).unwrap();
    let ours = Mapping::open(&name).unwrap();
    peer.grow(2 * PAGE).unwrap();
    let len = ours.refresh().unwrap();
    ours.grow(len).unwrap();
}

/// Opening a file on which its owner has a lease is refused with `EWOULDBLOCK`.
#[cfg(target_os = "linux")]
#[test]
fn a_strangers_lease_stops_neither_creation_nor_listing() {
    let file = format!("/dev/shm/mmf.{}", unique_name("leased"));
    let mut owner = Peer::spawn("leases", &[&file]);
    owner.expect("leased");
    let name = Name::global(unique_name("beside")).unwrap();
    let made = Mapping::create_new(&name, PAGE as u64);
    let listed = mmf::list();
    owner.finish();
    // Without its owner it looks like a dead object, which a sweep of another test may have removed.
    if let Err(error) = std::fs::remove_file(&file) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    }
    made.unwrap();
    listed.unwrap();
}

#[cfg(target_os = "linux")]
fn leases(args: &[&str]) {
    // Else the system ends this process when somebody wants the file.
    // SAFETY: ignores a signal.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(args[0]).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: an open descriptor, and a command without a pointer.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) }, 0);
    peer::say("leased");
    while peer::hear().is_some() {}
}

/// An exact object bears no mark of life, so one that looked like a global object would be swept.
#[cfg(unix)]
#[test]
fn an_exact_name_is_none_that_sweeping_judges() {
    for text in ["/mmf.", "mmf."] {
        let error = Name::exact(format!("{text}{}", unique_name("exact"))).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidName { .. }), "{error}");
    }
}

/// An object made in two steps for its reserve had the owner that the process gives what it makes, which for an elevated
/// one is a group.
#[test]
fn memory_with_a_reserve_has_the_same_owner_as_memory_without() {
    let (plain, reserved) = (unique_name("plain"), unique_name("reserved"));
    let plain = Mapping::create_new(Name::local(plain).unwrap(), PAGE as u64).unwrap();
    let options = Mapping::options().size(PAGE as u64).reserve(1 << 20);
    let reserved = options.create_new(Name::local(reserved).unwrap()).unwrap();
    assert_eq!(reserved.info().unwrap().owner, plain.info().unwrap().owner);
}
