//! Watching live calls: which are shown, and how few of many.
//!
//! Calls are drawn when they begin, so that those that are not cost nothing more; what is known only at their end (code,
//! cluster) decides then. A worker shows its part of `calls_per_s_max`; when more would fit the filter it draws by a
//! share that follows the last second's count, so that every call has the same chance.

use std::sync::Arc;

use gateway_core::access::is_sensitive;
use gateway_core::trace::samples;
use gateway_core::{Code, Name, Route};
use serde::Deserialize;

use super::facts::Facts;
use crate::headers::HeaderList;

const MILLION: u32 = 1_000_000;
const PER_S_MAX: u32 = 10_000;

/// Which calls are shown; every condition that is given has to hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TapFilter {
    /// A route or rule.
    #[serde(default)]
    route: Option<Name>,
    /// The cluster that the last try went to.
    #[serde(default)]
    to_cluster: Option<Name>,
    /// The gRPC status, by name or number.
    #[serde(default)]
    code: Option<String>,
    /// A request's header field, and its value.
    #[serde(default)]
    header: Option<(Name, Name)>,
    /// The path, `/package.Service/Method`, with or without the first `/`.
    #[serde(default)]
    method: Option<Name>,
    /// Over all workers, 1 to 10,000. Default 100.
    #[serde(default = "default_per_s")]
    calls_per_s_max: u32,
    /// Which of all taps this is.
    #[serde(skip)]
    id: u64,
}

/// A call that is shown if its end fits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Drawn {
    /// By which tap.
    pub tap: u64,
    /// So many in a million were.
    pub per_million: u32,
}

const fn default_per_s() -> u32 {
    100
}

/// A worker's view of it.
#[derive(Debug)]
pub(crate) struct Tap {
    filter: Arc<TapFilter>,
    code: Option<Code>,
    /// How many calls this worker may show in a second.
    most: u32,
    /// How many in a million are drawn.
    share: u32,
    /// Of this second: drawn and fitting; shown.
    fitting: u32,
    shown: u32,
}

// === impl TapFilter ===

impl TapFilter {
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let filter: Self = serde_json::from_slice(json)
            .map_err(|error| format!("cannot read the filter of a tap: {error}"))?;
        let most = filter.calls_per_s_max;
        if !(1..=PER_S_MAX).contains(&most) {
            return Err(format!(
                "`calls_per_s_max` must be 1 to {PER_S_MAX}; it is {most}"
            ));
        }
        if filter.code.is_some() && filter.code().is_none() {
            let code = filter.code.unwrap_or_default();
            return Err(format!(
                "`code` must be a gRPC status, as `UNAVAILABLE` or 14; it is `{code}`"
            ));
        }
        if let Some((name, _)) = &filter.header
            && is_sensitive(name.as_bytes())
        {
            return Err(format!(
                "`header` must not be `{name}`: its values are secrets"
            ));
        }
        Ok(filter)
    }

    /// That of the tap with this number.
    pub fn of_tap(self, id: u64) -> Self {
        Self { id, ..self }
    }

    fn code(&self) -> Option<Code> {
        let word = self.code.as_deref()?;
        let all = (0..=16).filter_map(Code::from_number);
        let mut all =
            all.filter(|code| code.name().eq_ignore_ascii_case(word) || code.digits() == word);
        all.next()
    }
}

// === impl Tap ===

impl Tap {
    pub fn new(filter: Arc<TapFilter>, workers: usize) -> Self {
        let most = filter.calls_per_s_max.div_ceil(workers.max(1) as u32);
        Self {
            code: filter.code(),
            filter,
            most,
            share: MILLION,
            fitting: 0,
            shown: 0,
        }
    }

