use super::*;

const SECOND: Duration = Duration::from_secs(1);
const WITNESS: u64 = 0;
const PUBLISHER: u64 = 1;

/// A witness, and a publisher that was started a second later.
fn court() -> (Judge, Instant) {
    let (mut judge, start) = (Judge::default(), Instant::now());
    enter(&mut judge, WITNESS, Role::Witness, start);
    enter(&mut judge, PUBLISHER, Role::Publisher, start + SECOND);
    (judge, start + SECOND)
}

fn enter(judge: &mut Judge, life: u64, role: Role, at: Instant) {
    judge.starts(life, role.name(), role, at);
    judge.is_ready(life, format!("node {life}"), at);
}

fn run(life: u64, first: u64, end: u64) -> Run {
    Run { life, stream: Stream::Raw, first, end }
}

/// What was found wrong by the time that everything is overdue.
fn found(mut judge: Judge, at: Instant) -> Vec<String> {
    judge.look(at + 2 * PATIENCE);
    assert_eq!(judge.violations, judge.first.len() as u64);
    judge.first
}

#[test]
fn all_that_a_killed_publisher_has_told_of_has_to_arrive_and_one_more_may() {
    for (arrived, what) in [
        (4, Some("messages 4 to 4 missing at the end")),
        (5, None),
        (6, None),
        (7, Some("messages 6 to 6 never published")),
    ] {
        let (mut judge, at) = court();
        judge.accepted(PUBLISHER, Stream::Raw, 5);
        judge.arrived(WITNESS, &run(PUBLISHER, 0, arrived));
        judge.ends(PUBLISHER, true, at);
        judge.is_silent(PUBLISHER, at);
        let found = found(judge, at);
        match what {
            Some(what) => assert!(found.len() == 1 && found[0].ends_with(what), "{arrived}: {found:?}"),
            None => assert!(found.is_empty(), "{arrived}: {found:?}"),
        }
    }
}

#[test]
fn whoever_subscribed_before_gets_the_first_message() {
    let (mut judge, at) = court();
    judge.arrived(WITNESS, &run(PUBLISHER, 1, 3));
    assert!(found(judge, at)[0].ends_with("messages 0 to 0 lost"));

    // Whoever comes later, or is stopped meanwhile, gets those from some first one on.
    let (mut judge, at) = court();
    enter(&mut judge, 2, Role::Subscriber { number: 1 }, at);
    judge.arrived(2, &run(PUBLISHER, 7, 9));
    judge.is_disturbed(WITNESS);
    enter(&mut judge, 3, Role::Publisher, at);
    judge.arrived(WITNESS, &run(3, 7, 9));
    assert!(found(judge, at).is_empty());
}

#[test]
fn whoever_is_undisturbed_for_long_is_attached() {
    for grace in [GRACE, GRACE - SECOND] {
        let (mut judge, at) = court();
        enter(&mut judge, 2, Role::Subscriber { number: 1 }, at);
        judge.accepted(PUBLISHER, Stream::Raw, 5);
        judge.look(at + grace);
        judge.accepted(PUBLISHER, Stream::Raw, 6);
        judge.arrived(WITNESS, &run(PUBLISHER, 0, 6));
        judge.is_silent(PUBLISHER, at + grace);
        let found = found(judge, at + grace);
        if grace == GRACE {
            assert!(
                found.len() == 1 && found[0].ends_with("messages 5 to 5 missing at the end"),
                "{found:?}"
            );
        } else {
            assert!(found.is_empty(), "{found:?}");
        }
    }
}

#[test]
fn who_is_stopped_is_not_late() {
    let (mut judge, at) = court();
    judge.accepted(PUBLISHER, Stream::Raw, 5);
    judge.is_disturbed(WITNESS);
    judge.is_silent(PUBLISHER, at);
    judge.look(at + 10 * PATIENCE);
    assert_eq!((judge.violations, judge.is_settled()), (0, false));
    judge.is_calm_from(WITNESS, at + 10 * PATIENCE);
    judge.look(at + 11 * PATIENCE - SECOND);
    assert_eq!((judge.violations, judge.is_settled()), (0, false));
    judge.look(at + 11 * PATIENCE);
    assert_eq!((judge.violations, judge.is_settled()), (1, true));
}

