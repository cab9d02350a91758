//! What a worker is started with: its command and its environment, listeners filled in.
//!
//! Owns the order in which variables win: the daemon's base, then each `env_file`, then `env`. What tells a worker of
//! its listeners and of itself (`LISTEN_FDS`, `AGENTD_APP`, …) is added after that by whoever starts it.

use std::collections::BTreeMap;

use super::app::AppConfig;
use super::env_file::{self, EnvFileError};
use super::placeholder;

/// The variable that tells a worker the descriptor of a listener: `AGENTD_FD_HTTP` for `http`.
#[must_use]
pub fn fd_variable(listener: &str) -> String {
    format!("AGENTD_FD_{}", listener.to_ascii_uppercase().replace('-', "_"))
}

impl AppConfig {
    /// The command with its placeholders filled in. `fds` holds the number that each listener's descriptor will have
    /// in the worker.
    #[must_use]
    pub fn expand_command(&self, fds: &BTreeMap<String, i32>) -> Vec<String> {
        self.expand(&self.command, fds)
    }

    /// Any words (a probe's command) with their placeholders filled in.
    #[must_use]
    pub fn expand(&self, words: &[String], fds: &BTreeMap<String, i32>) -> Vec<String> {
        words.iter().map(|word| placeholder::expand(word, &self.listen, fds)).collect()
    }

    /// What is wrong with the placeholders of its command, where releases brought it.
    #[must_use]
    pub fn placeholder_problem(&self) -> Option<String> {
        let problems = self.command.iter().flat_map(|word| super::document::unknown_placeholders(word, &self.listen));
        problems.map(|problem| problem.message).next()
    }

    /// The whole environment of a worker: `base`, then what each `env_file` holds now, then `env` with its
    /// placeholders filled in; later ones win.
    ///
    /// # Errors
    /// An `env_file` cannot be read or is not of its form.
    pub fn environment(
        &self,
        base: &BTreeMap<String, String>,
        fds: &BTreeMap<String, i32>,
    ) -> Result<BTreeMap<String, String>, EnvFileError> {
        let mut environment = base.clone();
        for file in &self.env_file {
            environment.extend(env_file::read(file)?);
        }
        let own = self.env.iter().map(|(name, value)| (name.clone(), placeholder::expand(value, &self.listen, fds)));
        environment.extend(own);
        Ok(environment)
    }
}
