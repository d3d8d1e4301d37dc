//! Objects of other programs, opened by their exact names, and the reverse.

use std::process::Command;

use mmf::{Access, ErrorKind, Mapping, Name};
use testkit::{DEADLINE, Watchdog, unique_name};

use crate::support::program::Program;

/// No multiple of a page, where the system keeps such sizes.
const SIZE: usize = 5000;

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn exact(plain: &str) -> Name {
        Name::exact(format!("/{plain}")).unwrap()
    }

    fn python(arguments: &[&str]) -> Program {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hosts/shared.py");
        Program::start(Command::new("python3").arg(script).args(arguments))
    }

    #[test]
    #[ignore = "needs python3"]
    fn what_python_shares_is_read_and_written_and_never_unlinked_by_us() {
        let _watchdog = Watchdog::start(DEADLINE * 3);
        let plain = unique_name("python");
        let mut python = python(&["create", &plain, &SIZE.to_string()]);
        python.says(&format!("ready {SIZE} a python"));
        let name = exact(&plain);
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let map = Mapping::options().access(access).size(SIZE as u64).open(&name).unwrap();
            assert_eq!(map.len(), SIZE);
            assert_eq!(map.read_to_vec(0, 8).unwrap(), b"a python");
        }
        // The last of ours is gone, and theirs is judged by nobody.
        mmf::sweep().unwrap();
        assert!(mmf::list().unwrap().iter().all(|listed| !listed.name.as_str().contains(&plain)));
        let map = Mapping::open_or_create(&name, SIZE as u64).expect("it is still there");
        map.write_at(100, b"from mmf").unwrap();
        python.hears("look");
        python.says("from mmf");
        python.says("written");
        assert_eq!(map.read_to_vec(200, 8).unwrap(), b"python 2");
        // Also when its maker has gone and left it, as Python's objects do until they are unlinked.
        python.hears("leave");
        python.ends();
        drop(map);
        let map = Mapping::open(&name).expect("nobody has unlinked it");
        assert_eq!(map.read_to_vec(200, 8).unwrap(), b"python 2");
        name.unlink().unwrap();
        assert_eq!(*Mapping::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    #[ignore = "needs python3"]
    fn what_we_share_python_reads_writes_and_can_unlink() {
        let _watchdog = Watchdog::start(DEADLINE * 3);
        for order in ["leave", "unlink"] {
            let plain = unique_name("python");
            let name = exact(&plain);
            let map = Mapping::create_new(&name, SIZE as u64).unwrap();
            map.write_at(0, b"from mmf").unwrap();
            let mut python = python(&["open", &plain]);
            python.says(&format!("ready {SIZE} from mmf"));
            map.write_at(100, b"and more").unwrap();
            python.hears("look");
            python.says("and more");
            python.says("written");
            assert_eq!(map.read_to_vec(200, 8).unwrap(), b"python 2");
            python.hears(order);
            python.ends();
            if order == "unlink" {
                assert_eq!(*name.unlink().unwrap_err().kind(), ErrorKind::NotFound, "Python has unlinked it");
                assert_eq!(map.read_to_vec(0, 8).unwrap(), b"from mmf", "who holds it keeps it");
            } else {
                name.unlink().expect("Python has left it");
            }
        }
    }

    #[test]
    #[ignore = "needs python3"]
    fn what_a_killed_python_shared_stays_with_us_when_pythons_own_tracker_unlinks_it() {
        let _watchdog = Watchdog::start(DEADLINE * 3);
        let plain = unique_name("python");
        let mut python = python(&["create", &plain, &SIZE.to_string()]);
        python.says(&format!("ready {SIZE} a python"));
        let map = Mapping::open(exact(&plain)).unwrap();
        python.dies();
        // The tracker is another process of Python's, which ends in its own time.
        while Mapping::open(exact(&plain)).is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(map.read_to_vec(0, 8).unwrap(), b"a python");
    }

    /// `shm_open` as any POSIX program calls it.
    fn shm_open(plain: &str, flags: i32) -> File {
        let name = std::ffi::CString::new(format!("/{plain}")).unwrap();
        // SAFETY: a string that ends with a zero; the mode is read where the flags create.
        let fd = unsafe { libc::shm_open(name.as_ptr(), flags, 0o600) };
        assert_ne!(fd, -1, "{}", std::io::Error::last_os_error());
        // SAFETY: just opened, and nobody else's.
        File::from(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    #[test]
    fn an_exact_name_is_what_shm_open_takes_both_ways() {
        use std::os::unix::fs::FileExt;
        let plain = unique_name("posix");
        let theirs = shm_open(&plain, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR);
        theirs.set_len(SIZE as u64).unwrap();
        let map = Mapping::open(exact(&plain)).unwrap();
        assert_eq!(map.len(), SIZE);
        map.write_at(SIZE - 8, b"from mmf").unwrap();
        let mut seen = [0; 8];
        theirs.read_exact_at(&mut seen, SIZE as u64 - 8).unwrap();
        assert_eq!(&seen, b"from mmf");
        drop(map);
        assert_eq!(theirs.metadata().unwrap().nlink(), 1, "ours has unlinked theirs");
        exact(&plain).unlink().unwrap();
        assert_eq!(theirs.metadata().unwrap().nlink(), 0);

        let name = exact(&plain);
        let map = Mapping::create_new(&name, SIZE as u64).unwrap();
        map.write_at(0, b"ours").unwrap();
        let theirs = shm_open(&plain, libc::O_RDWR);
        let metadata = theirs.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o777), (SIZE as u64, 0o600));
        theirs.write_all_at(b"theirs", 100).unwrap();
        assert_eq!(map.read_to_vec(100, 6).unwrap(), b"theirs");
        name.unlink().unwrap();
    }

    #[test]
    fn what_another_program_made_without_a_size_opens_empty_and_is_left_as_it_is() {
        let plain = unique_name("posix");
        let theirs = shm_open(&plain, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR);
        let name = exact(&plain);
        let error = Mapping::open_or_create(&name, SIZE as u64).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Mismatch { .. }), "{error}");
        assert_eq!(theirs.metadata().unwrap().len(), 0);
        let map = Mapping::open(&name).unwrap();
        assert!(map.is_empty());
        // Their size is found as soon as it is there.
        theirs.set_len(SIZE as u64).unwrap();
        assert_eq!(map.refresh().unwrap(), SIZE);
        map.write_at(SIZE - 1, &[1]).unwrap();
        name.unlink().unwrap();
    }
}

