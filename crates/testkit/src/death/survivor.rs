//! Processes that find a segment whose user died, and must be able to go on.

use std::path::Path;
use std::time::{Duration, Instant};

use mmf::{Access, ErrorKind, LockError, Region};

use super::creation;
use super::operation::{OPERATIONS, Operation};
use super::traced::{Helper, Line};

/// The longest wait for a lock, also on a busy machine.
pub(super) const RECOVERY_TIMEOUT: Duration = Duration::from_secs(1);

/// What a survivor does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Replaces the contents.
    Mends,
    /// Declares them good as they are, if they are.
    Looks,
}

pub(super) fn start(name: &'static str) -> Helper {
    Helper::start(move |line| work(line, name))
}

/// Sends a survivor to a region. It answers `found WHAT MICROSECONDS`, or what is wrong.
pub(super) fn send(survivor: &mut Helper, operation: Operation, manner: Manner, path: &Path) {
    let number = OPERATIONS.iter().position(|known| *known == operation).unwrap_or(0);
    survivor.send(&format!("{number} {manner:?} {}", path.display()));
}

fn work(line: &mut Line, name: &str) {
    while let Some(order) = line.hear() {
        if let Some(order) = order.strip_prefix(creation::ORDER) {
            line.say(&answer(creation::recover_creation(order.trim_start(), name)));
            continue;
        }
        let mut words = order.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let operation = OPERATIONS[word().parse::<usize>().unwrap_or(0)];
        let manner = if word() == "Looks" { Manner::Looks } else { Manner::Mends };
        line.say(&answer(recover(Path::new(word()), operation, manner, name)));
    }
}

fn answer(result: Result<(&'static str, Duration), String>) -> String {
    match result {
        Ok((found, waited)) => format!("found {found} {}", waited.as_micros()),
        Err(what) => what,
    }
}

fn mended_by(name: &str) -> Vec<u8> {
    format!("mended by {name}").into_bytes()
}

fn recover(path: &Path, operation: Operation, manner: Manner, name: &str) -> Result<(&'static str, Duration), String> {
    let mut whole = operation.whole();
    whole.extend(["a", "b"].map(mended_by));
    let good = |bytes: &[u8], who: &str| {
        if whole.iter().any(|whole| whole == bytes) {
            return Ok(());
        }
        let text = bytes[..bytes.len().min(60)].escape_ascii();
        Err(format!("{who} sees {} bytes without a report: {text}", bytes.len()))
    };
    let told = |doing: &'static str| move |error: mmf::Error| format!("{doing}: {error}");

    let read_only = Region::options().access(Access::ReadOnly).timeout(Some(Duration::from_millis(2))).open(path);
    let read_only = read_only.map_err(told("open for reading"))?;
    match read_only.to_vec() {
        Ok(bytes) => good(&bytes, "a reader without a lock")?,
        Err(error) if matches!(error.kind(), ErrorKind::Contended | ErrorKind::Poisoned) => {}
        Err(error) => return Err(told("read without a lock")(error)),
    }

    let region = Region::options().timeout(Some(RECOVERY_TIMEOUT)).open(path).map_err(told("open"))?;
    let began = Instant::now();
    let (bytes, poisoned) = match region.read() {
        Ok(guard) => (guard.to_vec(), false),
        Err(LockError::Poisoned(guard)) => (guard.to_vec(), true),
        Err(LockError::Failed(error)) => return Err(told("lock for reading")(error)),
    };
    let mut waited = began.elapsed();
    let bytes = bytes.map_err(told("read"))?;
    if !poisoned {
        good(&bytes, "a reader")?;
    }
    let found = match bytes {
        _ if poisoned => "poison",
        bytes if bytes == super::operation::OLD => "old",
        bytes if bytes.starts_with(b"mended") => "mended",
        _ => "new",
    };

    let began = Instant::now();
    let (mut guard, poisoned) = match region.write() {
        Ok(guard) => (guard, false),
        Err(LockError::Poisoned(guard)) => (guard, true),
        Err(LockError::Failed(error)) => return Err(told("lock for writing")(error)),
    };
    waited = waited.max(began.elapsed());
    let bytes = guard.to_vec().map_err(told("read"))?;
    if !poisoned {
        good(&bytes, "a writer")?;
    }
    if manner == Manner::Mends || good(&bytes, "").is_err() {
        guard.set(&mended_by(name)).map_err(told("write"))?;
    }
    if poisoned {
        region.clear_poison().map_err(told("clear the poison"))?;
    }
    drop(guard);

    let bytes = region.to_vec().map_err(told("read what was mended"))?;
    good(&bytes, "a reader afterwards")?;
    drop(read_only);
    let read_only = Region::options().access(Access::ReadOnly).timeout(Some(RECOVERY_TIMEOUT)).open(path);
    let bytes =
        read_only.and_then(|read_only| read_only.to_vec()).map_err(told("read what was mended without a lock"))?;
    good(&bytes, "a reader without a lock afterwards")?;
    Ok((found, waited))
}
