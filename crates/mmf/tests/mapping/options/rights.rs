//! Options of Unix: modes, descriptors, and files that this user may not write.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use mmf::Source;
use testkit::{Peer, peer};

use super::*;
use crate::support::system;

stories! {
    the_mode_is_exact_whatever_the_umask,
    what_exists_must_have_the_rights_demanded,
    a_mode_of_more_than_nine_bits_is_refused,
    a_program_started_sees_the_descriptor_only_if_it_is_inheritable,
    what_may_only_be_read_is_opened_for_reading_alone,
    pipes_and_devices_are_refused_and_not_waited_for,
    a_link_leads_to_its_file_and_is_not_written_over,
    a_reserve_takes_no_memory,
    a_handle_with_fewer_rights_is_refused,
    memory_is_allocated_however_often_a_signal_comes,
}

mod roles {
    use super::{looker, nobody};
    testkit::peers! { looker, nobody }
}

/// Sets the umask of this process, which tells its story alone.
fn umask(mask: libc::mode_t) {
    // SAFETY: it changes a number of the process and cannot fail.
    unsafe { libc::umask(mask) };
}

/// The mode as the system has it.
fn mode(map: &Mapping) -> String {
    map.info().unwrap().permissions
}

fn the_mode_is_exact_whatever_the_umask() {
    for mask in [0o077, 0o777, 0] {
        umask(mask);
        for (permissions, expected) in [
            (None, "0600"),
            (Some(Permissions::User), "0600"),
            (Some(Permissions::Everyone), "0666"),
            (Some(Permissions::Mode(0o640)), "0640"),
            (Some(Permissions::Mode(0o444)), "0444"),
        ] {
            for kind in [Kind::Local, Kind::Global, Kind::Exact, Kind::File] {
                let options = Mapping::options().size(100);
                let options = match permissions.clone() {
                    Some(Permissions::Everyone) if kind == Kind::Local => continue,
                    Some(permissions) => options.permissions(permissions),
                    None => options,
                };
                // A file in a directory that this mask leaves open to its owner.
                let fresh = {
                    umask(0o077);
                    kind.fresh().unwrap()
                };
                umask(mask);
                let map = options.create_new(&fresh.0).unwrap();
                assert_eq!(mode(&map), expected, "{kind:?} {mask:o}");
                forget(Some(fresh));
            }
        }
    }
    umask(0o022);
}

fn what_exists_must_have_the_rights_demanded() {
    for kind in [Kind::Local, Kind::Global, Kind::Exact, Kind::File] {
        let fresh = kind.fresh().unwrap();
        let map = Mapping::options().size(100).permissions(Permissions::Mode(0o640)).create_new(&fresh.0).unwrap();
        let demand = |permissions| Mapping::options().size(100).permissions(permissions);
        assert_eq!(demand(Permissions::Mode(0o640)).open(&fresh.0).unwrap().len(), 100);
        assert_eq!(demand(Permissions::Mode(0o640)).open_or_create(&fresh.0).unwrap().len(), 100);
        for (permissions, asked) in [(Permissions::User, "0600"), (Permissions::Mode(0o644), "0644")] {
            for opened in [demand(permissions.clone()).open(&fresh.0), demand(permissions).open_or_create(&fresh.0)] {
                let error = opened.unwrap_err();
                let ErrorKind::Mismatch { wanted, found, .. } = error.kind() else { panic!("{kind:?}: {error}") };
                assert_eq!((wanted.as_str(), found.as_str()), (asked, "0640"), "{kind:?}");
            }
        }
        assert_eq!(mode(&map), "0640", "{kind:?}");
        drop(map);
        forget(Some(fresh));
    }
}

fn a_mode_of_more_than_nine_bits_is_refused() {
    for mode in [0o1777, 0o4600, 0o10_0600, u32::MAX] {
        let (made, fresh) = create(Kind::File, &Mapping::options().size(1).permissions(Permissions::Mode(mode)));
        assert!(matches!(kind(made), ErrorKind::InvalidInput { .. }), "{mode:o}");
        assert_nothing_at(&fresh.unwrap().0);
    }
}

/// Says which file stands behind a descriptor.
fn looker(args: &[&str]) {
    peer::say(fs::metadata(format!("/dev/fd/{}", args[0])).map_or(0, |file| file.ino()));
}

fn a_program_started_sees_the_descriptor_only_if_it_is_inheritable() {
    let dir = TempDir::new();
    for inheritable in [false, true] {
        let path = dir.join(format!("{inheritable}"));
        let options = Mapping::options().inheritable(inheritable);
        let made = options.clone().size(10).create_new(&path).unwrap();
        let opened = options.open(&path).unwrap();
        let passed = options.from_handle(copied(&made)).unwrap();
        for map in [&made, &opened, &passed] {
            let mut looker = Peer::spawn("looker", &[&map.handle().as_raw_fd().to_string()]);
            let seen: u64 = looker.expect_line().parse().unwrap();
            assert_eq!(seen == path.metadata().unwrap().ino(), inheritable, "{map:?}");
            looker.finish();
        }
    }
}

