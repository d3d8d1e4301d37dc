//! [`Segment`]: a mapping that begins with mmf's header, and the participants in it.

mod boot;
mod container;
mod custom_lock;
pub(crate) mod guard;
mod held_locks;
pub(crate) mod layout;
#[cfg(test)]
#[cfg(loom)]
pub(crate) mod models;
pub(crate) mod notify;
mod options;
mod participants;
pub(crate) mod retry;
pub(crate) mod waiter_counts;

pub(crate) use boot::this_boot;
pub(crate) use container::Container;
pub(crate) use guard::{ReadLock, WriteLock};
use held_locks::ThreadLockMark;
pub(crate) use options::{DEFAULT_TIMEOUT, SegmentOptions, common_setters};
pub(crate) use participants::AttachedParticipant;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind, Holder, Result};
pub(crate) use crate::lock::{Acquired, CustomLock, Deadline, SlotHandle};
use crate::lock::{Lock, LockFailure, WATCHED};
use crate::mapping::Mapping;
use crate::name::Source;
use crate::sys;
use crate::sys::guard::Fault;
use crate::types::Access;
use crate::wait::{WaitQueue, WaiterFlag};
use boot::BootWords;
use custom_lock::check_lock;
use layout::{CUSTOM_LOCK, Header, PAYLOAD, SYNC_MARK, SegmentKind, at};

/// The longest wait for the lock in one attempt to clear what another boot left, and the pause
/// between two attempts: a peer may have cleared it meanwhile.
const RENEW_TIMEOUT: Duration = Duration::from_millis(10);
const PAUSE: Duration = Duration::from_micros(100);

/// A mapping with a header, a lock and participants.
pub(crate) struct Segment<C: Container> {
    pub(crate) header: Header,
    pub(crate) lock: Lock,
    /// A lock of the user's own. `lock` then keeps no participant out, and only names the holders.
    custom_lock: Option<CustomLock>,
    /// Set in place of `participant` if there is a custom lock, so that the fast path of `lock` is
    /// not taken.
    custom_participant: OnceLock<AttachedParticipant>,
    /// What the kind of container adds.
    pub(crate) container: C,
    /// Whether this handle has the lock and has changed something. Here and not in the guard, which
    /// is one word.
    changed: AtomicBool,
    pub(crate) change_queue: WaitQueue,
    /// How this handle's participant and its peers wake each other.
    parker: Arc<sys::Parker>,
    boot_words: BootWords,
    /// Whether the checks of the file that come before all else are done, see `boot`.
    checked: AtomicBool,
    /// Taken at the first lock or wait.
    participant: OnceLock<AttachedParticipant>,
    /// What becomes the participant.
    pending: Mutex<PendingAttach>,
    /// How long attaching may take, unless the call has a deadline.
    timeout: Option<Duration>,
    /// What [`sys::forks`] returned when this handle was made.
    forks: u32,
    /// The last field: the cells above point into it.
    pub(crate) map: Mapping,
}

/// What a handle has before it is a participant.
#[derive(Default)]
struct PendingAttach {
    /// Made when the handle is opened for writing: a process that has given up its rights since
    /// could not make them. `None` where that failed; the first lock tries again and reports why.
    tokens: Option<sys::LivenessTokens>,
    /// One that has its slot, and has to clear what another boot left before it does anything else.
    not_renewed: Option<AttachedParticipant>,
}

impl<C: Container> Segment<C> {
    /// The bytes that a new segment begins with, and how large it is.
    pub(crate) fn initial_bytes(
        source: Option<&Source>,
        lock: Option<&CustomLock>,
        size: u64,
        capacity: u64,
    ) -> Result<(Vec<u8>, u64, u64)> {
        let whole = |payload: u64| {
            payload.checked_add(PAYLOAD as u64).ok_or_else(|| Error::invalid("create", "the capacity is too large"))
        };
        let (size, capacity) = (whole(size)?, whole(capacity.max(size))?);
        let has_sync_mark = C::KIND == SegmentKind::DICT && matches!(source, Some(Source::File(_)));
        let header = Header {
            compatible: 0,
            read_compatible: lock.map_or(0, |_| CUSTOM_LOCK) | if has_sync_mark { SYNC_MARK } else { 0 },
            incompatible: 0,
            kind: C::KIND,
            id: sys::random_id()?,
            created: nanoseconds_since_1970(),
            capacity,
            name: match source {
                Some(Source::Named(name)) => name.to_string(),
                _ => String::new(),
            },
            lock: lock.map_or(Ok(String::new()), CustomLock::checked_name)?,
        };
        let mut bytes = header.encode();
        // Memory does not outlive the boot, and a process without a boot id can make it all the
        // same.
        let boot = match source {
            Some(Source::File(_)) => this_boot()?,
            _ => this_boot().unwrap_or(sys::Boot { machine: [0; 16], boot: [0; 16] }),
        };
        bytes.resize(at::BOOT, 0);
        bytes.extend(boot.machine);
        bytes.extend(boot.boot);
        Ok((bytes, size, capacity))
    }

