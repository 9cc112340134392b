//! A figure as a line of JSON: `{"peer": .., "bench": .., "params": {..}, "value": .., "unit": ..}`.

use crate::pingpong::State;
use serde_json::{Map, Value, json};
use std::fmt;

/// One measurement of one peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Who was measured; ours is `dagger`.
    pub peer: String,
    /// What was measured.
    pub bench: String,
    /// Sizes, threads, repetition, and what the machine was like.
    pub params: Map<String, Value>,
    /// `None` if there is no such figure: `null` in the line.
    pub value: Option<f64>,
    /// Of the value: `ns/task`, `us`, `GFLOP/s`.
    pub unit: String,
}

/// What changes from repetition to repetition: all other parameters say what was measured.
const CIRCUMSTANCES: [&str; 5] = ["rep", "others_pct", "pingpong_ns", "pingpong_least_ns", "state"];

impl Line {
    /// A line without parameters.
    pub fn new(peer: &str, bench: &str, value: Option<f64>, unit: &str) -> Line {
        let value = value.filter(|value| value.is_finite()).map(six_digits);
        Line {
            peer: peer.to_owned(),
            bench: bench.to_owned(),
            params: Map::new(),
            value,
            unit: unit.to_owned(),
        }
    }

    /// The line that was printed so, if it is one.
    pub fn parse(text: &str) -> Option<Line> {
        let value: Value = serde_json::from_str(text).ok()?;
        Some(Line {
            peer: value.get("peer")?.as_str()?.to_owned(),
            bench: value.get("bench")?.as_str()?.to_owned(),
            params: value.get("params")?.as_object()?.clone(),
            value: value.get("value")?.as_f64(),
            unit: value.get("unit")?.as_str()?.to_owned(),
        })
    }

    /// With one more parameter.
    #[must_use = "it is the line with the parameter"]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Line {
        self.params.insert(key.to_owned(), value.into());
        self
    }

    /// With the ping-pong before and after: `pingpong_ns` is the larger one, `pingpong_least_ns` the smaller, `state` what
    /// both say. Nothing on one CPU.
    #[must_use = "it is the line with the parameters"]
    pub fn with_pingpong(self, before_and_after: Option<(f64, f64)>) -> Line {
        let Some((before, after)) = before_and_after else { return self };
        let tenths = |ns: f64| json!((ns * 10.0).round() / 10.0);
        self.with("pingpong_ns", tenths(before.max(after)))
            .with("pingpong_least_ns", tenths(before.min(after)))
            .with("state", State::of(before, after).name())
    }

    /// The state of the machine, `?` if nobody looked.
    pub fn state(&self) -> &str {
        self.params.get("state").and_then(Value::as_str).unwrap_or("?")
    }

    /// A number among the parameters.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.params.get(key)?.as_u64()
    }

    /// A text among the parameters.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.params.get(key)?.as_str()
    }

    /// The parameters that say what was measured, as `n=4 steps=10`.
    pub fn what(&self) -> String {
        let said = self.params.iter().filter(|(key, _)| !CIRCUMSTANCES.contains(&key.as_str()));
        let said = said.map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            value => format!("{key}={value}"),
        });
        said.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { peer, bench, params, value, unit } = self;
        let [peer, bench, unit] = [peer, bench, unit].map(|text| json!(text));
        let (params, value) = (json!(params), json!(value));
        write!(f, r#"{{"peer":{peer},"bench":{bench},"params":{params},"value":{value},"unit":{unit}}}"#)
    }
}

fn six_digits(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = Line::new("dagger", "chain", Some(123.456789), "ns/task").with("threads", 2).with("n", 10);
        let line = line.with_pingpong(Some((61.04, 50.0)));
        let text = line.to_string();
        assert_eq!(
            text,
            r#"{"peer":"dagger","bench":"chain","params":{"n":10,"pingpong_least_ns":50.0,"pingpong_ns":61.0,"state":"near","threads":2},"value":123.457,"unit":"ns/task"}"#
        );
        assert_eq!(Line::parse(&text), Some(line.clone()));
        assert_eq!((line.what(), line.state()), ("n=10 threads=2".to_owned(), "near"));
    }

    #[test]
    fn what_does_not_exist_is_null() {
        let line = Line::new("dagger", "metg80", Some(f64::NAN), "us");
        assert!(line.to_string().ends_with(r#""value":null,"unit":"us"}"#), "{line}");
        assert_eq!(Line::parse(&line.to_string()), Some(line));
        assert_eq!(Line::parse("FAILED: cholesky: wrong factor"), None);
        assert_eq!(Line::parse(r#"{"peer": "machine"}"#), None);
    }
}
