//! What the programs of this package share: the state of the machine, lines of figures, other people's programs.
//!
//! ```text
//!   pingpong ─ before ─▶ a sample of ours, or of a peer's program (peers) ─▶ line ─ after ─▶ spread
//! ```

pub mod arguments;
pub mod line;
pub mod log;
pub mod machine;
pub mod peers;
pub mod pingpong;
pub mod report;
pub mod spread;
