//! The words of a FlatBuffers schema (<https://flatbuffers.dev/grammar/>), with the lines on which they stand.

use super::schema::SchemaError;

/// One word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// A name, or a keyword.
    Name(String),
    /// A number as it was written.
    Number(String),
    /// A quoted text.
    Text(String),
    /// A sign such as `{`.
    Sign(char),
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Word::Name(text) | Word::Number(text) => write!(f, "`{text}`"),
            Word::Text(text) => write!(f, "\"{text}\""),
            Word::Sign(sign) => write!(f, "`{sign}`"),
        }
    }
}

/// Splits a schema into words. Comments are passed over.
pub(super) fn words(file: &str, text: &str) -> Result<Vec<(Word, u32)>, SchemaError> {
    let mut words = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest).ok_or_else(|| SchemaError::new(file, line, "a text that ends on its line", "`\"`"))?,
            'a'..='z' | 'A'..='Z' | '_' => span(rest, |c| c.is_ascii_alphanumeric() || c == '_'),
            '0'..='9' | '+' | '-' | '.' if is_number(rest) => {
                span(rest, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'))
            }
            _ => first.len_utf8(),
        };
        let (word, after) = rest.split_at(length);
        match first {
            '/' if word.len() > 1 => {}
            '"' => words.push((Word::Text(word.trim_matches('"').to_owned()), line)),
            'a'..='z' | 'A'..='Z' | '_' => words.push((Word::Name(word.to_owned()), line)),
            _ if word.len() > 1 || first.is_ascii_digit() => words.push((Word::Number(word.to_owned()), line)),
            _ if first.is_whitespace() || first == '\u{feff}' => {}
            '{' | '}' | '(' | ')' | '[' | ']' | ':' | ';' | ',' | '=' | '.' => words.push((Word::Sign(first), line)),
            _ => return Err(SchemaError::new(file, line, "a schema's words and signs", &format!("`{first}`"))),
        }
        line += u32::try_from(word.matches('\n').count()).unwrap_or(u32::MAX);
        rest = after;
    }
    Ok(words)
}

fn span(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn is_number(text: &str) -> bool {
    text.trim_start_matches(['+', '-', '.']).starts_with(|c: char| c.is_ascii_digit())
}

/// How long a quoted text is, quotes included.
fn quoted(text: &str) -> Option<usize> {
    let end = text.get(1..)?.find(['"', '\n'])? + 1;
    text.get(end..)?.starts_with('"').then_some(end + 1)
}
