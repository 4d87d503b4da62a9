//! Figures with their targets, printed as one table and as JSON.

use hdrhistogram::Histogram;
use serde::Serialize;

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The figure, with its unit.
    pub value: String,
    /// What it has to reach, or empty.
    pub target: String,
    /// Whether it does; `None` when there is no target.
    pub ok: Option<bool>,
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// In the order of measuring.
    pub rows: Vec<Row>,
}

impl Report {
    /// Adds a figure that has no target.
    pub fn note(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.push(Row { what: what.into(), value: value.into(), target: String::new(), ok: None });
    }

    /// Adds a figure that must be at least `least`.
    pub fn at_least(&mut self, what: impl Into<String>, value: f64, least: f64, unit: &str) {
        let target = format!("≥ {} {unit}", number(least));
        self.push(Row {
            what: what.into(),
            value: format!("{} {unit}", number(value)),
            target,
            ok: Some(value >= least),
        });
    }

    /// Adds a figure that must be at most `most`.
    pub fn at_most(&mut self, what: impl Into<String>, value: f64, most: f64, unit: &str) {
        let target = format!("≤ {} {unit}", number(most));
        self.push(Row {
            what: what.into(),
            value: format!("{} {unit}", number(value)),
            target,
            ok: Some(value <= most),
        });
    }

    fn push(&mut self, row: Row) {
        eprintln!("   {}: {} {}", row.what, row.value, row.target);
        self.rows.push(row);
    }

    /// The table, for a terminal.
    pub fn table(&self) -> String {
        let width =
            |pick: fn(&Row) -> &String| self.rows.iter().map(|row| pick(row).chars().count()).max().unwrap_or(0);
        let (what, value, target) = (width(|row| &row.what), width(|row| &row.value), width(|row| &row.target));
        let line = |row: &Row| {
            let verdict = row.ok.map_or("", |ok| if ok { "ok" } else { "MISSED" });
            format!("{:<what$}  {:>value$}  {:<target$}  {verdict}", row.what, row.value, row.target)
                .trim_end()
                .to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// A number as people read it: no decimals from 1,000, one below 100, two below 10.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 && digit != '-' {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &rest
}

/// Latencies in microseconds, up to one minute, three digits.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds are valid")
}

/// A percentile in milliseconds.
pub fn ms(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(0.354), "0.35");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(999.9), "1,000");
    }
}
