//! What the exit codes of `agentctl` mean. Scripts depend on them: they never change.

/// Everything asked for was done, or was so already.
pub const DONE: u8 = 0;
/// It was tried and failed for a reason that none of the other codes names.
pub const FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was changed.
pub const USAGE: u8 = 2;
/// No app of that name.
pub const NO_SUCH_APP: u8 = 3;
/// The daemon would not do it, and said why.
pub const REFUSED: u8 = 4;
/// The new version was tried and taken back; the old one serves.
pub const ROLLED_BACK: u8 = 5;
/// No daemon answers.
pub const NO_DAEMON: u8 = 6;
/// This user may look and not change, or may do neither.
pub const FORBIDDEN: u8 = 8;
/// It did not end within the time allowed.
pub const TIMED_OUT: u8 = 7;
