//! [`WriteSet`]: the changes of a transaction, by key, until it commits. It lies in private memory:
//! a list in the order of the keys' first changes, a hash table of the keys, and one buffer.

use crate::dict::format::layout::number;
use crate::dict::format::record::RecordKind;
use crate::dict::write::session::KeyChange;

/// The change of one key.
struct PendingWrite {
    hash: u64,
    /// Offset in `bytes` and length of the key.
    key: (usize, usize),
    /// The kind of the new value, or `None` for a removal.
    value: Option<RecordKind>,
    /// Offset in `bytes` and length of the value, and the room that it has there.
    at: (usize, usize, usize),
}

/// The changes of a transaction, in the order in which their keys were changed first.
pub(in crate::dict) struct WriteSet {
    list: Vec<PendingWrite>,
    /// All keys and values, one after the other.
    bytes: Vec<u8>,
    /// A hash table with linear probing: indexes in `list`, + 1; 0 is empty. At most half of it is
    /// used.
    table: Vec<u32>,
}

/// The number of bytes that `bytes` reserves at first.
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

    /// Returns a key's place in the table, or the place for it, and its index in the list.
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

    /// Returns the planned change of a key: `Some(None)` for a removal, `None` if it has none.
    #[allow(clippy::option_option, reason = "the two say different things, as told above")]
    pub(in crate::dict) fn get(&self, hash: u64, key: &str) -> Option<Option<(RecordKind, &[u8])>> {
        let (_, place) = self.find(hash, key.as_bytes());
        Some(self.value(&self.list[place?]))
    }

    /// Plans the change of a key, in place of an earlier one. `None` removes the key.
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
        // The redo log has room for fewer changes than 32 bits count.
        self.table[at] = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
    }

    /// Replaces the planned value of a key: in place if it fits the room, otherwise at the end of
    /// `bytes` with at least twice the room. So the values of a key that is set many times take at
    /// most about four times the largest.
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

    /// Returns all changes, in the order in which their keys were changed first.
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

    /// Returns a value: half of them grow from round to round, the others shrink.
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
        // The hashes collide in the table, and each is that of two keys.
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
