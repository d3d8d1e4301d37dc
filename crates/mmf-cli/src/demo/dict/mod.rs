//! The demo's second part: processes share keys in a dict, and writers are killed one after the
//! other.
//!
//! Every printed figure is verified: readers check every byte, and the confirmed writes of killed
//! writers are compared with the dict.

mod actor;

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mmf::{Dict, Name};
use mmf_cli::transport::{alone, child_output, line};
use serde_json::{Value, json};

use super::Part;
pub(super) use actor::{Role, run as act};

const CAPACITY: u64 = 16 << 20;
const WRITERS: usize = 2;
const READERS: usize = 2;
const KILLS: usize = 5;

/// The key that tells the processes to end.
const STOP: &str = "stop";
/// The key that killed writers set: a number, and bytes that follow from it.
const FRAME: &str = "frame";
const FRAME_LEN: usize = 64 << 10;
/// The key that all writers increment.
const COUNT: &str = "count";

/// The two attributes of a writer that a transaction always changes together; their sum is 0.
fn pair(writer: usize) -> [String; 2] {
    [format!("writer-{writer}.credit"), format!("writer-{writer}.debit")]
}

/// A frame by its number.
fn frame(number: u64) -> Vec<u8> {
    let word = |place: u64| number.wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes();
    (0..FRAME_LEN as u64 / 8).flat_map(word).collect()
}

/// The number of a frame; an error if any of its bytes is of another.
fn frame_number(bytes: &[u8]) -> io::Result<u64> {
    let number = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    match bytes == frame(number) {
        true => Ok(number),
        false => Err(io::Error::other(format!("frame {number} is torn"))),
    }
}

/// The results.
pub(super) struct Outcome {
    took: Duration,
    name: String,
    writers: Vec<u32>,
    readers: Vec<u32>,
    watcher: u32,
    killed: Vec<u32>,
    /// Frames that the killed writers had confirmed.
    frames: u64,
    transactions: u64,
    reads: u64,
    changes: u64,
    missed: u64,
}

pub(super) fn run() -> io::Result<Outcome> {
    let began = Instant::now();
    let name = format!("mmf-demo-{}-dict", std::process::id());
    let dict = Dict::create_new(Name::local(&*name)?, CAPACITY)?;
    dict.set_bytes(FRAME, &frame(0))?;
    for writer in 0..WRITERS {
        dict.transaction(|tx| pair(writer).iter().try_for_each(|key| tx.set(key, &0)))?;
    }
    let start = |role| Actor::start(role, &name);
    let mut readers = (0..READERS).map(|_| start(Role::Reader)).collect::<io::Result<Vec<_>>>()?;
    let mut watcher = start(Role::Watcher)?;
    let mut writers = (0..WRITERS).map(|nth| start(Role::Writer(nth))).collect::<io::Result<Vec<_>>>()?;
    let (mut killed, mut frames) = (Vec::new(), 0);
    for nth in 0..KILLS {
        let victim = start(Role::Victim)?;
        killed.push(victim.child.id());
        frames += kill(victim, &dict, Duration::from_millis(40 + 17 * nth as u64))?;
    }
    dict.set(STOP, &true)?;
    let mut outcome = Outcome {
        took: Duration::ZERO,
        name,
        writers: writers.iter().map(|actor| actor.child.id()).collect(),
        readers: readers.iter().map(|actor| actor.child.id()).collect(),
        watcher: watcher.child.id(),
        killed,
        frames,
        transactions: 0,
        reads: 0,
        changes: 0,
        missed: 0,
    };
    for (nth, writer) in writers.iter_mut().enumerate() {
        let [done] = writer.report()?;
        outcome.transactions += done;
        let [credit, debit] = pair(nth).map(|key| dict.get::<i64>(&key));
        if (credit?, debit?) != (i64::try_from(done).ok(), i64::try_from(done).ok().map(|done| -done)) {
            return Err(io::Error::other(format!("not all of {done} transactions of writer {nth} are there")));
        }
    }
    let count = dict.get::<u64>(COUNT)?.unwrap_or(0);
    if count != outcome.transactions {
        return Err(io::Error::other(format!("{} were counted as {count}", outcome.transactions)));
    }
    for reader in &mut readers {
        let [reads] = reader.report()?;
        outcome.reads += reads;
    }
    [outcome.changes, outcome.missed] = watcher.report()?;
    outcome.took = began.elapsed();
    Ok(outcome)
}

