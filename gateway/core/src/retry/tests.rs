use proptest::prelude::*;

use super::*;

const OUTCOMES_BELOW_HTTP: [Outcome; 4] = [
    Outcome::ConnectFailure,
    Outcome::Refused,
    Outcome::Reset,
    Outcome::Timeout,
];

fn policy(on: &[RetryOn]) -> RetryPolicy {
    RetryPolicy::new(Retry {
        on: on.to_vec(),
        http_codes: vec![503],
        grpc_codes: vec![10],
        attempts: 2,
        base_ms: 100,
        max_ms: 300,
        per_try_timeout_ms: None,
        budget_percent: None,
        budget_name: None,
        budget_interval_ms: 10_000,
        min_retries: 10,
        min_retries_interval_ms: 1_000,
        buffer_bytes: 65_536,
    })
}

const fn context(random: u64) -> RetryContext<'static> {
    RetryContext {
        pushback: None,
        left_ms: None,
        budget: None,
        now_ms: 0,
        random,
    }
}

const fn http(http_status: u16, code: Code) -> Outcome {
    Outcome::Answer(Answer {
        code,
        http_status,
        by_gateway: false,
    })
}

#[test]
fn words_cover_failures_below_http_as_documented() {
    let table = [
        (RetryOn::ServerError, [true, true, true, true]),
        (RetryOn::GatewayError, [true, true, true, true]),
        (RetryOn::Reset, [true, true, true, true]),
        (RetryOn::ConnectFailure, [true, false, false, false]),
        (RetryOn::RefusedStream, [false, true, false, false]),
        (RetryOn::Unavailable, [true, true, true, false]),
        (RetryOn::DeadlineExceeded, [false, false, false, true]),
        (RetryOn::Cancelled, [false; 4]),
        (RetryOn::Internal, [false; 4]),
        (RetryOn::ResourceExhausted, [false; 4]),
        (RetryOn::RetriableStatusCodes, [true, true, true, false]),
    ];
    for (on, covered) in table {
        assert_eq!(
            OUTCOMES_BELOW_HTTP.map(|outcome| policy(&[on]).covers(outcome)),
            covered,
            "{on:?}"
        );
    }
}

#[test]
fn words_cover_answers_as_documented() {
    let table: [(RetryOn, &[u8]); 8] = [
        (RetryOn::ServerError, &[13, 14, 15]),
        (RetryOn::GatewayError, &[14]),
        (RetryOn::Reset, &[]),
        (RetryOn::Cancelled, &[1]),
        (RetryOn::DeadlineExceeded, &[4]),
        (RetryOn::Internal, &[13]),
        (RetryOn::ResourceExhausted, &[8]),
        (RetryOn::RetriableStatusCodes, &[10, 14]),
    ];
    for (on, codes) in table {
        let covered = (0..=16_u8).filter(|&number| {
            let code = Code::from_number(number.into()).unwrap();
            policy(&[on]).covers(Outcome::status(code))
        });
        assert_eq!(covered.collect::<Vec<_>>(), codes, "{on:?}");
    }
    assert!(policy(&[RetryOn::ServerError]).covers(http(500, Code::Unknown)));
    assert!(!policy(&[RetryOn::GatewayError]).covers(http(500, Code::Unknown)));
    assert!(policy(&[RetryOn::GatewayError]).covers(http(502, Code::Unavailable)));
    for on in [RetryOn::ServerError, RetryOn::GatewayError] {
        assert!(!policy(&[on]).covers(http(400, Code::Internal)));
        assert!(!policy(&[on]).covers(http(429, Code::Unavailable)));
    }
    assert!(policy(&[RetryOn::RetriableStatusCodes]).covers(http(503, Code::Unavailable)));
    assert!(!policy(&[RetryOn::RetriableStatusCodes]).covers(http(502, Code::Unavailable)));
}

#[test]
fn ok_is_never_covered() {
    use RetryOn::*;
    let all = [
        ServerError,
        GatewayError,
        ConnectFailure,
        RefusedStream,
        Reset,
        RetriableStatusCodes,
        Cancelled,
        DeadlineExceeded,
        Internal,
        ResourceExhausted,
        Unavailable,
    ];
    assert!(!policy(&all).covers(Outcome::status(Code::Ok)));
}

