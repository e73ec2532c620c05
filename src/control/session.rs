//! One connection between two nodes, sans-IO: what to send next, and what a datagram means.
//!
//! Datagrams are counted, in order, from 0 in each direction; [`Control::Ack`], [`Control::Resend`] and
//! [`Control::Resending`] are about the counting and not counted themselves.
//!
//! **Fds in flight** are bounded: a datagram with fds is kept, with all that follow it, until the peer has
//! acknowledged it, and no more than [`FDS_IN_FLIGHT`] fds are under way. A peer that had no room for the
//! fds (`MSG_CTRUNC`) drops that datagram and everything after it, says `resend`, and takes up again at
//! `resending`: order holds, and no fd is missing. One that stays short takes datagrams *bare*, without their fds, after
//! [`RESENDS`] questions: else it would hold up the peer's every port. What to do then is for the layer above.
//!
//! **A peer that does not read** costs [`QUEUE`] datagrams or [`QUEUE_BYTES`], unless set otherwise, and beside them what it is
//! told first, up to the first `ports_done`, which goes into the queue as a whole; what comes after is forgotten,
//! and so the session has to end: but only once the peer reads again, since it may be stopped, and then is
//! neither dead nor in anybody's way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::HANDSHAKE;
use super::message::{fds_fit, may_be_more};
use crate::frame::{Control, DecodeError, EncodeError};

/// Most fds sent and not acknowledged: what a process must be able to take beyond its own.
pub(crate) const FDS_IN_FLIGHT: usize = 8;
/// Most datagrams kept for a peer that does not read: common ones are small, and make up a MB or two.
pub(crate) const QUEUE: usize = 1 << 14;
/// Most bytes kept for a peer that does not read; a datagram can have 64 KiB.
pub(crate) const QUEUE_BYTES: usize = 16 << 20;
/// Most acks, resends and resendings kept: an honest peer has no more than one of each under way.
const UNCOUNTED: usize = 16;
/// How long a peer that ran out of fds waits before it asks for them; each time twice as long.
pub(super) const RESEND_AFTER: Duration = Duration::from_millis(20);
/// How often it asks before it does without them.
pub(super) const RESENDS: u32 = 3;
/// How long it must have lost none before it asks again. So a shortage that lasts holds up a peer but once.
pub(super) const WELL_AFTER: Duration = Duration::from_secs(1);

/// The most that is kept for a peer that does not read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unread {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Default for Unread {
    fn default() -> Self {
        Self { messages: QUEUE, bytes: QUEUE_BYTES }
    }
}

/// Why a session ended before its peer did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("undecodable datagram: {0}")]
    Decode(#[from] DecodeError),
    #[error("datagram does not fit its message: {0}")]
    Encode(#[from] EncodeError),
    #[error("op {op} has no place here ({phase})")]
    Unexpected { op: u8, phase: &'static str },
    #[error("op {op} came with {fds} fds")]
    Fds { op: u8, fds: usize },
    #[error("an unknown op came with more than {most} fds")]
    Many { most: usize },
    #[error("acknowledged or asked for a datagram that was never sent")]
    Count,
    #[error("peer has left too many datagrams unread")]
    Overflow,
    #[error("no answer to the handshake within {} s", HANDSHAKE.as_secs())]
    Silent,
}

/// How far the handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Hello sent, or about to be.
    Dialling,
    /// The peer has dialled and owes its hello.
    Accepting,
    /// The peer's hello is there, and unanswered while this node's own dial may still win.
    Held,
    Up,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Dialling => "awaiting hello_ack",
            Phase::Accepting => "awaiting hello",
            Phase::Held => "nothing follows an unanswered hello",
            Phase::Up => "established",
        }
    }

    /// Whether the op may arrive now.
    fn admits(self, control: &Control<'_>) -> bool {
        match (self, control) {
            (Phase::Accepting, Control::Hello(_)) => true,
            (Phase::Accepting | Phase::Held, _) => false,
            (Phase::Dialling, Control::HelloAck(_) | Control::Incompatible { .. }) => true,
            (Phase::Dialling, _) => false,
            (Phase::Up, Control::Hello(_) | Control::HelloAck(_) | Control::Incompatible { .. }) => false,
            (Phase::Up, _) => true,
        }
    }
}

#[derive(Debug)]
struct Datagram<F> {
    bytes: Vec<u8>,
    fds: Vec<F>,
}

