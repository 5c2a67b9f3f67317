//! A stranger who asks one node, datagram by datagram.

use std::net::SocketAddr;
use std::time::Duration;

use super::net::{Net, public_addr};
use crate::base::{InfoHash, NodeId};
use crate::wire::krpc::{self, Body, Message, Method, QueryHead};

pub(super) struct Client<'a> {
    pub net: &'a mut Net,
    pub me: SocketAddr,
}

impl Client<'_> {
    pub fn ask(&mut self, from: SocketAddr, method: &Method<'_>) -> Vec<u8> {
        let mut datagram = Vec::new();
        let head = QueryHead { tid: b"xy", id: NodeId::new([3; 20]), read_only: true };
        krpc::encode_query(&mut datagram, head, method);
        self.ask_raw(from, &datagram)
    }

    pub fn ask_raw(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<u8> {
        self.net.inject(from, self.me, datagram);
        self.net.run(Duration::from_millis(60));
        self.net.take_strays(from).pop().expect("an answer").1
    }

    pub fn token(&mut self, from: SocketAddr, info_hash: InfoHash) -> Vec<u8> {
        let answer = self.ask(from, &Method::get_peers(info_hash));
        let Body::Reply(reply) = Message::decode(&answer).unwrap().body else { panic!() };
        reply.token.unwrap().to_vec()
    }

    // The code of the error that came, or zero.
    pub fn announce(&mut self, from: SocketAddr, info_hash: InfoHash, token: &[u8]) -> i64 {
        let method =
            Method::AnnouncePeer { info_hash, port: 7, implied_port: false, seed: false, token };
        code(&self.ask(from, &method))
    }

    pub fn peers(&mut self, info_hash: InfoHash) -> Vec<SocketAddr> {
        let answer = self.ask(SocketAddr::from(([4, 4, 4, 4], 4)), &Method::get_peers(info_hash));
        let Body::Reply(reply) = Message::decode(&answer).unwrap().body else { panic!() };
        reply.peers().collect()
    }
}

pub(super) fn code(answer: &[u8]) -> i64 {
    match Message::decode(answer).unwrap().body {
        Body::Error(error) => error.code,
        _ => 0,
    }
}

pub(super) fn with_client(act: impl FnOnce(Client<'_>)) {
    let mut net = Net::new(50);
    let me = public_addr(0);
    let config = net.config();
    net.add_with(me, config, None);
    act(Client { net: &mut net, me });
}
