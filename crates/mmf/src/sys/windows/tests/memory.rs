use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{GetHandleInformation, HANDLE_FLAG_INHERIT};
use windows_sys::Win32::System::Threading::CreateEventW;

use super::*;
use crate::error::ErrorKind;
use crate::name::Scope;
use crate::sys::windows::security::{Descriptor, SecuredObject, User};
use crate::sys::windows::view::Mapped;
use crate::sys::windows::{granularity, list, names, wide};
use crate::types::Permissions;

/// For the peers of these tests: opens the name, then follows orders.
#[test]
fn peer() {
    let Some(name) = Peer::argument() else { return };
    let object = Object::open(&Name::local(name).unwrap().into(), &Spec::default()).unwrap();
    let whole = view(&object, 0, if usize::BITS == 64 { usize::MAX } else { NARROW });
    tell(object.len().unwrap());
    loop {
        match await_order().split_once(' ') {
            Some(("grow", len)) => {
                object.grow(len.parse().unwrap()).unwrap();
                tell(object.len().unwrap());
            }
            Some(("len", _)) => tell(object.len().unwrap()),
            Some(("read", offset)) => {
                let offset: u64 = offset.parse().unwrap();
                let byte = match usize::try_from(offset) {
                    Ok(offset) => read(&whole, offset, 1),
                    Err(_) => read(&view(&object, offset, 1), 0, 1),
                };
                tell(byte[0]);
            }
            Some(("write", offset)) => {
                write(&whole, offset.parse().unwrap(), &[77]);
                tell("done");
            }
            _ => return,
        }
    }
}

/// The reach of a view for which a process with 32 bits has room.
const NARROW: usize = 1 << 29;

fn text(source: &Source) -> &str {
    match source {
        Source::Named(name) => name.as_str(),
        Source::File(_) => panic!("a name is meant"),
    }
}

#[test]
fn another_process_finds_what_was_created_and_both_see_changes() {
    let source = local("two");
    let object = Object::create(&source, &sized(10_000)).unwrap();
    assert_eq!(object.len().unwrap(), 12_288, "memory comes in pages");
    assert_eq!(object.max_len(), Some(12_288));
    let view = view(&object, 0, 10_000);
    write(&view, 9_999, &[33]);
    let mut peer = Peer::new("memory::peer", text(&source));
    assert_eq!(peer.hear(), "12288");
    peer.order("read 9999");
    assert_eq!(peer.hear(), "33");
    peer.order("write 5000");
    assert_eq!(peer.hear(), "done");
    assert_eq!(read(&view, 5_000, 1), [77]);
    peer.kill();
}

#[test]
fn a_name_is_created_once_and_gone_with_the_last_holder() {
    let source = local("once");
    let missing = Object::open(&source, &Spec::default()).err().unwrap();
    assert_eq!(*missing.kind(), ErrorKind::NotFound, "{missing}");
    let object = Object::create(&source, &sized(1)).unwrap();
    let error = Object::create(&source, &sized(1)).err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::AlreadyExists, "{error}");
    // Held by another process alone.
    let mut peer = Peer::new("memory::peer", text(&source));
    assert_eq!(peer.hear(), "4096");
    drop(object);
    assert!(Object::open(&source, &Spec::default()).is_ok());
    peer.kill();
    let start = Instant::now();
    while Object::open(&source, &Spec::default()).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "a killed process still holds the name");
    }
    Object::create(&source, &sized(1)).unwrap();
}

