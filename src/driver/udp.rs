//! The UDP sockets of the DHT nodes: reused buffers, a bounded number of datagrams a turn, and
//! as many of them in one system call as the system can.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::base::addr::canonical;
use crate::base::datagrams::DatagramQueue;
use crate::engine::SocketId;

mod batch;

/// The bound UDP sockets; the index is the `SocketId`.
#[derive(Debug)]
pub(super) struct UdpSockets {
    sockets: Vec<UdpSocket>,
    buffers: batch::Buffers,
    /// Datagrams the system did not take: its buffer was full, or there is no route.
    pub(super) send_failures: u64,
}

impl UdpSockets {
    pub(super) fn new(sockets: Vec<UdpSocket>) -> Self {
        Self { sockets, buffers: batch::Buffers::new(), send_failures: 0 }
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

    /// Hands waiting datagrams to `take`, at most [`batch::BATCH_MAX`] a socket.
    pub(super) fn receive(&mut self, mut take: impl FnMut(SocketId, SocketAddr, &[u8])) {
        for (id, socket) in (0u8..).zip(&self.sockets) {
            // Nothing waits; or an ICMP error of an earlier send, or the interface went: the next
            // may do.
            let _ = batch::receive(socket, &mut self.buffers, |from, datagram| {
                take(SocketId(id), canonical(from), datagram);
            });
        }
    }

    /// Sends all that waits.
    pub(super) fn send_all(&mut self, socket: SocketId, datagrams: &mut DatagramQueue) {
        if datagrams.is_empty() {
            return;
        }
        if let Some(socket) = self.sockets.get(usize::from(socket.0)) {
            self.send_failures += batch::send(socket, datagrams.iter());
        }
        datagrams.clear();
    }

    /// Sends one.
    pub(super) fn send(&mut self, socket: SocketId, to: SocketAddr, datagram: &[u8]) {
        if let Some(socket) = self.sockets.get(usize::from(socket.0)) {
            self.send_failures += batch::send(socket, std::iter::once((to, datagram)));
        }
    }
}

/// Binds a UDP socket: IPv6 sockets are for IPv6 alone (each family has its own node, BEP 32).
pub(super) fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A burst must not be lost; the system caps this at its own maximum.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

// The system counts some 800 bytes for a query: half a second of 20,000 a second, if we get no
// turn on the processor for so long.
const RECEIVE_BUFFER: usize = 4 << 20;
const SEND_BUFFER: usize = 1 << 20;

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

    // Whoever forges an ICMP message says nothing about a contact: none of them is even read.
    #[tokio::test]
    async fn closed_port_is_no_news_and_hides_no_datagram() {
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        let mut sockets = UdpSockets::new(vec![socket]);
        for n in 0..3u8 {
            sockets.send(SocketId(0), closed, b"is anybody there?");
            other.send_to(&[n], own).unwrap();
            let mut came = Vec::new();
            while came.is_empty() {
                std::future::poll_fn(|cx| sockets.poll_readable(cx)).await;
                sockets.receive(|_, from, datagram| came.push((from, datagram.to_vec())));
            }
            assert_eq!(came, [(other.local_addr().unwrap(), vec![n])]);
        }
        assert_eq!(sockets.send_failures, 0);
    }
}
