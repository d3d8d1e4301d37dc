//! Every public call of `Region` and its guards.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use mmf::{Access, ErrorKind, Permissions, Region, RegionOptions, Source};

use super::victim::{Bound, Calls, LOCK_WAIT, Victim, had};

/// Public functions that no victim calls, and why.
pub(super) const EXEMPT: [(&str, &str); 12] = [
    ("LockError::fmt", "touches no shared memory"),
    ("LockError::source", "touches no shared memory"),
    ("ReadGuard::as_slice", "its caller promises that all peers are trusted"),
    ("ReadGuard::poison_error", "makes an error of the region's name"),
    ("WriteGuard::poison_error", "makes an error of the region's name"),
    ("Region::create_new", "as RegionOptions::create_new, with the default deadline"),
    ("Region::open", "as RegionOptions::open, with the default deadline"),
    ("Region::open_or_create", "as RegionOptions::open_or_create, with the default deadline"),
    ("RegionOptions::default", "as RegionOptions::new"),
    ("RegionOptions::lock", "a lock of the user's own has tests of its own"),
    ("WriteGuard::as_slice", "as ReadGuard::as_slice"),
    ("WriteGuard::as_mut_slice", "as ReadGuard::as_slice"),
];

pub(super) struct RegionVictim {
    source: Source,
    options: RegionOptions,
    writes: Option<Region>,
    reads: Option<Region>,
}

type Step = fn(&mut RegionVictim, &mut Calls);

const STEPS: [Step; 12] = [
    RegionVictim::open_for_writing,
    RegionVictim::open_for_reading,
    RegionVictim::drop_one,
    RegionVictim::read,
    RegionVictim::read,
    RegionVictim::write,
    RegionVictim::write,
    RegionVictim::poison,
    RegionVictim::watch,
    RegionVictim::tell,
    RegionVictim::copy,
    RegionVictim::stream,
];

impl RegionVictim {
    pub(super) fn new(source: Source, timeout: Duration, capacity: u64) -> RegionVictim {
        Calls::also(&["Region::options", "RegionOptions::new", "RegionOptions::capacity", "RegionOptions::access"]);
        Calls::also(&[
            "RegionOptions::permissions",
            "RegionOptions::allow_other_owners",
            "RegionOptions::timeout",
            "RegionOptions::max_capacity",
        ]);
        let options = Region::options()
            .timeout(Some(timeout))
            .max_capacity(capacity)
            .permissions(Permissions::User)
            .allow_other_owners(false);
        RegionVictim { source, options, writes: None, reads: None }
    }

    fn open_for_writing(&mut self, calls: &mut Calls) {
        let bound = calls.usual();
        self.writes = if calls.random.once_in(2) {
            calls.call("RegionOptions::open", bound, || self.options.open(&self.source))
        } else {
            let options = self.options.clone().capacity(calls.capacity);
            calls.call("RegionOptions::open_or_create", bound, || options.open_or_create(&self.source))
        };
    }

    fn open_for_reading(&mut self, calls: &mut Calls) {
        let options = self.options.clone().access(Access::ReadOnly);
        self.reads = calls.call("RegionOptions::open", calls.usual(), || options.open(&self.source));
    }

    fn drop_one(&mut self, calls: &mut Calls) {
        let handle = if calls.random.once_in(2) { self.writes.take() } else { self.reads.take() };
        calls.end("Region::drop", handle);
    }

