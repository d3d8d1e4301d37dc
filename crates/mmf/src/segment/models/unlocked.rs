//! A read-only handle's reading: without the lock, between two looks at the version.

use std::sync::atomic::Ordering;

use loom::sync::atomic::AtomicU32;

use super::*;
use crate::sys::fence;

/// What it takes for the contents between two equal, even versions was written by one writer.
#[test]
fn what_was_read_between_equal_versions_is_whole() {
    let bounds = Bounds { bell: Bell::Futex, timeouts: 0, preemptions: 3 };
    check(bounds, |segment| {
        let data = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        occupy(&segment, 0..1);
        let writer = process(0, {
            let (segment, data) = (Arc::clone(&segment), Arc::clone(&data));
            move || {
                segment.lock.write(0, Until::Now, &nobody).unwrap();
                segment.begin_change(0).unwrap();
                // As the guarded copies do.
                data.iter().for_each(|word| word.store(1, Ordering::Relaxed));
                segment.write_unlock(0, Change::Whole).unwrap();
            }
        });
        let before = segment.version.load().unwrap();
        let copy = [0, 1].map(|n| data[n].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if before % 2 == 0 && segment.version.load().unwrap() == before {
            assert_eq!(copy[0], copy[1]);
            assert_eq!(u64::from(copy[0]), before / 2);
        }
        writer.join().unwrap();
    });
}
