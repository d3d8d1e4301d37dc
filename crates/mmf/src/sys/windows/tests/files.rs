use std::fs;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::PathBuf;

use windows_sys::Win32::System::Memory::PAGE_READWRITE;
use windows_sys::Win32::System::Threading::CreateEventW;

use super::*;
use crate::error::ErrorKind;
use crate::sys::windows::section::create_mapping;
use crate::sys::windows::security::{Descriptor, SecuredObject, User};
use crate::sys::windows::wide;
use crate::types::Permissions;

/// A directory that goes with the test. The testkit's would link a second copy of this library, whose routines have the
/// same symbols.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new() -> Dir {
        loop {
            let path = std::env::temp_dir().join(unique("dir"));
            match fs::create_dir(&path) {
                Ok(()) => return Dir(path),
                // A run that was killed may have had the same process id.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub(super) fn file(&self, name: &str) -> Source {
        self.0.join(name).into()
    }

    fn entries(&self) -> Vec<String> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn path(source: &Source) -> &std::path::Path {
    match source {
        Source::File(path) => path,
        Source::Named(_) => panic!("a file is meant"),
    }
}

#[test]
fn files_have_the_length_asked_for_and_keep_what_is_written() {
    let dir = Dir::new();
    for size in [1, 4095, 4096, 4097, 65536, 200_000] {
        let source = dir.file(&size.to_string());
        let object = Object::create(&source, &sized(size)).unwrap();
        assert_eq!((object.len().unwrap(), object.max_len()), (size, None));
        let whole = view(&object, 0, usize::MAX);
        assert_eq!(whole.address_len() as u64, size);
        write(&whole, whole.address_len() - 1, &[5]);
        whole.flush(whole.address_len() - 1, 1).unwrap();
        object.sync().unwrap();
        let found = fs::read(path(&source)).unwrap();
        assert_eq!((found.len() as u64, found.last()), (size, Some(&5)));
        let opened = Object::open(&source, &sized(size)).unwrap();
        assert_eq!(read(&view(&opened, size - 1, 10), 0, 1), [5]);
        let error = Object::open(&source, &sized(size + 1)).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Mismatch { .. }), "{error}");
        assert_eq!(fs::metadata(path(&source)).unwrap().len(), size);
    }
    assert_eq!(dir.entries().len(), 6, "nothing else is left: {:?}", dir.entries());
}

#[test]
fn an_empty_file_is_a_mapping_of_nothing_until_it_grows() {
    let dir = Dir::new();
    let source = dir.file("empty");
    let object = Object::create(&source, &sized(0)).unwrap();
    assert_eq!(object.len().unwrap(), 0);
    assert_eq!(view(&object, 0, 100).address_len(), 0);
    let opened = Object::open(&source, &Spec::default()).unwrap();
    object.grow(10).unwrap();
    assert_eq!(opened.len().unwrap(), 10);
    assert_eq!(read(&view(&opened, 0, 100), 0, 10), [0; 10]);
}

#[test]
fn a_file_is_created_once_and_never_replaced() {
    let dir = Dir::new();
    let source = dir.file("once");
    fs::write(path(&source), b"precious").unwrap();
    let error = Object::create(&source, &sized(100)).err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(fs::read(path(&source)).unwrap(), b"precious");
    assert_eq!(dir.entries(), ["once"]);
    let missing = Object::open(&dir.file("missing"), &Spec::default()).err().unwrap();
    assert_eq!(*missing.kind(), ErrorKind::NotFound, "{missing}");
    let nowhere = Object::create(&dir.file("missing\\x"), &sized(1)).err().unwrap();
    assert_eq!(*nowhere.kind(), ErrorKind::NotFound, "{nowhere}");
}

