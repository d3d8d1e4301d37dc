//! `mmf rm`.

use mmf::Swept;
use serde::Serialize;

use crate::cli::RmArgs;
use crate::failure::{FAILED, Failure, Result, USAGE};
use crate::object::Object;
use crate::output::{print, print_json};
use crate::size::human;

pub(crate) fn run(args: RmArgs) -> Result<()> {
    match args.object {
        Some(object) => unlink(&object),
        None => sweep(args.json),
    }
}

fn unlink(object: &Object) -> Result<()> {
    match object.name() {
        Some(name) => Ok(name.unlink()?),
        None => Err(Failure::new(USAGE, format!("cannot unlink {object}: it is a file"))
            .hint("remove it with the system's own tools")),
    }
}

fn sweep(as_json: bool) -> Result<()> {
    let met = mmf::sweep()?;
    if as_json {
        print_json(&met.iter().map(Row::from).collect::<Vec<_>>())?;
    } else {
        let mut text = String::new();
        for swept in &met {
            let (object, size) = (&swept.name, human(swept.size));
            text += &match &swept.kept {
                None => format!("removed {object} ({size})\n"),
                Some(why) => format!("kept {object} ({size}): {why}\n"),
            };
        }
        print(&text)?;
    }
    match met.iter().filter(|swept| swept.kept.is_some()).count() {
        0 => Ok(()),
        kept => Err(Failure::new(FAILED, format!("{kept} of {} could not be removed", met.len()))),
    }
}

/// A dead object as JSON.
#[derive(Serialize)]
struct Row<'a> {
    object: String,
    size: u64,
    removed: bool,
    reason: Option<&'a str>,
}

impl<'a> From<&'a Swept> for Row<'a> {
    fn from(swept: &'a Swept) -> Self {
        let reason = swept.kept.as_deref();
        Row { object: swept.name.to_string(), size: swept.size, removed: reason.is_none(), reason }
    }
}
