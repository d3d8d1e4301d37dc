//! [`Transaction`] and [`Snapshot`]: several changes as one, and several reads of one moment.

use crate::dict::api::write_set::WriteSet;
use crate::dict::format::record::RecordKind;
use crate::dict::read::scan::Scanner;
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::write::apply::Applier;
use crate::dict::write::lookup::Lookup;
use crate::dict::write::read_session::ReadSession;
use crate::dict::write::session::WriteSession;
use crate::dict::{Dict, Encoding, Entries};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::retry::Attempts;
use crate::types::Access;

#[cfg(feature = "serde")]
use {crate::dict::format::encoding::decode, serde::Serialize, serde::de::DeserializeOwned};

impl Dict {
    /// Runs `body` with the lock held, and then makes all its changes at once. Every reader sees
    /// all of them or none, also if a process dies. If `body` fails, panics or
    /// [aborts](Transaction::abort), nothing is changed.
    ///
    /// Other writers wait meanwhile, readers do not. Within `body`, methods of this handle that
    /// write, or lock to read, return [`ErrorKind::Deadlock`]. That includes a further transaction.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deadlock`] within a transaction or a snapshot of this thread; otherwise those
    /// of [`set_bytes`](Dict::set_bytes) and of `body`. A single removal needs no room. Several
    /// removals return [`ErrorKind::Full`] if the dict is full.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("accounts-{}", std::process::id()))?, 1 << 20)?;
    /// dict.set("ann", &100)?;
    /// dict.set("ben", &0)?;
    /// dict.transaction(|tx| {
    ///     let (ann, ben): (i64, i64) = (tx.get("ann")?.unwrap_or(0), tx.get("ben")?.unwrap_or(0));
    ///     tx.set("ann", &(ann - 30))?;
    ///     tx.set("ben", &(ben + 30))
    /// })?;
    /// assert_eq!((dict.get("ann")?, dict.get("ben")?), (Some(70), Some(30)));
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn transaction<R>(&self, body: impl FnOnce(&mut Transaction<'_>) -> Result<R>) -> Result<R> {
        let mut batch = WriteBatch::new();
        let writer = self.writer(&mut batch, "begin a transaction with")?;
        let mut transaction = Transaction { writer, changes: WriteSet::new(), aborted: false };
        let result = body(&mut transaction)?;
        if !transaction.aborted {
            transaction.commit()?;
        }
        Ok(result)
    }

    /// Runs `body` on the dict's state of one moment. A read-only handle cannot lock: it runs
    /// `body` again if a writer changed something meanwhile.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deadlock`] within a transaction of this thread; otherwise those of
    /// [`entries`](Dict::entries) and of `body`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("totals-{}", std::process::id()))?, 1 << 20)?;
    /// dict.set("ann", &70)?;
    /// dict.set("ben", &30)?;
    /// let sum = dict.snapshot(|dict| Ok(dict.get("ann")?.unwrap_or(0) + dict.get("ben")?.unwrap_or(0)))?;
    /// assert_eq!(sum, 100);
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn snapshot<R>(&self, mut body: impl FnMut(&Snapshot<'_>) -> Result<R>) -> Result<R> {
        let snapshot = Snapshot { dict: self };
        if self.segment.map.access() == Access::ReadWrite {
            let _reader = ReadSession::lock(self, self.lock_deadline())?;
            return body(&snapshot);
        }
        let mut attempts = Attempts::new(self.lock_deadline());
        loop {
            let before = Scanner::new(&self.storage()).generation()?;
            let result = body(&snapshot);
            crate::sys::fence(std::sync::atomic::Ordering::Acquire);
            if Scanner::new(&self.storage()).generation()? == before {
                return result;
            }
            if !attempts.pause(true) {
                return Err(self.segment.name_error(Error::new(ErrorKind::Contended, "read")));
            }
        }
    }
}

/// The state of a dict at one moment. See [`Dict::snapshot`].
pub struct Snapshot<'a> {
    dict: &'a Dict,
}

impl Snapshot<'_> {
    /// Returns the bytes of a key's value, or `None` if the key is absent.
    ///
    /// # Errors
    ///
    /// Those of [`Dict::get_bytes`].
    pub fn get_bytes(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.dict.get_bytes(key)
    }

