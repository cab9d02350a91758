//! What people ask of tasks.

use agentd_core::time::Tick;
use agentd_protocol::control::{ErrorKind, ErrorObject};

use super::desk::Desk;
use super::thread::Asker;

/// A question.
#[derive(Clone, Debug)]
pub enum Question {}

impl Desk {
    /// Answers, or does what is asked.
    pub(super) fn ask(&mut self, _tick: Tick, question: Question, asker: Asker) {
        match question {}
        #[expect(unreachable_code, reason = "questions come next")]
        asker.answer(Err(ErrorObject::new(ErrorKind::Internal, "")));
    }
}
