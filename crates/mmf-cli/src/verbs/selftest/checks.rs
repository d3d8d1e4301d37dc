//! The checks.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use mmf::{Access, ErrorKind, LargePages, Mapping, Name, Permissions, Scope, Source};

use super::peer::{ANSWER, ANSWER_AT, HELLO, Peer, Step, within};
use super::place::Place;
use super::{Outcome, Verdict, ensure};
use crate::system;

/// How long a dead process's objects may stay: the system frees its memory first.
const DEATH: Duration = Duration::from_secs(10);

pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) run: fn(&Place) -> Verdict,
}

pub(super) const ALL: &[Check] = &[
    Check { name: "named memory of this user", run: |place| named(&place.name(Scope::Local, "named")?) },
    Check { name: "named memory of all users", run: |place| named(&place.name(Scope::Global, "named")?) },
    Check { name: "named memory in the system's spelling", run: exact },
    Check { name: "memory without a name", run: anonymous },
    Check { name: "files", run: file },
    Check { name: "a part beyond 4 GiB", run: far_part },
    Check { name: "another process sees what is written", run: two_processes },
    Check { name: "a name ends with its last holder", run: last_holder },
    Check { name: "a name ends with a holder that is killed", run: killed_holder },
    Check { name: "the list of names", run: list },
    Check { name: "permissions", run: permissions },
    Check { name: "growth", run: growth },
    Check { name: "a page that is gone is an error (trap)", run: |place| cut(place, Step::CutTrap) },
    Check { name: "a page that is gone is an error (system calls)", run: |place| cut(place, Step::CutSystemCalls) },
    Check { name: "pages loaded beforehand", run: prefault },
    Check { name: "a base address", run: base_address },
    Check { name: "large pages where there are some", run: |place| large_pages(place, LargePages::Prefer) },
    Check { name: "large pages or nothing", run: |place| large_pages(place, LargePages::Require) },
];

/// Missing rights of this user are not a failure of mmf.
fn lacking(error: mmf::Error) -> Outcome {
    match error.kind() {
        ErrorKind::PermissionDenied => Outcome::NotHere(error.to_string()),
        _ => error.into(),
    }
}

