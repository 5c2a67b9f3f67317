//! Many datagrams in one system call: `recvmmsg` and `sendmmsg`, on Linux. Everywhere else the same
//! functions make one call for each datagram.

use std::io;
use std::net::SocketAddr;

use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::base::limits::DATAGRAM_READ_MAX;

#[cfg(target_os = "linux")]
pub(super) use linux::{receive, send};
#[cfg(not(target_os = "linux"))]
pub(super) use portable::{receive, send};

/// Where datagrams are read to.
#[derive(Debug)]
pub(super) struct Buffers(Vec<u8>);

impl Buffers {
    pub(super) fn new() -> Self {
        Self(vec![0; BATCH_MAX * BUFFER_LEN])
    }
}

/// Datagrams read or sent in one call.
pub(super) const BATCH_MAX: usize = 64;
// Longer than what is read, so that a longer datagram shows. The rest lets the buffers begin in
// different sets of the processor's cache.
const BUFFER_LEN: usize = DATAGRAM_READ_MAX + 128;

#[cfg(target_os = "linux")]
mod linux {
    use std::array;
    use std::io::{IoSlice, IoSliceMut};
    use std::os::fd::AsRawFd;

    use nix::errno::Errno;
    use nix::sys::socket::{
        ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg,
    };

    use super::*;

