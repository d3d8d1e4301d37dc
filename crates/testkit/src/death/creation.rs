//! Death while a region is created: who comes next finds a whole one or none.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mmf::{Access, ErrorKind, Name, Region, Source};

use super::survivor::RECOVERY_TIMEOUT;
use super::traced::{Child, Helper, Stop, mark};
use super::{Deaths, Row, Run};
use crate::unique_name;

const CAPACITY: u64 = 1 << 17;
/// What an order to a survivor begins with.
pub(super) const ORDER: &str = "born";

/// Where it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Creation {
    CreateFile,
    CreateName,
}

pub(super) const CREATIONS: [Creation; 2] = [Creation::CreateFile, Creation::CreateName];

/// A place that nothing has been in yet.
struct CreationTarget {
    name: Option<Name>,
    /// Its file, alone in its directory or with those of other objects.
    path: PathBuf,
}

impl CreationTarget {
    fn new(creation: Creation, dir: &Path) -> CreationTarget {
        let text = unique_name("born");
        if creation == Creation::CreateName {
            let dir = format!("/dev/shm/mmf-{}", rustix::process::geteuid().as_raw());
            let path = Path::new(&dir).join(format!("mmf.{text}"));
            return CreationTarget { name: Some(Name::local(text).expect("a name")), path };
        }
        let dir = dir.join(text);
        fs::create_dir(&dir).expect("a directory");
        CreationTarget { name: None, path: dir.join("region") }
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

/// What a survivor makes of a place, sent as an order without its first word.
pub(super) fn recover_creation(order: &str, who: &str) -> Result<(&'static str, Duration), String> {
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
    let read_only = Region::options().access(Access::ReadOnly).timeout(Some(RECOVERY_TIMEOUT)).open(&source);
    match read_only.and_then(|read_only| read_only.to_vec()) {
        Ok(bytes) => good(&bytes)?,
        Err(error) if *error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(told("read without a lock")(error)),
    }
    let options = Region::options().capacity(CAPACITY).timeout(Some(RECOVERY_TIMEOUT));
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
    pub(super) fn test_creation(&mut self, creation: Creation, samples: usize, plan: &Deaths) {
        let began = Instant::now();
        let (steps, calls, states) = self.trace_creation(creation, plan.longest);
        let seen: HashSet<_> = states.iter().collect();
        for (number, state) in seen.iter().enumerate() {
            for at_once in [false, true] {
                let target = CreationTarget::new(creation, &self.dir);
                if let Some(bytes) = state {
                    fs::write(&target.path, bytes).expect("room for a copy");
                }
                self.recover_both(&target, at_once, 0, &format!("{creation:?}, state {number}"));
            }
        }
        let (kills, failures) = (self.kills, self.failures);
        if steps <= plan.longest {
            for step in calls.iter().take(plan.calls) {
                self.kill_creator(creation, step - 1);
                self.kill_creator(creation, *step);
            }
            for _ in 0..samples {
                let step = self.random() % steps.max(1);
                self.kill_creator(creation, step);
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
        self.tell(&format!("{creation:?}"), &row);
    }

    /// Leads a process through it, and copies each state that it leaves: none, or these bytes.
    fn trace_creation(&mut self, creation: Creation, longest: u64) -> (u64, Vec<u64>, Vec<Option<Vec<u8>>>) {
        let target = CreationTarget::new(creation, &self.dir);
        let child = lead(&target);
        let (mut steps, mut calls, mut states) = (0, Vec::new(), vec![None]);
        loop {
            let call = child.is_at_system_call();
            match child.step() {
                Stop::Stepped => steps += 1,
                Stop::Marked => break,
                Stop::Other(status) => {
                    self.fail(&format!("{creation:?} ended at step {steps} with {status:#x}"));
                    break;
                }
            }
            if steps > longest {
                break;
            }
            if call {
                calls.push(steps);
                let strangers = target.strangers();
                if !strangers.is_empty() {
                    self.fail(&format!("{creation:?}: {strangers:?} would be left after step {steps}"));
                }
            }
            // A name appears by a system call; bytes change by any instruction then.
            if call || states.last().is_some_and(Option::is_some) {
                let state = fs::read(&target.path).ok();
                if states.last() != Some(&state) {
                    states.push(state);
                }
            }
        }
        child.kill();
        self.recover_both(&target, false, 1, &format!("{creation:?}, killed when it was done"));
        (steps, calls, states)
    }

    fn kill_creator(&mut self, creation: Creation, step: u64) {
        let target = CreationTarget::new(creation, &self.dir);
        let child = lead(&target);
        for _ in 0..step {
            if child.step() != Stop::Stepped {
                break;
            }
        }
        self.kills += 1;
        let at_once = self.kills % 2 == 0;
        child.kill();
        self.recover_both(&target, at_once, 1, &format!("{creation:?}, killed after {step} steps"));
    }

    fn recover_both(&mut self, target: &CreationTarget, at_once: bool, which: usize, place: &str) {
        let strangers = target.strangers();
        if !strangers.is_empty() {
            self.fail(&format!("{place}: {strangers:?} is left"));
        }
        let order = target.order();
        let hear = |run: &mut Run, survivor: usize| {
            let answer = run.survivors[survivor].hear();
            run.hear(answer, which, place);
        };
        if at_once {
            self.survivors.iter_mut().for_each(|survivor: &mut Helper| survivor.send(&order));
            (0..2).for_each(|survivor| hear(self, survivor));
        } else {
            for survivor in 0..2 {
                self.survivors[survivor].send(&order);
                hear(self, survivor);
            }
        }
        if target.name.is_none() {
            self.check_rest(&target.path, place);
        } else if target.path.exists() {
            self.fail(&format!("{place}: it outlives its holders"));
        }
    }
}

fn lead(target: &CreationTarget) -> Child {
    Child::traced(|| {
        mark();
        std::mem::forget(Region::create_new(target.source(), CAPACITY).expect("a new region"));
        mark();
    })
}
