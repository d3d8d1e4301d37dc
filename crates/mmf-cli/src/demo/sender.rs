//! The process that shares the bytes: it makes or loads them, starts its readers, and takes the
//! time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mmf::{ErrorKind, Mapping, Name};
use mmf_cli::transport::{self, Way, child_output, line, peak_memory, say};

use super::data::{CHUNK, Checksum, Data};
use super::reader::{Ready, Report};
use super::{Part, Route, Taking};

/// The job of a sender.
pub(super) struct Job {
    pub(super) route: Route,
    pub(super) size: u64,
    pub(super) readers: usize,
    pub(super) file: Option<PathBuf>,
}

/// The result of a sender, as it reports it to the process that prints it.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) sender: u64,
    pub(super) readers: Vec<u64>,
    /// Bytes that each reader got.
    pub(super) size: u64,
    pub(super) checksum: u64,
    pub(super) elapsed: Duration,
    /// Of the slowest reader.
    pub(super) delivery: Duration,
    /// Of the slowest reader.
    pub(super) summing: Duration,
    /// Of the slowest reader.
    pub(super) opening: Duration,
    /// The largest peak of a reader, what it shares with the others included.
    pub(super) reader_memory: u64,
    /// All peaks together, what is shared counted once.
    pub(super) memory: u64,
}

impl Outcome {
    fn line(&self) -> String {
        let times = [self.elapsed, self.delivery, self.summing, self.opening].map(|time| time.as_nanos().to_string());
        let sums = [self.sender, self.size, self.checksum, self.reader_memory, self.memory].map(|n| n.to_string());
        let readers: Vec<String> = self.readers.iter().map(u64::to_string).collect();
        format!("outcome {} {} {}", times.join(" "), sums.join(" "), readers.join(" "))
    }

    pub(super) fn parse(line: &str) -> Option<Outcome> {
        let numbers: Result<Vec<u64>, _> = line.strip_prefix("outcome ")?.split(' ').map(str::parse).collect();
        let numbers = numbers.ok()?;
        let [elapsed, delivery, summing, opening, sender, size, checksum, reader_memory, memory, ref readers @ ..] =
            numbers[..]
        else {
            return None;
        };
        let [elapsed, delivery, summing, opening] = [elapsed, delivery, summing, opening].map(Duration::from_nanos);
        let readers = readers.to_vec();
        Some(Outcome { sender, readers, size, checksum, elapsed, delivery, summing, opening, reader_memory, memory })
    }
}

/// Does the job, and prints the outcome.
pub(super) fn run(job: &Job) -> io::Result<()> {
    let children = Children::default();
    children.end_with_starter();
    let result = match job.route {
        Route::Mapping(taking) => share(job, taking, &children),
        Route::Stream(way) => send(job, way, &children),
    };
    if result.is_err() {
        children.kill();
    }
    say(&result?.line())?;
    children.wait()
}

fn share(job: &Job, taking: Taking, children: &Children) -> io::Result<Outcome> {
    let name = format!("mmf-demo-{}", std::process::id());
    let map = create_what_fits(&Name::local(&name)?, job)?;
    let mut data = Data::open(job.file.as_deref(), job.size)?;
    let mut checksum = Checksum::new();
    let mut chunk = vec![0; CHUNK];
    for offset in (0..map.len()).step_by(CHUNK) {
        let chunk = &mut chunk[..CHUNK.min(map.len() - offset)];
        data.fill(chunk)?;
        checksum.add(chunk);
        map.write_at(offset, chunk)?;
    }
    let mut outputs = Vec::new();
    let mut inputs = Vec::new();
    for _ in 0..job.readers {
        let mut child =
            command(Part::MappingReader(taking, name.clone()))?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (output, input) = (child_output(&mut child), child.stdin.take());
        children.add(child)?;
        outputs.push(output?);
        inputs.extend(input);
    }
    let ready = hear(&mut outputs, Ready::parse)?;
    if let Some(found) = ready.iter().map(|ready| ready.found).find(|found| *found != map.len() as u64) {
        return Err(io::Error::other(format!("a reader found {found} bytes instead of {}", map.len())));
    }
    let began = Instant::now();
    for input in &mut inputs {
        input.write_all(b"\n")?;
    }
    let reports = hear(&mut outputs, Report::parse)?;
    let elapsed = began.elapsed();
    let opening = ready.iter().map(|ready| ready.opening).max().unwrap_or_default();
    conclude(children, map.len() as u64, checksum.finish(), elapsed, &reports, opening, map.len() as u64)
}

/// Made bytes become fewer where memory is short; a file does not.
fn create_what_fits(name: &Name, job: &Job) -> io::Result<Mapping> {
    let mut size = job.size;
    loop {
        match Mapping::create_new(name, whole_pages(size)) {
            Err(error) if *error.kind() == ErrorKind::NoSpace && job.file.is_none() && size > 1 << 20 => size /= 2,
            result => return Ok(result?),
        }
    }
}

