//! The servers that a client may call, in turn.
//!
//! Written by the control thread, which learns who comes and goes; read by the calling threads. The control
//! thread takes the lock of the list, which is that of the calls, only for moments, and never that of a log.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::calls::{Calls, Table};
use crate::bus::error::WaitError;
use crate::bus::outlet::Outlet;
use crate::bus::peer::NodeInfo;
use crate::bus::status::Status;
use crate::control::NodeId;
use crate::frame::Frame;

/// How long a client that is closed waits for whoever writes a request, in each log.
const FAREWELL: Duration = Duration::from_millis(250);

/// One server, as a client reaches it.
pub(in crate::bus) struct Route {
    pub(in crate::bus) node: NodeInfo,
    /// The server's port.
    pub(in crate::bus) port: u64,
    /// Tells routes of one client apart, also those to a server that went and came back.
    pub(in crate::bus) number: u32,
    /// The log of requests to it, made for the first call.
    pub(in crate::bus) requests: Arc<Mutex<Option<Outlet>>>,
    /// A loan keeps that log: its end rings the client's bell, as nobody else's does who writes.
    pub(super) lent: AtomicBool,
    /// Calls that the server is still to be told of that nobody waits for them, and how many.
    cancels: Mutex<Vec<u64>>,
    cancelled: AtomicUsize,
    gone: AtomicBool,
    /// Its node stands still: others are called meanwhile.
    stalled: AtomicBool,
    refused: OnceLock<Status>,
}

impl Route {
    /// Why its node takes no requests of this client, if it is for a quota.
    pub(super) fn refusal(&self) -> Option<&Status> {
        self.refused.get()
    }

    /// Whether the server has gone: nothing sent to it will be answered.
    pub(in crate::bus) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }
}

/// The servers, behind the lock of the calls.
#[derive(Default)]
pub(super) struct List {
    routes: Vec<Arc<Route>>,
    /// Whose turn it is.
    next: usize,
    numbers: u32,
    /// Servers that may not be called, and why.
    denied: Vec<(NodeId, u64, String)>,
}

impl List {
    /// The next server in turn, or the one asked for. `None`: there is none.
    #[inline]
    fn pick(&mut self, node: Option<NodeId>) -> Option<&Arc<Route>> {
        match node {
            Some(node) => self.routes.iter().find(|route| route.node.id() == node),
            None => {
                let mut turn = if self.next < self.routes.len() { self.next } else { 0 };
                if self.routes.get(turn)?.stalled.load(Relaxed) {
                    turn = self.pass_over(turn);
                }
                self.next = turn + 1;
                self.routes.get(turn)
            }
        }
    }

    /// The next one whose node goes on; where none does, it is this one's turn all the same.
    #[cold]
    fn pass_over(&self, turn: usize) -> usize {
        let mut places = (turn..self.routes.len()).chain(0..turn);
        places.find(|at| !self.routes[*at].stalled.load(Relaxed)).unwrap_or(turn)
    }
}

/// The servers of one service, and the calls to them that are not over.
#[derive(Default)]
pub(in crate::bus) struct Routes {
    changed: Condvar,
    pub(super) calls: Calls,
}

impl Routes {
    /// A server has come, of a node that may be stalled; one that is known already is not added again.
    pub(in crate::bus) fn add(&self, node: NodeInfo, port: u64, stalled: bool) {
        let mut table = self.calls.lock();
        let list = &mut table.servers;
        if list.routes.iter().any(|route| route.node.id() == node.id() && route.port == port) {
            return;
        }
        let number = list.numbers;
        list.numbers = list.numbers.wrapping_add(1);
        list.routes.push(Arc::new(Route {
            node,
            port,
            number,
            requests: Arc::default(),
            lent: AtomicBool::new(false),
            cancels: Mutex::default(),
            cancelled: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
            stalled: AtomicBool::new(stalled),
            refused: OnceLock::new(),
        }));
        drop(table);
        self.changed.notify_all();
    }

    /// A node stands still, or goes on.
    pub(in crate::bus) fn note_pulse(&self, node: NodeId, stalled: bool) {
        let table = self.calls.lock();
        let of_node = table.servers.routes.iter().filter(|route| route.node.id() == node);
        of_node.for_each(|route| route.stalled.store(stalled, Relaxed));
    }

    /// A server has come that an access list keeps from this client.
    pub(in crate::bus) fn deny(&self, node: NodeId, port: u64, why: String) {
        let denied = &mut self.calls.lock().servers.denied;
        if !denied.iter().any(|(other, at, _)| (*other, *at) == (node, port)) {
            denied.push((node, port, why));
        }
    }

    /// Why there is nobody to call, or not the one asked for, if it is because of an access list.
    pub(super) fn why_denied(&self, to: Option<NodeId>) -> Option<String> {
        let table = self.calls.lock();
        let mut denied = table.servers.denied.iter();
        denied.find(|(node, ..)| to.is_none_or(|to| to == *node)).map(|(.., why)| why.clone())
    }

    /// A server has gone. Its calls end when its answers have been read to the end (`answers`: there is a log
    /// of them), else now.
    /// False if the client does not know the server.
    pub(in crate::bus) fn remove(&self, node: NodeId, port: u64, why: &str, answers: bool) -> bool {
        let Some(route) = self.take(node, port) else { return false };
        self.end(&route, why, answers);
        true
    }