    /// Whether a new call is drawn.
    pub fn draws(&self, rule: &str, request: &HeaderList, random: u64) -> Option<Drawn> {
        if !samples(self.share, random) {
            return None;
        }
        let filter = &self.filter;
        let of_route = |name: &Name| {
            let route = Route::parent_of(rule);
            // A kind may stand before the route's own name.
            let bare = route.rsplit_once(' ').map_or(route, |it| it.1);
            [rule, route, bare].contains(&&**name)
        };
        if !filter.route.as_ref().is_none_or(of_route) {
            return None;
        }
        if let Some(method) = &filter.method {
            let path = request.value(b":path").unwrap_or_default();
            let path = path.strip_prefix(b"/").unwrap_or(path);
            if path != method.strip_prefix('/').unwrap_or(method).as_bytes() {
                return None;
            }
        }
        if let Some((name, value)) = &filter.header {
            let fits = |field: gateway_h2::Field<'_>| {
                field.name == name.as_bytes() && field.value == value.as_bytes() && !field.sensitive
            };
            if !request.iter().any(fits) {
                return None;
            }
        }
        Some(Drawn {
            tap: filter.id,
            per_million: self.share,
        })
    }

    /// Whether this tap has drawn a call, not one before it.
    pub fn drew(&self, drawn: Drawn) -> bool {
        drawn.tap == self.filter.id
    }

    /// Whether a call that it has drawn is shown, now that it has ended.
    pub fn shows(&mut self, facts: &Facts<'_>) -> bool {
        if self.code.is_some_and(|code| code != facts.code) {
            return false;
        }
        if let Some(cluster) = &self.filter.to_cluster {
            let last = facts.record.tries.last();
            if last.is_none_or(|last| last.to.cluster_id != *cluster) {
                return false;
            }
        }
        self.counts()
    }

    fn counts(&mut self) -> bool {
        self.fitting += 1;
        let room = self.shown < self.most;
        self.shown += u32::from(room);
        room
    }

    /// A second is over: the share follows what it would have been without one.
    pub fn tick(&mut self) {
        let fitting = u64::from(self.fitting.max(1)) * u64::from(MILLION);
        let all = fitting / u64::from(self.share.max(1));
        let share = u64::from(self.most) * u64::from(MILLION) / all.max(1);
        self.share = share.clamp(1, u64::from(MILLION)) as u32;
        self.fitting = 0;
        self.shown = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{MILLION, Tap, TapFilter};
    use crate::headers::HeaderList;
    use std::sync::Arc;

    fn filter(json: &str) -> Result<TapFilter, String> {
        TapFilter::parse(json.as_bytes())
    }

    #[test]
    fn filters_are_checked() {
        assert!(filter("{}").is_ok_and(|it| it.calls_per_s_max == 100));
        for (json, error) in [
            (r#"{"calls_per_s_max": 0}"#, "`calls_per_s_max` must be 1"),
            (r#"{"code": "BAD"}"#, "`code` must be"),
            (r#"{"header": ["Cookie", "a"]}"#, "`header` must not be"),
            (r#"{"to": "x"}"#, "cannot read"),
        ] {
            assert!(
                filter(json).is_err_and(|it| it.starts_with(error)),
                "{json}"
            );
        }
        assert!(filter(r#"{"code": "14"}"#).is_ok_and(|it| it.code().is_some()));
    }

    #[test]
    fn calls_are_drawn_by_what_is_known_at_their_beginning() {
        let tap = |json: &str| Tap::new(Arc::new(filter(json).expect("fine")), 1);
        let mut request = HeaderList::default();
        request.add(b":path", b"/a.B/C");
        request.add(b"x-user", b"me");
        let draws = |json: &str| tap(json).draws("app/r/rule-1", &request, 7).is_some();
        for fits in [
            r#"{"route": "app/r"}"#,
            r#"{"route": "app/r/rule-1"}"#,
            r#"{"method": "a.B/C"}"#,
            r#"{"method": "/a.B/C"}"#,
            r#"{"header": ["x-user", "me"]}"#,
        ] {
            assert!(draws(fits), "{fits}");
        }
        for other in [
            r#"{"route": "app"}"#,
            r#"{"method": "a.B/D"}"#,
            r#"{"header": ["x-user", "you"]}"#,
        ] {
            assert!(!draws(other), "{other}");
        }
    }

    #[test]
    fn what_one_tap_has_drawn_is_not_the_next_ones() {
        let tap = |id| {
            Tap::new(
                Arc::new(TapFilter {
                    id,
                    ..filter("{}").expect("fine")
                }),
                1,
            )
        };
        let (former, present) = (tap(1), tap(2));
        let drawn = former
            .draws("r", &HeaderList::default(), 7)
            .expect("all are");
        assert!(former.drew(drawn) && !present.drew(drawn));
    }

    #[test]
    fn a_route_is_asked_for_with_its_kind_or_without() {
        let request = HeaderList::default();
        let rule = "GRPCRoute app/users rule 0";
        let draws = |route: &str| {
            let json = format!(r#"{{"route": "{route}"}}"#);
            let tap = Tap::new(Arc::new(filter(&json).expect("fine")), 1);
            tap.draws(rule, &request, 7).is_some()
        };
        assert!(draws("app/users") && draws("GRPCRoute app/users") && draws(rule));
        assert!(!draws("users") && !draws("app/user"));
    }

    #[test]
    fn many_calls_are_shown_by_a_share_that_follows() {
        let filter = Arc::new(filter(r#"{"calls_per_s_max": 100}"#).expect("fine"));
        let mut tap = Tap::new(filter, 2);
        let mut second = |calls: u32| {
            let drawn = u64::from(calls) * u64::from(tap.share) / u64::from(MILLION);
            let shown = (0..drawn).filter(|_| tap.counts()).count();
            tap.tick();
            (shown, tap.share)
        };
        assert_eq!(second(5_000), (50, MILLION / 100));
        let (shown, share) = second(5_000);
        assert_eq!(
            (shown, share),
            (50, MILLION / 100),
            "the same chance for all"
        );
        second(0);
        assert_eq!(second(10).1, MILLION, "few calls are all shown");
    }
}