#[test]
fn attempts_count_retries_after_the_first_try() {
    let policy = policy(&[RetryOn::Unavailable]);
    let mut state = RetryState::default();
    for expected in 1..=2 {
        assert!(matches!(
            policy.decide(&mut state, Outcome::Reset, context(7)),
            RetryDecision::After(_)
        ));
        assert_eq!(state.retries(), expected);
    }
    assert_eq!(
        policy.decide(&mut state, Outcome::Reset, context(7)),
        RetryDecision::No(NoRetry::AttemptsUsed)
    );
    assert_eq!(state.retries(), 2);
}

#[test]
fn pushback_is_obeyed_and_resets_the_back_off() {
    let policy = policy(&[RetryOn::Unavailable]);
    let mut state = RetryState {
        retries: 0,
        backoff_steps: 5,
    };
    let told = RetryContext {
        pushback: Some(Pushback::After(9_000)),
        ..context(1)
    };
    assert_eq!(
        policy.decide(&mut state, Outcome::Reset, told),
        RetryDecision::After(9_000)
    );
    assert_eq!(
        state,
        RetryState {
            retries: 1,
            backoff_steps: 0
        }
    );
    let stop = RetryContext {
        pushback: Some(Pushback::Stop),
        ..context(1)
    };
    assert_eq!(
        policy.decide(&mut state, Outcome::Reset, stop),
        RetryDecision::No(NoRetry::Pushback)
    );
}

#[test]
fn pushback_is_read_strictly() {
    assert_eq!(parse_pushback(b"0"), Pushback::After(0));
    assert_eq!(parse_pushback(b"1500"), Pushback::After(1_500));
    for value in [&b"-1"[..], b"", b"1.5", b"soon", b"99999999999", b"\xff"] {
        assert_eq!(parse_pushback(value), Pushback::Stop);
    }
}

#[test]
fn a_wait_that_outlasts_the_deadline_is_no_retry() {
    let policy = policy(&[RetryOn::Unavailable]);
    let mut state = RetryState::default();
    let late = RetryContext {
        pushback: Some(Pushback::After(50)),
        left_ms: Some(50),
        ..context(1)
    };
    assert_eq!(
        policy.decide(&mut state, Outcome::Reset, late),
        RetryDecision::No(NoRetry::Deadline)
    );
    assert_eq!(state, RetryState::default());
}

#[test]
fn the_budget_is_asked_last_and_stops_retries() {
    let policy = policy(&[RetryOn::Unavailable]);
    let mut budget = RetryBudget::over(100, 10_000, 0, 1_000);
    budget.request(0);
    let mut decide = |outcome| {
        let context = RetryContext {
            budget: Some(&mut budget),
            ..context(1)
        };
        policy.decide(&mut RetryState::default(), outcome, context)
    };
    assert_eq!(
        decide(Outcome::status(Code::NotFound)),
        RetryDecision::No(NoRetry::NotCovered)
    );
    assert!(matches!(decide(Outcome::Reset), RetryDecision::After(_)));
    assert_eq!(decide(Outcome::Reset), RetryDecision::No(NoRetry::Budget));
}

proptest! {
    #[test]
    fn waits_have_full_jitter_under_a_doubling_bound(random: u64, steps in 0..200_u32) {
        let bound = if steps == 0 { 100 } else if steps == 1 { 200 } else { 300 };
        prop_assert!(policy(&[]).backoff_ms(steps, random) <= bound);
    }
}

#[test]
fn waits_reach_both_ends() {
    let policy = policy(&[]);
    let waits: std::collections::BTreeSet<_> = (0..20_000)
        .map(|random| policy.backoff_ms(0, random))
        .collect();
    assert_eq!(
        (waits.first(), waits.last(), waits.len()),
        (Some(&0), Some(&100), 101)
    );
}

#[test]
fn a_try_ends_before_the_deadline_or_with_it() {
    let mut policy = policy(&[]);
    assert_eq!(policy.try_ends_ms(5, Some(100)), None);
    policy.config.per_try_timeout_ms = Some(50);
    assert_eq!(policy.try_ends_ms(5, None), Some(55));
    assert_eq!(policy.try_ends_ms(5, Some(56)), Some(55));
    assert_eq!(
        policy.try_ends_ms(5, Some(55)),
        None,
        "the end is the call's"
    );
}

#[test]
fn the_budget_is_made_as_configured() {
    let mut policy = policy(&[]);
    assert!(policy.new_budget(1).is_none());
    policy.config.budget_percent = Some(0);
    policy.config.budget_interval_ms = 20_000;
    policy.config.min_retries = 1;
    for (workers, retries) in [(1, 20), (4, 5)] {
        let mut budget = policy.new_budget(workers).unwrap();
        assert_eq!((0..99).filter(|_| budget.take(0)).count(), retries);
    }
}
