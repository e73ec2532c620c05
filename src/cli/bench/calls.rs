//! Calls between two processes: one at a time, and many in flight.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::{Failure, Outcome};
use super::child::Side;
use super::event::Event;
use super::figures::Histogram;
use super::line::WARM_UP;
use super::protocol::{CallTask, Measured, Order, PATIENCE, hear};
use crate::sys::clock::monotonic_ns;
use crate::{Client, Pending, Response, Wait};

const SERVICE: &str = "bench";
const METHOD: &str = "echo";
/// Calls in flight where many are, and the bytes of their arguments together.
const WINDOW: usize = 64;
const BYTES: usize = 16 << 20;

/// How many calls of this payload are in flight at a time.
pub(super) fn window(payload: usize) -> usize {
    (BYTES / payload).clamp(1, WINDOW)
}

/// Serves until the other side is through. Nothing is left that spins then.
pub(super) fn serve(side: Side<'_>) -> Outcome<Measured> {
    let node = side.join()?;
    let service = node.service(SERVICE).method(METHOD, |_, event: Event| Ok(event));
    let server = service.wait(Wait::Spin).spawn()?;
    side.ready(None)?;
    match hear()? {
        Some(Order::End) => {}
        other => return Err(format!("expected the end, not {other:?}").into()),
    }
    drop(server);
    Ok(Measured::Nothing)
}

pub(super) fn call(task: &CallTask, side: Side<'_>) -> Outcome<Measured> {
    let node = side.join()?;
    side.ready(None)?;
    let open = |_| -> Outcome<Client> {
        let client = node.client_builder(SERVICE).wait(Wait::Spin).timeout(PATIENCE).open()?;
        client.wait_for_server(PATIENCE)?;
        Ok(client)
    };
    let clients = (0..task.clients).map(open).collect::<Outcome<Vec<_>>>()?;
    let event = Event::of_payload(task.payload);
    one_at_a_time(&clients, event.clone(), task.seconds * WARM_UP)?;
    let times = one_at_a_time(&clients, event.clone(), task.seconds)?;
    let most = window(task.payload);
    in_flight(&clients, &event, most, task.seconds * WARM_UP)?;
    let per_second = in_flight(&clients, &event, most, task.seconds)?;
    Ok(Measured::Calls { round_trips: times.round_trips(), per_second })
}

/// The clients take turns.
fn one_at_a_time(clients: &[Client], mut event: Event, seconds: f64) -> Outcome<Histogram> {
    let mut times = Histogram::new();
    let mut last = monotonic_ns();
    let end = last + (seconds * 1e9) as u64;
    for client in clients.iter().cycle() {
        event.id += 1;
        let answer: Event = client.call(METHOD, &event)?;
        check(&answer, event.id)?;
        event = answer;
        let now = monotonic_ns();
        times.add(now - last);
        last = now;
        if last >= end {
            break;
        }
    }
    Ok(times)
}

type InFlight = (u64, Pending<Response<Event>>);

/// Calls a second, with so many of them in flight.
fn in_flight(clients: &[Client], event: &Event, most: usize, seconds: f64) -> Outcome<f64> {
    let mut event = event.clone();
    let mut window: VecDeque<InFlight> = VecDeque::with_capacity(most);
    let start = monotonic_ns();
    let end = start + (seconds * 1e9) as u64;
    let mut answered = 0_u64;
    let finish = |(id, pending): InFlight| check(&*pending.wait()?, id);
    for client in clients.iter().cycle() {
        if window.len() == most
            && let Some(oldest) = window.pop_front()
        {
            finish(oldest)?;
            answered += 1;
            if answered.is_multiple_of(most as u64) && monotonic_ns() >= end {
                break;
            }
        }
        event.id += 1;
        window.push_back((event.id, client.request(METHOD).start(&event)?));
    }
    answered += window.len() as u64;
    window.into_iter().try_for_each(finish)?;
    Ok(answered as f64 / Duration::from_nanos(monotonic_ns() - start).as_secs_f64())
}

fn check(answer: &Event, id: u64) -> Outcome {
    if answer.id == id { Ok(()) } else { Err(Failure::Error(format!("call {id} got answer {}", answer.id))) }
}