    /// Returns the value of a key, or `None` if the key is absent.
    ///
    /// # Errors
    ///
    /// Those of [`Dict::get`].
    #[cfg(feature = "serde")]
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        self.dict.get(key)
    }

    /// Returns whether `key` is present.
    ///
    /// # Errors
    ///
    /// Those of [`Dict::contains_key`].
    pub fn contains_key(&self, key: &str) -> Result<bool> {
        self.dict.contains_key(key)
    }

    /// Copies all entries.
    ///
    /// # Errors
    ///
    /// Those of [`Dict::entries`].
    pub fn entries(&self) -> Result<Entries> {
        self.dict.entries_in_snapshot()
    }
}

/// Changes that become visible at once. See [`Dict::transaction`].
pub struct Transaction<'a> {
    writer: WriteSession<'a>,
    changes: WriteSet,
    aborted: bool,
}

impl Transaction<'_> {
    /// Returns the bytes of a key's value, with the transaction's changes so far.
    ///
    /// # Errors
    ///
    /// Those of [`Dict::get_bytes`].
    pub fn get_bytes(&mut self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.value(key)?.map(|(_, bytes)| bytes))
    }

    fn value(&mut self, key: &str) -> Result<Option<(Encoding, Vec<u8>)>> {
        let hash = self.writer.dict.hash(key, "read")?;
        if let Some(change) = self.changes.get(hash, key) {
            return Ok(change.map(|(kind, bytes)| (Encoding::of(kind), bytes.to_vec())));
        }
        let mut bytes = Vec::new();
        Ok(Lookup::new(&mut self.writer).read(hash, key, &mut bytes)?.map(|encoding| (encoding, bytes)))
    }

    /// Returns whether `key` is present, with the transaction's changes so far.
    ///
    /// # Errors
    ///
    /// Those of [`Dict::contains_key`].
    pub fn contains_key(&mut self, key: &str) -> Result<bool> {
        let hash = self.writer.dict.hash(key, "read")?;
        if let Some(change) = self.changes.get(hash, key) {
            return Ok(change.is_some());
        }
        Ok(Lookup::new(&mut self.writer).find_record(hash, key.as_bytes())?.is_some())
    }

    /// Sets a key to raw bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a key that is too long. The commit reports all other errors.
    pub fn set_bytes(&mut self, key: &str, value: &[u8]) -> Result<()> {
        self.change(key, Some((RecordKind::Bytes, value)))
    }

    /// Sets a key to bytes that are encoded already, like [`Dict::set_encoded`].
    ///
    /// # Errors
    ///
    /// Those of [`set_bytes`](Transaction::set_bytes).
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Encoding, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("encoded-tx-{}", std::process::id()))?, 1 << 20)?;
    /// dict.transaction(|tx| tx.set_encoded("answer", Encoding::MessagePack, &[42]))?;
    /// assert_eq!(dict.get_bytes("answer")?, Some(vec![42]));
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn set_encoded(&mut self, key: &str, encoding: Encoding, bytes: &[u8]) -> Result<()> {
        self.change(key, Some((encoding.kind(), bytes)))
    }

    /// Removes a key, and returns whether it was present.
    ///
    /// # Errors
    ///
    /// Those of [`set_bytes`](Transaction::set_bytes) and
    /// [`contains_key`](Transaction::contains_key).
    pub fn remove(&mut self, key: &str) -> Result<bool> {
        let there = self.contains_key(key)?;
        if there {
            self.change(key, None)?;
        }
        Ok(there)
    }

    fn change(&mut self, key: &str, value: Option<(RecordKind, &[u8])>) -> Result<()> {
        let hash = self.writer.dict.hash(key, "set")?;
        self.changes.put(hash, key, value);
        Ok(())
    }

    /// Discards all changes, later ones of this transaction included. `body` continues, and
    /// [`Dict::transaction`] returns its result.
    pub fn abort(&mut self) {
        self.aborted = true;
    }

    fn commit(mut self) -> Result<()> {
        if self.writer.dict.is_forked() {
            return Err(self
                .writer
                .dict
                .segment
                .name_error(Error::invalid("change", "this transaction was begun before a fork, in another process")));
        }
        let changes = self.changes.key_changes();
        Applier::new(&mut self.writer).apply(&changes)?;
        Ok(())
    }
}