    /// Takes up a mapping of a whole segment, checking its header once.
    pub(crate) fn from_mapping(
        map: Mapping,
        custom_lock: Option<CustomLock>,
        timeout: Option<Duration>,
    ) -> Result<Segment<C>> {
        if map.object().is_remote()? {
            return Err(Error::remote_segment("open"));
        }
        let bytes = map.read_to_vec(0, map.len().min(layout::CHECKED))?;
        let header = Header::decode(&bytes, map.len() as u64, map.access() == Access::ReadWrite)?;
        Segment::with_header(map, header, custom_lock, timeout)
    }

    /// Reads and checks the header of an object that is not mapped yet; `None` where the system has
    /// no means for that.
    pub(crate) fn examine(object: &sys::Object, len: u64, access: Access) -> Result<Option<Header>> {
        if object.is_remote()? {
            return Err(Error::remote_segment("open"));
        }
        let mut bytes = [0; layout::CHECKED];
        match object.read_start(&mut bytes) {
            Some(read) => Header::decode(&bytes[..read], len, access == Access::ReadWrite).map(Some),
            None => Ok(None),
        }
    }

    /// Takes up a mapping of a whole segment, whose header was read and checked. The capacity in it
    /// is what counts from here on: this handle maps, reads and returns no more, whatever a peer
    /// stores there later.
    pub(crate) fn with_header(
        mut map: Mapping,
        header: Header,
        custom_lock: Option<CustomLock>,
        timeout: Option<Duration>,
    ) -> Result<Segment<C>> {
        let writable = map.access() == Access::ReadWrite;
        if writable && matches!(map.source(), Some(Source::File(_))) {
            // An error here is better than one at the first lock, and later the process may not be
            // able to read it.
            this_boot()?;
        }
        if header.kind != C::KIND {
            return Err(Error::mismatch("its kind", C::KIND.text(), header.kind.text()));
        }
        check_lock(&header.lock, custom_lock.as_ref(), writable)?;
        map.set_capacity(usize::try_from(header.capacity).unwrap_or(usize::MAX));
        let parker = Arc::new(sys::Parker::new(&header.id));
        let forks = sys::watch_forks();
        // A copied file has its original's id, and is another segment. And a forked child's thread
        // has its parent's record, which says nothing of the child's own locks.
        let mark = u128::from_ne_bytes(header.id) ^ map.object().identity()? ^ (u128::from(forks) << 96);
        let mark = mixed(mark);
        // SAFETY: the cells stand before the mapping in the struct and so are dropped before it;
        // writing goes through `participant`, which refuses read-only mappings.
        let lock = unsafe { Lock::new(&map, layout::LOCK, &parker, mark) }?;
        // SAFETY: as above.
        let container = unsafe { C::new(&map) }?;
        // SAFETY: as above.
        let watched = unsafe { WaiterFlag::new(&map, at::LOCK, WATCHED) }?;
        // SAFETY: as above.
        let change_queue = unsafe { WaitQueue::new(&map, at::CHANGE_QUEUE, watched, &parker) }?;
        // SAFETY: as above.
        let boot_words = unsafe { BootWords::new(&map) }?;
        let (participant, custom_participant) = (OnceLock::new(), OnceLock::new());
        let mut pending = PendingAttach::default();
        if writable {
            pending.tokens = sys::LivenessTokens::new(map.object(), &header.id).ok();
        }
        Ok(Segment {
            header,
            lock,
            custom_lock,
            custom_participant,
            container,
            changed: AtomicBool::new(false),
            change_queue,
            parker,
            boot_words,
            checked: AtomicBool::new(true),
            participant,
            pending: Mutex::new(pending),
            timeout,
            forks,
            map,
        })
    }

    /// This handle as a participant, attached now if it was not.
    #[inline]
    pub(crate) fn participant(&self, doing: &'static str) -> Result<&AttachedParticipant> {
        match self.participant.get() {
            Some(participant) if self.is_current_process() => Ok(participant),
            _ => self.attach(self.timeout.map_or(Deadline::Never, Deadline::After), doing),
        }
    }

    /// Returns this handle as a participant, attached until that deadline if it was not, and the
    /// deadline that is left.
    #[inline]
    pub(crate) fn participant_until(
        &self,
        until: Deadline,
        doing: &'static str,
    ) -> Result<(&AttachedParticipant, Deadline)> {
        if let (Some(participant), true) = (self.participant.get(), self.is_current_process()) {
            return Ok((participant, until));
        }
        let until = until.resolve();
        Ok((self.attach(until, doing)?, until))
    }

