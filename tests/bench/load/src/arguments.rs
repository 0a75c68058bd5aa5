//! `--name=value` options.

use std::collections::HashMap;
use std::str::FromStr;

use crate::Outcome;

/// The options of a command.
pub struct Arguments(HashMap<String, String>);

// === impl Arguments ===

impl Arguments {
    /// The command and its options.
    pub fn read(mut words: impl Iterator<Item = String>) -> Outcome<(String, Self)> {
        let command = words.next().ok_or("which command?")?;
        let mut options = HashMap::new();
        for word in words {
            let pair = word
                .strip_prefix("--")
                .and_then(|rest| rest.split_once('='));
            let (name, value) = pair.ok_or_else(|| format!("`{word}` is not --name=value"))?;
            options.insert(name.to_owned(), value.to_owned());
        }
        Ok((command, Self(options)))
    }

    /// An option that need not be given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A number, or what it is when not given.
    pub fn number<T: FromStr>(&self, name: &str, default: T) -> Outcome<T> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        text.parse()
            .map_err(|_| format!("--{name}: `{text}` is not a number").into())
    }

    /// An option that must be given.
    pub fn required(&self, name: &str) -> Outcome<&str> {
        Ok(self
            .text(name)
            .ok_or_else(|| format!("--{name} is missing"))?)
    }
}