fn whole_pages(size: u64) -> u64 {
    // A size that cannot be rounded up exceeds every system, which then reports that.
    size.max(1).checked_next_multiple_of(mmf::page_size() as u64).unwrap_or(u64::MAX)
}

fn send(job: &Job, way: Way, children: &Children) -> io::Result<Outcome> {
    let size = usize::try_from(whole_pages(job.size)).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(io::Error::other)?;
    bytes.resize(size, 0);
    let mut data = Data::open(job.file.as_deref(), job.size)?;
    let mut checksum = Checksum::new();
    for chunk in bytes.chunks_mut(CHUNK) {
        data.fill(chunk)?;
        checksum.add(chunk);
    }
    let mut outputs = Vec::new();
    let mut outlets = Vec::new();
    for _ in 0..job.readers {
        let (child, output, outlet) = transport::start(way, &mut command(Part::StreamReader(way))?)?;
        children.add(child)?;
        outputs.push(output);
        outlets.push(outlet);
    }
    hear(&mut outputs, Ready::parse)?;
    let began = Instant::now();
    let sent = thread::scope(|scope| {
        let writers: Vec<_> = outlets
            .into_iter()
            .map(|mut outlet| scope.spawn(|| bytes.chunks(CHUNK).try_for_each(move |chunk| outlet.write_all(chunk))))
            .collect();
        let ended =
            writers.into_iter().map(|writer| writer.join().unwrap_or_else(|_| Err(io::Error::other("a panic"))));
        ended.fold(Ok(()), io::Result::and)
    });
    let reports = sent.and_then(|()| hear(&mut outputs, Report::parse))?;
    let elapsed = began.elapsed();
    conclude(children, size as u64, checksum.finish(), elapsed, &reports, Duration::ZERO, 0)
}

/// `shared` are the bytes that the sender and all readers have in common.
fn conclude(
    children: &Children,
    size: u64,
    checksum: u64,
    elapsed: Duration,
    reports: &[Report],
    opening: Duration,
    shared: u64,
) -> io::Result<Outcome> {
    if let Some(wrong) = reports.iter().find(|report| report.checksum != checksum) {
        let told = format!("a reader's checksum is {:016x} instead of {checksum:016x}", wrong.checksum);
        return Err(io::Error::other(told));
    }
    let memory = peak_memory() + reports.iter().map(|report| report.peak.saturating_sub(shared)).sum::<u64>();
    Ok(Outcome {
        sender: std::process::id().into(),
        readers: children.ids(),
        size,
        checksum,
        elapsed,
        delivery: reports.iter().map(|report| report.delivery).max().unwrap_or_default(),
        summing: reports.iter().map(|report| report.summing).max().unwrap_or_default(),
        opening,
        reader_memory: reports.iter().map(|report| report.peak).max().unwrap_or_default(),
        memory,
    })
}

/// One line of each reader.
fn hear<T>(outputs: &mut [BufReader<ChildStdout>], parse: impl Fn(&str) -> Option<T>) -> io::Result<Vec<T>> {
    outputs.iter_mut().map(|output| hear_one(output, &parse)).collect()
}

fn hear_one<T>(output: &mut impl BufRead, parse: impl Fn(&str) -> Option<T>) -> io::Result<T> {
    let line = line(output)?;
    parse(&line).ok_or_else(|| io::Error::other(format!("a reader said `{line}`")))
}

fn command(part: Part) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["demo", "--part", &part.to_string()]);
    Ok(command)
}

/// The readers that were started.
#[derive(Clone, Default)]
struct Children(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    children: Vec<Child>,
    /// No more may start.
    ended: bool,
}

impl Children {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A panic cannot leave the list half changed: it is only pushed to.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, mut child: Child) -> io::Result<()> {
        let mut shared = self.lock();
        if shared.ended {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
        }
        shared.children.push(child);
        Ok(())
    }

    fn ids(&self) -> Vec<u64> {
        self.lock().children.iter().map(|child| child.id().into()).collect()
    }

    /// Calls that wait for a reader then fail, and the sender ends in order.
    fn kill(&self) {
        let mut shared = self.lock();
        shared.ended = true;
        for child in &mut shared.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn wait(&self) -> io::Result<()> {
        for child in &mut self.lock().children {
            let status = child.wait()?;
            if !status.success() {
                return Err(io::Error::other(format!("a reader ended with {status}")));
            }
        }
        Ok(())
    }

    /// The starter holds this process's standard input and says nothing: its end is the starter's
    /// end or wish.
    fn end_with_starter(&self) {
        let children = self.clone();
        thread::spawn(move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            children.kill();
        });
    }
}
