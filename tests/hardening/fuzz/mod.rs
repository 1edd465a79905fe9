//! Input at random: what is stored comes back as it was, what cannot be stored is refused by a typed error, and nothing panics, says that
//! something internal is wrong, or leaves its connection unusable.
//!
//! `PGQUEUE_FUZZ_INPUTS` sets how many inputs there are, in all tests and through both clients together; `PGQUEUE_FUZZ_SEED` replays the
//! seed that a failing test prints.

#![expect(clippy::print_stdout, reason = "a long run says how many inputs there were, and each its seed")]

mod arguments;
mod json;
mod limits;
mod messages;
mod positions;
mod selectors;

use std::env;

use fastrand::Rng;

/// How many inputs there are where nothing is said.
const INPUTS: usize = 12_000;

/// How many inputs are this share of all.
fn inputs(percent: usize) -> usize {
    let all = env::var("PGQUEUE_FUZZ_INPUTS")
        .map_or(INPUTS, |inputs| inputs.parse().expect("PGQUEUE_FUZZ_INPUTS is a number"));
    (all * percent).div_ceil(100)
}

/// Chance, which says how to have the same again.
fn chance() -> Rng {
    let seed = env::var("PGQUEUE_FUZZ_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("PGQUEUE_FUZZ_SEED is a number"));
    println!("the seed is {seed}: PGQUEUE_FUZZ_SEED={seed} replays it");
    Rng::with_seed(seed)
}

/// What looks like something else.
const FRAGMENTS: [&str; 30] = [
    "'",
    "\"",
    "\\",
    "$$",
    "--",
    "/*",
    ";",
    "%",
    "_",
    "*",
    "?",
    "{",
    "}",
    "[",
    "]",
    "(",
    ",",
    "NULL",
    "null",
    "\n",
    "\r\n",
    "\t",
    "\u{1}",
    "\u{7f}",
    "\u{202e}",
    "\u{feff}",
    "\u{ffff}",
    "\u{10ffff}",
    "drop schema pgqueue cascade",
    "\\u0000",
];

/// A text of any kind; one in fifty has a NUL, and some are about as long as texts may be.
fn text(rng: &mut Rng) -> String {
    let mut text = String::new();
    match rng.u8(..100) {
        0 => {}
        1..=2 => text.push('\0'),
        3 => text = "x".repeat(rng.usize(1020..1030)),
        4 => text = "é".repeat(rng.usize(125..130)),
        5..=40 => text = ["a", "b", "paid", "k1", "order-7"][rng.usize(..5)].to_owned(),
        _ => {}
    }
    if text.is_empty() || rng.u8(..20) == 0 {
        for _ in 0..rng.usize(..8) {
            match rng.u8(..3) {
                0 => text.push_str(FRAGMENTS[rng.usize(..FRAGMENTS.len())]),
                1 => text.push(rng.char(..)),
                _ => text.push(rng.alphanumeric()),
            }
        }
    }
    text
}

/// Bytes of any kind.
fn bytes(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..10) {
        0 => Vec::new(),
        1..=4 => json::value(rng, 4).to_string().into_bytes(),
        5 => text(rng).into_bytes(),
        6 => [b"{\"a\":".repeat(rng.usize(..200)), b"1".to_vec()].concat(),
        _ => (0..rng.usize(..300)).map(|_| rng.u8(..)).collect(),
    }
}