#[test]
fn names_are_as_the_system_spells_them() {
    let user = User::current().unwrap();
    let sid = &user.sid;
    assert!(sid.starts_with("S-1-5-"), "{sid}");
    let name = |scope| Name::new(scope, "x y").unwrap();
    assert_eq!(names::kernel_name(&name(Scope::Local), &user), format!("Local\\mmf.{sid}.x y"));
    assert_eq!(names::kernel_name(&name(Scope::Global), &user), "Global\\mmf.x y");
    let text = format!("Local\\{}", unique("exact"));
    let exact = Name::exact(&*text).unwrap();
    assert_eq!(names::kernel_name(&exact, &user), text);
    let _object = Object::create(&exact.into(), &sized(1)).unwrap();
    let bare = text.strip_prefix("Local\\").unwrap();
    Object::open(&Name::exact(bare).unwrap().into(), &Spec::default()).unwrap();
}

#[test]
fn exact_names_are_checked() {
    for good in ["MumbleLink", "Local\\x", "Session\\1\\x", &"n".repeat(32766)] {
        assert_eq!(names::check_exact(good), Ok(()));
    }
    for bad in ["", "\\", "Local\\", "\\x", "a\\\\b", "nul\0", &"n".repeat(32767)] {
        assert!(names::check_exact(bad).is_err(), "{bad:?}");
    }
    let nowhere = Name::exact("no such directory\\x").unwrap().into();
    for error in [Object::create(&nowhere, &sized(1)), Object::open(&nowhere, &Spec::default())] {
        let error = error.err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::InvalidName { .. }), "{error}");
    }
    let unlinked = Name::exact("Local\\x").unwrap().unlink().unwrap_err();
    assert!(matches!(unlinked.kind(), ErrorKind::Unsupported { .. }), "{unlinked}");
}

#[test]
fn a_name_of_another_kind_of_object_is_told_apart() {
    let text = unique("event");
    let name_wide = wide(&text);
    // SAFETY: the name ends in a zero; no attributes.
    let event = unsafe { CreateEventW(std::ptr::null(), 0, 0, name_wide.as_ptr()) };
    assert!(!event.is_null());
    let source = Name::exact(text).unwrap().into();
    for error in [Object::create(&source, &sized(1)), Object::open(&source, &Spec::default())] {
        let error = error.err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Mismatch { .. }), "{error}");
    }
}

#[test]
fn demands_are_checked_when_opening() {
    let source = local("demands");
    let _object = Object::create(&source, &sized(4096)).unwrap();
    let open = |spec: Spec| Object::open(&source, &spec);
    open(sized(4096)).unwrap();
    let what = |spec| match open(spec).err().unwrap().kind() {
        ErrorKind::Mismatch { what, .. } => *what,
        other => panic!("{other}"),
    };
    assert_eq!(what(sized(4097)), "its size");
    assert_eq!(what(Spec { reserve: Some(1 << 20), ..Spec::default() }), "its reserve");
    assert_eq!(what(Spec { large_pages: LargePages::Require, ..Spec::default() }), "its pages");
    open(Spec { permissions: Some(Permissions::User), ..Spec::default() }).unwrap();
    assert_eq!(what(Spec { permissions: Some(Permissions::Everyone), ..Spec::default() }), "its DACL");
}

#[test]
fn an_object_can_be_opened_as_its_permissions_say() {
    let user = User::current().unwrap();
    let sid = &user.sid;
    let readable = Permissions::Sddl(format!("D:P(A;;GR;;;{sid})"));
    for permissions in [Permissions::User, Permissions::Everyone, readable.clone()] {
        let source = local("permissions");
        let spec = Spec { permissions: Some(permissions.clone()), ..sized(4096) };
        let object = Object::create(&source, &spec).unwrap();
        let info = object.info().unwrap();
        let wanted = Descriptor::new(&permissions, &user, SecuredObject::Section).unwrap().dacl().unwrap();
        assert_eq!(info.permissions, wanted, "the system maps generic rights as we do");
        // The demand is met, and reading is allowed by each of the three.
        Object::open(&source, &Spec { access: Access::ReadOnly, ..spec.clone() }).unwrap();
        Object::open(&source, &Spec { access: Access::CopyOnWrite, ..spec.clone() }).unwrap();
        let writable = Object::open(&source, &Spec::default());
        assert_eq!(writable.is_ok(), permissions != readable);
        if let Err(error) = writable {
            assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
        }
    }
}

