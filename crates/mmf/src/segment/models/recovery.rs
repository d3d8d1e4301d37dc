//! Who clears a dead participant's slot may die as well; another then does it all again. And a new participant may move
//! into the slot meanwhile.

use super::death::{PoisonExpected, Scenario, change, last, look, mortal, recover};
use super::*;

fn bounded(preemptions: usize) -> Bounds {
    Bounds { parker: ParkerKind::Futex, timeouts: 3, preemptions }
}

/// Steps of a writer whom nobody disturbs, before which its death leaves something for others: it has the lock, and the
/// contents are whole; it is in the middle of a change. Later steps leave either of these again. A reader has counted
/// itself; it is inside.
const DEATHS: [u32; 2] = [2, 3];

/// A writer that dies before anybody else comes.
fn dead_writer(segment: &Segment, dies_at: u32, data: &Data, legacy: &PoisonExpected) {
    mortal(segment, dies_at, legacy, || change(segment, data));
    assert!(segment.lock.writer().is_err(), "it is dead");
}

#[test]
fn a_reaper_dies_beside_another() {
    reapers_meet(false);
}

/// They share the dead one's token.
#[test]
fn a_reaper_dies_while_another_clears_the_same_slot() {
    reapers_meet(true);
}

fn reapers_meet(shared: bool) {
    for first in DEATHS {
        at_each_step(1, |second| {
            check(bounded(1), move |handles| {
                if shared {
                    model::share_tokens();
                }
                let (data, legacy) = (Data::new(), Arc::new(PoisonExpected::default()));
                attach(handles, 4);
                dead_writer(&handles[0], first, &data, &legacy);
                let dies = loom::thread::spawn({
                    let segment = Arc::clone(&handles[1]);
                    let (data, legacy) = (Arc::clone(&data), Arc::clone(&legacy));
                    move || mortal(&segment, second, &legacy, || recover(&segment, &data, &legacy))
                });
                model::become_process(2, None);
                recover(&handles[2], &data, &legacy).unwrap();
                dies.join().unwrap();
                last(&handles[3], &data, &legacy);
            });
        });
    }
}

#[test]
fn another_moves_into_a_writers_slot() {
    moves_in(change);
}

#[test]
fn another_moves_into_a_readers_slot() {
    moves_in(look);
}

fn moves_in(story: Scenario) {
    for first in DEATHS {
        check(bounded(2), move |handles| {
            let (data, legacy) = (Data::new(), Arc::new(PoisonExpected::default()));
            attach(handles, 2);
            mortal(&handles[0], first, &legacy, || story(&handles[0], &data));
            let moves_in = loom::thread::spawn({
                let segment = Arc::clone(&handles[2]);
                let (data, legacy) = (Arc::clone(&data), Arc::clone(&legacy));
                move || {
                    model::become_process(2, None);
                    let me = segment.participant("model").unwrap();
                    recover(&segment, &data, &legacy).unwrap();
                    let occupied = segment.lock.readers().occupied().unwrap();
                    assert!(occupied.contains(&me.slot()), "it would read unseen");
                    me.leave(&segment);
                }
            });
            model::become_process(1, None);
            recover(&handles[1], &data, &legacy).unwrap();
            moves_in.join().unwrap();
            last(&handles[1], &data, &legacy);
        });
    }
}
