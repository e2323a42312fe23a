//! What the fuzz targets check: that the gateway reads the bytes of requests and events as their receivers do, or refuses them.
//! Each module takes any bytes and panics where two readers disagree.

pub mod answers;
pub mod events;
pub mod grammar;
pub mod index;
pub mod package;
pub mod splice;
pub mod tree;
