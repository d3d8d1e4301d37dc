//! `mmf rm`.

use mmf::Swept;
use serde_json::json;

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
            .hint("remove it as you remove every file")),
    }
}

fn sweep(as_json: bool) -> Result<()> {
    let met = mmf::sweep()?;
    if as_json {
        print_json(&met.iter().map(to_json).collect::<Vec<_>>())?;
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

fn to_json(swept: &Swept) -> serde_json::Value {
    json!({
        "object": swept.name.to_string(),
        "size": swept.size,
        "removed": swept.kept.is_none(),
        "reason": swept.kept,
    })
}
