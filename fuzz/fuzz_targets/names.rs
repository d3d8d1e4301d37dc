//! Any text as a name, in every scope: refused with a reason, or an object that is found under exactly that name.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mmf::{Error, ErrorKind, Mapping, Name, Scope, list};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    scope: u8,
    text: &'a str,
    /// The text so many times, to reach the longest and past it.
    times: u8,
}

fuzz_target!(|input: Input<'_>| {
    let text = input.text.repeat(usize::from(input.times % 8) + 1);
    let (scope, prefix) =
        [(Scope::Local, "name:"), (Scope::Global, "global:"), (Scope::Exact, "exact:")][usize::from(input.scope % 3)];
    let name = match Name::new(scope, &*text) {
        Ok(name) => name,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::InvalidName { reason } if !reason.is_empty()), "{error:?}");
            assert!(scope == Scope::Exact || !fits(&text), "{error}");
            return;
        }
    };
    assert_eq!((name.scope(), name.as_str()), (scope, &*text));
    assert_eq!(name.to_string(), format!("{prefix}{text}"));
    if scope == Scope::Exact {
        exact(&name);
    } else {
        assert!(fits(&text), "{name} is longer or holds more than it may");
        ours(&name);
    }
});

/// The rule of the documentation, in other words.
fn fits(text: &str) -> bool {
    (1..=Name::MAX_LEN).contains(&text.len()) && !text.contains(['/', '\\']) && !text.contains(char::is_control)
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind().clone())
}

fn ours(name: &Name) {
    assert_eq!(kind(Mapping::open(name)), Some(ErrorKind::NotFound), "{name}");
    let map = Mapping::create_new(name, 1).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(map.name(), Some(name));
    map.write_at(0, b"!").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(kind(Mapping::create_new(name, 1)), Some(ErrorKind::AlreadyExists), "{name}");
    let listed = list().unwrap_or_else(|error| panic!("{error}"));
    let found: Vec<_> = listed.iter().filter(|object| object.name == *name).collect();
    assert!(matches!(found[..], [object] if object.size == Some(map.len() as u64)), "{name}: {found:?}");
    let again = Mapping::open(&found[0].name).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.read_to_vec(0, 1).ok(), Some(b"!".to_vec()), "{name}");
    drop((map, again));
    assert_eq!(kind(Mapping::open(name)), Some(ErrorKind::NotFound), "{name} outlived its holders");
}

/// It may be anybody's, so that only what was created here is judged.
fn exact(name: &Name) {
    match Mapping::create_new(name, 1) {
        Ok(map) => {
            let again = Mapping::open(name).unwrap_or_else(|error| panic!("{error}"));
            map.write_at(0, b"!").unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(again.read_to_vec(0, 1).ok(), Some(b"!".to_vec()), "{name}");
            if cfg!(unix) {
                name.unlink().unwrap_or_else(|error| panic!("{error}"));
            }
            drop((map, again));
            assert_eq!(kind(Mapping::open(name)), Some(ErrorKind::NotFound), "{name}");
        }
        Err(error) => assert_eq!(*error.kind(), ErrorKind::AlreadyExists, "{error}"),
    }
}