    #[cold]
    #[inline(never)]
    fn attach(&self, until: Deadline, doing: &'static str) -> Result<&AttachedParticipant> {
        if !self.is_current_process() {
            return Err(self
                .name_error(Error::invalid(
                    doing,
                    "this handle belongs to the parent process: it was opened before a fork",
                ))
                .with_help("open it again in the child"));
        }
        let place = if self.custom_lock.is_none() { &self.participant } else { &self.custom_participant };
        if let Some(participant) = place.get() {
            return Ok(participant);
        }
        if self.map.access() != Access::ReadWrite {
            return Err(self.name_error(Error::new(ErrorKind::ReadOnly, doing)));
        }
        self.map.rearm();
        let until = until.resolve();
        loop {
            // One thread attaches; the others take what it got.
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(participant) = place.get() {
                return Ok(participant);
            }
            let participant = match pending.not_renewed.take() {
                Some(participant) => participant,
                None => AttachedParticipant::attach(self, &mut pending.tokens)?,
            };
            // In short attempts: a peer may do the same, or may have done it and hold the lock, and
            // the other threads of this handle have deadlines of their own.
            let renewed = self.renew(&participant, until.limit_to(RENEW_TIMEOUT));
            let failure = match renewed.and_then(|()| self.confirm(&participant).map_err(LockFailure::Failed)) {
                Ok(()) => return Ok(place.get_or_init(|| participant)),
                Err(failure) => failure,
            };
            pending.not_renewed = Some(participant);
            drop(pending);
            if until.is_over() || !matches!(failure, LockFailure::Timeout { .. }) {
                return Err(self.lock_error(failure, until, doing));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Returns this handle's slot, if it is attached, the lock is mmf's, and no fork has made this
    /// process since. The fast path of a lock needs no more.
    #[inline]
    pub(crate) fn slot_handle(&self) -> Option<&SlotHandle> {
        if self.is_current_process() { self.participant.get().map(AttachedParticipant::slot_handle) } else { None }
    }

    /// Whether other handles take part. Clears the slots of dead ones.
    pub(crate) fn has_other_participants(&self) -> Result<bool> {
        let me = self.participant("examine")?;
        for slot in self.or_fault(self.lock.readers().occupied(), "examine")? {
            if slot != me.slot() && !participants::reap_dead(self, me, slot)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this process made the handle; false in a forked child.
    #[inline]
    pub(crate) fn is_current_process(&self) -> bool {
        self.forks == sys::forks()
    }

    #[cold]
    fn lock_error(&self, failure: LockFailure, until: Deadline, doing: &'static str) -> Error {
        match failure {
            LockFailure::Gone => self.fault_error(doing),
            LockFailure::Failed(error) => self.name_error(error),
            LockFailure::Timeout { holder, seen_for } => {
                let holder = holder.and_then(|slot| {
                    let process = self.process(slot).ok()?;
                    Some(Holder { process, held_for: seen_for })
                });
                let kind = match until {
                    Deadline::Now => ErrorKind::WouldBlock,
                    Deadline::After(_) | Deadline::At(_) | Deadline::Never => ErrorKind::Timeout { holder },
                };
                self.name_error(Error::new(kind, doing))
            }
        }
    }

    /// The process of a slot's participant, as it knows itself.
    pub(crate) fn process(&self, slot: usize) -> Result<u32> {
        self.map.load(layout::slot(slot, at::SLOT_PROCESS), Ordering::Relaxed)
    }

    /// When a slot's participant attached, in nanoseconds since 1970.
    pub(crate) fn since(&self, slot: usize) -> Result<u64> {
        self.map.load(layout::slot(slot, at::SLOT_SINCE), Ordering::Relaxed)
    }

    #[cold]
    pub(crate) fn fault_error(&self, doing: &'static str) -> Error {
        self.map.fault(doing, at::LOCK, 0)
    }

    #[cold]
    pub(crate) fn name_error(&self, error: Error) -> Error {
        self.map.name_error(error)
    }

    /// For words in the header that are gone.
    pub(crate) fn or_fault<T>(&self, result: Result<T, Fault>, doing: &'static str) -> Result<T> {
        result.map_err(|Fault| self.fault_error(doing))
    }
}

/// Returns 64 bits of which each depends on all bits of `mark`, since a lock keeps fewer of them.
/// The steps are those of MurmurHash3's finalizer.
fn mixed(mark: u128) -> u64 {
    let half = |shift: u32| u64::try_from(mark >> shift & u128::from(u64::MAX)).unwrap_or_default();
    let mut bits = half(0) ^ half(64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        bits = (bits ^ bits >> 33).wrapping_mul(factor);
    }
    bits ^ bits >> 33
}

pub(crate) fn nanoseconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
