//! The simulated clock of a mesh: it ticks for everyone at once, faster than real time if wanted.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many times faster than real time a clock runs: 1 to 100, in steps of a thousandth.
///
/// On the wire a JSON number. As the reference has it, numbers outside the range are moved into it, and what is not a number
/// counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed(u32);

impl Speed {
    /// Real time.
    pub const REAL: Self = Self(1_000);
    /// The fastest.
    pub const MAX: Self = Self(100_000);

    /// The speed nearest to a factor.
    pub fn of(factor: f64) -> Self {
        if factor.is_nan() {
            return Self::REAL;
        }
        // In range, so nothing is lost.
        Self::of_thousandths((factor.clamp(1.0, 100.0) * 1_000.0).round() as i64)
    }

    /// The speed nearest to so many thousandths of real time.
    pub fn of_thousandths(thousandths: i64) -> Self {
        let bounded = thousandths.clamp(i64::from(Self::REAL.0), i64::from(Self::MAX.0));
        Self(u32::try_from(bounded).unwrap_or(Self::REAL.0))
    }

    /// In thousandths of real time.
    pub fn thousandths(self) -> i64 {
        i64::from(self.0)
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1_000.0)
    }
}

impl Serialize for Speed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1_000) {
            to.serialize_u32(self.0 / 1_000)
        } else {
            to.serialize_f64(f64::from(self.0) / 1_000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Speed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let factor = match serde_json::Value::deserialize(from)? {
            serde_json::Value::Number(number) => number.as_f64(),
            serde_json::Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        Ok(Self::of(factor.unwrap_or(f64::NAN)))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Speed {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Speed".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number", "minimum": 0, "maximum": 100})
    }
}

/// `set_clock`: starts the clock, or changes it. A paused clock stays paused.
///
/// Errors: `invalid_args` (a time that cannot be read), `forbidden`, `rate_limited`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetClock {
    /// Absent: as it is, 1 for a new clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// ISO time that the clock is set to; absent: it goes on, a new clock starts at the present time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sim_time: Option<String>,
}

/// `pause_clock`: it stands still until `resume_clock`. Errors: `no_clock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseClock {}

/// `resume_clock`: it goes on where it stood. Errors: `no_clock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeClock {}

/// `stop_clock`: the mesh has no clock any more. Errors: `no_clock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopClock {}

/// `get_clock`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetClock {}

/// `clock_status`. Of a mesh without a clock `speed` is 0, `paused` true, `tick` 0, and both times are the present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ClockStatus {
    /// How many times faster than real time; 0 without a clock.
    #[serde(serialize_with = "write_speed", deserialize_with = "read_speed")]
    #[cfg_attr(feature = "schema", schemars(with = "Speed"))]
    pub speed: Option<Speed>,
    /// It stands still.
    pub paused: bool,
    /// Simulated minutes since its start.
    pub tick: u64,
    /// ISO time of the last tick, in the simulation.
    pub sim_time: String,
    /// ISO time at which it was started, in reality.
    pub started_at: String,
    /// It was paused because no one was left, and goes on when someone comes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto_paused: bool,
}

fn write_speed<S: Serializer>(speed: &Option<Speed>, to: S) -> Result<S::Ok, S::Error> {
    match speed {
        Some(speed) => speed.serialize(to),
        None => to.serialize_u32(0),
    }
}

fn read_speed<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Speed>, D::Error> {
    let factor = serde_json::Number::deserialize(from)?.as_f64().unwrap_or(f64::NAN);
    Ok((factor != 0.0).then(|| Speed::of(factor)))
}

/// What the system event `tick` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tick {
    /// Number of the tick: one more for each simulated minute. Ticks that could not be told in time are left out.
    pub tick: u64,
    /// ISO time of it, in the simulation.
    pub sim_time: String,
    /// How many times faster than real time.
    pub speed: Speed,
}

crate::wire_feature! {
    requests {
        /// Starts the simulated clock, or changes its speed or its time.
        SetClock = "set_clock" => answers ClockStatus, needs CanWriteState, once;
        /// Lets the simulated clock stand still.
        PauseClock = "pause_clock" => answers ClockStatus, needs CanWriteState, repeatable;
        /// Lets it go on.
        ResumeClock = "resume_clock" => answers ClockStatus, needs CanWriteState, repeatable;
        /// Ends the simulated clock.
        StopClock = "stop_clock" => answers ClockStatus, needs CanWriteState, once;
        /// Speed, tick and time of the simulated clock.
        GetClock = "get_clock" => answers ClockStatus, needs CanReadShared, repeatable;
    }
    answers {
        ClockStatus = "clock_status",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_speed_is_moved_into_its_range_and_what_is_not_a_number_is_real_time() {
        for (given, speed) in [
            (json!(1), json!(1)),
            (json!(2.5), json!(2.5)),
            (json!(0.1), json!(1)),
            (json!(-7), json!(1)),
            (json!(500), json!(100)),
            (json!(1e300), json!(100)),
            (json!("10"), json!(10)),
            (json!("abc"), json!(1)),
            (json!("NaN"), json!(1)),
            (Value::Null, json!(1)),
            (json!({}), json!(1)),
        ] {
            let read: Speed = serde_json::from_value(given.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), speed, "{given}");
        }
    }

    #[test]
    fn a_mesh_without_a_clock_has_speed_zero() {
        let none = ClockStatus {
            speed: None,
            paused: true,
            tick: 0,
            sim_time: "2026-04-08T10:00:00.000Z".into(),
            started_at: "2026-04-08T10:00:00.000Z".into(),
            auto_paused: false,
        };
        let text = serde_json::to_value(&none).unwrap();
        assert_eq!(text["speed"], 0);
        assert_eq!(serde_json::from_value::<ClockStatus>(text).unwrap(), none);
    }
}
