//! Every option: its effect, and the error that refuses it.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use mmf::{Access, ErrorKind, FaultPolicy, LargePages, Mapping, MappingOptions, Name, Permissions, page_size};
use testkit::{TempDir, unique_name};

use crate::support::cases::{Case, Kind, POLICIES, assert_tells, copied, kind, pattern};
use crate::support::stories::stories;

/// A reserve of more memory than a test may take, as far as addresses reach.
const FAR_MORE: u64 = if usize::BITS == 64 { 64 << 30 } else { 256 << 20 };

stories! {
    a_mapping_tells_what_it_was_asked_for,
    a_read_only_mapping_refuses_every_change,
    memory_needs_a_size,
    what_no_machine_can_hold_is_refused_and_not_left_behind,
    a_reserve_is_no_less_than_the_size_and_costs_nothing,
    what_exists_must_be_as_large_as_is_demanded,
    what_exists_is_not_created_and_what_does_not_is_not_opened,
    large_pages_are_had_or_the_error_tells_what_is_missing,
    prefaulted_memory_is_as_any_other,
    a_base_address_is_honoured_or_refused,
    a_part_lies_within_its_object,
    what_cannot_be_mapped_is_not_left_behind,
    no_way_of_opening_changes_a_file,
    an_empty_file_is_mapped_and_grows,
    what_is_no_file_is_refused,
    foreign_ways_to_tell_rights_are_refused,
}

#[cfg(unix)]
mod rights;

/// Read-write, the whole, under the default policy.
fn simple() -> impl Iterator<Item = Case> {
    let simple = |kind| Case { kind, part: None, policy: FaultPolicy::Trap, access: Access::ReadWrite };
    Kind::all().into_iter().map(simple)
}

/// Creates in any of the ways: what has a source by it, anonymous memory without.
fn create(kind: Kind, options: &MappingOptions) -> (mmf::Result<Mapping>, Option<(mmf::Source, Option<TempDir>)>) {
    let fresh = kind.fresh();
    let made = match &fresh {
        Some((source, _)) => options.create_new(source),
        None => options.anonymous(),
    };
    (made, fresh)
}

#[track_caller]
fn assert_nothing_at(source: &mmf::Source) {
    if let mmf::Source::File(path) = source {
        assert!(!path.exists(), "{} was left behind", path.display());
    }
    assert_eq!(kind(Mapping::open(source)), ErrorKind::NotFound, "{source} was left behind");
}

fn a_mapping_tells_what_it_was_asked_for() {
    for access in [Access::ReadOnly, Access::ReadWrite, Access::CopyOnWrite] {
        for case in simple().flat_map(|case| POLICIES.map(|policy| Case { policy, access, ..case })) {
            if case.kind == Kind::Anonymous && access != Access::ReadWrite {
                continue;
            }
            let made = case.make();
            assert_eq!((made.view.access(), made.view.fault_policy()), (access, case.policy), "{case:?}");
            let source = made.view.source().map(ToString::to_string);
            assert_eq!(source.is_some(), case.kind.fresh().is_some(), "{case:?}");
            assert_eq!(source, made.whole.source().map(ToString::to_string));
            assert_eq!(made.view.name().map(ToString::to_string), source.filter(|_| case.kind != Kind::File));
            let info = made.view.info().unwrap();
            assert!(!info.owner.is_empty() && !info.permissions.is_empty(), "{case:?}: {info:?}");
        }
    }
}

fn a_read_only_mapping_refuses_every_change() {
    let other = Mapping::anonymous(100).unwrap();
    for case in simple().filter(|case| case.kind != Kind::Anonymous) {
        let mut made = Case { access: Access::ReadOnly, ..case }.make();
        let map = &mut made.view;
        let name = map.source().map_or("anonymous memory".to_owned(), ToString::to_string);
        for (doing, result) in [
            ("write", map.write_at(0, b"x")),
            ("write", map.write_at(0, b"")),
            ("fill", map.fill(.., 1)),
            ("copy", other.copy_to(.., map, 0)),
            ("grow", map.grow(1 << 20)),
            ("write", map.as_mut_ptr().map(|_| ())),
            // SAFETY: no slice comes of it, which is what is asserted.
            ("write", unsafe { map.as_mut_slice() }.map(|_| ())),
        ] {
            let error = result.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::ReadOnly, "{case:?} {doing}");
            assert_tells(&error, &[&format!("cannot {doing} {name}: it is read-only")]);
        }
        map.copy_to(..100, &other, 0).unwrap();
        map.flush(..).unwrap();
        map.sync(..).unwrap();
        assert_eq!(made.whole.read_to_vec(0, 9).unwrap(), [0; 9], "{case:?}");
    }
}

