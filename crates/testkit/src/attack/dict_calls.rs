//! Every public call of `Dict` and of what it returns.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use mmf::{Access, Dict, DictOptions, Encoding, ErrorKind, Permissions, Source, Watched};

use super::victim::{Bound, Calls, LOCK_WAIT, Told, Victim};

/// Public functions that no victim calls, and why.
pub(super) const EXEMPT: [(&str, &str); 9] = [
    ("Changes::next", "waits for ever, as it says; next_until is the same with a deadline"),
    ("Dict::create_new", "as DictOptions::create_new, with the default deadline"),
    ("Dict::open", "as DictOptions::open, with the default deadline"),
    ("Dict::open_or_create", "as DictOptions::open_or_create, with the default deadline"),
    ("Dict::repair", "as DictOptions::repair, without a largest capacity"),
    ("DictOptions::default", "as DictOptions::new"),
    ("Entries::next", "touches no shared memory"),
    ("Entries::size_hint", "touches no shared memory"),
    ("Problem::fmt", "touches no shared memory"),
];

pub(super) struct DictVictim {
    source: Source,
    options: DictOptions,
    is_file: bool,
    writes: Option<Dict>,
    reads: Option<Dict>,
}

type Step = fn(&mut DictVictim, &mut Calls);

const STEPS: [Step; 20] = [
    DictVictim::open_for_writing,
    DictVictim::open_for_reading,
    DictVictim::drop_one,
    DictVictim::get,
    DictVictim::get,
    DictVictim::get_typed,
    DictVictim::get_typed,
    DictVictim::set,
    DictVictim::set,
    DictVictim::set_if,
    DictVictim::add,
    DictVictim::remove,
    DictVictim::scan,
    DictVictim::scan,
    DictVictim::tell,
    DictVictim::watch,
    DictVictim::transaction,
    DictVictim::snapshot,
    DictVictim::check,
    DictVictim::flush,
];

/// `Dict::repair` waits for the lock with the default deadline, which no caller can change.
const REPAIR: Bound = Bound::Deadline(Dict::DEFAULT_TIMEOUT);

/// A key of those that the creator has set, or another.
fn key(calls: &mut Calls) -> String {
    let letter = calls.random.pick(&["n", "s", "d", "d", "l", "k", "x"]);
    let count = if letter == "k" { 200 } else { 6 };
    format!("{letter}{}", calls.random.below(count))
}

fn value(calls: &mut Calls) -> Vec<u8> {
    let len = match calls.random.below(10) {
        0 => calls.random.below((calls.capacity / 8).min(4 << 20)),
        1 | 2 => 1100 + calls.random.below(8000),
        _ => calls.random.below(200),
    };
    vec![b'v'; usize::try_from(len).unwrap_or(0)]
}

impl DictVictim {
    pub(super) fn new(source: Source, timeout: Duration, capacity: u64, is_file: bool) -> DictVictim {
        Calls::also(&["Dict::options", "DictOptions::new", "DictOptions::capacity", "DictOptions::access"]);
        Calls::also(&[
            "DictOptions::permissions",
            "DictOptions::allow_other_owners",
            "DictOptions::timeout",
            "DictOptions::max_capacity",
            "DictOptions::work_time",
        ]);
        let options = Dict::options()
            .timeout(Some(timeout))
            .max_capacity(capacity)
            .work_time(Duration::from_millis(50))
            .permissions(Permissions::User)
            .allow_other_owners(false);
        DictVictim { source, options, is_file, writes: None, reads: None }
    }

    /// Opening a file may have to make it anew, in time that its capacity bounds.
    fn opening(&self, calls: &Calls) -> Bound {
        if self.is_file { calls.work() } else { calls.usual() }
    }

    fn open_for_writing(&mut self, calls: &mut Calls) {
        let bound = self.opening(calls);
        self.writes = if calls.random.once_in(2) {
            calls.call("DictOptions::open", bound, || self.options.open(&self.source))
        } else {
            let options = self.options.clone().capacity(calls.capacity);
            calls.call("DictOptions::open_or_create", bound, || options.open_or_create(&self.source))
        };
    }

