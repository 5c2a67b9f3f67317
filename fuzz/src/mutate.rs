//! Changes corpus entries by chance from a seed: what the short run on a stable compiler uses in
//! libFuzzer's place. It learns nothing; it finds what is near the corpus.

use trackless::base::Rng;

/// A changed copy of one of `corpus`.
pub fn mutant(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut data = rng.pick(corpus).cloned().unwrap_or_default();
    for _ in 0..=rng.below(5) {
        change(&mut data, corpus, rng);
    }
    data.truncate(LEN_MAX);
    data
}

fn change(data: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.below(data.len() + 1);
    let span = at..(at + 1 + rng.below(8)).min(data.len());
    match rng.below(8) {
        0 => {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        1 => {
            if let Some(byte) = data.get_mut(at) {
                *byte = rng.array::<1>()[0];
            }
        }
        2 => {
            let word = *rng.pick(&WORDS).expect("there are words");
            data.splice(at..at, word.iter().copied());
        }
        3 => {
            data.drain(span);
        }
        4 => {
            let copy = data[span].to_vec();
            let to = rng.below(data.len() + 1);
            data.splice(to..to, copy);
        }
        5 => data.truncate(at),
        6 => {
            let word = *rng.pick(&WORDS).expect("there are words");
            let end = (at + word.len()).min(data.len());
            data.splice(at..end, word.iter().copied());
        }
        _ => {
            // The head of this one and the tail of another.
            let other = rng.pick(corpus).cloned().unwrap_or_default();
            let from = rng.below(other.len() + 1);
            data.truncate(at);
            data.extend_from_slice(&other[from..]);
        }
    }
}

const LEN_MAX: usize = 8_192;
// What the formats are made of, and numbers at the edge of something.
const WORDS: [&[u8]; 24] = [
    b"d",
    b"l",
    b"e",
    b"i",
    b":",
    b"i0e",
    b"i-1e",
    b"i-0e",
    b"0:",
    b"20:",
    b"le",
    b"de",
    b"i9223372036854775807e",
    b"i9223372036854775808e",
    b"99999999999:",
    b"1:a",
    b"2:id",
    b"1:y1:q",
    b"%2f",
    b"..",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\x01",
    b"\x7f\xff\xff\xff",
];
