//! Which descriptor a connection is on: for clients that show neither their socket nor its number.
//!
//! The pool can watch a connection by its [number](warmline::Watch::Raw) alone. Where a server
//! tells its client from where the connection came to it, the number can be found: on Linux, the
//! system lists all connections, and every descriptor of a process.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

/// The descriptor of this process's TCP connection from that port to that peer. `None`: it has no
/// such, or this is not Linux.
///
/// To be asked once for each connection that is opened, in a thread that may block: the system goes
/// through its whole table of connections, which takes it some milliseconds where it has made that
/// large because there is much memory; and this reads a link for each descriptor of the process.
#[must_use]
pub fn of_tcp(local_port: u16, peer: SocketAddr) -> Option<RawFd> {
    let inode = inode_of(local_port, peer)?;
    let link = format!("socket:[{inode}]");
    let descriptors = fs::read_dir("/proc/self/fd").ok()?;
    // One that is closed while this looks has no link any more, and is not the one that is sought.
    let mut found = descriptors.flatten().filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == link.as_str())
    });
    found.next()?.file_name().to_str()?.parse().ok()
}

/// What the system calls that socket.
fn inode_of(local_port: u16, peer: SocketAddr) -> Option<u64> {
    let peer = (peer.ip().to_canonical(), peer.port());
    // One to a plain address may have been made by way of a mapped one.
    let tables = if peer.0.is_ipv4() { &["tcp", "tcp6"][..] } else { &["tcp6"] };
    tables.iter().find_map(|name| {
        let table = fs::read_to_string(format!("/proc/self/net/{name}")).ok()?;
        table.lines().find_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let is_it =
                address(fields.get(1)?)?.1 == local_port && address(fields.get(2)?)? == peer;
            // What has no inode is closed already: nobody has a descriptor of it.
            let inode = fields.get(9)?.parse().ok().filter(|&inode| inode != 0);
            inode.filter(|_| is_it)
        })
    })
}

/// An address as those tables have it: words of 32 bits in the machine's own order of bytes, and a
/// port, all in hexadecimal.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (words, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(words.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match words.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            IpAddr::from(<[u8; 16]>::try_from(words.as_flattened()).ok()?)
        }
        _ => return None,
    };
    Some((ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn both_ends_of_a_connection_are_found_and_told_apart() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let listener = match TcpListener::bind(loopback) {
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => continue,
                listener => listener.unwrap(),
            };
            let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (theirs, from) = listener.accept().unwrap();
            let to = listener.local_addr().unwrap();
            assert_eq!(of_tcp(from.port(), to), Some(ours.as_raw_fd()));
            assert_eq!(of_tcp(to.port(), from), Some(theirs.as_raw_fd()));
        }
    }

    #[test]
    fn a_connection_by_way_of_mapped_addresses_is_found_by_the_plain_ones() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let Ok(ours) = TcpStream::connect(format!("[::ffff:127.0.0.1]:{}", to.port())) else {
            return; // a machine without IPv6
        };
        let (_theirs, from) = listener.accept().unwrap();
        assert_eq!(of_tcp(from.port(), to), Some(ours.as_raw_fd()));
    }

    #[test]
    fn what_is_no_connection_of_this_process_is_not_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let ours = TcpStream::connect(to).unwrap();
        let from = ours.local_addr().unwrap();
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], to.port()));
        assert_eq!(of_tcp(from.port(), elsewhere), None, "the same port of another machine");
        drop((ours, listener));
        assert_eq!(of_tcp(from.port(), to), None, "closed");
    }
}