fn memory_needs_a_size() {
    for kind in Kind::all().into_iter().filter(|kind| *kind != Kind::File) {
        for options in [Mapping::options(), Mapping::options().size(0), Mapping::options().size(0).reserve(0)] {
            let (made, fresh) = create(kind, &options);
            let error = made.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{kind:?}: {error}");
            assert_tells(&error, &["size", "give one with `size`"]);
            if let Some((source, _)) = fresh {
                let error = options.open_or_create(&source).unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{kind:?}: {error}");
                assert_tells(&error, &[&source.to_string()]);
                assert_nothing_at(&source);
            }
        }
    }
}

fn what_no_machine_can_hold_is_refused_and_not_left_behind() {
    for kind in Kind::all() {
        for size in [1 << 50, 1 << 62, i64::MAX as u64, 1 << 63, u64::MAX] {
            let started = Instant::now();
            let (made, fresh) = create(kind, &Mapping::options().size(size));
            let error = made.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::NoSpace, "{kind:?} {size}: {error}");
            assert!(started.elapsed() < Duration::from_secs(10), "{kind:?} {size}");
            if let Some((source, _)) = fresh {
                assert_tells(&error, &["cannot create", &source.to_string(), "no space"]);
                assert_nothing_at(&source);
            }
        }
    }
}

fn a_reserve_is_no_less_than_the_size_and_costs_nothing() {
    let page = page_size() as u64;
    for kind in Kind::all() {
        let (made, fresh) = create(kind, &Mapping::options().size(page + 1).reserve(page));
        let error = made.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{kind:?}: {error}");
        assert_tells(&error, &[&page.to_string(), &(page + 1).to_string()]);
        if let Some((source, _)) = fresh {
            assert_nothing_at(&source);
        }
    }
    for case in simple() {
        let started = Instant::now();
        let made = case.make_with(page_size(), Mapping::options().reserve(FAR_MORE));
        assert!(started.elapsed() < Duration::from_secs(5), "{case:?} took {:?}", started.elapsed());
        assert_eq!(made.whole.len(), page_size(), "{case:?}");
        // It may also be all there is at first.
        if let (Ok(map), _) = create(case.kind, &Mapping::options().reserve(FAR_MORE)) {
            assert!(map.len() <= page_size(), "{case:?}");
            map.grow(5).unwrap();
            map.write_at(0, b"grown").unwrap();
            if let Some(name) = map.name().filter(|_| case.kind == Kind::Exact && cfg!(unix)) {
                name.unlink().unwrap();
            }
        }
    }
}

fn what_exists_must_be_as_large_as_is_demanded() {
    for case in simple() {
        let made = case.make_with(page_size(), Mapping::options());
        let open = |options: MappingOptions| match made.whole.source() {
            Some(source) => vec![options.open(source), options.open_or_create(source)],
            None => vec![options.from_handle(copied(&made.whole))],
        };
        for size in [1, page_size() as u64] {
            for opened in open(Mapping::options().size(size)) {
                assert_eq!(opened.unwrap().len(), page_size(), "{case:?} {size}");
            }
        }
        for size in [page_size() as u64 + 1, u64::MAX] {
            for opened in open(Mapping::options().size(size)) {
                let error = opened.unwrap_err();
                let ErrorKind::Mismatch { wanted, found, .. } = error.kind() else { panic!("{case:?}: {error}") };
                assert!(wanted.contains(&size.to_string()), "{case:?}: {error}");
                assert!(found.contains(&page_size().to_string()), "{case:?}: {error}");
                assert_tells(&error, &["cannot open", wanted, found]);
            }
        }
        assert_eq!(made.whole.refresh().unwrap(), page_size(), "{case:?}");
    }
}

fn what_exists_is_not_created_and_what_does_not_is_not_opened() {
    for case in simple() {
        let Some((missing, _dir)) = case.kind.fresh() else { continue };
        let error = Mapping::open(&missing).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{case:?}: {error}");
        assert_tells(&error, &["cannot open", &missing.to_string(), "not found"]);
        assert_nothing_at(&missing);

        let made = case.make();
        made.whole.write_at(0, b"what is there").unwrap();
        let source = made.whole.source().unwrap();
        let error = Mapping::create_new(source, 5).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::AlreadyExists, "{case:?}: {error}");
        assert_tells(&error, &["cannot create", &source.to_string(), "exists already"]);
        let opened = Mapping::open_or_create(source, 5).unwrap();
        assert_eq!((opened.len(), opened.read_to_vec(0, 13).unwrap()), (made.whole.len(), b"what is there".to_vec()));
    }
}

