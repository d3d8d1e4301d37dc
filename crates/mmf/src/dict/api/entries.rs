//! All entries of a moment.

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
    /// All keys as they are at one moment, in no particular order. It is one call, with the bounds
    /// of [`entries`](Dict::entries); what it returns is a copy.
    ///
    /// # Errors
    ///
    /// As [`entries`](Dict::entries).
    pub fn keys(&self) -> Result<Vec<String>> {
        Ok(self.collect(false)?.into_iter().map(|entry| entry.key).collect())
    }

    /// All entries as they are at one moment, copied. Writers wait while a handle for reading and writing copies them; a read-only
    /// one copies again if somebody wrote meanwhile.
    ///
    /// All of it is done before this returns: iterating over what it returned waits for nothing and
    /// has no deadline. It waits for the lock up to the handle's timeout, and then copies for as
    /// long again, and at least for the handle's [`work_time`](crate::dict::api::options::DictOptions::work_time) of
    /// 50 ms. A dict that takes longer needs more of either.
    ///
    /// # Errors
    ///
    /// As [`set_bytes`](Dict::set_bytes), the lock being that of readers; [`ErrorKind::Timeout`]
    /// also where copying takes longer than the timeout; for a read-only handle
    /// [`ErrorKind::Contended`] where somebody wrote meanwhile until the timeout.
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

    /// As `entries`, for those who have the lock, or who look themselves whether anybody wrote.
    pub(in crate::dict) fn entries_in_snapshot(&self) -> Result<Entries> {
        match self.segment.map.access() {
            Access::ReadWrite => Ok(Entries(
                Scanner::new(&self.storage()).scan_locked(true, &WorkLimit::new(self.work_deadline()))?.into_iter(),
            )),
            Access::ReadOnly | Access::CopyOnWrite => self.entries(),
        }
    }

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
            // Also before an error is believed.
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
