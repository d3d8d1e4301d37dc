//! A process that is tortured: it does everything that a dict can do, at random, and checks all
//! that it sees.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mmf::{Access, Change, Dict, ErrorKind, Name, Snapshot, Source, Watched};

use super::model::{self, ACCOUNTS, KEYS, Key, PAIR, SUM, Sheet, WRITERS};
use crate::peer;
use crate::torture::worker::Random;

/// The role: arguments are the sheet's name, what dicts' names begin with, and a directory for
/// those in files; the one line it hears is its number.
pub fn dict_worker(args: &[&str]) {
    let Some(number) = peer::hear() else { return };
    let sheet = Sheet::open(args[0]);
    let me = number.parse().expect("a number");
    let mut worker = Worker { sheet, base: args[1].to_owned(), dir: PathBuf::from(args[2]), me, random: Random::new() };
    worker.run();
}

/// Where the dict of a generation is: every other one is a file.
pub(super) fn place(base: &str, dir: &std::path::Path, generation: u64) -> Source {
    if generation % 2 == 0 {
        Source::from(Name::local(format!("{base}-{generation}")).expect("a name"))
    } else {
        Source::from(dir.join(generation.to_string()))
    }
}

struct Worker {
    sheet: Sheet,
    base: String,
    dir: PathBuf,
    me: usize,
    random: Random,
}

struct Open {
    generation: u64,
    dict: Dict,
    reader: Dict,
    buffer: Vec<u8>,
}

impl Worker {
    fn run(&mut self) {
        while self.sheet.get(model::STOP) == 0 {
            let generation = self.sheet.get(model::GENERATION);
            let source = place(&self.base, &self.dir, generation);
            let reader = Dict::options().access(Access::ReadOnly).timeout(Some(Duration::from_millis(20)));
            match Dict::open(source.clone()).and_then(|dict| Ok((dict, reader.open(source)?))) {
                Ok((dict, reader)) => {
                    let mut open = Open { generation, dict, reader, buffer: Vec::new() };
                    self.settle(&mut open);
                    self.live(&mut open);
                }
                // A new one has begun meanwhile.
                Err(_) if self.sheet.get(model::GENERATION) != generation => {}
                Err(error) => self.sheet.complain(&format!("cannot open: {error}")),
            }
        }
    }

