//! Death while a region is created: who comes next finds a whole one or none.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mmf::{Access, ErrorKind, Name, Region, Source};

use super::judge::PATIENCE;
use super::traced::{Child, Helper, Stop, mark};
use super::{Deaths, Row, Run};
use crate::unique_name;

const CAPACITY: u64 = 1 << 17;
/// What an order to a judge begins with.
pub(super) const ORDER: &str = "born";

/// Where it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Birth {
    CreateFile,
    CreateName,
}

pub(super) const BIRTHS: [Birth; 2] = [Birth::CreateFile, Birth::CreateName];

/// A place that nothing has been in yet.
struct Cradle {
    name: Option<Name>,
    /// Its file, alone in its directory or with those of other objects.
    path: PathBuf,
}

impl Cradle {
    fn new(birth: Birth, dir: &Path) -> Cradle {
        let text = unique_name("born");
        if birth == Birth::CreateName {
            let dir = format!("/dev/shm/mmf-{}", rustix::process::geteuid().as_raw());
            let path = Path::new(&dir).join(format!("mmf.{text}"));
            return Cradle { name: Some(Name::local(text).expect("a name")), path };
        }
        let dir = dir.join(text);
        fs::create_dir(&dir).expect("a directory");
        Cradle { name: None, path: dir.join("region") }
    }

    fn source(&self) -> Source {
        self.name.as_ref().map_or_else(|| Source::from(&*self.path), Source::from)
    }

    fn order(&self) -> String {
        match &self.name {
            Some(name) => format!("{ORDER} name {}", name.as_str()),
            None => format!("{ORDER} file {}", self.path.display()),
        }
    }

    /// Beside the region and what was there before.
    fn strangers(&self) -> Vec<String> {
        if self.name.is_some() {
            // Others come and go there. What has no name of its own yet is nowhere.
            return Vec::new();
        }
        let entries = self.path.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name != "region").collect()
    }
}

/// What a judge makes of a place, sent as an order without its first word.
pub(super) fn settle(order: &str, who: &str) -> Result<(&'static str, Duration), String> {
    let source: Source = match order.split_once(' ') {
        Some(("name", text)) => Name::local(text).map_err(|error| error.to_string())?.into(),
        Some((_, path)) => Path::new(path).into(),
        None => return Err(format!("no order: {order}")),
    };
    let told = |doing: &'static str| move |error: mmf::Error| format!("{doing}: {error}");
    let good = |bytes: &[u8]| match bytes {
        b"" | b"of a" | b"of b" => Ok(()),
        other => Err(format!("it holds {} bytes", other.len())),
    };
    let glance = Region::options().access(Access::ReadOnly).timeout(Some(PATIENCE)).open(&source);
    match glance.and_then(|glance| glance.to_vec()) {
        Ok(bytes) => good(&bytes)?,
        Err(error) if *error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(told("read without a lock")(error)),
    }
    let options = Region::options().capacity(CAPACITY).timeout(Some(PATIENCE));
    let began = Instant::now();
    let (found, region) = match options.open(&source) {
        Ok(region) => ("whole", region),
        Err(error) if *error.kind() == ErrorKind::NotFound => {
            ("nothing", options.open_or_create(&source).map_err(told("open or create"))?)
        }
        Err(error) => return Err(told("open")(error)),
    };
    let mut guard = region.write().map_err(|error| told("lock")(error.into()))?;
    let waited = began.elapsed();
    good(&guard.to_vec().map_err(told("read"))?)?;
    guard.set(format!("of {who}").as_bytes()).map_err(told("write"))?;
    drop(guard);
    good(&region.to_vec().map_err(told("read again"))?)?;
    Ok((found, waited))
}