#[test]
fn what_this_user_may_not_open_exists_all_the_same() {
    let source = local("closed");
    let permissions = Some(Permissions::Sddl("D:P(A;;GA;;;SY)".to_owned()));
    let _object = Object::create(&source, &Spec { permissions, ..sized(1) }).unwrap();
    let error = Object::open(&source, &Spec::default()).err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
    let error = Object::create(&source, &sized(1)).err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::AlreadyExists, "{error}");
}

#[test]
fn what_belongs_to_others_is_refused() {
    let source = local("foreign");
    // No right to read the owner: that is nobody this user trusts.
    let sid = User::current().unwrap().sid;
    let permissions = Some(Permissions::Sddl(format!("O:{sid}D:P(D;;RC;;;WD)(A;;0x7;;;{sid})(D;;RC;;;OW)")));
    let _object = Object::create(&source, &Spec { permissions, ..sized(1) }).unwrap();
    let error = Object::open(&source, &Spec::default()).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::ForeignOwner { .. }), "{error}");
    Object::open(&source, &Spec { allow_other_owners: true, ..Spec::default() }).unwrap();

    // Only Wine lets a user make what belongs to another.
    let source = local("foreign");
    let other = "S-1-5-21-1-2-3-1001";
    let permissions = Some(Permissions::Sddl(format!("O:{other}D:P(A;;GA;;;WD)")));
    if let Ok(_object) = Object::create(&source, &Spec { permissions, ..sized(1) }) {
        let error = Object::open(&source, &Spec::default()).err().unwrap();
        assert_eq!(*error.kind(), ErrorKind::ForeignOwner { owner: other.to_owned() }, "{error}");
        Object::open(&source, &Spec { allow_other_owners: true, ..Spec::default() }).unwrap();
    }
}

#[test]
fn permissions_that_make_no_sense_are_refused() {
    for (permissions, unsupported) in [
        (Permissions::Mode(0o600), true),
        (Permissions::Sddl("nonsense".to_owned()), false),
        (Permissions::Sddl("O:SY".to_owned()), false),
        (Permissions::Sddl("D:P\0".to_owned()), false),
    ] {
        let spec = Spec { permissions: Some(permissions), ..sized(1) };
        let error = Object::create(&local("senseless"), &spec).err().unwrap();
        assert_eq!(matches!(error.kind(), ErrorKind::Unsupported { .. }), unsupported, "{error}");
        assert_eq!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), !unsupported, "{error}");
    }
    let error = Object::create(&local("nothing"), &sized(0)).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
}

