//! `fleetwire wire`: frames and schemas, looked at from outside (docs/cli.md#wire).
//!
//! [`schema`] is what the schemas say, read from their own text, so that a frame is shown without code for each
//! message: [`read`] turns it into JSON, [`build`] the reverse, [`diff`] compares two schemas. What keeps to which
//! rule is judged by `fleetwire_common::envelope::Examiner`; the commands are in `commands/wire.rs`.

pub mod build;
pub mod diff;
mod lexer;
mod parse;
pub mod read;
pub mod schema;
#[cfg(test)]
mod tests;