fn large_pages_are_had_or_the_error_tells_what_is_missing() {
    for kind in Kind::all() {
        for (size, reserve) in [(1, 1), (3 << 20, 3 << 20), (2 << 20, 64 << 20)] {
            let options = Mapping::options().size(size).reserve(reserve);
            let (made, fresh) = create(kind, &options.clone().large_pages(LargePages::Prefer));
            let map = made.unwrap();
            map.write_at(0, b"p").unwrap();
            assert!(map.len() as u64 >= size, "{kind:?}");
            assert_eq!(map.read_to_vec(0, 1).unwrap(), b"p", "{kind:?}");
            drop(map);
            forget(fresh);

            let (made, fresh) = create(kind, &options.large_pages(LargePages::Require));
            match made {
                Ok(map) => {
                    assert!(map.len() as u64 >= size && map.len() % (2 << 20) == 0, "{kind:?}: {}", map.len());
                    map.write_at(0, b"r").unwrap();
                    if reserve > map.len() as u64 {
                        map.grow(usize::try_from(reserve).unwrap()).unwrap();
                        assert_eq!((map.len() as u64, map.read_to_vec(0, 1).unwrap()), (reserve, b"r".to_vec()));
                    }
                    assert_eq!(map.as_ptr().addr() % (2 << 20), 0, "{kind:?}");
                }
                // Windows commits large pages at creation.
                Err(error) if cfg!(windows) && kind != Kind::File && reserve > size => {
                    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{kind:?}: {error}");
                    assert_tells(&error, &["large pages cannot grow"]);
                }
                Err(error) => {
                    let refused = matches!(error.kind(), ErrorKind::Unsupported { .. } | ErrorKind::PermissionDenied);
                    assert!(refused, "{kind:?}: {error}");
                    let missing = match kind {
                        Kind::File => "for a file",
                        _ if cfg!(windows) => "SeLockMemoryPrivilege",
                        _ => "shmem_enabled",
                    };
                    assert_tells(&error, &["large pages", missing]);
                    if let Some((source, _)) = &fresh {
                        assert_nothing_at(source);
                    }
                }
            }
            forget(fresh);
        }
    }
}

/// Removes what lives by the system's own rule.
fn forget(fresh: Option<(mmf::Source, Option<TempDir>)>) {
    if let Some((mmf::Source::Named(name), _)) = fresh {
        let _ = name.unlink();
    }
}

fn prefaulted_memory_is_as_any_other() {
    for case in Case::all() {
        let made = case.make();
        let bytes = pattern(1, made.bytes().len());
        made.whole.write_at(0, &bytes).unwrap();
        for access in [Access::ReadOnly, Access::ReadWrite, Access::CopyOnWrite] {
            let options = Case { access, ..case }.options().prefault(true);
            let map = match made.whole.source() {
                Some(source) => options.open(source),
                None => options.from_handle(copied(&made.whole)),
            };
            let map = map.unwrap_or_else(|error| panic!("{case:?} {access:?}: {error}"));
            assert_eq!(
                map.read_to_vec(0, map.len()).unwrap(),
                bytes[made.from()..][..map.len()],
                "{case:?} {access:?}"
            );
        }
        assert_eq!(made.bytes(), bytes, "{case:?}");
    }
}

