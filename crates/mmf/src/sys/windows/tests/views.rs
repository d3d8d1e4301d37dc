//! Views of sections: where they begin and end, at which address, and copies on write.

use super::*;
use crate::error::ErrorKind;
use crate::sys::windows::{granularity, page_size};

#[test]
fn views_begin_anywhere_and_end_with_the_object() {
    let object = Object::anonymous(&sized(3 << 16)).unwrap();
    let all = view(&object, 0, usize::MAX);
    assert_eq!(all.address_len(), 3 << 16);
    assert_eq!(all.base().addr() % granularity(), 0);
    for offset in [0, 1, 4095, 4096, 65535, 65536, 65537, (3 << 16) - 1] {
        let part = view(&object, offset as u64, usize::MAX);
        assert_eq!(part.address_len(), (3 << 16) - offset);
        write(&all, offset, &[201]);
        assert_eq!(read(&part, 0, 1), [201]);
    }
    for beyond in [3 << 16, u64::MAX] {
        let none = view(&object, beyond, 1);
        assert_eq!(none.address_len(), 0);
        assert!(!none.base().is_null());
        none.flush(0, 0).unwrap();
        none.prefault(1).unwrap();
    }
    all.prefault(usize::MAX).unwrap();
    all.flush(0, usize::MAX).unwrap();
}

#[test]
fn what_is_made_or_measured_by_a_view_is_not_mapped_again() {
    let source = local("mapped once");
    let reserve = Spec { reserve: Some(1 << 20), ..sized(70_000) };
    let made = Object::create(&source, &reserve).unwrap();
    let opened = Object::open(&source, &Spec::default()).unwrap();
    for (object, len) in [(made, 80_000), (opened, 90_000)] {
        assert!(object.len().unwrap() >= 73_728);
        let [one, two] = [1 << 20, 1 << 20].map(|address_len| view(&object, 0, address_len));
        assert_eq!(one.base(), two.base());
        drop(one);
        write(&two, 69_999, &[5]);
        // One that is shorter, for another access, or elsewhere.
        let others = [(0, Access::ReadOnly), (65_536, Access::ReadWrite)];
        for (offset, access) in others {
            let other = View::map(&object, &request(offset, 8_000, access)).unwrap();
            assert_ne!(other.base(), two.base());
            assert_eq!(other.address_len(), 8_000);
        }
        drop(two);
        object.grow(len).unwrap();
        assert_eq!(object.len().unwrap(), len.next_multiple_of(4096));
        let again = view(&object, 0, 1 << 20);
        drop(object);
        write(&again, 79_999, &[6]);
        assert_eq!(read(&again, 79_999, 1), [6], "a view outlives its object");
    }
}

#[test]
fn a_part_beyond_four_gib_is_that_part() {
    let object = Object::anonymous(&Spec { reserve: Some(6 << 30), ..sized(1) }).unwrap();
    object.grow((5 << 30) + 70_000).unwrap();
    let part = view(&object, (5 << 30) + 65_537, 4_000);
    write(&part, 3_999, &[9]);
    let other = view(&object, (5 << 30) + 60_000, usize::MAX);
    assert_eq!(read(&other, 5_537 + 3_999, 1), [9]);
    assert_eq!(read(&view(&object, (1 << 30) + 65_537 + 3_999, 1), 0, 1), [0], "and not the one 4 GiB before");
}

#[test]
fn an_address_is_honoured_or_refused() {
    let object = Object::anonymous(&sized(4 << 16)).unwrap();
    // Where the system puts nothing by itself.
    let start = usize::try_from(3u64 << 44).unwrap_or(0x5000_0000);
    let at = |address, offset: u64| {
        View::map(&object, &ViewRequest { base_address: Some(address), ..request(offset, 100, Access::ReadWrite) })
    };
    let there = at(start + 7, 65_536 + 7).unwrap();
    assert_eq!(there.base().addr(), start + 7);
    for (address, offset) in [(start, 0), (start + (8 << 16) + 8, 7), (4, 4), (page_size() * 3, 4096 * 3)] {
        let error = at(address, offset).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{address:#x}")), "{error}");
    }
}

#[test]
fn copies_on_write_stay_here() {
    let source = local("copy");
    let object = Object::create(&source, &Spec { reserve: Some(1 << 20), ..sized(100_000) }).unwrap();
    let shared = view(&object, 0, 100_000);
    let spec = Spec { access: Access::CopyOnWrite, ..Spec::default() };
    let opened = Object::open(&source, &spec).unwrap();
    let own = View::map(&opened, &request(10, 90_000, Access::CopyOnWrite)).unwrap();
    write(&own, 0, &[1, 2, 3]);
    assert_eq!(read(&shared, 10, 3), [0, 0, 0]);
    write(&shared, 80_000, &[8]);
    assert_eq!(read(&own, 79_990, 1), [8]);
    assert!(View::map(&opened, &request(0, 1, Access::ReadWrite)).is_err());
}
