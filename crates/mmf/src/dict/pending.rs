//! What a transaction is to change, by key, until it is committed.

use super::record::Kind;
use super::shape::number;
use super::write::Step;

/// One key's change.
struct Pending {
    hash: u64,
    /// Where in `keys` it begins, and how long it is.
    key: (usize, usize),
    /// `None` removes.
    value: Option<(Kind, Vec<u8>)>,
}

/// Changes in the order in which their keys came first.
pub(super) struct Changes {
    list: Vec<Pending>,
    /// All keys, one behind the other.
    keys: Vec<u8>,
    /// By hash: places in the list, + 1; 0 is empty. At most half of it is used.
    table: Vec<u32>,
}

impl Changes {
    pub(super) fn new() -> Changes {
        Changes { list: Vec::new(), keys: Vec::new(), table: Vec::new() }
    }

    fn key(&self, pending: &Pending) -> &[u8] {
        let (from, len) = pending.key;
        &self.keys[from..from + len]
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
    pub(super) fn get(&self, hash: u64, key: &str) -> Option<Option<(Kind, &[u8])>> {
        let (_, place) = self.find(hash, key.as_bytes());
        let value = &self.list[place?].value;
        Some(value.as_ref().map(|(kind, bytes)| (*kind, &bytes[..])))
    }

    #[inline]
    pub(super) fn put(&mut self, hash: u64, key: &str, value: Option<(Kind, Vec<u8>)>) {
        if self.table.len() < 2 * (self.list.len() + 1) {
            self.grow();
        }
        let (at, place) = self.find(hash, key.as_bytes());
        match place {
            Some(place) => self.list[place].value = value,
            None => {
                self.list.push(Pending { hash, key: (self.keys.len(), key.len()), value });
                self.keys.extend_from_slice(key.as_bytes());
                // More than that no journal has room for.
                self.table[at] = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let len = (4 * self.list.len()).max(256).next_power_of_two();
        self.table = vec![0; len];
        for nth in 0..self.list.len() {
            let mut at = number(self.list[nth].hash & 0x7fff_ffff) & (len - 1);
            while self.table[at] != 0 {
                at = (at + 1) & (len - 1);
            }
            self.table[at] = u32::try_from(nth + 1).unwrap_or(u32::MAX);
        }
    }

    pub(super) fn steps<'a>(&'a self) -> Vec<Step<'a>> {
        let step = |pending: &'a Pending| {
            let Pending { hash, value, .. } = pending;
            let value = value.as_ref().map(|(kind, bytes)| (*kind, &bytes[..]));
            Step { key: self.key(pending), hash: *hash, value }
        };
        self.list.iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_of_each_key_counts_in_the_order_of_the_first() {
        let mut changes = Changes::new();
        // Hashes that meet in the table, some of them the same.
        for round in 0..3_u8 {
            for nth in 0..1000_u64 {
                let value = (nth % 5 != 0).then(|| (Kind::Bytes, vec![round, nth.to_le_bytes()[0]]));
                changes.put(nth / 2 * 64, &format!("key {nth}"), value);
            }
        }
        let steps = changes.steps();
        assert_eq!(steps.len(), 1000);
        for (nth, step) in (0..1000_u64).zip(steps) {
            let key = format!("key {nth}");
            let value = [2, nth.to_le_bytes()[0]];
            let expected = (nth % 5 != 0).then_some((Kind::Bytes, &value[..]));
            assert_eq!((step.key, step.hash, step.value), (key.as_bytes(), nth / 2 * 64, expected));
            assert_eq!(changes.get(step.hash, &key), Some(expected));
        }
        assert_eq!(changes.get(0, "key 1000"), None);
        assert_eq!(Changes::new().get(0, "key"), None);
    }
}