    /// A handle for writing, opened if there is none.
    fn writer(&mut self, calls: &mut Calls) -> Option<&Region> {
        if self.writes.is_none() {
            self.open_for_writing(calls);
            if self.writes.is_none() {
                // The attacker may have made it whole by then.
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.writes.as_ref()
    }

    /// Either handle.
    fn any(&mut self, calls: &mut Calls) -> Option<&Region> {
        if calls.random.once_in(2) {
            return self.writer(calls);
        }
        if self.reads.is_none() {
            self.open_for_reading(calls);
        }
        self.reads.as_ref()
    }

    fn read(&mut self, calls: &mut Calls) {
        let (bound, timeout, which) = (calls.usual(), calls.timeout, calls.random.below(4));
        let Some(region) = self.any(calls) else { return };
        let guard = match which {
            0 => calls.call("Region::read", bound, || had(region.read())),
            1 => calls.call("Region::try_read", bound, || had(region.try_read())),
            2 => calls.call("Region::read_for", bound, || had(region.read_for(timeout))),
            _ => calls.call("Region::read_until", bound, || had(region.read_until(Instant::now() + timeout))),
        };
        Calls::also(&["LockError::into_guard"]);
        let Some(guard) = guard else { return };
        let len = calls.call("ReadGuard::len", bound, || guard.len()).unwrap_or(0);
        calls.call("ReadGuard::is_empty", bound, || guard.is_empty());
        let at = calls.random.index(len);
        calls.call("ReadGuard::get", bound, || guard.get::<u64>(at));
        calls.call("ReadGuard::read_at", bound, || guard.read_at(at, &mut vec![0; (len - at).min(1 << 16)]));
        calls.call("ReadGuard::to_vec", bound, || guard.to_vec());
        calls.call("ReadGuard::read_into", bound, || guard.read_into(&mut Vec::new()));
        calls.call("ReadGuard::reader", bound, || guard.reader().take(1 << 20).read_to_end(&mut Vec::new()));
        Calls::also(&["Reader::read"]);
        calls.end("ReadGuard::drop", guard);
    }

    fn write(&mut self, calls: &mut Calls) {
        let (bound, timeout, which) = (calls.usual(), calls.timeout, calls.random.below(4));
        let size = calls.random.index(usize::try_from(calls.capacity).unwrap_or(0));
        let Some(region) = self.writer(calls) else { return };
        let guard = match which {
            0 => calls.call("Region::write", bound, || had(region.write())),
            1 => calls.call("Region::try_write", bound, || had(region.try_write())),
            2 => calls.call("Region::write_for", bound, || had(region.write_for(timeout))),
            _ => calls.call("Region::write_until", bound, || had(region.write_until(Instant::now() + timeout))),
        };
        let Some(mut guard) = guard else { return };
        let len = calls.call("WriteGuard::len", bound, || guard.len()).unwrap_or(0);
        let at = calls.random.index(len);
        for _ in 0..2 {
            match calls.random.below(10) {
                0 => drop(calls.call("WriteGuard::set", bound, || guard.set(&vec![7; size]))),
                1 => drop(calls.call("WriteGuard::write_at", bound, || guard.write_at(at, &[5; 300]))),
                2 => drop(calls.call("WriteGuard::resize", bound, || guard.resize(size))),
                3 => drop(calls.call("WriteGuard::put", bound, || guard.put(at, 7_u32))),
                4 => {
                    calls.call("WriteGuard::writer", bound, || {
                        let mut writer = guard.writer();
                        writer.write_all(&[1; 5000]).and_then(|()| writer.flush())
                    });
                    Calls::also(&["Writer::write", "Writer::flush"]);
                }
                5 => drop(calls.call("WriteGuard::to_vec", bound, || guard.to_vec())),
                6 => drop(calls.call("WriteGuard::read_into", bound, || guard.read_into(&mut Vec::new()))),
                7 => {
                    calls.call("WriteGuard::is_empty", bound, || guard.is_empty());
                    calls.call("WriteGuard::get", bound, || guard.get::<[u8; 16]>(at));
                }
                8 => drop(calls.call("WriteGuard::read_at", bound, || guard.read_at(at, &mut [0; 64]))),
                _ => {
                    calls.call("WriteGuard::reader", bound, || guard.reader().take(9000).read_to_end(&mut Vec::new()));
                }
            }
        }
        calls.end("WriteGuard::drop", guard);
    }

    fn poison(&mut self, calls: &mut Calls) {
        let bound = calls.usual();
        let clear = calls.random.once_in(2);
        let Some(region) = self.any(calls) else { return };
        calls.call("Region::is_poisoned", bound, || region.is_poisoned());
        if clear {
            calls.call("Region::clear_poison", bound, || region.clear_poison());
        }
    }

    fn watch(&mut self, calls: &mut Calls) {
        let (bound, short) = (calls.usual(), Duration::from_millis(20));
        let Some(region) = self.any(calls) else { return };
        let version = calls.call("Region::version", bound, || region.version()).unwrap_or(0);
        calls.call("Region::wait_changed", Bound::Deadline(short), || {
            region.wait_changed(version, Instant::now() + short)
        });
    }

    fn tell(&mut self, calls: &mut Calls) {
        let bound = calls.usual();
        let Some(region) = self.any(calls) else { return };
        calls.call("Region::status", bound, || region.status());
        calls.call("Region::capacity", bound, || Ok::<_, mmf::Error>(region.capacity()));
        calls.call("Region::is_forked", bound, || Ok::<_, mmf::Error>(region.is_forked()));
    }

    fn copy(&mut self, calls: &mut Calls) {
        let bound = calls.usual();
        let Some(region) = self.any(calls) else { return };
        calls.call("Region::to_vec", bound, || region.to_vec());
        calls.call("Region::read_into", bound, || region.read_into(&mut Vec::new()));
        calls.call("Region::sync", calls.work(), || region.sync());
    }

    fn stream(&mut self, calls: &mut Calls) {
        let bound = calls.usual();
        let Some(region) = self.any(calls) else { return };
        let mut bytes = Vec::new();
        let copied = calls.call("Region::snapshot", bound, || region.snapshot(&mut bytes)).is_some();
        if copied && calls.random.once_in(3) {
            let Some(region) = self.writer(calls) else { return };
            calls.call("Region::restore", bound, || region.restore(&bytes[..]));
        }
    }
}

impl Victim for RegionVictim {
    fn create(&mut self, calls: &mut Calls) {
        let options = self.options.clone().capacity(calls.capacity);
        self.writes = calls.call("RegionOptions::create_new", calls.usual(), || options.create_new(&self.source));
        if let Some(region) = &self.writes {
            let size = usize::try_from(calls.capacity / 2).unwrap_or(0);
            calls.call("Region::write", calls.usual(), || had(region.write())?.set(&vec![3; size]));
        }
    }

    fn step(&mut self, calls: &mut Calls) {
        let step = calls.random.pick(&STEPS);
        step(self, calls);
    }

    fn lock(&mut self, calls: &mut Calls) -> Option<Result<(), ErrorKind>> {
        let bound = Bound::Deadline(LOCK_WAIT);
        let region = self.writer(calls)?;
        let locked = calls.outcome("Region::write_for", bound, || had(region.write_for(LOCK_WAIT)).map(drop))?;
        Some(locked.map_err(|error| error.kind().clone()))
    }

    fn repair(&mut self, _: &mut Calls) -> String {
        "nothing".to_owned()
    }

    fn close(&mut self, calls: &mut Calls) {
        let handles = (self.writes.take(), self.reads.take());
        calls.end("Region::drop", handles);
    }
}