#[test]
fn a_reserve_costs_nothing_until_it_grows_and_all_see_it_grow() {
    const GIB: u64 = 1 << 30;
    let source = local("reserve");
    let object = Object::create(&source, &Spec { reserve: Some(64 * GIB), ..sized(70_000) }).unwrap();
    assert_eq!(object.len().unwrap(), 73_728);
    let most = object.max_len().unwrap();
    assert!(most >= 64 * GIB && most <= 64 * GIB + granularity() as u64);
    let far = 5 * GIB;
    let own = view(&object, 0, usize::try_from(6 * GIB).unwrap_or(NARROW));
    let Object::Memory(section) = &object else { panic!("it is no file") };
    let early = Mapped::new(section, Access::ReadOnly, 0, 1 << 30, None).unwrap();
    assert_eq!(early.committed(0).unwrap(), 73_728);
    let mut peer = Peer::new("memory::peer", text(&source));
    assert_eq!(peer.hear(), "73728");
    peer.order("grow 300000000");
    assert_eq!(peer.hear(), "300003328");
    assert_eq!(object.len().unwrap(), 300_003_328);
    assert_eq!(early.committed(0).unwrap(), 300_003_328, "a view from before the growth has it too");
    peer.order("write 299999999");
    assert_eq!(peer.hear(), "done");
    assert_eq!(read(&own, 299_999_999, 1), [77]);
    object.grow(far + 1).unwrap();
    object.grow(5).unwrap();
    assert_eq!(object.len().unwrap(), far + 4096);
    match usize::try_from(far) {
        Ok(far) => write(&own, far, &[55]),
        Err(_) => write(&view(&object, far, 1), 0, &[55]),
    }
    for (order, answer) in [(format!("read {far}"), "55"), ("len .".to_owned(), "5368713216")] {
        peer.order(&order);
        assert_eq!(peer.hear(), answer);
    }
    assert_eq!(read(&own, 299_999_999, 1), [77], "what was there stays");
    let error = object.grow(most + 1).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    let reader = Object::open(&source, &Spec { access: Access::ReadOnly, ..Spec::default() }).unwrap();
    assert_eq!(reader.len().unwrap(), far + 4096);
    assert_eq!(*reader.grow(6 * GIB).unwrap_err().kind(), ErrorKind::ReadOnly);
    // Made with the permissions asked for, and not with those it had while it was made.
    Object::open(&source, &Spec { permissions: Some(Permissions::User), ..Spec::default() }).unwrap();
    peer.kill();
}

#[test]
fn what_is_half_made_is_waited_for() {
    let source = local("half made");
    let permissions = Some(Permissions::Sddl("D:P(A;;RC;;;WD)".to_owned()));
    let object = Object::create(&source, &Spec { permissions, ..sized(1) }).unwrap();
    let error = Object::create(&source, &sized(1)).err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::AlreadyExists, "{error}");
    let error = Object::open(&source, &Spec::default()).err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
    let opener = {
        let source = source.clone();
        std::thread::spawn(move || Object::open(&source, &Spec::default()).map(drop))
    };
    std::thread::sleep(Duration::from_millis(20));
    let handle = object.handle().try_clone_to_owned().unwrap();
    Descriptor::new(&Permissions::User, &User::current().unwrap(), SecuredObject::Section)
        .unwrap()
        .replace_dacl(&handle)
        .unwrap();
    opener.join().unwrap().unwrap();
}

#[test]
fn a_list_tells_the_living() {
    let (kept, dropped) = (local("listed"), local("listed"));
    let object = Object::create(&kept, &sized(5_000)).unwrap();
    drop(Object::create(&dropped, &sized(5_000)).unwrap());
    let global: Source = Name::global(unique("listed")).unwrap().into();
    let _global = Object::create(&global, &Spec { reserve: Some(1 << 20), ..sized(9_000) }).unwrap();
    let listed = list().unwrap();
    let find = |source: &Source| listed.iter().find(|item| Source::from(&item.name) == *source);
    let found = find(&kept).expect("the one that lives");
    assert_eq!(found.size, Some(8_192));
    assert_eq!(found.info, Some(object.info().unwrap()));
    assert!(find(&dropped).is_none());
    assert_eq!(find(&global).expect("the global one").size, Some(12_288));
    let info = found.info.clone().unwrap();
    let location = info.location.unwrap();
    assert!(location.starts_with('\\') && location.ends_with(text(&kept)), "{location}");
    assert!(!info.owner.is_empty());
}

fn is_inheritable(object: &Object) -> bool {
    let mut flags = 0;
    // SAFETY: an open handle; `flags` is writable.
    assert_ne!(unsafe { GetHandleInformation(object.handle().as_raw_handle(), &raw mut flags) }, 0);
    flags & HANDLE_FLAG_INHERIT != 0
}

