//! The blobs that a reader was given, and the one that its record in hand names.

use super::{CACHE_LINE, Reader};
use crate::ring::blob::{NAME, Name};
use crate::ring::holds::Holds;
use crate::ring::record::{HEADER, Header, Record};
use crate::ring::sync::{Arc, AtomicBool};
use crate::ring::{Corrupt, FrameCopy, Lent, Look, Next};
use crate::segment::{Memory, MemoryMut};

/// What a record that names a blob comes to.
enum Found {
    /// The frame is in hand; its length.
    Frame(u32),
    /// The blob has not arrived.
    Unknown,
    /// It arrived, and could not be mapped.
    Unreadable,
}

/// What a reader without a gate finds of a frame in a blob.
pub(in crate::ring) enum Copied {
    /// All of it.
    Frame,
    /// The blob has not arrived.
    Awaited,
    /// The blob was written again, let go of, or could not be mapped; or there is no memory for a copy.
    Lost,
}

/// The blobs of one log. Their ids may be anything; whoever adds them bounds their number.
pub(in crate::ring) struct Blobs<M> {
    /// In the order of their ids; `None` for what could not be mapped.
    known: Vec<(u64, Option<Arc<M>>)>,
    /// The highest id that has arrived: what is not known up to it was let go of.
    newest: u64,
    in_hand: Option<InHand<M>>,
    guess: Guess,
    /// The record at the reader's position names a blob that is still to come.
    pub(super) awaited: bool,
    pub(super) holds: Holds,
}

/// A guess at the blob that the next record names: the one that came after this one before. Nothing but what is asked for
/// ahead of time depends on it.
struct Guess {
    /// Of each place in the list, as far as they go, the place that was next.
    next: [u8; 64],
    /// The place of the last one, and where in it the frame stood.
    last: usize,
    at: usize,
}

impl Guess {
    #[inline(always)]
    fn note(&mut self, place: usize, at: usize) {
        let before = self.last % self.next.len();
        self.next[before] = place as u8;
        (self.last, self.at) = (place, at);
    }

    fn place(&self) -> usize {
        usize::from(self.next[self.last % self.next.len()])
    }
}

/// Where a frame lies, checked.
struct InHand<M> {
    blob: u64,
    /// Where it stood in the list; it may have moved.
    known: usize,
    /// Taken from the list, as long as it is in hand.
    memory: Arc<M>,
    at: usize,
}

impl<M: Memory> Blobs<M> {
    fn new(holds: Holds) -> Self {
        let guess = Guess { next: [0; _], last: 0, at: 0 };
        Self { known: Vec::new(), newest: 0, in_hand: None, guess, awaited: false, holds }
    }

    fn add(&mut self, blob: u64, memory: Option<M>) {
        let memory = memory.map(Arc::new);
        match self.known.binary_search_by_key(&blob, |(id, _)| *id) {
            Ok(at) => self.known[at].1 = memory,
            Err(at) => self.known.insert(at, (blob, memory)),
        }
        self.newest = self.newest.max(blob);
        self.awaited = false;
    }

    fn remove(&mut self, blob: u64) {
        self.known.retain(|(id, _)| *id != blob);
    }

    /// Takes the frame that a record at `position` stands for, named at offset `at` of the log.
    #[inline(always)]
    fn find(&mut self, log: &impl Memory, at: usize, position: u64) -> Result<Found, Corrupt> {
        let name = Name::load(log, at);
        let Ok(known) = self.known.binary_search_by_key(&name.blob, |(id, _)| *id) else {
            return Ok(Found::Unknown);
        };
        let Some(memory) = self.known[known].1.take() else { return Ok(Found::Unreadable) };
        let refuse = |what| Corrupt::Blob { position, blob: name.blob, what };
        let (at, len) = name.place(&*memory).ok_or(refuse("a frame that is not within it"))?;
        prefetch(&*memory, at);
        if !name.is_of(&*memory) {
            return Err(refuse("another generation"));
        }
        self.guess.note(known, at);
        self.in_hand = Some(InHand { blob: name.blob, known, memory, at });
        Ok(Found::Frame(len))
    }

    /// Whether the frame that a record stands for is gone for a reader without a gate, as is known without copying it.
    pub(in crate::ring) fn has_lost(&self, name: &Name) -> bool {
        match self.known.binary_search_by_key(&name.blob, |(id, _)| *id) {
            Ok(at) => self.known[at].1.as_ref().is_none_or(|memory| !name.is_of(&**memory)),
            Err(_) => name.blob <= self.newest,
        }
    }

    /// Copies the frame that a record at `position` stands for, while its writer may write the blob again; it was not
    /// lost when last looked.
    ///
    /// # Errors
    /// [`Corrupt::Blob`]: it does not lie within the blob.
    pub(in crate::ring) fn copy(
        &mut self,
        name: &Name,
        position: u64,
        frame: &mut FrameCopy,
    ) -> Result<Copied, Corrupt> {
        self.awaited = false;
        let Ok(known) = self.known.binary_search_by_key(&name.blob, |(id, _)| *id) else {
            self.awaited = true;
            return Ok(Copied::Awaited);
        };
        let Some(memory) = &self.known[known].1 else { return Ok(Copied::Lost) };
        let what = "a frame that is not within it";
        let refuse = Corrupt::Blob { position, blob: name.blob, what };
        let (at, len) = name.place(&**memory).ok_or(refuse)?;
        let Some(room) = frame.room(at, len as usize) else { return Ok(Copied::Lost) };
        memory.copy(at, room);
        Ok(if name.is_still_of(&**memory) { Copied::Frame } else { Copied::Lost })
    }