#[test]
fn each_death_is_told_once_and_as_what_it_was() {
    type Sights<'a> = &'a [Sight];
    let cases: [(bool, Sights<'_>, Option<&str>); 7] = [
        (true, &[Sight::Died], None),
        (false, &[Sight::Goodbye], None),
        (true, &[], Some("that publisher is gone")),
        (true, &[Sight::Goodbye], Some("Goodbye, which is not how it ended")),
        (false, &[Sight::Died], Some("Died, which is not how it ended")),
        (true, &[Sight::Unread], Some("Unread, which is not how it ended")),
        (true, &[Sight::Died, Sight::Died], Some("was told twice that publisher is gone")),
    ];
    for (killed, sights, what) in cases {
        let (mut judge, at) = court();
        let at = at + GRACE;
        judge.ends(PUBLISHER, killed, at);
        judge.is_silent(PUBLISHER, at);
        assert!(!judge.is_settled());
        for sight in sights {
            judge.sees(WITNESS, "node 1", sight, at + SECOND);
        }
        let found = found(judge, at);
        match what {
            Some(what) => assert!(found.len() == 1 && found[0].ends_with(what), "{sights:?}: {found:?}"),
            None => assert!(found.is_empty(), "{sights:?}: {found:?}"),
        }
    }
}

#[test]
fn nobody_who_lives_is_told_to_be_gone() {
    let (mut judge, at) = court();
    judge.sees(WITNESS, "node 1", &Sight::Stalled, at);
    judge.sees(WITNESS, "an unknown node", &Sight::Died, at);
    assert_eq!(judge.violations, 0);
    judge.sees(WITNESS, "node 1", &Sight::Died, at);
    judge.sees(WITNESS, "node 1", &Sight::Cut("why".into()), at);
    assert_eq!(judge.violations, 2);
}

#[test]
fn a_call_without_an_end_is_noticed() {
    let (mut judge, at) = court();
    enter(&mut judge, 2, Role::Client, at);
    let calls = |made| Calls { made, answered: 5, unavailable: 1, late: 1, ..Calls::default() };
    judge.calls(2, calls(7));
    judge.check_calls(2);
    assert_eq!(judge.violations, 0);
    judge.calls(2, calls(8));
    judge.check_calls(2);
    assert_eq!(judge.violations, 1);
}

#[test]
fn who_is_killed_or_stopped_before_its_word_is_heard_is_due_nothing() {
    let (mut judge, at) = court();
    for (life, role) in
        [(2, Role::Subscriber { number: 1 }), (3, Role::Subscriber { number: 2 }), (4, Role::Publisher)]
    {
        judge.starts(life, role.name(), role, at);
    }
    judge.ends(2, true, at);
    judge.is_disturbed(3);
    judge.ends(4, true, at);
    (2..=4).for_each(|life| judge.is_ready(life, format!("node {life}"), at));
    assert!(!judge.is_calm_for(2, Duration::ZERO, at) && !judge.is_calm_for(3, Duration::ZERO, at));
    judge.ends(PUBLISHER, true, at + GRACE);
    judge.sees(WITNESS, "node 1", &Sight::Died, at + GRACE);
    // What a publisher has told of before it was killed has to arrive all the same.
    judge.accepted(4, Stream::Raw, 1);
    judge.is_silent(4, at);
    let found = found(judge, at + GRACE);
    assert!(
        found.len() == 1 && found[0].starts_with("witness got of publisher, Raw: messages 0 to 0"),
        "{found:?}"
    );
}

#[test]
fn what_is_due_waits_while_there_is_no_processor() {
    let (mut judge, at) = court();
    let at = at + 2 * GRACE;
    judge.ends(PUBLISHER, true, at); // and nobody is told
    judge.was_away(3 * PATIENCE);
    judge.look(at + 4 * PATIENCE - SECOND);
    assert_eq!((judge.violations, judge.starved), (0, 3 * PATIENCE));
    judge.look(at + 4 * PATIENCE);
    assert!(judge.first[0].contains("was not told within"), "{:?}", judge.first);
}
