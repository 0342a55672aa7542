//! How long a process has to live: it may be killed between any two things that it does, and it ends itself
//! when its journal fails.

/// What is in store for a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    steps_left: Option<u64>,
    over: bool,
}

impl Fate {
    /// It is killed after so many more steps.
    pub fn doom(&mut self, steps: u64) {
        self.steps_left = Some(steps);
    }

    /// Between two things that a process does: says whether it comes no further.
    pub fn strikes(&mut self) -> bool {
        match &mut self.steps_left {
            Some(0) => self.over = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.over
    }

    /// It ends itself.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// Whether it has ended.
    pub fn is_over(self) -> bool {
        self.over
    }
}