#[test]
fn handles_are_inherited_where_asked_for() {
    let source = local("inherit");
    for inheritable in [true, false] {
        let spec = Spec { inheritable, ..sized(1) };
        let object = Object::create(&source, &spec).unwrap();
        assert_eq!(is_inheritable(&object), inheritable);
        assert_eq!(is_inheritable(&Object::open(&source, &spec).unwrap()), inheritable);
        assert_eq!(is_inheritable(&Object::from_handle(object.into_handle(), &spec).unwrap()), inheritable);
        assert_eq!(is_inheritable(&Object::anonymous(&spec).unwrap()), inheritable);
    }
}

#[test]
fn next_holder() {
    let Some(handle) = Peer::argument() else { return };
    let handle: usize = handle.parse().unwrap();
    // SAFETY: inherited under this number, and used by nobody else in this process.
    let handle = unsafe { OwnedHandle::from_raw_handle(std::ptr::without_provenance_mut(handle)) };
    let object = Object::from_handle(handle, &Spec::default()).unwrap();
    write(&view(&object, 0, 10), 9, &[44]);
    tell(object.len().unwrap());
}

#[test]
fn a_child_inherits_memory_without_a_name() {
    let object = Object::anonymous(&Spec { inheritable: true, ..sized(1) }).unwrap();
    let number = object.handle().as_raw_handle().addr().to_string();
    let mut peer = Peer::new("memory::next_holder", &number);
    assert_eq!(peer.hear(), "4096");
    assert_eq!(read(&view(&object, 0, 10), 9, 1), [44]);
    peer.kill();
}

#[test]
fn memory_may_begin_with_nothing_but_a_reserve() {
    let source = local("only a reserve");
    let object = Object::create(&source, &Spec { reserve: Some(1 << 20), ..sized(0) }).unwrap();
    assert_eq!(object.len().unwrap(), 0);
    Object::open(&source, &Spec { reserve: Some(1 << 20), ..Spec::default() }).unwrap().grow(5).unwrap();
    assert_eq!(object.len().unwrap(), 4096);
}

#[test]
fn a_handle_is_as_good_as_a_name() {
    let object = Object::anonymous(&Spec { reserve: Some(1 << 20), ..sized(5_000) }).unwrap();
    let duplicate = |object: &Object| -> OwnedHandle { object.handle().try_clone_to_owned().unwrap() };
    let other = Object::from_handle(duplicate(&object), &Spec::default()).unwrap();
    assert_eq!((other.len().unwrap(), other.max_len()), (8_192, object.max_len()));
    other.grow(1 << 20).unwrap();
    assert_eq!(object.len().unwrap(), 1 << 20);
    write(&view(&object, 0, 10), 9, &[66]);
    assert_eq!(read(&view(&other, 9, 1), 0, 1), [66]);
    let error = Object::from_handle(duplicate(&object), &sized((1 << 20) + 1)).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Mismatch { .. }), "{error}");

    let source = local("handle");
    let _object = Object::create(&source, &sized(1)).unwrap();
    let spec = Spec { access: Access::ReadOnly, ..Spec::default() };
    let reader = Object::open(&source, &spec).unwrap();
    let error = Object::from_handle(duplicate(&reader), &Spec::default()).err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
    Object::from_handle(reader.into_handle(), &spec).unwrap();
}

#[test]
fn large_pages_are_had_or_named() {
    let spec = |large_pages| Spec { large_pages, ..sized(1) };
    let growable = Spec { reserve: Some(1 << 30), ..spec(LargePages::Require) };
    let error = Object::anonymous(&growable).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    let preferred = Object::anonymous(&spec(LargePages::Prefer)).unwrap();
    write(&view(&preferred, 0, 1), 0, &[1]);
    match Object::anonymous(&spec(LargePages::Require)) {
        Ok(object) => {
            assert_eq!(object.len().unwrap() % (1 << 21), 0);
            let mut request = request(1, 5, Access::ReadWrite);
            request.large_pages = LargePages::Require;
            write(&View::map(&object, &request).unwrap(), 4, &[1]);
        }
        Err(error) => assert!(error.help().is_some(), "{error}"),
    }
}
