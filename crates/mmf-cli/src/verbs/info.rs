//! `mmf info`.

use mmf::{Access, ErrorKind, Mapping, ObjectInfo, Participant, Region, RegionStatus, Stats};
use serde::Serialize;

use crate::cli::InfoArgs;
use crate::failure::Result;
use crate::object::Opened;
use crate::output::{Align, Table, print, print_json};
use crate::size::human;
use crate::time::utc;

pub(crate) fn run(args: InfoArgs) -> Result<()> {
    let object = &args.object;
    let map = object.open(Access::ReadOnly, args.any_owner)?;
    let writable = Mapping::options().allow_other_owners(args.any_owner).open(object.source());
    let access = match writable.as_ref().map_err(mmf::Error::kind) {
        Ok(_) => "read and write",
        Err(ErrorKind::PermissionDenied | ErrorKind::ReadOnly) => "read only",
        Err(_) => "read; writing fails",
    };
    let opened = object.open_as_is(Access::ReadOnly, args.any_owner, Region::DEFAULT_TIMEOUT)?;
    let (mut region, mut dict, mut problem) = (None, None, None);
    match &opened {
        Opened::Raw(_) => {}
        Opened::Region(it) => region = Some(it.status()?),
        Opened::Dict(it) => {
            let Stats { entries, capacity, version, participants, .. } = it.stats()?;
            dict = Some(AboutDict { entries, capacity, version, participants });
        }
        Opened::Unusable(error) => problem = Some(reason(error)),
    }
    let owner = Owner::of(map.info());
    let size = map.len() as u64;
    if args.json {
        return print_json(&About {
            object: object.to_string(),
            kind: opened.kind(),
            size,
            page_size: mmf::page_size(),
            owner: owner.owner.ok(),
            permissions: owner.permissions,
            writable: writable.is_ok(),
            location: owner.location,
            problem,
            region: region.as_ref().map(AboutRegion::from),
            dict,
        });
    }
    let mut table = Table::new([("object", Align::Left), (&object.to_string(), Align::Left)]);
    let mut tell = |what: &str, value: String| table.row([what.to_owned(), value]);
    tell("kind", opened.kind().to_owned());
    tell("size", exact(size));
    tell("pages of", format!("{} bytes", mmf::page_size()));
    tell("owner", owner.owner.unwrap_or_else(|why| format!("unknown: {why}")));
    tell("permissions", owner.permissions.unwrap_or_else(|| "unknown".to_owned()));
    tell("you may", access.to_owned());
    if let Some(location) = owner.location {
        tell("location", location);
    }
    if let Some(problem) = problem {
        tell("problem", problem);
    }
    if let Some(region) = &region {
        tell("contents", exact(region.len));
        tell("capacity", exact(region.capacity));
        tell("version", region.version.to_string());
        tell("poisoned", if region.poisoned { "yes: a writer left an incomplete change" } else { "no" }.to_owned());
        tell("created", utc(region.created));
        tell("participants", region.participants.len().to_string());
        let sum = |of: fn(&Participant) -> u32| region.participants.iter().map(of).sum::<u32>();
        let (waiting, watching) = (sum(|one| one.waiting), sum(|one| one.watching));
        tell("waiting", format!("{waiting} for the lock, {watching} for a change"));
    }
    if let Some(dict) = &dict {
        tell("keys", dict.entries.to_string());
        tell("capacity", exact(dict.capacity));
        tell("version", dict.version.to_string());
        tell("participants", dict.participants.to_string());
    }
    let mut text = table.text();
    if let Some(region) = region.filter(|region| !region.participants.is_empty()) {
        text.push('\n');
        text += &participants(&region);
    }
    print(&text)
}

/// The owner of an object, as far as this user may read it. Some objects have none.
struct Owner {
    /// The owner, or the reason why it is unknown.
    owner: Result<String, String>,
    permissions: Option<String>,
    location: Option<String>,
}

impl Owner {
    fn of(info: mmf::Result<ObjectInfo>) -> Owner {
        match info {
            Ok(info) => {
                let known = |text: String| Some(text).filter(|text| !text.is_empty());
                let owner = known(info.owner)
                    .ok_or_else(|| "the creator set no owner, so any user may have created it".to_owned());
                Owner { owner, permissions: known(info.permissions), location: info.location }
            }
            Err(error) => Owner { owner: Err(reason(&error)), permissions: None, location: None },
        }
    }
}

fn exact(size: u64) -> String {
    if size < 1024 { format!("{size} bytes") } else { format!("{size} bytes ({})", human(size)) }
}

/// The error's reason, without operation and object.
fn reason(error: &mmf::Error) -> String {
    match error.kind() {
        ErrorKind::NotASegment { reason } => reason.clone(),
        kind => kind.to_string(),
    }
}

fn participants(region: &RegionStatus) -> String {
    let mut table = Table::new([("PROCESS", Align::Right), ("SINCE", Align::Left), ("DOES", Align::Left)]);
    for participant in &region.participants {
        table.row([participant.process.to_string(), utc(participant.since), does(participant)]);
    }
    table.text()
}

fn does(participant: &Participant) -> String {
    let threads = |what: &str, number: u32| match number {
        0 => None,
        1 => Some(what.to_owned()),
        number => Some(format!("{what} in {number} threads")),
    };
    let all = [
        threads("writing", participant.writing.into()),
        threads("reading", participant.reading),
        threads("waiting for the lock", participant.waiting),
        threads("waiting for a change", participant.watching),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// An object as JSON.
#[derive(Serialize)]
struct About {
    object: String,
    kind: &'static str,
    size: u64,
    page_size: usize,
    /// `null` if it is unknown.
    owner: Option<String>,
    permissions: Option<String>,
    writable: bool,
    location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<AboutRegion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dict: Option<AboutDict>,
}

#[derive(Serialize)]
struct AboutDict {
    entries: u64,
    capacity: u64,
    version: u64,
    participants: u64,
}

#[derive(Serialize)]
struct AboutRegion {
    length: u64,
    capacity: u64,
    version: u64,
    poisoned: bool,
    created: String,
    participants: Vec<AboutParticipant>,
}

#[derive(Serialize)]
struct AboutParticipant {
    process: u32,
    since: String,
    writing: bool,
    reading: u32,
    waiting: u32,
    watching: u32,
}

impl From<&RegionStatus> for AboutRegion {
    fn from(status: &RegionStatus) -> Self {
        let participant = |participant: &Participant| AboutParticipant {
            process: participant.process,
            since: utc(participant.since),
            writing: participant.writing,
            reading: participant.reading,
            waiting: participant.waiting,
            watching: participant.watching,
        };
        AboutRegion {
            length: status.len,
            capacity: status.capacity,
            version: status.version,
            poisoned: status.poisoned,
            created: utc(status.created),
            participants: status.participants.iter().map(participant).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_without_an_owner_is_shown_with_what_is_known() {
        let mut info = ObjectInfo::default();
        info.location = Some("there".to_owned());
        let owner = Owner::of(Ok(info.clone()));
        assert!(owner.owner.is_err_and(|why| why.contains("any user")));
        assert_eq!((owner.permissions, owner.location), (None, Some("there".to_owned())));
        info.owner = "ann".to_owned();
        assert_eq!(Owner::of(Ok(info)).owner, Ok("ann".to_owned()));
        let error = Mapping::options().size(0).anonymous().expect_err("no size");
        assert_eq!(Owner::of(Err(error)).owner, Err("memory needs a size".to_owned()));
    }
}