    fn open_for_reading(&mut self, calls: &mut Calls) {
        let options = self.options.clone().access(Access::ReadOnly);
        self.reads = calls.call("DictOptions::open", self.opening(calls), || options.open(&self.source));
    }

    fn drop_one(&mut self, calls: &mut Calls) {
        let handle = if calls.random.once_in(2) { self.writes.take() } else { self.reads.take() };
        calls.end("Dict::drop", handle);
    }

    fn writer(&mut self, calls: &mut Calls) -> Option<&Dict> {
        if self.writes.is_none() {
            self.open_for_writing(calls);
            if self.writes.is_none() {
                // The attacker may have made it whole by then.
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.writes.as_ref()
    }

    fn any(&mut self, calls: &mut Calls) -> Option<&Dict> {
        if calls.random.once_in(2) {
            return self.writer(calls);
        }
        if self.reads.is_none() {
            self.open_for_reading(calls);
        }
        self.reads.as_ref()
    }

    fn get(&mut self, calls: &mut Calls) {
        let (bound, key) = (calls.usual(), key(calls));
        let which = calls.random.below(4);
        let Some(dict) = self.any(calls) else { return };
        match which {
            0 => drop(calls.call("Dict::get_bytes", bound, || dict.get_bytes(&key))),
            1 => drop(calls.call("Dict::get_into", bound, || dict.get_into(&key, &mut Vec::new()))),
            2 => drop(calls.call("Dict::contains_key", bound, || dict.contains_key(&key))),
            _ => drop(calls.call("Dict::version", bound, || dict.version(&key))),
        }
    }

    fn get_typed(&mut self, calls: &mut Calls) {
        let (bound, key) = (calls.usual(), key(calls));
        let which = calls.random.below(6);
        let Some(dict) = self.any(calls) else { return };
        match which {
            0 | 1 => drop(calls.call("Dict::get", bound, || dict.get::<i64>(&key))),
            2 => drop(calls.call("Dict::get", bound, || dict.get::<String>(&key))),
            3 => drop(calls.call("Dict::get", bound, || dict.get::<Vec<String>>(&key))),
            4 => drop(calls.call("Dict::get", bound, || dict.get::<BTreeMap<String, f64>>(&key))),
            _ => drop(calls.call("Dict::get", bound, || dict.get::<serde_json::Value>(&key))),
        }
    }

    fn set(&mut self, calls: &mut Calls) {
        let (bound, key, value) = (calls.usual(), key(calls), value(calls));
        let which = calls.random.below(4);
        let Some(dict) = self.writer(calls) else { return };
        match which {
            0 => drop(calls.call("Dict::set_bytes", bound, || dict.set_bytes(&key, &value))),
            1 => drop(calls.call("Dict::set_encoded", bound, || dict.set_encoded(&key, Encoding::Bytes, &value))),
            2 => drop(calls.call("Dict::set", bound, || dict.set(&key, &42_i64))),
            _ => drop(calls.call("Dict::set", bound, || dict.set(&key, "text"))),
        }
    }

    fn set_if(&mut self, calls: &mut Calls) {
        let (bound, key, value) = (calls.usual(), key(calls), value(calls));
        let which = calls.random.below(3);
        let Some(dict) = self.writer(calls) else { return };
        match which {
            0 => drop(calls.call("Dict::insert_if_absent", bound, || dict.insert_if_absent(&key, &7))),
            1 => {
                calls.call("Dict::insert_bytes_if_absent", bound, || dict.insert_bytes_if_absent(&key, &value));
            }
            _ => drop(calls.call("Dict::compare_and_set", bound, || dict.compare_and_set(&key, &42_i64, &43))),
        }
    }

    fn add(&mut self, calls: &mut Calls) {
        let (bound, key) = (calls.usual(), key(calls));
        let which = calls.random.below(2);
        let Some(dict) = self.writer(calls) else { return };
        match which {
            0 => drop(calls.call("Dict::increment", bound, || dict.increment(&key, 1))),
            _ => {
                calls.call("Dict::update", bound, || dict.update(&key, |old: Option<i64>| Some(old.unwrap_or(0) ^ 1)));
            }
        }
    }

    fn remove(&mut self, calls: &mut Calls) {
        let (bound, key) = (calls.usual(), key(calls));
        let clear = calls.random.once_in(3);
        let Some(dict) = self.writer(calls) else { return };
        if clear {
            calls.call("Dict::clear", bound, || dict.clear());
        } else {
            calls.call("Dict::remove", bound, || dict.remove(&key));
        }
    }

    fn scan(&mut self, calls: &mut Calls) {
        let bound = calls.usual();
        let keys = calls.random.once_in(2);
        let Some(dict) = self.any(calls) else { return };
        if keys {
            calls.call("Dict::keys", bound, || dict.keys());
        } else if let Some(entries) = calls.call("Dict::entries", bound, || dict.entries()) {
            for entry in entries.take(8) {
                calls.call("Entry::get", bound, || entry.get::<i64>());
            }
        }
    }

    fn tell(&mut self, calls: &mut Calls) {
        let bound = calls.usual();
        let Some(dict) = self.any(calls) else { return };
        calls.call("Dict::stats", bound, || dict.stats());
        calls.call("Dict::len", bound, || dict.len());
        calls.call("Dict::is_empty", bound, || dict.is_empty());
        calls.call("Dict::capacity", bound, || Ok::<_, mmf::Error>(dict.capacity()));
        calls.call("Dict::work_time", bound, || Ok::<_, mmf::Error>(dict.work_time()));
        calls.call("Dict::set_work_time", bound, || {
            dict.set_work_time(Duration::from_millis(50));
            Ok::<_, mmf::Error>(())
        });
        calls.call("Dict::is_forked", bound, || Ok::<_, mmf::Error>(dict.is_forked()));
        calls.call("Dict::source", bound, || Ok::<_, mmf::Error>(format!("{:?}", dict.source())));
    }

    fn watch(&mut self, calls: &mut Calls) {
        let (bound, short) = (calls.usual(), Duration::from_millis(20));
        let watched = match calls.random.below(3) {
            0 => Watched::All,
            1 => Watched::Key(key(calls)),
            _ => Watched::Prefix("k".to_owned()),
        };
        let Some(dict) = self.any(calls) else { return };
        let Some(mut changes) = calls.call("Dict::watch", bound, || dict.watch(watched)) else { return };
        for _ in 0..3 {
            calls.call("Changes::next_for", Bound::Deadline(short), || changes.next_for(short));
            calls.call("Changes::next_until", Bound::Deadline(short), || changes.next_until(Instant::now() + short));
        }
    }

    fn transaction(&mut self, calls: &mut Calls) {
        let (bound, keys) = (calls.usual(), [key(calls), key(calls), key(calls)]);
        let (value, which) = (value(calls), calls.random.below(4));
        let Some(dict) = self.writer(calls) else { return };
        calls.call("Dict::transaction", bound, || {
            dict.transaction(|transaction| {
                transaction.get_bytes(&keys[0])?;
                transaction.contains_key(&keys[1])?;
                // A hostile value is none of a type, which must not end this.
                let _ = transaction.get::<i64>(&keys[2]);
                transaction.set(&keys[0], &1_i64)?;
                transaction.set_bytes(&keys[1], &value)?;
                transaction.set_encoded(&keys[2], Encoding::MessagePack, &[0x01])?;
                transaction.remove(&keys[1])?;
                if which == 0 {
                    transaction.abort();
                }
                Ok(())
            })
        });
        Calls::also(&["Transaction::get_bytes", "Transaction::contains_key", "Transaction::get", "Transaction::set"]);
        Calls::also(&["Transaction::set_bytes", "Transaction::set_encoded", "Transaction::remove"]);
        Calls::also(&["Transaction::abort"]);
    }

    fn snapshot(&mut self, calls: &mut Calls) {
        let (bound, keys) = (calls.usual(), [key(calls), key(calls)]);
        let all = calls.random.once_in(2);
        let Some(dict) = self.any(calls) else { return };
        calls.call("Dict::snapshot", bound, || {
            dict.snapshot(|snapshot| {
                snapshot.get_bytes(&keys[0])?;
                snapshot.contains_key(&keys[1])?;
                let _ = snapshot.get::<i64>(&keys[0]);
                if all { snapshot.entries().map(drop) } else { Ok(()) }
            })
        });
        Calls::also(&["Snapshot::get_bytes", "Snapshot::contains_key", "Snapshot::get", "Snapshot::entries"]);
    }

    fn check(&mut self, calls: &mut Calls) {
        let bound = calls.work();
        let Some(dict) = self.any(calls) else { return };
        if let Some(report) = calls.call("Dict::check", bound, || dict.check()) {
            calls.call("Report::is_whole", bound, || Ok::<_, mmf::Error>(report.is_whole()));
        }
    }

    fn flush(&mut self, calls: &mut Calls) {
        let bound = calls.work();
        // While the other victim has it open it is refused.
        if calls.random.once_in(8) {
            calls.call("DictOptions::repair", REPAIR, || self.options.repair(&self.source));
        }
        let Some(dict) = self.writer(calls) else { return };
        calls.call("Dict::flush", bound, || dict.flush());
    }

    fn fill(dict: &Dict, capacity: u64) -> mmf::Result<()> {
        for nth in 0..6 {
            dict.set(&format!("n{nth}"), &i64::from(nth))?;
            dict.set(&format!("s{nth}"), &"text".repeat(10 * nth as usize))?;
            dict.set_bytes(&format!("d{nth}"), &vec![0xc0; 1500 + 500 * nth as usize])?;
        }
        for nth in 0..3 {
            dict.set_bytes(&format!("l{nth}"), &vec![nth; usize::try_from(capacity / 32).unwrap_or(0).min(2 << 20)])?;
        }
        for nth in 0..150 {
            dict.set_bytes(&format!("k{nth}"), &[nth; 40])?;
        }
        dict.flush()?;
        for nth in 0..40 {
            dict.set_bytes(&format!("k{nth}"), &[nth; 48])?;
            dict.remove(&format!("k{}", nth + 60))?;
        }
        Ok(())
    }
}

impl Victim for DictVictim {
    fn create(&mut self, calls: &mut Calls) {
        let options = self.options.clone().capacity(calls.capacity);
        self.writes = calls.call("DictOptions::create_new", calls.work(), || options.create_new(&self.source));
        if let Some(dict) = &self.writes {
            let capacity = calls.capacity;
            calls.call("Dict::set_bytes", calls.work(), || DictVictim::fill(dict, capacity));
        }
    }

    fn step(&mut self, calls: &mut Calls) {
        let step = calls.random.pick(&STEPS);
        step(self, calls);
    }

    fn lock(&mut self, calls: &mut Calls) -> Option<Result<(), ErrorKind>> {
        let bound = calls.usual();
        let dict = self.writer(calls)?;
        let until = Instant::now() + LOCK_WAIT;
        loop {
            let locked = calls.outcome("Dict::set_bytes", bound, || dict.set_bytes("n0", b"new"))?;
            let over = Instant::now() >= until;
            match locked {
                Err(error) if matches!(error.kind(), ErrorKind::Timeout { .. }) && !over => {}
                locked => return Some(locked.map(drop).map_err(|error| error.kind().clone())),
            }
        }
    }

    fn repair(&mut self, calls: &mut Calls) -> String {
        if !self.is_file {
            return "nothing".to_owned();
        }
        match calls.outcome("DictOptions::repair", REPAIR, || self.options.repair(&self.source)) {
            None => return "panic".to_owned(),
            Some(Err(error)) => return error.told(),
            Some(Ok(_)) => {}
        }
        // The trial is over: the check takes as long as the capacity asks for.
        let patient = self.options.clone().timeout(Some(Dict::DEFAULT_TIMEOUT));
        let Some(Ok(dict)) = calls.outcome("DictOptions::open", REPAIR, || patient.open(&self.source)) else {
            return "unopened".to_owned();
        };
        match calls.outcome("Dict::check", REPAIR, || dict.check()) {
            Some(Ok(report)) if report.is_whole() => "whole".to_owned(),
            Some(Ok(report)) => {
                let first = report.problems.first().map_or(String::new(), ToString::to_string);
                format!("damaged {}", first.replace('\n', " "))
            }
            Some(Err(error)) => format!("unchecked {}", error.told()),
            None => "panic".to_owned(),
        }
    }

    fn close(&mut self, calls: &mut Calls) {
        let handles = (self.writes.take(), self.reads.take());
        calls.end("Dict::drop", handles);
    }
}
