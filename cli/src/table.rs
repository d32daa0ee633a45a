//! Tables for people: columns as wide as their widest cell, three blanks between them.

/// Rows under a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as the head.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.head.len());
        self.rows.push(cells);
    }

    /// With the head.
    pub(crate) fn render(&self) -> String {
        let head = self.head.iter().map(|cell| (*cell).to_owned()).collect();
        self.lines(std::iter::once(&head).chain(&self.rows))
    }

    fn lines<'a>(&'a self, rows: impl Iterator<Item = &'a Vec<String>>) -> String {
        let widths = self.widths();
        let mut out = String::new();
        for row in rows {
            let padded: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - shown_len(cell).min(*width))))
                .collect();
            out.push_str(padded.join("   ").trim_end());
            out.push('\n');
        }
        out
    }

    fn widths(&self) -> Vec<usize> {
        (0..self.head.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| shown_len(cell));
                cells.chain([self.head[column].len()]).max().unwrap_or(0)
            })
            .collect()
    }
}

/// Characters without escape sequences of colours.
fn shown_len(cell: &str) -> usize {
    let mut is_escape = false;
    cell.chars()
        .filter(|c| match (is_escape, c) {
            (false, '\x1b') => {
                is_escape = true;
                false
            }
            (false, _) => true,
            (true, c) => {
                is_escape = *c != 'm';
                false
            }
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Style;
    use expect_test::expect;

    #[test]
    fn columns() {
        let mut table = Table::new(&["NAME", "STATUS", "AGE"]);
        table.row(vec!["a".into(), "Online".into(), "3s".into()]);
        table.row(vec!["länger".into(), String::new(), "2d".into()]);
        expect![[r#"
            NAME     STATUS   AGE
            a        Online   3s
            länger            2d
        "#]]
        .assert_eq(&table.render());
    }

    #[test]
    fn colours_have_no_width() {
        let mut table = Table::new(&["STATUS", "X"]);
        table.row(vec![Style::COLOUR.good("Online"), "y".into()]);
        expect!["STATUS   X\n\u{1b}[32mOnline\u{1b}[0m   y\n"].assert_eq(&table.render());
    }
}
