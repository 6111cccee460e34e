//! `understudy status`.

use understudy_service::exit;

use crate::{args::Status, output, render, session::Session};

pub(super) async fn run(session: &Session, args: &Status) -> anyhow::Result<u8> {
    let overview = session.overview_of(args.group.as_ref()).await?;
    if args.json {
        output::print(&(serde_json::to_string_pretty(&overview)? + "\n"))?;
    } else {
        output::print(&render::status(&overview, output::style()))?;
    }
    Ok(if overview.all_held() { exit::OK } else { exit::ERROR })
}