/// Gives up root's rights, which refuse nothing, and tells what opening and creating come to.
fn nobody(args: &[&str]) {
    const NOBODY: libc::uid_t = 65_534;
    // SAFETY: they change the process's ids and touch no memory; root may.
    let dropped =
        unsafe { libc::geteuid() } != 0 || unsafe { libc::setgid(NOBODY) } == 0 && unsafe { libc::setuid(NOBODY) } == 0;
    assert!(dropped, "{}", std::io::Error::last_os_error());
    let path = Path::new(args[0]);
    let told = |opened: mmf::Result<Mapping>| match opened {
        Ok(map) => String::from_utf8(map.read_to_vec(0, map.len()).unwrap()).unwrap(),
        Err(error) => {
            assert_tells(&error, &[&Source::from(path).to_string(), "permission denied", "os error 13"]);
            format!("{:?}", error.kind())
        }
    };
    for access in [Access::ReadOnly, Access::CopyOnWrite, Access::ReadWrite] {
        peer::say(told(Mapping::options().access(access).open(path)));
    }
    let private = Mapping::options().access(Access::CopyOnWrite).open(path).unwrap();
    private.write_at(0, b"OURS").unwrap();
    let another = path.with_file_name("another");
    peer::say(format!("{:?}", kind(Mapping::create_new(another.as_path(), 1))));
    peer::say(format!("{:?}", kind(Mapping::open_or_create(another.as_path(), 1))));
}

fn what_may_only_be_read_is_opened_for_reading_alone() {
    let dir = TempDir::new();
    let path = dir.join("file");
    fs::write(&path, "read").unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    set(&path, 0o444);
    set(dir.path(), 0o555);
    let mut nobody = Peer::spawn("nobody", &[path.to_str().unwrap()]);
    for expected in ["read", "read", "PermissionDenied", "PermissionDenied", "PermissionDenied"] {
        nobody.expect(expected);
    }
    nobody.finish();
    assert_eq!(fs::read(&path).unwrap(), b"read");
    set(dir.path(), 0o755);
}

fn pipes_and_devices_are_refused_and_not_waited_for() {
    let dir = TempDir::new();
    let pipe = dir.join("pipe");
    let text = CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: the text ends with a zero and lives on; the call only reads it.
    assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    for path in [pipe, dir.join("socket"), "/dev/null".into(), "/dev/zero".into()] {
        for access in [Access::ReadOnly, Access::ReadWrite, Access::CopyOnWrite] {
            let options = Mapping::options().access(access).size(1);
            for opened in [options.open(&path), options.open_or_create(&path)] {
                let error = opened.unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{access:?} {error}");
                assert_tells(&error, &[&format!("file:{}", path.display())]);
            }
        }
        assert_eq!(kind(Mapping::create_new(&path, 1)), ErrorKind::AlreadyExists);
    }
}

fn a_link_leads_to_its_file_and_is_not_written_over() {
    let dir = TempDir::new();
    fs::write(dir.join("file"), "there").unwrap();
    symlink(dir.join("file"), dir.join("link")).unwrap();
    symlink(dir.join("nothing"), dir.join("dangling")).unwrap();
    Mapping::open(dir.join("link")).unwrap().write_at(0, b"T").unwrap();
    assert_eq!(fs::read(dir.join("file")).unwrap(), b"There");
    for link in ["link", "dangling"] {
        assert_eq!(kind(Mapping::create_new(dir.join(link), 1)), ErrorKind::AlreadyExists, "{link}");
    }
    assert_eq!(kind(Mapping::open(dir.join("dangling"))), ErrorKind::NotFound);
    assert!(!dir.join("nothing").exists());
}

fn a_reserve_takes_no_memory() {
    for kind in [Kind::Local, Kind::Global, Kind::Exact, Kind::File] {
        let fresh = kind.fresh().unwrap();
        let map = Mapping::options().size(page_size() as u64).reserve(FAR_MORE).create_new(&fresh.0).unwrap();
        let location = map.info().unwrap().location.unwrap();
        let taken = || fs::metadata(&location).unwrap().blocks() * 512;
        assert!(taken() <= 64 << 10, "{kind:?} takes {}", taken());
        // What has a size has its memory at once.
        map.grow(1 << 20).unwrap();
        assert!((1 << 20..2 << 20).contains(&taken()), "{kind:?} takes {}", taken());
        drop(map);
        forget(Some(fresh));
    }
}

fn a_handle_with_fewer_rights_is_refused() {
    let dir = TempDir::new();
    fs::write(dir.join("file"), "bytes").unwrap();
    let open = |write: bool| File::options().read(!write).write(write).open(dir.join("file")).unwrap();
    for access in [Access::ReadOnly, Access::CopyOnWrite] {
        let map = Mapping::options().access(access).from_handle(open(false).into()).unwrap();
        assert_eq!(map.read_to_vec(0, 5).unwrap(), b"bytes");
    }
    for (access, write) in [(Access::ReadWrite, false), (Access::ReadWrite, true), (Access::ReadOnly, true)] {
        let error = Mapping::options().access(access).from_handle(open(write).into()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{access:?} {error}");
        assert_tells(&error, &["the memory passed on", "fewer rights"]);
    }
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let refused = Mapping::options().from_handle(socket.into()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Unsupported { .. }), "{refused}");
}

fn memory_is_allocated_however_often_a_signal_comes() {
    extern "C" fn heard(_: libc::c_int) {}
    // SAFETY: `sigaction` is plain integers; all zeros are a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = heard as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does nothing, and both structures live on; no old one is asked for.
    let installed = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(installed, 0);
    let this = system::Thread::this();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // As a profiler or an interpreter's timer does.
            while !done.load(Ordering::Relaxed) {
                // SAFETY: the thread runs until this scope has ended.
                unsafe { this.signal(libc::SIGUSR1) };
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let map = Mapping::anonymous(256 << 20);
        let named = Mapping::create_new(Name::local(unique_name("signals")).unwrap(), 64 << 20);
        done.store(true, Ordering::Relaxed);
        assert_eq!((map.unwrap().len(), named.unwrap().len()), (256 << 20, 64 << 20));
    });
}
