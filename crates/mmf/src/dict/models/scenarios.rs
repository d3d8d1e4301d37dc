//! Scenarios: memory that a writer publishes, frees and uses again beside a reader.

use super::*;

fn get(key: &str) -> Read {
    Read::Get(key.to_owned())
}

fn fast(key: &str) -> Read {
    Read::Fast(key.to_owned())
}

fn both(one: &str, other: &str) -> Read {
    Read::Both(one.to_owned(), other.to_owned())
}

fn set(key: &str, number: u64) -> Operation {
    Operation::Set(key.to_owned(), number)
}

fn remove(key: &str) -> Operation {
    Operation::Remove(key.to_owned())
}

fn all(changes: &[(&str, Option<u64>)]) -> Operation {
    Operation::All(changes.iter().map(|(key, number)| ((*key).to_owned(), *number)).collect())
}

/// Returns keys of one bucket.
fn neighbours<const N: usize>() -> [String; N] {
    let keys: Vec<String> = keys_in(5, 64).take(N).collect();
    keys.try_into().unwrap()
}

/// Returns keys of separate buckets, so that there are fewer runs.
fn strangers() -> [String; 3] {
    [5, 6, 7].map(|bucket| keys_in(bucket, 64).next().unwrap())
}

#[test]
fn a_new_key() {
    let [a, b, c] = neighbours();
    Model {
        setup: vec![set(&a, 1)],
        first: vec![set(&b, 2)],
        next: vec![set(&c, 3)],
        readers: vec![vec![fast(&b)], vec![get(&b)], vec![fast(&a)], vec![get(&a)], vec![fast(&b), fast(&b)]],
    }
    .check();
}

/// The second replacement takes the block that the first one freed.
#[test]
fn a_value_is_replaced_twice() {
    let [a] = neighbours();
    Model {
        setup: vec![set(&a, 1)],
        first: vec![set(&a, 2)],
        next: vec![set(&a, 3)],
        readers: vec![vec![fast(&a)], vec![get(&a)], vec![fast(&a), fast(&a)]],
    }
    .check();
}

#[test]
fn a_value_is_replaced_twice_by_one_writer() {
    let [a] = neighbours();
    Model {
        setup: vec![set(&a, 1)],
        first: vec![set(&a, 2), set(&a, 3)],
        next: vec![Operation::Recover],
        readers: vec![vec![fast(&a)], vec![get(&a)], vec![fast(&a), fast(&a)]],
    }
    .check();
}

/// The block of a key's value becomes that of another key.
#[test]
fn a_block_becomes_another_keys() {
    let [a, c] = neighbours();
    Model {
        setup: vec![set(&a, 1)],
        first: vec![set(&a, 2)],
        next: vec![set(&c, 3)],
        readers: vec![vec![fast(&a)], vec![get(&a)], vec![fast(&c)], vec![get(&c)], vec![fast(&a), fast(&c)]],
    }
    .check();
}

/// The block and the slot of the key become those of another key.
#[test]
fn a_key_is_removed() {
    let [a, b, c] = neighbours();
    Model {
        setup: vec![set(&a, 1), set(&b, 2)],
        first: vec![remove(&a)],
        next: vec![set(&c, 3)],
        readers: vec![
            vec![fast(&a)],
            vec![get(&a)],
            vec![fast(&c)],
            vec![get(&c)],
            vec![fast(&b)],
            vec![get(&b)],
            vec![fast(&a), fast(&c)],
        ],
    }
    .check();
}

#[test]
fn two_keys_in_a_transaction() {
    let [a, b] = neighbours();
    Model {
        setup: vec![set(&a, 1), set(&b, 1)],
        first: vec![all(&[(&a, Some(2)), (&b, Some(2))])],
        next: vec![set(&a, 3)],
        readers: vec![vec![fast(&a)], vec![get(&a)], vec![fast(&b)], vec![get(&b)], vec![fast(&a), fast(&b)]],
    }
    .check();
}

#[test]
fn a_transaction_moves_a_value() {
    let [a, c] = neighbours();
    Model {
        setup: vec![set(&a, 1)],
        first: vec![all(&[(&a, None), (&c, Some(2))])],
        next: vec![set(&a, 3)],
        readers: vec![vec![fast(&c)], vec![get(&c)], vec![fast(&a)], vec![get(&a)], vec![fast(&c), fast(&a)]],
    }
    .check();
}

/// The span of the first value becomes that of the third.
#[test]
fn a_value_in_a_span_is_replaced_twice() {
    let [a] = neighbours();
    Model {
        setup: vec![set(&a, LARGE)],
        first: vec![set(&a, LARGE + 1)],
        next: vec![set(&a, LARGE + 2)],
        readers: vec![vec![fast(&a)], vec![get(&a)], vec![fast(&a), fast(&a)]],
    }
    .check();
}

/// Returns 219 operations that set the keys `own` of bucket 0 and keys of other buckets. The next
/// new entry splits bucket 0.
fn crowded(own: &[String]) -> Vec<Operation> {
    let elsewhere = (1..64).flat_map(|bucket| keys_in(bucket, 64).take(4)).take(219 - own.len());
    own.iter().cloned().chain(elsewhere).map(|key| Operation::Set(key, 1)).collect()
}

/// Returns keys of bucket 0 that stay in it when it is split, and keys that move.
fn shared() -> (impl Iterator<Item = String>, impl Iterator<Item = String>) {
    (keys_in(0, 65).filter(|key| bucket(record::hash(SEED, key.as_bytes()), 64) == 0), keys_in(64, 65))
}

/// A bucket shares its entries with a new one, whose span is new as well.
#[test]
fn a_bucket_is_split() {
    let (mut stay, mut go) = shared();
    let [stays, goes, new] = [stay.next(), go.next(), stay.next()].map(Option::unwrap);
    Model {
        setup: crowded(&[stays.clone(), goes.clone()]),
        first: vec![set(&new, 2)],
        next: vec![set(&goes, 3)],
        readers: vec![
            vec![fast(&goes)],
            vec![get(&goes)],
            vec![fast(&stays)],
            vec![get(&stays)],
            vec![fast(&goes), fast(&stays)],
        ],
    }
    .check();
}

#[test]
fn all_is_cleared() {
    let [a, b] = neighbours();
    Model {
        setup: vec![set(&a, 1), set(&b, 2)],
        first: vec![Operation::Clear],
        next: vec![set(&b, 3)],
        readers: vec![vec![fast(&a)], vec![get(&a)], vec![fast(&b)], vec![get(&b)], vec![fast(&a), fast(&b)]],
    }
    .check();
}

/// A span that had a record is used for a larger record, whose writer may die before its commit.
/// Then the first key gets its old block again.
#[test]
fn a_span_has_other_blocks_and_then_the_same() {
    let [a, b, c] = strangers();
    Model {
        setup: vec![set(&b, 1), set(&a, 2), remove(&b)],
        first: vec![remove(&a), set(&c, MEDIUM)],
        next: vec![all(&[(&b, Some(3)), (&a, Some(4))])],
        // The slow path makes the same loads in the same order, and would double the time.
        readers: vec![vec![fast(&a)]],
    }
    .check();
}

/// A single removal is visible before its version.
#[test]
fn a_removal_at_one_moment() {
    let [a] = neighbours();
    Model {
        setup: vec![set(&a, 1)],
        first: vec![remove(&a)],
        next: vec![Operation::Recover],
        readers: vec![vec![both(&a, &a)]],
    }
    .check();
}
