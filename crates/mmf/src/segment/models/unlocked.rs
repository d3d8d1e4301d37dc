//! A read-only handle's reading: without the lock, between two looks at the version.

use super::*;
use crate::sys::fence;

/// What it takes for the contents between two equal, even versions was written by one writer.
#[test]
fn what_was_read_between_equal_versions_is_whole() {
    let bounds = Bounds { parker: ParkerKind::Futex, timeouts: 0, preemptions: 3 };
    check(bounds, |handles| {
        let data = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        attach(handles, 2);
        let writer = process(&handles[0], 0, {
            let data = Arc::clone(&data);
            move |segment| {
                let (_lock, _) = lock_write(segment, Deadline::Now).unwrap();
                segment.begin_change().unwrap();
                // As the guarded copies do.
                data.iter().for_each(|word| word.store(1, Ordering::Relaxed));
            }
        });
        let version = &handles[1].container.version;
        let before = version.load().unwrap();
        let copy = [0, 1].map(|n: usize| data[n].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if before % 2 == 0 && version.load().unwrap() == before {
            assert_eq!(copy[0], copy[1]);
            assert_eq!(u64::from(copy[0]), before / 2);
        }
        writer.join().unwrap();
    });
}
