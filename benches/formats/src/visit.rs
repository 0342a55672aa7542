//! Who looks at the fields of a message that was opened. All formats show the same fields in the same order.

/// Looks at fields.
pub trait Visit {
    /// Whether it wants to see them; else a message is opened, and none of its fields is looked at.
    const READS: bool = true;
    /// An integer.
    fn number(&mut self, number: u64);
    /// A floating-point number.
    fn float(&mut self, number: f64);
    /// A text, which is known to be UTF-8.
    fn text(&mut self, text: &str);
    /// Bytes.
    fn bytes(&mut self, bytes: &[u8]);
}

/// Opens only.
#[derive(Default)]
pub struct Nothing;

impl Visit for Nothing {
    const READS: bool = false;
    fn number(&mut self, _: u64) {}
    fn float(&mut self, _: f64) {}
    fn text(&mut self, _: &str) {}
    fn bytes(&mut self, _: &[u8]) {}
}

/// Reads every field, and of texts and bytes the length and the last byte, so that what is measured is the way there.
#[derive(Default)]
pub struct Sum(pub u64);

impl Sum {
    fn add(&mut self, number: u64) {
        self.0 = self.0.wrapping_add(number);
    }
}

impl Visit for Sum {
    fn number(&mut self, number: u64) {
        self.add(number);
    }

    fn float(&mut self, number: f64) {
        self.add(number.to_bits());
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64 + u64::from(bytes.last().copied().unwrap_or_default()));
    }
}

/// Keeps all that it is shown, to be compared.
#[derive(Debug, Default, PartialEq)]
pub struct Keep(pub Vec<Field>);

/// A field that was shown.
#[derive(Debug, PartialEq)]
pub enum Field {
    /// An integer.
    Number(u64),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Visit for Keep {
    fn number(&mut self, number: u64) {
        self.0.push(Field::Number(number));
    }

    fn float(&mut self, number: f64) {
        self.0.push(Field::Float(number));
    }

    fn text(&mut self, text: &str) {
        self.0.push(Field::Text(text.into()));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.push(Field::Bytes(bytes.into()));
    }
}
