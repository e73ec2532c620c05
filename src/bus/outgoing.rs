//! Messages on their way out: plain ones, and those with a topic of their own, headers and the like.

use std::fmt;

use super::codec::Body;
use super::error::PublishError;
use super::metadata::{Outfit, outfit_setters};
use super::outlet::{Outlet, PLAIN};
use super::publisher::Loan;
use crate::frame::{Encoding, Head};

/// A message about to be published; from [`Publisher::message`](crate::Publisher::message),
/// [`RawPublisher::message`](crate::RawPublisher::message) or [`RawPublisher::outgoing`](crate::RawPublisher::outgoing).
#[must_use = "nothing is published until `send`"]
pub struct Outgoing<'a, B> {
    outlet: &'a mut Outlet,
    body: B,
    encoding: Encoding,
    topic: Option<&'a str>,
    outfit: Outfit<'a>,
}

impl<'a, B: Body> Outgoing<'a, B> {
    pub(super) fn new(outlet: &'a mut Outlet, body: B, encoding: Encoding, timestamp: bool) -> Self {
        Self { outlet, body, encoding, topic: None, outfit: Outfit::plain(timestamp) }
    }

    /// Publishes it.
    ///
    /// # Errors
    /// [`PublishError`]; the message was then not published.
    pub fn send(self) -> Result<(), PublishError> {
        publish(self.outlet, self.topic, &self.outfit, self.encoding, &self.body)
    }
}

impl<'a, B> Outgoing<'a, B> {
    /// The topic, under the publisher's pattern.
    pub fn topic(mut self, topic: &'a str) -> Self {
        self.topic = Some(topic);
        self
    }

    outfit_setters!();
}

/// In place of a payload that is yet to be lent: see [`Outgoing::loan`].
#[derive(Debug)]
pub struct Unfilled;

impl<'a> Outgoing<'a, Unfilled> {
    pub(super) fn unfilled(outlet: &'a mut Outlet, timestamp: bool) -> Self {
        let (encoding, outfit) = (Encoding::Raw, Outfit::plain(timestamp));
        Self { outlet, body: Unfilled, encoding, topic: None, outfit }
    }

    /// Lends its payload, to be filled in place and sent: [`RawPublisher::loan`](crate::RawPublisher::loan), with what was
    /// set before. (A header or a topic made for it has to live as long as the loan.)
    ///
    /// # Errors
    /// Those of [`RawPublisher::loan`](crate::RawPublisher::loan).
    pub fn loan(self, len: usize) -> Result<Loan<'a>, PublishError> {
        lend(self.outlet, self.topic, &self.outfit, len)
    }
}

#[inline(never)]
pub(super) fn lend<'a>(
    outlet: &'a mut Outlet,
    topic: Option<&'a str>,
    outfit: &Outfit<'_>,
    len: usize,
) -> Result<Loan<'a>, PublishError> {
    let topic = outlet.topic_for(topic)?;
    let lent = outfit.with(|headers| outlet.loan(&Head::Event { topic, headers }, Encoding::Raw, len));
    Loan::of(outlet, topic, lent.map_err(refuse)??)
}

impl<B> fmt::Debug for Outgoing<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = self.topic.unwrap_or_else(|| self.outlet.filter().as_str());
        let mut message = f.debug_struct("Outgoing");
        message.field("topic", &topic).field("headers", &self.outfit.headers).finish_non_exhaustive()
    }
}

#[inline(always)]
pub(super) fn publish(
    outlet: &mut Outlet,
    topic: Option<&str>,
    outfit: &Outfit<'_>,
    encoding: Encoding,
    body: &impl Body,
) -> Result<(), PublishError> {
    if topic.is_none() && outlet.has_one_topic() && outfit.is_plain() {
        return outlet.publish(&PLAIN, encoding, body);
    }
    publish_dressed(outlet, topic, outfit, encoding, body)
}

#[inline(never)]
fn publish_dressed(
    outlet: &mut Outlet,
    topic: Option<&str>,
    outfit: &Outfit<'_>,
    encoding: Encoding,
    body: &impl Body,
) -> Result<(), PublishError> {
    let topic = outlet.topic_for(topic)?;
    let published = outfit.with(|headers| outlet.publish(&Head::Event { topic, headers }, encoding, body));
    published.map_err(refuse)?
}

pub(super) fn publish_batch<B: Body>(
    outlet: &mut Outlet,
    timestamps: bool,
    encoding: Encoding,
    bodies: impl IntoIterator<Item = B>,
) -> Result<usize, PublishError> {
    let outfit = Outfit::plain(timestamps);
    if outlet.has_one_topic() && outfit.is_plain() {
        return outlet.publish_batch(encoding, bodies);
    }
    let mut count = 0;
    for body in bodies {
        publish_dressed(outlet, None, &outfit, encoding, &body)?; // each with its own time
        count += 1;
    }
    Ok(count)
}

fn refuse(reason: String) -> PublishError {
    PublishError::Headers { reason }
}
