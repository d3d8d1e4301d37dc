//! What a transaction is to change, by key, until it is committed.

use crate::dict::format::layout::number;
use crate::dict::format::record::RecordKind;
use crate::dict::write::session::KeyChange;

/// One key's change.
struct PendingWrite {
    hash: u64,
    /// Where in `bytes` it begins, and how long it is.
    key: (usize, usize),
    /// `None` removes.
    value: Option<RecordKind>,
    /// Where in `bytes` the value begins, how long it is, and how long it may become there.
    at: (usize, usize, usize),
}

/// Changes in the order in which their keys came first.
pub(in crate::dict) struct WriteSet {
    list: Vec<PendingWrite>,
    /// All keys and values, one behind the other.
    bytes: Vec<u8>,
    /// By hash: places in the list, + 1; 0 is empty. At most half of it is used.
    table: Vec<u32>,
}

/// Bytes that room is made for at first.
const INITIAL_BYTES: usize = 4096;

impl WriteSet {
    pub(in crate::dict) fn new() -> WriteSet {
        WriteSet { list: Vec::new(), bytes: Vec::new(), table: Vec::new() }
    }

    fn key(&self, pending: &PendingWrite) -> &[u8] {
        let (from, len) = pending.key;
        &self.bytes[from..from + len]
    }

    fn value(&self, pending: &PendingWrite) -> Option<(RecordKind, &[u8])> {
        let (from, len, _) = pending.at;
        Some((pending.value?, &self.bytes[from..from + len]))
    }

    /// Where in the table a key is, or may go, and its place in the list.
    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> (usize, Option<usize>) {
        let mask = self.table.len().wrapping_sub(1);
        let mut at = number(hash & 0x7fff_ffff) & mask;
        while let Some(place) = self.table.get(at).and_then(|place| place.checked_sub(1)) {
            let place = place as usize;
            if self.list[place].hash == hash && self.key(&self.list[place]) == key {
                return (at, Some(place));
            }
            at = (at + 1) & mask;
        }
        (at, None)
    }

    /// What a key is to have, if it is to be changed; `Some(None)` is a removal.
    #[allow(clippy::option_option, reason = "the two say different things, as told above")]
    pub(in crate::dict) fn get(&self, hash: u64, key: &str) -> Option<Option<(RecordKind, &[u8])>> {
        let (_, place) = self.find(hash, key.as_bytes());
        Some(self.value(&self.list[place?]))
    }

    #[inline]
    pub(in crate::dict) fn put(&mut self, hash: u64, key: &str, value: Option<(RecordKind, &[u8])>) {
        if self.table.len() < 2 * (self.list.len() + 1) {
            self.grow();
        }
        let (at, place) = self.find(hash, key.as_bytes());
        let (kind, value) = value.map_or((None, &[][..]), |(kind, value)| (Some(kind), value));
        if let Some(place) = place {
            return self.replace(place, kind, value);
        }
        let from = self.bytes.len();
        self.bytes.extend_from_slice(key.as_bytes());
        let to = self.bytes.len();
        self.bytes.extend_from_slice(value);
        let at_value = (to, value.len(), value.len());
        self.list.push(PendingWrite { hash, key: (from, to - from), value: kind, at: at_value });
        // More than that no redo log has room for.
        self.table[at] = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
    }

    /// Where the old value lies if that is enough; else farther on, with twice the room, so that a key that is set again and again
    /// takes little more than its largest value.
    fn replace(&mut self, place: usize, kind: Option<RecordKind>, value: &[u8]) {
        let (mut from, _, mut room) = self.list[place].at;
        if value.len() > room {
            from = self.bytes.len();
            room = value.len().max(2 * room);
            self.bytes.resize(from + room, 0);
        }
        self.bytes[from..from + value.len()].copy_from_slice(value);
        let pending = &mut self.list[place];
        pending.value = kind;
        pending.at = (from, value.len(), room);
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let len = (4 * self.list.len()).max(256).next_power_of_two();
        self.table = vec![0; len];
        self.list.reserve(len / 2 - self.list.len());
        self.bytes.reserve(INITIAL_BYTES);
        for nth in 0..self.list.len() {
            let mut at = number(self.list[nth].hash & 0x7fff_ffff) & (len - 1);
            while self.table[at] != 0 {
                at = (at + 1) & (len - 1);
            }
            self.table[at] = u32::try_from(nth + 1).unwrap_or(u32::MAX);
        }
    }

    pub(in crate::dict) fn key_changes<'a>(&'a self) -> Vec<KeyChange<'a>> {
        let step = |pending: &'a PendingWrite| KeyChange {
            key: self.key(pending),
            hash: pending.hash,
            value: self.value(pending),
        };
        self.list.iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some of them grow, and some shrink, from round to round.
    fn value(round: u8, nth: u64) -> Option<Vec<u8>> {
        let len = usize::from(if nth % 2 == 0 { round } else { 2 - round });
        (nth % 5 != u64::from(round)).then(|| vec![round ^ nth.to_le_bytes()[0]; 3 * len])
    }

    #[test]
    fn a_key_that_is_set_again_and_again_takes_no_more_than_a_few_of_its_values() {
        let mut changes = WriteSet::new();
        for len in 0..10_000 {
            changes.put(1, "key", Some((RecordKind::Bytes, &vec![7; len])));
        }
        assert!(changes.bytes.len() < 50_000, "{}", changes.bytes.len());
    }

    #[test]
    fn the_last_change_of_each_key_counts_in_the_order_of_the_first() {
        let mut changes = WriteSet::new();
        // Hashes that meet in the table, some of them the same.
        for round in 0..3_u8 {
            for nth in 0..1000_u64 {
                let value = value(round, nth);
                changes.put(
                    nth / 2 * 64,
                    &format!("key {nth}"),
                    value.as_ref().map(|value| (RecordKind::Bytes, &value[..])),
                );
            }
        }
        let steps = changes.key_changes();
        assert_eq!(steps.len(), 1000);
        for (nth, step) in (0..1000_u64).zip(steps) {
            let key = format!("key {nth}");
            let value = value(2, nth);
            let expected = value.as_ref().map(|value| (RecordKind::Bytes, &value[..]));
            assert_eq!((step.key, step.hash, step.value), (key.as_bytes(), nth / 2 * 64, expected));
            assert_eq!(changes.get(step.hash, &key), Some(expected));
        }
        assert_eq!(changes.get(0, "key 1000"), None);
        assert_eq!(WriteSet::new().get(0, "key"), None);
    }
}
