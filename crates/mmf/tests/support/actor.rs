//! A peer process that maps what the test tells it to map, one line at a time, and answers with the
//! outcome.
//!
//! ```text
//! create|open|make SOURCE [OPTION...]   maps it, on top of what it holds: `ok LENGTH`
//! drop                                  what it mapped last
//! write OFFSET TEXT | read OFFSET LENGTH | add OFFSET NUMBER | zeros
//! where                                 the path or kernel name of what it mapped last
//! listed SOURCE | sweep SOURCE | unlink SOURCE
//! become UID                            another user, for good
//! ```
//!
//! A source is `name:x`, `global:x`, `exact:x` or `file:x`; the options are those of [`options`].

use std::sync::atomic::Ordering;

use mmf::{Access, Error, ErrorKind, Mapping, MappingOptions, Name, Permissions, Source};
use testkit::{LeakCheck, Peer, peer};

/// The role of the peer.
pub(crate) fn actor(_: &[&str]) {
    let check = LeakCheck::start();
    let mut held = Vec::new();
    while let Some(line) = peer::hear() {
        let words: Vec<&str> = line.split(' ').collect();
        peer::say(act(&mut held, &words).unwrap_or_else(|error| told(&error)));
    }
    drop(held);
    check.finish();
}

fn act(held: &mut Vec<Mapping>, words: &[&str]) -> mmf::Result<String> {
    let number = |at: usize| words[at].parse::<usize>().unwrap();
    let last = |held: &[Mapping]| held.len() - 1;
    let done = match words[0] {
        verb @ ("create" | "open" | "make") => {
            let (source, options) = (source(words[1]), options(&words[2..]));
            let map = match verb {
                "create" => options.create_new(source),
                "open" => options.open(source),
                _ => options.open_or_create(source),
            }?;
            let len = map.len();
            held.push(map);
            len.to_string()
        }
        "drop" => {
            drop(held.pop().unwrap());
            "dropped".to_owned()
        }
        "write" => {
            held[last(held)].write_at(number(1), words[2].as_bytes())?;
            "written".to_owned()
        }
        "read" => held[last(held)].read_to_vec(number(1), number(2))?.escape_ascii().to_string(),
        "add" => held[last(held)].fetch_add(number(1), number(2) as u64, Ordering::SeqCst)?.to_string(),
        "zeros" => held[last(held)].read_to_vec(0, held[last(held)].len())?.iter().all(|byte| *byte == 0).to_string(),
        "where" => held[last(held)].info()?.location.unwrap_or_default(),
        "listed" => mmf::list()?.iter().any(|object| Source::from(&object.name) == source(words[1])).to_string(),
        "sweep" => match mmf::sweep()?.into_iter().find(|swept| Source::from(&swept.name) == source(words[1])) {
            Some(swept) => format!("met {} {}", swept.size, swept.kept.as_deref().unwrap_or("removed")),
            None => "unmet".to_owned(),
        },
        "unlink" => {
            named(words[1]).unlink()?;
            "unlinked".to_owned()
        }
        #[cfg(unix)]
        "become" => {
            super::system::become_user(words[1].parse().unwrap());
            "done".to_owned()
        }
        verb => panic!("an actor cannot {verb}"),
    };
    Ok(format!("ok {done}"))
}

fn named(text: &str) -> Name {
    match text.split_once(':').unwrap() {
        ("name", text) => Name::local(text),
        ("global", text) => Name::global(text),
        ("exact", text) => Name::exact(text),
        (scope, _) => panic!("no scope {scope}"),
    }
    .unwrap()
}

fn source(text: &str) -> Source {
    match text.strip_prefix("file:") {
        Some(path) => Source::File(path.into()),
        None => named(text).into(),
    }
}

fn options(words: &[&str]) -> MappingOptions {
    let mut options = Mapping::options();
    for word in words {
        options = match word.split_once('=').unwrap_or((word, "")) {
            ("size", bytes) => options.size(bytes.parse().unwrap()),
            ("ro", _) => options.access(Access::ReadOnly),
            ("everyone", _) => options.permissions(Permissions::Everyone),
            ("mode", mode) => options.permissions(Permissions::Mode(u32::from_str_radix(mode, 8).unwrap())),
            ("foreign", _) => options.allow_other_owners(true),
            (word, _) => panic!("no option {word}"),
        };
    }
    options
}

/// Formats an error as `KIND: TEXT`, without the fields of the kind.
pub(crate) fn told(error: &Error) -> String {
    let kind = format!("{:?}", error.kind());
    format!("{}: {error}", kind.split(' ').next().unwrap()).replace('\n', " ")
}

/// An actor, seen from the test.
pub(crate) struct Actor(pub(crate) Peer);

impl Actor {
    pub(crate) fn start() -> Actor {
        Actor(Peer::spawn("actor", &[]))
    }

    /// Starts an actor, which carries out this line.
    #[track_caller]
    pub(crate) fn who(line: &str) -> Actor {
        let mut actor = Actor::start();
        actor.does(line);
        actor
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.0.send(line);
        self.0.expect_line()
    }

    /// Carries out a line that must succeed, and returns the outcome.
    #[track_caller]
    pub(crate) fn does(&mut self, line: &str) -> String {
        let reply = self.ask(line);
        reply.strip_prefix("ok ").unwrap_or_else(|| panic!("{line}: {reply}")).to_owned()
    }

    /// Carries out a line that must fail with this kind of error, and returns the error's text.
    #[track_caller]
    pub(crate) fn is_refused(&mut self, line: &str, kind: &ErrorKind) -> String {
        let reply = self.ask(line);
        let kind = format!("{kind:?}");
        let kind = kind.split(' ').next().unwrap();
        assert!(reply.starts_with(&format!("{kind}: ")), "{line}: {kind} was expected, not {reply}");
        reply
    }

    #[track_caller]
    pub(crate) fn dies(mut self) {
        self.0.kill();
        assert!(!self.0.wait().success());
    }

    /// Ends the process in order: it drops its mappings and leaves nothing open.
    #[track_caller]
    pub(crate) fn leaves(self) {
        self.0.finish();
    }
}
