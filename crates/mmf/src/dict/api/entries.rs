//! Methods of [`Dict`] that copy all keys or entries of one moment.
//!
//! A handle for reading and writing copies them under the read lock. A read-only handle cannot
//! lock. It compares the generation before and after the copy, and copies again if a writer came
//! between ([`Scanner`]).

use std::sync::atomic::Ordering;
use std::vec;

use crate::dict::read::get::MAX_FAILED_READS;
use crate::dict::read::scan::Scanner;
use crate::dict::read::sink::Retry;
use crate::dict::store::work_limit::{MIN_WORK_TIME, WorkLimit};
use crate::dict::write::read_session::ReadSession;
use crate::dict::{Dict, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::retry::Attempts;
use crate::sys::fence;
use crate::types::Access;

/// The entries of one moment, in no particular order.
#[derive(Debug)]
pub struct Entries(vec::IntoIter<Entry>);

impl Iterator for Entries {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Entries {}

impl Dict {
    /// Copies all keys of one moment, in no particular order, with the time limits of
    /// [`entries`](Dict::entries).
    ///
    /// # Errors
    ///
    /// Those of [`entries`](Dict::entries).
    pub fn keys(&self) -> Result<Vec<String>> {
        Ok(self.collect(false)?.into_iter().map(|entry| entry.key).collect())
    }

    /// Copies all entries of one moment. Writers wait while a handle for reading and writing copies
    /// them. A read-only handle copies again if a writer changed something meanwhile.
    ///
    /// The copy is complete when this returns, so the iterator waits for nothing. The call waits
    /// for the lock up to the handle's timeout. It then copies for the same time again, and at
    /// least for the handle's [`work_time`](crate::dict::api::options::DictOptions::work_time) of
    /// 50 ms. A dict that takes longer needs a longer timeout or work time.
    ///
    /// # Errors
    ///
    /// Those of [`set_bytes`](Dict::set_bytes), for the read lock; [`ErrorKind::Timeout`] also if
    /// the copy takes longer than allowed; for a read-only handle [`ErrorKind::Contended`] if
    /// writers interrupted each attempt until the timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// use mmf::{Dict, Name};
    ///
    /// let dict = Dict::create_new(Name::local(format!("moment-{}", std::process::id()))?, 1 << 20)?;
    /// dict.set("one", &1)?;
    /// dict.set("two", &2)?;
    /// let mut sum = 0;
    /// for entry in dict.entries()? {
    ///     sum += entry.get::<i32>()?;
    /// }
    /// assert_eq!(sum, 3);
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn entries(&self) -> Result<Entries> {
        Ok(Entries(self.collect(true)?.into_iter()))
    }

    /// Copies all entries within a snapshot, which holds the lock, or compares the generation for a
    /// read-only handle.
    pub(in crate::dict) fn entries_in_snapshot(&self) -> Result<Entries> {
        match self.segment.map.access() {
            Access::ReadWrite => Ok(Entries(
                Scanner::new(&self.storage()).scan_locked(true, &WorkLimit::new(self.work_deadline()))?.into_iter(),
            )),
            Access::ReadOnly | Access::CopyOnWrite => self.entries(),
        }
    }

    /// Copies all entries of one moment, with or without their values.
    fn collect(&self, values: bool) -> Result<Vec<Entry>> {
        if self.segment.map.access() == Access::ReadWrite {
            let _reader = ReadSession::lock(self, self.lock_deadline())?;
            return Scanner::new(&self.storage()).scan_locked(values, &WorkLimit::new(self.work_deadline()));
        }
        let limit = WorkLimit::new(self.work_deadline());
        let mut attempts = Attempts::new(self.lock_deadline().at_least(MIN_WORK_TIME));
        let mut in_vain = 0;
        loop {
            let before = Scanner::new(&self.storage()).generation()?;
            let entries = Scanner::new(&self.storage()).scan(values, &limit);
            fence(Ordering::Acquire);
            // This comes before an error is reported, too.
            let changed = Scanner::new(&self.storage()).generation()? != before;
            if !changed {
                in_vain += 1;
                match entries {
                    Ok(entries) => return Ok(entries),
                    Err(Retry::Failed(error)) => return Err(error),
                    Err(Retry::Changed) if in_vain == MAX_FAILED_READS => return Err(self.storage().no_entry_error()),
                    Err(Retry::Changed) => {}
                }
            } else {
                in_vain = 0;
            }
            if limit.is_over() || !attempts.pause(changed) {
                return Err(self.segment.name_error(Error::new(ErrorKind::Contended, "read")));
            }
        }
    }
}