fn a_base_address_is_honoured_or_refused() {
    // In a run of addresses that were free a moment ago, far from its ends.
    const FREE: usize = 1 << 30;
    let free = Mapping::options().size(1).reserve(FREE as u64).anonymous().unwrap().as_ptr().addr() + FREE / 2;
    let free = free.next_multiple_of(64 << 10);
    for case in simple() {
        let made = case.make_with(200_000, Mapping::options());
        made.whole.write_at(0, &pattern(1, 200_000)).unwrap();
        let open = |options: MappingOptions| match made.whole.source() {
            Some(source) => options.open(source),
            None => options.from_handle(copied(&made.whole)),
        };
        let map = open(Mapping::options().base_address(free)).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        assert_eq!(map.as_ptr().addr(), free, "{case:?}");
        assert_eq!(map.read_to_vec(0, 200_000).unwrap(), pattern(1, 200_000), "{case:?}");

        let refused = |options: MappingOptions, address: usize| {
            let error = open(options.base_address(address)).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{case:?} {address:#x}: {error}");
            assert_tells(&error, &[&format!("{address:#x}")]);
        };
        // Taken, and what is there stays.
        refused(Mapping::options(), free);
        refused(Mapping::options(), made.whole.as_ptr().addr());
        assert_eq!(map.read_to_vec(0, 200_000).unwrap(), pattern(1, 200_000), "{case:?}");
        drop(map);
        for address in [0, 1, free + 1, free + page_size() - 1, usize::MAX] {
            refused(Mapping::options(), address);
        }
        // A part's place in its page is the offset's.
        let part = open(Mapping::options().part(65_536 + 13..100_000).base_address(free + 13)).unwrap();
        assert_eq!(part.as_ptr().addr(), free + 13, "{case:?}");
        assert_eq!(part.read_to_vec(0, 9).unwrap(), pattern(1, 200_000)[65_536 + 13..][..9], "{case:?}");
        drop(part);
        refused(Mapping::options().part(13..100), free);
    }
}

fn a_part_lies_within_its_object() {
    for case in simple() {
        let made = case.make();
        let size = made.whole.len() as u64;
        let open = |options: MappingOptions| match made.whole.source() {
            Some(source) => options.open(source),
            None => options.from_handle(copied(&made.whole)),
        };
        made.whole.write_at(0, &pattern(1, made.whole.len())).unwrap();
        for (options, from, to) in [
            (Mapping::options().part(..), 0, size),
            (Mapping::options().part(0..=size - 1), 0, size),
            (Mapping::options().part(1..), 1, size),
            (Mapping::options().part(..1), 0, 1),
            (Mapping::options().part(size - 1..), size - 1, size),
            (Mapping::options().part(size..), size, size),
            (Mapping::options().part(size..size), size, size),
            (Mapping::options().part(0..0), 0, 0),
            (Mapping::options().part(5000..5000), 5000, 5000),
        ] {
            let map = open(options).unwrap_or_else(|error| panic!("{case:?} {from}..{to}: {error}"));
            assert_eq!(map.len() as u64, to - from, "{case:?} {from}..{to}");
            let bytes = &pattern(1, made.whole.len())[usize::try_from(from).unwrap()..][..map.len()];
            assert_eq!(map.read_to_vec(0, map.len()).unwrap(), bytes, "{case:?} {from}..{to}");
            assert_eq!(map.is_empty(), from == to);
        }
        for options in [
            Mapping::options().part(..size + 1),
            Mapping::options().part(..=size),
            Mapping::options().part(size + 1..),
            Mapping::options().part(u64::MAX..),
            Mapping::options().part(0..=u64::MAX),
            Mapping::options().part(u64::MAX..=u64::MAX),
        ] {
            let error = open(options).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Mismatch { .. }), "{case:?}: {error}");
            assert_tells(&error, &[&size.to_string()]);
        }
        let reversed = open(Mapping::options().part((std::ops::Bound::Included(9), std::ops::Bound::Excluded(3))));
        let error = reversed.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{case:?}: {error}");
        assert_tells(&error, &["9", "3"]);
    }
}

fn what_cannot_be_mapped_is_not_left_behind() {
    let taken = Mapping::anonymous(1).unwrap();
    for kind in Kind::all() {
        for options in [
            Mapping::options().part(0..4097 * 1024),
            Mapping::options().base_address(taken.as_ptr().addr() + 1),
            Mapping::options().base_address(taken.as_ptr().addr()),
            Mapping::options().reserve(1 << 63),
        ] {
            let (made, fresh) = create(kind, &options.size(4096));
            let error = made.unwrap_err();
            if let Some((source, _)) = fresh {
                assert_tells(&error, &[&source.to_string()]);
                assert_nothing_at(&source);
            }
        }
    }
}

