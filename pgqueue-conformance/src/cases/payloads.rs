//! What was published is what arrives.

use pgqueue_core::{Ack, BoxError, ErrorKind, Job, NewMessage, OnRequeue, Worker};

use crate::{
    capabilities::LARGE_PAYLOAD,
    expect::refused,
    failure::{CaseFailure, CaseResult, check, check_eq},
    kit::Kit,
};

/// Publishes a payload and checks that it arrives unchanged.
async fn round_trip(kit: &Kit, payload: Vec<u8>) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish_messages(vec![NewMessage::new(payload.clone())]).await?;
    let delivery = kit.next(&mut stream).await?;
    let seen = delivery.message().payload();
    let differs = payload.iter().zip(seen).position(|(published, seen)| published != seen);
    check!(
        *seen == payload,
        "{} bytes instead of {}, which differ first at {:?}",
        seen.len(),
        payload.len(),
        differs.unwrap_or(payload.len().min(seen.len()))
    );
    Ok(delivery.ok().await?)
}

pub(super) async fn empty_payload(kit: &Kit) -> CaseResult {
    round_trip(kit, Vec::new()).await
}

pub(super) async fn every_byte_value(kit: &Kit) -> CaseResult {
    round_trip(kit, (0..=u8::MAX).collect()).await
}

/// Composed and decomposed, beyond the basic plane, quotes, backslashes and control characters.
pub(super) async fn unicode_text_is_unchanged(kit: &Kit) -> CaseResult {
    round_trip(kit, "é e\u{301} ☃ 𝄞 👩‍🚀 \u{202e} '\"\\ \u{1} \r\n\t \u{feff}".into()).await
}

pub(super) async fn json_is_readable_in_the_store(kit: &Kit) -> CaseResult {
    kit.insert(&kit.subscription()).await?;
    let order = NewMessage::json(&("an order of José", 17))?;
    let ids = kit.publish_messages(vec![order]).await?;
    let stored = kit.harness().stored_payload(&ids[0]).await?;
    check!(stored.contains("an order of José") && stored.contains("17"), "{stored:?} in the store");
    Ok(())
}

pub(super) async fn headers_come_back(kit: &Kit) -> CaseResult {
    let published = NewMessage::new("a")
        .with_key("a key")
        .with_kind("order.paid")
        .with_tag("second")
        .with_tag("first")
        .with_header("content-type", "text/plain")
        .with_header("Content-Type", "")
        .with_header("naïve ☃", "\"quoted\", \\and\n{broken}");
    let mut stream = kit.consume(&kit.subscription()).await?;
    kit.publish_messages(vec![published.clone()]).await?;
    let delivery = kit.receive(&mut stream, "a").await?;
    let seen = delivery.message();
    check_eq!(seen.headers(), published.headers(), "the map of headers");
    check_eq!(seen.tags(), published.tags(), "the list of tags");
    check_eq!(seen.kind(), published.kind(), "the kind");
    check_eq!(seen.key(), published.key(), "the key");
    Ok(delivery.ok().await?)
}

pub(super) async fn large_payload(kit: &Kit) -> CaseResult {
    let pattern = (0..=u8::MAX).cycle().scan(0_u8, |last, byte| {
        *last = last.wrapping_mul(31).wrapping_add(byte);
        Some(*last)
    });
    round_trip(kit, pattern.take(LARGE_PAYLOAD).collect()).await
}

/// The handler never sees it, and the error outranks the requeue.
pub(super) async fn malformed_json_is_a_decode_error_and_one_requeue(kit: &Kit) -> CaseResult {
    let subscription = kit.subscription();
    let stream = kit.consume(&subscription).await?.on_requeue(OnRequeue::Stop);
    kit.publish(["{not json"]).await?;
    let worker = Worker::new(stream, async |_: Job<u32>| Ok::<_, BoxError>(Ack::Ok));
    let ended = kit.patiently(worker.run()).await.ok_or_else(|| CaseFailure::new("a worker that goes on"))?;
    refused(ended, ErrorKind::Decode, "decoding what is no JSON")?;

    let mut stream = kit.consume(&subscription).await?;
    kit.handle(&mut stream, ["{not json"]).await?;
    kit.nothing(&mut stream).await
}
