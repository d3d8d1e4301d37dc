//! [`Changes`]: an iterator over the changes of keys, which a watcher reads from the change log.

use std::time::{Duration, Instant};

use crate::dict::Dict;
use crate::dict::format::layout::at;
use crate::dict::format::record::RecordKind;
use crate::dict::store::change_log;
use crate::dict::store::change_log::NextEvent;
use crate::dict::store::work_limit::{MIN_WORK_TIME, WorkLimit};
use crate::error::Result;
use crate::segment::Deadline;
use crate::types::Access;

/// The keys that a watcher reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// All keys.
    All,
    /// One key.
    Key(String),
    /// All keys with this prefix.
    Prefix(String),
}

impl Watched {
    fn has(&self, key: &str) -> bool {
        match self {
            Watched::All => true,
            Watched::Key(watched) => key == watched,
            Watched::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

/// A change that a watcher reports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A key was set. A later change may have replaced the value already.
    Set {
        /// The key.
        key: String,
        /// The change's version.
        version: u64,
    },
    /// A key was removed.
    Removed {
        /// The key.
        key: String,
        /// The change's version.
        version: u64,
    },
    /// All keys were removed.
    Cleared {
        /// The change's version.
        version: u64,
    },
    /// The watcher was too slow, and the change log has overwritten changes. The watcher reads the
    /// keys themselves.
    Missed,
}

impl Dict {
    /// Watches for changes from now on.
    ///
    /// The changes of a transaction come one after the other once it is committed. A handle for
    /// reading and writing sleeps until a writer wakes it. A read-only handle polls every 5 ms.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a key or prefix that is too
    /// long; [`ErrorKind::Full`](crate::ErrorKind::Full) if all participants' slots are taken;
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use mmf::{Change, Dict, Name, Watched};
    ///
    /// let dict = Dict::create_new(Name::local(format!("watched-{}", std::process::id()))?, 1 << 20)?;
    /// let mut changes = dict.watch(Watched::Prefix("camera.".to_owned()))?;
    /// dict.set("light", &1)?;
    /// let version = dict.set("camera.gain", &7)?;
    ///
    /// let change = changes.next_for(Duration::from_secs(1))?;
    /// assert_eq!(change, Some(Change::Set { key: "camera.gain".to_owned(), version }));
    /// # Ok::<(), mmf::Error>(())
    /// ```
    pub fn watch(&self, watched: Watched) -> Result<Changes<'_>> {
        if let Watched::Key(key) | Watched::Prefix(key) = &watched {
            self.hash(key, "watch")?;
        }
        if self.segment.map.access() == Access::ReadWrite {
            self.segment.participant("watch")?;
        }
        Ok(Changes { dict: self, watched, position: self.segment.map.word(at::LOG_HEAD)? })
    }
}

/// An endless iterator over the changes of watched keys. `next` waits without a deadline.
pub struct Changes<'a> {
    dict: &'a Dict,
    watched: Watched,
    position: u64,
}

impl Changes<'_> {
    /// Waits up to `timeout` for the next change. Returns `None` if none came.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged);
    /// [`ErrorKind::Fault`](crate::ErrorKind::Fault).
    pub fn next_for(&mut self, timeout: Duration) -> Result<Option<Change>> {
        self.next_before(Instant::now().checked_add(timeout))
    }

    /// Waits until `deadline` for the next change. Returns `None` if none came.
    ///
    /// # Errors
    ///
    /// Those of [`next_for`](Changes::next_for).
    pub fn next_until(&mut self, deadline: Instant) -> Result<Option<Change>> {
        self.next_before(Some(deadline))
    }

    fn next_before(&mut self, deadline: Option<Instant>) -> Result<Option<Change>> {
        let segment = &self.dict.segment;
        let limit = WorkLimit::new(
            deadline.map_or(Deadline::Never, |deadline| Deadline::At(deadline.max(Instant::now() + MIN_WORK_TIME))),
        );
        segment.wait_for_change(deadline, "watch", || self.next_there(&limit))
    }

    /// Returns the next change of a watched key that is already in the log. Returns `None` at its
    /// end, or if the time is over; the next call continues there.
    pub(in crate::dict) fn next_there(&mut self, limit: &WorkLimit) -> Result<Option<Change>> {
        loop {
            match change_log::next(&self.dict.storage(), self.position)? {
                NextEvent::Nothing => return Ok(None),
                NextEvent::Lost(position) => {
                    self.position = position;
                    return Ok(Some(Change::Missed));
                }
                NextEvent::Event(event, position) => {
                    self.position = position;
                    let version = event.version;
                    let Some(kind) = event.kind else { return Ok(Some(Change::Cleared { version })) };
                    let key = String::from_utf8_lossy(&event.key);
                    if !self.watched.has(&key) {
                        if limit.spend() {
                            return Ok(None);
                        }
                        continue;
                    }
                    let key = key.into_owned();
                    return Ok(Some(match kind {
                        RecordKind::Bytes | RecordKind::Encoded => Change::Set { key, version },
                        RecordKind::Removal => Change::Removed { key, version },
                    }));
                }
            }
        }
    }
}

impl Iterator for Changes<'_> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Result<Change>> {
        self.next_before(None).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;
    use crate::segment::waiter_counts::WaitReason;

    #[test]
    fn a_thread_that_watches_is_counted_in_its_slot_while_it_sleeps() {
        let name = Name::local(format!("counted watcher {}", std::process::id())).unwrap();
        let dict = Dict::create_new(&name, 1 << 20).unwrap();
        let watching = Dict::open(&name).unwrap();
        let slot = watching.segment.participant("watch").unwrap().slot();
        let count = || dict.segment.waiting(slot, WaitReason::Change).unwrap();
        assert_eq!(count(), 0);
        std::thread::scope(|scope| {
            let mut changes = watching.watch(Watched::All).unwrap();
            let watcher = scope.spawn(move || changes.next_for(Duration::from_secs(60)));
            while count() == 0 {
                assert!(!watcher.is_finished());
                std::thread::yield_now();
            }
            assert_eq!(count(), 1);
            dict.set_bytes("key", b"value").unwrap();
            assert!(matches!(watcher.join().unwrap(), Ok(Some(Change::Set { .. }))));
        });
        assert_eq!(count(), 0);
    }
}
