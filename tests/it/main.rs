//! The stories: what the gateway does, told against its public face.

mod hostile;