/// With `tests/hosts/section.c`, built by whatever C compiler is there, at the path that MMF_SECTION tells.
#[cfg(windows)]
mod windows {
    use mmf::MappingOptions;

    use super::*;

    fn section(arguments: &[&str]) -> Program {
        let program = std::env::var("MMF_SECTION").expect("MMF_SECTION is the path of section.exe");
        Program::start(Command::new(program).args(arguments))
    }

    fn pages(size: usize) -> usize {
        size.next_multiple_of(mmf::page_size())
    }

    /// For what the C program made: Windows notes this user as its owner, Wine nobody.
    fn theirs() -> MappingOptions {
        Mapping::options().size(SIZE as u64).allow_other_owners(true)
    }

    fn exact() -> Name {
        Name::exact(format!("Local\\{}", unique_name("c"))).unwrap()
    }

    #[test]
    #[ignore = "needs tests/hosts/section.c, built"]
    fn a_section_that_a_c_program_made_is_read_and_written_and_goes_with_its_last_holder() {
        let _watchdog = Watchdog::start(DEADLINE * 3);
        let name = exact();
        let mut c = section(&["create", name.as_str(), &SIZE.to_string()]);
        c.says("ready");
        let reader = theirs().access(Access::ReadOnly).open(&name).unwrap();
        assert_eq!(reader.len(), pages(SIZE));
        assert_eq!(reader.read_to_vec(0, 6).unwrap(), b"from C");
        let map = theirs().open_or_create(&name).unwrap();
        assert_eq!(map.read_to_vec(0, 6).unwrap(), b"from C", "a second object of that name");
        map.write_at(100, b"from mmf").unwrap();
        c.hears("look");
        c.says("from mmf");
        c.ends();
        // Ours alone now keep it.
        drop(reader);
        assert_eq!(theirs().open(&name).unwrap().read_to_vec(100, 8).unwrap(), b"from mmf");
        drop(map);
        assert_eq!(*Mapping::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    #[ignore = "needs tests/hosts/section.c, built"]
    fn a_section_that_we_made_a_c_program_reads_and_writes() {
        let _watchdog = Watchdog::start(DEADLINE * 3);
        let name = exact();
        let map = Mapping::create_new(&name, SIZE as u64).unwrap();
        map.write_at(0, b"from mmf").unwrap();
        map.write_at(100, b"and more").unwrap();
        let mut c = section(&["open", name.as_str()]);
        c.says("ready from mmf");
        assert_eq!(map.read_to_vec(200, 8).unwrap(), b"by C too");
        c.hears("look");
        c.says("and more");
        c.ends();
        assert_eq!(map.read_to_vec(0, 8).unwrap(), b"from mmf");
    }

    #[test]
    #[ignore = "needs tests/hosts/section.c, built"]
    fn a_killed_c_program_takes_nothing_from_us() {
        let _watchdog = Watchdog::start(DEADLINE * 3);
        let name = exact();
        let mut c = section(&["create", name.as_str(), &SIZE.to_string()]);
        c.says("ready");
        let map = theirs().open(&name).unwrap();
        c.dies();
        assert_eq!(map.read_to_vec(0, 6).unwrap(), b"from C");
        drop(theirs().open(&name).expect("ours holds it"));
        drop(map);
        assert_eq!(*Mapping::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
