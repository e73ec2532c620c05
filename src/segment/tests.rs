use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::{ptr, thread};

use nix::errno::Errno;
use nix::libc;

use super::*;
use crate::sys::memfd;
use crate::sys::testing::{errno, passes_in_child};

const LEN: usize = 64 * 1024;

fn sealed() -> Sealed {
    Sealed::create("ringbus-test", LEN, false).unwrap()
}

/// Another holder's fd of the same segment.
fn received(segment: &Sealed) -> OwnedFd {
    segment.fd().try_clone_to_owned().unwrap()
}

fn peer(segment: &Sealed) -> PeerSegment {
    PeerSegment::open(received(segment), LEN, Pages::AsWritten).unwrap()
}

/// The errno that mapping the file for `protection` gives, or none.
fn map_shared(fd: impl AsFd, protection: i32) -> Result<*mut c_void, Errno> {
    // SAFETY: a fresh mapping at an address of the kernel's choice; tests leave it to the end of the process.
    let at =
        unsafe { libc::mmap(ptr::null_mut(), LEN, protection, libc::MAP_SHARED, fd.as_fd().as_raw_fd(), 0) };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at) }
}

#[test]
fn a_peer_sees_what_the_creator_stores() {
    for prefault in [false, true] {
        let segment = Sealed::create("ringbus-test", LEN, prefault).unwrap();
        let peer = PeerSegment::open(
            received(&segment),
            LEN,
            if prefault { Pages::Mapped } else { Pages::AsWritten },
        )
        .unwrap();
        assert_eq!((segment.size(), peer.size()), (LEN, LEN));
        assert_eq!(peer.load(LEN - 8, Acquire), 0);
        segment.store(LEN - 8, 0x0123_4567_89ab_cdef, Release);
        assert_eq!(peer.load(LEN - 8, Acquire), 0x0123_4567_89ab_cdef);
        // SAFETY: no other slice of this range, and nobody reads it yet.
        unsafe { segment.slice_mut(101, 5) }.copy_from_slice(b"bytes");
        let mut copy = [0; 5];
        peer.copy(101, &mut copy);
        assert_eq!(&copy, b"bytes");
        // SAFETY: nobody stores to the range from here on.
        assert_eq!(unsafe { peer.slice(101, 5) }, b"bytes");
    }
}

#[test]
fn a_peer_keeps_the_memory_of_a_creator_that_is_gone() {
    let segment = sealed();
    segment.store(0, 42, Release);
    let peer = peer(&segment);
    drop(segment);
    assert_eq!(peer.load(0, Acquire), 42);
}

#[test]
fn a_holder_of_the_fd_cannot_map_it_writable() {
    let segment = sealed();
    let fd = received(&segment);
    assert_eq!(map_shared(&fd, libc::PROT_READ | libc::PROT_WRITE), Err(Errno::EPERM));
    assert_eq!(map_shared(&fd, libc::PROT_WRITE), Err(Errno::EPERM));
    let at = map_shared(&fd, libc::PROT_READ).unwrap();
    // SAFETY: acts on the mapping made above; both calls are expected to fail.
    unsafe {
        assert_eq!(libc::mprotect(at, LEN, libc::PROT_READ | libc::PROT_WRITE), -1);
        assert_eq!(Errno::last(), Errno::EACCES);
        assert_eq!(libc::madvise(at, LEN, libc::MADV_REMOVE), -1);
        assert!(matches!(Errno::last(), Errno::EACCES | Errno::EPERM));
    }
}

#[test]
fn a_holder_of_the_fd_can_neither_write_nor_resize_it() {
    let segment = sealed();
    segment.store(0, 7, Release);
    let mut file = File::from(received(&segment));
    assert_eq!(errno(file.write(&[1; 8])), libc::EPERM);
    for len in [0, LEN as u64 / 2, LEN as u64 * 2] {
        assert_eq!(errno(file.set_len(len)), libc::EPERM);
    }
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    for (mode, len) in [(punch, LEN), (0, LEN * 2), (libc::FALLOC_FL_ZERO_RANGE, LEN)] {
        // SAFETY: takes integers; expected to fail.
        assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, len as libc::off_t) }, -1);
        assert!(matches!(Errno::last(), Errno::EPERM | Errno::EOPNOTSUPP), "mode {mode}: {}", Errno::last());
    }
    assert_eq!(segment.load(0, Acquire), 7);
    assert_eq!(memfd::size(&file).unwrap(), LEN as u64);
}

