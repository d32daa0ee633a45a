//! Suite `kds`: recorded conversations of stock control planes (`recordings/kds`), played against our global by
//! played zones and against our zone by a played global. Compared is what each side has been told at every step
//! (README §4 there), not single messages: ours pushes at once where the reference waits for a tick.
//!
//! A side that a script played when it was recorded is not ours: 06, 06b and 06e have no zone to replace, 06c, 06d and
//! 06f no global. 05e shows only the streams that a zone opens.

use std::path::Path;

use anyhow::{Context as _, Result};
use graticule_testkit::Binaries;

use crate::Options;
use crate::accepted;
use crate::report::{CaseReport, SuiteReport, describe};
use play::{Check, Play, QUESTIONS, Role};
use recording::Recording;

mod differences;
mod ends;
mod peer;
mod play;
mod recording;
mod sides;
mod site;
mod state;
mod transport;

/// Name of the suite.
pub(crate) const NAME: &str = "kds";

/// The recording of a complete join.
const JOIN: &str = "01-fresh-join";

/// Recordings of which only the messages of some kinds were kept.
const PARTIAL: [&str; 1] = ["08-secrets-and-config"];

/// Recordings of a global without guards on deleting Meshes and Zones.
const UNSAFE_DELETE: [&str; 2] = ["05c-zone-deleted-while-connected", "07b-mesh-deletion-unsafe"];

/// Recordings that go on where another one ended, of which the zone needs only a write: the path of that.
const BEFORE: [(&str, &str, &str); 1] =
    [("05c-zone-deleted-while-connected", "05-zone-restart", "/meshes/default/meshservices/manual")];

/// Recordings that are played one after the other on the same control plane, and what is played.
const PLAYS: [(Role, &[&str]); 25] = [
    (Role::Zones, &[JOIN, "02-policies"]),
    (Role::Zones, &["03-zone-resources"]),
    (Role::Zones, &["04-global-restart", "04b-global-killed"]),
    (Role::Zones, &["05-zone-restart", "05b-zone-disable-delete"]),
    (Role::Zones, &["05c-zone-deleted-while-connected", "05d-zone-name-clash"]),
    (Role::Zones, &["06-nack-played-zone-down"]),
    (Role::Zones, &["06b-nack-played-zone-up"]),
    (Role::Zones, &["06e-ownership-clash"]),
    (Role::Zones, &["07-mesh-deletion"]),
    (Role::Zones, &["07b-mesh-deletion-unsafe"]),
    (Role::Zones, &["08-secrets-and-config"]),
    (Role::Zones, &[QUESTIONS]),
    (Role::Global, &[JOIN, "02-policies"]),
    (Role::Global, &["03-zone-resources"]),
    (Role::Global, &["04-global-restart", "04b-global-killed"]),
    (Role::Global, &["05-zone-restart", "05b-zone-disable-delete"]),
    (Role::Global, &["05c-zone-deleted-while-connected", "05d-zone-name-clash"]),
    (Role::Global, &["05e-zone-token-settings"]),
    (Role::Global, &["06c-nack-played-global"]),
    (Role::Global, &[ends::NAME]),
    (Role::Global, &["06f-resume-played-global"]),
    (Role::Global, &["07-mesh-deletion"]),
    (Role::Global, &["07b-mesh-deletion-unsafe"]),
    (Role::Global, &[QUESTIONS]),
    (Role::Global, &["08-secrets-and-config"]),
];

/// Runs the suite.
pub(crate) async fn run(
    options: &Options,
    binaries: &Binaries,
    done: &mut dyn FnMut(&CaseReport),
) -> Result<SuiteReport> {
    let folder = options.data.join("recordings/kds");
    let join = Recording::open(&folder, JOIN)?;
    let mut cases = Vec::new();
    for (role, names) in PLAYS {
        let prefix = role.ours();
        let wants = |name: &&&str| {
            let name = format!("{prefix}/{name}");
            options.case.as_ref().is_none_or(|part| name.contains(part.as_str()) || part.starts_with(&name))
        };
        if names.iter().find(wants).is_none() {
            continue;
        }
        let dir = options.work.join(format!("kds-{prefix}-{}", names.join("-")));
        let checks = match play(role, names, &join, &folder, binaries, &dir).await {
            Ok(checks) => checks,
            // One that cannot be played says nothing about the others.
            Err(error) => {
                let check = Check { index: 0, what: "play".into(), found: Err(error) };
                vec![(names.concat(), check)]
            }
        };
        for (name, check) in checks {
            let report = report(case(role, &name, check.index, &check.what), check);
            done(&report);
            cases.push(report);
        }
    }
    if options.case.is_none() {
        let report = accepted::stale(NAME, differences::ACCEPTED, &cases);
        done(&report);
        cases.push(report);
    }
    Ok(SuiteReport { name: NAME, cases })
}

async fn play(
    role: Role,
    names: &[&str],
    join: &Recording,
    folder: &Path,
    binaries: &Binaries,
    dir: &Path,
) -> Result<Vec<(String, Check)>> {
    if names == [ends::NAME] {
        let named = |check| (ends::NAME.to_owned(), check);
        return Ok(ends::run(folder, binaries, dir).await?.into_iter().map(named).collect());
    }
    let unsafe_delete = names.iter().any(|name| UNSAFE_DELETE.contains(name));
    let mut play = Play::start(role, join, binaries, dir, unsafe_delete, names == [QUESTIONS]).await?;
    if names == [QUESTIONS] {
        let named = |check| (QUESTIONS.to_owned(), check);
        let checks = match role {
            Role::Zones => play.questions(folder).await?,
            Role::Global => play.asked(folder).await?,
        };
        return Ok(checks.into_iter().map(named).collect());
    }
    let mut checks = Vec::new();
    for name in names {
        if let Some((_, other, path)) =
            BEFORE.iter().find(|(after, ..)| role == Role::Global && after == name)
        {
            play.before(Recording::open(folder, other)?.write(path).context("no such write")?.clone());
        }
        let recording = Recording::open(folder, name)?.with_first_requests(join);
        let recording = if PARTIAL.contains(name) { recording.completed(join) } else { recording };
        let recording = if role == Role::Global { recording.with_id_first() } else { recording };
        play::ensure_playable(&recording)?;
        let found = play.run(&recording).await?;
        checks.extend(found.into_iter().map(|check| ((*name).to_owned(), check)));
    }
    Ok(checks)
}

/// Name of a check.
fn case(role: Role, recording: &str, index: usize, what: &str) -> String {
    format!("{}/{recording}#{index} {what}", role.ours())
}

fn report(name: String, check: Check) -> CaseReport {
    let mut report = CaseReport { name, ..CaseReport::default() };
    match check.found {
        Err(error) => report.failure = Some(format!("    {error:#}\n")),
        Ok(found) => {
            let (accepted, rest) = accepted::split(differences::ACCEPTED, &report.name, found);
            report.accepted = accepted;
            report.failure = (!rest.is_empty()).then(|| describe(&rest));
        }
    }
    report
}
