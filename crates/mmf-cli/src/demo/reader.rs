//! A reader: takes the bytes chunk by chunk into memory of its own, and sums them up.

use std::io;
use std::time::{Duration, Instant};

use mmf::{Access, Mapping, Name};
use mmf_cli::transport::{self, Way, peak_memory, say};

use super::Taking;
use super::data::{CHUNK, Checksum, read_full};
use crate::lifetime::Bound;

/// The report of a reader.
pub(super) struct Report {
    pub(super) checksum: u64,
    /// How long the bytes took into its memory, waiting included.
    pub(super) delivery: Duration,
    /// How long the checksum took.
    pub(super) summing: Duration,
    pub(super) peak: u64,
}

impl Report {
    fn line(&self) -> String {
        let Report { checksum, delivery, summing, peak } = self;
        format!("done {checksum} {} {} {peak}", delivery.as_nanos(), summing.as_nanos())
    }

    pub(super) fn parse(line: &str) -> Option<Report> {
        let mut numbers = line.strip_prefix("done ")?.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let (checksum, delivery, summing, peak) = (next()?, next()?, next()?, next()?);
        let (delivery, summing) = (Duration::from_nanos(delivery), Duration::from_nanos(summing));
        Some(Report { checksum, delivery, summing, peak })
    }
}

/// The line of a reader that is ready.
pub(super) struct Ready {
    /// How long it took to open the mapping; zero for the other ways.
    pub(super) opening: Duration,
    /// How many bytes it found there.
    pub(super) found: u64,
}

impl Ready {
    fn line(&self) -> String {
        format!("ready {} {}", self.opening.as_nanos(), self.found)
    }

    pub(super) fn parse(line: &str) -> Option<Ready> {
        let (opening, found) = line.strip_prefix("ready ")?.split_once(' ')?;
        Some(Ready { opening: Duration::from_nanos(opening.parse().ok()?), found: found.parse().ok()? })
    }
}

/// Reads a stream to its end.
pub(super) fn read_stream(way: Way) -> io::Result<()> {
    // The process that should connect may have died.
    let connecting = Bound::new(Duration::from_secs(30));
    let mut inlet = transport::inlet(way)?;
    drop(connecting);
    say(&Ready { opening: Duration::ZERO, found: 0 }.line())?;
    summarize(|room| read_full(&mut inlet, room))
}

/// Opens the mapping by its name alone, and reads all that is in it once it is told to.
pub(super) fn read_mapping(name: &str, taking: Taking) -> io::Result<()> {
    let began = Instant::now();
    let map = Mapping::options().access(Access::ReadOnly).prefault(true).open(Name::local(name)?)?;
    let ready = Ready { opening: began.elapsed(), found: map.len() as u64 };
    say(&ready.line())?;
    if io::stdin().read_line(&mut String::new())? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the process that shares the bytes is gone"));
    }
    match taking {
        Taking::InPlace => {
            // SAFETY: the sender, which made the object for this, neither writes to it nor shortens
            // it once its readers run, and no other process knows the name; all of its memory was
            // allocated when it was made.
            let bytes = unsafe { map.as_slice() };
            let before = Instant::now();
            let mut checksum = Checksum::new();
            checksum.add(bytes);
            report(&checksum, Duration::ZERO, before.elapsed())
        }
        Taking::Copies => {
            let mut offset = 0;
            summarize(|room| {
                let len = room.len().min(map.len() - offset);
                map.read_at(offset, &mut room[..len])?;
                offset += len;
                Ok(len)
            })
        }
    }
}

/// `deliver` fills a buffer, or as much of it as there is left.
fn summarize(mut deliver: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    let mut room = vec![0; CHUNK];
    let mut checksum = Checksum::new();
    let (mut delivery, mut summing) = (Duration::ZERO, Duration::ZERO);
    let mut before = Instant::now();
    loop {
        let len = deliver(&mut room)?;
        let between = Instant::now();
        checksum.add(&room[..len]);
        let after = Instant::now();
        delivery += between - before;
        summing += after - between;
        before = after;
        if len < room.len() {
            break;
        }
    }
    report(&checksum, delivery, summing)
}

fn report(checksum: &Checksum, delivery: Duration, summing: Duration) -> io::Result<()> {
    say(&Report { checksum: checksum.finish(), delivery, summing, peak: peak_memory() }.line())
}
