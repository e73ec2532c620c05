//! Blobs: segments of one large frame each, which a record of the log names.
//!
//! ```text
//! blob segment (written by the log's port)      record of kind 2, behind its header
//!     0  magic "RBUSBLB1"                           0  blob id
//!     8  version u32, first frame offset u32        8  generation
//!    16  size of the segment                       16  offset of the frame in the segment
//!    24  log id                                    24  bytes of the frame
//!    32  node id (16 bytes)
//!    48  blob id
//!   128  generation
//!   136  a frame: anywhere from here on
//! ```
//!
//! A blob is written again only once nobody looks at it any more: every gate has passed the record that names
//! it, and no reader's table of holds (`holds.rs`) names it. A reader stores the hold before the
//! cursor, the writer loads the cursors before the holds: so whoever sees the cursor sees the hold, unless it is
//! over already.
//!
//! A reader without a gate keeps nobody from writing. It copies the frame, and the copy counts only if the generation
//! was the record's before and after: the writer changes it before it writes the blob again.

use super::Corrupt;
use super::layout::{CACHE_LINE, VERSION, halves, joined};
use super::sync::Ordering::{Acquire, Relaxed, Release};
use super::sync::fence;
use crate::segment::{Memory, MemoryMut};

/// First offset at which a frame may begin: in the generation's line, which writers write and readers read with it.
pub const FRAMES: usize = 136;
/// Bytes that this version makes a blob larger than its payloads may be: for the header, and what comes before a payload.
pub const BESIDE: usize = 4096;
/// Bytes of a record that names a blob, behind its header.
pub const NAME: u64 = 32;

pub(super) const GENERATION: usize = 128;
const MAGIC: u64 = u64::from_le_bytes(*b"RBUSBLB1");
const VERSION_WORD: u64 = VERSION as u64 | (FRAMES as u64) << 32;

/// Whose blob it is: written once into its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHeader {
    /// The log whose records name it.
    pub log: u64,
    /// 128-bit id of the node.
    pub node: [u8; 16],
    /// The blob's id, not 0 and never reused within the log.
    pub blob: u64,
}

impl BlobHeader {
    fn initialise(&self, segment: &impl MemoryMut) {
        let [low, high] = halves(self.node);
        for (at, word) in [
            (8, VERSION_WORD),
            (16, segment.size() as u64),
            (24, self.log),
            (32, low),
            (40, high),
            (48, self.blob),
            (0, MAGIC),
        ] {
            segment.store(at, word, Relaxed);
        }
    }

    /// Reads the header of a peer's blob.
    ///
    /// # Errors
    /// [`Corrupt::Header`] names the field that is not as this version writes it.
    pub fn check(segment: &impl Memory) -> Result<Self, Corrupt> {
        let refuse = |what| Corrupt::Header { what };
        if segment.size() < BESIDE || segment.load(0, Relaxed) != MAGIC {
            return Err(refuse("no blob (magic)"));
        }
        if segment.load(8, Relaxed) != VERSION_WORD {
            return Err(refuse("version or frame offset"));
        }
        if segment.load(16, Relaxed) != segment.size() as u64 {
            return Err(refuse("size does not match that of the segment"));
        }
        let node = joined(segment.load(32, Relaxed), segment.load(40, Relaxed));
        Ok(Self { log: segment.load(24, Relaxed), node, blob: segment.load(48, Relaxed) })
    }
}

/// What a record says of the frame that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub blob: u64,
    pub generation: u64,
    pub at: u64,
    pub len: u64,
}