/// One connection. `F` is an fd to send, cheap to clone.
#[derive(Debug)]
pub(super) struct Session<F> {
    pub(super) phase: Phase,
    /// When the handshake must be over.
    handshake: Instant,
    /// Ack, resend, resending: sent before anything else, not counted.
    uncounted: VecDeque<Vec<u8>>,
    /// Not yet sent.
    queue: VecDeque<Datagram<F>>,
    /// Sent: from the oldest unacknowledged datagram with fds on. The front one's count is
    /// `sent - unacked.len()`.
    unacked: VecDeque<Datagram<F>>,
    /// Bytes of all datagrams in the two.
    kept_bytes: usize,
    /// What it may leave unread, and beside that all that it is told first.
    unread: Unread,
    /// It is not told yet that these were all ports that there are.
    introduces: bool,
    fds_in_flight: usize,
    sent: u64,
    /// The most that `sent` ever was: resending takes it back.
    reached: u64,
    received: u64,
    /// Count of the datagram that lost its fds; everything is dropped until it is resent.
    lost: Option<u64>,
    resend_at: Option<Instant>,
    /// How often it was asked for since the last time of [`WELL_AFTER`].
    resends: u32,
    lost_last: Option<Instant>,
    ack_due: bool,
    /// A datagram was forgotten; all that follow are, too.
    overflowed: bool,
}

impl<F: Clone> Session<F> {
    pub(super) fn new(phase: Phase, now: Instant, unread: Unread) -> Self {
        Self {
            phase,
            handshake: now + HANDSHAKE,
            uncounted: VecDeque::new(),
            queue: VecDeque::new(),
            unacked: VecDeque::new(),
            kept_bytes: 0,
            unread,
            introduces: true,
            fds_in_flight: 0,
            sent: 0,
            reached: 0,
            received: 0,
            lost: None,
            resend_at: None,
            resends: 0,
            lost_last: None,
            ack_due: false,
            overflowed: false,
        }
    }

    /// Queues a datagram; forgets it if the peer has left too many unread ([`Session::is_spent`]).
    ///
    /// # Errors
    /// [`SessionError::Encode`]: over 64 KiB.
    pub(super) fn push(&mut self, control: &Control<'_>, fds: &[F]) -> Result<(), SessionError> {
        let bytes = encode(control)?;
        if self.introduces {
            // All at once, however fast it reads: or a node of many ports would be met by nobody.
            self.unread.messages = self.unread.messages.saturating_add(1);
            self.unread.bytes = self.unread.bytes.saturating_add(bytes.len());
            self.introduces = *control != Control::PortsDone;
        }
        let full = self.queue.len() + self.unacked.len() >= self.unread.messages;
        self.overflowed |= full || self.kept_bytes + bytes.len() > self.unread.bytes;
        if self.overflowed {
            return Ok(());
        }
        self.kept_bytes += bytes.len();
        self.queue.push_back(Datagram { bytes, fds: fds.to_vec() });
        Ok(())
    }

    /// Whether something was forgotten, and the peer has read what was before it.
    pub(super) fn is_spent(&self) -> bool {
        self.overflowed && self.queue.is_empty()
    }

    /// The count that the next pushed datagram gets; for [`Session::has_sent`].
    pub(super) fn mark(&self) -> u64 {
        self.sent + self.queue.len() as u64
    }

    /// Whether every datagram below the mark is in the socket.
    pub(super) fn has_sent(&self, mark: u64) -> bool {
        self.reached >= mark
    }