/// Methods for values that `serde` serializes.
#[cfg(feature = "serde")]
impl Transaction<'_> {
    /// Returns the value of a key, with the transaction's changes so far.
    ///
    /// # Errors
    ///
    /// Those of [`Dict::get`].
    pub fn get<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        match self.value(key)? {
            Some((encoding, bytes)) => {
                decode(encoding, &bytes).map(Some).map_err(|error| self.writer.dict.about(key, error))
            }
            None => Ok(None),
        }
    }

    /// Sets a key to a value.
    ///
    /// # Errors
    ///
    /// Those of [`set_bytes`](Transaction::set_bytes); [`ErrorKind::InvalidInput`] for a value that
    /// cannot be encoded.
    pub fn set<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<()> {
        let bytes = self.writer.dict.encoded(key, value)?;
        self.change(key, Some((RecordKind::Encoded, &bytes)))
    }
}

#[cfg(test)]
mod tests {
    use crate::dict::format::layout::at;
    use std::time::Duration;

    use super::*;
    use crate::dict::store::index::EntryPosition;
    use crate::name::Name;

    #[test]
    fn attempts_beside_a_writer_that_never_rests_pause() {
        let timeout = Duration::from_secs(1);
        let name = Name::local(format!("pauses {}", std::process::id())).unwrap();
        let peer = Dict::create_new(&name, 1 << 20).unwrap();
        let options = || Dict::options().timeout(Some(timeout));
        let (reader, writer) =
            (options().access(Access::ReadOnly).open(&name).unwrap(), options().open(&name).unwrap());
        let mut attempts = 0;
        let seen = reader.snapshot(|_| {
            attempts += 1;
            peer.set_bytes("key", b"value")
        });
        assert_eq!(*seen.unwrap_err().kind(), ErrorKind::Contended);
        // The first 200 pauses are short; the others sleep for at least 50 us.
        assert!((2..20_300).contains(&attempts), "{attempts} attempts");
        attempts = 0;
        peer.set("number", &attempts).unwrap();
        let updated = writer.update("number", |old: Option<u32>| {
            attempts += 1;
            peer.set("number", &attempts).unwrap();
            old
        });
        assert_eq!(*updated.unwrap_err().kind(), ErrorKind::Contended);
        assert!((2..20_300).contains(&attempts), "{attempts} attempts");
    }

    #[test]
    fn a_snapshot_without_a_lock_does_not_see_a_removal_half_made() {
        let name = Name::local(format!("half made {}", std::process::id())).unwrap();
        let dict = Dict::create_new(&name, 1 << 20).unwrap();
        dict.set_bytes("key", b"value").unwrap();
        let hash = dict.hash("key", "read").unwrap();
        let EntryPosition::Entry(slot) = dict.storage().index().find(&WriteBatch::new(), hash, |_| Ok(true)).unwrap()
        else {
            panic!()
        };
        let reader = Dict::options().access(Access::ReadOnly).open(&name).unwrap();
        let map = &dict.segment.map;
        // In the first round the writer reaches its first store, in the second it is slow. After
        // that it makes no progress.
        let mut rounds = 0;
        let seen = reader.snapshot(|all| {
            rounds += 1;
            let first = all.contains_key("key")?;
            match rounds {
                1 => {
                    for (nth, word) in [slot as u64, 0, at::COMMIT as u64, 2].into_iter().enumerate() {
                        map.put_word(at::REDO_LOG + 8 * nth, word)?;
                    }
                    map.put_word(at::REDO_LEN, 2)?;
                }
                2 => map.put_word(slot, 0)?,
                _ => {}
            }
            Ok((first, all.contains_key("key")?, all.entries()?.len()))
        });
        assert_eq!((rounds, seen.unwrap()), (3, (false, false, 0)));
        // The next writer completes the change.
        assert_eq!(dict.set_bytes("other", b"value").unwrap(), 3);
    }
}
