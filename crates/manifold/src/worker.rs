//! `manifold worker` shows the threads that move frames.

use std::process::ExitCode;

use manifold_api::types::Worker;

use crate::cli::{WorkerArgs, WorkerCommand};
use crate::daemon;
use crate::output::{Align, Table, print, print_json};

/// Runs the command.
pub(crate) fn run(args: &WorkerArgs) -> anyhow::Result<ExitCode> {
    let WorkerCommand::List = args.command;
    let workers = daemon::call(args.run_dir.clone(), async |daemon| daemon.workers().await)?;
    if args.json.json {
        print_json(&workers)?;
    } else {
        print(&list(&workers))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(workers: &[Worker]) -> String {
    let mut table = Table::new(&[
        ("WORKER", Align::Right),
        ("CORE", Align::Right),
        ("QUEUE PAIRS", Align::Right),
        ("FRAMES", Align::Right),
        ("CYCLES/FRAME", Align::Right),
        ("HANDED OVER", Align::Right),
        ("SLEEPS", Align::Right),
    ]);
    for worker in workers {
        table.row([
            worker.worker.to_string(),
            worker.core.map_or_else(|| "any".to_owned(), |core| core.to_string()),
            worker.queue_pairs.to_string(),
            worker.frames.to_string(),
            per_frame(worker.busy_cycles, worker.frames),
            worker.handed_over.to_string(),
            worker.sleeps.to_string(),
        ]);
    }
    let mut text = table.render(0);
    for worker in workers.iter().filter(|worker| worker.sampled_frames > 0) {
        let stages = worker.stages.iter();
        let stages: Vec<_> = stages
            .map(|(stage, cycles)| format!("{stage} {}", per_frame(*cycles, worker.sampled_frames)))
            .collect();
        text += &format!("worker {}, cycles per frame: {}\n", worker.worker, stages.join(", "));
    }
    text
}

fn per_frame(cycles: u64, frames: u64) -> String {
    cycles.checked_div(frames).map_or_else(|| "-".to_owned(), |cycles| cycles.to_string())
}