    /// Hands at most [`BATCH_MAX`] waiting datagrams to `take`, and tells how many there were.
    pub fn receive(
        socket: &UdpSocket,
        buffers: &mut Buffers,
        mut take: impl FnMut(SocketAddr, &[u8]),
    ) -> io::Result<usize> {
        let mut rest = buffers.0.chunks_exact_mut(BUFFER_LEN);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH_MAX] = array::from_fn(|_| {
            [IoSliceMut::new(rest.next().expect("as many buffers as there are slices"))]
        });
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH_MAX, None);
        let received = socket.try_io(Interest::READABLE, || {
            let fd = socket.as_raw_fd();
            Ok(recvmmsg(fd, &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)?)
        })?;
        let mut count = 0;
        for datagram in received {
            count += 1;
            if let Some(from) = datagram.address.as_ref().and_then(to_std) {
                take(from, datagram.iovs().next().unwrap_or_default());
            }
        }
        Ok(count)
    }

    fn to_std(addr: &SockaddrStorage) -> Option<SocketAddr> {
        let v4 = addr.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into()));
        v4.or_else(|| addr.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into())))
    }

    /// Sends them all, and tells how many the system did not take.
    pub fn send<'a>(
        socket: &UdpSocket,
        datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>,
    ) -> u64 {
        let mut datagrams = datagrams.peekable();
        let mut failures = 0;
        while datagrams.peek().is_some() {
            let mut addrs = [None; BATCH_MAX];
            let mut slices = [[IoSlice::new(&[])]; BATCH_MAX];
            let batch = datagrams.by_ref().take(BATCH_MAX);
            let mut len = 0;
            for ((to, bytes), (addr, slice)) in batch.zip(addrs.iter_mut().zip(&mut slices)) {
                *addr = Some(SockaddrStorage::from(to));
                *slice = [IoSlice::new(bytes)];
                len += 1;
            }
            failures += send_batch(socket, &slices[..len], &addrs[..len]);
        }
        failures
    }

    fn send_batch(
        socket: &UdpSocket,
        slices: &[[IoSlice<'_>; 1]],
        addrs: &[Option<SockaddrStorage>],
    ) -> u64 {
        let (mut at, mut failures) = (0, 0);
        while at < slices.len() {
            let mut headers = MultiHeaders::preallocate(slices.len() - at, None);
            let none: [ControlMessage<'_>; 0] = [];
            let flags = MsgFlags::MSG_DONTWAIT;
            // Straight to the system: tokio's own call refuses as long as it has not heard that the
            // socket is writable, and so would lose the first datagrams of every session.
            let fd = socket.as_raw_fd();
            match sendmmsg(fd, &mut headers, &slices[at..], &addrs[at..], none, flags) {
                Ok(sent) => at += sent.count(),
                Err(Errno::EINTR) => {}
                // The system's buffer is full: the rest would meet the same.
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    return failures + (slices.len() - at) as u64;
                }
                // No route to this one; the next may do.
                Err(_) => {
                    failures += 1;
                    at += 1;
                }
            }
        }
        failures
    }
}

#[cfg(any(test, not(target_os = "linux")))]
mod portable {
    use socket2::SockRef;

    use super::*;

    /// Hands at most [`BATCH_MAX`] waiting datagrams to `take`, and tells how many there were.
    pub fn receive(
        socket: &UdpSocket,
        buffers: &mut Buffers,
        mut take: impl FnMut(SocketAddr, &[u8]),
    ) -> io::Result<usize> {
        for count in 0..BATCH_MAX {
            match socket.try_recv_from(&mut buffers.0[..BUFFER_LEN]) {
                Ok((len, from)) => take(from, &buffers.0[..len]),
                Err(error) if count == 0 => return Err(error),
                Err(_) => return Ok(count),
            }
        }
        Ok(BATCH_MAX)
    }

    /// Sends them all, and tells how many the system did not take.
    pub fn send<'a>(
        socket: &UdpSocket,
        datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>,
    ) -> u64 {
        // Straight to the system: tokio's own call refuses as long as it has not heard that the
        // socket is writable, and so would lose the first datagrams of every session.
        let socket = SockRef::from(socket);
        let failed =
            |(to, bytes): &(SocketAddr, &[u8])| socket.send_to(bytes, &(*to).into()).is_err();
        datagrams.filter(failed).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // Sends `count` datagrams of many lengths through one pair of functions, and reads them back.
    macro_rules! exchange {
        ($module:ident, $ip:expr, $count:expr) => {{
            let socket = |_| crate::driver::udp::bind(format!("{}:0", $ip).parse().unwrap());
            let [from, to] = [socket(0).unwrap(), socket(1).unwrap()];
            let addr = to.local_addr().unwrap();
            // Nobody can be reached at port 0: the one that fails must not take others with it.
            let nowhere = SocketAddr::new(addr.ip(), 0);
            let bytes: Vec<Vec<u8>> = (0..$count).map(|n| vec![n as u8; n * 7]).collect();
            let sent = bytes.iter().enumerate().flat_map(|(n, bytes)| {
                let lost = (n == $count / 2).then_some((nowhere, &b"lost"[..]));
                lost.into_iter().chain([(addr, &bytes[..])])
            });
            assert_eq!($module::send(&from, sent), 1);
            let (mut got, mut buffers) = (Vec::new(), Buffers::new());
            while got.len() < $count {
                to.readable().await.unwrap();
                let many = $module::receive(&to, &mut buffers, |peer, bytes| {
                    assert_eq!(peer, from.local_addr().unwrap());
                    got.push(bytes.to_vec());
                });
                assert!(many.is_ok_and(|many| many <= BATCH_MAX));
            }
            assert_eq!(got, bytes);
            // One that is longer than what is read comes, cut, and its length shows it.
            assert_eq!($module::send(&from, std::iter::once((addr, &[1; 20_000][..]))), 0);
            to.readable().await.unwrap();
            let mut len = 0;
            $module::receive(&to, &mut buffers, |_, bytes| len = bytes.len()).unwrap();
            assert!(len > DATAGRAM_READ_MAX);
        }};
    }

    #[tokio::test]
    async fn datagrams_of_a_batch_come_one_by_one_and_whole() {
        let has_v6 = std::net::UdpSocket::bind("[::1]:0").is_ok();
        let all = async {
            #[cfg(target_os = "linux")]
            {
                exchange!(linux, "127.0.0.1", 150);
                if has_v6 {
                    exchange!(linux, "[::1]", 150);
                }
            }
            exchange!(portable, "127.0.0.1", 150);
            if has_v6 {
                exchange!(portable, "[::1]", 150);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("everything comes");
    }
}
