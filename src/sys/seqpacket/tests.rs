use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::dup;

use super::super::poll::readable;
use super::super::testing::{DEADLINE, errno, passes_in_child};
use super::super::{memfd, timerfd};
use super::*;

fn recv(socket: &Socket) -> io::Result<(Vec<u8>, Received)> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let received = socket.recv(&mut buffer)?;
    buffer.truncate(received.len);
    Ok((buffer, received))
}

/// Waits for what must come, since a concurrent test's child may keep the other end open for a moment.
fn await_readable(socket: &Socket) {
    assert!(readable(socket.as_fd(), Some(DEADLINE)).unwrap());
}

/// Sends beyond what `Socket::send` permits.
fn send_raw(socket: &Socket, data: &[u8], fds: &[RawFd]) {
    let rights = [ControlMessage::ScmRights(fds)];
    let data = [IoSlice::new(data)];
    sendmsg::<()>(socket.0.as_raw_fd(), &data, &rights, MsgFlags::empty(), None).unwrap();
}

#[test]
fn datagrams_keep_their_boundaries() {
    let (one, other) = Socket::pair().unwrap();
    one.send(b"first", &[]).unwrap();
    one.send(b"second", &[]).unwrap();
    other.send(b"back", &[]).unwrap();
    assert_eq!(recv(&other).unwrap().0, b"first");
    assert_eq!(recv(&other).unwrap().0, b"second");
    assert_eq!(errno(recv(&other)), libc::EAGAIN);
    assert_eq!(recv(&one).unwrap().0, b"back");
}

#[test]
fn the_largest_datagram_passes_and_a_larger_one_is_refused() {
    let (one, other) = Socket::pair().unwrap();
    let data = vec![7; MAX_DATAGRAM + 1];
    assert_eq!(errno(one.send(&data, &[])), libc::EMSGSIZE);
    one.send(&data[1..], &[]).unwrap();
    let (bytes, received) = recv(&other).unwrap();
    assert_eq!(bytes, data[1..]);
    assert!(!received.cut);
}

#[test]
fn a_datagram_larger_than_the_buffer_is_told_to_be_cut() {
    let (one, other) = Socket::pair().unwrap();
    one.send(b"12345", &[]).unwrap();
    let received = other.recv(&mut [0; 3]).unwrap();
    assert!(received.cut && received.len == 3 && !received.is_end());
}

#[test]
fn fds_arrive_in_order_and_close_on_exec() {
    let (one, other) = Socket::pair().unwrap();
    let files: Vec<_> =
        (1..=MAX_FDS as u64).map(|n| memfd::create("ringbus-test", n * 4096).unwrap()).collect();
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    for count in 1..=MAX_FDS {
        one.send(b"fds", &borrowed[..count]).unwrap();
        let (bytes, received) = recv(&other).unwrap();
        assert_eq!(bytes, b"fds");
        assert!(!received.lost_fds);
        let sizes: Vec<_> = received.fds.iter().map(|fd| memfd::size(fd).unwrap() / 4096).collect();
        assert_eq!(sizes, (1..=count as u64).collect::<Vec<_>>());
        for fd in &received.fds {
            let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        }
    }
}

#[test]
fn a_bell_rings_through_a_received_fd() {
    let (one, other) = Socket::pair().unwrap();
    let bell = timerfd::create().unwrap();
    one.send(b"bell", &[bell.as_fd()]).unwrap();
    let received = recv(&other).unwrap().1;
    timerfd::verify(received.fds[0].as_fd()).unwrap();
    timerfd::ring(received.fds[0].as_fd()).unwrap();
    assert!(readable(bell.as_fd(), Some(DEADLINE)).unwrap());
}

