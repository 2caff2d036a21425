//! `manifold function` shows the adapter's PCIe functions and their configuration spaces.

use std::process::ExitCode;

use manifold_api::types::{Bar, Function, View};
use manifold_pci::dump;

use crate::cli::{DumpFormat, FunctionArgs, FunctionCommand};
use crate::output::{Align, Table, exact_size, print, print_json};
use crate::{daemon, listing, vf};

/// Runs the command.
pub(crate) fn run(args: FunctionArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        FunctionCommand::List { json } => {
            let functions = daemon::call(args.run_dir, async |d| d.functions().await)?;
            if json.json { print_json(&functions)? } else { print(&list(&functions))? }
        }
        FunctionCommand::Dump { function: id, format, raw } => {
            let view = if raw { View::Bus } else { View::Linux };
            let (function, space) = daemon::call(args.run_dir, async |daemon| {
                Ok((daemon.function(id).await?, daemon.config_space(id, view).await?))
            })?;
            match format {
                DumpFormat::Json => print_json(&space)?,
                DumpFormat::Lspci => {
                    let title = listing::title(function.identity);
                    print(&dump::lspci(space.bdf, &title, &space.bytes))?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(functions: &[Function]) -> String {
    let mut table = Table::new(&[
        ("FUNCTION", Align::Left),
        ("BDF", Align::Left),
        ("ID", Align::Left),
        ("CLASS", Align::Left),
        ("BARS", Align::Left),
        ("ATTACHED", Align::Left),
        ("SOCKET", Align::Left),
    ]);
    for function in functions {
        let identity = function.identity;
        table.row([
            function.id.to_string(),
            function.bdf.to_string(),
            format!("{:04x}:{:04x}", identity.vendor_id, identity.device_id),
            format!("{:06x}", identity.class_code),
            function.bars.iter().map(|&bar| short_bar(bar)).collect::<Vec<_>>().join(" "),
            vf::attached(function),
            function.socket.display().to_string(),
        ]);
    }
    table.render(0)
}

/// Returns a BAR as `0:16K@380000000000`: index, size and address.
fn short_bar(bar: Bar) -> String {
    format!("{}:{}@{:x}", bar.index, exact_size(bar.size), bar.address)
}
