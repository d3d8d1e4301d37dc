//! One suite for every source, whole and in part, under every policy: mappings behave the same
//! everywhere.

use std::fs::File;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::Ordering;

use mmf::{Access, ErrorKind, FaultPolicy, Mapping, page_size};
use testkit::TempDir;

use crate::support::cases::{Case, Kind, Made, POLICIES, assert_tells, kind, pattern};
use crate::support::remote::Remote;
use crate::support::stories::stories;

stories! {
    what_is_made_is_zeros_and_as_long_as_every_opener_sees,
    what_one_process_writes_another_reads,
    views_of_one_object_in_one_process_share_its_bytes,
    the_bounds_are_exact,
    what_is_empty_is_done_and_changes_nothing,
    fill_sets_its_range_and_nothing_else,
    bytes_are_copied_between_all_pairs_of_sources,
    ranges_are_flushed_and_synced,
    a_reader_sees_what_others_write_and_changes_nothing,
    copy_on_write_keeps_its_changes_to_itself,
    growth_is_seen_by_a_process_that_had_it_open_before,
    what_was_reserved_cannot_be_passed,
    a_part_does_not_grow_and_does_not_see_growth,
    a_file_of_5_gib_is_reached_at_its_far_end,
}

/// Sizes at which something changes.
fn sizes() -> [usize; 5] {
    let page = page_size();
    [1, page - 1, page, page + 1, 64 * 1024 + 1]
}

/// All cases that see the whole object.
fn whole() -> impl Iterator<Item = Case> {
    Case::all().into_iter().filter(|case| case.part.is_none())
}

fn what_is_made_is_zeros_and_as_long_as_every_opener_sees() {
    for case in whole().filter(|case| case.policy == FaultPolicy::Trap) {
        for size in sizes() {
            let made = case.make_with(size, Mapping::options());
            let len = case.kind.length(size);
            assert_eq!((made.whole.len(), made.view.len()), (len, len), "{case:?} {size}");
            assert!(!made.view.is_empty());
            let mut remote = made.remote();
            assert_eq!(remote.ask("len"), len.to_string(), "{case:?} {size}");
            remote.expect(0, &vec![0; len]);
            assert_eq!(made.bytes(), vec![0; len], "{case:?} {size}");
            // The last byte is as good as the first.
            made.view.write_at(len - 1, b"!").unwrap();
            remote.expect(len - 1, b"!");
            if let Some(bytes) = made.file_bytes() {
                assert_eq!((bytes.len(), bytes[size - 1]), (size, b'!'), "{case:?} {size}");
            }
            remote.finish();
        }
    }
}

fn what_one_process_writes_another_reads() {
    for case in Case::all() {
        let made = case.make();
        let mut remote = made.remote();
        let len = made.view.len();
        assert_eq!(remote.ask("len"), len.to_string(), "{case:?}");
        let mut model = vec![0; made.whole.len()];
        for (seed, (offset, n)) in [(0, len), (1, len - 1), (len - 1, 1), (page_size() - 3, 9)].into_iter().enumerate()
        {
            let seed = u8::try_from(seed).unwrap();
            let here = made.from() + offset;
            let bytes = pattern(seed, n);
            made.view.write_at(offset, &bytes).unwrap();
            model[here..here + n].copy_from_slice(&bytes);
            remote.expect(offset, &bytes);

            let back = pattern(seed + 100, n);
            remote.write(offset, seed + 100, n);
            model[here..here + n].copy_from_slice(&back);
            assert_eq!(made.view.read_to_vec(offset, n).unwrap(), back, "{case:?}");
            let mut buffer = vec![0; n];
            made.view.read_at(offset, &mut buffer).unwrap();
            assert_eq!(buffer, back, "{case:?}");
        }
        // What the part does not cover is untouched.
        assert_eq!(made.bytes(), model, "{case:?}");
        remote.finish();
    }
}