    /// Asks for the first lines of the blob that the next record may name.
    #[inline(always)]
    pub(super) fn prefetch_next(&self) {
        if let Some((_, Some(memory))) = self.known.get(self.guess.place()) {
            prefetch(&**memory, self.guess.at);
        }
    }

    /// The frame of the record in hand.
    fn in_hand(&self) -> Option<&InHand<M>> {
        self.in_hand.as_ref()
    }

    /// Done with the record in hand.
    fn put_back(&mut self) {
        let Some(InHand { blob, known, memory, .. }) = self.in_hand.take() else { return };
        let still = self.known.get(known).is_some_and(|(id, _)| *id == blob);
        let known = if still { Ok(known) } else { self.known.binary_search_by_key(&blob, |(id, _)| *id) };
        if let Ok(known) = known {
            self.known[known].1.get_or_insert(memory); // unless it was let go of meanwhile
        }
    }
}

/// The first lines of a frame, and the generation, which mostly stands in one of them: lines of the writer's cache, asked
/// for side by side and not one after the other.
#[inline(always)]
fn prefetch(blob: &impl Memory, at: usize) {
    blob.prefetch(at);
    blob.prefetch(at + CACHE_LINE);
}

impl<M: Memory, C: MemoryMut> Reader<M, C> {
    /// The same for a log whose records may name blobs.
    pub fn with_blobs(mut self) -> Self {
        self.blobs = Some(Box::new(Blobs::new(Holds::new(&self.cursors, self.cursor_at))));
        self
    }

    /// A blob has arrived; `None` if it cannot be mapped: records that name it count as missed.
    pub fn add_blob(&mut self, blob: u64, memory: Option<M>) {
        if let Some(blobs) = &mut self.blobs {
            blobs.add(blob, memory);
        }
    }

    /// No record names this blob any more.
    pub fn remove_blob(&mut self, blob: u64) {
        if let Some(blobs) = &mut self.blobs {
            blobs.remove(blob);
        }
    }

    /// At once, and not with the next eighth of the log: a blob is more than that.
    #[cold]
    pub(super) fn release_blob(&mut self) {
        if let Some(blobs) = &mut self.blobs {
            blobs.put_back();
        }
        self.flush();
    }

    #[cold]
    pub(super) fn blob_frame(&self, len: usize) -> &[u8] {
        if let Some(ungated) = &self.ungated {
            return ungated.frame();
        }
        let Some(found) = self.blobs.as_ref().and_then(|blobs| blobs.in_hand()) else { return &[] };
        // SAFETY: `Blobs::find` checked the range; the record that names the blob lies between gate and tail, so
        // a writer that keeps to the protocol does not store to the blob until the record is released.
        unsafe { found.memory.slice(found.at, len) }
    }

    #[cold]
    pub(super) fn copy_blob(&self, offset: usize, into: &mut [u8]) {
        if let Some(ungated) = &self.ungated {
            return into.copy_from_slice(&ungated.frame()[offset..offset + into.len()]);
        }
        if let Some(found) = self.blobs.as_ref().and_then(|blobs| blobs.in_hand()) {
            found.memory.copy(found.at + offset, into);
        }
    }

    /// Takes the record at `position`, which names a blob.
    #[inline(never)]
    pub(super) fn blob_record(&mut self, header: Header, sequence: u64, word: u64) -> Look {
        let position = self.position;
        let is_name = u64::from(header.len) == NAME && header.filler == 0;
        let Some(blobs) = self.blobs.as_mut().filter(|_| is_name) else {
            return self.set_aside(Err(Corrupt::Record { position, word }));
        };
        let frame = position + HEADER;
        let found = match blobs.find(&self.log, self.layout.offset(frame), position) {
            Ok(found) => found,
            Err(corrupt) => return self.set_aside(Err(corrupt)),
        };
        if matches!(found, Found::Unknown) && self.until == u64::MAX {
            // On its way: it was sent before the record was published.
            blobs.awaited = true;
            return Look::Empty;
        }
        self.expected = Some(sequence + 1);
        let end = position + header.size();
        let Found::Frame(len) = found else {
            self.pass(end);
            return self.set_aside(Ok(Next::Lagged(1)));
        };
        self.expects_blob = true;
        self.in_hand = Some((end, Record { kind: header.kind, frame, len, sequence }));
        Look::Record
    }

    /// Gives back the blobs that nobody keeps any more; true if there were any, and so a cursor is to be stored with
    /// its fence: the writer may wait for them.
    pub(super) fn settle_holds(&mut self) -> bool {
        let Some(blobs) = &mut self.blobs else { return false };
        blobs.holds.settle(&self.cursors, self.cursor_at)
    }
}

impl<M: Memory + Clone, C: MemoryMut> Reader<M, C> {
    /// Keeps the blob in hand: before the cursor passes the record that names it.
    #[cold]
    pub(super) fn hold(&mut self, len: usize) -> Option<Lent<M>> {
        self.settle_holds();
        let blobs = self.blobs.as_mut()?;
        let id = blobs.in_hand()?.blob;
        let over = Arc::new(AtomicBool::new(false));
        if !blobs.holds.take(id, &over, &self.cursors, self.cursor_at) {
            return None;
        }
        let found = blobs.in_hand()?;
        let lent = Lent::new((*found.memory).clone(), found.at, len, over);
        blobs.put_back();
        Some(lent)
    }
}
