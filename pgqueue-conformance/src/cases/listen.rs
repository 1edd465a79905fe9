//! No wake-up is lost, whenever it comes.

use futures::future::{self, try_join, try_join_all};
use pgqueue_core::NewMessage;

use crate::{
    failure::{CaseResult, check, check_eq},
    kit::{Kit, TOPIC, numbered, texts_of},
};

pub(super) async fn message_published_between_listen_and_fetch_is_delivered(kit: &Kit) -> CaseResult {
    let driver = kit.driver(&kit.subscription()).await?;
    let mut wakeups = driver.listen().await?;
    kit.publish(["a"]).await?;
    let delivery = kit.fetch(&*driver, &mut wakeups).await?;
    check_eq!(texts_of(&delivery), ["a"], "what is fetched");
    Ok(delivery.ok().await?)
}

pub(super) async fn wakeup_before_the_first_poll_is_kept(kit: &Kit) -> CaseResult {
    let driver = kit.driver(&kit.subscription()).await?;
    let mut wakeups = driver.listen().await?;
    check!(driver.fetch_pending().await?.is_none(), "a delivery before anything was published");
    kit.publish(["a"]).await?;
    kit.wakeup(&mut wakeups).await?;
    Ok(kit.fetch(&*driver, &mut wakeups).await?.ok().await?)
}

pub(super) async fn wakeup_during_a_fetch_is_not_lost(kit: &Kit) -> CaseResult {
    let driver = kit.driver(&kit.subscription()).await?;
    let mut wakeups = driver.listen().await?;
    for text in numbered(30) {
        let (fetched, published) = future::join(driver.fetch_pending(), kit.publish([&text])).await;
        published?;
        let delivery = match fetched? {
            Some(delivery) => delivery,
            None => {
                kit.wakeup(&mut wakeups).await?;
                kit.fetch(&*driver, &mut wakeups).await?
            }
        };
        check_eq!(texts_of(&delivery), [text], "what is fetched");
        delivery.ok().await?;
    }
    Ok(())
}

/// A consumer that takes its time is not rung up again and again.
pub(super) async fn waiting_message_makes_no_noise(kit: &Kit) -> CaseResult {
    let driver = kit.driver(&kit.subscription()).await?;
    let mut wakeups = driver.listen().await?;
    kit.publish(["a"]).await?;
    kit.no_noise(&mut wakeups).await
}

pub(super) async fn publish_storm_ends_empty(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let texts = numbered(200);
    let storm = try_join_all(texts.chunks(50).map(async |texts| {
        for text in texts {
            kit.publish([text]).await?;
        }
        CaseResult::Ok(())
    }));
    let (seen, _) = try_join(kit.drain(&mut stream, texts.len()), storm).await?;
    check_eq!(seen, texts, "what arrives");
    kit.nothing(&mut stream).await
}

pub(super) async fn uncommitted_message_waits_for_its_commit(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let uncommitted = kit.harness().publish_uncommitted(TOPIC, vec![NewMessage::new("a")]).await?;
    let delivery = kit.wakes(&mut stream, async { Ok(uncommitted.commit().await?) }).await?;
    check_eq!(texts_of(&delivery), ["a"], "what is delivered");
    Ok(delivery.ok().await?)
}

pub(super) async fn rolled_back_message_never_comes(kit: &Kit) -> CaseResult {
    let mut stream = kit.consume(&kit.subscription()).await?;
    let uncommitted = kit.harness().publish_uncommitted(TOPIC, vec![NewMessage::new("never")]).await?;
    kit.publish(["before"]).await?;
    kit.handle(&mut stream, ["before"]).await?;
    uncommitted.rollback().await?;
    kit.publish(["after"]).await?;
    kit.handle(&mut stream, ["after"]).await?;
    kit.nothing(&mut stream).await
}

/// Enough for each, also if each takes some in advance.
pub(super) async fn bulk_publish_wakes_as_many_consumers_as_it_can_use(kit: &Kit) -> CaseResult {
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = kit.consume(&kit.subscription()).await?;
        kit.nothing(&mut stream).await?;
        streams.push(stream);
    }
    let texts = numbered(512);
    let each = try_join_all(streams.iter_mut().map(|stream| kit.next(stream)));
    let (deliveries, _) = try_join(each, kit.publish(&texts)).await?;
    for delivery in deliveries {
        delivery.ok().await?;
    }
    Ok(())
}
