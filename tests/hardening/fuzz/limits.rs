//! What is refused before anything is sent: names, messages, selectors, subscriptions.

use std::time::Duration;

use fastrand::Rng;
use pgqueue_core::{Backoff, Checkpoint, ErrorKind, NewMessage, Result, Selector, Subscription, Topic};

use super::{bytes, chance, inputs, selectors::selector, text};

/// A message of any kind.
pub(crate) fn message(rng: &mut Rng) -> NewMessage {
    let mut message = NewMessage::new(bytes(rng));
    if rng.bool() {
        message = message.with_key(text(rng));
    }
    if rng.bool() {
        message = message.with_kind(text(rng));
    }
    for _ in 0..[0, 0, 1, 3, 64, 65][rng.usize(..6)] {
        message = message.with_tag(text(rng));
    }
    for _ in 0..[0, 0, 1, 3, 64, 65][rng.usize(..6)] {
        let value = if rng.u8(..50) == 0 { "v".repeat(rng.usize(8190..8196)) } else { text(rng) };
        message = message.with_header(text(rng), value);
    }
    message
}

/// Durations from none to far too long.
fn duration(rng: &mut Rng) -> Duration {
    [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(6), Duration::MAX, Duration::from_millis(rng.u64(..))]
        [rng.usize(..5)]
}

fn number(rng: &mut Rng) -> f64 {
    [0.0, 1.0, 1.0, 1.0, -1.0, f64::NAN, f64::INFINITY, f64::from_bits(rng.u64(..))][rng.usize(..8)]
}

fn subscription(rng: &mut Rng) -> Subscription {
    let backoff = Backoff::fixed(duration(rng))
        .with_multiplier(number(rng))
        .with_cap(duration(rng))
        .with_jitter(number(rng))
        .with_max_attempts(rng.u32(..3));
    Subscription::new(text(rng), text(rng))
        .with_batch([0, 1, 1, 1, usize::MAX][rng.usize(..5)])
        .with_prefetch([0, 1, 1, 1, usize::MAX][rng.usize(..5)])
        .with_lease(duration(rng))
        .with_workers([0, 1, 1, 1, usize::MAX][rng.usize(..5)])
        .with_backoff(backoff)
        .with_selector(selector(rng, 3))
}

#[track_caller]
fn is_accepted(checked: Result<()>) -> bool {
    match checked {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
            assert!(error.to_string().len() < 8 * 1024, "an error quotes names, and nothing that is longer: {error}");
            false
        }
    }
}

#[test]
fn input_is_accepted_or_invalid_and_never_panics() {
    let mut rng = chance();
    let count = inputs(50);
    let mut accepted = [0; 5];
    for n in 0..count {
        accepted[n % 5] += usize::from(match n % 5 {
            0 => is_accepted(
                Topic::new(text(&mut rng)).with_buckets(rng.u16(..)).with_dedup_window(duration(&mut rng)).validate(),
            ),
            1 => is_accepted(message(&mut rng).validate()),
            2 => {
                let selector = selector(&mut rng, 6);
                let accepted = is_accepted(selector.validate());
                if accepted {
                    let json = selector.to_string();
                    assert_eq!(serde_json::from_str::<Selector>(&json).unwrap(), selector, "{json}");
                }
                accepted
            }
            3 => is_accepted(subscription(&mut rng).validate()),
            _ => is_accepted(Checkpoint::validate_name(&text(&mut rng))),
        });
    }
    println!("{count} inputs, of which {accepted:?} were accepted");
    assert!(
        accepted.iter().all(|accepted| (1..count / 5).contains(accepted)),
        "some of each, and not all: {accepted:?}"
    );
}
