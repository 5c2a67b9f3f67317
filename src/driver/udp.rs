//! The UDP sockets of the DHT nodes. One reused buffer; a bounded number of datagrams a turn.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::base::addr::canonical;
use crate::base::datagrams::DatagramQueue;
use crate::base::limits::DATAGRAM_READ_MAX;
use crate::engine::SocketId;

/// The bound UDP sockets; the index is the `SocketId`.
#[derive(Debug)]
pub(super) struct UdpSockets {
    sockets: Vec<UdpSocket>,
    buffer: Vec<u8>,
    /// Datagrams the system did not take: its buffer was full, or there is no route.
    pub(super) send_failures: u64,
}

impl UdpSockets {
    pub(super) fn new(sockets: Vec<UdpSocket>) -> Self {
        // One byte more than is read: a longer datagram shows, and is dropped.
        Self { sockets, buffer: vec![0; DATAGRAM_READ_MAX + 1], send_failures: 0 }
    }

    /// Ready when some socket has a datagram.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        for socket in &self.sockets {
            if socket.poll_recv_ready(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Hands every waiting datagram to `take`, at most [`RECV_BATCH_MAX`] a socket.
    pub(super) fn receive(&mut self, mut take: impl FnMut(SocketId, SocketAddr, &[u8])) {
        for (id, socket) in (0u8..).zip(&self.sockets) {
            for _ in 0..RECV_BATCH_MAX {
                match socket.try_recv_from(&mut self.buffer) {
                    Ok((len, from)) if len <= DATAGRAM_READ_MAX => {
                        take(SocketId(id), canonical(from), &self.buffer[..len]);
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error of an earlier send, or the interface went: the next may do.
                    Err(_) => {}
                }
            }
        }
    }

    /// Sends all that waits.
    pub(super) fn send_all(&mut self, socket: SocketId, datagrams: &mut DatagramQueue) {
        for (to, datagram) in datagrams.iter() {
            self.send(socket, to, datagram);
        }
        datagrams.clear();
    }

    pub(super) fn send(&mut self, socket: SocketId, to: SocketAddr, datagram: &[u8]) {
        let Some(socket) = self.sockets.get(usize::from(socket.0)) else { return };
        // Straight to the system: tokio's own call refuses as long as it has not heard that the
        // socket is writable, and so would lose the first datagrams of every session.
        if SockRef::from(socket).send_to(datagram, &to.into()).is_err() {
            self.send_failures += 1;
        }
    }
}

/// Binds a UDP socket: IPv6 sockets are for IPv6 alone (each family has its own node, BEP 32).
pub(super) fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A burst of answers must not be lost; the system caps this at its own maximum.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

/// Datagrams read from one socket before others get their turn.
const RECV_BATCH_MAX: usize = 64;
const SOCKET_BUFFER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_datagram_of_a_fresh_socket_leaves() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut sockets = UdpSockets::new(vec![socket]);
        sockets.send(SocketId(0), receiver.local_addr().unwrap(), b"first");
        assert_eq!(sockets.send_failures, 0);
        let mut buffer = [0; 16];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);
    }
}
