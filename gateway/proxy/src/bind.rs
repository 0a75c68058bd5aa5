//! Sockets of listeners: one for each worker, all on one port.
//!
//! With several workers the sockets share the port by `SO_REUSEPORT`, which another process of the same user could
//! join unnoticed; so the port is first bound without it, and a port in use is reported as such.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 1_024;

/// Binds `count` sockets; with port 0 all get the port that the system gave to the first.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let alone = open(address, false)?;
    if count == 1 {
        return Ok(vec![alone]);
    }
    let address = alone.local_addr()?;
    drop(alone);
    (0..count).map(|_| open(address, true)).collect()
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::bind;

    #[test]
    fn sockets_of_all_workers_share_one_port_and_nobody_else_does() {
        let any = "127.0.0.1:0".parse().expect("is an address");
        let sockets = bind(any, 3).expect("binds");
        let address = sockets[0].local_addr().expect("is bound");
        for socket in &sockets {
            assert_eq!(socket.local_addr().expect("is bound"), address);
        }
        let refused = bind(address, 2).expect_err("is taken");
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    }
}