fn views_of_one_object_in_one_process_share_its_bytes() {
    for case in Case::all() {
        let made = case.make();
        let bytes = pattern(1, made.view.len());
        made.view.write_at(0, &bytes).unwrap();
        assert_eq!(made.whole.read_to_vec(made.from(), bytes.len()).unwrap(), bytes, "{case:?}");
        made.whole.write_at(made.from(), b"the other way").unwrap();
        assert_eq!(made.view.read_to_vec(0, 13).unwrap(), b"the other way", "{case:?}");
        if let Some(file) = made.file_bytes() {
            assert_eq!(&file[made.from()..][..13], b"the other way", "{case:?}");
        }
    }
}

/// What is asked for, and what the error must tell.
fn assert_out<T: std::fmt::Debug>(case: &Case, result: mmf::Result<T>, offset: usize, len: usize, size: usize) {
    assert_eq!(kind(result), ErrorKind::OutOfBounds { offset, len, size }, "{case:?} {offset} {len}");
}

fn the_bounds_are_exact() {
    const FAR: [usize; 2] = [usize::MAX, isize::MAX as usize];
    let other = Mapping::anonymous(1 << 20).unwrap();
    for case in Case::all() {
        let made = case.make();
        let (map, size) = (&made.view, made.view.len());
        made.whole.fill(.., 7).unwrap();
        let before = made.bytes();
        for offset in [0, size - 1, size, size + 1].into_iter().chain(FAR) {
            for len in [0, 1, 2, size - 1, size, size + 1] {
                let zeros = vec![7; len];
                let mut buffer = vec![9; len];
                let inside = offset <= size && len <= size - offset;
                if inside {
                    map.read_at(offset, &mut buffer).unwrap();
                    assert_eq!(buffer, zeros);
                    assert_eq!(map.read_to_vec(offset, len).unwrap(), zeros);
                    map.write_at(offset, &zeros).unwrap();
                    map.fill(offset..offset + len, 7).unwrap();
                    map.copy_to(offset..offset + len, &other, 0).unwrap();
                    map.flush(offset..offset + len).unwrap();
                } else {
                    assert_out(&case, map.read_at(offset, &mut buffer), offset, len, size);
                    assert!(buffer.iter().all(|byte| *byte == 9));
                    assert_out(&case, map.read_to_vec(offset, len), offset, len, size);
                    assert_out(&case, map.write_at(offset, &vec![8; len]), offset, len, size);
                    assert_out(&case, other.copy_to(0..len, map, offset), offset, len, size);
                    // As a range it can be written only where its end does not pass every number.
                    if let Some(end) = offset.checked_add(len) {
                        assert_out(&case, map.fill(offset..end, 8), offset, len, size);
                        assert_out(&case, map.copy_to(offset..end, &other, 0), offset, len, size);
                        assert_out(&case, map.flush(offset..end), offset, len, size);
                        assert_out(&case, map.sync(offset..end), offset, len, size);
                    }
                }
            }
        }
        for len in FAR {
            for offset in [0, 1, size, size + 1, usize::MAX] {
                // Before anything is allocated for them.
                assert_out(&case, map.read_to_vec(offset, len), offset, len, size);
            }
            assert_out(&case, map.fill(..len, 8), 0, len, size);
        }
        assert_out(&case, map.fill(0..=usize::MAX, 8), 0, usize::MAX, size);
        assert_out(&case, map.fill(0..=size, 8), 0, size + 1, size);
        assert_out(&case, map.fill(size + 1.., 8), size + 1, 0, size);
        assert_eq!(made.bytes(), before, "{case:?}: what was refused changed nothing");
    }
}

fn what_is_empty_is_done_and_changes_nothing() {
    for case in Case::all() {
        let made = case.make();
        let map = &made.view;
        let before = made.bytes();
        for offset in [0, 1, page_size(), map.len()] {
            map.read_at(offset, &mut []).unwrap();
            map.write_at(offset, &[]).unwrap();
            map.fill(offset..offset, 1).unwrap();
            map.copy_to(offset..offset, map, 0).unwrap();
            map.flush(offset..offset).unwrap();
            map.sync(offset..offset).unwrap();
            assert_eq!(map.read_to_vec(offset, 0).unwrap(), [0; 0], "{case:?}");
        }
        assert_eq!(made.bytes(), before, "{case:?}");
    }
}