#[test]
fn reopening_through_proc_gives_nothing_more() {
    let segment = sealed();
    segment.store(0, 7, Release);
    let path = format!("/proc/self/fd/{}", segment.fd().as_raw_fd());
    let mut reopened =
        OpenOptions::new().read(true).write(true).open(&path).expect("opens, sealed as before");
    assert_eq!(errno(reopened.write(&[1; 8])), libc::EPERM);
    assert_eq!(map_shared(&reopened, libc::PROT_READ | libc::PROT_WRITE), Err(Errno::EPERM));
    assert_eq!(errno(reopened.set_len(0)), libc::EPERM);
    assert_eq!(errno(OpenOptions::new().write(true).truncate(true).open(&path)), libc::EPERM);
    assert_eq!(segment.load(0, Acquire), 7);
}

#[test]
fn not_even_the_creator_can_punch_a_hole() {
    let segment = sealed();
    segment.store(0, 7, Release);
    // SAFETY: the address is only passed on; the advice is expected to fail.
    unsafe {
        let at = segment.slice(0, LEN).as_ptr().cast_mut().cast();
        assert_eq!(libc::madvise(at, LEN, libc::MADV_REMOVE), -1);
        assert_eq!(Errno::last(), Errno::EPERM);
    }
    assert_eq!(segment.load(0, Acquire), 7);
}

fn refusal(fd: impl Into<OwnedFd>) -> SegmentError {
    PeerSegment::open(fd.into(), LEN, Pages::AsWritten).expect_err("a refusal")
}

#[test]
fn unsealed_and_partly_sealed_files_are_refused() {
    let seals = [libc::F_SEAL_SHRINK, libc::F_SEAL_GROW, libc::F_SEAL_FUTURE_WRITE, libc::F_SEAL_SEAL];
    for missing in 0..seals.len() {
        let fd = memfd::create("ringbus-test", LEN as u64).unwrap();
        let present = seals.iter().enumerate().filter(|(n, _)| *n != missing).map(|(_, seal)| seal);
        let mask = present.fold(0, |mask, seal| mask | seal);
        // SAFETY: takes integers.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, mask) }, 0);
        assert!(matches!(refusal(fd), SegmentError::Unsealed { .. }));
    }
    let fd = memfd::create("ringbus-test", LEN as u64).unwrap();
    assert!(matches!(refusal(fd), SegmentError::Unsealed { .. }));
}

#[test]
fn other_files_are_refused() {
    let (pipe, _other) = nix::unistd::pipe().unwrap();
    assert!(matches!(refusal(pipe), SegmentError::NotMemory));
    assert!(matches!(refusal(crate::sys::timerfd::create().unwrap()), SegmentError::NotMemory));
    for path in ["/dev/zero", "/dev/null", "/proc/self/maps", "/"] {
        let error = refusal(File::open(path).unwrap());
        assert!(matches!(error, SegmentError::NotMemory), "{path}: {error}");
    }
    // On a disk, or on a tmpfs, where it is shared memory but cannot be sealed.
    let file = tempfile::tempfile().unwrap();
    file.set_len(LEN as u64).unwrap();
    assert!(matches!(refusal(file), SegmentError::NotMemory | SegmentError::Unsealed { .. }));
    let shm = tempfile::tempfile_in("/dev/shm").unwrap();
    shm.set_len(LEN as u64).unwrap();
    assert!(matches!(refusal(shm), SegmentError::NotMemory | SegmentError::Unsealed { .. }));
}

/// Bytes of memory that a file takes, wherever they are.
fn taken(fd: impl AsFd) -> usize {
    nix::sys::stat::fstat(fd).unwrap().st_blocks as usize * 512
}

#[test]
fn a_segment_whose_pages_its_owner_has_not_made_is_refused_and_costs_nothing() {
    for made in [0, page_size(), LEN - page_size()] {
        let segment = Sealed::create("ringbus-test", LEN, false).unwrap();
        (0..made).step_by(page_size()).for_each(|at| segment.store(at, 1, Relaxed));
        let before = taken(segment.fd());
        if made > 0 && before == LEN {
            continue; // the kernel makes them all where it is told to use large pages
        }
        for pages in [Pages::Made, Pages::Mapped] {
            let error = PeerSegment::open(received(&segment), LEN, pages).expect_err("a refusal");
            assert!(matches!(error, SegmentError::Missing), "{error}");
            assert!(!error.is_shortage());
        }
        let lazy = PeerSegment::open(received(&segment), LEN, Pages::AsWritten).unwrap();
        assert_eq!((lazy.size(), taken(segment.fd())), (LEN, before));
        (made..LEN).step_by(page_size()).for_each(|at| segment.store(at, 1, Relaxed));
        PeerSegment::open(received(&segment), LEN, Pages::Mapped).unwrap();
    }
    let whole = Sealed::create("ringbus-test", LEN, true).unwrap();
    assert_eq!(taken(whole.fd()), LEN);
}