#[test]
fn of_many_creators_one_wins() {
    let dir = Dir::new();
    let source = dir.file("race");
    let won: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| match Object::create(&source, &sized(50_000)) {
                    Ok(_) => 1,
                    Err(error) => {
                        assert_eq!(*error.kind(), ErrorKind::AlreadyExists, "{error}");
                        0
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(won, 1);
    assert_eq!(dir.entries(), ["race"]);
}

#[test]
fn peer() {
    use crate::sys::windows::file::UnpublishedFile;
    let Some(directory) = Peer::argument() else { return };
    let descriptor = Descriptor::new(&Permissions::User, &User::current().unwrap(), SecuredObject::File).unwrap();
    let unpublished = UnpublishedFile::in_directory(std::path::Path::new(&directory), &descriptor).unwrap();
    tell("born");
    await_order();
    drop(unpublished);
}

#[test]
fn a_creator_that_is_killed_leaves_nothing() {
    let dir = Dir::new();
    let mut peer = Peer::new("files::peer", dir.0.to_str().unwrap());
    assert_eq!(peer.hear(), "born");
    peer.kill();
    let start = std::time::Instant::now();
    while !dir.entries().is_empty() {
        assert!(start.elapsed().as_secs() < 5, "{:?}", dir.entries());
    }
}

#[test]
fn other_programs_that_do_not_share_deletion_can_open_a_created_file() {
    use std::os::windows::fs::OpenOptionsExt;
    let dir = Dir::new();
    let source = dir.file("shared");
    let _object = Object::create(&source, &sized(10)).unwrap();
    // Reading and writing, as C's fopen does.
    fs::OpenOptions::new().read(true).write(true).share_mode(3).open(path(&source)).unwrap();
}

#[test]
fn files_grow_and_never_shrink() {
    let dir = Dir::new();
    let source = dir.file("growing");
    let object = Object::create(&source, &sized(100)).unwrap();
    let first = view(&object, 0, 100);
    write(&first, 99, &[7]);
    let other = Object::open(&source, &Spec::default()).unwrap();
    other.grow(100_000).unwrap();
    object.grow(5_000).unwrap();
    assert_eq!(object.len().unwrap(), 100_000);
    let second = view(&object, 65_537, usize::MAX);
    assert_eq!(second.address_len(), 100_000 - 65_537);
    assert_eq!(read(&view(&other, 0, 200), 98, 3), [0, 7, 0]);
    let reader = Object::open(&source, &Spec { access: Access::ReadOnly, ..Spec::default() }).unwrap();
    assert_eq!(*reader.grow(200_000).unwrap_err().kind(), ErrorKind::ReadOnly);
    std::thread::scope(|scope| {
        for thread in 1..=4 {
            let object = &object;
            scope.spawn(move || {
                for step in 1..=50 {
                    let len = 100_000 + step * 1_000 * thread;
                    object.grow(len).unwrap();
                    assert!(object.len().unwrap() >= len);
                }
            });
        }
    });
    assert_eq!(object.len().unwrap(), 300_000);
}

#[test]
fn a_file_that_may_only_be_read_is_read_and_copied() {
    let dir = Dir::new();
    let source = dir.file("read-only");
    fs::write(path(&source), b"twelve bytes").unwrap();
    let mut permissions = fs::metadata(path(&source)).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(path(&source), permissions.clone()).unwrap();
    // Under Wine, root may write it all the same.
    if let Err(error) = Object::open(&source, &Spec::default()) {
        assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
    for access in [Access::ReadOnly, Access::CopyOnWrite] {
        let object = Object::open(&source, &Spec { access, ..Spec::default() }).unwrap();
        let view = View::map(&object, &request(7, 100, access)).unwrap();
        assert_eq!(read(&view, 0, 5), b"bytes");
        view.flush(0, 5).unwrap();
        object.sync().unwrap();
        if access == Access::CopyOnWrite {
            write(&view, 0, b"BYTES");
            assert_eq!(read(&view, 0, 5), b"BYTES");
        }
        assert!(View::map(&object, &request(0, 1, Access::ReadWrite)).is_err());
    }
    assert_eq!(fs::read(path(&source)).unwrap(), b"twelve bytes");
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(path(&source), permissions).unwrap();
}

#[test]
fn files_are_passed_on_by_handle_and_grow_there_too() {
    let dir = Dir::new();
    let source = dir.file("handle");
    let object = Object::create(&source, &sized(10)).unwrap();
    let other = Object::from_handle(object.handle().try_clone_to_owned().unwrap(), &Spec::default()).unwrap();
    other.grow(70_000).unwrap();
    write(&view(&other, 0, 70_000), 69_999, &[3]);
    assert_eq!(read(&view(&object, 69_999, 1), 0, 1), [3]);
    let spec = Spec { access: Access::ReadOnly, ..Spec::default() };
    let reader = Object::open(&source, &spec).unwrap();
    let error = Object::from_handle(reader.handle().try_clone_to_owned().unwrap(), &Spec::default()).err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
    Object::from_handle(reader.into_handle(), &spec).unwrap();
}

#[test]
fn a_file_has_the_permissions_asked_for() {
    let dir = Dir::new();
    let source = dir.file("permissions");
    let spec = Spec { permissions: Some(Permissions::User), ..sized(1) };
    let object = Object::create(&source, &spec).unwrap();
    let info = object.info().unwrap();
    assert!(info.location.unwrap().ends_with("\\permissions"));
    // Wine makes a mode of the DACL, and a DACL of the mode: it lets the system in and is not protected.
    let sid = User::current().unwrap().sid;
    assert!(info.permissions.contains(&format!("(A;;FA;;;{sid})")), "{}", info.permissions);
    let everyone = Spec { permissions: Some(Permissions::Everyone), ..Spec::default() };
    let error = Object::open(&source, &everyone).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Mismatch { .. }), "{error}");
    let found = Spec { permissions: Some(Permissions::Sddl(info.permissions)), ..Spec::default() };
    Object::open(&source, &found).unwrap();
}

#[test]
fn a_named_section_that_another_program_made_of_a_file_works() {
    let dir = Dir::new();
    let source = dir.file("named");
    fs::write(path(&source), [1; 5_000]).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(path(&source)).unwrap();
    let text = unique("of a file");
    let name = wide(&text);
    let made = create_mapping(file.as_raw_handle(), std::ptr::null(), PAGE_READWRITE, 0, Some(&name)).unwrap();
    let spec = Spec { allow_other_owners: true, ..Spec::default() };
    let object = Object::open(&Name::exact(text).unwrap().into(), &spec).unwrap();
    assert_eq!((object.len().unwrap(), object.max_len()), (5_000, Some(5_000)));
    let view = view(&object, 4_999, usize::MAX);
    assert_eq!(view.address_len(), 1);
    write(&view, 0, &[2]);
    view.flush(0, 1).unwrap();
    assert_eq!(fs::read(path(&source)).unwrap()[4_998..], [1, 2]);
    assert!(matches!(object.sync().unwrap_err().kind(), ErrorKind::Unsupported { .. }));
    assert!(object.grow(5_001).is_err());
    drop(made);
}

#[test]
fn long_paths_work() {
    let dir = Dir::new();
    let deep = dir.0.join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    let source: Source = deep.join("f".repeat(60)).into();
    assert!(path(&source).as_os_str().len() > 260);
    Object::create(&source, &sized(10)).unwrap();
    assert_eq!(Object::open(&source, &sized(10)).unwrap().len().unwrap(), 10);
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = Dir::new();
    let directory: Source = dir.0.clone().into();
    for source in [directory, PathBuf::from("NUL").into()] {
        let error = Object::open(&source, &Spec::default()).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error}");
    }
    // SAFETY: no name and no attributes.
    let event = unsafe { CreateEventW(std::ptr::null(), 0, 0, std::ptr::null()) };
    // SAFETY: just created, and owned by nobody else.
    let event = unsafe { OwnedHandle::from_raw_handle(event) };
    let error = Object::from_handle(event, &Spec::default()).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error}");
    let spec = Spec { large_pages: LargePages::Require, ..sized(1) };
    let error = Object::create(&dir.file("large"), &spec).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error}");
    assert!(dir.entries().is_empty());
}
