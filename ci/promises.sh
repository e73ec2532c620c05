#!/usr/bin/env bash
# A short form of what shows each promise of docs/reliability.md: a line a row, at the end how many are shown; fails if one
# does not hold. `ci/promises.sh 2 16` shows these rows alone. Needs what ci/test.sh builds, and some minutes. Tests that
# the output in $RAN says have passed are not run again: .ci/run has that of ci/test.sh.
set -uo pipefail
cd "$(dirname "$0")/.."

only=" $* "
log=$(mktemp)
trap 'rm -f "$log"' EXIT
row='' good=0 part_of=0 bad=0 open=0

# Begins a row; what follows, up to the next one, shows it.
promise() { # NUMBER TITLE
    account
    row=$1 title=$2 verdict='' part='' commands=0 tests=0 since=$SECONDS
    if [ "$only" != "  " ] && [[ "$only" != *" $row "* ]]; then row=''; fi
}

# The row promises more than what follows shows.
partly() {
    [ -z "$row" ] || part=1
}

# Says how the row went.
account() {
    [ -n "$row" ] || return 0
    if [ -n "$verdict" ]; then
        bad=$((bad + 1))
    elif [ "$commands" = 0 ]; then
        open=$((open + 1)) verdict=open
    elif [ -n "$part" ]; then
        part_of=$((part_of + 1)) verdict=partly
    else
        good=$((good + 1)) verdict=ok
    fi
    printf 'promise %2d: %-6s %3d s, %3d tests: %s\n' "$row" "$verdict" $((SECONDS - since)) "$tests" "$title"
    row=''
}

# Runs a command for the row; it has to end well.
show() { # COMMAND...
    [ -n "$row" ] || return 0
    commands=$((commands + 1))
    if ! "$@" >"$log" 2>&1; then
        verdict=FAILED
        echo "promise $row: failed: $*"
        cat "$log"
        return 0
    fi
    tests=$((tests + $(awk '/^test result: /{ n += $4 } END { print n + 0 }' "$log")))
}

# Whether $RAN tells of tests of this file by all these parts of their names; then counts them for the row.
ran() { # FILE PART...
    [ -n "${RAN:-}" ] || return 1
    local file=$1 part passed
    shift
    passed=$(awk -v file="$file" '/^ +(Running|Doc-tests) /{ here = $0 ~ file } here && /^test .* ok$/' "$RAN")
    for part; do
        grep -q "$part" <<<"$passed" || return 1
    done
    grep -F "$(printf '%s\n' "$@")" <<<"$passed" >"$log"
    commands=$((commands + 1)) tests=$((tests + $(wc -l <"$log")))
}

# Runs tests for the row, by parts of their names; each part has to name one, or the row would show nothing.
filtered() { # TARGET NAME... (TARGET: --lib, or a file of tests/)
    [ -n "$row" ] || return 0
    local target=(--test "$1") file="tests/$1(/main)?[.]rs" part
    [ "$1" = --lib ] && target=(--lib) file='src/lib[.]rs'
    shift
    ran "$file" "$@" || show cargo test --locked --all-features "${target[@]}" -- "$@"
    for part; do
        if ! grep -q "^test .*$part.* ok$" "$log" && [ "$verdict" != FAILED ]; then
            verdict=FAILED
            echo "promise $row: no test is named $part in ${target[*]}"
        fi
    done
}

promise 1 "killed at any instruction: nobody else is harmed, nothing acknowledged is lost"
filtered steps publish_can_be_killed recv_can_be_killed everything_else_can_be_killed processes_can_be_killed
filtered death what_was_published_before_a_kill a_publisher_goes_on_when_the_reader
filtered blobs what_was_published_arrives_though_the_writer_is_killed
filtered calls every_call_ends_once_while_servers_are_killed

promise 2 "a death is told soon, and ends the calls"
filtered kills deaths_are_told
filtered presence a_killed_node_is_told_at_once
filtered death a_killed_node_is_gone_although_a_forked_child
filtered calls a_server_killed_in_a_handler requests_in_a_killed_servers_log

promise 3 "a stopped process is not dead, holds nobody up, and comes back"
filtered stops short_stops stops_past_the_threshold a_long_stop
filtered death a_stopped_reader_is_not_taken_for_dead a_node_that_never_answers_delays_a_join
filtered presence a_stopped_node_stalls_and_recovers a_node_that_was_itself_stopped
filtered calls a_stopped_server_is_no_dead_one

promise 4 "a slow subscriber costs its publishers' policy, and others nothing"
filtered floods a_flood_to_a_stopped_subscriber
filtered policies block_waits_for_its_timeout block_goes_on fail_returns_full drop_newest
filtered blobs a_stalled_reader_is_waited_for_or_not
filtered calls a_client_that_does_not_read_holds_nobody_up

