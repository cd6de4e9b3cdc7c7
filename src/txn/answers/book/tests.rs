use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::super::{AnswerClock, AnswerError, Reading};
use super::*;

#[derive(Default, Clone)]
struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

impl Pages for Memory {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, Infallible> {
        Ok(self.0.get(key).map(Vec::as_slice))
    }

    fn keys(&self, from: &[u8], below: &[u8], most: usize) -> Result<Vec<Vec<u8>>, Infallible> {
        let range = self.0.range(from.to_vec()..below.to_vec());
        Ok(range.take(most).map(|(key, _)| key.clone()).collect())
    }

    fn last(&self, from: &[u8], below: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        let mut range = self.0.range(from.to_vec()..below.to_vec());
        Ok(range.next_back().map(|(key, _)| key.clone()))
    }
}

impl PagesMut for Memory {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Infallible> {
        self.0.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Infallible> {
        self.0.remove(key);
        Ok(())
    }
}

impl Memory {
    fn entries(&self) -> usize {
        self.0.len()
    }
}

const WINDOW: Duration = Duration::from_nanos(100);

fn print(of: u8) -> Fingerprint {
    Fingerprint([of; 16])
}

fn at(ticks: u64) -> Anchor {
    let at = Reading {
        boot: [1; 16],
        monotonic: ticks,
        wall: 0,
    };
    Anchor {
        ticks: Ticks(ticks),
        at,
    }
}

fn stored(memory: &Memory, key: &[u8], of: u8, now: u64) -> String {
    let seen = look(memory, key, print(of), Ticks(now)).unwrap();
    match seen {
        Seen::Stored(answer) => String::from_utf8(answer.to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}

#[test]
fn within_the_window_the_answer_comes_back_and_after_it_nothing_does() {
    let mut memory = Memory::default();
    assert_eq!(stored(&memory, b"k", 1, 10), "Fresh");
    keep(&mut memory, b"k", (print(1), b"one"), &at(10), WINDOW, 16).unwrap();
    assert_eq!(stored(&memory, b"k", 1, 10), "one");
    assert_eq!(stored(&memory, b"k", 1, 109), "one");
    assert_eq!(stored(&memory, b"k", 2, 109), "Reused");
    assert_eq!(stored(&memory, b"k", 1, 110), "Expired");
    assert_eq!(stored(&memory, b"k", 2, 110), "Expired");
    assert_eq!(stored(&memory, b"kk", 1, 10), "Fresh");
}

#[test]
fn one_that_has_expired_is_replaced_by_the_next_of_its_key() {
    let mut memory = Memory::default();
    keep(&mut memory, b"k", (print(1), b"one"), &at(0), WINDOW, 0).unwrap();
    keep(&mut memory, b"k", (print(2), b"two"), &at(100), WINDOW, 0).unwrap();
    assert_eq!(stored(&memory, b"k", 2, 150), "two");
    assert_eq!(memory.entries(), 3, "the clock, one record, one entry");
    assert_eq!(sweep(&mut memory, &at(200), 16).unwrap(), 1);
    assert_eq!(memory.entries(), 1);
}

#[test]
fn what_cannot_be_read_is_neither_fresh_nor_expired() {
    let mut memory = Memory::default();
    keep(&mut memory, b"k", (print(1), b"one"), &at(0), WINDOW, 0).unwrap();
    for garbage in [&b""[..], b"\x01", b"\x02 of later", &[1; 60]] {
        memory.put(&record_key(b"k"), garbage).unwrap();
        for now in [1, 1_000] {
            let seen = look(&memory, b"k", print(1), Ticks(now)).unwrap();
            assert!(matches!(
                seen,
                Seen::Unreadable(AnswerError::Damaged | AnswerError::UnknownFormat(2))
            ));
        }
    }
    // Its window is over by the index: it goes as any other does.
    sweep(&mut memory, &at(100), 1).unwrap();
    assert_eq!(memory.entries(), 1);
}

#[test]
fn ten_thousand_that_expire_at_once_are_removed_a_few_at_a_time() {
    let mut memory = Memory::default();
    for number in 0..10_000_u32 {
        let key = number.to_be_bytes();
        keep(&mut memory, &key, (print(1), b"1"), &at(0), WINDOW, 16).unwrap();
    }
    assert_eq!(memory.entries(), 20_001);
    // A commit takes its share along.
    keep(&mut memory, b"k", (print(1), b"1"), &at(150), WINDOW, 16).unwrap();
    assert_eq!(memory.entries(), 20_001 - 2 * 16 + 2);
    let mut sweeps = 0;
    while anything_expired(&memory, Ticks(200)).unwrap() {
        let before = memory.entries();
        assert!(sweep(&mut memory, &at(200), 64).unwrap() <= 64);
        assert!(before - memory.entries() <= 2 * 64);
        sweeps += 1;
    }
    assert_eq!(sweeps, (10_000_usize - 16).div_ceil(64));
    assert_eq!(memory.entries(), 3, "only the last is left");
}

#[test]
fn an_entry_of_the_index_without_a_record_is_removed() {
    let mut memory = Memory::default();
    memory.put(&expiry_key(Ticks(5), b"k"), &[]).unwrap();
    memory.put(&[BY_EXPIRY, 0], &[]).unwrap();
    assert_eq!(sweep(&mut memory, &at(10), 16).unwrap(), 2);
    assert_eq!(memory.entries(), 1);
}

#[test]
fn without_its_clock_nothing_expires_early_and_nothing_stays_for_ever() {
    let mut memory = Memory::default();
    assert_eq!(persisted_clock(&memory).unwrap(), None);
    let month = super::super::nanos(MAX_WINDOW);
    let stored = 5 * month;
    keep(
        &mut memory,
        b"k",
        (print(1), b"one"),
        &at(stored),
        WINDOW,
        0,
    )
    .unwrap();
    assert_eq!(persisted_clock(&memory).unwrap(), Some(at(stored)));
    for lost in [true, false] {
        if lost {
            memory.delete(CLOCK).unwrap();
        } else {
            memory.put(CLOCK, b"?").unwrap();
        }
        let anchor = persisted_clock(&memory).unwrap();
        let reading = Reading {
            boot: [7; 16],
            monotonic: 3,
            wall: u64::MAX / 2,
        };
        let clock = AnswerClock::start(anchor, reading);
        let begins = clock.now(reading).0;
        assert!(begins <= stored && begins >= stored - month, "{begins}");
    }
}

proptest! {
    /// Against a map of what was stored when.
    #[test]
    fn it_decides_as_a_plain_map_would(
        steps in proptest::collection::vec((0..6_u8, 1..3_u8, 0..60_u64, 0..4_usize), 1..80),
    ) {
        let (mut memory, mut model, mut now) = (Memory::default(), BTreeMap::new(), 0);
        for (key, of, passed, most) in steps {
            now += passed;
            let answer = format!("{key} at {now}");
            let seen = stored(&memory, &[key], of, now);
            let expected = model.get(&key).filter(|(_, expires, _)| *expires > now);
            match expected {
                Some((by, _, answer)) if *by == of => prop_assert_eq!(&seen, answer),
                Some(_) => prop_assert_eq!(&seen, "Reused"),
                None => {
                    prop_assert!(seen == "Fresh" || seen == "Expired", "{}", seen);
                    keep(&mut memory, &[key], (print(of), answer.as_bytes()), &at(now), WINDOW, most).unwrap();
                    model.insert(key, (of, now + 100, answer));
                }
            }
            // Records and the index are as many, beside the clock.
            prop_assert_eq!(memory.keys(&[RECORDS], &[BY_EXPIRY], 99).unwrap().len(), memory.keys(&[BY_EXPIRY], AFTER, 99).unwrap().len());
        }
        sweep(&mut memory, &at(now + 100), 99).unwrap();
        prop_assert_eq!(memory.entries(), 1);
    }
}
