//! [`WorkLimit`]: bounds the time that a call works after it has its lock.
//!
//! The problem: a peer with write access can make a dict as large as its capacity, and forge an
//! index that leads to the same records many times. Two bounds end every scan:
//!
//! 1. The size. An index has no more lines than the spans that were ever taken hold, and all
//!    entries together have no more bytes. More is damage
//!    ([`Index::most_lines`](crate::dict::store::index::Index::most_lines)).
//! 2. The time. A call waits for its lock until its timeout is over, and then works for the same
//!    time again. It works at least for the handle's work time, which is [`MIN_WORK_TIME`] unless
//!    the options say more. Each step of a scan calls [`spend`](WorkLimit::spend).
//!
//! A call that has not changed anything yet ends with [`ErrorKind::Timeout`]. Maintenance
//! (sweeping, splitting and shortening buckets, emptying spans) stops, and a later call continues
//! it.
//!
//! Cost: one read of the clock for each [`UNITS_PER_CLOCK_READ`] units of work, after they are
//! done. A call that does less never reads it.

use std::cell::Cell;
use std::time::Instant;

use crate::error::{Error, ErrorKind};
pub(in crate::dict) use crate::mapping::MIN_WORK_TIME;
use crate::mapping::Mapping;
use crate::segment::Deadline;

/// Units of work between two reads of the clock. A unit is a line of the index, a record, or
/// [`BYTES_PER_UNIT`] bytes of a value.
const UNITS_PER_CLOCK_READ: u32 = 64;

/// Bytes of a value that are one unit of work.
const BYTES_PER_UNIT: usize = 1024;

/// The time until which a call may work.
pub(in crate::dict) struct WorkLimit {
    until: Cell<Deadline>,
    /// Units of work since the last read of the clock.
    spent: Cell<u32>,
    is_set: Cell<bool>,
}

impl WorkLimit {
    /// Returns a limit. A duration counts from the first read of the clock.
    #[inline]
    pub(in crate::dict) fn new(until: Deadline) -> WorkLimit {
        WorkLimit { until: Cell::new(until), spent: Cell::new(0), is_set: Cell::new(true) }
    }

    /// Returns a limit without an end, which [`set`](WorkLimit::set) may replace. The fast path of
    /// a change uses it, since it never needs an end.
    #[inline(always)]
    pub(in crate::dict) fn unset() -> WorkLimit {
        WorkLimit { until: Cell::new(Deadline::Never), spent: Cell::new(0), is_set: Cell::new(false) }
    }

    /// Sets the end, unless the limit has one.
    #[inline]
    pub(in crate::dict) fn set(&self, until: Deadline) {
        if !self.is_set.replace(true) {
            self.until.set(until);
        }
    }

    /// Adds a unit of work. Returns whether the time is over.
    #[inline]
    pub(in crate::dict) fn spend(&self) -> bool {
        self.spend_more(1)
    }

    /// Adds the work of `bytes` bytes. Returns whether the time is over.
    #[inline]
    pub(in crate::dict) fn spend_bytes(&self, bytes: usize) -> bool {
        self.spend_more(u32::try_from(bytes / BYTES_PER_UNIT).unwrap_or(u32::MAX).saturating_add(1))
    }

    #[inline]
    fn spend_more(&self, units: u32) -> bool {
        let spent = self.spent.get().saturating_add(units);
        self.spent.set(spent);
        spent >= UNITS_PER_CLOCK_READ && self.is_over()
    }

    /// Reads the clock. Returns whether the time is over.
    #[cold]
    #[inline(never)]
    pub(in crate::dict) fn is_over(&self) -> bool {
        let now = Instant::now();
        let deadline = match self.until.get() {
            Deadline::At(deadline) => Some(deadline),
            Deadline::Now => now.checked_add(MIN_WORK_TIME),
            Deadline::After(timeout) => now.checked_add(timeout.max(MIN_WORK_TIME)),
            Deadline::Never => None,
        };
        self.until.set(deadline.map_or(Deadline::Never, Deadline::At));
        let is_over = deadline.is_some_and(|deadline| now >= deadline);
        // Once the time is over, each further unit reads the clock and returns `true`.
        self.spent.set(if is_over { UNITS_PER_CLOCK_READ } else { 0 });
        is_over
    }
}

/// Returns the error for a scan or a change that did not end in time.
#[cold]
#[inline(never)]
pub(in crate::dict) fn too_slow(map: &Mapping, doing: &'static str) -> Error {
    map.name_error(Error::new(ErrorKind::Timeout { holder: None }, doing)).with_help("give the handle a longer timeout")
}

