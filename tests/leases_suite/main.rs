//! One suite for every store of leases, through the public API: what a user of leases relies on, whatever keeps them.
//!
//! Each test is named after what holds, in a module for each store; what it does is in a file of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crowd;
mod dropped;
mod ends;
mod exclusion;
mod failover;
mod ground;
mod hand_overs;
mod hole;
mod names;
mod peer;
mod restart;
mod stopped;
mod told;
mod urls;
mod wanted;

#[path = "../support/servers/etcd.rs"]
mod etcd_server;
#[path = "../support/gate.rs"]
mod gate;
#[path = "../support/peer.rs"]
mod process;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/servers/sql.rs"]
mod servers;
#[path = "../support/stop.rs"]
mod stop;

/// What every store does.
macro_rules! on_every_store {
    ($($store:ident: $kind:ident),+ $(,)?) => {
        $(mod $store {
            use crate::ground::Kind::$kind;

            #[test]
            fn sixteen_contenders_in_four_processes_are_never_two_inside_while_holders_are_killed() {
                crate::exclusion::test($kind);
            }

            #[test]
            fn i10_tokens_grow_over_a_thousand_hand_overs() {
                crate::hand_overs::in_one_process($kind);
            }

            #[test]
            fn i10_tokens_grow_over_a_thousand_hand_overs_between_processes() {
                crate::hand_overs::between_processes($kind);
            }

            #[test]
            fn a_holder_that_was_stopped_past_its_expiry_believes_nothing() {
                crate::stopped::test($kind);
            }

            #[test]
            fn sixty_processes_that_begin_at_once_all_get_it_once() {
                crate::crowd::test($kind);
            }

            #[test]
            fn i12_an_acquire_that_is_dropped_at_any_poll_leaves_nothing_held() {
                crate::dropped::when_it_is_free($kind);
            }

            #[test]
            fn i12_an_acquire_that_is_dropped_while_another_gives_back_leaves_nothing_held() {
                crate::dropped::when_it_is_given_back($kind);
            }

            #[test]
            fn the_reason_of_its_end_is_told_to_a_guard() {
                crate::ends::reasons($kind);
            }

            #[test]
            fn a_guard_that_outlives_the_runtime_of_its_holder_gives_it_back_when_it_is_dropped() {
                crate::ends::without_runtime($kind);
            }

            #[test]
            fn i12_an_acquire_that_is_dropped_after_its_runtime_leaves_nothing_held() {
                crate::dropped::after_its_runtime($kind);
            }

            #[test]
            fn another_expiration_is_seen_by_others_once_it_is_confirmed() {
                crate::ends::extended($kind);
            }

            #[test]
            fn a_store_that_a_url_names_goes_wherever_leases_are_wanted() {
                crate::urls::everywhere($kind);
            }

            #[test]
            fn a_store_that_is_shared_does_all_that_it_does_alone() {
                crate::urls::shared($kind);
            }

            #[test]
            fn two_labels_exclude_each_other() {
                crate::names::two_labels($kind);
            }

            #[test]
            fn two_tables_do_not_exclude_each_other() {
                crate::names::two_tables($kind);
            }
        })+
    };
}

/// What every store does whose waiters poll.
macro_rules! on_every_polled_store {
    ($($store:ident: $kind:ident),+ $(,)?) => {
        $(mod $store {
            #[test]
            fn whoever_gives_back_hears_whether_another_wanted_it_meanwhile() {
                crate::wanted::test(crate::ground::Kind::$kind);
            }
        })+
    };
}

/// What every store does that is a server.
macro_rules! on_every_server {
    ($($store:ident: $kind:ident),+ $(,)?) => {
        $(mod $store {
            use crate::ground::Kind::$kind;

            #[test]
            fn i09_a_holder_in_a_black_hole_loses_it_before_another_gets_it() {
                crate::hole::test($kind);
            }

            #[test]
            fn after_a_restart_of_the_server_only_what_is_still_ours_is_held_again() {
                crate::restart::test($kind);
            }
        })+
    };
}

on_every_store! { etcd: Etcd, lmdb: Lmdb, mariadb: Mariadb, postgres: Postgres, sqlite: Sqlite }
on_every_polled_store! { lmdb_polled: Lmdb, mariadb_polled: Mariadb, sqlite_polled: Sqlite }
on_every_server! { etcd_server_in_trouble: Etcd, mariadb_in_trouble: Mariadb, postgres_in_trouble: Postgres }
