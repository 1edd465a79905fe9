//! Settling: exactly once, by the answer; which failure ends a run; what a requeue means for the stream.

use std::error::Error as _;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use pgqueue_core::{Ack, Acker, Delivery, ErrorKind, Job, OnRequeue, Result, Worker};
use tokio::time::{Instant, sleep};

use crate::{
    script::{ClientError, Script, fails, gate, idle, message, one, seconds, several},
    store::{Event::*, ScriptedAcker, accept},
};

#[tokio::test(start_paused = true)]
async fn a_delivery_is_settled_once_and_its_first_failure_ends_a_run_that_stops_on_requeue() {
    use ErrorKind::{Decode, Handler, Query, Requeued};
    let (ok, requeue, error) = (Some(Ack::Ok), Some(Ack::requeue()), None);
    let (settled, requeued) = (Settle(1, Ack::Ok), Settle(1, Ack::requeue()));
    let report = |kind| Report(1, kind);
    // The payload, the handler's answer, whether settling works; what happens, and the end with `OnRequeue::Stop`.
    for (payload, answer, settles, happens, stop) in [
        ("1", &ok, true, vec![Handle(1), settled.clone()], None),
        ("1", &ok, false, vec![Handle(1), settled, report(Query)], Some(Query)),
        ("1", &requeue, true, vec![Handle(1), requeued.clone()], Some(Requeued)),
        ("1", &requeue, false, vec![Handle(1), requeued.clone(), report(Query)], Some(Query)),
        ("1", &error, true, vec![Handle(1), report(Handler), requeued.clone()], Some(Handler)),
        ("1", &error, false, vec![Handle(1), report(Handler), requeued.clone(), report(Query)], Some(Handler)),
        ("?", &ok, true, vec![report(Decode), requeued.clone()], Some(Decode)),
        ("?", &ok, false, vec![report(Decode), requeued, report(Query)], Some(Decode)),
    ] {
        for (policy, end) in [(OnRequeue::Continue, None), (OnRequeue::Stop, stop)] {
            let first = async move { Ok(Some(vec![message(1, payload)])) };
            let settling = async move { if settles { Ok(()) } else { fails(Query).await } };
            let mut script = Script::default().fetch(first).settle(settling);
            let mut expected = [&[Fetch], &happens[..]].concat();
            if end.is_none() {
                script = script.fetch(one(2));
                expected.extend([Fetch, Handle(2), Settle(2, Ack::Ok), Fetch]);
            }
            expected.push(Unlisten);

            let (store, stream) = script.subscribe().await;
            let handler = async |job: Job<u32>| {
                store.log(Handle(job.value));
                if job.value == 1 { answer.clone().ok_or("no answer") } else { Ok(Ack::Ok) }
            };
            let stream = stream.on_requeue(policy).until(idle());
            let ended = Worker::new(stream, handler).on_error(store.report()).run().await;

            let case = format!("{payload} {answer:?} {settles} {policy:?}");
            assert_eq!(store.events(), expected, "{case}");
            assert_eq!(ended.err().map(|error| error.kind()), end, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_stops_lets_handlers_in_flight_finish_and_ends_with_the_first_failure() {
    for (first, ends_with) in [(Ok(Ack::requeue()), 2), (Err(ClientError(1)), 1)] {
        let (store, stream) = Script::default().fetch(one(1)).fetch(one(2)).fetch(one(3)).subscribe().await;
        let handler = async |job: Job<u32>| {
            sleep(seconds(job.value.into())).await;
            if job.value == 1 { first.clone() } else { Err(ClientError(job.value)) }
        };
        let error = Worker::new(stream.on_requeue(OnRequeue::Stop), handler).run().await.unwrap_err();
        assert_eq!(error.source().unwrap().downcast_ref(), Some(&ClientError(ends_with)));
        let requeued = |number| Settle(number, Ack::requeue());
        assert_eq!(store.events()[4..], [requeued(1), Unlisten, requeued(2), requeued(3)]);
    }
}

/// A way to end a delivery.
type End = fn(Delivery) -> BoxFuture<'static, ()>;

const REQUEUES: [End; 3] = [
    |delivery| async { delivery.requeue().await.unwrap() }.boxed(),
    |delivery| async { drop(delivery) }.boxed(),
    |delivery| async { drop(delivery.ok()) }.boxed(), // the future was never polled
];

const OTHER_ENDS: [End; 3] = [
    |delivery| async { delivery.ok().await.unwrap() }.boxed(),
    |delivery| async { delivery.settle(Ack::reject("never")).await.unwrap() }.boxed(),
    |delivery| async { drop(delivery.try_into_acker::<ScriptedAcker>().unwrap()) }.boxed(),
];

#[tokio::test(start_paused = true)]
async fn a_requeued_delivery_ends_a_stream_that_stops_on_requeue() {
    for end in REQUEUES {
        let (_store, stream) = Script::default().fetch(one(1)).subscribe().await;
        let mut stream = stream.on_requeue(OnRequeue::Stop);
        end(stream.next().await.unwrap().unwrap()).await;
        assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Requeued);
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn no_other_end_of_a_delivery_ends_its_stream() {
    let stop = OTHER_ENDS.map(|end| (end, OnRequeue::Stop));
    let go_on = REQUEUES.map(|end| (end, OnRequeue::default()));
    for (end, policy) in stop.into_iter().chain(go_on) {
        let (_store, stream) = Script::default().fetch(one(1)).fetch(one(2)).subscribe().await;
        let mut stream = stream.on_requeue(policy);
        end(stream.next().await.unwrap().unwrap()).await;
        assert_eq!(accept(&mut stream).await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_stream_hears_of_a_requeue_once_the_message_is_back() {
    let (settle, settled) = gate();
    let (_store, stream) = Script::default().fetch(one(1)).settle(settled.map(Ok)).subscribe().await;
    let mut stream = stream.on_requeue(OnRequeue::Stop);
    let requeue = tokio::spawn(stream.next().await.unwrap().unwrap().requeue());
    let waiting = tokio::spawn(async move { stream.next().await.unwrap() });
    idle().await;
    assert!(!waiting.is_finished());

    let back = Instant::now();
    drop(settle);
    requeue.await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Requeued);
    assert_eq!(Instant::now(), back);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_delivery_is_released_unsettled() {
    let (store, mut stream) = Script::default().fetch(one(1)).subscribe().await;
    drop(stream.next().await);
    assert_eq!(store.events(), [Fetch, Release(1)]);
}

struct Wrapper(Box<dyn Acker>);

#[async_trait]
impl Acker for Wrapper {
    async fn settle(self: Box<Self>, ack: Ack) -> Result<()> {
        self.0.settle(ack).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_acker_of_another_type_leaves_the_delivery_intact() {
    let (store, mut stream) = Script::default().fetch(several([1, 2])).subscribe().await;
    let delivery = stream.next().await.unwrap().unwrap();
    let Err(delivery) = delivery.try_into_acker::<Wrapper>() else { panic!("it is no `Wrapper`") };
    assert_eq!(delivery.decode::<Vec<u32>>().unwrap(), [1, 2]);
    delivery.ok().await.unwrap();
    assert_eq!(store.events(), [Fetch, Settle(1, Ack::Ok)]);
}

#[tokio::test(start_paused = true)]
async fn the_drivers_own_acker_is_given_up_unsettled() {
    let (store, mut stream) = Script::default().fetch(one(1)).subscribe().await;
    let acker = stream.next().await.unwrap().unwrap().try_into_acker::<ScriptedAcker>().unwrap();
    assert_eq!(store.events(), [Fetch]);
    acker.settle(Ack::Ok).await.unwrap();
    assert_eq!(store.events(), [Settle(1, Ack::Ok)]);
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_acker_belongs_to_the_same_delivery() {
    let (store, stream) = Script::default().fetch(one(1)).fetch(one(2)).subscribe().await;
    let mut stream = stream.on_requeue(OnRequeue::Stop);
    let wrapped = stream.next().await.unwrap().unwrap().map_acker(Wrapper);
    assert!(wrapped.try_into_acker::<Wrapper>().is_ok());
    stream.next().await.unwrap().unwrap().map_acker(Wrapper).requeue().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Requeued);
    assert_eq!(store.events(), [Fetch, Release(1), Fetch, Settle(2, Ack::requeue()), Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_nothing_is_invalid_and_released() {
    let store = Script::default().store();
    let error = Delivery::batch(vec![], store.acker(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(store.events(), [Release(1)]);
}