#[cfg(test)]
mod tests {
    use crate::dict::read::scan::Scanner;
    use crate::dict::write::apply::Applier;
    use crate::dict::write::compaction::Compaction;
    use std::time::Duration;

    use super::*;
    use crate::dict::format::layout::at;
    use crate::dict::store::write_batch::WriteBatch;
    use crate::dict::write::session::WriteSession;
    use crate::dict::{Dict, Watched};
    use crate::name::Name;

    /// Returns a limit that is over after [`UNITS_PER_CLOCK_READ`] units.
    fn over() -> WorkLimit {
        WorkLimit::new(Deadline::At(Instant::now()))
    }

    fn dict(name: &str, entries: usize) -> Dict {
        let name = Name::local(format!("limit {name} {}", std::process::id())).unwrap();
        let dict = Dict::create_new(name, 4 << 20).unwrap();
        (0..entries).for_each(|nth| dict.set_bytes(&format!("key {nth}"), b"value").map(drop).unwrap());
        dict
    }

    /// Returns a writer whose limit is over after [`UNITS_PER_CLOCK_READ`] units.
    fn late<'a>(dict: &'a Dict, batch: &'a mut WriteBatch, doing: &'static str) -> WriteSession<'a> {
        let mut writer = dict.writer(batch, doing).unwrap();
        writer.limit = over();
        writer
    }

    #[test]
    fn an_update_that_has_waited_as_long_as_it_may_still_makes_space() {
        let mut dict = dict("late", 0);
        let fill = |dict: &Dict| (0..).find(|nth| dict.set_bytes(&format!("{nth}"), &[7; 1000]).is_err()).unwrap();
        fill(&dict);
        // The limit is over before `clear` sweeps the buckets.
        dict.timeout = Some(Duration::ZERO);
        dict.clear().unwrap();
        assert_ne!(dict.segment.map.word(at::SWEEP).unwrap(), 0);
        dict.update("text", |_: Option<String>| Some("text".repeat(10_000))).unwrap();
    }

    #[test]
    fn a_long_value_is_updated_within_a_timeout_of_zero() {
        let name = Name::local(format!("limit long {}", std::process::id())).unwrap();
        let dict = Dict::options().capacity(64 << 20).timeout(Some(Duration::ZERO)).create_new(name).unwrap();
        dict.set("text", &"text".repeat(2 << 20)).unwrap();
        let updated = dict.update("text", |text: Option<String>| text.map(|text| text + "!")).unwrap();
        assert_eq!(updated.map(|text| text.len()), Some((8 << 20) + 1));
    }

    #[test]
    fn the_time_is_over_once_the_timeout_has_passed_and_stays_so() {
        for until in [Deadline::Now, Deadline::After(Duration::ZERO), Deadline::At(Instant::now() + MIN_WORK_TIME)] {
            let limit = WorkLimit::new(until);
            let began = Instant::now();
            while !limit.spend() {
                assert!(began.elapsed() < 100 * MIN_WORK_TIME);
            }
            assert!(limit.spend() && limit.is_over());
        }
        let limit = WorkLimit::new(Deadline::Never);
        assert!((0..10_000).all(|_| !limit.spend()) && !limit.spend_bytes(usize::MAX));
    }

    #[test]
    fn who_looks_at_everything_is_told_that_the_time_is_over() {
        let dict = dict("scan", 1000);
        for values in [false, true] {
            let error = Scanner::new(&dict.storage()).scan_locked(values, &over()).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Timeout { holder: None }), "{error}");
            assert_eq!(
                Scanner::new(&dict.storage()).scan_locked(values, &WorkLimit::new(Deadline::Never)).unwrap().len(),
                1000
            );
        }
        let error = dict.check_now(&mut crate::Report::default(), Deadline::At(Instant::now())).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout { holder: None }), "{error}");
    }

    #[test]
    fn a_handle_that_waits_briefly_for_locks_may_work_for_longer() {
        let name = Name::local(format!("limit work {}", std::process::id())).unwrap();
        let works_for = |timeout, work_time| {
            let options = Dict::options().capacity(1 << 20).timeout(timeout).work_time(work_time);
            match options.open_or_create(&name).unwrap().work_deadline() {
                Deadline::After(time) => Some(time),
                _ => None,
            }
        };
        let second = Duration::from_secs(1);
        assert_eq!(works_for(Some(Duration::ZERO), Duration::ZERO), Some(MIN_WORK_TIME));
        assert_eq!(works_for(Some(second / 10), second), Some(second));
        assert_eq!(works_for(Some(2 * second), second), Some(2 * second));
        assert_eq!(works_for(None, second), None);
    }

    #[test]
    fn the_work_time_of_a_handle_can_be_changed() {
        let mut dict = dict("change of work time", 0);
        let works_for = |dict: &Dict| match dict.work_deadline() {
            Deadline::After(time) => Some(time),
            _ => None,
        };
        dict.timeout = Some(Duration::from_millis(1));
        assert_eq!((dict.work_time(), works_for(&dict)), (MIN_WORK_TIME, Some(MIN_WORK_TIME)));
        dict.set_work_time(Duration::from_secs(5));
        assert_eq!(works_for(&dict), Some(Duration::from_secs(5)));
        dict.set_work_time(Duration::ZERO);
        assert_eq!(works_for(&dict), Some(MIN_WORK_TIME));
        // Longer than an `u64` counts nanoseconds.
        dict.set_work_time(Duration::MAX);
        assert!(works_for(&dict).is_some_and(|time| time > Duration::from_secs(500 << 25)));
        assert_eq!(dict.len().unwrap(), 0);
        assert_eq!(dict.keys().unwrap().len(), 0);
    }

    #[test]
    fn a_sweep_whose_time_is_over_is_continued_by_the_next() {
        let dict = dict("sweep", 2000);
        let map = &dict.segment.map;
        let mut batch = WriteBatch::new();
        let floor = map.word(at::COMMIT).unwrap();
        // These stores are those of `clear`, without its sweep.
        [(at::FLOOR, floor), (at::LEN, 0), (at::SWEEP, 1)]
            .iter()
            .for_each(|(at, value)| map.put_word(*at, *value).unwrap());
        let mut rounds = 0;
        while map.word(at::SWEEP).unwrap() != 0 {
            let mut writer = late(&dict, &mut batch, "sweep");
            assert!(Compaction::new(&mut writer).sweep(u64::MAX).unwrap());
            rounds += 1;
        }
        assert!((3..200).contains(&rounds), "{rounds}");
        assert!(dict.check().unwrap().is_whole());
        assert_eq!(dict.stats().unwrap().used, 0);
    }

    #[test]
    fn buckets_are_split_and_shortened_as_far_as_there_is_time() {
        let dict = dict("split", 2000);
        let mut batch = WriteBatch::new();
        let count = || dict.segment.map.word(at::BUCKETS).unwrap();
        let (before, limit) = (count(), over());
        while !limit.spend() {}
        dict.storage().index().split(&mut batch, &limit).unwrap();
        assert!(!dict.storage().index().shorten(&mut batch, 0, &mut 100, &limit).unwrap());
        assert_eq!(count(), before);
        // The change is still made.
        let mut writer = late(&dict, &mut batch, "set");
        while !writer.limit.spend() {}
        Applier::new(&mut writer).make_room_in_index(1000).unwrap();
        assert_eq!(count(), before);
        drop(writer);
        dict.set_bytes("one more", b"value").unwrap();
        assert!(dict.check().unwrap().is_whole());
    }

    #[test]
    fn a_transaction_whose_time_is_over_changes_nothing() {
        let dict = dict("transaction", 10);
        let mut batch = WriteBatch::new();
        let mut writer = late(&dict, &mut batch, "change");
        let keys: Vec<String> = (0..1000).map(|nth| format!("new {nth}")).collect();
        let steps: Vec<_> = (keys.iter())
            .map(|key| crate::dict::write::session::KeyChange {
                key: key.as_bytes(),
                hash: dict.hash(key, "set").unwrap(),
                value: Some((crate::dict::format::record::RecordKind::Bytes, b"value")),
            })
            .collect();
        let error = Applier::new(&mut writer).apply(&steps).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout { holder: None }), "{error}");
        drop(writer);
        assert_eq!(dict.len().unwrap(), 10);
        assert!(dict.check().unwrap().is_whole());
    }

    #[test]
    fn what_watches_goes_on_where_its_time_was_over() {
        let dict = dict("watch", 0);
        let mut changes = dict.watch(Watched::Key("watched".to_owned())).unwrap();
        (0..100).for_each(|nth| dict.set_bytes(&format!("key {nth}"), b"value").map(drop).unwrap());
        dict.set_bytes("watched", b"value").unwrap();
        assert_eq!(changes.next_there(&over()).unwrap(), None);
        assert!(matches!(changes.next_there(&over()).unwrap(), Some(crate::Change::Set { .. })));
    }
}