fn fill_sets_its_range_and_nothing_else() {
    for case in Case::all() {
        let made = case.make();
        let (map, page) = (&made.view, page_size());
        let mut model = pattern(3, map.len());
        map.write_at(0, &model).unwrap();
        let mut filled = |range: (Bound<usize>, Bound<usize>), value: u8| {
            map.fill(range, value).unwrap();
            model[range].fill(value);
            assert_eq!(map.read_to_vec(0, map.len()).unwrap(), model, "{case:?} {range:?}");
        };
        for n in [1, 2, 7, 8, 9, 63, 64, 65, page - 1, page] {
            filled((Bound::Included(5), Bound::Excluded(5 + n)), u8::try_from(n % 251).unwrap());
        }
        filled((Bound::Excluded(page), Bound::Included(page + 6)), 0xff);
        filled((Bound::Included(page - 1), Bound::Unbounded), 0xfe);
        filled((Bound::Unbounded, Bound::Included(0)), 1);
        filled((Bound::Unbounded, Bound::Unbounded), 0);
        let reversed = (Bound::Included(2), Bound::Excluded(1));
        assert!(matches!(kind(map.fill(reversed, 1)), ErrorKind::InvalidInput { .. }), "{case:?}");
    }
}

fn bytes_are_copied_between_all_pairs_of_sources() {
    let page = page_size();
    for from in Case::all() {
        // The seeds and sizes of one are not those of the other.
        let source = from.make();
        let bytes = pattern(4, source.view.len());
        source.view.write_at(0, &bytes).unwrap();
        // Every other policy too, but only over the whole: each pair maps anew.
        for to in Case::all().into_iter().filter(|to| to.part.is_none() == from.part.is_none()) {
            let target = to.make();
            let mut model = vec![0; target.view.len()];
            for (offset, len, at) in [(0, 1, 5), (page - 1, 2, 0), (3, page, 11), (0, page + 600, 77)] {
                let len = len.min(source.view.len() - offset).min(target.view.len() - at);
                source.view.copy_to(offset..offset + len, &target.view, at).unwrap();
                model[at..at + len].copy_from_slice(&bytes[offset..offset + len]);
            }
            assert_eq!(target.view.read_to_vec(0, model.len()).unwrap(), model, "{from:?} to {to:?}");
        }
        assert_eq!(source.view.read_to_vec(0, bytes.len()).unwrap(), bytes, "{from:?}");
    }
    let map = Mapping::anonymous(page as u64).unwrap();
    map.write_at(0, b"within").unwrap();
    map.copy_to(0..6, &map, 100).unwrap();
    assert_eq!(map.read_to_vec(100, 6).unwrap(), b"within");
}

fn ranges_are_flushed_and_synced() {
    for case in Case::all() {
        let made = case.make();
        let (map, size, page) = (&made.view, made.view.len(), page_size());
        let ranges: [(Bound<usize>, Bound<usize>); 6] = [
            (Bound::Unbounded, Bound::Unbounded),
            (Bound::Included(0), Bound::Excluded(size)),
            (Bound::Included(1), Bound::Excluded(2)),
            (Bound::Included(page - 1), Bound::Included(page)),
            (Bound::Included(size), Bound::Unbounded),
            (Bound::Unbounded, Bound::Excluded(0)),
        ];
        for (seed, range) in ranges.into_iter().enumerate() {
            let bytes = pattern(u8::try_from(seed).unwrap(), size);
            map.write_at(0, &bytes).unwrap();
            map.flush(range).unwrap();
            map.sync(range).unwrap();
            assert_eq!(map.read_to_vec(0, size).unwrap(), bytes, "{case:?}");
        }
        let reversed = (Bound::Included(2), Bound::Excluded(1));
        for result in [map.flush(reversed), map.sync(reversed)] {
            assert!(matches!(kind(result), ErrorKind::InvalidInput { .. }), "{case:?}");
        }
        let past = (Bound::Included(1), Bound::Included(size));
        assert_out(&case, map.flush(past), 1, size, size);
        assert_out(&case, map.sync(past), 1, size, size);
        assert!(past.contains(&size));
    }
}

