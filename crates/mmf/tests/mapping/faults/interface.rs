//! The public operations of `Mapping` and `Cursor`, read from the sources, so that a new one
//! without a test fails.

const MODULES: [(&str, &str); 11] = [
    ("mod", include_str!("../../../src/mapping/mod.rs")),
    ("atomics", include_str!("../../../src/mapping/atomics.rs")),
    ("bytes", include_str!("../../../src/mapping/bytes.rs")),
    ("catalog", include_str!("../../../src/mapping/catalog.rs")),
    ("cursor", include_str!("../../../src/mapping/cursor.rs")),
    ("growth", include_str!("../../../src/mapping/growth.rs")),
    ("options", include_str!("../../../src/mapping/options.rs")),
    ("raw", include_str!("../../../src/mapping/raw.rs")),
    ("shared_word", include_str!("../../../src/mapping/shared_word.rs")),
    ("sync", include_str!("../../../src/mapping/sync.rs")),
    ("words", include_str!("../../../src/mapping/words.rs")),
];

/// Every public function of the two types, as `Type::name`, what they have of traits included.
pub(crate) fn operations() -> Vec<String> {
    let mut declared: Vec<&str> = vec!["mod"];
    let root = MODULES[0].1;
    declared.extend(
        root.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')),
    );
    let known: Vec<&str> = MODULES.iter().map(|(name, _)| *name).collect();
    assert_eq!(declared, known, "a module of the interface that is not looked at");

    let mut found: Vec<String> = MODULES.iter().flat_map(|(_, text)| functions(text)).collect();
    found.sort();
    found.dedup();
    found
}

fn functions(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // The type of the block that the line is in, whether of a trait, and how deep the block stands.
    let mut block: Option<(&str, bool, &str)> = None;
    for line in text.lines() {
        let depth = &line[..line.len() - line.trim_start().len()];
        let code = line.trim_start();
        match block {
            None if code.starts_with("impl") => block = head(code).map(|(name, of_trait)| (name, of_trait, depth)),
            Some((_, _, from)) if depth == from && (code.starts_with('}') || code.starts_with(")*}")) => block = None,
            Some((name, of_trait, _)) => {
                if let Some(function) = declared(code, of_trait) {
                    let made_by_macro = function.is_empty();
                    let names = if made_by_macro { made(text) } else { vec![function] };
                    found.extend(names.into_iter().map(|function| format!("{name}::{function}")));
                }
            }
            None => {}
        }
    }
    found
}

/// Of `impl A for B<'_> {`, the type where it is one of the two, and whether there is a trait.
fn head(code: &str) -> Option<(&str, bool)> {
    let (rest, of_trait) = match code.split_once(" for ") {
        Some((_, rest)) => (rest, true),
        None => (code.split_once(' ')?.1, false),
    };
    let name = rest.split(|c: char| !c.is_alphanumeric()).next()?;
    ["Mapping", "Cursor"].into_iter().find(|known| *known == name).map(|name| (name, of_trait))
}

/// The name of the public function that is declared here; nothing but a macro's variable gives an empty one.
fn declared(code: &str, of_trait: bool) -> Option<&str> {
    let code = match code.strip_prefix("pub ") {
        Some(code) => code,
        None if of_trait => code,
        None => return None,
    };
    let code = ["const ", "unsafe "].iter().fold(code, |code, word| code.strip_prefix(word).unwrap_or(code));
    code.strip_prefix("fn ")?.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// The names that the one macro of such functions is given, as `name: change;`.
fn made(text: &str) -> Vec<&str> {
    let (_, given) = text.split_once("\nfetches! {\n").expect("functions come from a macro that is not known");
    let given = given.split_once("\n}").expect("the macro's end").0;
    given.lines().filter_map(|line| line.trim().strip_suffix(';')?.split(':').next()).collect()
}
