//! The session's server writes what the status line shows.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::team::{Team, session, stdout};

#[tokio::test]
async fn the_row_shows_who_is_there_when_somebody_looks() -> Result<()> {
    let team = Team::start().await?;
    // No one has looked yet: nothing is written.
    let unseen = session(&team.bob, "11111111-0000-4000-8000-000000000002", "Bob").await?;
    let row = |()| team.ann.run(&["status-line"]).map(|output| stdout(&output));
    assert_eq!(row(())?, "◇ team · no session looks\n");
    let _watched = session(&team.ann, "11111111-0000-4000-8000-000000000001", "Ann").await?;
    let deadline = Instant::now() + Duration::from_secs(20);
    let shown = loop {
        let shown = row(())?;
        if shown.contains("online") || Instant::now() > deadline {
            break shown;
        }
    };
    assert_eq!(shown, "◇ team · 2/2 online · Ann\n");
    assert!(!team.bob.config_dir().join("peer-cache.json").exists());
    drop(unseen);
    Ok(())
}
