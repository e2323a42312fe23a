//! What the fuzz targets check: that the gateway reads bytes of others as another reader does, or refuses them.
//! Each module takes any bytes and panics where two readers disagree.

pub mod answers;
pub mod events;
pub mod frame;
pub mod grammar;
pub mod index;
pub mod jwt;
pub mod package;
pub mod splice;
pub mod tree;
