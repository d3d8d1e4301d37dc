//! Bytes to another process, by a mapping and by the usual ways.

use std::io::{self, BufReader, Write};
use std::process::{Child, ChildStdout, Command};
use std::time::Instant;

use mmf::{Mapping, Name};
use mmf_cli::measure::{self, Pair, rate, size, time};
use mmf_cli::transport::{self, Outlet, Way, line};

use crate::Effort;
use crate::consumer::{FLAG, Header};
use crate::machine::second_level_cache;
use crate::report::{Figure, Row, Table};
use crate::ring::{DATA, Ring, produce, produce_past_caches, sum};

/// What the usual ways are given at a time.
const CHUNKS: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];

/// A process that takes what is sent.
struct Peer {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Headers, and the bytes where there is no mapping.
    outlet: Outlet,
}

impl Peer {
    fn start(source: &str, way: Way) -> io::Result<Peer> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([FLAG, source]);
        let (child, output, outlet) = transport::start(way, &mut command)?;
        let mut peer = Peer { child, output, outlet };
        peer.hear("ready")?;
        Ok(peer)
    }

    fn hear(&mut self, word: &str) -> io::Result<()> {
        match line(&mut self.output)? {
            said if said == word => Ok(()),
            said => Err(io::Error::other(format!("the peer said `{said}` instead of `{word}`"))),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One way of getting the bytes over.
struct Candidate {
    peer: usize,
    title: String,
    kind: Kind,
    chunk: usize,
    /// Nanoseconds of each transfer.
    samples: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stream,
    /// A ring of so many bytes. If they are produced there, by stores that pass by the caches or not.
    Ring(usize, bool),
}

/// What is sent, and what becomes of it.
struct Load {
    total: usize,
    /// Produced and looked at chunk by chunk, or copied from one memory to another.
    look: bool,
    source: Vec<u8>,
    /// The sum of the source's words without the first.
    rest: u64,
    round: u64,
}

pub(crate) fn run(effort: Effort) -> io::Result<Vec<Table>> {
    let total = effort.transfer;
    let name = format!("mmf-benches-{}", std::process::id());
    let map = Mapping::options().size((DATA + total) as u64).prefault(true).create_new(Name::local(&name)?)?;
    let mut peers = vec![Peer::start(&name, Way::Pipe)?];
    for way in Way::ALL {
        peers.push(Peer::start(way.word(), way)?);
    }
    // Some are no power of two, and a transfer is a whole number of chunks.
    let cache = 1_usize << second_level_cache().max(64 << 10).ilog2();
    let chunk = (cache / 16).min(total / 16);
    let ring = |bytes: usize, past_caches| {
        let bytes = bytes.min(total);
        let how = if past_caches { ", stored past the caches" } else { "" };
        let kept = if bytes == total { ", all kept" } else { "" };
        let title = format!("ring of {}{kept}{how}", size(bytes));
        Candidate { peer: 0, title, kind: Kind::Ring(bytes, past_caches), chunk, samples: Vec::new() }
    };
    let usual = || {
        Way::ALL.into_iter().zip(1..).flat_map(|(way, peer)| {
            let title = way.title().to_owned();
            CHUNKS.map(|chunk| Candidate { peer, title: title.clone(), kind: Kind::Stream, chunk, samples: Vec::new() })
        })
    };
    let mut source = vec![0; total];
    produce(&mut source, 0x5EED);
    let rest = sum(&source[8..]);
    let mut load = Load { total, look: false, source, rest, round: 0 };

    let ours = [ring(4 * cache, false), ring(16 * cache, false), ring(total, false)];
    let mut candidates: Vec<Candidate> = distinct(ours).into_iter().chain(usual()).collect();
    measure(effort, &map, &mut peers, &mut candidates, &mut load)?;
    let copied = compare(&candidates, total, 1.3, "at least 1.3 x");

    load.look = true;
    let ours = [ring(4 * cache, false), ring(4 * cache, true), ring(total, false)];
    let mut candidates: Vec<Candidate> = distinct(ours).into_iter().chain(usual()).collect();
    measure(effort, &map, &mut peers, &mut candidates, &mut load)?;
    let placed = compare(&candidates, total, 5.0, "at least 5 x");
    let other = "the other";
    Ok(vec![
        Table { title: "To another process, copied in and out", other, rows: copied, notes: COPIED },
        Table { title: "To another process, produced and read in place", other, rows: placed, notes: PLACED },
    ])
}

/// Removes rings that are equal to an earlier one. Rings are no larger than the whole transfer.
fn distinct(rings: [Candidate; 3]) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for ring in rings {
        if kept.iter().all(|earlier| earlier.title != ring.title) {
            kept.push(ring);
        }
    }
    kept
}

/// All candidates in turns, so often as there shall be pairs.
fn measure(
    effort: Effort,
    map: &Mapping,
    peers: &mut [Peer],
    candidates: &mut [Candidate],
    load: &mut Load,
) -> io::Result<()> {
    for round in 0..=effort.long_plan().pairs {
        for candidate in &mut *candidates {
            load.round += 1;
            let took = transfer(map, &mut peers[candidate.peer], candidate, load)?;
            // The first warms up.
            if round > 0 {
                candidate.samples.push(took);
            }
        }
    }
    Ok(())
}

/// From the first move to the peer's word that it has everything.
fn transfer(map: &Mapping, peer: &mut Peer, candidate: &Candidate, load: &mut Load) -> io::Result<f64> {
    let Candidate { kind, chunk, .. } = *candidate;
    let Load { total, look, round, rest, .. } = *load;
    // Other bytes each time: what came before cannot pass for them.
    let first = round.wrapping_mul(0x9E37_79B9);
    load.source[..8].copy_from_slice(&first.to_le_bytes());
    let slots = if let Kind::Ring(bytes, _) = kind { (bytes / chunk).max(2).min(total / chunk) } else { 1 };
    let mut scratch = vec![1; if look { chunk } else { 0 }];
    let ring = Ring { map, chunk, slots };
    ring.reset()?;

    let began = Instant::now();
    peer.outlet.write_all(&Header { total, chunk, slots, look }.to_bytes())?;
    for number in 0..total / chunk {
        let word = first.wrapping_add((number * chunk / 8) as u64);
        let bytes = &load.source[number * chunk..][..chunk];
        match (kind, look) {
            (Kind::Stream, false) => peer.outlet.write_all(bytes)?,
            (Kind::Stream, true) => {
                produce(&mut scratch, word);
                peer.outlet.write_all(&scratch)?;
            }
            (Kind::Ring(..), false) => ring.put(number, |place| Ok(map.write_at(place, bytes)?))?,
            (Kind::Ring(_, past_caches), true) => {
                ring.put(number, |place| produce_in_place(map, place, chunk, word, past_caches))?;
            }
        }
    }
    peer.hear("done")?;
    let took = began.elapsed().as_secs_f64() * 1e9;

    let words = (total / 8) as u64;
    // The sum of the words from `first` on: as many times the first, and 0 + 1 + ...
    let produced = words.wrapping_mul(first).wrapping_add(words * (words - 1) / 2);
    let expected = if look { produced } else { rest.wrapping_add(first) };
    peer.hear(&expected.to_string())?;
    Ok(took)
}

fn produce_in_place(map: &Mapping, place: usize, chunk: usize, first: u64, past_caches: bool) -> io::Result<()> {
    let start = map.as_mut_ptr()?;
    // SAFETY: every slot lies in the mapping: a ring has at most `total` bytes, which were made behind `DATA`.
    let slot = unsafe { start.add(place) };
    // SAFETY: the slot has `chunk` bytes, for the same reason; the peer leaves it alone from when it freed the slot until
    // `put` publishes it again.
    let slot = unsafe { std::slice::from_raw_parts_mut(slot, chunk) };
    if past_caches {
        produce_past_caches(slot, first)
    } else {
        produce(slot, first)
    }
    Ok(())
}

/// The best of ours beside the best of each way, which the target is about; then the rest of ours beside the best way.
fn compare(candidates: &[Candidate], total: usize, least: f64, target: &'static str) -> Vec<Row> {
    let by_time = |a: &&Candidate, b: &&Candidate| median(a).total_cmp(&median(b));
    let (mut ours, others): (Vec<&Candidate>, Vec<&Candidate>) =
        candidates.iter().partition(|candidate| candidate.kind != Kind::Stream);
    ours.sort_by(by_time);
    let best = |way: Way| others.iter().copied().filter(|other| other.title == way.title()).min_by(by_time);
    let mut others: Vec<&Candidate> = Way::ALL.into_iter().filter_map(best).collect();
    others.sort_by(by_time);
    let figure = |candidate: &Candidate| {
        let took = median(candidate);
        format!("{}, {}, {} at a time", time(took), rate(total, took), size(candidate.chunk))
    };
    let beside = |ours: &Candidate, other: &Candidate| {
        let pair = Pair::of(&ours.samples, &other.samples);
        let row = Row::speed(format!("{}, {}; beside {}", size(total), ours.title, other.title), pair);
        (Row { ours: figure(ours), theirs: figure(other), figure: None, ..row }, pair.speed)
    };
    let mut rows = Vec::new();
    let ([best, rest @ ..], [rival, slower @ ..]) = (&ours[..], &others[..]) else { return rows };
    // The best ring and its rival differ between process starts. The name of a figure must not.
    let counted = |row: Row, ours: &Candidate| {
        let name = format!("{}, {}", size(total), ours.title);
        Row { figure: Some(Figure::time(name, median(ours), None)), ..row }
    };
    let (row, speed) = beside(best, rival);
    rows.push(counted(row.target(target, speed >= least), best));
    rows.extend(slower.iter().map(|other| beside(best, other).0));
    rows.extend(rest.iter().map(|ours| counted(beside(ours, rival).0, ours)));
    rows
}

fn median(candidate: &Candidate) -> f64 {
    measure::median(candidate.samples.clone())
}

const COPIED: &str = "From private memory of one process into private memory of another, from the first copy until the\n\
    sender has the reply that all is there. Each other way runs with the best of three chunk sizes, mmf\n\
    with the best of three sizes of its ring; the target compares the best of each. mmf: `write_at` into\n\
    the ring, `read_at` out of it, two counters, waiting awake. The others: `write` and `read`, with\n\
    enlarged buffers. They put a waiting process to sleep and notice the peer's end; mmf's ring keeps\n\
    its core busy.";

const PLACED: &str = "One process writes the words, another reads and sums all of them, both in place in the mapping. The\n\
    others: written to a buffer of the chunk's size, sent, received into such a buffer, and summed\n\
    there. They keep nothing; \"all kept\" has all words in memory at the end. Which ring is best depends\n\
    on whether the two cores share a cache.";