promise 5 "Evict cuts the slow reader off, and tells it what it missed"
filtered --lib ring::tests::succession
filtered evict every_message_is_received_or_missed one_that_does_not_read a_stopped_one a_writer_killed killed_readers \
    no_reader_keeps_more_than_two

promise 6 "lossy subscribers block nobody, and get nothing torn"
filtered --lib ring::tests::lossy an_ungated_reader
filtered lossy nothing_torn_beside a_stopped_one_delays one_that_joins_late what_a_writer_that_is_gone

promise 7 "deaths leave nothing behind"
filtered cycles killed_processes_leave_nothing_behind beside_a_stopped_one
filtered death crashes_leave_no_file_fd_or_mapping_behind
filtered opening ports_opened_and_dropped_a_thousand_times
filtered calls opening_and_closing_leaves_nothing_behind

promise 8 "a limit that is reached is a clear error, and no more"
filtered limits too_few_files too_little_address_space too_small_files may_not_be_written a_full_directory \
    a_read_only_directory too_many_fds_in_flight a_client_short_of_memory
filtered memory too_much_for no_memory_for
filtered shortage without_descriptors when_there_are
filtered cli too_few_descriptors_are_told too_little_address_space_is_told
filtered --lib file_size_limit leave_some_address_space fds_beyond_the_limit_of_open_files fds_in_flight_are_bounded \
    a_datagram_whose_fds_were_lost control::tests::hostile

promise 9 "hostile segments and bells cost their owner its session"
filtered --lib ring::tests::hostile ring::tests::refusals timerfd::tests bell::tests
filtered hostile hostile_states_of_logs hostile_states_of_cursors hostile_headers scribbles_over
filtered --lib segment::tests::a_segment_whose_pages
filtered sparse refused
filtered bells bell
filtered heartbeats gets_its_writer_cut_off gets_its_sender_cut_off

promise 10 "hostile frames and sessions cost a bounded amount"
filtered --lib frame::tests::hostile frame::tests::limits control::tests::violations control::tests::handshake
filtered hostile frames:: values:: sessions::
filtered heartbeats a_flood_of_heartbeats
filtered callers a_process_that_calls_and_says_nothing
filtered calls hostile::

promise 11 "nobody but its owner can write a segment"
filtered --lib segment::tests::a_holder_of_the_fd reopening_through_proc not_even_the_creator unsealed_and_partly_sealed
filtered access segments::

promise 12 "who somebody is, the kernel says"
filtered directory a_bus_makes_its_directory that_others_can_reach somebody_elses_directory what_is_no_directory \
    a_group_shares_a_bus
filtered access matrix:: strangers::
filtered --lib control::tests::directory bus::access

promise 13 "each peer has its quotas"
filtered quotas wants_it_all beyond_the_quota a_deaf_peer
filtered --lib callers_that_say_nothing a_flood_of_callers

promise 14 "no wake-up is lost, deadlines are met, and the wall clock may jump"
filtered wakeups no_wake_up_is_lost deadlines_are_met jumps_of_the_wall_clock
filtered waiting no_wake_up_is_lost recv_timeout_returns_none
filtered --lib store_buffers a_ring_from_another_thread

promise 15 "fork, exec, threads, drops in any order and unwinding: no deadlock, no leak"
filtered ends executes_another_program any_order when_it_is_dropped when_it_is_killed a_panic_that_unwinds
filtered fork forked_child every_use_after_a_fork
filtered calls whatever_is_dropped_first a_panic_is_internal a_waker_that_panics lent_and_leaked
filtered in_process nodes_ports_and_messages_cross_threads a_node_leaves_with_its_last

promise 16 "drain ends a node gracefully"
filtered drain is_read calls_that takes_nothing_new is_named is_waited_for does_not_drain
filtered cli an_interrupted_pub_waits serve_echo_ends

promise 17 "the lock-free code, model-checked (a part; ci/loom.sh does all)"
partly
filtered --lib store_buffers
show ci/loom.sh models::lent models::blob models::succession stale_cursor a_gated_reader a_late_gate a_parked_reader models::lossy

promise 18 "containers that share the bus's directory alone"
filtered containers share_the_directory_alone

promise 19 "soak: random kills, stops and restarts without a violation"
filtered cli a_subscriber_that_tells_something_else_is_caught
show cargo run --quiet --locked --all-features -- chaos --seconds 60 --json

account
# Then in the form in which test runners tell it: a row is a test; one that nothing shows yet counts as ignored.
echo "promises: $good shown, $part_of in part, $open not at all"
echo "test result: promises: $((good + part_of)) passed; $bad failed; $open ignored"
[ "$bad" = 0 ] && [ $((good + part_of + open)) -gt 0 ]