/// Kills a writer of frames. Returns how many it had confirmed: the last of them is there, or the
/// next.
fn kill(mut victim: Actor, dict: &Dict, after: Duration) -> io::Result<u64> {
    let before = current_frame(dict)?;
    // It works once it has confirmed a frame.
    let first = line(&mut victim.output)?;
    let mut output = std::mem::replace(&mut victim.output, BufReader::new(Box::new(io::empty())));
    let confirmed = thread::spawn(move || {
        let (mut last, mut next) = (first, String::new());
        // Half a line was not said.
        while matches!(output.read_line(&mut next), Ok(1..)) && next.ends_with('\n') {
            std::mem::swap(&mut last, &mut next);
            next.clear();
        }
        last.trim_end().parse::<u64>()
    });
    thread::sleep(after);
    victim.child.kill()?;
    victim.child.wait()?;
    let wrong = |what: String| io::Error::other(what);
    let last = match confirmed.join() {
        Ok(Ok(last)) => last,
        _ => return Err(wrong("a killed writer printed an unexpected line".to_owned())),
    };
    match current_frame(dict)? {
        there if there == last || there == last + 1 => Ok(last - before),
        there => Err(wrong(format!("frame {last} was confirmed, but frame {there} is there"))),
    }
}

fn current_frame(dict: &Dict) -> io::Result<u64> {
    match dict.get_bytes(FRAME)? {
        Some(bytes) => frame_number(&bytes),
        None => Err(io::Error::other("the frame is gone")),
    }
}

/// A process that takes part. It ends when this is dropped.
struct Actor {
    child: Child,
    output: BufReader<Box<dyn Read + Send>>,
    errors: Option<ChildStderr>,
    /// Its end tells the process that this one has ended.
    _input: Option<ChildStdin>,
}

impl Actor {
    /// Starts it, and waits until it has opened the dict.
    fn start(role: Role, name: &str) -> io::Result<Actor> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["demo", "--part", &Part::Actor(role, name.to_owned()).to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = alone(&mut command).spawn()?;
        let output: Box<dyn Read + Send> = match child_output(&mut child) {
            Ok(output) => Box::new(output),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let (errors, input) = (child.stderr.take(), child.stdin.take());
        let mut actor = Actor { child, output: BufReader::new(output), errors, _input: input };
        actor.hear("ready")?;
        Ok(actor)
    }

    fn hear(&mut self, wanted: &str) -> io::Result<String> {
        match line(&mut self.output) {
            Ok(line) if line.starts_with(wanted) => Ok(line),
            Ok(line) => Err(io::Error::other(format!("a process said `{line}`"))),
            Err(error) => {
                let mut why = String::new();
                if let Some(errors) = &mut self.errors {
                    let _ = errors.read_to_string(&mut why);
                }
                Err(io::Error::other(format!("{error}\n{}", why.trim_end())))
            }
        }
    }

    /// The numbers that it reports at its end.
    fn report<const N: usize>(&mut self) -> io::Result<[u64; N]> {
        let line = self.hear("done")?;
        let numbers: Vec<u64> = line.split(' ').skip(1).filter_map(|number| number.parse().ok()).collect();
        let status = self.child.wait()?;
        match (status.success(), numbers.try_into()) {
            (true, Ok(numbers)) => Ok(numbers),
            _ => Err(io::Error::other(format!("a process said `{line}` and ended with {status}"))),
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn text(outcome: &Outcome) -> String {
    let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ");
    let (first, others) = outcome.killed.split_first().map_or((0, 0), |(first, others)| (*first, others.len()));
    let missed = match outcome.missed {
        0 => String::new(),
        missed => format!(" ({missed} times the watcher fell behind)"),
    };
    format!(
        "\nSharing keys in a dict for {:.1} s, while writers are killed.\n\
         \n  Process {} created `name:{}`; {} set keys in transactions,\n  {} read all of them in a loop, {} watched.\n\
         \n  Process {first} wrote {} KiB to one key in a loop and was killed at it, and then {others} more processes;\n  \
         they made {} writes.\n\
         \n  The others continued: {} transactions, {} reads; {} changes were reported{missed}.\n  \
         No value was torn, no transaction was seen in part, and every confirmed write is there.\n",
        outcome.took.as_secs_f64(),
        std::process::id(),
        outcome.name,
        list(&outcome.writers),
        list(&outcome.readers),
        outcome.watcher,
        FRAME_LEN >> 10,
        outcome.frames,
        outcome.transactions,
        outcome.reads,
        outcome.changes,
    )
}

pub(super) fn json(outcome: &Outcome) -> Value {
    json!({
        "seconds": outcome.took.as_secs_f64(),
        "killed": outcome.killed.len(),
        "frames": outcome.frames,
        "transactions": outcome.transactions,
        "reads": outcome.reads,
        "changes": outcome.changes,
        "missed": outcome.missed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_two_numbers_is_torn() {
        let mut bytes = frame(7);
        assert_eq!(frame_number(&bytes).ok(), Some(7));
        bytes[FRAME_LEN / 2..].copy_from_slice(&frame(8)[FRAME_LEN / 2..]);
        assert!(frame_number(&bytes).is_err());
        assert!(frame_number(&frame(7)[..8]).is_err());
        assert!(frame_number(&[]).is_err());
    }
}