/// The cases with another access, but not anonymous memory, where nobody else would have written.
fn with_access(access: Access) -> Vec<Case> {
    let cases = Case::all().into_iter().filter(|case| case.kind != Kind::Anonymous);
    cases.map(|case| Case { access, ..case }).collect()
}

fn a_reader_sees_what_others_write_and_changes_nothing() {
    for case in with_access(Access::ReadOnly) {
        let made = case.make();
        let mut remote = made.remote();
        let bytes = pattern(5, made.view.len());
        made.whole.write_at(made.from(), &bytes).unwrap();
        let before = made.bytes();
        assert_eq!(made.view.read_to_vec(0, bytes.len()).unwrap(), bytes, "{case:?}");
        remote.expect(0, &bytes);
        for refused in ["write 0 1 1", "add 0 1", "grow 1000000", "write 0 0 1"] {
            assert_eq!(remote.ask(refused), "ReadOnly", "{case:?} {refused}");
        }
        assert_eq!(made.bytes(), before, "{case:?}");
        remote.finish();
    }
}

fn copy_on_write_keeps_its_changes_to_itself() {
    for case in with_access(Access::CopyOnWrite) {
        let made = case.make();
        let (from, len) = (made.from(), made.view.len());
        let theirs = pattern(6, len);
        made.whole.write_at(from, &theirs).unwrap();
        let object = made.bytes();
        let mut remote = made.remote();
        remote.write(1, 7, len - 1);
        remote.expect(1, &pattern(7, len - 1));
        assert_eq!(made.view.read_to_vec(0, len).unwrap(), theirs, "{case:?}: another process changed it");
        made.view.fill(.., 1).unwrap();
        made.view.flush(..).unwrap();
        made.view.sync(..).unwrap();
        if case.policy != FaultPolicy::SystemCalls {
            let aligned = from.next_multiple_of(8) - from;
            assert_eq!(made.view.fetch_add(aligned, 1_u64, Ordering::Relaxed).unwrap(), 0x0101_0101_0101_0101);
        }
        made.view.copy_to(0..9, &made.view, 20).unwrap();
        remote.expect(1, &pattern(7, len - 1));
        assert_eq!(made.bytes(), object, "{case:?}: what is private reached the object");
        if let Some(file) = made.file_bytes() {
            assert_eq!(file, object, "{case:?}");
        }
        assert!(matches!(kind(made.view.grow(len * 2)), ErrorKind::Unsupported { .. }), "{case:?}");
        remote.finish();
    }
}

fn growth_is_seen_by_a_process_that_had_it_open_before() {
    let page = page_size();
    let (small, middle, large) = (page + 1, 4 * page + 3, 40 * page + 5);
    for case in whole().filter(|case| case.kind != Kind::Anonymous) {
        let made = case.make_with(small, Mapping::options().reserve(64 * page as u64));
        let (grower, first, len) = (&made.whole, case.kind.length(small), |size| case.kind.length(size));
        let mut remote = made.remote();
        grower.write_at(0, b"from before").unwrap();

        // By an access past the end that is known.
        grower.grow(middle).unwrap();
        assert_eq!(grower.len(), len(middle), "{case:?}");
        assert_eq!(made.view.len(), first, "{case:?}: nobody asked yet");
        assert_eq!(remote.ask("len"), first.to_string());
        grower.write_at(middle - 5, b"grown").unwrap();
        remote.expect(middle - 5, b"grown");
        assert_eq!(remote.ask("len"), len(middle).to_string());
        assert_eq!(made.view.read_to_vec(middle - 5, 5).unwrap(), b"grown", "{case:?}");
        assert_eq!(made.view.read_to_vec(first, middle - 5 - first).unwrap(), vec![0; middle - 5 - first]);

        // By a look.
        grower.grow(large).unwrap();
        assert_eq!(remote.ask("refresh"), len(large).to_string(), "{case:?}");
        assert_eq!(made.view.refresh().unwrap(), len(large), "{case:?}");
        remote.write(large - 9, 1, 9);
        assert_eq!(grower.read_to_vec(large - 9, 9).unwrap(), pattern(1, 9), "{case:?}");

        // What was there stays, and asking for less changes nothing.
        grower.grow(1).unwrap();
        assert_eq!(grower.len(), len(large), "{case:?}");
        assert_eq!(made.view.read_to_vec(0, 11).unwrap(), b"from before", "{case:?}");
        assert!(remote.ask(format!("sum {} 1", len(large))).starts_with("OutOfBounds"), "{case:?}");

        // The one that had it open grows it too, where it reserved as much.
        let mut other = Remote::open_with(&made.address(), &case, 64 * page);
        assert_eq!(other.ask(format!("grow {}", 64 * page)), "()", "{case:?}");
        assert_eq!(grower.refresh().unwrap(), 64 * page, "{case:?}");
        other.finish();
        remote.finish();
    }
}

