//! The table of results at a job's end: one row a task, one column for each key of the results that
//! are JSON objects. Pure: tasks and their results in, text out.

use crate::table::{number, said, short, table, text};
use comfy_table::Cell;
use fleetwire_client::views::TaskView;
use serde_json::Value;

/// A task and what it left.
pub struct Row {
    /// The task.
    pub task: TaskView,
    /// Its result, if it has one.
    pub result: Option<Vec<u8>>,
}

/// The table; `more` is how many tasks it leaves out.
pub fn results(rows: &[Row], more: u64) -> String {
    let values: Vec<Option<Value>> = rows.iter().map(|row| parsed(row.result.as_deref())).collect();
    let mut keys: Vec<String> = Vec::new();
    for object in values.iter().flatten().filter_map(Value::as_object) {
        // Keys in the order in which the results wrote them, as far as that was kept.
        for key in object.keys().filter(|key| !keys.contains(key)).collect::<Vec<_>>() {
            if keys.len() < COLUMNS_MAX {
                keys.push(key.clone());
            }
        }
    }
    let plain = values.iter().flatten().any(|value| !value.is_object());
    let unusual = rows.iter().any(|row| row.task.status != "completed");

    let mut columns = vec!["task", "agent"];
    columns.extend(unusual.then_some("status"));
    columns.extend(keys.iter().map(String::as_str));
    columns.extend(plain.then_some("result"));
    let mut shown = table(&columns);
    for (row, value) in rows.iter().zip(&values) {
        let mut cells = vec![Cell::new(&row.task.task), Cell::new(row.task.agent.as_deref().unwrap_or("-"))];
        if unusual {
            let words = said(&row.task);
            let failed = row.task.status != "completed" && !words.is_empty();
            cells.push(Cell::new(if failed {
                format!("{}, {words}", row.task.status)
            } else {
                row.task.status.into()
            }));
        }
        let object = value.as_ref().and_then(Value::as_object);
        cells.extend(keys.iter().map(|key| cell(object.and_then(|object| object.get(key)))));
        if plain {
            cells.push(cell(value.as_ref().filter(|value| !value.is_object())));
        }
        shown.add_row(cells);
    }
    let mut text = text(&shown);
    if more > 0 {
        text.push_str(&format!("… and {more} more tasks\n"));
    }
    text
}

fn parsed(result: Option<&[u8]>) -> Option<Value> {
    let result = result?;
    let text = String::from_utf8_lossy(result);
    match serde_json::from_str(&text) {
        Ok(value) => Some(value),
        Err(_) => Some(Value::String(text.trim_end().to_owned())),
    }
}

fn cell(value: Option<&Value>) -> Cell {
    match value {
        None | Some(Value::Null) => Cell::new(""),
        Some(Value::Number(value)) => match value.as_f64() {
            Some(float) if value.is_f64() => number(short(float)),
            _ => number(value),
        },
        Some(Value::String(text)) => Cell::new(cut(text)),
        Some(other) => Cell::new(cut(&other.to_string())),
    }
}

/// The first line, and not too much of it.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let whole = line.len() == text.len() && line.chars().count() <= CELL_CHARS_MAX;
    if whole { line.to_owned() } else { line.chars().take(CELL_CHARS_MAX).chain(['…']).collect() }
}

const COLUMNS_MAX: usize = 12;
const CELL_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(task: &str, status: &'static str, result: &str) -> Row {
        let task = TaskView { task: task.into(), agent: Some("a1".into()), status, ..TaskView::default() };
        Row { task, result: (!result.is_empty()).then(|| result.into()) }
    }

    #[test]
    fn the_keys_of_the_results_are_the_columns() {
        let shown = results(
            &[row("1.0.0", "completed", "{\"words\":12,\"x\":0.5}"), row("1.0.1", "completed", "{\"words\":7}")],
            3,
        );
        assert_eq!(
            shown.lines().map(|line| line.split_whitespace().collect()).collect::<Vec<Vec<_>>>(),
            [
                vec!["TASK", "AGENT", "WORDS", "X"],
                vec!["1.0.0", "a1", "12", "0.5"],
                vec!["1.0.1", "a1", "7"],
                vec!["…", "and", "3", "more", "tasks"]
            ]
        );
    }

    #[test]
    fn other_results_and_failures_are_shown_too() {
        let shown = results(&[row("1.0.0", "completed", "hello\nworld\n"), row("1.0.1", "failed", "")], 0);
        assert!(shown.contains("STATUS") && shown.contains("RESULT") && shown.contains("hello…"), "{shown}");
        // Bytes that are no text are no reason to stumble.
        let odd = Row { result: Some(vec![0xff, 0xfe]), ..row("1.0.2", "completed", "") };
        assert!(results(&[odd], 0).contains("1.0.2"));
    }
}
