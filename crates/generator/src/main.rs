//! `manifold-generator CONFIG` runs the generator and prints its report; CONFIG and report are
//! JSON.

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(config), None) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: manifold-generator '{{\"ports\": [...], \"flows\": [...]}}'");
    };
    let config = serde_json::from_str(&config).context("the configuration is not valid")?;
    println!("{}", serde_json::to_string(&manifold_generator::run(&config)?)?);
    Ok(())
}