fn what_was_reserved_cannot_be_passed() {
    let page = page_size();
    for case in whole().filter(|case| case.kind != Kind::File) {
        let made = case.make_with(page, Mapping::options().reserve(3 * page as u64));
        // The view of anonymous memory is the one that reserved nothing.
        let most = 3 * page;
        if case.kind != Kind::Anonymous {
            made.whole.grow(most).unwrap();
            assert!(matches!(kind(made.whole.grow(most + 1)), ErrorKind::InvalidInput { .. }), "{case:?}");
            assert_eq!(made.whole.len(), most, "{case:?}");
        }
        for len in [most + 1, isize::MAX as usize, usize::MAX] {
            assert!(matches!(kind(made.view.grow(len)), ErrorKind::InvalidInput { .. }), "{case:?} {len}");
        }
    }
}

fn a_part_does_not_grow_and_does_not_see_growth() {
    let page = page_size();
    for case in Case::all().into_iter().filter(|case| case.part.is_some() && case.kind != Kind::Anonymous) {
        let made: Made = case.make_with(Case::size(), Mapping::options().reserve(64 * page as u64));
        let len = made.view.len();
        assert!(matches!(kind(made.view.grow(len + 1)), ErrorKind::Unsupported { .. }), "{case:?}");
        made.whole.grow(20 * page).unwrap();
        assert_eq!(made.view.refresh().unwrap(), len, "{case:?}");
        assert_out(&case, made.view.read_to_vec(len, 1), len, 1, len);
    }
}

fn a_file_of_5_gib_is_reached_at_its_far_end() {
    const SIZE: u64 = (5 << 30) + 11;
    let dir = TempDir::new();
    let path = dir.join("sparse");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    for policy in POLICIES {
        // A process with 32 bits has no room for the whole.
        let map = match usize::try_from(SIZE) {
            Ok(end) => {
                let map = Mapping::options().fault_policy(policy).open(&path).unwrap();
                assert_eq!(map.len(), end);
                map.write_at(end - 7, b"far end").unwrap();
                let case = Case { kind: Kind::File, part: None, policy, access: Access::ReadWrite };
                assert_out(&case, map.write_at(end, b"x"), end, 1, end);
                Some(map)
            }
            Err(_) => {
                let error = Mapping::options().fault_policy(policy).open(&path).expect_err("too long");
                assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
                assert_tells(&error, &[&SIZE.to_string(), "map a part"]);
                Mapping::options().part(SIZE - 7..).open(&path).unwrap().write_at(0, b"far end").unwrap();
                None
            }
        };

        // A part that lies behind what 32 bits count, seen by another process.
        let from = (1_u64 << 32) + 4097;
        let case = Case { kind: Kind::File, part: Some((from, from + 100_001)), policy, access: Access::ReadWrite };
        let part = case.options().open(&path).unwrap();
        let bytes = pattern(8, part.len());
        part.write_at(0, &bytes).unwrap();
        let mut remote = Remote::open(&format!("file:{}", path.display()), &case);
        remote.expect(0, &bytes);
        remote.finish();
        if let Some(map) = map {
            assert_eq!(map.read_to_vec(usize::try_from(from).unwrap(), bytes.len()).unwrap(), bytes);
        }

        let tail = case.options().part(SIZE - 7..).open(&path).unwrap();
        assert_eq!(tail.read_to_vec(0, 7).unwrap(), b"far end");
        tail.fill(.., 0).unwrap();
        part.fill(.., 0).unwrap();
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), SIZE);
}
