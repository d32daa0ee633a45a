//! `grat version`.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Everything that both sides say about themselves.
    #[arg(short = 'a', long)]
    detailed: bool,
}

/// Shows both versions; a control plane that does not answer is a warning.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let index = match session.client()?.get("/").await {
        Ok(index) => Some(index),
        Err(error) => {
            session.screen.warn(&format!("the version of the control plane is not known: {error:#}"));
            None
        }
    };
    session.screen.print(&render(index.as_ref(), arguments.detailed))
}

fn render(index: Option<&Value>, is_detailed: bool) -> String {
    let ours = env!("CARGO_PKG_VERSION");
    if is_detailed {
        let server = index.map(|index| serde_json::to_string_pretty(index).unwrap_or_default());
        let server = server.map(|server| format!("Server: {server}\n")).unwrap_or_default();
        return format!("Product:       Graticule\nVersion:       {ours}\n{server}");
    }
    let text = |key: &str| index.and_then(|index| index[key].as_str()).unwrap_or_default();
    let server = match index {
        Some(_) => format!("Server: {} {}\n", text("product"), text("version")),
        None => String::new(),
    };
    format!("Client: Graticule {ours}\n{server}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions() {
        let index = json!({"product": "Kuma", "version": "3.0.0"});
        assert!(render(Some(&index), false).ends_with("\nServer: Kuma 3.0.0\n"));
        assert!(!render(None, false).contains("Server"));
        assert!(render(Some(&index), true).contains("\"product\": \"Kuma\""));
    }
}
