//! Fast paths of taking a block, writing a record and freeing one. Each checks that its case
//! applies before it stores anything.

use crate::dict::format::layout::{at, class};
use crate::dict::format::record::{HEADER_LEN, PREV, RecordKind, STAMP};
use crate::dict::format::slot::slot_for;
use crate::dict::store::change_log::EventReservation;
use crate::dict::write::session::{KeyChange, WriteSession};
use crate::error::Result;
use crate::mapping::FastAccessMut;

impl WriteSession<'_> {
    /// Gives a key that is there another value, and tells the version, in as few steps as it takes.
    /// Nothing is done where it is `None`, but for what was written to free memory. A power cut
    /// needs more than this does.
    #[inline(always)]
    pub(in crate::dict) fn replace_fast(&mut self, change: &KeyChange<'_>) -> Result<Option<u64>> {
        if self.flush_state != 0 {
            return Ok(None);
        }
        let Some(version) = self.plan_replacement(change) else { return Ok(None) };
        self.commit_batch()?;
        Ok(Some(version))
    }

    #[inline(always)]
    fn plan_replacement(&mut self, change: &KeyChange<'_>) -> Option<u64> {
        let storage = self.storage;
        let map = storage.map.fast_access_mut()?;
        let (key, (kind, value)) = (change.key, change.value?);
        let [before, floor, buckets, _] = map.four_words(at::COMMIT)?;
        if before > u64::MAX / 2 {
            return None;
        }
        let version = before + 1;
        let line = storage.index().line_fast(*map, change.hash, buckets)?;
        // While the record is written, which waits for no cache.
        map.prefetch(line);
        self.batch.clear();
        let block = self.take_for(map, key, value)?;
        storage.records().fill(map, block, version, key, kind, value)?;
        let (slot, old) = self.find_in_line(*map, line, change.hash, key, floor)?;
        if old.cleared || old.in_spans {
            return None;
        }
        let reservation = EventReservation::new_fast(&storage, *map, key.len())?;
        self.batch.push_blind(block + PREV, old.block as u64);
        self.batch.push_blind(block + STAMP, version);
        self.batch.push_blind(slot, slot_for(change.hash, block));
        self.batch.push_blind(at::COMMIT, version);
        reservation.push_head(self.batch);
        self.free_last(old.block, false, false).ok()?;
        reservation.write_fast(&storage, map, version, kind, key)?;
        Some(version)
    }

    /// As [`write_record_slow`](WriteSession::write_record_slow), into a block that is
    /// [taken](crate::dict::store::blocks::Blocks::take_fast) on the fast path.
    #[inline(always)]
    pub(in crate::dict) fn write_record_fast(
        &mut self,
        version: u64,
        key: &[u8],
        kind: RecordKind,
        value: &[u8],
    ) -> Result<Option<usize>> {
        let storage = self.storage;
        let Some(map) = storage.map.fast_access_mut() else { return Ok(None) };
        let Some(block) = self.take_for(map, key, value) else { return Ok(None) };
        // All of it was there before.
        match storage.records().fill(map, block, version, key, kind, value) {
            Some(()) => Ok(Some(block)),
            None => Err(storage.map.fault("write", block, 0)),
        }
    }

    /// Takes a block for a record that needs no more than a block.
    #[inline(always)]
    fn take_for(&mut self, map: FastAccessMut<'_>, key: &[u8], value: &[u8]) -> Option<usize> {
        let len = HEADER_LEN + key.len() + value.len();
        if len > self.storage.layout.largest_block() {
            return None;
        }
        self.storage.blocks().take_fast(map, self.batch, class::of(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::Dict;
    use crate::dict::store::write_batch::WriteBatch;
    use crate::segment::layout::PAYLOAD;

    /// A dict in which values of several lengths came and went.
    fn used(name: &str) -> (Dict, Vec<String>) {
        let name = crate::Name::local(format!("mmf-{name}-{}", std::process::id())).unwrap();
        let dict = Dict::create_new(&name, 4 << 20).unwrap();
        let keys: Vec<String> = (0..600_usize).map(|nth| format!("{nth:0width$}", width = 3 + nth % 50)).collect();
        for round in 1..4_usize {
            for (nth, key) in keys.iter().enumerate() {
                match (nth * round) % 7 {
                    0 => dict.remove(key).map(drop).unwrap(),
                    _ => dict.set_bytes(key, &vec![7; nth * round % 400]).map(drop).unwrap(),
                }
            }
        }
        (dict, keys)
    }

    #[test]
    fn the_fast_path_takes_and_gives_blocks_as_the_slow_path() {
        let (dict, keys) = used("set-blocks");
        let storage = dict.storage();
        let map = dict.segment.map.fast_access_mut().unwrap();
        let (mut taken, mut given) = (0, 0);
        for class in 1..=class::LAST {
            let (mut batch, mut other) = (WriteBatch::new(), WriteBatch::new());
            if let Some(block) = storage.blocks().take_fast(map, &mut batch, class) {
                assert_eq!(storage.blocks().take(&mut other, class, None).unwrap(), block, "{class}");
                assert_eq!(batch.list(), other.list(), "{class}");
                taken += 1;
            }
        }
        for key in &keys {
            let hash = dict.hash(key, "read").unwrap();
            let mut found = None;
            storage.index().find(&WriteBatch::new(), hash, |block| Ok(*found.insert(block) == block)).unwrap();
            let Some(block) = found else { continue };
            let (mut batch, mut other) = (WriteBatch::new(), WriteBatch::new());
            if storage.blocks().give_fast(map, &mut batch, block).is_some() {
                other.push(block + STAMP, 0);
                storage.blocks().give(&mut other, block).unwrap();
                assert_eq!(batch.list(), other.list(), "{key}");
                given += 1;
            }
        }
        assert!(taken > 10 && given > 300, "{taken} {given}");
    }

    #[test]
    fn the_fast_path_replaces_a_value_as_the_slow_path() {
        let (dict, keys) = used("set-whole");
        let mut batch = WriteBatch::new();
        let mut writer = dict.writer(&mut batch, "set").unwrap();
        let map = &dict.segment.map;
        let all = || map.read_to_vec(PAYLOAD, map.len() - PAYLOAD).unwrap();
        let mut enough = 0;
        for (nth, key) in keys.iter().enumerate() {
            let (key, hash) = (key.as_bytes(), dict.hash(key, "set").unwrap());
            let (kind, value) =
                (if nth % 2 == 0 { RecordKind::Bytes } else { RecordKind::Encoded }, vec![9; nth % 300]);
            let change = KeyChange { key, hash, value: Some((kind, &value)) };
            let before = all();
            let Some(version) = writer.replace_fast(&change).unwrap() else { continue };
            let made = all();
            map.write_at(PAYLOAD, &before).unwrap();
            assert_eq!(writer.try_apply(&[change], false).unwrap(), Some(version), "{nth}");
            assert!(all() == made, "{nth}");
            enough += 1;
        }
        drop(writer);
        assert!(enough > 300, "{enough}");
        assert!(dict.check().unwrap().is_whole());
    }
}
