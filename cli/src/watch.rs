//! `grat get --watch`: asks again and again, and shows what changed. The API has no stream of changes, so this is
//! for looking, not for reacting.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use graticule_model::Kind;
use jiff::Timestamp;
use serde_json::Value;

use crate::client::Client;
use crate::get::Question;
use crate::output::{self, Output};
use crate::screen::Style;
use crate::session::Session;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two questions while nobody answers.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Mesh and name.
type Id = (String, String);
type State = BTreeMap<Id, Value>;

/// What became of a resource.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    Added(Value),
    Modified(Value),
    Deleted(Value),
}

impl Change {
    fn parts(&self) -> (&'static str, &Value) {
        match self {
            Change::Added(item) => ("ADDED", item),
            Change::Modified(item) => ("MODIFIED", item),
            Change::Deleted(item) => ("DELETED", item),
        }
    }
}

/// Shows what is there, then every change; ends with an interrupt.
pub(crate) async fn run(
    session: &Session,
    client: &Client,
    question: &Question,
    output: Output,
) -> Result<()> {
    let mut state = State::new();
    let (mut is_first, mut pause) = (true, PAUSE);
    loop {
        match question.ask(client).await {
            Ok(items) => {
                if pause > PAUSE {
                    session.screen.note("the control plane answers again");
                    pause = PAUSE;
                }
                let now = Timestamp::now();
                let next = keyed(items);
                let changes = changes(&state, &next);
                let text = render(question.kind, &changes, output, now, session.screen.style, is_first)?;
                session.screen.print(&text)?;
                (state, is_first) = (next, false);
            }
            Err(error) if is_first => return Err(error),
            Err(error) => {
                if pause == PAUSE {
                    session.screen.warn(&format!("{error:#}; asking on"));
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

fn keyed(items: Vec<Value>) -> State {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    items.into_iter().map(|item| ((text(&item["mesh"]), text(&item["name"])), item)).collect()
}

/// What differs, in the order of mesh and name; deletions first.
fn changes(before: &State, after: &State) -> Vec<Change> {
    let gone = before.iter().filter(|(id, _)| !after.contains_key(*id));
    let gone = gone.map(|(_, item)| Change::Deleted(item.clone()));
    let there = after.iter().filter_map(|(id, item)| match before.get(id) {
        None => Some(Change::Added(item.clone())),
        Some(old) if old != item => Some(Change::Modified(item.clone())),
        Some(_) => None,
    });
    gone.chain(there).collect()
}

fn render(
    kind: Kind,
    changes: &[Change],
    output: Output,
    now: Timestamp,
    style: Style,
    has_head: bool,
) -> Result<String> {
    let mut text = String::new();
    match output {
        Output::Table | Output::Wide => {
            let items: Vec<Value> = changes.iter().map(|change| change.parts().1.clone()).collect();
            let table = output::table(kind, &items, output == Output::Wide, now).render();
            let mut lines = table.lines();
            let head = lines.next().unwrap_or_default();
            if has_head {
                text.push_str(&format!("EVENT      {head}\n"));
            }
            for (change, line) in changes.iter().zip(lines) {
                let word = format!("{:<8}", change.parts().0);
                let word = match change {
                    Change::Added(_) => style.good(&word),
                    Change::Modified(_) => style.careful(&word),
                    Change::Deleted(_) => style.bad(&word),
                };
                text.push_str(&format!("{word}   {line}\n"));
            }
        }
        Output::Name => {
            for (word, item) in changes.iter().map(Change::parts) {
                text.push_str(&format!("{} {}\n", word.to_lowercase(), output::name(kind, item)));
            }
        }
        Output::Yaml | Output::Json => {
            for (word, item) in changes.iter().map(Change::parts) {
                if output == Output::Yaml {
                    text.push_str(&format!(
                        "--- # {}\n{}",
                        word.to_lowercase(),
                        output::document(item, output)?
                    ));
                } else {
                    let event = serde_json::json!({"event": word, "resource": item});
                    text.push_str(&format!("{event}\n"));
                }
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    fn mk_state(items: &[(&str, &str)]) -> State {
        keyed(
            items.iter().map(|(name, idle)| json!({"mesh": "default", "name": name, "spec": idle})).collect(),
        )
    }

    #[test]
    fn only_what_changed_is_shown() {
        let before = mk_state(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let after = mk_state(&[("a", "1"), ("b", "2"), ("d", "1")]);
        let changes = changes(&before, &after);
        let now = "2026-08-10T12:00:00Z".parse().expect("time");
        let show = |output, has_head| {
            render(Kind::MeshTimeout, &changes, output, now, Style::PLAIN, has_head).expect("renders")
        };
        expect![[r#"
            EVENT      MESH      NAME   AGE
            DELETED    default   c      never
            MODIFIED   default   b      never
            ADDED      default   d      never
        "#]]
        .assert_eq(&show(Output::Table, true));
        expect![[r#"
            deleted meshtimeout/c
            modified meshtimeout/b
            added meshtimeout/d
        "#]]
        .assert_eq(&show(Output::Name, false));
        assert!(show(Output::Json, false).starts_with("{\"event\":\"DELETED\""));
        assert!(super::changes(&after, &after).is_empty());
    }
}