impl Name {
    pub(super) fn to_bytes(self) -> [u8; NAME as usize] {
        let mut bytes = [0; NAME as usize];
        let words = [self.blob, self.generation, self.at, self.len];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    /// The name at this offset of a log: each word is loaded once.
    #[inline(always)]
    pub(super) fn load(log: &impl Memory, at: usize) -> Self {
        let word = |index: usize| log.load(at + index * 8, Relaxed); // ordered by the Acquire load of the tail
        Self { blob: word(0), generation: word(1), at: word(2), len: word(3) }
    }

    /// Where the frame lies in its blob; `None` if it does not.
    #[inline(always)]
    pub(super) fn place(&self, blob: &impl Memory) -> Option<(usize, u32)> {
        let (at, len) = (usize::try_from(self.at).ok()?, u32::try_from(self.len).ok()?);
        let room = blob.size().checked_sub(at)?;
        (at >= FRAMES && len as usize <= room).then_some((at, len))
    }

    /// Whether the blob is as it was when the record was written.
    #[inline(always)]
    pub(super) fn is_of(&self, blob: &impl Memory) -> bool {
        blob.load(GENERATION, Relaxed) == self.generation
    }

    /// Whether it still is, now that bytes were copied from it.
    pub(super) fn is_still_of(&self, blob: &impl Memory) -> bool {
        // Pairs with the Release fence in `Blob::renew`: if a load before this fence saw a byte that was written
        // since, the load of the generation sees what was stored before that.
        fence(Acquire);
        self.is_of(blob)
    }
}

/// A blob as its writer has it. Dropping it while a record names it harms nobody: readers have it mapped.
///
/// Invariant: from the publication of the record that names it, before `end`, to recovery no byte of it is written
/// (`Writer::publish_blob` has the blob to itself until `end` is set).
#[derive(Debug)]
pub struct Blob<M> {
    memory: M,
    id: u64,
    generation: u64,
    /// Whether a record has named it with this generation.
    named: bool,
    /// Where the record that names it ends, from publication to recovery.
    end: Option<u64>,
}

impl<M: MemoryMut> Blob<M> {
    /// A blob in fresh memory, at least a page of it.
    pub fn new(memory: M, header: &BlobHeader) -> Self {
        header.initialise(&memory);
        memory.store(GENERATION, 1, Relaxed); // before anybody has the memory
        Self { memory, id: header.blob, generation: 1, named: false, end: None }
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its memory, to be shared.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The bytes from an offset on, not below [`FRAMES`], to be written; none while a record names the blob, or
    /// beyond its end.
    pub fn bytes_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        let Some(len) = self.lendable(at, len) else { return &mut [] };
        self.renew();
        // SAFETY: in bounds, and `end` is not set: no record that a reader may still look at names the blob
        // (`Writer::recover`), and `&mut self` makes the slice the only one.
        unsafe { self.memory.slice_mut(at, len) }
    }

    /// The same bytes, to read back.
    pub fn bytes(&self, at: usize, len: usize) -> &[u8] {
        let Some(len) = self.lendable(at, len) else { return &[] };
        // SAFETY: as in `bytes_mut`; `&self` keeps this process from writing meanwhile.
        unsafe { self.memory.slice(at, len) }
    }

    fn lendable(&self, at: usize, len: usize) -> Option<usize> {
        let room = self.memory.size().checked_sub(at)?;
        (self.end.is_none() && at >= FRAMES && len <= room).then_some(len)
    }

    /// What a record is going to say of it.
    #[inline(always)]
    pub(super) fn name(&mut self, at: usize, len: usize) -> Name {
        self.renew();
        Name { blob: self.id, generation: self.generation, at: at as u64, len: len as u64 }
    }

    /// Whether this is its name as it is now.
    #[inline(always)]
    pub(super) fn is_named(&self, name: &[u8; NAME as usize]) -> bool {
        let (words, _) = name.as_chunks::<8>();
        words[0] == self.id.to_le_bytes() && words[1] == self.generation.to_le_bytes()
    }

    /// A record that ends here names it.
    #[inline(always)]
    pub(super) fn published(&mut self, end: u64) {
        self.named = true;
        self.end = Some(end);
    }

    /// Where the record that names it ends, until readers are done with it.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    pub(super) fn recovered(&mut self) {
        self.end = None;
    }

    /// Takes the lines that are written first when it is next filled, by writing them: readers were the last to have them.
    /// Nothing while a record names the blob.
    pub fn touch(&mut self) {
        if self.end.is_none() {
            self.renew(); // the generation's line, if it has been sent before; most heads stand in it, too
            self.memory.store(FRAMES + CACHE_LINE, 0, Relaxed);
        }
    }

    /// A frame at this offset is about to be published. With its first lines on their way already, a reader has it some 30
    /// ns sooner.
    pub(super) fn give_away(&self, frame: usize) {
        let apart = (frame >= GENERATION + CACHE_LINE).then_some(frame);
        let lines = [Some(GENERATION), apart, Some(frame + CACHE_LINE)].into_iter().flatten();
        lines.filter(|at| *at < self.memory.size()).for_each(|at| self.memory.give_away(at));
    }

    /// Before it is written, once for each time that it was named: from here on it is of the next generation.
    fn renew(&mut self) {
        if std::mem::take(&mut self.named) {
            self.generation += 1;
            self.memory.store(GENERATION, self.generation, Relaxed);
            // Whoever sees a byte that is written from here on also sees the generation: pairs with the Acquire fence
            // in `Name::is_still_of`.
            fence(Release);
        }
    }
}

/// How far a blob is on its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// A reader has not passed the record that names it.
    Unread,
    /// All have, and one of them keeps it.
    Held,
    /// Nobody looks at it: it may be written.
    Back,
}
