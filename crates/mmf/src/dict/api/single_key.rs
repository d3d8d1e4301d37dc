//! Methods of [`Dict`] that read or change one key.

use crate::dict::format::record::RecordKind;
use crate::dict::read::fast_path::FastKeyReader;
use crate::dict::read::get::KeyReader;
use crate::dict::read::sink::DiscardValue;
use crate::dict::store::write_batch::WriteBatch;
use crate::dict::write::apply::Applier;
use crate::dict::write::compaction::Compaction;
use crate::dict::write::lookup::Lookup;
use crate::dict::write::session::{KeyChange, WriteSession};
use crate::dict::{Dict, Encoding};
#[cfg_attr(not(feature = "serde"), allow(unused_imports, reason = "the documentation links to them"))]
use crate::error::{Error, ErrorKind, Result};

#[cfg(feature = "serde")]
use {
    crate::dict::format::encoding::decode, crate::dict::format::encoding::encode,
    crate::dict::store::work_limit::MIN_WORK_TIME, crate::segment::retry::Attempts, serde::Serialize,
    serde::de::DeserializeOwned,
};

impl Dict {
    /// Sets a key to raw bytes, and returns the version of the change.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] if there is no room; the old value then stays.
    /// [`ErrorKind::InvalidInput`] for a key or a value that is too long. [`ErrorKind::Timeout`] if
    /// the lock was not free within the handle's timeout. [`ErrorKind::Deadlock`] in a
    /// [transaction](Dict::transaction) of this thread. [`ErrorKind::ReadOnly`],
    /// [`ErrorKind::NoSpace`], [`ErrorKind::Damaged`], [`ErrorKind::Fault`].
    #[inline]
    pub fn set_bytes(&self, key: &str, value: &[u8]) -> Result<u64> {
        self.put(key, RecordKind::Bytes, value)
    }

    /// Sets a key to bytes that are encoded already, and returns the version of the change. The
    /// bytes are those of [`get_into`](Dict::get_into), or of another encoder. They are not
    /// checked: a decoder refuses bytes that are not `MessagePack`, or are nested deeper than
    /// [`MAX_DEPTH`](Dict::MAX_DEPTH).
    ///
    /// # Errors
    ///
    /// Those of [`set_bytes`](Dict::set_bytes).
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Encoding, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("encoded-{}", std::process::id()))?, 1 << 20)?;
    /// dict.set_encoded("answer", Encoding::MessagePack, &[42])?;
    /// assert_eq!(dict.get("answer")?, Some(42));
    /// # Ok::<(), mmf::Error>(())
    /// ```
    #[inline]
    pub fn set_encoded(&self, key: &str, encoding: Encoding, value: &[u8]) -> Result<u64> {
        self.put(key, encoding.kind(), value)
    }

    #[inline]
    pub(in crate::dict) fn put(&self, key: &str, kind: RecordKind, value: &[u8]) -> Result<u64> {
        let hash = self.hash(key, "set")?;
        let mut batch = WriteBatch::new();
        let lock = WriteSession::acquire(self, self.lock_deadline(), "set")?;
        let mut writer = WriteSession::from_lock(lock, self, &mut batch);
        writer.recover()?;
        Applier::new(&mut writer).put(hash, key, kind, value)
    }

    /// Returns the bytes of a key's value, whatever their [encoding](Encoding), or `None` if the
    /// key is absent.
    ///
    /// # Errors
    ///
    /// Those of [`get_into`](Dict::get_into).
    pub fn get_bytes(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        Ok(self.get_into(key, &mut bytes)?.map(|_| bytes))
    }

    /// Removes a key, and returns whether it was present.
    ///
    /// # Errors
    ///
    /// Those of [`set_bytes`](Dict::set_bytes).
    pub fn remove(&self, key: &str) -> Result<bool> {
        let hash = self.hash(key, "remove")?;
        let mut batch = WriteBatch::new();
        let mut writer = self.writer(&mut batch, "remove")?;
        let removed = Applier::new(&mut writer).apply(&[KeyChange { key: key.as_bytes(), hash, value: None }])?;
        Ok(removed.is_some())
    }

    /// Removes all keys at once, and returns the version of the change.
    ///
    /// Afterwards it frees their space until its time is over. Later changes that need space free
    /// the rest. Once the keys are removed, the call does not fail.
    ///
    /// # Errors
    ///
    /// Those of [`set_bytes`](Dict::set_bytes).
    pub fn clear(&self) -> Result<u64> {
        let mut batch = WriteBatch::new();
        let until = self.lock_deadline().resolve();
        let mut writer = WriteSession::lock(self, &mut batch, until, "clear")?;
        let version = Applier::new(&mut writer).clear()?;
        drop(writer);
        // Another writer may hold the lock until the timeout. The keys are removed already, and a
        // change that needs space frees it.
        let sweep = |mut writer: WriteSession<'_>| Compaction::new(&mut writer).sweep(1024);
        while !until.is_over() && WriteSession::lock(self, &mut batch, until, "clear").and_then(sweep).unwrap_or(false)
        {
        }
        Ok(version)
    }

    /// Sets a key to raw bytes if it is absent, and returns whether it did.
    ///
    /// # Errors
    ///
    /// Those of [`set_bytes`](Dict::set_bytes).
    pub fn insert_bytes_if_absent(&self, key: &str, value: &[u8]) -> Result<bool> {
        self.put_if_absent(key, RecordKind::Bytes, value)
    }

    fn put_if_absent(&self, key: &str, kind: RecordKind, value: &[u8]) -> Result<bool> {
        let hash = self.hash(key, "set")?;
        // If the key is present, no lock is needed.
        let mut until = self.lock_deadline();
        let found = match FastKeyReader::new(&self.storage()).get_fast(hash, key.as_bytes(), &mut DiscardValue) {
            Some(found) => found,
            None => {
                // The wait for the lock has the rest of the timeout.
                until = until.resolve();
                KeyReader::new(&self.storage()).get(hash, key.as_bytes(), &mut DiscardValue, until, until)?
            }
        };
        if found.is_some() {
            return Ok(false);
        }
        let mut batch = WriteBatch::new();
        let mut writer = WriteSession::lock(self, &mut batch, until, "set")?;
        if Lookup::new(&mut writer).find_record(hash, key.as_bytes())?.is_some() {
            return Ok(false);
        }
        Applier::new(&mut writer).put(hash, key, kind, value)?;
        Ok(true)
    }
}

