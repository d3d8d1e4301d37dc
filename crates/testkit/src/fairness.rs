//! Who gets the lock how often, and who waits how long, where many processes want it all the time.

use std::time::{Duration, Instant};

use mmf::{Name, Region};

use crate::{LIFETIME, Peer, peer, release, unique_name};

/// How many want it, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Fairness {
    /// Processes that lock for reading.
    pub readers: usize,
    /// Processes that lock for writing.
    pub writers: usize,
    /// How long they do.
    pub time: Duration,
}

/// What those of one kind got.
#[derive(Clone, Debug)]
pub struct Shares {
    /// How often each process got the lock.
    pub counts: Vec<u64>,
    /// The longest that one of them waited for it.
    pub longest: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Fair {
    /// Those who lock for reading.
    pub readers: Shares,
    /// Those who lock for writing.
    pub writers: Shares,
}

/// The role of who takes the lock again and again. Arguments: the region's name, `read` or `write`,
/// and for how many milliseconds.
pub fn contender(args: &[&str]) {
    let region = Region::open(Name::local(args[0]).expect("a name")).expect("the region");
    let time = Duration::from_millis(args[2].parse().expect("a number"));
    let writes = args[1] == "write";
    let (mut count, mut longest) = (0_u64, Duration::ZERO);
    peer::line_up("start");
    let since = Instant::now();
    while since.elapsed() < time {
        let began = Instant::now();
        if writes {
            let mut guard = region.write().expect("the lock");
            longest = longest.max(began.elapsed());
            let sum = guard.get::<u64>(0).expect("a number");
            guard.put(0, sum + 1).expect("room for a number");
        } else {
            let guard = region.read().expect("the lock");
            longest = longest.max(began.elapsed());
            guard.get::<u64>(0).expect("a number");
        }
        count += 1;
    }
    peer::say(format!("{count} {}", longest.as_nanos()));
}

impl Fairness {
    /// Does it.
    ///
    /// The binary must play the role [`contender`] by that name.
    ///
    /// # Panics
    ///
    /// If a process does not get the lock at all, or a change is lost.
    #[must_use]
    pub fn run(&self) -> Fair {
        let text = unique_name("fair");
        let region = Region::create_new(Name::local(&text).expect("a name"), 4096).expect("a region");
        region.write().expect("the lock").put(0, 0_u64).expect("room for a number");
        let time = self.time.as_millis().to_string();
        let spawn = |how| {
            Peer::spawn_with("contender", &[&text, how, &time], |command| {
                command.env(LIFETIME, (self.time.as_secs() + 240).to_string());
            })
        };
        let mut readers: Vec<Peer> = (0..self.readers).map(|_| spawn("read")).collect();
        let mut writers: Vec<Peer> = (0..self.writers).map(|_| spawn("write")).collect();
        release("start", readers.iter_mut().chain(&mut writers));
        let fair = Fair { readers: self.shares(readers), writers: self.shares(writers) };
        let sum = region.read().expect("the lock").get::<u64>(0).expect("a number");
        assert_eq!(sum, fair.writers.counts.iter().sum::<u64>(), "changes are lost");
        fair
    }

    fn shares(&self, peers: Vec<Peer>) -> Shares {
        let mut shares = Shares { counts: Vec::new(), longest: Duration::ZERO };
        for mut peer in peers {
            let line = peer.expect_line_within(self.time + Duration::from_secs(120));
            let (count, longest) = line.split_once(' ').expect("two numbers");
            shares.counts.push(count.parse().expect("a number"));
            shares.longest = shares.longest.max(Duration::from_nanos(longest.parse().expect("a number")));
            peer.finish();
        }
        shares
    }
}

impl Shares {
    /// How often the process got it that got it least.
    #[must_use]
    pub fn least(&self) -> u64 {
        self.counts.iter().copied().min().unwrap_or(0)
    }

    /// How often the process got it that got it most.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.counts.iter().copied().max().unwrap_or(0)
    }
}

impl std::fmt::Display for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (least, most) = (self.least(), self.most());
        write!(f, "{} processes, {least} to {most} locks each, longest wait {:.1?}", self.counts.len(), self.longest)
    }
}