    fn live(&mut self, open: &mut Open) {
        while self.sheet.get(model::GENERATION) == open.generation && self.sheet.get(model::STOP) == 0 {
            let began = Instant::now();
            self.sheet.set(Sheet::busy(self.me), 1);
            let writes = self.me < WRITERS && self.random.below(3) > 0;
            match self.random.below(256) {
                0 => return,
                1 if writes => self.flush(open),
                2 if writes && self.random.below(16) == 0 => self.clear(open),
                3..50 if writes => self.transfer(open),
                50..80 if writes => self.change_pair(open),
                _ if writes => self.change(open),
                3..8 => self.watch(open),
                8..16 => self.scan(open),
                16..60 => self.snapshot(open),
                60..100 => self.read_pair(open),
                _ => self.read(open),
            }
            self.sheet.set(Sheet::busy(self.me), 0);
            self.sheet.raise(model::LONGEST_NS, u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn must<T>(&self, result: mmf::Result<T>, doing: &str) -> Option<T> {
        result.map_err(|error| self.sheet.complain(&format!("to {doing}: {error}"))).ok()
    }

    /// As `must`, but a reader without a lock may give up, and a scan may end with its timeout.
    fn may<T>(&self, result: mmf::Result<T>, doing: &str) -> Option<T> {
        match result {
            Err(error) if matches!(error.kind(), ErrorKind::Contended | ErrorKind::Timeout { holder: None }) => {
                self.sheet.count(model::CONTENDED);
                None
            }
            result => self.must(result, doing),
        }
    }

    /// What the writer before, who was killed, has left of its keys: each change that it had begun
    /// is done or not.
    fn settle(&mut self, open: &mut Open) {
        if self.me >= WRITERS {
            return;
        }
        let [begun, done] = Sheet::clearings(open.generation, self.me);
        self.sheet.set(done, self.sheet.get(begun));
        for line in 0..=PAIR {
            let key = Sheet::key(open.generation, self.me, line);
            let (begun, done) = (self.sheet.get(key.begun()), self.sheet.get(key.done()));
            if begun == done {
                continue;
            }
            let names = if line == PAIR { key.names().to_vec() } else { vec![key.name()] };
            // Under the lock, so that what was half done is done or undone.
            let found = open.dict.transaction(|tx| names.iter().map(|name| tx.get_bytes(name)).collect());
            let Some(found): Option<Vec<Option<Vec<u8>>>> = self.must(found, "look at what was left") else { return };
            let states: Vec<Option<u64>> =
                found.iter().map(|value| value.as_deref().and_then(|value| self.state(key, value))).collect();
            if states.iter().any(|state| *state != states[0]) {
                self.sheet.complain(&format!("a pair is {states:?}"));
            }
            if let Err(what) = self.sheet.judge(open.generation, key, self.sheet.before(key), states[0]) {
                self.sheet.complain(&format!("left by the dead: {what}"));
            }
            let happened = match states[0] {
                Some(state) => state == begun,
                None if model::is_removal(begun) || self.sheet.get(key.seen()) == begun => true,
                // Unknown if the key was removed before as well, or cleared meanwhile; and a reader
                // may not have noted yet what it read. The same state is tried again.
                None => {
                    self.sheet.count(model::HALF_DONE);
                    continue;
                }
            };
            self.sheet.count(if happened { model::REDONE } else { model::HALF_DONE });
            if happened {
                self.sheet.set(key.done(), begun);
            } else {
                self.sheet.set(key.begun(), done);
            }
        }
    }

    fn state(&self, key: Key, value: &[u8]) -> Option<u64> {
        key.state(value).map_err(|what| self.sheet.complain(&format!("{key:?}: {what}"))).ok()
    }

    /// A change of one's own key, noted before and after.
    fn noted(&mut self, open: &Open, key: Key, change: impl FnOnce(u64) -> mmf::Result<()>) {
        let clears = self.sheet.cleared(open.generation);
        let state = self.sheet.get(key.done()) + 1;
        self.sheet.set(key.begun(), state);
        match change(state) {
            Ok(()) => {
                self.sheet.set(key.cleared(), clears);
                self.sheet.set(key.done(), state);
                self.sheet.count(if model::is_removal(state) { model::REMOVALS } else { model::WRITES });
            }
            Err(error) => {
                // Which loses nothing. The same state is tried again when there is room.
                self.sheet.set(key.begun(), state - 1);
                if *error.kind() == ErrorKind::Full {
                    self.sheet.count(model::FULL);
                } else {
                    self.sheet.complain(&format!("to change {key:?}: {error}"));
                }
            }
        }
    }

    fn change(&mut self, open: &mut Open) {
        let key = Sheet::key(open.generation, self.me, self.random.below(KEYS));
        let name = key.name();
        self.noted(open, key, |state| {
            if model::is_removal(state) {
                open.dict.remove(&name).map(drop)
            } else {
                open.dict.set_bytes(&name, &key.value(state)).map(drop)
            }
        });
    }

    fn change_pair(&mut self, open: &mut Open) {
        let key = Sheet::key(open.generation, self.me, PAIR);
        let names = key.names();
        self.noted(open, key, |state| {
            open.dict.transaction(|tx| {
                for name in &names {
                    if model::is_removal(state) {
                        tx.remove(name)?;
                    } else {
                        tx.set_bytes(name, &key.value(state))?;
                    }
                }
                Ok(())
            })
        });
    }

    fn transfer(&mut self, open: &mut Open) {
        let (from, to) = (self.random.below(ACCOUNTS), self.random.below(ACCOUNTS));
        let (moved, len) = (self.random.below(50) as i64 - 25, self.random.below(200));
        let abort = self.random.below(16) == 0;
        let result = open.dict.transaction(|tx| {
            let mut amounts = Vec::new();
            for account in [from, to] {
                match tx.get_bytes(&model::account(account))? {
                    Some(value) => amounts.push(model::amount(&value)),
                    None => break,
                }
            }
            match &amounts[..] {
                [Ok(a), Ok(b)] if from != to => {
                    tx.set_bytes(&model::account(from), &model::balance(a - moved, len))?;
                    tx.set_bytes(&model::account(to), &model::balance(b + moved, len))?;
                }
                // Before the first change, or after a clearing.
                [] => {
                    for account in 0..ACCOUNTS {
                        tx.set_bytes(&model::account(account), &model::balance(SUM / ACCOUNTS as i64, 8))?;
                    }
                }
                _ if from == to => {}
                other => self.sheet.complain(&format!("accounts {from} and {to} are {other:?}")),
            }
            if abort {
                tx.abort();
            }
            Ok(())
        });
        match result {
            Err(error) if *error.kind() == ErrorKind::Full => self.sheet.count(model::FULL),
            result => drop(self.must(result, "transfer")),
        }
        self.sheet.count(model::TRANSACTIONS);
    }

    fn flush(&mut self, open: &mut Open) {
        self.must(open.dict.flush(), "flush");
        self.sheet.count(model::FLUSHES);
    }

    fn clear(&mut self, open: &mut Open) {
        let [begun, done] = Sheet::clearings(open.generation, self.me);
        self.sheet.count(begun);
        self.must(open.dict.clear(), "clear");
        self.sheet.count(done);
        for line in 0..KEYS {
            let key = Sheet::key(open.generation, self.me, line);
            if self.must(open.dict.contains_key(&key.name()), "look") == Some(true) {
                self.sheet.complain(&format!("{key:?} is there after a clearing"));
            }
        }
        self.sheet.count(model::CLEARS);
    }

    /// One of the two handles, and whether it takes locks.
    fn either<'o>(&mut self, open: &'o Open) -> &'o Dict {
        if self.random.below(2) == 0 { &open.dict } else { &open.reader }
    }

    fn read(&mut self, open: &mut Open) {
        let key = Sheet::key(open.generation, self.random.below(WRITERS), self.random.below(KEYS));
        let before = self.sheet.before(key);
        let mut buffer = std::mem::take(&mut open.buffer);
        let found = self.either(open).get_into(&key.name(), &mut buffer);
        if let Some(found) = self.may(found, "get") {
            let state = found.and_then(|_| self.state(key, &buffer));
            if let Err(what) = self.sheet.judge(open.generation, key, before, state) {
                self.sheet.complain(&format!("get: {what}"));
            }
        }
        open.buffer = buffer;
        self.sheet.count(model::READS);
    }

    /// Of two that are changed together, the one that is read later is not older.
    fn read_pair(&mut self, open: &mut Open) {
        let key = Sheet::key(open.generation, self.random.below(WRITERS), PAIR);
        let mut names = key.names();
        if self.random.below(2) == 0 {
            names.reverse();
        }
        let before = self.sheet.before(key);
        let mut states = [None; 2];
        for (state, name) in states.iter_mut().zip(&names) {
            let found = self.either(open).get_bytes(name);
            let Some(found) = self.may(found, "get") else { return };
            *state = found.and_then(|value| self.state(key, &value));
            if let Err(what) = self.sheet.judge(open.generation, key, before, *state) {
                self.sheet.complain(&format!("get: {what}"));
            }
        }
        if let [Some(first), Some(second)] = states {
            if second < first {
                self.sheet.complain(&format!("{key:?}: {second} is read after {first}"));
            }
        }
        self.sheet.count(model::READS);
    }

    fn snapshot(&mut self, open: &mut Open) {
        let key = Sheet::key(open.generation, self.random.below(WRITERS), PAIR);
        let names = key.names();
        let look = |all: &Snapshot<'_>| {
            let pair: Vec<Option<Vec<u8>>> = names.iter().map(|name| all.get_bytes(name)).collect::<Result<_, _>>()?;
            let accounts: Vec<Option<Vec<u8>>> =
                (0..ACCOUNTS).map(|n| all.get_bytes(&model::account(n))).collect::<Result<_, _>>()?;
            Ok((pair, accounts))
        };
        let before = self.sheet.before(key);
        let seen = self.either(open).snapshot(look);
        let Some((pair, accounts)) = self.may(seen, "take a snapshot") else { return };
        let states: Vec<Option<u64>> =
            pair.iter().map(|value| value.as_deref().and_then(|value| self.state(key, value))).collect();
        if states[0] != states[1] {
            self.sheet.complain(&format!("a snapshot has a pair {states:?}"));
        }
        if let Err(what) = self.sheet.judge(open.generation, key, before, states[0]) {
            self.sheet.complain(&format!("snapshot: {what}"));
        }
        self.judge_accounts(&accounts.iter().flatten().map(Vec::as_slice).collect::<Vec<_>>());
        self.sheet.count(model::SNAPSHOTS);
    }