    fn end(&self, route: &Route, why: &str, answers: bool) {
        // Before the calls are failed: a call that is registered later looks at it afterwards.
        route.gone.store(true, Relaxed);
        let status = Status::unavailable(format!("server {}: {why}", route.node));
        if answers {
            self.calls.will_end(route.number, status);
        } else {
            self.calls.fail(route.number, &status);
        }
    }

    fn take(&self, node: NodeId, port: u64) -> Option<Arc<Route>> {
        let mut table = self.calls.lock();
        table.servers.denied.retain(|(other, at, _)| (*other, *at) != (node, port));
        let routes = &mut table.servers.routes;
        let at = routes.iter().position(|route| route.is(node, port))?;
        Some(routes.remove(at))
    }

    /// A server that is still there has let go of the requests: the next call begins anew.
    pub(in crate::bus) fn reset(&self, node: &NodeInfo, port: u64, why: &str) {
        let Some(route) = self.take(node.id(), port) else { return };
        self.end(&route, why, false);
        self.add(node.clone(), port, route.stalled.load(Relaxed));
    }

    /// The same where the server's node gives this one no more: also a call that has only begun ends with it.
    pub(in crate::bus) fn refuse(&self, node: &NodeInfo, port: u64, status: Status) {
        let Some(route) = self.take(node.id(), port) else { return };
        let _ = route.refused.set(status.clone()); // a route is taken once
        route.gone.store(true, Relaxed);
        self.calls.fail(route.number, &status);
        self.add(node.clone(), port, route.stalled.load(Relaxed));
    }

    /// What the route to a server is called.
    pub(in crate::bus) fn number(&self, node: NodeId, port: u64) -> Option<u32> {
        let table = self.calls.lock();
        table.servers.routes.iter().find(|route| route.is(node, port)).map(|route| route.number)
    }

    /// The route with this number, if its server is still there.
    pub(super) fn numbered(&self, number: u32) -> Option<Arc<Route>> {
        self.calls.lock().servers.routes.iter().find(|route| route.number == number).cloned()
    }

    /// The next server in turn, or the one asked for. `None`: there is none.
    #[cfg(fuzzing)]
    pub(super) fn pick(&self, node: Option<NodeId>) -> Option<Arc<Route>> {
        self.calls.lock().servers.pick(node).cloned()
    }

    /// Registers a call to the next server in turn, or to the one asked for; which one, and the call's id. `None`:
    /// there is none.
    #[inline(always)]
    pub(super) fn begin(&self, node: Option<NodeId>, raw: bool) -> Result<Option<(Arc<Route>, u64)>, Status> {
        let mut table = self.calls.lock();
        let Some(route) = table.servers.pick(node).cloned() else { return Ok(None) };
        let id = table.begin(route.number, raw)?;
        Ok(Some((route, id)))
    }

    pub(super) fn nodes(&self) -> Vec<NodeInfo> {
        self.calls.lock().servers.routes.iter().map(|route| route.node.clone()).collect()
    }

    pub(super) fn wait(&self, service: &str, timeout: Duration) -> Result<(), WaitError> {
        let is_there = |table: &Table| !table.servers.routes.is_empty();
        let table = self.calls.wait_for(&self.changed, timeout, is_there);
        if !is_there(&table) {
            drop(table);
            if let Some(reason) = self.why_denied(None) {
                return Err(WaitError::Denied { reason });
            }
            return Err(WaitError::NoServer { service: service.to_owned(), waited: timeout });
        }
        Ok(())
    }

    /// Drops every log of requests: the client is closed.
    pub(super) fn close(&self) {
        let mut table = self.calls.lock();
        table.discard_wakers();
        let routes = std::mem::take(&mut table.servers.routes);
        drop(table);
        for route in routes {
            // Its lock is had for ever by a loan that was leaked: then so is the log, and the node, which it counts on.
            if let Some(mut requests) = route.requests.try_lock_for(FAREWELL) {
                drop(requests.take());
            }
        }
    }
}

impl Route {
    /// Tells the server that nobody waits for this call any more: now, or, if there is no room for the word or
    /// somebody keeps the log for long, with the next request.
    pub(super) fn cancel(&self, id: u64) {
        let mut cancels = self.cancels.lock();
        cancels.push(id);
        self.cancelled.store(cancels.len(), Relaxed);
        drop(cancels);
        if let Some(Some(requests)) = self.requests.try_lock_for(Duration::from_millis(10)).as_deref_mut() {
            self.put_cancels(requests);
        }
    }

    /// Says what could not be said before, as far as there is room.
    #[inline]
    pub(super) fn put_cancels(&self, requests: &mut Outlet) {
        if self.cancelled.load(Relaxed) == 0 {
            return; // or said by whoever has just added to it
        }
        let mut cancels = self.cancels.lock();
        // Up to the first for which there is no room: a look for it costs a fence and what the server's cache has.
        let unsaid = cancels.iter().position(|id| {
            let mut frame = [0; 16];
            let len = (Frame::Cancel { id: *id }).encode(&mut frame).expect("it has 11 bytes at the most");
            !requests.put(&frame[..len])
        });
        let said = unsaid.unwrap_or(cancels.len());
        cancels.drain(..said);
        self.cancelled.store(cancels.len(), Relaxed);
    }

    pub(super) fn flush_cancels(&self) {
        if let Some(Some(requests)) = self.requests.try_lock().as_deref_mut() {
            self.put_cancels(requests);
        }
    }

    fn is(&self, node: NodeId, port: u64) -> bool {
        self.node.id() == node && self.port == port
    }
}