/// Whether no object of that name can be opened.
fn is_gone(name: &Name) -> Verdict<bool> {
    match Mapping::open(name) {
        Ok(_) => Ok(false),
        Err(error) if *error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn share(ours: &Mapping, theirs: &Mapping) -> Verdict<()> {
    ours.write_at(7, HELLO)?;
    ensure(theirs.read_to_vec(7, HELLO.len())? == HELLO, "both mappings have the same bytes")
}

fn named(name: &Name) -> Verdict {
    let ours = Mapping::create_new(name, 10_000).map_err(lacking)?;
    let theirs = Mapping::options().access(Access::ReadOnly).open(name)?;
    ensure(theirs.len() == ours.len(), "both mappings have the same length")?;
    share(&ours, &theirs)?;
    let second = Mapping::create_new(name, 10_000);
    ensure(second.is_err_and(|error| *error.kind() == ErrorKind::AlreadyExists), "a name is taken once")?;
    Ok(String::new())
}

fn exact(place: &Place) -> Verdict {
    let name = place.exact()?;
    let ours = Mapping::create_new(&name, 10_000).map_err(lacking)?;
    share(&ours, &Mapping::open(&name)?)?;
    drop(ours);
    match name.unlink() {
        Err(error) if !matches!(error.kind(), ErrorKind::Unsupported { .. }) => return Err(error.into()),
        _ => {}
    }
    ensure(is_gone(&name)?, "the name is gone when it should be")?;
    Ok(name.to_string())
}

fn anonymous(_place: &Place) -> Verdict {
    let ours = Mapping::anonymous(10_000)?;
    share(&ours, &Mapping::options().from_handle(ours.handle().try_clone_to_owned()?)?)?;
    Ok(String::new())
}

fn file(place: &Place) -> Verdict {
    let path = place.file("file");
    std::fs::write(&path, b"what was there before")?;
    let ours = Mapping::open(&path)?;
    ensure(ours.read_to_vec(0, 21)? == b"what was there before", "a file's bytes are seen")?;
    ours.grow(10_000)?;
    share(&ours, &Mapping::open(&path)?)?;
    ours.sync(..)?;
    ensure(std::fs::read(&path)?.get(7..7 + HELLO.len()) == Some(HELLO), "a file has the bytes of its mapping")?;
    Ok(String::new())
}

fn far_part(place: &Place) -> Verdict {
    const FAR: u64 = (4 << 30) + 12_345;
    let path = place.file("sparse");
    let file = File::create(&path)?;
    if let Err(error) = system::make_sparse(&file).and_then(|()| file.set_len(5 << 30)) {
        return Err(Outcome::NotHere(format!("no sparse file of 5 GiB in the temporary directory: {error}")));
    }
    let part = Mapping::options().part(FAR..FAR + 10_000).open(&path)?;
    part.write_at(5, HELLO)?;
    drop(part);
    let mut file = File::open(&path)?;
    file.seek(SeekFrom::Start(FAR + 5))?;
    let mut bytes = vec![0; HELLO.len()];
    file.read_exact(&mut bytes)?;
    ensure(bytes == HELLO, "a part's bytes are where it begins")?;
    Ok(String::new())
}

fn two_processes(place: &Place) -> Verdict {
    let name = place.name(Scope::Local, "shared")?;
    let map = Mapping::create_new(&name, 4096)?;
    map.write_at(0, HELLO)?;
    let mut peer = Peer::start(Step::Answer, &name.into())?;
    peer.outcome()?;
    peer.end()?;
    ensure(map.read_to_vec(ANSWER_AT, ANSWER.len())? == ANSWER, "this process sees what the other wrote")?;
    Ok(String::new())
}

fn last_holder(place: &Place) -> Verdict {
    let name = place.name(Scope::Local, "held")?;
    let mut peer = Peer::start(Step::Hold, &Source::from(&name))?;
    peer.outcome()?;
    let ours = Mapping::open(&name)?;
    peer.end()?;
    ensure(!is_gone(&name)?, "a name stays while one process holds it")?;
    drop(ours);
    ensure(is_gone(&name)?, "a name ends when no process holds it")?;
    Ok(String::new())
}

fn killed_holder(place: &Place) -> Verdict {
    let name = place.name(Scope::Local, "killed")?;
    let mut peer = Peer::start(Step::Hold, &Source::from(&name))?;
    peer.outcome()?;
    ensure(!is_gone(&name)?, "a name is there while it is held")?;
    let killed = peer.kill()?;
    ensure(within(DEATH, || is_gone(&name))?, "a name ends when its holder is killed")?;
    let took = killed.elapsed();
    ensure(!listed(&name)?, "objects of dead processes are not listed")?;
    drop(Mapping::create_new(&name, 4096)?);
    Ok(format!("{:.1} ms after its death", took.as_secs_f64() * 1e3))
}

fn listed(name: &Name) -> Verdict<bool> {
    Ok(mmf::list()?.iter().any(|object| object.name == *name))
}

fn list(place: &Place) -> Verdict {
    let name = place.name(Scope::Local, "listed")?;
    let map = Mapping::create_new(&name, 4096)?;
    ensure(listed(&name)?, "a name is listed while it is held")?;
    drop(map);
    ensure(!listed(&name)?, "a name is not listed when no process holds it")?;
    Ok(String::new())
}

fn permissions(place: &Place) -> Verdict {
    let demand = |name: &Name, users: Permissions| Mapping::options().permissions(users).open(name);
    let own = place.name(Scope::Local, "own")?;
    let map = Mapping::create_new(&own, 4096)?;
    ensure(demand(&own, Permissions::User).is_ok(), "memory is for its user only by default")?;
    let wider = demand(&own, Permissions::Everyone);
    let refused = wider.is_err_and(|error| matches!(error.kind(), ErrorKind::Mismatch { .. }));
    ensure(refused, "memory of one user is refused as memory for everyone")?;
    let about = map.info()?.permissions;
    let shared = place.name(Scope::Global, "everyone")?;
    let everyone = Mapping::options().size(4096).permissions(Permissions::Everyone).create_new(&shared);
    let everyone = everyone.map_err(lacking)?;
    ensure(demand(&shared, Permissions::Everyone).is_ok(), "memory for everyone is accepted as such")?;
    Ok(format!("{about}; everyone {}", everyone.info()?.permissions))
}

fn growth(place: &Place) -> Verdict {
    let name = place.name(Scope::Local, "growing")?;
    let ours = Mapping::options().size(4096).reserve(16 << 20).create_new(&name)?;
    let theirs = Mapping::open(&name)?;
    ours.grow(1 << 20)?;
    let end = (1 << 20) - HELLO.len();
    theirs.write_at(end, HELLO)?;
    ensure(ours.read_to_vec(end, HELLO.len())? == HELLO, "the new bytes are shared")?;
    ensure(ours.grow(32 << 20).is_err(), "nothing grows past its reserve")?;
    Ok(String::new())
}

fn cut(place: &Place, step: Step) -> Verdict {
    // In a process of its own, which a fault that is not caught would kill.
    let path = place.file("cut");
    let size = 4 * mmf::page_size() as u64;
    OpenOptions::new().write(true).create(true).truncate(true).open(&path)?.set_len(size)?;
    Peer::start(step, &Source::from(&path))?.outcome()
}

fn prefault(_place: &Place) -> Verdict {
    let map = Mapping::options().size(8 << 20).prefault(true).anonymous().map_err(lacking)?;
    ensure(map.read_to_vec(map.len() - 1, 1)? == [0], "loaded pages are zero")?;
    Ok(String::new())
}

fn base_address(_place: &Place) -> Verdict {
    let options = Mapping::options().size(1 << 20);
    // Where there is room for one such mapping.
    let address = options.anonymous()?.as_ptr().addr();
    let options = options.base_address(address);
    let map = options.anonymous()?;
    ensure(map.as_ptr().addr() == address, "a mapping is where it was asked to be")?;
    ensure(options.anonymous().is_err(), "an address that is taken is refused")?;
    Ok(format!("{address:#x}"))
}

fn large_pages(place: &Place, large_pages: LargePages) -> Verdict {
    let name = place.name(Scope::Local, "large")?;
    let options = Mapping::options().size(4 << 20).large_pages(large_pages);
    let map = options.create_new(&name).map_err(lacking)?;
    share(&map, &Mapping::open(&name)?)?;
    Ok(String::new())
}
