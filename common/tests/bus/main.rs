//! One suite over both buses: `memory::…` and `amqp::…` are the same tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod amqp_only;
mod queues;
mod rig;

use rig::{Kind, on_both};

on_both!(
    queues::a_message_arrives_as_it_was_sent,
    queues::what_has_no_queue_is_returned,
    queues::each_of_many_publishes_hears_its_own_fate,
    queues::a_full_agent_queue_refuses_until_there_is_room,
    queues::reports_are_bounded_in_bytes,
    queues::the_oldest_heartbeats_go_first,
    queues::messages_expire,
    queues::declaring_again_keeps_the_messages,
    queues::an_exclusive_consumer_keeps_others_out,
    queues::another_takes_over_when_the_active_consumer_goes,
    queues::what_was_not_acknowledged_comes_again_in_order,
    queues::the_prefetch_bounds_what_is_in_hand,
    queues::settling_twice_does_no_harm,
    queues::a_rejected_report_goes_to_the_refused,
    queues::a_requeued_message_comes_again,
    queues::deleting_a_queue_ends_its_consumer,
    queues::consuming_a_missing_queue_fails,
    queues::doorbells_reach_every_listener,
    queues::a_wiped_broker_has_nothing,
    queues::everything_fails_fast_without_a_broker,
    queues::a_million_bytes_pass,
);