/// Methods for values that `serde` serializes.
#[cfg(feature = "serde")]
impl Dict {
    /// Returns the value of a key, or `None` if the key is absent.
    ///
    /// # Errors
    ///
    /// Those of [`get_into`](Dict::get_into); [`ErrorKind::Mismatch`] for a value of another type,
    /// and for one that is nested deeper than [`MAX_DEPTH`](Dict::MAX_DEPTH).
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let mut bytes = Vec::new();
        match self.get_into(key, &mut bytes)? {
            Some(encoding) => decode(encoding, &bytes).map(Some).map_err(|error| self.about(key, error)),
            None => Ok(None),
        }
    }

    /// Sets a key to a value, and returns the version of the change.
    ///
    /// # Errors
    ///
    /// Those of [`set_bytes`](Dict::set_bytes); [`ErrorKind::InvalidInput`] for a value that cannot
    /// be encoded: an integer of 128 bits, or one that is nested deeper than
    /// [`MAX_DEPTH`](Dict::MAX_DEPTH).
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<u64> {
        let bytes = self.encoded(key, value)?;
        self.put(key, RecordKind::Encoded, &bytes)
    }

    /// Sets a key to a value if it is absent, and returns whether it did.
    ///
    /// # Errors
    ///
    /// Those of [`set`](Dict::set).
    pub fn insert_if_absent<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<bool> {
        let bytes = self.encoded(key, value)?;
        self.put_if_absent(key, RecordKind::Encoded, &bytes)
    }

    /// Sets a key to `new` if its value is `old`, and returns whether it did. Values are equal if
    /// their encoded bytes are equal.
    ///
    /// # Errors
    ///
    /// Those of [`set`](Dict::set).
    pub fn compare_and_set<T: Serialize + ?Sized>(&self, key: &str, old: &T, new: &T) -> Result<bool> {
        let (old, new) = (self.encoded(key, old)?, self.encoded(key, new)?);
        let hash = self.hash(key, "set")?;
        let mut batch = WriteBatch::new();
        let mut writer = self.writer(&mut batch, "set")?;
        let mut now = Vec::new();
        if Lookup::new(&mut writer).read(hash, key, &mut now)? != Some(Encoding::MessagePack) || now != old {
            return Ok(false);
        }
        Applier::new(&mut writer).put(hash, key, RecordKind::Encoded, &new)?;
        Ok(true)
    }

    /// Adds `by` to a key's number, and returns the sum. An absent key counts as 0.
    ///
    /// # Errors
    ///
    /// Those of [`set`](Dict::set); [`ErrorKind::Mismatch`] for a value that is no integer;
    /// [`ErrorKind::InvalidInput`] if the sum does not fit an `i64`.
    pub fn increment(&self, key: &str, by: i64) -> Result<i64> {
        let hash = self.hash(key, "increment")?;
        let mut batch = WriteBatch::new();
        let mut writer = self.writer(&mut batch, "increment")?;
        let mut bytes = Vec::new();
        let now: i64 = match Lookup::new(&mut writer).read(hash, key, &mut bytes)? {
            Some(encoding) => decode(encoding, &bytes).map_err(|error| self.about(key, error))?,
            None => 0,
        };
        let Some(sum) = now.checked_add(by) else {
            let error = Error::invalid("increment", format!("{now} and {by} are more than fits"));
            return Err(self.about(key, error));
        };
        encode(&sum, &mut bytes)?;
        Applier::new(&mut writer).put(hash, key, RecordKind::Encoded, &bytes)?;
        Ok(sum)
    }

    /// Replaces a key's value with the result of `change`, and returns the result. `None` stands
    /// for an absent key, as argument and as result. `change` runs without the lock, and again if
    /// another writer has changed the key meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Dict::get) and [`set`](Dict::set); [`ErrorKind::Contended`] if other
    /// writers changed the key in each attempt until the timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("scores-{}", std::process::id()))?, 1 << 20)?;
    /// let mut add = |point: u32| {
    ///     dict.update("scores", |old: Option<Vec<u32>>| {
    ///         let mut scores = old.unwrap_or_default();
    ///         scores.push(point);
    ///         Some(scores)
    ///     })
    /// };
    /// add(3)?;
    /// assert_eq!(add(5)?, Some(vec![3, 5]));
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn update<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>> {
        let hash = self.hash(key, "update")?;
        // The read and the wait for the lock share the timeout.
        let until = self.lock_deadline().resolve();
        let reading =
            if self.timeout.is_some_and(|timeout| timeout < MIN_WORK_TIME) { self.lock_deadline() } else { until };
        let mut attempts = Attempts::new(until);
        let (mut bytes, mut encoded) = (Vec::new(), Vec::new());
        loop {
            let mut sink = &mut bytes;
            let found = self.read_until(hash, key, &mut sink, reading)?;
            let old = match found {
                Some(found) => Some(decode(Encoding::of(found.kind), &bytes).map_err(|error| self.about(key, error))?),
                None => None,
            };
            let new = change(old);
            if let Some(new) = &new {
                encode(new, &mut encoded).map_err(|error| self.about(key, error))?;
            }
            let mut batch = WriteBatch::new();
            let mut writer = WriteSession::lock(self, &mut batch, until, "update")?;
            let now = Lookup::new(&mut writer).find_record(hash, key.as_bytes())?.map(|stored| stored.head.version);
            if now == found.map(|found| found.version) {
                let value = new.is_some().then_some((RecordKind::Encoded, &encoded[..]));
                Applier::new(&mut writer).apply(&[KeyChange { key: key.as_bytes(), hash, value }])?;
                return Ok(new);
            }
            drop(writer);
            if !attempts.pause(true) {
                return Err(self.segment.name_error(Error::new(ErrorKind::Contended, "update")));
            }
        }
    }

    pub(in crate::dict) fn encoded<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode(value, &mut bytes).map_err(|error| self.about(key, error))?;
        Ok(bytes)
    }

    #[cold]
    pub(in crate::dict) fn about(&self, key: &str, error: Error) -> Error {
        let shown: String = key.chars().take(60).collect();
        self.segment.name_error(error).with_help(format!("it is the value of {shown:?}"))
    }
}
