//! `host record`: records of measurements in other forms.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use builder::Project;

use super::bench::table;
use crate::record::{
    file,
    sweep::Sweep,
    t4::{self, Results},
};

/// What is to be done with a record.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make one record of the shares that `host work` measured on GPUs of one model. Nothing is measured again, and there are
    /// no peers in it.
    Join {
        /// The record to write.
        record: PathBuf,
        /// The shares.
        #[arg(required = true)]
        shares: Vec<PathBuf>,
    },
    /// Write README's table of the newest bench beside peers, and print every shape of it.
    Table {
        /// Write nothing; fail where README has another table.
        #[arg(long)]
        check: bool,
    },
    /// Write a record's variants and times in T4, the format of Kernel Tuner. A/A tests and peers stay behind.
    ToT4 {
        /// The record, for example records/sweeps/seed-h100.jsonl.zst.
        record: PathBuf,
        /// The T4 results to write.
        results: PathBuf,
    },
    /// Make a record of T4 results that name this program's families and genes.
    FromT4 {
        /// T4 results.
        results: PathBuf,
        /// The record to write.
        record: PathBuf,
    },
}

/// Does it.
pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Join { record, shares } => {
            let shares = shares.iter().map(|share| Sweep::read(share)).collect::<Result<Vec<_>, _>>()?;
            let sweep = Sweep::join(shares)?;
            sweep.write(&record)?;
            println!("{}: {} variants", record.display(), sweep.rows.len());
        }
        Command::Table { check } => {
            let root = Project::find()?.root().to_owned();
            let newest = table::Newest::read(&root)?;
            let path = root.join("README.md");
            let at = || path.display().to_string();
            let readme = std::fs::read_to_string(&path).with_context(at)?;
            let new = table::put(&readme, &newest.markdown()).with_context(at)?;
            if check {
                ensure!(
                    new == readme,
                    "{}: its table is not that of the newest benches; host record table writes it",
                    at()
                );
                return Ok(());
            }
            file::write(&path, new.as_bytes())?;
            print!("{}", newest.shapes());
        }
        Command::ToT4 { record, results } => {
            let sweep = Sweep::read(&record)?;
            let text = serde_json::to_string(&t4::export(&sweep)?)?;
            file::write(&results, text.as_bytes())?;
            println!("{}: {} results", results.display(), sweep.rows.len());
        }
        Command::FromT4 { results, record } => {
            let at = || results.display().to_string();
            let text = std::fs::read_to_string(&results).with_context(at)?;
            let parsed: Results = serde_json::from_str(&text).with_context(at)?;
            let sweep = t4::import(&parsed).with_context(at)?;
            sweep.write(&record)?;
            println!("{}: {} variants", record.display(), sweep.rows.len());
        }
    }
    Ok(())
}
