//! The reader against another one, and the connection on real sockets.

mod reading;
mod sockets;
