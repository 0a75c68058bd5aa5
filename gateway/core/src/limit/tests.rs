use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

struct Headers(BTreeMap<&'static str, String>);

impl HeaderLookup for Headers {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(String::as_bytes)
    }
}

fn headers<const N: usize>(fields: [(&'static str, &str); N]) -> Headers {
    let owned = fields.map(|(name, value)| (name, value.to_owned()));
    Headers(owned.into_iter().collect())
}

fn limit(config: &Value) -> Arc<RateLimit> {
    let mut document = json!({"name": "l", "requests": 2, "unit": "second"});
    let fields = config.as_object().unwrap().clone();
    document.as_object_mut().unwrap().extend(fields);
    let config = serde_json::from_value(document).unwrap();
    Arc::new(RateLimit::compile(config).unwrap())
}

fn passes(limit: &Arc<RateLimit>, headers: &Headers, now_ms: u64) -> usize {
    let limits = [Arc::clone(limit)];
    let passed = (0..50).filter(|_| pass(&limits, headers, now_ms).is_ok());
    passed.count()
}

#[test]
fn calls_are_counted_by_unit() {
    for (unit, unit_ms) in [
        ("second", 1_000),
        ("minute", 60_000),
        ("hour", 3_600_000),
        ("day", 86_400_000),
    ] {
        let limit = limit(&json!({"requests": 4, "unit": unit}));
        let all = headers([]);
        assert_eq!(passes(&limit, &all, 10), 4, "{unit}");
        let limited = pass(&[Arc::clone(&limit)], &all, 10).unwrap_err();
        assert_eq!(limited.retry_after_ms, unit_ms / 4, "{unit}");
        assert_eq!(limited.retry_after_s(), (unit_ms / 4).div_ceil(1_000));
        assert_eq!(passes(&limit, &all, 10 + unit_ms / 4), 1, "{unit}");
    }
}

#[test]
fn only_calls_that_it_speaks_of_are_counted() {
    let limit = limit(&json!({"headers": [
        {"name": "x-env", "exact": "test"}, {"name": "x-user", "regex": "[a-z]+"}]}));
    assert_eq!(passes(&limit, &headers([]), 1), 50);
    assert_eq!(
        passes(&limit, &headers([("x-env", "test"), ("x-user", "1")]), 1),
        50
    );
    assert_eq!(
        passes(&limit, &headers([("x-env", "test"), ("x-user", "a")]), 1),
        2
    );
    assert_eq!(
        limit.demand(),
        Demand {
            passed: 2,
            refused: 48,
            shared_key: 0
        }
    );
}

#[test]
fn distinct_values_have_limits_of_their_own() {
    let limit = limit(&json!({"headers": [
        {"name": "x-api-key", "distinct": true}, {"name": "x-tenant", "distinct": true}]}));
    let of = |key, tenant| headers([("x-api-key", key), ("x-tenant", tenant)]);
    assert_eq!(passes(&limit, &of("a", "bc"), 1), 2);
    assert_eq!(
        passes(&limit, &of("ab", "c"), 1),
        2,
        "values do not run into each other"
    );
    assert_eq!(passes(&limit, &of("a", "bc"), 1), 0);
    assert_eq!(passes(&limit, &headers([("x-api-key", "a")]), 1), 50);
}

#[test]
fn a_call_is_counted_by_all_limits_or_none() {
    let limits = [
        limit(&json!({"requests": 5})),
        limit(&json!({"name": "m", "requests": 1})),
    ];
    let all = headers([]);
    assert!(pass(&limits, &all, 1).is_ok());
    for _ in 0..10 {
        assert_eq!(&*pass(&limits, &all, 1).unwrap_err().limit, "m");
    }
    assert_eq!(limits[0].demand().passed, 1);
    assert_eq!(passes(&limits[0], &all, 1), 4);
}

#[test]
fn a_global_limit_goes_on_with_its_last_share() {
    let limit = limit(&json!({"requests": 40, "global": true, "first_share_per_million": 250_000}));
    let all = headers([]);
    limit.confirm_share(4);
    assert_eq!(limit.share_age_ms(5), None);
    assert_eq!(passes(&limit, &all, 1), 10);
    limit.set_share(500_000, &[], 1_000);
    assert_eq!(passes(&limit, &all, 1_001), 20);
    assert_eq!(
        passes(&limit, &all, 3_600_000),
        20,
        "nobody set it for an hour"
    );
    assert_eq!(limit.share_age_ms(3_600_000), Some(3_599_000));
    assert_eq!(limit.outstanding(9, 3_600_000), [(None, 20)]);
    assert_eq!(limit.outstanding(9, 3_601_000), []);
    limit.confirm_share(3_600_000);
    assert_eq!(limit.share_age_ms(3_600_001), Some(1));
    limit.set_share(0, &[], 3_700_000);
    assert_eq!(
        pass(&[Arc::clone(&limit)], &all, 3_700_000)
            .unwrap_err()
            .retry_after_ms,
        1_000
    );
    let local = super::tests::limit(&json!({"requests": 4}));
    local.set_share(0, &[], 1);
    assert_eq!(passes(&local, &all, 1), 4, "a local limit has no share");
}

#[test]
fn a_key_has_a_share_of_its_own() {
    let limit = limit(&json!({
        "requests": 100, "unit": "hour", "global": true, "first_share_per_million": 500_000,
        "headers": [{"name": "x-api-key", "distinct": true}]}));
    let of = |key| headers([("x-api-key", key)]);
    assert_eq!(passes(&limit, &of("a"), 1), 50);
    assert_eq!(passes(&limit, &of("b"), 1), 50);
    assert_eq!(passes(&limit, &of("b"), 1), 0);
    let demand = limit.take_key_demand(10);
    let [b, a] = &demand[..] else {
        panic!("{demand:?}")
    };
    assert_eq!((b.passed, b.refused, a.passed, a.refused), (50, 50, 50, 0));
    // `a` is asked for here alone: all but a tenth of it moves here, and what passed is counted.
    limit.set_share(500_000, &[(a.key, 900_000), (b.key, 400_000)], 1);
    assert_eq!(limit.keys_with_shares(), 2);
    assert_eq!(passes(&limit, &of("a"), 1), 40);
    assert_eq!(passes(&limit, &of("b"), 1), 0);
    assert_eq!(passes(&limit, &of("c"), 1), 50, "as the limit says");
    assert_eq!(
        limit.outstanding(2, 1),
        [(Some(a.key), 90), (Some(b.key), 50)]
    );
    limit.set_share(250_000, &[], 1);
    assert_eq!(passes(&limit, &of("d"), 1), 25);
    assert_eq!(passes(&limit, &of("a"), 1), 0);
}

#[test]
fn shares_that_move_make_no_calls() {
    let global = json!({"requests": 1_000, "unit": "hour", "global": true});
    let gateways = [limit(&global), limit(&global)];
    let set = |first: u32| {
        gateways[0].set_share(first, &[], 1);
        gateways[1].set_share(1_000_000 - first, &[], 1);
    };
    let mut passed = 0;
    for first in [
        500_000, 900_000, 100_000, 700_000, 1_000_000, 300_000, 500_000,
    ] {
        set(first);
        for gateway in &gateways {
            passed += passes(gateway, &headers([]), 1);
        }
    }
    assert!(passed <= 1_000, "{passed}");
}

#[test]
fn no_requests_means_none_pass() {
    let limit = limit(&json!({"requests": 0, "unit": "minute"}));
    let limited = pass(&[limit], &headers([]), 1).unwrap_err();
    assert_eq!(limited.retry_after_ms, 60_000);
}

#[test]
fn workers_share_a_limit() {
    let limit = limit(&json!({"requests": 1_000, "unit": "day"}));
    let passed: usize = std::thread::scope(|scope| {
        let worker = || (0..500).filter(|_| pass(&[Arc::clone(&limit)], &headers([]), 1).is_ok());
        let workers = [(); 4].map(|()| scope.spawn(move || worker().count()));
        workers.map(|worker| worker.join().unwrap()).iter().sum()
    });
    assert_eq!(passed, 1_000);
}

proptest! {
    /// Shares that sum to the whole let pass what the whole lets pass, and no more.
    #[test]
    fn shares_sum_to_the_limit(
        requests in 1..2_000_u64,
        cut in 0..=1_000_000_u32,
        waits_ms in prop::collection::vec(0..50_u64, 1..60),
    ) {
        let global = json!({"requests": requests, "unit": "second", "global": true});
        let gateways = [limit(&global), limit(&global)];
        gateways[0].set_share(cut, &[], 0);
        gateways[1].set_share(1_000_000 - cut, &[], 0);
        let (mut now_ms, mut passed) = (1_000, 0);
        for wait_ms in waits_ms {
            now_ms += wait_ms;
            for gateway in &gateways {
                passed += passes(gateway, &headers([]), now_ms) as u64;
            }
        }
        let time_ms = now_ms - 1_000;
        // The bucket and what flowed in; each gateway may round up one call.
        prop_assert!(passed <= requests + requests * time_ms / 1_000 + 3);
    }
}