impl Run {
    pub(super) fn bear(&mut self, birth: Birth, samples: usize, plan: &Deaths) {
        let began = Instant::now();
        let (steps, calls, states) = self.watch_birth(birth, plan.longest);
        let seen: HashSet<_> = states.iter().collect();
        for (number, state) in seen.iter().enumerate() {
            for at_once in [false, true] {
                let cradle = Cradle::new(birth, &self.dir.0);
                if let Some(bytes) = state {
                    fs::write(&cradle.path, bytes).expect("room for a copy");
                }
                self.settle_both(&cradle, at_once, 0, &format!("{birth:?}, state {number}"));
            }
        }
        let (kills, failures) = (self.kills, self.failures);
        if steps <= plan.longest {
            for step in calls.iter().take(plan.calls) {
                self.kill_newborn(birth, step - 1);
                self.kill_newborn(birth, *step);
            }
            for _ in 0..samples {
                let step = self.random() % steps.max(1);
                self.kill_newborn(birth, step);
            }
        }
        let row = Row {
            steps,
            calls: calls.len(),
            changes: states.len(),
            states: seen.len(),
            before: (kills, failures),
            began,
        };
        self.tell(&format!("{birth:?}"), &row);
    }

    /// Leads a process through it, and copies each state that it leaves: none, or these bytes.
    fn watch_birth(&mut self, birth: Birth, longest: u64) -> (u64, Vec<u64>, Vec<Option<Vec<u8>>>) {
        let cradle = Cradle::new(birth, &self.dir.0);
        let child = lead(&cradle);
        let (mut steps, mut calls, mut states) = (0, Vec::new(), vec![None]);
        loop {
            let call = child.is_at_system_call();
            match child.step() {
                Stop::Stepped => steps += 1,
                Stop::Marked => break,
                Stop::Other(status) => {
                    self.fail(&format!("{birth:?} ended at step {steps} with {status:#x}"));
                    break;
                }
            }
            if steps > longest {
                break;
            }
            if call {
                calls.push(steps);
                let strangers = cradle.strangers();
                if !strangers.is_empty() {
                    self.fail(&format!("{birth:?}: {strangers:?} would be left after step {steps}"));
                }
            }
            // A name appears by a system call; bytes change by any instruction then.
            if call || states.last().is_some_and(Option::is_some) {
                let state = fs::read(&cradle.path).ok();
                if states.last() != Some(&state) {
                    states.push(state);
                }
            }
        }
        child.kill();
        self.settle_both(&cradle, false, 1, &format!("{birth:?}, killed when it was done"));
        (steps, calls, states)
    }

    fn kill_newborn(&mut self, birth: Birth, step: u64) {
        let cradle = Cradle::new(birth, &self.dir.0);
        let child = lead(&cradle);
        for _ in 0..step {
            if child.step() != Stop::Stepped {
                break;
            }
        }
        self.kills += 1;
        let at_once = self.kills % 2 == 0;
        child.kill();
        self.settle_both(&cradle, at_once, 1, &format!("{birth:?}, killed after {step} steps"));
    }

    fn settle_both(&mut self, cradle: &Cradle, at_once: bool, which: usize, place: &str) {
        let strangers = cradle.strangers();
        if !strangers.is_empty() {
            self.fail(&format!("{place}: {strangers:?} is left"));
        }
        let order = cradle.order();
        let hear = |run: &mut Run, judge: usize| {
            let answer = run.judges[judge].hear();
            run.hear(answer, which, place);
        };
        if at_once {
            self.judges.iter_mut().for_each(|judge: &mut Helper| judge.send(&order));
            (0..2).for_each(|judge| hear(self, judge));
        } else {
            for judge in 0..2 {
                self.judges[judge].send(&order);
                hear(self, judge);
            }
        }
        if cradle.name.is_none() {
            self.check_rest(&cradle.path, place);
        } else if cradle.path.exists() {
            self.fail(&format!("{place}: it outlives its holders"));
        }
    }
}

fn lead(cradle: &Cradle) -> Child {
    Child::traced(|| {
        mark();
        std::mem::forget(Region::create_new(cradle.source(), CAPACITY).expect("a new region"));
        mark();
    })
}
