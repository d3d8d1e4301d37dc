//! The contents of a region: lengths that a peer forges, and copies that take long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mmf::{Access, ErrorKind, Mapping, Name, Region};
use testkit::{TempDir, unique_name};

/// A peer with write access can make the file as long as a disk holds, and store a length of the
/// contents that claims all of it.
#[test]
fn contents_that_claim_more_than_the_capacity_are_damaged_and_not_copied() {
    // Where the format has their length.
    let len = 2064;
    let dir = TempDir::new();
    let path = dir.join("contents");
    let region = Region::create_new(path.as_path(), 4096).unwrap();
    region.write().unwrap().set(b"whole").unwrap();
    let reader = Region::options().access(Access::ReadOnly).open(path.as_path()).unwrap();
    let raw = Mapping::open(path.as_path()).unwrap();
    raw.grow(1 << 20).unwrap();
    for claimed in [4097_u64, 1 << 19, 1 << 40, u64::MAX] {
        raw.store(len, claimed, Ordering::SeqCst).unwrap();
        let damaged = |error: mmf::Error| assert!(matches!(error.kind(), ErrorKind::Damaged { .. }), "{error}");
        damaged(region.to_vec().unwrap_err());
        damaged(reader.to_vec().unwrap_err());
        damaged(region.status().unwrap_err());
        damaged(region.write().unwrap().write_at(0, b"x").unwrap_err());
    }
    assert!(matches!(Region::open(path.as_path()).err().unwrap().kind(), ErrorKind::NotASegment { .. }));
    // Replacing them needs no length.
    region.write().unwrap().set(b"mended").unwrap();
    assert_eq!(reader.to_vec().unwrap(), b"mended");
}

#[test]
fn long_contents_are_copied_within_a_timeout_of_zero() {
    let name = Name::local(unique_name("long")).unwrap();
    let bytes = vec![7; 12 << 20];
    let made = Region::create_new(&name, bytes.len() as u64).unwrap();
    made.write().unwrap().set(&bytes).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let region = Region::options().timeout(Some(Duration::ZERO)).access(access).open(&name).unwrap();
        // A copy has 50 ms, which a busy machine may take away. A copy that has no time never ends.
        let copied = (0..100).map(|_| region.to_vec()).find(|copied| match copied {
            Err(error) => !matches!(error.kind(), ErrorKind::Timeout { .. }),
            Ok(_) => true,
        });
        assert!(copied.unwrap().unwrap() == bytes, "{access:?}");
    }
}
