//! What segments need of the system: first bytes, tokens, bells, and who this is.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::STATUS_ACCESS_DENIED;
use windows_sys::Win32::System::Threading::EVENT_MODIFY_STATE;

use super::super::event::{self, Use};
use super::super::{Bells, Tokens, boot, page_size, random_id};
use super::files::Dir;
use super::{await_order, local, place, read, sized, tell, view};
use crate::spec::{Access, LargePages, Permissions, Spec};
use crate::sys::{Object, View};

/// Longer than any sleep that ends as it should.
const LONG: Duration = Duration::from_secs(30);

fn memory() -> Object {
    Object::create(&local("segment"), &sized(4096)).unwrap()
}

#[test]
fn what_is_created_begins_with_the_bytes_given() {
    let bytes: Vec<u8> = (0..=250).cycle().take(page_size() + 100).collect();
    let size = 3 * page_size() as u64;
    let dir = Dir::new();
    for (source, reserve, large_pages) in [
        (local("first"), None, LargePages::Never),
        (local("first"), Some(1 << 30), LargePages::Never),
        (local("first"), None, LargePages::Prefer),
        (dir.file("first"), None, LargePages::Never),
    ] {
        let spec = Spec { reserve, large_pages, first_bytes: bytes.clone(), ..sized(size) };
        let object = Object::create(&source, &spec).unwrap();
        let opened = Object::open(&source, &Spec::default()).unwrap();
        assert!(opened.len().unwrap() >= size);
        let view = View::map(&opened, &place(0, 3 * page_size(), Access::ReadOnly)).unwrap();
        assert_eq!(read(&view, 0, bytes.len()), bytes);
        assert!(read(&view, bytes.len(), view.reach() - bytes.len()).iter().all(|byte| *byte == 0));
        assert_eq!(object.info().unwrap().permissions, opened.info().unwrap().permissions);
    }
    let spec = Spec { first_bytes: b"hidden".to_vec(), ..sized(4096) };
    assert_eq!(read(&view(&Object::anonymous(&spec).unwrap(), 0, 6), 0, 6), b"hidden");
}

#[test]
fn a_token_has_one_owner_and_cannot_be_opened() {
    let (object, id) = (memory(), random_id().unwrap());
    let [one, two] = [(), ()].map(|()| Tokens::new(&object, &id).unwrap());
    assert!(!two.is_alive(3).unwrap());
    assert!(one.take(3).unwrap());
    assert!(two.is_alive(3).unwrap());
    assert!(!two.is_alive(4).unwrap());
    assert!(!two.take(3).unwrap());
    assert!(two.seize(3).unwrap().is_none());
    let refused = event::open(&event::path(&id, Use::Token, 3), EVENT_MODIFY_STATE).err();
    assert_eq!(refused, Some(STATUS_ACCESS_DENIED));
    one.give(3);
    assert!(!two.is_alive(3).unwrap());
    let seized = two.seize(3).unwrap();
    assert!(seized.is_some());
    assert!(!one.take(3).unwrap());
    drop(seized);
    assert!(one.take(3).unwrap());
    assert!(!Tokens::new(&object, &random_id().unwrap()).unwrap().is_alive(3).unwrap());
}

#[test]
fn a_ring_before_the_sleep_ends_it() {
    let (object, id) = (memory(), random_id().unwrap());
    let [sleeper, ringer] = [(), ()].map(|()| Bells::new(&id));
    sleeper.hang(&object, 70);
    for _ in 0..3 {
        let since = Instant::now();
        let rings = sleeper.listen();
        ringer.ring(std::ptr::null(), [0, 1 << 6, 0, 1 << 63]);
        sleeper.sleep(std::ptr::null(), 0, rings, LONG);
        // Also by this participant's other threads.
        let rings = sleeper.listen();
        sleeper.ring(std::ptr::null(), [0, 1 << 6, 0, 0]);
        sleeper.sleep(std::ptr::null(), 0, rings, LONG);
        assert!(since.elapsed() < LONG);
    }
}

#[test]
fn a_sleep_is_no_longer_than_told() {
    let bells = Bells::new(&random_id().unwrap());
    for hung in [false, true] {
        if hung {
            bells.hang(&memory(), 0);
        }
        let since = Instant::now();
        bells.sleep(std::ptr::null(), 0, bells.listen(), Duration::from_millis(20));
        assert!(since.elapsed() > Duration::from_millis(10), "{:?}", since.elapsed());
        assert!(since.elapsed() < LONG);
    }
}

#[test]
fn one_ring_wakes_every_thread_of_a_participant() {
    let (object, id) = (memory(), random_id().unwrap());
    let [sleeper, ringer] = [(), ()].map(|()| Bells::new(&id));
    sleeper.hang(&object, 0);
    let since = Instant::now();
    for _ in 0..20 {
        let listening = Barrier::new(5);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let rings = sleeper.listen();
                    listening.wait();
                    sleeper.sleep(std::ptr::null(), 0, rings, LONG);
                });
            }
            listening.wait();
            ringer.ring(std::ptr::null(), [1, 0, 0, 0]);
        });
    }
    assert!(since.elapsed() < LONG);
}

#[test]
fn a_bell_lets_in_who_may_write() {
    let user = super::super::security::User::current().unwrap().sid;
    // SYSTEM reads and writes, this user writes, all others read.
    let permissions = Permissions::Sddl(format!("D:P(A;;GRGW;;;SY)(A;;GRGW;;;{user})(A;;GR;;;WD)"));
    let dir = Dir::new();
    for source in [local("bell"), dir.file("bell")] {
        let spec = Spec { permissions: Some(permissions.clone()), ..sized(4096) };
        let object = Object::create(&source, &spec).unwrap();
        let dacl = object.ringers().unwrap().dacl().unwrap();
        assert!(dacl.contains("0x100002;;;SY)"), "{dacl}");
        assert!(dacl.contains(&format!("0x100002;;;{user})")), "{dacl}");
        assert!(!dacl.contains("0x100002;;;WD)"), "{dacl}");
    }
}

#[test]
fn this_boot_of_this_machine_is_always_the_same() {
    let here = boot().unwrap();
    let mut peer = super::Peer::new("segments::peer", "tell");
    let there = peer.hear();
    peer.kill();
    assert_eq!(format!("{here:?}"), there);
    assert_ne!(here.boot, [0; 16]);
    assert_ne!(random_id().unwrap(), random_id().unwrap());
}

#[test]
fn peer() {
    if super::Peer::argument().is_none() {
        return;
    }
    tell(format!("{:?}", boot().unwrap()));
    await_order();
}
