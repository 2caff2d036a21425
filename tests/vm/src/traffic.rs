//! This module measures traffic between guests by iperf3 and ping in them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::guest::{Guest, Job};

const TIMEOUT: Duration = Duration::from_secs(120);

/// The results of an iperf3 client.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Rate of what arrived, in Mbit/s.
    pub mbit_per_s: f64,
    /// Number of TCP segments sent again; zero for UDP.
    pub retransmits: u64,
    /// Part of the UDP datagrams that did not arrive, in percent; zero for TCP.
    pub lost_percent: f64,
    /// Smallest amount of data that any second of the flow saw, in bytes.
    pub worst_second: u64,
}

impl<'a> Guest<'a> {
    /// Gives the first Ethernet interface an address, such as "10.0.0.1/24", and brings it up.
    ///
    /// # Errors
    /// Fails with what `ip` complains about.
    pub fn configure(&self, address: &str) -> Result<()> {
        self.sh(&format!("ip addr replace {address} dev eth0 && ip link set eth0 up"))?;
        Ok(())
    }

    /// Pings `address` until `count` answers have come, at most one lost on the way (the first
    /// waits for ARP).
    ///
    /// # Errors
    /// When more are lost.
    pub fn ping(&self, address: &str, count: u32) -> Result<()> {
        self.ping_with(address, count, "")
    }

    /// Pings an address with more of ping's options than [`Guest::ping`].
    ///
    /// # Errors
    /// When more than one is lost.
    pub fn ping_with(&self, address: &str, count: u32, options: &str) -> Result<()> {
        let sent = count + 1;
        let text =
            self.run(&format!("ping -n -q -c {sent} -i 0.1 -W 5 {options} {address}"))?.stdout;
        let received = text
            .split(", ")
            .find_map(|part| part.strip_suffix(" received"))
            .and_then(|number| number.parse::<u32>().ok());
        ensure!(
            received.is_some_and(|received| received >= count),
            "{} pings {address} {sent} times: {text}",
            self.name()
        );
        Ok(())
    }

    /// Starts an iperf3 server, which serves one client after the other.
    ///
    /// # Errors
    /// When it does not start.
    pub fn iperf_server(&self) -> Result<()> {
        self.sh("iperf3 -s -D")?;
        Ok(())
    }

    /// Runs an iperf3 client against the server at `address` to its end.
    ///
    /// # Errors
    /// When iperf3 reports one, such as a lost connection.
    pub fn iperf(&self, address: &str, options: &str) -> Result<Flow> {
        self.start_iperf(address, options)?.finish()
    }

    /// Starts an iperf3 client against the server at `address`.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn start_iperf(&self, address: &str, options: &str) -> Result<RunningFlow<'_>> {
        let script = format!("iperf3 -J --connect-timeout 10000 -c {address} {options}");
        Ok(RunningFlow {
            job: self.spawn(&script)?,
            guest: self.name(),
            options: options.to_owned(),
        })
    }
}

/// A flow under way.
#[derive(Debug)]
pub struct RunningFlow<'a> {
    job: Job<'a>,
    guest: &'a str,
    options: String,
}

impl RunningFlow<'_> {
    /// Waits for its end.
    ///
    /// # Errors
    /// Fails as [`Guest::iperf`] does.
    pub fn finish(self) -> Result<Flow> {
        let output = self.job.wait(TIMEOUT)?;
        let what = format!("iperf3 {} in {}", self.options, self.guest);
        let report: Value = serde_json::from_str(&output.stdout).with_context(|| {
            format!("{what}: status {}, {}{}", output.status, output.stdout, output.stderr)
        })?;
        ensure!(report.get("error").is_none(), "{what}: {}", report["error"]);
        ensure!(output.status == 0, "{what}: status {}", output.status);
        let flow = parse(&report).with_context(|| format!("{what}: {report}"))?;
        println!("{what}: {flow:?}");
        Ok(flow)
    }
}

fn parse(report: &Value) -> Result<Flow> {
    let end = &report["end"];
    let bits = end["sum_received"]["bits_per_second"]
        .as_f64()
        .or_else(|| end["sum"]["bits_per_second"].as_f64())
        .context("no rate in iperf3's report")?;
    // The last interval may be a fraction of a second.
    let intervals = report["intervals"].as_array().context("no intervals in iperf3's report")?;
    let worst_second = intervals
        .iter()
        .map(|interval| &interval["sum"])
        .filter(|sum| sum["seconds"].as_f64().is_some_and(|seconds| seconds > 0.9))
        .filter_map(|sum| sum["bytes"].as_u64())
        .min();
    Ok(Flow {
        mbit_per_s: bits / 1e6,
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
        lost_percent: end["sum"]["lost_percent"].as_f64().unwrap_or(0.0),
        worst_second: worst_second.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    #[test]
    fn reports_are_read() {
        let tcp = json!({
            "intervals": [
                { "sum": { "bytes": 100, "seconds": 1.0 } },
                { "sum": { "bytes": 70, "seconds": 1.01 } },
                { "sum": { "bytes": 2, "seconds": 0.01 } },
            ],
            "end": {
                "sum_sent": { "retransmits": 3, "bits_per_second": 9e6 },
                "sum_received": { "bits_per_second": 8e6 },
            },
        });
        let flow = parse(&tcp).unwrap();
        assert_eq!((flow.mbit_per_s, flow.retransmits, flow.worst_second), (8.0, 3, 70));
        let udp = json!({
            "intervals": [],
            "end": { "sum": { "bits_per_second": 1e6, "lost_percent": 2.5 } },
        });
        let flow = parse(&udp).unwrap();
        assert_eq!((flow.mbit_per_s, flow.lost_percent), (1.0, 2.5));
        assert!(parse(&json!({ "error": "x" })).is_err());
    }
}
