//! The other process: takes transfers until nobody sends any more.

use std::io::{self, Read};

use mmf::{Mapping, Name};
use mmf_cli::transport::{self, Way, say};

use crate::machine;
use crate::ring::{Ring, in_place, sum};

/// What a consumer is started with, before where it gets the bytes from.
pub(crate) const FLAG: &str = "--consume";

/// The core that it keeps to.
pub(crate) const CORE: usize = 1;

/// What comes before the bytes.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) total: usize,
    pub(crate) chunk: usize,
    /// Slots of the ring, where the bytes come by a mapping.
    pub(crate) slots: usize,
    /// Whether the consumer shall look at each chunk at once, or keep all of them.
    pub(crate) look: bool,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let words = [self.total, self.chunk, self.slots, usize::from(self.look)];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&(word as u64).to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: [u8; 32]) -> io::Result<Header> {
        let mut words = [0; 4];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(place);
            *word = usize::try_from(u64::from_le_bytes(bytes)).map_err(io::Error::other)?;
        }
        let [total, chunk, slots, look] = words;
        if chunk == 0 || slots == 0 || total % chunk != 0 {
            return Err(io::Error::other("the sender's header makes no sense"));
        }
        Ok(Header { total, chunk, slots, look: look != 0 })
    }

    /// The next transfer; `None` where there is none.
    fn read(from: &mut impl Read) -> io::Result<Option<Header>> {
        let mut bytes = [0; 32];
        match from.read_exact(&mut bytes) {
            Ok(()) => Header::from_bytes(bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// `source` is the word of a way, or a mapping's name.
pub(crate) fn run(source: &str) -> io::Result<()> {
    machine::pin(CORE);
    match Way::from_word(source) {
        Some(way) => by_stream(way),
        None => by_mapping(source),
    }
}

fn by_stream(way: Way) -> io::Result<()> {
    let mut inlet = transport::inlet(way)?;
    let mut memory = Vec::new();
    say("ready")?;
    while let Some(header) = Header::read(&mut inlet)? {
        let Header { total, chunk, look, .. } = header;
        let room = if look { chunk } else { total };
        if memory.len() < room {
            memory.resize(room, 1);
        }
        let mut seen = 0_u64;
        for number in 0..total / chunk {
            let at = if look { 0 } else { number * chunk };
            inlet.read_exact(&mut memory[at..at + chunk])?;
            if look {
                seen = seen.wrapping_add(sum(&memory[..chunk]));
            }
        }
        say("done")?;
        // What was only kept is checked when the clock has stopped.
        say(&if look { seen } else { sum(&memory[..total]) }.to_string())?;
    }
    Ok(())
}

fn by_mapping(name: &str) -> io::Result<()> {
    let map = Mapping::options().prefault(true).open(Name::local(name)?)?;
    let mut memory = Vec::new();
    let mut headers = io::stdin();
    say("ready")?;
    while let Some(header) = Header::read(&mut headers)? {
        let Header { total, chunk, slots, look } = header;
        let ring = Ring { map: &map, chunk, slots };
        let room = if look { 0 } else { total };
        if memory.len() < room {
            memory.resize(room, 1);
        }
        if ring.place(slots - 1) + chunk > map.len() {
            return Err(io::Error::other("the sender's ring passes the end of the mapping"));
        }
        let mut seen = 0_u64;
        for number in 0..total / chunk {
            ring.take(number, |place| {
                if look {
                    // SAFETY: every slot lies in the mapping, as checked above; the producer leaves this one alone from
                    // when it published the chunk until `take` has freed the slot.
                    seen = seen.wrapping_add(sum(unsafe { in_place(&map, place, chunk) }));
                    return Ok(());
                }
                Ok(map.read_at(place, &mut memory[number * chunk..][..chunk])?)
            })?;
        }
        say("done")?;
        say(&if look { seen } else { sum(&memory[..total]) }.to_string())?;
    }
    Ok(())
}
