//! JSON values as protobuf structs with ordered members, times and durations.

use graticule_model::Timestamp;
use graticule_proto::google::protobuf as wkt;
use graticule_proto::graticule::kds::v1::{OrderedList, OrderedStruct, OrderedValue, ordered_value};
use serde_json::{Map, Number, Value};

pub(super) fn to_struct(members: &Map<String, Value>) -> OrderedStruct {
    OrderedStruct { fields: members.iter().map(|(key, value)| (key.clone(), to_value(value))).collect() }
}

fn to_value(value: &Value) -> OrderedValue {
    use ordered_value::Kind;
    OrderedValue {
        kind: Some(match value {
            Value::Null => Kind::NullValue(0),
            Value::Bool(value) => Kind::BoolValue(*value),
            Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
            Value::String(value) => Kind::StringValue(value.clone()),
            Value::Array(values) => {
                Kind::ListValue(OrderedList { values: values.iter().map(to_value).collect() })
            }
            Value::Object(members) => Kind::StructValue(to_struct(members)),
        }),
    }
}

// The recursion is bounded: the protobuf decoder refuses deep nesting.
pub(super) fn from_struct(pb: OrderedStruct) -> Map<String, Value> {
    pb.fields.into_iter().map(|(key, value)| (key, from_value(value))).collect()
}

fn from_value(pb: OrderedValue) -> Value {
    use ordered_value::Kind;
    match pb.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(from_value).collect()),
        Some(Kind::StructValue(members)) => Value::Object(from_struct(members)),
    }
}

/// Whole numbers stay whole, so that they print as they were written.
fn number(value: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        Value::Number(Number::from(value as i64))
    } else {
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }
}

pub(super) fn to_time(time: &Timestamp) -> wkt::Timestamp {
    let nanos = time.as_nanosecond();
    let second = 1_000_000_000;
    wkt::Timestamp {
        seconds: i64::try_from(nanos.div_euclid(second)).unwrap_or_default(),
        nanos: i32::try_from(nanos.rem_euclid(second)).unwrap_or_default(),
    }
}

pub(super) fn from_time(pb: &wkt::Timestamp) -> Result<Timestamp, String> {
    let nanos = i128::from(pb.seconds) * 1_000_000_000 + i128::from(pb.nanos);
    Timestamp::from_nanosecond(nanos).map_err(|_| "time out of range".to_owned())
}

pub(super) fn to_duration(nanos: i64) -> wkt::Duration {
    wkt::Duration { seconds: nanos / 1_000_000_000, nanos: (nanos % 1_000_000_000) as i32 }
}

pub(super) fn from_duration(pb: &wkt::Duration) -> Result<i64, String> {
    pb.seconds
        .checked_mul(1_000_000_000)
        .and_then(|nanos| nanos.checked_add(i64::from(pb.nanos)))
        .ok_or_else(|| "duration out of range".to_owned())
}
