//! Numbers, and where they are kept: one JSON file a part.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};

/// The repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where the figures are.
fn file(name: &str) -> PathBuf {
    repository().join("target/bench").join(name)
}

/// Writes a part's figures.
pub(crate) fn save<T: Serialize>(name: &str, figures: &T) -> Result<()> {
    let file = file(name);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(figures)? + "\n";
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}

/// A part's figures, if it was ever measured.
pub(crate) fn load<T: DeserializeOwned>(name: &str) -> Result<Option<T>> {
    let file = file(name);
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            serde_json::from_str(&text).map(Some).with_context(|| format!("reading {}", file.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

/// The smallest value that a share of `share` (0 to 1) of all does not exceed; 0 of nothing.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Half of all values lie below; of an even number the mean of the middle two. 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let (low, high) =
        (percentile(values, 0.5), -percentile(&values.iter().map(|v| -v).collect::<Vec<_>>(), 0.5));
    f64::midpoint(low, high)
}

/// The largest value; 0 of nothing.
pub(crate) fn worst(values: &[f64]) -> f64 {
    percentile(values, 1.0)
}

/// Two decimals: more would claim what no figure here has.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen_and_the_median_lies_between() {
        let values = [5.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), 2.5);
        assert_eq!(median(&values[..3]), 3.0);
        assert_eq!(percentile(&values, 0.99), 5.0);
        assert_eq!(percentile(&values, 0.25), 1.0);
        assert_eq!(worst(&values), 5.0);
        assert_eq!((median(&[]), worst(&[])), (0.0, 0.0));
    }
}
