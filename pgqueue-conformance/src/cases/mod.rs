//! The table of all cases. A case that is written but not listed here is a warning.

mod ack;
mod batch;
mod checkpoint;
mod concurrency;
mod crash;
mod delivery;
mod errors;
mod fan_out;
mod faults;
mod listen;
mod ordering;
mod payloads;
mod publish;
mod requeue;
mod seek;
mod selector;
mod single_active;
mod start;
mod stop;

use crate::{Capability, Case};

/// Returns all cases, group by group.
#[must_use]
pub fn cases() -> &'static [Case] {
    CASES
}

/// Lists cases as `group::case if Capability + Capability`.
macro_rules! cases {
    ($($group:ident::$case:ident $(if $need:ident $(+ $needs:ident)*)?;)*) => {
        static CASES: &[Case] = &[$(
            Case {
                name: concat!(stringify!($group), "::", stringify!($case)),
                needs: &[$(Capability::$need, $(Capability::$needs),*)?],
                run: |kit| Box::pin($group::$case(kit)),
            },
        )*];
    };
}

cases! {
    delivery::published_message_is_delivered;
    delivery::message_published_while_idle_is_delivered;
    delivery::every_idle_period_ends_with_a_wakeup;
    delivery::message_published_before_subscribing_is_not_delivered;
    delivery::message_published_without_a_consumer_waits;
    delivery::unpolled_stream_takes_nothing if Concurrent;
    delivery::subscribing_again_keeps_what_is_pending;
    delivery::subscribing_again_changes_the_options if Delay;
    delivery::subscribing_differently_is_an_error;
    delivery::subscribing_in_another_order_is_an_error if Keys;
    delivery::subscribing_to_an_unknown_topic_is_an_error if ExplicitTopics;
    delivery::subscribing_with_unusable_options_is_an_error;

    publish::batch_keeps_its_order;
    publish::empty_batch_is_fine;
    publish::no_subscription_is_fine;
    publish::hundred_subscriptions_each_get_it;
    publish::refused_message_publishes_nothing;
    publish::unknown_topic_is_an_error if ExplicitTopics;
    publish::same_dedup_id_publishes_once if Dedup;
    publish::dedup_ids_belong_to_their_topic if Dedup;
    publish::dedup_id_is_forgotten_after_its_window if Dedup;
    publish::scheduled_message_comes_when_due_and_not_before if Schedule;
    publish::scheduled_message_comes_at_its_time if Schedule;

    ack::acknowledged_message_is_not_redelivered;
    ack::acknowledgement_outlives_its_consumer;
    ack::acknowledgement_leaves_other_subscriptions_alone;
    ack::deliveries_can_be_acknowledged_out_of_order;
    ack::stale_acknowledgement_is_refused_and_changes_nothing if Leases + Concurrent + Delay;
    ack::acknowledgement_after_unsubscribe_is_an_error if Unsubscribe;

    requeue::requeued_message_is_redelivered;
    requeue::dropped_delivery_is_redelivered;
    requeue::dropped_delivery_wakes_another_consumer if Concurrent;
    requeue::requeued_message_can_go_to_another_consumer if Concurrent;
    requeue::redelivery_has_the_same_payload;
    requeue::redeliveries_are_counted if Attempts;
    requeue::requeue_with_delay_waits if Delay;
    requeue::delayed_requeue_wakes_another_consumer if Delay + Concurrent;
    requeue::delayed_requeue_lets_others_pass if Delay;
    requeue::backoff_follows_the_policy if Attempts + Delay;
    requeue::attempts_exhausted_goes_to_dead_letters if Attempts + DeadLetters;
    requeue::dropping_exhausts_attempts_too if Attempts + DeadLetters;
    requeue::rejected_goes_to_dead_letters_at_once if DeadLetters;
    requeue::redriven_dead_letter_comes_again if DeadLetters;
    requeue::message_that_kills_its_consumer_is_bounded if Leases + Attempts + DeadLetters;
    requeue::poison_message_does_not_take_its_neighbours if Leases + Attempts + DeadLetters + Batch;
    requeue::attempts_of_run_mates_are_separate if Attempts;
    requeue::unyielded_message_burns_no_attempt if Attempts;

    ordering::messages_arrive_in_publishing_order if Keys;
    ordering::total_order_holds_over_all_keys if TotalOrder;
    ordering::delivery_in_flight_holds_back_its_key if Keys;
    ordering::delivery_in_flight_holds_back_its_key_from_others if Keys + Concurrent;
    ordering::total_order_has_one_delivery_in_flight if TotalOrder + Concurrent;
    ordering::held_back_message_makes_no_noise if Keys;
    ordering::other_keys_go_on if Keys;
    ordering::message_without_a_key_waits_for_none if Keys;
    ordering::requeue_holds_back_the_rest_of_its_key if Keys;
    ordering::requeued_message_comes_first_in_its_key if Keys;
    ordering::dead_letter_unblocks_its_key if Keys + DeadLetters;
    ordering::order_survives_reopening if Keys + Durable;
    ordering::order_survives_a_crash if Keys + Leases;
    ordering::order_survives_many_consumers_and_batches if Keys + Concurrent + Batch;
    ordering::total_order_survives_many_consumers if TotalOrder + Concurrent;
    ordering::late_commit_is_delivered_and_breaks_no_order if Keys + Transactional;

    fan_out::every_subscription_gets_every_message;
    fan_out::slow_subscription_does_not_delay_another;
    fan_out::subscription_names_are_taken_literally;
    fan_out::topic_names_are_taken_literally;
    fan_out::unsubscribed_name_delivers_nothing if Unsubscribe;
    fan_out::unsubscribing_ends_the_streams if Unsubscribe;

    selector::selector_keeps_out_what_does_not_match if Selectors + Headers;
    selector::selector_means_the_same_in_catch_up_and_live if Selectors + Headers + Replay + Keys + TotalOrder;
    selector::selector_that_cannot_be_used_is_refused if Selectors;
    selector::selector_is_a_part_of_the_identity if Selectors;

    start::the_beginning_is_what_the_topic_retains if Replay + TotalOrder;
    start::now_is_what_comes_later if Replay + TotalOrder;
    start::after_a_position_comes_what_is_behind_it if Replay + TotalOrder;
    start::positions_stay_with_their_messages if Replay + TotalOrder;
    start::the_start_counts_once if Replay + TotalOrder;
    start::unknown_positions_are_refused if Replay + TotalOrder;
    start::late_commits_come_after_every_position_before if Replay + TotalOrder + Transactional;
    start::stable_total_order_is_the_same_for_everyone if StableTotalOrder + Replay + Transactional;
    start::stable_total_order_goes_on_when_the_last_writer_ends if StableTotalOrder + Transactional;

    seek::moved_to_the_beginning_it_gets_all_again if Seek + Replay + TotalOrder;
    seek::moved_after_a_position_it_gets_what_is_behind if Seek + Replay + TotalOrder;
    seek::moved_to_now_it_skips_what_waits if Seek + Replay + TotalOrder;
    seek::what_was_in_hand_is_forgotten if Seek + Replay + TotalOrder + Leases;
    seek::it_stays_while_a_consumer_lives if Seek + Replay + TotalOrder;
    seek::it_stays_while_it_has_dead_letters if Seek + Replay + TotalOrder + DeadLetters;
    seek::unknown_subscription_is_an_error if Seek;
    seek::unknown_positions_move_nothing if Seek + Replay + TotalOrder;

    checkpoint::unknown_name_is_none if Checkpoints;
    checkpoint::it_moves_forward_only if Checkpoints + StableTotalOrder;
    checkpoint::it_survives_reopening if Checkpoints + StableTotalOrder + Durable;
    checkpoint::it_is_reset_from_where_it_stands if Checkpoints + StableTotalOrder;
    checkpoint::it_is_deleted_by_a_reset_to_nothing if Checkpoints + StableTotalOrder;
    checkpoint::all_are_listed_by_name if Checkpoints + StableTotalOrder;
    checkpoint::unusable_names_are_refused if Checkpoints + StableTotalOrder;
    checkpoint::of_many_at_once_the_furthest_stands if Checkpoints + StableTotalOrder;
    checkpoint::a_subscription_resumes_right_behind_it if Checkpoints + StableTotalOrder + Replay;

    single_active::one_of_three_gets_all if SingleActive + Concurrent;
    single_active::standby_takes_over_when_the_active_one_leaves if SingleActive + Concurrent;
    single_active::standby_waits_for_what_is_in_hand if SingleActive + Concurrent;
    single_active::standby_takes_over_when_the_active_one_dies if SingleActive + Concurrent + Leases;
    single_active::demoted_consumer_is_refused if SingleActive + Concurrent + Leases + Disconnectable;
    single_active::order_holds_over_a_takeover if SingleActive + Concurrent + Keys + TotalOrder + Batch;
    single_active::exclusive_subscription_has_one_consumer if SingleActive + Concurrent;
    single_active::exclusive_subscription_of_a_dead_consumer_is_reclaimed if SingleActive + Concurrent + Leases;

    crash::lost_connection_releases_its_delivery if Disconnectable + Concurrent;
    crash::acknowledging_after_a_lost_connection_is_an_error_or_done if Disconnectable + Concurrent;
    crash::lost_listener_recovers_and_looks_again if Disconnectable;
    crash::message_published_while_disconnected_arrives if Disconnectable;
    crash::pending_messages_survive_reopening if Durable;
    crash::acknowledgement_outlives_a_crash if Leases;
    crash::expired_lease_is_redelivered if Leases;
    crash::abandoned_run_comes_back_one_by_one if Leases + Attempts + TotalOrder + Batch;
    crash::heartbeat_keeps_a_long_handler_alone if Concurrent;
    crash::lost_lease_tells_the_handler if Leases;
    crash::token_of_a_lost_claim_is_never_valid_again if Leases;

    listen::message_published_between_listen_and_fetch_is_delivered;
    listen::wakeup_before_the_first_poll_is_kept;
    listen::wakeup_during_a_fetch_is_not_lost;
    listen::waiting_message_makes_no_noise;
    listen::publish_storm_ends_empty;
    listen::uncommitted_message_waits_for_its_commit if Transactional;
    listen::rolled_back_message_never_comes if Transactional;
    listen::bulk_publish_wakes_as_many_consumers_as_it_can_use if Concurrent;

    stop::stop_before_the_first_poll_yields_nothing;
    stop::stop_while_idle_ends_the_stream;
    stop::stop_beats_a_ready_delivery;
    stop::delivery_in_flight_outlives_stop;
    stop::stopping_burns_no_attempt if Attempts;
    stop::next_is_cancel_safe;
    stop::abandoned_fetch_loses_nothing;
    stop::dropped_stream_stops_listening if Listeners;

    concurrency::two_consumers_share_without_duplicates if Concurrent;
    concurrency::many_consumers_drain_everything_once if Concurrent;
    concurrency::one_message_goes_to_one_of_many if Concurrent;
    concurrency::publishing_during_acknowledgement_loses_nothing if Concurrent;
    concurrency::two_claimers_race_on_separate_connections if Concurrent;

    errors::consuming_without_subscribing_is_an_error;
    errors::error_keeps_its_source;
    errors::stream_is_over_after_a_fatal_error;
    errors::consuming_again_after_an_error_resumes;
    errors::transient_error_is_retried_by_policy;
    errors::handler_panic_requeues_and_reports;

    payloads::empty_payload;
    payloads::every_byte_value;
    payloads::unicode_text_is_unchanged;
    payloads::json_is_readable_in_the_store if ReadableStore;
    payloads::headers_come_back if Headers;
    payloads::large_payload if LargePayloads;
    payloads::malformed_json_is_a_decode_error_and_one_requeue;

    batch::batch_never_exceeds_its_limit if Batch;
    batch::partial_batch_does_not_wait if Batch;
    batch::batch_settles_as_one if Batch;
    batch::requeued_batch_comes_back_whole_and_in_order if Batch;
    batch::rejected_batch_goes_to_dead_letters if Batch + DeadLetters;
    batch::exhausted_batch_goes_to_dead_letters if Batch + Attempts + DeadLetters;

    faults::insert_error_surfaces;
    faults::insert_error_after_the_effect_loses_nothing;
    faults::hanging_insert_can_be_dropped;
    faults::hanging_insert_meets_the_time_limit if PausedClock;
    faults::listen_error_surfaces;
    faults::listen_error_after_the_effect_loses_nothing;
    faults::hanging_listen_can_be_dropped;
    faults::hanging_listen_meets_the_time_limit if PausedClock;
    faults::fetch_error_surfaces;
    faults::fetch_error_after_the_effect_loses_nothing;
    faults::hanging_fetch_can_be_stopped_and_dropped;
    faults::hanging_fetch_meets_the_time_limit;
    faults::settle_error_surfaces;
    faults::settle_error_after_the_effect_loses_nothing;
    faults::hanging_settle_can_be_dropped;
    faults::hanging_settle_meets_the_time_limit;
}