#[test]
fn segments_leave_some_address_space_to_the_rest_of_the_process() {
    use nix::sys::resource::{Resource, setrlimit};

    use crate::sys::limits::free_address_space;
    passes_in_child(|| {
        assert_eq!(free_address_space(), None);
        let segment = Sealed::create("ringbus-test", LEN, true).unwrap();
        let fd = received(&segment);
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        let taken = statm.split(' ').next().unwrap().parse::<u64>().unwrap() * page_size() as u64;
        let spared = 4 << 20;
        setrlimit(Resource::RLIMIT_AS, taken + spared + (1 << 20), libc::RLIM_INFINITY).unwrap();
        let mut peers = Vec::with_capacity(1024);
        let error = loop {
            match PeerSegment::open(&fd, LEN, Pages::Mapped) {
                Ok(peer) => peers.push(peer),
                Err(error) => break error,
            }
        };
        assert!(!peers.is_empty() && error.is_shortage(), "{} fit: {error}", peers.len());
        assert!(Sealed::create("ringbus-test", LEN, true).unwrap_err().is_shortage());
        let free = free_address_space().unwrap();
        assert!((spared..spared + (1 << 20)).contains(&free), "{free}");
        peers.pop();
        peers.push(PeerSegment::open(&fd, LEN, Pages::Mapped).unwrap());
    });
}

#[test]
fn sizes_that_a_segment_cannot_have_are_refused() {
    for len in [0, 1, page_size() as u64 - 8, page_size() as u64 + 8] {
        let fd = memfd::create("ringbus-test", len).unwrap();
        memfd::seal(&fd).unwrap();
        assert!(matches!(refusal(fd), SegmentError::Size { .. }), "{len}");
        let created = Sealed::create("ringbus-test", len as usize, false);
        assert!(matches!(created, Err(SegmentError::Size { .. })), "{len}");
    }
    let fd = memfd::create("ringbus-test", (LEN + page_size()) as u64).unwrap();
    memfd::seal(&fd).unwrap();
    assert!(matches!(refusal(fd), SegmentError::TooLarge { max: LEN, .. }));
    // The kernel bounds a file at 2^63 bytes, far beyond what can be mapped.
    let fd = memfd::create("ringbus-test", 1 << 62).unwrap();
    memfd::seal(&fd).unwrap();
    assert!(matches!(refusal(fd), SegmentError::TooLarge { .. }));
}