#[test]
fn send_refuses_what_could_not_be_received() {
    let (one, other) = Socket::pair().unwrap();
    let bell = timerfd::create().unwrap();
    assert_eq!(one.send(b"", &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let nine = [bell.as_fd(); MAX_FDS + 1];
    assert_eq!(one.send(b"x", &nine).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(errno(recv(&other)), libc::EAGAIN, "nothing was sent");
}

#[test]
fn more_fds_than_expected_are_told_as_lost_and_none_leaks() {
    passes_in_child(|| {
        let (one, other) = Socket::pair().unwrap();
        let bell = timerfd::create().unwrap();
        let before = open_fds();
        send_raw(&one, b"many", &[bell.as_raw_fd(); 40]);
        let (bytes, received) = recv(&other).unwrap();
        assert_eq!(bytes, b"many");
        assert!(received.lost_fds && received.fds.len() == MAX_FDS);
        assert_eq!(open_fds(), before + MAX_FDS);
        drop(received);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn an_empty_datagram_with_fds_is_not_the_end() {
    let (one, other) = Socket::pair().unwrap();
    let bell = timerfd::create().unwrap();
    send_raw(&one, b"", &[bell.as_raw_fd()]);
    let received = recv(&other).unwrap().1;
    assert!(received.len == 0 && received.fds.len() == 1 && !received.is_end());
}

#[test]
fn fds_beyond_the_limit_of_open_files_are_told_as_lost() {
    passes_in_child(|| {
        let (one, other) = Socket::pair().unwrap();
        let bell = timerfd::create().unwrap();
        let next = dup(&bell).unwrap().as_raw_fd() as u64;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, next, hard).unwrap();
        one.send(b"none", &[bell.as_fd(); 3]).unwrap();
        let (bytes, received) = recv(&other).unwrap();
        assert_eq!(bytes, b"none");
        assert!(received.lost_fds && received.fds.is_empty() && !received.is_end());

        setrlimit(Resource::RLIMIT_NOFILE, next + 1, hard).unwrap();
        one.send(b"one", &[bell.as_fd(); 3]).unwrap();
        let received = recv(&other).unwrap().1;
        assert!(received.lost_fds);
        assert_eq!(received.fds.len(), 1, "the first one is not lost");
    });
}

#[test]
fn fds_in_flight_are_bounded_for_ordinary_users() {
    passes_in_child(|| {
        // Root may have any number in flight, so this becomes somebody else.
        // SAFETY: takes three integers.
        unsafe {
            if libc::geteuid() == 0 {
                assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
            }
        }
        let (one, _other) = Socket::pair().unwrap();
        let bell = timerfd::create().unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
        let refused = loop {
            if let Err(error) = one.send(b"x", &[bell.as_fd(); MAX_FDS]) {
                break error.raw_os_error();
            }
        };
        assert_eq!(refused, Some(libc::ETOOMANYREFS));
        one.send(b"x", &[]).expect("data alone passes");
    });
}

#[test]
fn a_full_queue_is_told_and_drains() {
    let (one, other) = Socket::pair().unwrap();
    let mut sent = 0u32;
    let full = loop {
        match one.send(&sent.to_ne_bytes(), &[]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.raw_os_error(), Some(libc::EAGAIN));
    assert!(sent >= 16, "{sent}");
    for expected in 0..sent {
        assert_eq!(recv(&other).unwrap().0, expected.to_ne_bytes());
    }
    one.send(b"again", &[]).unwrap();
}

#[test]
fn the_end_comes_after_all_that_was_sent() {
    let (one, other) = Socket::pair().unwrap();
    let bell = timerfd::create().unwrap();
    one.send(b"last words", &[bell.as_fd()]).unwrap();
    drop(one);
    let (bytes, received) = recv(&other).unwrap();
    assert_eq!((bytes.as_slice(), received.fds.len()), (&b"last words"[..], 1));
    for _ in 0..2 {
        await_readable(&other);
        assert!(recv(&other).unwrap().1.is_end(), "the end stays");
    }
    let gone = errno(other.send(b"x", &[]));
    assert!(gone == libc::EPIPE || gone == libc::ECONNRESET, "{gone}");
}

/// What a receiver has to know: the reset neither replaces nor loses what the dead peer had sent.
#[test]
fn a_peer_gone_with_unread_input_resets_first_and_then_delivers() {
    passes_in_child(|| {
        let (one, other) = Socket::pair().unwrap();
        let bell = timerfd::create().unwrap();
        one.send(b"first", &[bell.as_fd()]).unwrap();
        one.send(b"second", &[]).unwrap();
        other.send(b"never read", &[]).unwrap();
        drop(one);
        assert_eq!(errno(recv(&other)), libc::ECONNRESET);
        let (bytes, received) = recv(&other).unwrap();
        assert_eq!((bytes.as_slice(), received.fds.len()), (&b"first"[..], 1));
        assert_eq!(recv(&other).unwrap().0, b"second");
        assert!(recv(&other).unwrap().1.is_end());
    });
}

#[test]
fn listeners_accept_and_stale_paths_refuse() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    assert_eq!(errno(Socket::connect(&path)), libc::ENOENT);
    passes_in_child(|| {
        let listener = Listener::bind(&path, 4).unwrap();
        assert!(listener.accept().unwrap().is_none());
        assert_eq!(errno(Listener::bind(&path, 4)), libc::EADDRINUSE);
        let client = Socket::connect(&path).unwrap();
        let server = listener.accept().unwrap().expect("the connection");
        client.send(b"hello", &[]).unwrap();
        assert_eq!(recv(&server).unwrap().0, b"hello");
    });
    // The listener died with the child; its path is left.
    assert_eq!(errno(Socket::connect(&path)), libc::ECONNREFUSED);
    std::fs::write(directory.path().join("file"), b"").unwrap();
    assert_eq!(errno(Socket::connect(&directory.path().join("file"))), libc::ECONNREFUSED);
}

#[test]
fn a_path_that_is_too_long_is_an_error() {
    let path = Path::new("/tmp").join("x".repeat(120));
    assert_eq!(errno(Listener::bind(&path, 1)), libc::ENAMETOOLONG);
    assert_eq!(errno(Socket::connect(&path)), libc::ENAMETOOLONG);
}

#[test]
fn a_full_backlog_is_told_apart_from_a_stale_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = Listener::bind(&path, 1).unwrap();
    let mut waiting = Vec::new();
    let full = loop {
        match Socket::connect(&path) {
            Ok(socket) => waiting.push(socket),
            Err(error) => break error,
        }
    };
    assert_eq!(full.raw_os_error(), Some(libc::EAGAIN));
    for _ in &waiting {
        assert!(listener.accept().unwrap().is_some());
    }
    Socket::connect(&path).unwrap();
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