    fn judge_accounts(&self, values: &[&[u8]]) {
        match values.iter().map(|value| model::amount(value)).sum::<Result<i64, String>>() {
            Ok(sum) if values.is_empty() || (values.len() == ACCOUNTS && sum == SUM) => {}
            other => self.sheet.complain(&format!("{} accounts have the sum {other:?}", values.len())),
        }
    }

    /// Everything at once.
    fn scan(&mut self, open: &mut Open) {
        let keys = (0..WRITERS).flat_map(|writer| (0..=PAIR).map(move |line| (writer, line)));
        let keys: Vec<Key> = keys.map(|(writer, line)| Sheet::key(open.generation, writer, line)).collect();
        let before: Vec<_> = keys.iter().map(|key| self.sheet.before(*key)).collect();
        let entries = self.either(open).entries();
        let Some(entries) = self.may(entries, "scan") else { return };
        let (count, mut all) = (entries.len(), BTreeMap::new());
        all.extend(entries.map(|entry| (entry.key, entry.value)));
        if all.len() != count {
            self.sheet.complain(&format!("{count} entries, but {} keys", all.len()));
        }
        let accounts: Vec<Vec<u8>> = (0..ACCOUNTS).filter_map(|n| all.remove(&model::account(n))).collect();
        self.judge_accounts(&accounts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for (key, before) in keys.into_iter().zip(before) {
            let names = if key.line == PAIR { key.names().to_vec() } else { vec![key.name()] };
            let found: Vec<Option<u64>> =
                names.iter().map(|name| all.remove(name).and_then(|value| self.state(key, &value))).collect();
            if found.iter().any(|state| *state != found[0]) {
                self.sheet.complain(&format!("a scan has a pair {found:?}"));
            }
            if let Err(what) = self.sheet.judge(open.generation, key, before, found[0]) {
                self.sheet.complain(&format!("scan: {what}"));
            }
        }
        if let Some(key) = all.keys().find(|key| *key != model::LARGE) {
            self.sheet.complain(&format!("a key that no writer has set: {key:?}"));
        }
        self.sheet.count(model::SCANS);
    }

    /// Changes come in order, each key's versions growing, and those of a pair together.
    fn watch(&mut self, open: &mut Open) {
        let dict = self.either(open);
        let Some(mut changes) = self.must(dict.watch(Watched::All), "watch") else { return };
        let mut last = 0;
        let mut of_keys: HashMap<String, u64> = HashMap::new();
        for _ in 0..self.random.below(40) {
            let change = changes.next_for(Duration::from_micros(500));
            let Some(change) = self.must(change, "watch").flatten() else { break };
            let version = match &change {
                Change::Set { version, .. } | Change::Removed { version, .. } | Change::Cleared { version } => *version,
                _ => {
                    self.sheet.count(model::MISSED);
                    continue;
                }
            };
            if version <= last {
                self.sheet.complain(&format!("{change:?} comes after version {last}"));
            }
            last = version;
            if let Change::Set { key, .. } = change {
                of_keys.insert(key, version);
            }
            self.sheet.count(model::CHANGES);
        }
        for (key, told) in of_keys.iter().take(4) {
            // What was told is there, or something newer.
            if let Some(Some(version)) = self.may(dict.version(key), "get a version") {
                if version < *told {
                    self.sheet.complain(&format!("{key:?} has version {version}, but {told} was told"));
                }
            }
        }
    }
}