#[test]
fn huge_pages_are_refused() {
    // SAFETY: the name is a C string; the call takes nothing else by pointer.
    let fd =
        unsafe { libc::memfd_create(c"ringbus-test".as_ptr(), libc::MFD_HUGETLB | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        // A kernel without huge pages cannot make what this test would have refused.
        let refused = Errno::last();
        assert!(
            matches!(refused, Errno::ENOSYS | Errno::EINVAL | Errno::ENOENT | Errno::ENODEV | Errno::EPERM),
            "{refused}"
        );
        return;
    }
    // SAFETY: just created for us alone.
    let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    nix::unistd::ftruncate(&fd, 2 << 20).unwrap();
    memfd::seal(&fd).unwrap();
    assert!(matches!(refusal(fd), SegmentError::HugePages));
}

#[test]
fn a_size_beyond_the_file_size_limit_is_told() {
    use nix::sys::resource::{Resource, setrlimit};
    passes_in_child(|| {
        setrlimit(Resource::RLIMIT_FSIZE, LEN as u64 / 2, libc::RLIM_INFINITY).unwrap();
        let error = Sealed::create("ringbus-test", LEN, false).unwrap_err();
        assert!(matches!(error, SegmentError::FileSizeLimit { .. }), "{error}");
    });
}

#[test]
fn a_refused_fd_is_closed_and_an_opened_one_too() {
    passes_in_child(|| {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let segment = sealed();
        let before = open();
        let peer = peer(&segment);
        refusal(memfd::create("ringbus-test", LEN as u64).unwrap());
        assert_eq!(open(), before, "the mapping alone keeps the memory");
        drop(peer);
        assert_eq!(open(), before);
    });
}

/// Whether anything is mapped at the address of a page.
fn mapped(at: *mut c_void) -> bool {
    // SAFETY: msync with MS_ASYNC changes nothing; it fails with ENOMEM where nothing is mapped.
    unsafe { libc::msync(at, page_size(), libc::MS_ASYNC) == 0 }
}

#[test]
fn drop_unmaps() {
    passes_in_child(|| {
        let segment = sealed();
        let peer = peer(&segment);
        // SAFETY: only the addresses are used.
        let addresses = unsafe { [segment.slice(0, 8).as_ptr(), peer.slice(0, 8).as_ptr()] };
        assert!(addresses.iter().all(|at| mapped(at.cast_mut().cast())));
        drop((segment, peer));
        assert!(!addresses.iter().any(|at| mapped(at.cast_mut().cast())));
    });
}

#[test]
fn a_forked_child_has_no_mapping_and_its_drop_spares_what_took_the_place() {
    let segment = sealed();
    segment.store(0, 7, Release);
    let peer = peer(&segment);
    // SAFETY: only the addresses are used.
    let addresses = unsafe { [segment.slice(0, 8).as_ptr(), peer.slice(0, 8).as_ptr()] };
    let origins = [segment.origin(), peer.origin()];
    assert!(origins.iter().all(|origin| origin.is_here()));
    // The child drops copies of the parent's values, and is gone afterwards.
    let inherited = std::mem::ManuallyDrop::new((segment, peer));
    passes_in_child(|| {
        assert!(!origins.iter().any(|origin| origin.is_here()));
        for at in addresses {
            assert!(!mapped(at.cast_mut().cast()));
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            // SAFETY: nothing is mapped there, and the flag makes sure; the word is written within it.
            unsafe {
                let protection = libc::PROT_READ | libc::PROT_WRITE;
                let new = libc::mmap(at.cast_mut().cast(), LEN, protection, flags, -1, 0);
                assert_eq!(new.cast_const().cast(), at);
                new.cast::<u64>().write(99);
            }
        }
        // SAFETY: this process has its own copy of the value, which it drops once.
        drop(unsafe { ptr::read(&*inherited) });
        for at in addresses {
            // SAFETY: mapped above; had the drop unmapped it, this would kill the child.
            assert_eq!(unsafe { at.cast::<u64>().read() }, 99);
        }
    });
    assert_eq!(inherited.1.load(0, Acquire), 7, "the parent's is untouched");
    drop(std::mem::ManuallyDrop::into_inner(inherited));
}

#[test]
fn a_forked_child_can_make_segments_of_its_own() {
    let parents = sealed();
    passes_in_child(|| {
        let segment = sealed();
        let peer = peer(&segment);
        segment.store(8, 5, Release);
        assert_eq!(peer.load(8, Acquire), 5);
        assert!(segment.origin().is_here() && !parents.origin().is_here());
    });
}

#[test]
fn the_fd_can_outlive_the_segment_in_a_queue() {
    let segment = sealed();
    segment.store(0, 3, Release);
    let queued = segment.shared_fd();
    drop(segment);
    let peer = PeerSegment::open(queued.try_clone().unwrap(), LEN, Pages::AsWritten).unwrap();
    assert_eq!(peer.load(0, Acquire), 3);
}

/// Every range of a small segment, into every alignment of the destination.
fn copies_every_range(memory: &impl MemoryMut) {
    const SPAN: usize = 64;
    let start = memory.size() - SPAN;
    let expected: Vec<u8> = (1..=SPAN as u8).collect();
    // SAFETY: no other slice of the range lives.
    unsafe { memory.slice_mut(start, SPAN) }.copy_from_slice(&expected);
    let mut into = [0u8; SPAN + 16];
    for at in 0..=SPAN {
        for len in 0..=SPAN - at {
            for shift in 0..8 {
                into.fill(0);
                memory.copy(start + at, &mut into[shift..shift + len]);
                assert_eq!(into[shift..shift + len], expected[at..at + len], "at {at}, {len} bytes");
                assert!(into[..shift].iter().chain(&into[shift + len..]).all(|&byte| byte == 0));
            }
        }
    }
}

/// Heads of some lengths, bodies of all, from each alignment; each behind the last, which must stay as it is.
fn writes_every_length<const HEAD: usize>(memory: &impl MemoryMut) {
    const SPAN: usize = 128;
    let start = memory.size() - SPAN;
    let bytes: Vec<u8> = (1..=SPAN as u8).collect();
    let head: &[u8; HEAD] = bytes.first_chunk().unwrap();
    for len in 0..SPAN - HEAD - 24 {
        for from in HEAD..HEAD + 8 {
            // SAFETY: no other slice of the range lives.
            unsafe { memory.slice_mut(start, SPAN) }.fill(0xff);
            let body = &bytes[from..from + len.min(SPAN - from)];
            memory.store(0, 0, Relaxed);
            let last = (!len.is_multiple_of(3)).then_some((0, len as u64));
            memory.write(start + 8, &[0x0706_0504_0302_0100, u64::MAX - 1], head, body, last);
            assert_eq!(memory.load(0, Relaxed), last.map_or(0, |(_, word)| word));
            let words = [0, 1, 2, 3, 4, 5, 6, 7, 0xfe, 255, 255, 255, 255, 255, 255, 255];
            let mut expected = [&[0xff; 8], &words[..], head, body].concat();
            expected.resize(expected.len().next_multiple_of(8), 0);
            expected.resize(SPAN, 0xff);
            // SAFETY: nobody writes to the range.
            assert_eq!(unsafe { memory.slice(start, SPAN) }, expected, "{HEAD} and {} bytes", body.len());
        }
    }
}

fn writes_every_head(memory: &impl MemoryMut) {
    writes_every_length::<0>(memory);
    writes_every_length::<3>(memory);
    writes_every_length::<8>(memory);
    writes_every_length::<10>(memory);
    writes_every_length::<23>(memory);
}

#[test]
fn head_and_body_are_joined() {
    writes_every_head(&Heap::new(256));
    writes_every_head(&sealed());
}

#[test]
fn copies_equal_plain_slices() {
    copies_every_range(&Heap::new(256));
    copies_every_range(&sealed());
}

#[test]
fn heap_clones_are_the_same_aligned_zeroed_memory() {
    for len in [8, 128, 4096 + 8] {
        let writer = Heap::new(len);
        let reader = writer.clone();
        // SAFETY: nobody stores meanwhile.
        let bytes = unsafe { writer.slice(0, len) };
        assert!(bytes.as_ptr().addr().is_multiple_of(128) && bytes.iter().all(|&byte| byte == 0));
        writer.store(len - 8, 1, Relaxed);
        drop(writer);
        assert_eq!(reader.load(len - 8, Relaxed), 1);
    }
}

#[test]
fn accesses_outside_or_unaligned_panic() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let heap = Heap::new(64);
    let panics = |access: &dyn Fn()| catch_unwind(AssertUnwindSafe(access)).is_err();
    for at in [1, 4, 7, 57, 63, 64, 65, 72, usize::MAX - 7, usize::MAX, 1 << 63] {
        assert!(panics(&|| _ = heap.load(at, Relaxed)), "load at {at}");
        assert!(panics(&|| heap.store(at, 1, Relaxed)), "store at {at}");
    }
    for (at, len) in [(0, 65), (64, 1), (65, 0), (usize::MAX, 2), (8, usize::MAX - 4)] {
        // SAFETY: panics before anything is lent.
        assert!(panics(&|| _ = unsafe { heap.slice(at, len) }), "slice at {at}, {len} bytes");
        // SAFETY: as above.
        assert!(panics(&|| _ = unsafe { heap.slice_mut(at, len) }), "slice_mut at {at}, {len} bytes");
    }
    assert!(panics(&|| heap.copy(60, &mut [0; 5])));
    // SAFETY: empty.
    assert!(unsafe { heap.slice(64, 0) }.is_empty());
    heap.copy(64, &mut []);
}

/// Whoever may open `/proc/<pid>/fd` sees a memory file before it is sealed.
#[test]
fn nobody_shrinks_a_segment_that_is_being_made() {
    const NAME: &str = "ringbus-raced";
    let (over, page) = (AtomicBool::new(false), page_size());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let fds = fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| entry.path());
                let is_raced = |path: &PathBuf| {
                    fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains(NAME))
                };
                for path in fds.filter(is_raced) {
                    let _ = OpenOptions::new().write(true).truncate(true).open(path);
                }
            }
        });
        let mut made = 0;
        for _ in 0..3000 {
            if let Ok(segment) = Sealed::create(NAME, 2 * page, false) {
                segment.store(page, 1, Relaxed); // SIGBUS, if it were shrunk
                made += 1;
            }
        }
        over.store(true, Relaxed);
        assert!(made > 0);
    });
}