    /// Takes a datagram, decoded for the caller where it concerns it, and whether it is bare.
    ///
    /// # Errors
    /// [`SessionError`]: the peer does not keep to the protocol, the session is over.
    pub(super) fn handle_datagram<'a>(
        &mut self,
        bytes: &'a [u8],
        fds: usize,
        lost_fds: bool,
        now: Instant,
    ) -> Result<Option<(Control<'a>, bool)>, SessionError> {
        let control = match Control::decode(bytes) {
            Ok(control) => control,
            // A newer peer's: counted, and passed over.
            Err(error) if error.is_unknown() && self.phase == Phase::Up => {
                // No datagram has more, so there was room for all that an honest one can have had.
                if lost_fds && fds >= FDS_IN_FLIGHT {
                    return Err(SessionError::Many { most: FDS_IN_FLIGHT });
                }
                if self.counts(fds, lost_fds, now).is_some() {
                    tracing::debug!(%error, "datagram ignored");
                }
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if !self.phase.admits(&control) {
            return Err(SessionError::Unexpected { op: control.op(), phase: self.phase.name() });
        }
        // What cannot be sent again, being before the handshake or not counted, must not lose any either.
        if (fds > 0 || lost_fds) && (self.phase != Phase::Up || !is_counted(&control)) {
            return Err(SessionError::Fds { op: control.op(), fds });
        }
        // Had there been no room, fewer would have come: they were too many, which must not pass for a shortage.
        if lost_fds && !may_be_more(&control, fds) {
            return Err(SessionError::Fds { op: control.op(), fds: fds + 1 });
        }
        match control {
            Control::Ack { count } => return self.acked(count).map(|()| None),
            Control::Resend { from } => return self.rewind(from).map(|()| None),
            Control::Resending { from } => {
                if self.lost == Some(from) {
                    self.lost = None;
                    self.resend_at = None;
                }
                return Ok(None);
            }
            _ => {}
        }
        // A peer that leaves does not send again what was lost: its goodbye holds at once.
        let bare = match self.counts(fds, lost_fds, now) {
            Some(bare) => bare,
            None if control == Control::Goodbye => false,
            None => return Ok(None),
        };
        if !bare && !fds_fit(&control, fds) {
            return Err(SessionError::Fds { op: control.op(), fds });
        }
        Ok(Some((control, bare)))
    }

    /// Counts a datagram; `None` if it is to be dropped, being sent again later, else whether it is bare.
    fn counts(&mut self, fds: usize, lost_fds: bool, now: Instant) -> Option<bool> {
        if self.lost.is_some() {
            return None;
        }
        let is_well = |last: Instant| now.saturating_duration_since(last) >= WELL_AFTER;
        if fds > 0 && !lost_fds && self.lost_last.is_some_and(is_well) {
            (self.resends, self.lost_last) = (0, None);
        }
        if lost_fds {
            self.lost_last = Some(now);
            if self.resends < RESENDS {
                self.lost = Some(self.received);
                self.resend_at = Some(now + RESEND_AFTER * (1 << self.resends));
                self.resends += 1;
                return None;
            }
        }
        self.received += 1;
        self.ack_due |= fds > 0 || lost_fds;
        Some(lost_fds)
    }

    fn acked(&mut self, count: u64) -> Result<(), SessionError> {
        if count > self.sent {
            return Err(SessionError::Count);
        }
        while self.sent - (self.unacked.len() as u64) < count {
            self.pop_acked();
        }
        // Datagrams without fds are only kept behind one that has some.
        while self.unacked.front().is_some_and(|front| front.fds.is_empty()) {
            self.pop_acked();
        }
        Ok(())
    }

    fn pop_acked(&mut self) {
        if let Some(datagram) = self.unacked.pop_front() {
            self.kept_bytes -= datagram.bytes.len();
            self.fds_in_flight -= datagram.fds.len();
        }
    }

    /// The peer had no room for the fds of datagram `from`: back to it.
    fn rewind(&mut self, from: u64) -> Result<(), SessionError> {
        let first = self.sent - self.unacked.len() as u64;
        let index = from.checked_sub(first).map(|index| index as usize);
        let index = index.filter(|index| self.unacked.get(*index).is_some_and(|kept| !kept.fds.is_empty()));
        for datagram in self.unacked.drain(index.ok_or(SessionError::Count)?..).rev() {
            self.fds_in_flight -= datagram.fds.len();
            self.queue.push_front(datagram);
        }
        self.sent = from;
        self.uncounted.push_back(encode(&Control::Resending { from })?);
        Ok(())
    }

    /// What to put into the socket next; call [`Session::transmitted`] once it is in.
    pub(super) fn poll_transmit(&mut self) -> Option<(&[u8], &[F])> {
        // One at a time: a peer that sends but does not read would pile them up.
        if self.uncounted.is_empty()
            && std::mem::take(&mut self.ack_due)
            && let Ok(ack) = encode(&Control::Ack { count: self.received })
        {
            self.uncounted.push_back(ack);
        }
        if let Some(bytes) = self.uncounted.front() {
            return Some((bytes, &[]));
        }
        let next = self.queue.front()?;
        let fits = next.fds.is_empty() || self.fds_in_flight + next.fds.len() <= FDS_IN_FLIGHT;
        fits.then_some((&next.bytes, &next.fds))
    }

    /// What [`Session::poll_transmit`] gave is in the socket.
    pub(super) fn transmitted(&mut self) {
        if self.uncounted.pop_front().is_some() {
            return;
        }
        let Some(datagram) = self.queue.pop_front() else { return };
        self.sent += 1;
        self.reached = self.reached.max(self.sent);
        self.fds_in_flight += datagram.fds.len();
        if !datagram.fds.is_empty() || !self.unacked.is_empty() {
            self.unacked.push_back(datagram);
        } else {
            self.kept_bytes -= datagram.bytes.len();
        }
    }

    /// When [`Session::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let handshake = (self.phase != Phase::Up).then_some(self.handshake);
        handshake.into_iter().chain(self.resend_at).min()
    }

    /// # Errors
    /// [`SessionError::Silent`]: the handshake took too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        if self.phase != Phase::Up && now >= self.handshake {
            return Err(SessionError::Silent);
        }
        if let (Some(from), Some(at)) = (self.lost, self.resend_at)
            && now >= at
        {
            self.resend_at = None;
            if self.uncounted.len() >= UNCOUNTED {
                return Err(SessionError::Overflow);
            }
            self.uncounted.push_back(encode(&Control::Resend { from })?);
        }
        Ok(())
    }
}

/// Whether the datagram is one of those that acks and resends are about.
fn is_counted(control: &Control<'_>) -> bool {
    !matches!(control, Control::Ack { .. } | Control::Resend { .. } | Control::Resending { .. })
}

pub(super) fn encode(control: &Control<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![0; control.encoded_len()];
    control.encode(&mut bytes)?;
    Ok(bytes)
}
