//! The trials that are no cases of the kit.

use libtest_mimic::Trial;
use pgqueue_postgres::Transaction;
use tokio::runtime::{Builder, Runtime};

use crate::{listening, queue, small::Small, tables};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What the kit cannot ask.
pub(crate) fn own<C: Small>(client: &str) -> Vec<Trial>
where
    C::Transaction: Transaction<C>,
{
    let trial = |name: &str, run: fn()| {
        Trial::test(format!("{client}::{name}"), move || {
            run();
            Ok(())
        })
    };
    macro_rules! trials {
        ($($module:ident::$test:ident),* $(,)?) => {
            vec![$(trial(concat!(stringify!($module), "::", stringify!($test)), || runtime().block_on($module::$test::<C>()))),*]
        };
    }
    trials![
        queue::publishing_and_answering_are_part_of_the_callers_transaction,
        queue::prepared_statements_are_refused_and_the_error_says_what_to_do,
        queue::crashed_pooler_loses_nothing,
        tables::delivery_of_a_query_is_one_transaction,
        tables::jobs_are_claimed_renewed_and_answered,
        tables::triggers_are_installed_and_wake_past_the_pooler,
        listening::messages_wake_a_listener_that_leads_past_the_pooler,
        listening::deaf_listener_is_found_out_and_that_is_said_once,
    ]
}
