//! Processes that find a dict whose user died, and must be able to go on.

use std::path::Path;
use std::time::{Duration, Instant};

use mmf::{Access, Dict, ErrorKind};

use super::dict_operation::{CAPACITY, Contents, OPERATIONS, Operation};
use super::traced::{Helper, Line};

/// The longest wait for a lock, also on a busy machine.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(2);

/// What a survivor does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Reads, and changes a key of its own, beside another that does the same.
    Beside,
    /// The same, alone.
    Alone,
    /// Changes everything.
    Last,
}

pub(super) fn start(name: &'static str) -> Helper {
    Helper::start(move |line| work(line, name))
}

/// Sends a survivor to a dict. It answers `found WHAT MICROSECONDS`, or what is wrong.
pub(super) fn send(survivor: &mut Helper, operation: Operation, manner: Manner, path: &Path) {
    let number = OPERATIONS.iter().position(|known| *known == operation).unwrap_or(0);
    survivor.send(&format!("{number} {manner:?} {}", path.display()));
}

fn work(line: &mut Line, name: &str) {
    while let Some(order) = line.hear() {
        let mut words = order.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let operation = OPERATIONS[word().parse::<usize>().unwrap_or(0)];
        let manner = match word() {
            "Beside" => Manner::Beside,
            "Alone" => Manner::Alone,
            _ => Manner::Last,
        };
        let path = Path::new(word());
        let repaired = match operation {
            Operation::Repair => repair(path),
            // Nothing reads it before that.
            Operation::Rebuild => {
                Dict::options().timeout(Some(RECOVERY_TIMEOUT)).open(path).map(drop).map_err(told("rebuild"))
            }
            _ => Ok(()),
        };
        let answer = repaired.and_then(|()| recover(path, &operation.allowed(), manner, &format!("judge {name}")));
        line.say(&match answer {
            Ok((found, waited)) => format!("found {found} {}", waited.as_micros()),
            Err(what) => what,
        });
    }
}

/// Repairs what was left in the middle of a repair, or waits for another who does.
fn repair(path: &Path) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match Dict::repair(path) {
            Ok(_) => return Ok(()),
            Err(error) if *error.kind() == ErrorKind::Busy && began.elapsed() < 2 * RECOVERY_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(format!("repair: {error}")),
        }
    }
}

fn told(doing: &'static str) -> impl Fn(mmf::Error) -> String {
    move |error| format!("{doing}: {error}")
}

/// Which of the states it is, survivors' keys left out.
fn which(entries: mmf::Entries, allowed: &[Contents], who: &str) -> Result<usize, String> {
    let seen: Contents =
        entries.filter(|entry| !entry.key.starts_with("judge")).map(|entry| (entry.key, entry.value)).collect();
    allowed.iter().position(|state| *state == seen).ok_or_else(|| {
        let lens: Vec<String> = seen.iter().take(20).map(|(key, value)| format!("{key}: {}", value.len())).collect();
        format!("{who} sees {} keys that were never there together: {}", seen.len(), lens.join(", "))
    })
}

fn recover(path: &Path, allowed: &[Contents], manner: Manner, name: &str) -> Result<(&'static str, Duration), String> {
    let options = Dict::options().access(Access::ReadOnly).timeout(Some(RECOVERY_TIMEOUT));
    let reader = options.open(path).map_err(told("open for reading"))?;
    for key in allowed.iter().flat_map(Contents::keys) {
        let value = reader.get_bytes(key).map_err(told("get without a lock"))?;
        if !allowed.iter().any(|state| state.get(key) == value.as_ref()) {
            let len = value.map(|value| value.len());
            return Err(format!("{key:?} is what it never was, of length {len:?}"));
        }
    }
    match reader.entries() {
        Err(error) if manner == Manner::Beside && *error.kind() == ErrorKind::Contended => {}
        entries => drop(which(entries.map_err(told("scan without a lock"))?, allowed, "a reader without a lock")?),
    }

    let dict = Dict::options().timeout(Some(RECOVERY_TIMEOUT)).open(path).map_err(told("open"))?;
    let look = || {
        let began = Instant::now();
        let (entries, len) = dict.snapshot(|all| Ok((all.entries()?, dict.len()?))).map_err(told("take a snapshot"))?;
        let waited = began.elapsed();
        if entries.len() != len {
            return Err(format!("{} entries, but {len} are counted", entries.len()));
        }
        Ok((which(entries, allowed, "a reader")?, waited))
    };
    let (found, waited) = look()?;
    for len in [20, 3000, 700] {
        let value = vec![7; len];
        dict.set_bytes(name, &value).map_err(told("set"))?;
        if dict.get_bytes(name).map_err(told("get"))? != Some(value) {
            return Err(format!("{len} bytes that were set are not there"));
        }
    }
    if !dict.remove(name).map_err(told("remove"))? {
        return Err("what was set cannot be removed".to_owned());
    }
    if look()?.0 != found {
        return Err("what was found did not stay".to_owned());
    }
    let report = dict.check().map_err(told("check"))?;
    if !report.is_whole() {
        return Err(format!("what is left is damaged: {:?}", report.problems));
    }
    if manner == Manner::Last {
        change_all(&dict, &allowed[found])?;
    }
    Ok((["old", "new", "newer"][found], waited))
}

/// Everything can still be changed, and all space had.
fn change_all(dict: &Dict, found: &Contents) -> Result<(), String> {
    let mut model = Contents::new();
    for (n, (key, value)) in found.iter().enumerate() {
        if n % 3 == 0 {
            if !dict.remove(key).map_err(told("remove"))? {
                return Err(format!("{key:?} cannot be removed"));
            }
        } else {
            let value = vec![9; value.len() * n / 10 % 500 + 1];
            dict.set_bytes(key, &value).map_err(told("set"))?;
            model.insert(key.clone(), value);
        }
    }
    which(dict.entries().map_err(told("scan"))?, &[model], "who has changed everything")?;
    dict.flush().map_err(told("flush"))?;
    dict.clear().map_err(told("clear"))?;
    let quarter = vec![1; usize::try_from(CAPACITY / 4).unwrap_or(0)];
    for _ in 0..2 {
        dict.set_bytes("judge", &quarter).map_err(told("set a quarter"))?;
    }
    match dict.len() {
        Ok(1) => Ok(()),
        other => Err(format!("in the end there are {other:?} entries")),
    }
}
