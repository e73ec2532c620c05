//! Repeated values: one type for a list as it was decoded and for the slices that one is encoded from.

use super::read::Reader;
use super::write::Writer;
use super::{DecodeError, EncodeError};
use std::{fmt, iter};

/// A value that a [`List`] holds.
pub trait Element<'a>: Copy + PartialEq + fmt::Debug {
    /// What owns such a value.
    type Owned: 'a;
    /// Whether the list is a MessagePack map, the element a pair of it.
    const MAP: bool;
    /// What the list is called in an error.
    const WHAT: &'static str;
    /// The most elements a list has.
    const MAX_COUNT: usize;
    /// The most bytes that the strings of all elements may have together.
    const MAX_BYTES: usize;

    /// The value that `owned` owns.
    fn borrow(owned: &'a Self::Owned) -> Self;
    /// Bytes of this element that count towards `MAX_BYTES`.
    fn weight(&self) -> usize;
    /// Reads an element of at most this weight.
    fn read(reader: &mut Reader<'a>, weight: usize) -> Result<Self, DecodeError>;
    /// Writes the element.
    fn write(&self, writer: &mut Writer<'_>);
}

/// A bounded list of values of one type, borrowed: from a decoded frame, where it was checked once, or
/// from a slice, to be encoded. An empty one is nil on the wire.
pub struct List<'a, T, O>(Source<'a, T, O>);

enum Source<'a, T, O> {
    /// `count` elements, which `T::read` has read once without an error.
    Wire {
        bytes: &'a [u8],
        count: u32,
    },
    Borrowed(&'a [T]),
    Owned(&'a [O]),
}

// Not derived: a derive would ask that `T` and `O` be `Copy`, and only references to them are held.
impl<T, O> Clone for Source<'_, T, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, O> Copy for Source<'_, T, O> {}

impl<T, O> Clone for List<'_, T, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, O> Copy for List<'_, T, O> {}

impl<T, O> List<'_, T, O> {
    /// The empty list.
    pub const EMPTY: Self = List(Source::Wire { bytes: &[], count: 0 });
}

impl<'a, T, O> List<'a, T, O> {
    /// A list of these values.
    pub fn from_slice(values: &'a [T]) -> Self {
        List(Source::Borrowed(values))
    }

    /// A list of these values, owned.
    pub fn from_owned(values: &'a [O]) -> Self {
        List(Source::Owned(values))
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Wire { count, .. } => count as usize,
            Source::Borrowed(values) => values.len(),
            Source::Owned(values) => values.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, in order.
    pub fn iter(&self) -> Iter<'a, T, O> {
        Iter(match self.0 {
            Source::Wire { bytes, count } => Left::Wire { reader: Reader::new(bytes), count },
            Source::Borrowed(values) => Left::Borrowed(values.iter()),
            Source::Owned(values) => Left::Owned(values.iter()),
        })
    }
}

impl<'a, T: Element<'a, Owned = O>, O: 'a> List<'a, T, O> {
    /// Whether the list is within its limits, and so can be encoded.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] names the limit.
    #[inline]
    pub fn check(&self) -> Result<(), EncodeError> {
        if self.is_empty() {
            return Ok(());
        }
        if self.len() > T::MAX_COUNT {
            return Err(EncodeError::TooLong { what: T::WHAT, limit: T::MAX_COUNT });
        }
        if self.iter().fold(0usize, |sum, value| sum.saturating_add(value.weight())) > T::MAX_BYTES {
            return Err(EncodeError::TooLong { what: T::WHAT, limit: T::MAX_BYTES });
        }
        Ok(())
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if reader.nil() {
            return Ok(Self::EMPTY);
        }
        let at = reader.at();
        let count = if T::MAP { reader.map()? } else { reader.array()? };
        let limit = T::MAX_COUNT as u64;
        if u64::from(count) > limit {
            return Err(DecodeError::Limit { what: T::WHAT, limit, at });
        }
        let start = reader.at();
        let mut room = T::MAX_BYTES;
        for _ in 0..count {
            let value = T::read(reader, room).map_err(|error| match error {
                // Of the strings' limit the element only knew what the ones before it had left.
                DecodeError::Limit { what, at, .. } if what == T::WHAT => {
                    DecodeError::Limit { what, limit: T::MAX_BYTES as u64, at }
                }
                error => error,
            })?;
            room = room.saturating_sub(value.weight());
        }
        Ok(List(Source::Wire { bytes: reader.since(start), count }))
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        if self.is_empty() {
            return writer.nil();
        }
        if let Err(EncodeError::TooLong { what, limit }) = self.check() {
            writer.limit(what, usize::MAX, limit);
        }
        let count = self.len() as u32;
        if T::MAP {
            writer.map(count)
        } else {
            writer.array(count)
        }
        self.iter().for_each(|value| value.write(writer));
    }
}

/// The elements of a [`List`], in order.
pub struct Iter<'a, T, O>(Left<'a, T, O>);

enum Left<'a, T, O> {
    Wire { reader: Reader<'a>, count: u32 },
    Borrowed(std::slice::Iter<'a, T>),
    Owned(std::slice::Iter<'a, O>),
}

impl<'a, T: Element<'a, Owned = O>, O: 'a> Iterator for Iter<'a, T, O> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Left::Wire { reader, count } => {
                *count = count.checked_sub(1)?;
                // Never an error: these very bytes were read by the same function before.
                T::read(reader, T::MAX_BYTES).ok()
            }
            Left::Borrowed(values) => values.next().copied(),
            Left::Owned(values) => values.next().map(T::borrow),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Left::Wire { count, .. } => *count as usize,
            Left::Borrowed(values) => values.len(),
            Left::Owned(values) => values.len(),
        };
        (left, Some(left))
    }
}

impl<'a, T: Element<'a, Owned = O>, O: 'a> iter::ExactSizeIterator for Iter<'a, T, O> {}

impl<'a, T: Element<'a, Owned = O>, O: 'a> IntoIterator for &List<'a, T, O> {
    type Item = T;
    type IntoIter = Iter<'a, T, O>;

    fn into_iter(self) -> Iter<'a, T, O> {
        self.iter()
    }
}

impl<T, O> Default for List<'_, T, O> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<'a, T: Element<'a, Owned = O>, O: 'a> PartialEq for List<'a, T, O> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Element<'a, Owned = O> + Eq, O: 'a> Eq for List<'a, T, O> {}

impl<'a, T: Element<'a, Owned = O>, O: 'a> fmt::Debug for List<'a, T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
