//! Who clears a dead participant's slot may die as well; another then does it all again. And a new participant may move
//! into the slot meanwhile.

use super::death::{Legacy, attach, change, last, mortal, recover};
use super::*;

const BOUNDED: Bounds = Bounds { bell: Bell::Futex, timeouts: 3, preemptions: 2 };

/// Steps of a writer whom nobody disturbs, before which its death leaves something: it has the lock; it has marked its change;
/// the version is odd; the first half is written; the version is even again; the mark is gone.
const DEATHS: std::ops::RangeInclusive<u32> = 2..=7;

/// The story of a writer that dies before anybody else comes.
fn dead_writer(segment: &Segment, me: &Participant, dies_at: u32, data: &Data, legacy: &Legacy) {
    mortal(me, dies_at, legacy, || change(segment, me, data));
}

#[test]
fn a_reaper_dies_beside_another() {
    for first in DEATHS {
        at_each_step(|second| {
            check(BOUNDED, move |segment| {
                let (data, legacy) = (Data::new(), Arc::new(Legacy::default()));
                let all = attach(&segment, 4);
                dead_writer(&segment, &all[0], first, &data, &legacy);
                let dies = loom::thread::spawn({
                    let (segment, data, legacy, me) =
                        (Arc::clone(&segment), Arc::clone(&data), Arc::clone(&legacy), Arc::clone(&all[1]));
                    move || mortal(&me, second, &legacy, || recover(&segment, &me, &data, &legacy))
                });
                model::become_process(2, None);
                recover(&segment, &all[2], &data, &legacy).unwrap();
                dies.join().unwrap();
                last(&segment, &all[3], &data, &legacy);
            });
        });
    }
}

#[test]
fn another_moves_into_the_slot() {
    for first in DEATHS {
        check(BOUNDED, move |segment| {
            let (data, legacy) = (Data::new(), Arc::new(Legacy::default()));
            let all = attach(&segment, 2);
            dead_writer(&segment, &all[0], first, &data, &legacy);
            let moves_in = loom::thread::spawn({
                let (segment, data, legacy) = (Arc::clone(&segment), Arc::clone(&data), Arc::clone(&legacy));
                move || {
                    model::become_process(2, None);
                    let me = Participant::attach(&segment).unwrap();
                    recover(&segment, &me, &data, &legacy).unwrap();
                    assert_eq!(model::peek::<u64>(at::OCCUPIED) >> me.slot() & 1, 1, "it would read unseen");
                    me.leave(&segment);
                }
            });
            model::become_process(1, None);
            recover(&segment, &all[1], &data, &legacy).unwrap();
            moves_in.join().unwrap();
            last(&segment, &all[1], &data, &legacy);
        });
    }
}