fn no_way_of_opening_changes_a_file() {
    let dir = TempDir::new();
    let path = dir.join("file");
    let bytes = pattern(1, 2 * page_size() + 77);
    fs::write(&path, &bytes).unwrap();
    let len = bytes.len() as u64;
    let mut ways = 0;
    for access in [Access::ReadOnly, Access::ReadWrite, Access::CopyOnWrite] {
        for policy in POLICIES {
            for change in [
                |options: MappingOptions, _| options,
                |options: MappingOptions, _| options.size(0),
                |options: MappingOptions, _| options.size(1),
                |options: MappingOptions, len| options.size(len),
                |options: MappingOptions, len| options.size(len + 1),
                |options: MappingOptions, len| options.reserve(len * 10),
                |options: MappingOptions, _| options.part(5..9),
                |options: MappingOptions, len| options.part(len..),
                |options: MappingOptions, len| options.part(len + 1..),
                |options: MappingOptions, _| options.prefault(true),
                |options: MappingOptions, _| options.large_pages(LargePages::Prefer),
                |options: MappingOptions, _| options.large_pages(LargePages::Require),
                |options: MappingOptions, _| options.base_address(1),
                |options: MappingOptions, _| options.permissions(Permissions::Everyone),
            ] {
                let options = change(Mapping::options().access(access).fault_policy(policy), len);
                for opened in [options.open(&path), options.open_or_create(&path), options.create_new(&path)] {
                    if let Ok(map) = &opened {
                        let _ = (map.grow(1), map.grow(map.len()), map.refresh(), map.flush(..), map.sync(..));
                        ways += 1;
                    }
                    drop(opened);
                    assert_eq!(fs::read(&path).unwrap(), bytes, "{options:?}");
                }
            }
        }
    }
    assert!(ways > 100, "only {ways} ways opened it");
}

fn an_empty_file_is_mapped_and_grows() {
    let dir = TempDir::new();
    let path = dir.join("file");
    File::create(&path).unwrap();
    for access in [Access::ReadOnly, Access::CopyOnWrite, Access::ReadWrite] {
        let map = Mapping::options().access(access).prefault(true).open(&path).unwrap();
        assert!(map.is_empty());
        assert_eq!(kind(map.read_to_vec(0, 1)), ErrorKind::OutOfBounds { offset: 0, len: 1, size: 0 });
        map.flush(..).unwrap();
    }
    let map = Mapping::open_or_create(&path, 0).unwrap();
    let reader = Mapping::options().access(Access::ReadOnly).open(&path).unwrap();
    map.grow(page_size() + 5).unwrap();
    map.write_at(page_size(), b"grown").unwrap();
    assert_eq!(reader.read_to_vec(page_size(), 5).unwrap(), b"grown");
    assert_eq!(fs::read(&path).unwrap()[page_size()..], *b"grown");
    // One that is created empty.
    let made = Mapping::options().create_new(dir.join("made")).unwrap();
    assert_eq!((made.len(), fs::metadata(dir.join("made")).unwrap().len()), (0, 0));
    made.grow(3).unwrap();
    assert_eq!(fs::read(dir.join("made")).unwrap(), [0; 3]);
}

fn what_is_no_file_is_refused() {
    let dir = TempDir::new();
    let missing = dir.join("no such directory").join("file");
    let error = Mapping::create_new(&missing, 1).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    assert_tells(&error, &[&missing.display().to_string(), "directory"]);
    for error in [Mapping::open(&missing).unwrap_err(), Mapping::open_or_create(&missing, 1).unwrap_err()] {
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    }
    for access in [Access::ReadOnly, Access::ReadWrite, Access::CopyOnWrite] {
        for path in [dir.path().to_owned(), dir.join(".")] {
            let error = Mapping::options().access(access).open(&path).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Unsupported { .. } | ErrorKind::PermissionDenied),
                "{access:?} {error}"
            );
            assert_tells(&error, &[&format!("file:{}", path.display())]);
        }
    }
    for path in ["", "/", "..", "\0"] {
        assert!(Mapping::create_new(std::path::Path::new(path), 1).is_err(), "{path:?}");
    }
}

fn foreign_ways_to_tell_rights_are_refused() {
    let page = page_size() as u64;
    let foreign = if cfg!(windows) { Permissions::Mode(0o600) } else { Permissions::Sddl("D:".to_owned()) };
    for kind in Kind::all().into_iter().filter(|kind| !matches!(kind, Kind::Anonymous | Kind::Passed)) {
        let (made, fresh) = create(kind, &Mapping::options().size(page).permissions(foreign.clone()));
        let error = made.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{kind:?}: {error}");
        assert_nothing_at(&fresh.unwrap().0);
    }
    // What is this user's own cannot be everyone's.
    let name = Name::local(unique_name("all")).unwrap();
    let error = Mapping::options().size(page).permissions(Permissions::Everyone).create_new(&name).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert_tells(&error, &[&name.to_string(), "global name"]);
}
